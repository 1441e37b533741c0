"""Baselines: the heads that a person would otherwise fit to the same support images.

They are the class means, ridge regression and logistic regression, the last two with the strength of their
regularisation chosen by cross-validation on the support alone. Features are centred on a mean and scaled to unit
length (`normalised`), which suits all three better than raw features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from d2nwg.evaluation.accuracy import accuracies
from d2nwg.weights.networks import State

RANDOM_HEADS = 20  # heads drawn for the score of a random head
FOLDS = 5  # of the cross-validation, or the shots of the smallest class when those are fewer
RIDGE_PENALTIES = 10.0 ** np.arange(-3.0, 2.5, 0.5)
LOGISTIC_CS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
RIDGE_PENALTY, LOGISTIC_C = 0.3, 10.0  # where one image a class leaves nothing to cross-validate
# Hundreds of small matrix products: threads that wait on each other make them 3 to 10 times slower.
_ONE_THREAD = threadpool_limits.wrap(limits=1, user_api="blas")


def normalised(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Features (n, d) centred on ``mean`` (d,) and scaled to unit length, as float64."""
    centred = np.asarray(features, np.float64) - mean
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def class_mean_head(X: np.ndarray, y: np.ndarray, C: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest class mean (Euclidean) as a linear head: weight (C, d) and bias (C,)."""
    means = np.eye(C)[y].T @ X / np.bincount(y, minlength=C)[:, None]
    return means, -0.5 * (means**2).sum(1)


@_ONE_THREAD
def ridge_head(X: np.ndarray, y: np.ndarray, C: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of ±1 targets: weight (C, d) and bias (C,). The penalty is the one with the best cross-validated
    accuracy, ties broken by the squared error."""
    Z, basis = _coordinates(X)
    targets = 2.0 * np.eye(C)[y] - 1.0
    wrong, error = np.zeros((2, len(RIDGE_PENALTIES)))
    folds = stratified_folds(y, seed)
    for train, held in folds:
        weights, biases = _ridge(Z[train], targets[train], RIDGE_PENALTIES)
        scores = Z[held] @ weights + biases[:, None]
        wrong += (scores.argmax(2) != y[held]).sum(1)
        error += ((scores - targets[held]) ** 2).sum((1, 2))
    penalty = RIDGE_PENALTIES[np.lexsort((error, wrong))[0]] if folds else RIDGE_PENALTY
    weights, biases = _ridge(Z, targets, np.array([penalty]))
    return weights[0].T @ basis, biases[0]


@_ONE_THREAD
def logistic_regression_head(X: np.ndarray, y: np.ndarray, C: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression (scikit-learn, lbfgs): weight (C, d) and bias (C,). The strength is the one with
    the least cross-validated log loss, which is a finer measure than the accuracy on so few images."""
    Z, basis = _coordinates(X)
    loss = np.zeros(len(LOGISTIC_CS))
    folds = stratified_folds(y, seed)
    for train, held in folds:
        for i, c in enumerate(LOGISTIC_CS):
            weight, bias = _logistic(Z[train], y[train], C, c, tolerance=1e-3)
            logits = Z[held] @ weight.T + bias
            loss[i] += (np.logaddexp.reduce(logits, 1) - logits[np.arange(len(held)), y[held]]).sum()
    weight, bias = _logistic(Z, y, C, LOGISTIC_CS[loss.argmin()] if folds else LOGISTIC_C)
    return weight @ basis, bias


def baseline_heads(X: np.ndarray, y: np.ndarray, *, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The three baselines by name, as weight (C, d) and bias (C,).

    ``X`` (n, d) are `normalised` features with labels ``y`` (n,).
    """
    C = int(y.max()) + 1
    return {
        "class_mean": class_mean_head(X, y, C),
        "ridge": ridge_head(X, y, C, seed=seed),
        "logistic_regression": logistic_regression_head(X, y, C, seed=seed),
    }


@dataclass(frozen=True)
class FittedBaselines:
    """The three baselines, fitted to a support.

    Attributes:
        heads: by name, weight (C, d) and bias (C,) on features that are `normalised` round ``centre``.
        centre: (d,).
        length: mean distance of the support's features from it.
    """

    heads: dict[str, tuple[np.ndarray, np.ndarray]]
    centre: np.ndarray
    length: float

    def logits(self, features: Tensor) -> dict[str, np.ndarray]:
        """Outputs (n, C) of each baseline for features (n, d)."""
        X = normalised(features.cpu().numpy(), self.centre)
        return {name: X @ weight.T + bias for name, (weight, bias) in self.heads.items()}

    def scores(self, query: Tensor, labels: Tensor, *, seed: int = 0) -> dict[str, float]:
        """Accuracies on query items (m, d) with labels (m,), as fractions; ``random`` is the average of 20 Gaussian
        heads."""
        Xq = torch.from_numpy(normalised(query.cpu().numpy(), self.centre))
        weights, biases = map(np.stack, zip(*self.heads.values(), strict=True))
        rng, shape = np.random.default_rng(seed), (RANDOM_HEADS, *weights.shape[1:])
        weight = torch.from_numpy(np.concatenate([weights, rng.standard_normal(shape)]))
        bias = torch.from_numpy(np.concatenate([biases, np.zeros(shape[:2])]))
        found = accuracies({"weight": weight, "bias": bias}, Xq, labels.cpu()).tolist()
        return dict(zip(self.heads, found, strict=False)) | {"random": float(np.mean(found[len(self.heads) :]))}

    def linear(self) -> dict[str, State]:
        """Each as a plain linear head on the features themselves: ``weight`` (C, d) and ``bias`` (C,), float32.

        No linear layer scales each item to unit length; here all are divided by the support's mean length instead. What
        that changes must be measured.
        """
        heads = {}
        for name, (weight, bias) in self.heads.items():
            folded = weight / self.length
            both = {"weight": folded, "bias": bias - folded @ self.centre}
            heads[name] = {key: torch.from_numpy(array).float() for key, array in both.items()}
        return heads


def fit_baselines(support: Tensor, labels: Tensor, *, mean: Tensor | None = None, seed: int = 0) -> FittedBaselines:
    """Fit the baselines to a support (n, d) with labels (n,), in which every class occurs. Features are centred on
    ``mean`` (d,), or on the support's own mean when that is None."""
    X, y = (torch.as_tensor(t).cpu().numpy() for t in (support, labels))
    centre = X.mean(0) if mean is None else torch.as_tensor(mean).cpu().numpy()
    length = float(np.linalg.norm(np.asarray(X, np.float64) - centre, axis=1).mean())
    return FittedBaselines(baseline_heads(normalised(X, centre), y, seed=seed), centre, max(length, 1e-12))


def score_baselines(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    *,
    mean: Tensor | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """`fit_baselines`, and their scores on the query items: see `FittedBaselines.scores`."""
    return fit_baselines(support, labels, mean=mean, seed=seed).scores(query, query_labels, seed=seed)


def stratified_folds(y: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, held-out) indices of a stratified k-fold; none where a class has one image only."""
    k = min(FOLDS, int(np.bincount(y).min()))
    if k < 2:
        return []
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(k, shuffle=True, random_state=seed % 2**32).split(y, y))


def _coordinates(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) = Z (n, r) @ basis (r, d) with orthonormal rows, r ≤ min(n, d).

    Penalised heads lie in the span of what they are fitted on, so fitting on Z is the same, only faster.
    """
    U, s, basis = np.linalg.svd(X, full_matrices=False)
    kept = s >= 1e-7 * s[0]  # also where all of X is zero
    return U[:, kept] * s[kept], basis[kept]


def _ridge(Z: np.ndarray, targets: np.ndarray, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge with a free intercept for all penalties at once: weights (L, r, C), biases (L, C)."""
    centre, offset = Z.mean(0), targets.mean(0)
    U, s, V = np.linalg.svd(Z - centre, full_matrices=False)
    weights = V.T @ ((s / (s**2 + penalties[:, None]))[:, :, None] * (U.T @ (targets - offset)))
    return weights, offset - centre @ weights


def _logistic(
    Z: np.ndarray, y: np.ndarray, C: int, strength: float, *, tolerance: float = 1e-4
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression: weight (C, r) and bias (C,), one row a class also where there are two."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, tol=tolerance, max_iter=1000).fit(Z, y)
    weight, bias = fitted.coef_, fitted.intercept_
    return (weight, bias) if C > 2 else (np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2)
