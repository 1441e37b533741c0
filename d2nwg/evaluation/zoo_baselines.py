"""Baselines of generated heads that are made from the zoo without a generator.

A generator must do better than copies. A generated head is compared with its nearest zoo head, with that zoo head plus
noise as large as the distance between the two, with the average of the nearest zoo heads, and with random vectors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.report import Novelty
from d2nwg.evaluation.zoo_distance import class_mask, generated_heads, nearest_zoo_heads, zoo_heads
from d2nwg.models.spaces import WeightSpace

AVERAGED = 3  # nearest zoo heads in the average
NEAREST, NOISE, AVERAGE, RANDOM = "nearest", "noise", "average", "random"  # the baselines


@dataclass(frozen=True)
class ZooBaseline:
    """Heads of one baseline, scored as the samples are.

    Attributes:
        distance: (n,) to the nearest zoo head, in lengths of a zoo head; NaN for `RANDOM`.
        accuracy: (n,) on the held-out images of the task.
        task: (n,) its number.
    """

    distance: np.ndarray
    accuracy: np.ndarray
    task: np.ndarray


def make_zoo_baselines(
    points: np.ndarray, zoo: np.ndarray, index: np.ndarray, used: np.ndarray, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """The baselines of generated heads, all with the same number of classes.

    Args:
        points: (n, N) generated heads as vectors.
        zoo: (m, N) the zoo heads with as many classes, m ≥ 1.
        index: (n, k) numbers of the nearest zoo heads of each, nearest first; k ≥ min(`AVERAGED`, m).
        used: (N,) bool, the numbers of a vector that such a head uses.
        generator: of the noise, on the CPU.
    Returns:
        name → (n, N) vectors: `NEAREST`, the nearest zoo head; `NOISE`, that plus Gaussian noise whose norm is the
        distance between the two; `AVERAGE` of the nearest `AVERAGED` zoo heads; `RANDOM`, Gaussian with the standard
        deviation of all numbers of these zoo heads.
    """
    noise = torch.randn(points.shape, generator=generator).numpy() * used
    first = zoo[index[:, 0]]
    gap = np.linalg.norm(points - first, axis=1, keepdims=True)
    return {
        NEAREST: first,
        NOISE: first + noise * (gap / np.linalg.norm(noise, axis=1, keepdims=True)),
        AVERAGE: zoo[index[:, : min(AVERAGED, len(zoo))]].mean(1),
        RANDOM: (noise * zoo[:, used].std()).astype(np.float32),
    }


def score_vectors(
    space: WeightSpace, vectors: np.ndarray, order: Tensor, features: Tensor, labels: Tensor
) -> np.ndarray:
    """Accuracies (n,) of vectors (n, N) as heads for a task.

    Args:
        order: (C,) the task's classes in canonical order, in which the vectors hold their rows.
        features, labels: (m, D) and (m,) that score.
    """
    device = space.mean.device
    state = space.to_heads(torch.as_tensor(vectors, device=device), order.to(device))
    return accuracies({name: tensor.cpu() for name, tensor in state.items()}, features, labels).numpy()


def novelty(
    space: WeightSpace, vectors: Tensor, order: Tensor, features: Tensor, labels: Tensor, generator: torch.Generator
) -> Novelty | None:
    """How far the average of the samples lies from the zoo, and how good the baselines are that lie as near.

    Args:
        vectors: (S, N) sampled heads as vectors of the space's layout.
        order: (C,) canonical order of the classes.
        features, labels: (m, D) and (m,), held out.
        generator: of the noise.
    Returns:
        None where the bundle keeps no zoo head with as many classes.
    """
    count = len(order)
    zoo = zoo_heads(space, count)
    if not len(zoo):
        return None
    average = generated_heads(space, vectors, count).mean(0, keepdims=True)
    found = nearest_zoo_heads(average, np.array([count]), zoo, np.full(len(zoo), count), AVERAGED)
    made = make_zoo_baselines(average, zoo, found.index, class_mask(space, count).numpy(), generator)
    rows = np.concatenate([made[name] for name in (NEAREST, NOISE, AVERAGE)])
    scores = score_vectors(space, rows, order, features, labels)
    return Novelty(*(round(float(value), 4) for value in (found.nearest[0], *scores)))
