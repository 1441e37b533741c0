"""Which head to take, the generated one or a baseline: judged on support items that are left out in turn.

The query items only score, so they have no say here. With one item a class nothing can be left out, and there is no
recommendation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.evaluation.baselines import fit_baselines, stratified_folds
from d2nwg.weights.networks import State, logits

MOST = 400  # support items: with more, leaving out takes longer than all the rest
GENERATED = "generated"
CLEARLY = 1.645  # standard errors: one-sided, at 5 %


@dataclass(frozen=True)
class Recommendation:
    """What leaving support items out says.

    Attributes:
        name: ``"generated"``, or the baseline to take instead (``"class_mean"``, ``"ridge"``,
            ``"logistic_regression"``).
        right: share of the left-out items that each of the four gets right.
        num_items: how many were left out in turn, all folds together.
    """

    name: str
    right: dict[str, float]
    num_items: int


def recommend(
    support: Tensor,
    labels: Tensor,
    generate: Callable[[Tensor], State],
    *,
    mean: Tensor | None = None,
    seed: int = 0,
) -> Recommendation | None:
    """Compare a generated head with the baselines by stratified cross-validation on the support.

    A baseline is recommended where it gets more left-out items right than the generated head by more than chance: by
    more than 1.645 standard errors of that paired difference. Among several it is the one with most.

    Args:
        support, labels: (n, d) features and (n,) classes; each class occurs.
        generate: a bool mask (n,) of the items that it may see → a linear head on the features, or a two-layer one.
        mean: (d,) that the baselines' features are centred on; None for the mean of the items they are fitted to.
        seed: of the folds.
    Returns:
        None where a class has one item only, or there are more than `MOST` items.
    """
    y = labels.cpu().numpy()
    folds = stratified_folds(y, seed) if len(y) <= MOST else []
    if not folds:
        return None
    right: dict[str, list[np.ndarray]] = {}
    for shown, held in folds:
        mask = torch.zeros(len(y), dtype=torch.bool)
        mask[shown] = True
        scores = {GENERATED: logits(generate(mask), support[held]).numpy()}
        scores |= fit_baselines(support[shown], labels[shown], mean=mean, seed=seed).logits(support[held])
        for name, found in scores.items():
            right.setdefault(name, []).append(found.argmax(1) == y[held])
    hits = {name: np.concatenate(parts) for name, parts in right.items()}
    best = max((name for name in hits if name != GENERATED), key=lambda name: hits[name].sum())
    gain = hits[best].astype(int) - hits[GENERATED]
    clear = gain.sum() > CLEARLY * np.sqrt((gain**2).sum())
    shares = {name: round(float(found.mean()), 6) for name, found in hits.items()}
    return Recommendation(best if clear else GENERATED, shares, len(y))
