"""Layouts: heads to vectors and back, padding that never counts, rows that follow their classes."""

import pytest
import torch

from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import CLASS_TENSORS, head_shapes, logits, select_classes

C, K, H = 5, 4, 3


def layout(probe="linear", tokens=1) -> WholeLayout:
    return WholeLayout(head_shapes(probe, K, C, H), num_classes=C, tokens=tokens)


def heads(probe="linear", counts=(2, 5, 3, 4), scale=1.0) -> tuple[dict, torch.Tensor]:
    """Random heads, zero where a slot holds no class."""
    generator = torch.Generator().manual_seed(0)
    used = torch.arange(C) < torch.tensor(counts).unsqueeze(1)
    state = {}
    for name, shape in head_shapes(probe, K, C, H).items():
        value = scale * torch.randn(len(counts), *shape, generator=generator) + 1
        state[name] = value * used.reshape(*used.shape, *[1] * (len(shape) - 1)) if name in CLASS_TENSORS else value
    return state, torch.tensor(counts)


LAYOUTS = [("linear", 1), ("linear", C), ("mlp", 1)]


@pytest.mark.parametrize(("probe", "tokens"), LAYOUTS)
def test_a_round_trip_keeps_every_bit(probe, tokens):
    state, _ = heads(probe)
    chosen = layout(probe, tokens)
    back = chosen.unflatten(chosen.flatten(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    vectors = torch.randn(3, chosen.size)
    assert torch.equal(chosen.flatten(chosen.unflatten(vectors)), vectors)


@pytest.mark.parametrize(("probe", "tokens"), LAYOUTS)
def test_a_standardised_round_trip(probe, tokens):
    state, counts = heads(probe)
    chosen = layout(probe, tokens)
    chosen.fit(state, counts)
    back = chosen.unflatten(chosen.flatten(state))
    for name in state:
        torch.testing.assert_close(back[name], state[name])


def test_the_plain_order_is_weight_then_bias_in_module_order():
    state, _ = heads("mlp")
    expected = torch.cat([state[n].flatten(1) for n in ("0.weight", "0.bias", "2.weight", "2.bias")], 1)
    assert torch.equal(layout("mlp").flatten(state), expected)


def test_a_token_is_a_row_and_its_bias():
    state, _ = heads()
    pieces = layout(tokens=C).flatten(state).reshape(4, C, K + 1)
    assert torch.equal(pieces, torch.cat([state["weight"], state["bias"].unsqueeze(-1)], -1))


@pytest.mark.parametrize(("probe", "tokens"), LAYOUTS)
def test_the_mask_is_true_just_where_a_class_is(probe, tokens):
    chosen = layout(probe, tokens)
    state, counts = heads(probe)
    marked = {n: torch.ones_like(v) for n, v in state.items()}
    used = torch.arange(C) < counts.unsqueeze(1)
    for name in set(marked) & set(CLASS_TENSORS):
        marked[name] = marked[name] * used.reshape(*used.shape, *[1] * (state[name].dim() - 2))
    assert torch.equal(chosen.mask(counts), chosen.flatten(marked).bool())
    per_class = sum(v[0, 0].numel() for n, v in state.items() if n in CLASS_TENSORS)
    fixed = sum(v[0].numel() for n, v in state.items() if n not in CLASS_TENSORS)
    assert chosen.mask(counts).sum(1).tolist() == [fixed + per_class * int(c) for c in counts]


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_statistics_ignore_padding(probe):
    state, counts = heads(probe)
    chosen, disturbed = layout(probe), layout(probe)
    chosen.fit(state, counts)
    hidden = layout(probe).unflatten((~layout(probe).mask(counts)).float() * 1e6)
    disturbed.fit({n: v + hidden[n] for n, v in state.items()}, counts)
    assert (chosen.mean, chosen.std) == (disturbed.mean, disturbed.std)
    row = "bias" if probe == "linear" else "2.bias"
    values = torch.cat([v[:c] for v, c in zip(state[row], counts, strict=True)])
    assert chosen.mean[row] == pytest.approx(float(values.mean()), abs=1e-6)
    assert chosen.std[row] == pytest.approx(float(values.std()), rel=1e-5)


def test_a_small_tensor_is_standardised_by_its_own_scale():
    state, counts = heads(counts=[5] * 200)
    state["bias"] = state["bias"] * 1e-4
    chosen = layout(tokens=C)
    chosen.fit(state, counts)
    biases = chosen.flatten(state).reshape(200, C, K + 1)[..., -1]
    assert float(biases.std()) == pytest.approx(1, abs=0.01) and abs(float(biases.mean())) < 0.01


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_permuting_classes_permutes_rows(probe):
    state, _ = heads(probe, counts=(C, C))
    order, x = torch.randperm(C), torch.randn(6, K)
    moved = select_classes(state, order)
    torch.testing.assert_close(logits(moved, x), logits(state, x)[..., order])
    if probe == "linear":
        chosen = layout(tokens=C)
        rows = chosen.flatten(state).reshape(2, C, -1)
        assert torch.equal(chosen.flatten(moved).reshape(2, C, -1), rows[:, order])


def test_a_layout_comes_back_from_json():
    import json

    state, counts = heads("mlp")
    chosen = layout("mlp")
    chosen.fit(state, counts)
    again = WholeLayout(**json.loads(json.dumps(chosen.to_config(), sort_keys=True)))  # as diffusers writes it
    assert list(again.shapes) == list(chosen.shapes)
    assert again == chosen and torch.equal(again.flatten(state), chosen.flatten(state))


def test_tokens_must_divide_every_tensor():
    with pytest.raises(ValueError, match="does not divide into 2 tokens"):
        layout(tokens=2)
