"""The features of a split into support and query images."""

import numpy as np
import torch
from torch import Tensor

from d2nwg.data.image_set import ImageSet, check_readable
from d2nwg.data.split import candidates, split_support_query
from d2nwg.encoders.base import Encoder
from d2nwg.utils.progress import Progress, silent


def read_split(
    images: ImageSet, encoder: Encoder, shots: int, seed: int, max_query: int | None, progress: Progress = silent
) -> tuple[Tensor, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Encode the images that a split needs; unreadable ones are replaced by others of their class.

    Returns:
        features (n, D), of all n images of the set (zero where they were not read); the image numbers of the support
        and of the query; sentences on what could not be read.
    Raises:
        UserError: most images are unreadable, or a class has too few that can be read.
    """
    features = torch.zeros(len(images), encoder.num_features)
    looked, readable = np.zeros((2, len(images)), bool)
    split = {"seed": seed, "max_query": max_query}
    while True:
        wanted = candidates(images, shots, unreadable=looked & ~readable, **split)
        wanted = wanted[~looked[wanted]]
        if not len(wanted):
            break
        features[wanted], readable[wanted] = encoder.encode([images.items[i] for i in wanted], progress=progress)
        looked[wanted] = True
        notes = check_readable(images, np.flatnonzero(looked), readable)
    support, query = split_support_query(images, shots, readable=readable, **split)
    return features, support, query, notes
