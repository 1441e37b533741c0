"""Blind votes between two models, counted over conversations, and kept in a file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.utils.paths import read_json, write_whole
from d2nwg.utils.text import number

if TYPE_CHECKING:
    from torch import Tensor

SAME = "same"  # a vote for neither
KEPT = 500  # files in a folder
MOST = 10**6  # of each count, in a file
MAX_BYTES = 4096


@dataclass(frozen=True)
class Tally:
    """Votes between two models.

    Attributes:
        first, second: votes for each.
        same: votes for neither.
        equal: pairs of equal answers, which are put to no vote.
    """

    first: int = 0
    second: int = 0
    same: int = 0
    equal: int = 0

    @property
    def votes(self) -> int:
        """How many there are."""
        return self.first + self.second + self.same

    @property
    def p(self) -> float | None:
        """The two-sided p-value of the exact binomial (sign) test; None without a decided vote."""
        from scipy.stats import binomtest

        decided = self.first + self.second
        return float(binomtest(self.first, decided).pvalue) if decided else None

    def counted(self, vote: int | str) -> "Tally":
        """With one more vote: the index of a model, or `SAME`."""
        name = SAME if vote == SAME else ("first", "second")[int(vote)]
        return replace(self, **{name: getattr(self, name) + 1})

    def words(self, names: Sequence[str]) -> str:
        """In a sentence or two."""
        said = []
        if self.votes:
            said.append(f"{names[0]} {self.first}, {names[1]} {self.second}, the same {self.same}.")
        if self.p is not None:
            ahead = names[0] if self.first > self.second else names[1]
            chance = f"were both equally good, a split at least as uneven would have p = {self.p:.2g}"
            said.append(
                f"{ahead} is preferred: {chance} (exact binomial test; looked at after every vote, chance gets there "
                "more often)."
                if self.p < 0.05
                else f"That is within chance: {chance} (exact binomial test)."
            )
        if self.equal:
            said.append(f"{number(self.equal, 'pair')} of equal answers left out.")
        return " ".join(said) or "No votes yet."


class Ballots:
    """Tallies of pairs of models: a small JSON file each, or in memory only.

    Args:
        folder: where the files are, of which the newest `KEPT` stay; None for memory.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self._held: dict[str, Tally] = {}  # also what the disk refused

    def read(self, pair: str) -> Tally:
        """The tally of a pair; an empty one where there is no file, or one that this program did not write."""
        if self.folder is None or pair in self._held:
            return self._held.get(pair, Tally())
        found = read_json(self._file(pair), MAX_BYTES)
        if not isinstance(found, dict) or found.keys() != asdict(Tally()).keys():
            return Tally()
        fits = all(type(value) is int and 0 <= value <= MOST for value in found.values())
        return Tally(**found) if fits else Tally()

    def add(self, pair: str, *, vote: int | str | None = None, equal: int = 0) -> Tally:
        """Count a vote, or pairs of equal answers; in memory where the disk refuses. Returns the tally with them."""
        with self._alone():
            now = self.read(pair)
            now = replace(now if vote is None else now.counted(vote), equal=now.equal + equal)
            try:
                self._write(pair, now)
            except OSError:
                self._held[pair] = now
        return now

    def reset(self, pair: str) -> Tally:
        """Forget a tally. Returns an empty one."""
        self._held.pop(pair, None)
        if self.folder is not None:
            with suppress(OSError):
                self._file(pair).unlink(missing_ok=True)
        return Tally()

    def _file(self, pair: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(pair.encode()).hexdigest()[:32]}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Several processes may count at once; a lock that is not to be had is done without."""
        from filelock import FileLock, Timeout

        with ExitStack() as held:
            if self.folder is not None:
                with suppress(OSError, Timeout):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    held.enter_context(FileLock(self.folder / ".lock", timeout=10))
            yield

    def _write(self, pair: str, tally: Tally) -> None:
        if self.folder is None or pair in self._held:
            self._held[pair] = tally
            return
        write_whole(self._file(pair), json.dumps(asdict(tally)) + "\n")
        with suppress(OSError):
            for old in sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
                old.unlink(missing_ok=True)


def pair_of(model: str, tensors: Mapping[str, "Tensor"]) -> str:
    """What a base (by its name) and its refinement (the tensors that differ, by theirs) are known by."""
    from d2nwg.llm.delta import fingerprint

    changed = {name: fingerprint(tensor) for name, tensor in sorted(tensors.items())}
    return hashlib.sha256(json.dumps([model, changed]).encode()).hexdigest()
