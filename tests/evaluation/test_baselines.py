"""Scores of many heads at once, and the baselines."""

import numpy as np
import pytest
import torch

from d2nwg.evaluation import accuracy, baselines
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.baselines import (
    class_mean_head,
    logistic_regression_head,
    normalised,
    ridge_head,
    score_baselines,
)


def blobs(classes: int, shots: int, width: int = 40, spread: float = 1.0, seed: int = 0):
    """Gaussian classes around centres of unit variance: features (n, d) and labels (n,)."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    labels = np.repeat(np.arange(classes), shots)
    return centres[labels] + spread * rng.standard_normal((len(labels), width)), labels


def test_accuracies_of_many_heads_are_those_of_each_one(monkeypatch):
    g = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(7, 4, 10, generator=g), torch.randn(7, 4, generator=g)
    features, labels = torch.randn(33, 10, generator=g), torch.randint(0, 4, (33,), generator=g)
    each = zip(weight, bias, strict=True)
    expected = [((features @ w.T + b).argmax(1) == labels).float().mean() for w, b in each]
    assert torch.equal(accuracies({"weight": weight, "bias": bias}, features, labels), torch.stack(expected))
    monkeypatch.setattr(accuracy, "MAX_LOGITS", 300)  # two heads at a time
    assert torch.equal(accuracies({"weight": weight, "bias": bias}, features, labels), torch.stack(expected))
    assert accuracies({"weight": weight[:0], "bias": bias[:0]}, features, labels).shape == (0,)


def test_class_mean_head_chooses_the_nearest_mean():
    X, y = blobs(5, 3)
    weight, bias = class_mean_head(X, y, 5)
    query, _ = blobs(5, 10, spread=3, seed=1)
    means = np.stack([X[y == c].mean(0) for c in range(5)])
    nearest = ((query[:, None] - means) ** 2).sum(2).argmin(1)
    assert np.array_equal((query @ weight.T + bias).argmax(1), nearest)


@pytest.mark.parametrize(("shots", "width"), [(1, 40), (6, 200), (30, 20)])
def test_ridge_is_scikit_learns(shots, width, monkeypatch):
    from sklearn.linear_model import Ridge

    X, y = blobs(4, shots, width)
    monkeypatch.setattr(baselines, "RIDGE_PENALTIES", np.array([0.3]))
    weight, bias = ridge_head(X, y, 4)
    reference = Ridge(alpha=0.3).fit(X, 2 * np.eye(4)[y] - 1)
    np.testing.assert_allclose(weight, reference.coef_, atol=1e-8)
    np.testing.assert_allclose(bias, reference.intercept_, atol=1e-8)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_regression_is_scikit_learns(classes, monkeypatch):
    from sklearn.linear_model import LogisticRegression

    X, y = blobs(classes, 6, 200, spread=3)
    monkeypatch.setattr(baselines, "LOGISTIC_CS", (0.01,))
    weight, bias = logistic_regression_head(X, y, classes)
    reference = LogisticRegression(C=0.01, max_iter=1000).fit(X, y)
    query, _ = blobs(classes, 50, 200, spread=3, seed=1)
    logits = query @ weight.T + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    assert weight.shape == (classes, 200) and bias.shape == (classes,)
    np.testing.assert_allclose(p / p.sum(1, keepdims=True), reference.predict_proba(query), atol=2e-3)


def faint(classes: int, shots: int, seed: int):
    """Classes that differ by little beside nine large features, which must be weighed against each other exactly."""
    rng, leak = np.random.default_rng(seed), np.random.default_rng(5).standard_normal((9, classes))
    labels = np.repeat(np.arange(classes), shots)
    large = 5 * rng.standard_normal((len(labels), 9))
    small = 0.3 * np.eye(classes)[labels] + 0.08 * rng.standard_normal((len(labels), classes)) + 0.1 * large @ leak
    return np.concatenate([small, large], 1), labels


def noisy(classes: int, shots: int, seed: int):
    """Nearly as many features as support images, all of them noisy: what fits those closely fits no others."""
    return blobs(classes, shots, width=58, spread=2, seed=seed)


def test_no_fixed_penalty_does_what_the_chosen_one_does():
    """A weak penalty is right for one data set, a strong one for another; either is found on the support alone."""
    lost = np.zeros(len(baselines.RIDGE_PENALTIES))
    for data in (faint, noisy):
        (X, y), (query, truth) = data(3, 20, 0), data(3, 700, 1)
        weights, biases = baselines._ridge(X, 2.0 * np.eye(3)[y] - 1, baselines.RIDGE_PENALTIES)
        fixed = ((query @ weights + biases[:, None]).argmax(2) == truth).mean(1)
        weight, bias = ridge_head(X, y, 3)
        chosen = ((query @ weight.T + bias).argmax(1) == truth).mean()
        assert chosen > fixed.max() - 0.03
        lost = np.maximum(lost, chosen - fixed)
    assert lost.min() > 0.1


def test_permuting_the_classes_permutes_the_rows():
    X, y = blobs(5, 4, 80)
    order = np.random.default_rng(3).permutation(5)  # class c is now called order[c]
    for fit in (class_mean_head, ridge_head):
        (weight, bias), (moved, moved_bias) = fit(X, y, 5), fit(X, order[y], 5)
        np.testing.assert_allclose(moved[order], weight, atol=1e-9)
        np.testing.assert_allclose(moved_bias[order], bias, atol=1e-9)


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_baselines_on_classes_far_apart(shots):
    (X, y), (Xq, yq) = blobs(10, shots, 64, spread=0.3), blobs(10, 20, 64, spread=0.3, seed=1)
    scores = score_baselines(*(torch.tensor(t) for t in (X.astype(np.float32), y, Xq.astype(np.float32), yq)), seed=4)
    assert set(scores) == {"class_mean", "ridge", "logistic_regression", "random"}
    assert min(scores[k] for k in ("class_mean", "ridge", "logistic_regression")) > 0.95
    assert abs(scores["random"] - 0.1) < 0.1
    again = score_baselines(*(torch.tensor(t) for t in (X.astype(np.float32), y, Xq.astype(np.float32), yq)), seed=4)
    assert again == scores


def test_baselines_do_not_depend_on_where_features_are_centred_before():
    (X, y), (Xq, yq) = blobs(4, 5), blobs(4, 20, seed=1)
    mean = torch.full((40,), 7.0, dtype=torch.float64)
    support, query = torch.tensor(X), torch.tensor(Xq)
    labels, truth = torch.tensor(y), torch.tensor(yq)
    here = score_baselines(support, labels, query, truth, mean=torch.zeros(40, dtype=torch.float64))
    assert score_baselines(support + mean, labels, query + mean, truth, mean=mean) == pytest.approx(here, abs=0.03)


def test_baselines_of_images_that_are_all_alike():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    scores = score_baselines(torch.ones(6, 8), labels, torch.ones(6, 8), labels)
    assert all(np.isfinite(list(scores.values())))


def test_normalised_rows_have_unit_length():
    X, _ = blobs(3, 3)
    rows = normalised(np.concatenate([X, X.mean(0, keepdims=True)]), X.mean(0))
    np.testing.assert_allclose(np.linalg.norm(rows[:-1], axis=1), 1)
    assert np.isfinite(rows).all()
