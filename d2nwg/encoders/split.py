"""The features of a data set, split into support and query images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2nwg.data.deep import PixelScale
from d2nwg.data.image_set import ImageSet, check_readable
from d2nwg.data.split import candidates, split_support_query
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.cache import content_hash
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number

PLAIN = PixelScale()  # of images of 8 bits a channel


@dataclass(frozen=True)
class SplitFeatures:
    """Features (D numbers an image) of the images that generation may see, and of those that score.

    Attributes:
        support, labels: (n, D) and their classes (n,).
        query, query_labels: (m, D) and their classes (m,), held out.
        support_index, query_index: (n,) and (m,) numbers of the images in the data set.
        notes: sentences on images that could not be read.
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


def read_split(
    images: ImageSet, encoder: Encoder, shots: int, seed: int, max_query: int | None, progress: Progress = silent
) -> SplitFeatures:
    """Encode the images that a split needs; unreadable ones are replaced by others of their class.

    Args:
        shots: support images a class.
        seed: of the split.
        max_query: most query images.
        progress: stage "Reading images".
    Raises:
        UserError: most images are unreadable, or a class has too few that can be read.
    """
    scale, features = images.pixels.scale(progress), torch.zeros(len(images), encoder.num_features)
    looked, readable = np.zeros((2, len(images)), bool)
    split: dict[str, Any] = {"seed": seed, "max_query": max_query}
    while True:
        wanted = candidates(images, shots, unreadable=looked & ~readable, **split)
        wanted = wanted[~looked[wanted]]
        if not len(wanted):
            break
        items = [images.items[i] for i in wanted]
        features[wanted], readable[wanted] = encoder.encode(items, progress=progress, **scale.option)
        looked[wanted] = True
        notes = check_readable(images, np.flatnonzero(looked), readable)
    support, query = split_support_query(images, shots, readable=readable, **split)
    labels = torch.from_numpy(images.labels)
    notes = (*notes, *scale.notes())
    return SplitFeatures(features[support], labels[support], features[query], labels[query], support, query, notes)


def read_unlabelled(
    items: Sequence[Path | bytes],
    encoder: Encoder,
    labelled: Sequence[Path | bytes],
    progress: Progress = silent,
    scale: PixelScale = PLAIN,
) -> tuple[Tensor, list[str]]:
    """Features (u, D) of images without labels, and sentences on those left out.

    Args:
        items: the images.
        labelled: support and query images. Those among ``items`` are left out: an image that scores a head must not
            help to make it.
        progress: stage "Reading images".
        scale: of the labelled images.
    """
    if not items:
        return torch.zeros(0, encoder.num_features), []
    taken = {content_hash(item) for item in labelled}
    fresh = [item for item in items if content_hash(item) not in taken]
    features, readable = encoder.encode(fresh, progress=progress, **scale.option)
    notes, unread = [], int((~readable).sum())
    if len(fresh) < len(items):
        notes.append(f"{number(len(items) - len(fresh), 'unlabelled image')} left out: also labelled here.")
    if unread:
        notes.append(f"{number(unread, 'unlabelled image')} left out: unreadable.")
    return features[torch.from_numpy(readable)], notes
