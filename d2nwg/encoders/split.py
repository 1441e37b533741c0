"""The features of a data set, images or texts, split into support and query."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2nwg.data.deep import PixelScale
from d2nwg.data.labelled import LabelledSet, check_readable
from d2nwg.data.split import candidates, split_support_query
from d2nwg.data.text_set import Text
from d2nwg.encoders.cache import content_hash
from d2nwg.encoders.open import FeatureEncoder
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number

PLAIN = PixelScale()  # of images of 8 bits a channel
PART = 64  # query items that are read between two glimpses
SOON = 3.0  # seconds of reading before the first one


@dataclass(frozen=True)
class SplitFeatures:
    """Features (D numbers an item) of the items that generation may see, and of those that score.

    Attributes:
        support, labels: (n, D) and their classes (n,).
        query, query_labels: (m, D) and their classes (m,), held out.
        support_index, query_index: (n,) and (m,) numbers of the items in the data set.
        notes: sentences on items that could not be read.
    """

    support: Tensor
    labels: Tensor
    query: Tensor
    query_labels: Tensor
    support_index: np.ndarray
    query_index: np.ndarray
    notes: tuple[str, ...] = ()

    def by_class(self, kept: Tensor | None = None) -> list[Tensor]:
        """The support's features of each class, C tensors (M_i, D); only those that ``kept`` (n,) bool says."""
        kept = torch.ones(len(self.labels), dtype=torch.bool) if kept is None else kept
        return [self.support[kept & (self.labels == c)] for c in range(int(self.labels.max()) + 1)]


Glimpse = Callable[[SplitFeatures], str]


class SplitReader:
    """Splits of one data set, each drawn by its own seed; an item is encoded once, when a split first needs it.

    Args:
        max_query: most query items of a split.
        progress: stage "Reading images" or "Reading texts".
    """

    def __init__(
        self, data: LabelledSet, encoder: FeatureEncoder, max_query: int | None, progress: Progress = silent
    ) -> None:
        self.data, self.encoder, self.max_query, self.progress = data, encoder, max_query, progress
        self._scale = data.scale(progress)
        self._features = torch.zeros(len(data), encoder.num_features)
        self._looked, self._readable = np.zeros((2, len(data)), bool)

    def split(self, shots: int, seed: int, glimpse: Glimpse | None = None) -> SplitFeatures:
        """A split with ``shots`` support items a class; unreadable items are replaced by others of their class.

        Args:
            glimpse: where reading takes long, looks again and again at the part of the split that has been read, the
                whole support and some of the query, drawn at random; what it says stands behind the stage's name.
        Raises:
            UserError: most items are unreadable, or a class has too few that can be read.
        """
        split: dict[str, Any] = {"seed": seed, "max_query": self.max_query}
        if glimpse:
            self._read_in_parts(*split_support_query(self.data, shots, **split), seed, glimpse)
            check_readable(self.data, np.flatnonzero(self._looked), self._readable)
        reads = True
        while reads:
            wanted = candidates(self.data, shots, unreadable=self._looked & ~self._readable, **split)
            reads = self._read(wanted, self.progress)
            unread = check_readable(self.data, np.flatnonzero(self._looked), self._readable)
        support, query = split_support_query(self.data, shots, readable=self._readable, **split)
        return self._features_of(support, query, (*unread, *self._scale.notes()))

    def _read(self, wanted: np.ndarray, progress: Progress) -> bool:
        """Encode those of the items ``wanted`` that were not looked at yet; whether there were any."""
        wanted = wanted[~self._looked[wanted]]
        if not len(wanted):
            return False
        items = [self.data.items[i] for i in wanted]
        found = self.encoder.encode(items, progress=progress, **self._scale.option)
        self._features[wanted], self._readable[wanted] = found
        self._looked[wanted] = True
        return True

    def _read_in_parts(self, support: np.ndarray, query: np.ndarray, seed: int, glimpse: Glimpse) -> None:
        """Encode a split, the support first, with glimpses once it has taken `SOON`."""
        began, words, before, every = time.monotonic(), "", 0, len(support) + len(query)

        def progress(stage: str, done: int, total: int) -> None:
            self.progress(stage + words, before + done, every)

        query = np.random.default_rng(seed).permutation(query)
        for part in (support, *np.array_split(query, -(-len(query) // PART))):
            self._read(part, progress)
            before += len(part)
            seen = query[self._readable[query]]
            late = time.monotonic() - began > SOON and before < every
            if late and len(seen) and self._readable[support].all():
                words = f" · {glimpse(self._features_of(support, seen))}"

    def _features_of(self, support: np.ndarray, query: np.ndarray, notes: tuple[str, ...] = ()) -> SplitFeatures:
        features, labels = self._features, torch.from_numpy(self.data.labels)
        return SplitFeatures(features[support], labels[support], features[query], labels[query], support, query, notes)


def read_split(
    data: LabelledSet,
    encoder: FeatureEncoder,
    shots: int,
    seed: int,
    max_query: int | None,
    progress: Progress = silent,
) -> SplitFeatures:
    """One split, as a `SplitReader` of these arguments reads it. Raises UserError likewise."""
    return SplitReader(data, encoder, max_query, progress).split(shots, seed)


def read_unlabelled(
    items: Sequence[Any],
    encoder: FeatureEncoder,
    labelled: Sequence[Any],
    progress: Progress = silent,
    scale: PixelScale = PLAIN,
    noun: str = "image",
) -> tuple[Tensor, list[str]]:
    """Features (u, D) of items without labels, and sentences on those left out.

    Args:
        items: images, or texts.
        labelled: support and query items. Those among ``items`` are left out: an item that scores a head must not help
            to make it.
        progress: stage "Reading images" or "Reading texts".
        scale: of the labelled images.
        noun: what an item is called.
    """
    if not items:
        return torch.zeros(0, encoder.num_features), []
    taken = {_content(item) for item in labelled}
    fresh = [item for item in items if _content(item) not in taken]
    features, readable = encoder.encode(fresh, progress=progress, **scale.option)
    notes, unread = [], int((~readable).sum())
    if len(fresh) < len(items):
        notes.append(f"{number(len(items) - len(fresh), f'unlabelled {noun}')} left out: also labelled here.")
    if unread:
        notes.append(f"{number(unread, f'unlabelled {noun}')} left out: unreadable.")
    return features[torch.from_numpy(readable)], notes


def _content(item: Path | bytes | Text) -> object:
    """Equal for items with the same content."""
    return item if isinstance(item, str | tuple) else content_hash(item)
