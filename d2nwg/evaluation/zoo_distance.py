"""How far heads lie from a zoo: one definition, which Generate and Explore share.

Heads are compared as points, the standardised vectors of the bundle's layout (or their codes in another space), and
only with zoo heads that have as many classes. The **distance to the nearest zoo head** is the Euclidean distance
divided by the median norm of the zoo heads with as many classes: 1 is the length of a usual zoo head, 0 a copy.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.models.spaces import WeightSpace

BLOCK = 2**25  # distances held at a time
LEAST_LENGTH = 1e-12


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of each of n points.

    Attributes:
        index: (n, k) numbers of the neighbours, nearest first, -1 where there are fewer.
        distance: (n, k), infinite where there are fewer: Euclidean from `nearest`, in lengths of a zoo head from
            `nearest_zoo_heads`.
    """

    index: np.ndarray
    distance: np.ndarray

    @property
    def nearest(self) -> np.ndarray:
        """(n,) distances to the nearest, NaN where there is none."""
        first = self.distance[:, 0]
        return np.where(np.isfinite(first), first, np.nan)


def nearest(
    points: np.ndarray,
    counts: np.ndarray,
    others: np.ndarray,
    other_counts: np.ndarray,
    k: int = 5,
    itself: np.ndarray | None = None,
) -> Neighbours:
    """The nearest of ``others`` (m, d) with as many classes, for each of ``points`` (n, d), by Euclidean distance.

    Args:
        counts, other_counts: (n,) and (m,) numbers of classes.
        itself: (n,) the number among ``others`` of each point, which is no neighbour of its own; -1 for none.
    """
    index = np.full((len(points), k), -1)
    distance = np.full((len(points), k), np.inf)
    for count in np.unique(counts):
        targets = np.flatnonzero(other_counts == count)
        rows = np.flatnonzero(counts == count)
        if not len(targets):
            continue
        target = others if len(targets) == len(others) else others[targets]  # a copy of many heads is large
        squares = np.einsum("ij,ij->i", target, target)
        step = max(1, BLOCK // len(targets))
        for first in range(0, len(rows), step):
            block = rows[first : first + step]
            near = squares - 2 * points[block] @ target.T
            if itself is not None:
                near[itself[block][:, None] == targets] = np.inf
            kept = min(k, len(targets))
            best = np.argpartition(near, kept - 1, axis=1)[:, :kept]
            # Squares of differences, not differences of squares: exact for near copies.
            exact = np.stack([np.linalg.norm(points[block] - target[column], axis=1) for column in best.T], 1)
            exact[~np.isfinite(np.take_along_axis(near, best, 1))] = np.inf
            order = np.argsort(exact, axis=1, kind="stable")
            exact, best = np.take_along_axis(exact, order, 1), np.take_along_axis(best, order, 1)
            index[block, :kept] = np.where(np.isfinite(exact), targets[best], -1)
            distance[block, :kept] = exact
    return Neighbours(index, distance)


def zoo_length(counts: np.ndarray, zoo: np.ndarray, zoo_counts: np.ndarray) -> np.ndarray:
    """(n,) the unit of distances: the median norm of the zoo heads ``zoo`` (m, d) with as many classes as ``counts``
    (n,) says; NaN where there is none."""
    norms, unit = np.linalg.norm(zoo, axis=1), np.full(len(counts), np.nan)
    for count in np.intersect1d(counts, zoo_counts):
        unit[counts == count] = max(float(np.median(norms[zoo_counts == count])), LEAST_LENGTH)
    return unit


def nearest_zoo_heads(
    points: np.ndarray,
    counts: np.ndarray,
    zoo: np.ndarray,
    zoo_counts: np.ndarray,
    k: int = 1,
    itself: np.ndarray | None = None,
) -> Neighbours:
    """`nearest` among the zoo heads ``zoo`` (m, d), with distances in lengths of a zoo head (`zoo_length`)."""
    found = nearest(points, counts, zoo, zoo_counts, k, itself)
    unit = zoo_length(counts, zoo, zoo_counts)[:, None]
    return Neighbours(found.index, np.where(np.isfinite(found.distance), found.distance / unit, np.inf))


def class_mask(space: WeightSpace, count: int) -> Tensor:
    """(N,) bool: which numbers of a vector a head for ``count`` classes uses."""
    return space.layout.mask(torch.tensor([count]))[0]


def zoo_heads(space: WeightSpace, count: int) -> np.ndarray:
    """(m, N) standardised vectors of the kept zoo heads with ``count`` classes, zero where a head has no class."""
    vectors = space.zoo_vectors[space.zoo_counts == count].detach().cpu()
    return (vectors * class_mask(space, count)).numpy()


def generated_heads(space: WeightSpace, vectors: Tensor, count: int) -> np.ndarray:
    """(n, N) standardised vectors of generated heads for ``count`` classes, zero where a head has no class."""
    return (vectors.detach().cpu().float() * class_mask(space, count)).numpy()


def zoo_distance(space: WeightSpace, vectors: Tensor, count: int) -> np.ndarray:
    """(n,) distances of generated vectors (n, N) to the nearest zoo head, in lengths of a zoo head; NaN where the
    bundle keeps no zoo head with ``count`` classes."""
    points, zoo = generated_heads(space, vectors, count), zoo_heads(space, count)
    counts, zoo_counts = np.full(len(points), count), np.full(len(zoo), count)
    return nearest_zoo_heads(points, counts, zoo, zoo_counts).nearest
