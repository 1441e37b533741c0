"""How long a line is: the works of all visitors that take turns in one slot."""

from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from statistics import median
from typing import Any
from weakref import WeakSet

from d2nwg.ui.work import Work
from d2nwg.utils.progress import format_seconds

REMEMBERED = 20  # works, whose time tells how long the next ones will take


class Line:
    """Works that take turns, and how long the last ones took."""

    def __init__(self) -> None:
        self._works: WeakSet[Work] = WeakSet()  # one that a visitor drops is gone by itself
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    def join(self, work: Work) -> None:
        """`work` waits for its turn from now on."""
        self._works.add(work)

    def leave(self, work: Work, seconds: float) -> None:
        """`work` has had its turn, and taken so long."""
        self._works.discard(work)
        self._took.append(seconds)

    def ahead(self, work: Work) -> int:
        """How many have their turn before one that has just joined."""
        return sum(other is not work and not other.cancelled for other in list(self._works))

    def wait(self, work: Work) -> str:
        """How many are before one that has just joined, and how long they will take, as far as that is known; empty
        where it is next."""
        if not (ahead := self.ahead(work)):
            return ""
        long = f", about {format_seconds(ahead * median(self._took))}" if self._took else ""
        return f"Waiting: {'one is' if ahead == 1 else f'{ahead} are'} ahead of you{long}."


@lru_cache(16)
def _line(key: str) -> Line:
    return Line()


def line_of(slot: Mapping[str, Any]) -> Line | None:
    """The line in which the works of a slot (`d2nwg.ui.events.COMPUTE`) wait; None where they do not."""
    key = slot.get("concurrency_id")
    return _line(key) if key else None
