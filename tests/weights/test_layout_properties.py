"""Layouts of any shape: there and back, padding that says nothing, rows that follow their classes."""

import json

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from d2nwg.weights.layouts import ChunkedLayout, WholeLayout
from d2nwg.weights.networks import CLASS_TENSORS, head_shapes, select_classes

SIZES = st.integers(1, 5)


@st.composite
def heads(draw):
    """A layout of heads with some statistics, heads (B, …) zero where they have no class, and their counts (B,)."""
    classes, probe = draw(st.integers(1, 6)), draw(st.sampled_from(["linear", "mlp"]))
    shapes = head_shapes(probe, draw(SIZES), classes, draw(SIZES))
    layout = WholeLayout(shapes, classes, tokens=draw(st.sampled_from([1, classes])) if probe == "linear" else 1)
    counts = torch.tensor(draw(st.lists(st.integers(1, classes), min_size=2, max_size=4)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    used = torch.arange(classes) < counts[:, None]
    state = {}
    for name, shape in shapes.items():
        value = 2 + 3 * torch.randn(len(counts), *shape, generator=generator)
        state[name] = value * used.reshape(*used.shape, *[1] * (len(shape) - 1)) if name in CLASS_TENSORS else value
        layout.mean[name], layout.std[name] = draw(st.floats(-5, 5)), draw(st.floats(0.1, 5))
    return layout, state, counts


@given(heads())
def test_heads_come_back_from_vectors(made):
    layout, state, _ = made
    vectors = layout.flatten(state)
    assert vectors.shape == (len(next(iter(state.values()))), layout.size)
    back = layout.unflatten(vectors)
    assert list(back) == list(state)
    for name in state:
        torch.testing.assert_close(back[name], state[name], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layout.flatten(back), vectors, rtol=1e-4, atol=1e-4)


@given(heads(), st.floats(-100, 100))
def test_the_mask_is_where_padding_stands(made, other):
    """Other numbers in the padding change a vector there and nowhere else, and no statistics."""
    layout, state, counts = made
    disturbed = {}
    for name, tensor in state.items():
        disturbed[name] = tensor.clone()
        if name in CLASS_TENSORS:
            for row, count in zip(disturbed[name], counts.tolist(), strict=True):
                row[count:] += other + 1000
    mask = layout.mask(counts)
    assert torch.equal(layout.flatten(state) == layout.flatten(disturbed), mask)
    layout.fit(state, counts)
    fitted = dict(layout.mean), dict(layout.std)
    layout.fit(disturbed, counts)
    assert fitted == (layout.mean, layout.std)
    vectors, end = layout.flatten(state), 0
    for name, piece in layout.unflatten(mask.float()).items():
        within = (piece - layout.mean[name]) / layout.std[name] > 0.5
        standardised = (state[name] - layout.mean[name]) / layout.std[name]
        if within.sum() > 1 and standardised[within].std() > 1e-3:
            assert abs(float(standardised[within].mean())) < 1e-3, name
        end += piece[0].numel()
    assert end == layout.size == vectors.shape[1]


@given(heads(), st.randoms(use_true_random=False))
def test_rows_follow_their_classes(made, random):
    layout, state, _ = made
    order = list(range(layout.num_classes))
    random.shuffle(order)
    moved = layout.flatten(select_classes(state, torch.tensor(order)))
    if layout.tokens == layout.num_classes:  # a token a class
        tokens = layout.flatten(state).unflatten(1, (layout.num_classes, -1))
        assert torch.equal(moved, tokens[:, order].flatten(1))
    back = layout.unflatten(moved)
    for name in state:
        torch.testing.assert_close(
            select_classes(back, torch.tensor(order).argsort())[name], state[name], rtol=1e-4, atol=1e-4
        )


@given(heads())
def test_a_layout_is_its_config(made):
    layout, state, counts = made
    again = WholeLayout(**json.loads(json.dumps(layout.to_config(), sort_keys=True)))
    assert list(again.shapes) == list(layout.shapes)
    assert torch.equal(again.flatten(state), layout.flatten(state))
    assert torch.equal(again.mask(counts), layout.mask(counts))


@st.composite
def networks(draw):
    """States of two to four networks of one architecture, without a batch axis, and a layout that is fitted on them."""
    shapes = {}
    for layer in range(draw(st.integers(1, 4))):
        shapes[f"layers.{layer}.weight"] = tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))
        if draw(st.booleans()):
            shapes[f"layers.{layer}.bias"] = shapes[f"layers.{layer}.weight"][:1]
        if draw(st.booleans()):
            shapes[f"layers.{layer}.running_var"] = shapes[f"layers.{layer}.weight"][:1]
            shapes[f"layers.{layer}.num_batches_tracked"] = ()
    if draw(st.booleans()):
        shapes["scale"] = ()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    states = []
    for _ in range(draw(st.integers(2, 4))):
        state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        for name, tensor in state.items():
            if name.endswith("running_var"):
                state[name] = tensor.square() + 0.01
            elif name.endswith("tracked"):
                state[name] = torch.tensor(3)
        states.append(state)
    layout = ChunkedLayout.of(states[0], draw(st.integers(1, 9)), draw(st.sampled_from(["travel", "recalibrate"])))
    layout.fit(states)
    return layout, states, {name: torch.stack([state[name] for state in states]) for name in layout.shapes}


@given(networks())
def test_networks_come_back_from_chunks(made):
    layout, states, state = made
    chunks = layout.flatten(state)
    assert chunks.shape == (len(states), len(layout.places), layout.chunk)
    back = layout.unflatten(chunks)
    assert list(back) == list(state) == list(layout.shapes)
    for name in state:
        torch.testing.assert_close(back[name], state[name], rtol=1e-4, atol=1e-4)
    kept = {name for name in states[0] if not name.endswith("tracked")}
    dropped = {name for name in kept if name.endswith("running_var")} if layout.batchnorm == "recalibrate" else set()
    assert set(state) == kept - dropped


@given(networks(), st.floats(-100, 100))
def test_padded_chunks_say_nothing(made, other):
    layout, _, state = made
    chunks, mask = layout.flatten(state), layout.mask()
    assert mask.shape == chunks.shape[1:] and int(mask.sum()) == sum(t[0].numel() for t in state.values())
    assert not chunks[:, ~mask].any()
    disturbed = layout.unflatten(torch.where(mask, chunks, torch.tensor(other)))
    assert all(torch.equal(tensor, disturbed[name]) for name, tensor in layout.unflatten(chunks).items())


@given(networks())
def test_spans_and_places_are_where_the_numbers_are(made):
    layout, _, state = made
    flat, mask = layout.flatten(state).flatten(1), layout.mask().flatten()
    covered = torch.zeros_like(mask)
    for name, span in layout.spans.items():
        expected = state[name].clamp_min(0).add(1e-12).log() if name.endswith("running_var") else state[name]
        expected = expected.reshape(len(flat), -1)
        torch.testing.assert_close(flat[:, span] * layout.std[name] + layout.mean[name], expected, rtol=1e-4, atol=1e-4)
        assert not covered[span].any()
        covered[span] = True
    assert torch.equal(covered, mask)
    layers = list(layout.layers)
    for row, (layer, place) in enumerate(layout.places):
        first = layout.spans[layout.layers[layers[layer]][0]].start
        assert first + place * layout.chunk == row * layout.chunk


@given(networks())
def test_statistics_of_chunks_are_a_tensors_own(made):
    layout, _, state = made
    for name, span in layout.spans.items():
        values = layout.flatten(state).flatten(1)[:, span]
        assume(layout.std[name] > 1e-3)
        assert abs(float(values.mean())) < 1e-3
        assert layout.std[name] == 1.0 or abs(float(values.std(correction=0)) - 1) < 1e-2
