"""Probes: the optimum that scikit-learn finds, for many problems at once, whatever the padding."""

import pytest
import torch

from d2nwg.weights.networks import logits, pick
from d2nwg.weights.probes import fit_linear, fit_mlp, masked_accuracy

B, N, D = 3, 60, 5


def problems(classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy blobs: features (B, N, D), labels, weights of 1, class counts."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N).remainder(classes).expand(B, N)
    centres = 1.2 * torch.randn(B, classes, D, generator=generator)
    noise = torch.randn(B, N, D, generator=generator)
    features = centres.gather(1, labels.unsqueeze(-1).expand(-1, -1, D)) + noise
    return features, labels, torch.ones(B, N), torch.full((B,), classes)


def objective(state, x, y, l2) -> float:
    loss = torch.nn.functional.cross_entropy(x @ state["weight"].T + state["bias"], y)
    return float(loss + l2 / 2 * state["weight"].square().sum())


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_probes_reach_scikit_learns_optimum(classes):
    from sklearn.linear_model import LogisticRegression

    l2 = 0.05
    x, y, weight, counts = problems(classes)
    x, weight = x.double(), weight.double()
    found = fit_linear(x, y, weight, counts, classes, l2=l2, iterations=400)
    for i in range(B):
        head = {name: tensor[i, 0] for name, tensor in found.items()}
        # mean cross-entropy + l2/2 |W|² is scikit-learn's objective with C = 1 / (n l2). With two classes it fits one
        # row w for W = (-w/2, w/2), whose penalty is half of |w|².
        strength = 1 / (N * l2) * (2 if classes == 2 else 1)
        theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x[i].numpy(), y[i].numpy())
        rows = torch.from_numpy(theirs.coef_)
        if classes == 2:
            rows = torch.cat([-rows, rows]) / 2
        # Ours has a thousandth of the penalty on the bias too, hence not the last digits.
        torch.testing.assert_close(head["weight"], rows, rtol=5e-3, atol=5e-4)
        bias = torch.from_numpy(theirs.intercept_)
        bias = torch.cat([-bias, bias]) / 2 if classes == 2 else bias
        assert objective(head, x[i], y[i], l2) <= objective({"weight": rows, "bias": bias}, x[i], y[i], l2) + 1e-5


def test_a_dozen_steps_are_nearly_there():
    x, y, weight, counts = problems()
    few, many = (fit_linear(x, y, weight, counts, 4, l2=1e-2, iterations=i) for i in (12, 400))
    for i in range(B):
        near, best = (objective({n: t[i, 0] for n, t in state.items()}, x[i], y[i], 1e-2) for state in (few, many))
        assert best <= near + 1e-6 < best + 0.02


def test_rows_sum_to_zero_over_the_classes():
    x, y, weight, counts = problems()
    state = fit_linear(x, y, weight, counts, 4, l2=1e-2, checkpoints=3)
    assert state["weight"].shape == (B, 3, 4, D) and state["bias"].shape == (B, 3, 4)
    assert float(state["weight"].sum(2).abs().max()) < 1e-4 and float(state["bias"].sum(2).abs().max()) < 1e-4


def test_the_last_checkpoint_is_the_result():
    x, y, weight, counts = problems()
    several = fit_linear(x, y, weight, counts, 4, l2=1e-2, checkpoints=3)
    one = fit_linear(x, y, weight, counts, 4, l2=1e-2)
    assert torch.equal(several["weight"][:, -1], one["weight"][:, 0])
    assert not torch.equal(several["weight"][:, 0], one["weight"][:, 0])


def fit(probe, x, y, weight, counts, most):
    if probe == "linear":
        return fit_linear(x, y, weight, counts, most, l2=1e-2)
    generator = torch.Generator().manual_seed(7)
    return fit_mlp(x, y, weight, counts, most, hidden=6, l2=1e-3, generator=generator, iterations=20)


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_images_of_padding_change_nothing(probe):
    x, y, weight, counts = problems()
    padded = torch.cat([x, 100 * torch.randn(B, 9, D)], 1)
    labels, more = torch.cat([y, torch.zeros(B, 9, dtype=torch.long)], 1), torch.cat([weight, torch.zeros(B, 9)], 1)
    plain, other = fit(probe, x, y, weight, counts, 4), fit(probe, padded, labels, more, counts, 4)
    for name in plain:
        torch.testing.assert_close(other[name], plain[name], rtol=1e-3, atol=1e-4)


def test_unused_classes_change_nothing_and_stay_zero():
    x, y, weight, counts = problems()
    plain, wider = (fit_linear(x, y, weight, counts, most, l2=1e-2) for most in (4, 7))
    for name in plain:
        torch.testing.assert_close(wider[name][:, :, :4], plain[name], rtol=1e-4, atol=1e-5)
        assert not wider[name][:, :, 4:].any()
    generator = torch.Generator().manual_seed(0)
    mlp = fit_mlp(x, y, weight, counts, 7, hidden=6, l2=1e-3, generator=generator, iterations=5)
    assert not mlp["2.weight"][:, :, 4:].any() and not mlp["2.bias"][:, :, 4:].any()


def test_a_batch_equals_each_problem_alone():
    x, y, weight, _ = problems()
    counts = torch.tensor([4, 2, 3])
    y = torch.minimum(y, counts.unsqueeze(1) - 1)
    together = fit_linear(x, y, weight, counts, 4, l2=1e-2)
    for i in range(B):
        one = slice(i, i + 1)
        alone = fit_linear(x[one], y[one], weight[one], counts[one], 4, l2=1e-2)
        for name in alone:
            torch.testing.assert_close(together[name][one], alone[name], rtol=1e-4, atol=1e-5)


def test_an_mlp_is_trained_by_its_own_problem_only():
    x, y, weight, counts = problems()
    other = x.clone()
    other[1:] = torch.randn(B - 1, N, D)
    first, second = fit("mlp", x, y, weight, counts, 4), fit("mlp", other, y, weight, counts, 4)
    for name in first:
        torch.testing.assert_close(first[name][0], second[name][0], rtol=1e-3, atol=1e-4)


def test_an_mlp_learns_what_no_linear_head_can():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 200, 2, generator=generator) * 2 - 1
    y = (x.prod(-1) > 0).long()  # exclusive or
    rest = (x, y, torch.ones(2, 200), torch.tensor([2, 2]))
    linear = fit_linear(*rest, 2, l2=1e-3)
    mlp = fit_mlp(*rest, 2, hidden=16, l2=1e-5, generator=generator, iterations=300, checkpoints=2)
    assert mlp["0.weight"].shape == (2, 2, 16, 2) and mlp["2.weight"].shape == (2, 2, 2, 16)
    scores = [masked_accuracy({n: t[:, -1] for n, t in state.items()}, *rest) for state in (linear, mlp)]
    assert float(scores[0].max()) < 0.75 and float(scores[1].min()) > 0.93


def test_accuracy_ignores_padding_and_unused_classes():
    state = {"weight": torch.zeros(1, 3, 1), "bias": torch.tensor([[0.0, 1.0, 9.0]])}
    x, y = torch.zeros(1, 4, 1), torch.tensor([[1, 1, 0, 0]])
    counts = torch.tensor([2])  # the third class, with the highest score, is not used
    assert masked_accuracy(state, x, y, torch.ones(1, 4), counts).tolist() == [0.5]
    assert masked_accuracy(state, x, y, torch.tensor([[1.0, 1, 0, 0]]), counts).tolist() == [1.0]
    assert logits(pick(state, 0), x[0]).argmax(-1).tolist() == [2] * 4
