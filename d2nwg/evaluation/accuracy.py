"""Accuracies of heads, many at once, and how precisely an accuracy is known."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from d2nwg.weights.networks import State, logits, pick

LEVEL = 0.95  # of an interval
MAX_LOGITS = 2**26  # held at a time while scoring: 256 MiB in float32


def accuracies(state: State, features: Tensor, labels: Tensor) -> Tensor:
    """The accuracy of each of S heads, as fractions (S,).

    ``state`` holds the heads as one batch (`d2nwg.weights.networks`), ``features`` (m, d), ``labels`` (m,). As many
    heads are scored at a time as give `MAX_LOGITS` numbers.
    """
    heads, classes = next(tensor for name, tensor in state.items() if name in ("bias", "2.bias")).shape
    step = max(1, MAX_LOGITS // max(1, classes * len(features)))
    scores = [
        (logits(pick(state, slice(first, first + step)), features).argmax(-1) == labels).float().mean(-1)
        for first in range(0, heads, step)
    ]
    return torch.cat(scores) if scores else torch.zeros(0)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C) of true (rows) and predicted classes (columns), from both (m,)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(truth), np.asarray(predicted)), 1)
    return counts


def per_class_accuracy(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, float | None]:
    """Name → share of a class's images that are recognised, to 6 digits; None for a class without images.

    ``confusion`` (C, C) is a `confusion_matrix`.
    """
    right, shown = confusion.diagonal(), confusion.sum(1)
    return {name: round(float(r / n), 6) if n else None for name, r, n in zip(classes, right, shown, strict=True)}


def interval(right: int, total: int) -> tuple[float, float]:
    """The Wilson score interval (Wilson, 1927) of a proportion, at 95 %.

    It does not shrink to a point where everything is right, or nothing is: of 20 of 20 it is 0.84 to 1.

    Args:
        right: successes.
        total: trials, at least one; each by itself (for pairs of models on the same images, see the paired comparison
            in `d2nwg.llm.report`).
    Returns:
        Lower and upper end, fractions.
    Raises:
        ValueError: no trials, or more successes than trials.
    """
    from scipy.stats import binomtest

    found = binomtest(int(right), int(total)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(gained: int, lost: int) -> float:
    """The p-value of the exact McNemar test (McNemar, 1947) of two models on the same items: how likely so uneven a
    split is by chance.

    Args:
        gained, lost: items that only the one, or only the other, gets right. Without any the p-value is 1.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
