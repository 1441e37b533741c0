"""Heads as batched state dicts: the same numbers as plain modules, however many at once."""

import pytest
import torch

from d2nwg.weights.networks import build_head, fold_projection, head_shapes, logits, pick, select_classes

C, K, D, H = 4, 6, 10, 5


def random_heads(probe: str, *batch: int, width: int = K) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = head_shapes(probe, width, C, H)
    return {name: torch.randn(*batch, *shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_a_batch_of_heads_says_what_each_module_says(probe):
    state, shared, own = random_heads(probe, 3), torch.randn(7, K), torch.randn(3, 7, K)
    together, apart = logits(state, shared), logits(state, own)
    assert together.shape == apart.shape == (3, 7, C)
    for i in range(3):
        module = build_head(pick(state, i))
        torch.testing.assert_close(together[i], module(shared))
        torch.testing.assert_close(apart[i], module(own[i]))


@pytest.mark.parametrize("probe", ["linear", "mlp"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_any_number_of_batch_axes(probe, batch):
    assert logits(random_heads(probe, *batch), torch.randn(7, K)).shape == (*batch, 7, C)


def test_heads_are_plain_modules():
    linear, mlp = (build_head(random_heads(probe)) for probe in ("linear", "mlp"))
    assert isinstance(linear, torch.nn.Linear) and (linear.in_features, linear.out_features) == (K, C)
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "ReLU", "Linear"] and not mlp.training


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_folding_the_projection_back_keeps_the_logits(probe):
    generator = torch.Generator().manual_seed(2)
    projection, mean = torch.randn(K, D, generator=generator), torch.randn(D, generator=generator)
    features = torch.randn(9, D, generator=generator) + mean
    state = random_heads(probe, 3)
    folded = fold_projection(state, projection, mean)
    assert folded["weight" if probe == "linear" else "0.weight"].shape[-1] == D
    torch.testing.assert_close(
        logits(folded, features), logits(state, (features - mean) @ projection.T), rtol=1e-4, atol=1e-4
    )
    exact = {name: tensor.double() for name, tensor in state.items()}
    apart = logits(exact, (features.double() - mean.double()) @ projection.double().T)
    folded = fold_projection(exact, projection.double(), mean.double())
    torch.testing.assert_close(logits(folded, features.double()), apart, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_select_classes_by_index_or_slice(probe):
    state, x = random_heads(probe, 3), torch.randn(7, K)
    torch.testing.assert_close(logits(select_classes(state, torch.tensor([2, 0])), x), logits(state, x)[..., [2, 0]])
    torch.testing.assert_close(logits(select_classes(state, slice(1, 3)), x), logits(state, x)[..., 1:3])
    alone = select_classes(pick(state, 1), torch.tensor([3, 1]))
    torch.testing.assert_close(logits(alone, x), logits(state, x)[1][:, [3, 1]])
