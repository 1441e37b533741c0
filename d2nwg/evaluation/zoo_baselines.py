"""Does a generator invent or copy? A sampled head beside what the zoo alone could give.

What one could have had without a generator: distances to the zoo, copies of it, random vectors; and how weight
values spread.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from d2nwg.analysis.compare import LEAST_LENGTH, Neighbours, density, nearest
from d2nwg.analysis.populations import SAMPLE, TRAINED, ZOO, Population
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.models.spaces import WeightSpace

if TYPE_CHECKING:
    from d2nwg.exploration.tasks import Task

NEAREST = 3  # zoo heads that are averaged


def novelty(
    space: WeightSpace,
    vectors: Tensor | None,
    order: Tensor | None,
    query: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> dict[str, float] | None:
    """How far the average of the samples lies from its nearest zoo head, and how good what lies as near would be.

    Args:
        vectors: (S, N) sampled heads as vectors of the space's layout; None gives None, as does a zoo without heads of
            so many classes.
        order: (C,) canonical order of the classes.
        query, labels: (m, D) and (m,), held out.
        generator: of the noise.
    Returns:
        ``distance`` (Euclidean, as a share of the head's own length), and the accuracies of ``nearest_zoo_head``, of
        ``zoo_head_plus_noise`` (Gaussian, as long as that distance) and of ``average_of_nearest``.
    """
    if vectors is None:
        return None
    count = len(order)
    same = space.zoo_vectors[space.zoo_counts == count]
    if not len(same):
        return None
    mask = space.layout.mask(torch.tensor([count], device=vectors.device))[0]
    mean = vectors.mean(0) * mask
    distance, nearest = (same - mean).norm(dim=1).topk(min(NEAREST, len(same)), largest=False)
    noise = torch.randn(mean.shape, generator=generator).to(mean) * mask
    first = same[nearest[0]]
    rivals = torch.stack([first, first + noise * (distance[0] / noise.norm()), same[nearest].mean(0)])
    state = {name: tensor.cpu() for name, tensor in space.to_heads(rivals, order).items()}
    scores = accuracies(state, query, labels).tolist()
    names = ("nearest_zoo_head", "zoo_head_plus_noise", "average_of_nearest")
    rows = {"distance": float(distance[0] / mean.norm().clamp_min(1e-12)), **dict(zip(names, scores, strict=True))}
    return {name: round(value, 4) for name, value in rows.items()}


NOISE, AVERAGE, RANDOM = "noise", "average", "random"  # rivals of the samples, beside zoo and trained heads
MOST_ZOO_QUERIES = 1000  # zoo heads whose nearest zoo head is looked for; of more, so many drawn at random


@dataclass(frozen=True)
class Rival:
    """Heads that one could have made of the zoo without a generator, scored like the samples.

    Attributes:
        distance: (n,) to the nearest zoo head, in lengths of a zoo head (`lengths`); NaN for `RANDOM`.
        accuracy: (n,) on the held-out images of the task.
        task: (n,) its number.
    """

    distance: np.ndarray
    accuracy: np.ndarray
    task: np.ndarray


def nearest_distance(neighbours: Neighbours) -> np.ndarray:
    """(n,) distances to the nearest, NaN where there is none."""
    nearest_one = neighbours.distance[:, 0]
    return np.where(np.isfinite(nearest_one), nearest_one, np.nan)


def lengths(heads: Population, points: np.ndarray) -> np.ndarray:
    """(n,) the unit of distances: the median length of the zoo heads with as many classes, among ``points`` (n, d)."""
    zoo = heads.of(ZOO)
    norm = np.linalg.norm(points[zoo], axis=1)
    unit = np.full(len(heads), np.median(norm))
    for count in np.unique(heads.counts[zoo]):
        unit[heads.counts == count] = np.median(norm[heads.counts[zoo] == count])
    return np.maximum(unit, LEAST_LENGTH)


def to_zoo(heads: Population, points: np.ndarray, seed: int = 0, k: int = 5) -> Neighbours:
    """The nearest zoo heads of each head among ``points`` (n, d), the heads' own coordinates in some space, with
    distances in `lengths`; itself does not count. Of very many zoo heads only `MOST_ZOO_QUERIES` are asked for their
    own neighbours."""
    zoo = heads.of(ZOO)
    asked = np.ones(len(heads), bool)
    if len(zoo) > MOST_ZOO_QUERIES:
        asked[zoo] = False
        asked[np.random.default_rng(seed).choice(zoo, MOST_ZOO_QUERIES, replace=False)] = True
    itself = np.full(len(heads), -1)
    itself[zoo] = np.arange(len(zoo))
    rows = np.flatnonzero(asked)
    found = nearest(points[rows], heads.counts[rows], points[zoo], heads.counts[zoo], k, itself[rows])
    index, distance = np.full((len(heads), k), -1), np.full((len(heads), k), np.inf)
    index[rows] = np.where(found.index >= 0, zoo[found.index], -1)
    distance[rows] = found.distance / lengths(heads, points)[rows, None]
    return Neighbours(index, distance)


def zoo_rivals(heads: Population, tasks: "list[Task]", space: WeightSpace, near: Neighbours, seed: int) -> dict:
    """What copying would give, scored on the tasks as the samples are.

    For each sample: its nearest zoo head with noise of the norm that lies between the two (`NOISE`), so that it is as
    far from the zoo as the sample is, and the average of its two nearest zoo heads (`AVERAGE`). Besides: zoo heads
    as they are (`ZOO`), and Gaussian vectors with the zoo's spread (`RANDOM`).
    """
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list] = {ZOO: [], NOISE: [], AVERAGE: [], RANDOM: []}
    unit = lengths(heads, heads.vectors)
    for i, task in enumerate(tasks):
        samples, zoo = heads.of(SAMPLE, i), heads.of(ZOO)
        zoo = zoo[heads.counts[zoo] == task.count]
        mask = space.layout.mask(torch.tensor([task.count])).cpu().numpy()
        noise = torch.randn(len(samples), heads.vectors.shape[1], generator=generator).numpy() * mask
        own, first = heads.vectors[samples], heads.vectors[near.index[samples, 0]]
        gap = np.linalg.norm(own - first, axis=1, keepdims=True)
        second = heads.vectors[near.index[samples, 1]] if len(zoo) > 1 else first
        spread = heads.vectors[zoo][:, mask[0]].std()
        made = {
            ZOO: heads.vectors[zoo],
            NOISE: first + noise * gap / np.linalg.norm(noise, axis=1, keepdims=True),
            AVERAGE: (first + second) / 2,
            RANDOM: (noise * spread).astype(np.float32),
        }
        for name, vectors in made.items():
            if name == ZOO:
                distance = nearest_distance(Neighbours(near.index[zoo], near.distance[zoo]))
            elif name == RANDOM:
                distance = np.full(len(vectors), np.nan)
            else:
                counts = np.full(len(vectors), task.count)
                distance = nearest_distance(nearest(vectors, counts, heads.vectors[zoo], heads.counts[zoo], 1))
                distance = distance / unit[samples]
            rows[name].append((distance, task.score(space, vectors), np.full(len(vectors), i)))
    return {name: Rival(*(np.concatenate(part) for part in zip(*found, strict=True))) for name, found in rows.items()}


def weight_densities(heads: Population, space: WeightSpace, most: int = 2000, seed: int = 0) -> dict:
    """Tensor name → (edges, origin → density) of weight values (not standardised), padding left out.

    Zoo heads are those with as many classes as one of the other heads; of more than ``most`` of an origin so many are
    drawn at random.
    """
    rng, values = np.random.default_rng(seed), {}
    comparable = np.isin(heads.counts, heads.counts[heads.origin != ZOO])
    for origin in (ZOO, SAMPLE, TRAINED):
        rows = np.flatnonzero((heads.origin == origin) & comparable)
        if not len(rows):
            continue
        rows = rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
        layout = space.layout
        mask = layout.unflatten(layout.mask(torch.from_numpy(heads.counts[rows])).float())
        state = layout.unflatten(torch.from_numpy(heads.vectors[rows]))
        for name, tensor in state.items():
            used = mask[name] > layout.mean[name] + 0.5 * layout.std[name]  # the mask went through the same map
            values.setdefault(name, {})[origin] = tensor[used].numpy()
    return {name: density(groups) for name, groups in values.items()}
