"""Heads, or networks, that a zoo gives without a generator, scored on an exploration's tasks as the samples are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from d2nwg.analysis.populations import SAMPLE, ZOO, Population
from d2nwg.evaluation.zoo_baselines import AVERAGE, NOISE, RANDOM, ZooBaseline, make_zoo_baselines
from d2nwg.evaluation.zoo_distance import Neighbours, nearest


def zoo_baselines(
    heads: Population, tasks: Sequence[Any], space: Any, near: Neighbours, unit: np.ndarray, seed: int
) -> dict[str, ZooBaseline]:
    """The baselines of each task.

    Args:
        tasks: `d2nwg.exploration.tasks.Task` each, or `d2nwg.exploration.networks.NetworkTask`.
        space: the bundle's.
        near: the nearest zoo heads of each head (`d2nwg.analysis.compare.to_zoo`).
        unit: (n,) of distances.
        seed: of the noise.
    Returns:
        `ZOO`, the zoo heads themselves (all that a task's are compared with); and for each sample `NOISE`, `AVERAGE`
        and `RANDOM` (`make_zoo_baselines`).
    """
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list] = {ZOO: [], NOISE: [], AVERAGE: [], RANDOM: []}
    for i, task in enumerate(tasks):
        samples, zoo = heads.of(SAMPLE, i), heads.of(ZOO)
        zoo = zoo[heads.counts[zoo] == task.group]
        kept, zoo_counts = heads.vectors[zoo], heads.counts[zoo]
        index = np.searchsorted(zoo, near.index[samples])
        made = make_zoo_baselines(heads.vectors[samples], kept, index, task.used(space), generator)
        for name, vectors in {ZOO: kept, **{name: made[name] for name in (NOISE, AVERAGE, RANDOM)}}.items():
            if name == ZOO:
                distance = Neighbours(near.index[zoo], near.distance[zoo]).nearest
            elif name == RANDOM:
                distance = np.full(len(vectors), np.nan)
            else:
                counts = np.full(len(vectors), task.group)
                distance = nearest(vectors, counts, kept, zoo_counts, 1).nearest / unit[samples]
            rows[name].append((distance, task.score(space, vectors), np.full(len(vectors), i)))
    return {
        name: ZooBaseline(*(np.concatenate(part) for part in zip(*found, strict=True))) for name, found in rows.items()
    }
