"""The features of a data set, images or texts, split into support and query."""

from collections.abc import Sequence
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

    def split(self, shots: int, seed: int) -> SplitFeatures:
        """A split with ``shots`` support items a class; unreadable items are replaced by others of their class.

        Raises:
            UserError: most items are unreadable, or a class has too few that can be read.
        """
        split: dict[str, Any] = {"seed": seed, "max_query": self.max_query}
        while True:
            unreadable = self._looked & ~self._readable
            wanted = candidates(self.data, shots, unreadable=unreadable, **split)
            wanted = wanted[~self._looked[wanted]]
            if not len(wanted):
                break
            items = [self.data.items[i] for i in wanted]
            found = self.encoder.encode(items, progress=self.progress, **self._scale.option)
            self._features[wanted], self._readable[wanted] = found
            self._looked[wanted] = True
            check_readable(self.data, np.flatnonzero(self._looked), self._readable)
        support, query = split_support_query(self.data, shots, readable=self._readable, **split)
        unread = check_readable(self.data, np.flatnonzero(self._looked), self._readable)
        features, labels = self._features, torch.from_numpy(self.data.labels)
        return SplitFeatures(
            features[support],
            labels[support],
            features[query],
            labels[query],
            support,
            query,
            (*unread, *self._scale.notes()),
        )


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
