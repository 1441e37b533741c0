"""The pixel scale of a data set: measured once over all of its images that have more than 8 bits a channel."""

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from d2nwg.data.decode import read_span
from d2nwg.data.deep import UINT16, PixelScale, Span, scale_of
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

PLAIN = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".avif"})  # 8 bits a channel as decoded
LOOKED_AT = 200  # in a sample
BLOCK = 64  # images decoded before the next ones are chosen


class Pixels:
    """The scale of a data set, measured when it is first asked for; of a part of the set it is that of the whole."""

    def __init__(self, items: Sequence[Path | bytes]):
        self._items, self._guard = items, threading.Lock()
        self._scale: PixelScale | None = None

    def __getstate__(self) -> dict:  # a data set is sent to the process of a lent GPU
        return {key: value for key, value in vars(self).items() if key != "_guard"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _guard=threading.Lock())

    def scale(self, progress: Progress = silent) -> PixelScale:
        """Stage: "Measuring pixel values"."""
        with self._guard:
            if self._scale is None:
                self._scale = measure(self._items, progress)
            return self._scale


def measure(items: Sequence[Path | bytes], progress: Progress = silent, known: Collection[str] = ()) -> PixelScale:
    """The scale of these images, for kinds that are not ``known``. One that cannot be read does not count."""
    numbers, known = _candidates(items), set(known)
    spans: dict[str, list[Span]] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(numbers), BLOCK):
            if spans:  # there is something to measure
                progress("Measuring pixel values", start, len(numbers))
            block = [items[i] for i in numbers[start : start + BLOCK]]
            for found in pool.map(lambda item: _span(item, known), block):
                if found is not None:
                    spans.setdefault(found[0], []).append(found[1])
            if any(span.high >= 2**15 for span in spans.get(UINT16, ())):
                known.add(UINT16)  # all bits are in use: nothing more to learn
    return scale_of(spans)


def _candidates(items: Sequence[Path | bytes]) -> list[int]:
    """Numbers of the items that can have more than 8 bits a channel, by their first bytes. Of files that are named as
    photographs are, and of the rows of a table, a sample is looked at, and the others where there are some in it."""
    if isinstance(items, (list, tuple)):
        named = [not isinstance(item, bytes) and Path(item).suffix.lower() in PLAIN for item in items]
        sampled, rest = np.flatnonzero(named), np.flatnonzero(~np.array(named, bool)).tolist()
    else:
        sampled, rest = np.arange(len(items)), []
    few = sampled[np.linspace(0, len(sampled) - 1, min(len(sampled), LOOKED_AT)).astype(int)]
    if any(_may_be_deep(items[int(i)]) for i in few):
        rest = range(len(items))
    return [i for i in rest if _may_be_deep(items[i])]


def _may_be_deep(item: Path | bytes) -> bool:
    if isinstance(item, bytes):
        head = item[:26]
    else:
        try:
            if not Path(item).is_file():  # a FIFO would block
                return False
            with open(item, "rb") as file:
                head = file.read(26)
        except (OSError, ValueError):
            return False
    if head.startswith(b"\x89PNG"):
        return head[24:25] == b"\x10"
    return head.startswith((b"II", b"MM", b"P2", b"P5", b"Pf"))  # TIFF, and the greys of PPM


def _span(item: Path | bytes, known: Collection[str]) -> tuple[str, Span] | None:
    try:
        return read_span(item, known)
    except UserError:
        return None
