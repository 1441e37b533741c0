"""Names → directions, the whitened space, and names beside images in the dual generator."""

import pytest
import torch
from torch.nn.functional import normalize

from d2nwg.models.dual import COEFFICIENTS, DualDenoiser
from d2nwg.models.names import Directions, NameMap, NameSpace
from d2nwg.models.prior import NAME_FACTS, TRUE, Prior, belief
from d2nwg.models.span import Span

WIDTH, TEXT = 24, 12


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def task(classes=4, shots=3, seed=0):
    """Features, targets and directions near the class means."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, WIDTH, generator=generator)
    x = (centres.unsqueeze(1) + torch.randn(classes, shots, WIDTH, generator=generator)).flatten(0, 1) + 3
    targets = torch.eye(classes).repeat_interleave(shots, 0)
    near = normalize(centres - centres.mean(0), dim=-1) * 0.7
    return x[None], targets[None], Directions.of_one(near, torch.full((classes,), 0.3)), centres + 3


@pytest.fixture(scope="module")
def model() -> DualDenoiser:
    """With random weights wherever an untrained one has zeros."""
    torch.manual_seed(0)
    made = DualDenoiser(width=16, depth=1, heads=2, names=True)
    for last in (made.guess, made.gate[-1], made.denoise[-1], made.start.scalars[-1]):
        torch.nn.init.normal_(last.weight, std=0.05)
    return made.eval().requires_grad_(False)


def test_a_known_name_is_its_row_and_a_strange_one_is_nothing():
    texts, rows = torch.eye(TEXT)[:8], unit(8, WIDTH)
    known = NameMap(texts, rows)
    weight, variance = known(torch.stack([texts[2], torch.eye(TEXT)[11]]))
    assert torch.nn.functional.cosine_similarity(weight[0], rows[2], dim=0) > 0.99
    assert weight[0].norm() > 0.7 > 0.1 > weight[1].norm()
    assert variance[0] < 0.3 and variance[1] > 0.95
    assert known.nearest(texts[[5, 1]]).tolist() == [5, 1]
    draws = known.draws(4000, torch.Generator().manual_seed(0))
    spread = (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / 8
    torch.testing.assert_close(draws.T @ draws / 4000, spread, atol=0.02, rtol=0)


def test_names_between_two_known_ones_are_between_their_rows():
    texts, rows = torch.eye(TEXT)[:2], unit(2, WIDTH)
    weight, variance = NameMap(texts, rows)(normalize(texts.sum(0, keepdim=True), dim=-1))
    torch.testing.assert_close(weight[0] @ rows[0], weight[0] @ rows[1])
    assert 0.3 < variance[0] < 0.98


@pytest.fixture(scope="module")
def space() -> NameSpace:
    generator = torch.Generator().manual_seed(0)
    made = NameSpace("fake/one", "fake/text", WIDTH, TEXT, ["a/x", "a/y", "a/z"])
    stretched = torch.linspace(0.2, 3, WIDTH)
    centres = 2 * torch.randn(3, WIDTH, generator=generator) + 4
    labels = torch.arange(3).repeat_interleave(40)
    made.fit(centres[labels] + stretched * torch.randn(120, WIDTH, generator=generator), labels)
    made.class_texts.data, made.imagenet_texts.data = torch.eye(TEXT)[:3], unit(1000, TEXT)
    return made.requires_grad_(False)


def test_whitening_evens_out_what_differs_within_classes(space):
    generator = torch.Generator().manual_seed(1)
    x = 4 + torch.linspace(0.2, 3, WIDTH) * torch.randn(2000, WIDTH, generator=generator)
    before, after = x.std(0), space.features(x).std(0)
    assert after.max() / after.min() < 0.6 * before.max() / before.min()


def test_heads_on_whitened_features_are_folded_exactly(space):
    x, state = torch.rand(6, WIDTH) + 1, {"weight": torch.randn(2, 3, WIDTH), "bias": torch.randn(2, 3)}
    folded = space.fold(state)
    wanted = space.features(x) @ state["weight"].mT + state["bias"].unsqueeze(1)
    torch.testing.assert_close(x @ folded["weight"].mT + folded["bias"].unsqueeze(1), wanted, rtol=1e-3, atol=1e-3)


def test_a_classifiers_rows_keep_what_they_say_of_images(space):
    rows = torch.randn(1000, WIDTH, generator=torch.Generator().manual_seed(2))
    known = space.name_map(rows)
    assert known.rows.shape == (1003, WIDTH) and space.name_map(None).rows.shape == (3, WIDTH)
    x = torch.rand(5, WIDTH)
    centred = normalize(rows - rows.mean(0), dim=-1)[7]
    plain = (x / space.config.length - space.mean) @ centred
    whitened = space.features(x) @ known.rows[7].float()
    torch.testing.assert_close(whitened / whitened.norm(), plain / plain.norm(), rtol=1e-3, atol=1e-3)


def test_a_space_saved_is_the_same(space, tmp_path):
    space.save_pretrained(tmp_path)
    again = NameSpace.from_pretrained(tmp_path)
    assert again.config.classes == ["a/x", "a/y", "a/z"] and again.config.length == space.config.length
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), space.parameters(), strict=True))


def test_directions_are_split_into_what_the_images_span_and_the_rest():
    x, targets, directions, _ = task()
    span = Span.of(x, targets)
    prior = Prior.of(span, directions)
    whole = prior.inside @ span.basis + prior.beyond
    torch.testing.assert_close(whole, normalize(directions.weight, dim=-1), rtol=1e-4, atol=1e-4)
    assert (prior.beyond @ span.basis.mT).abs().max() < 1e-5
    assert prior.facts.shape == (1, NAME_FACTS) and prior.facts[0, 0] == prior.named


def in_another_order(directions):
    return Directions(directions.weight.roll(1, 1), directions.variance.roll(1, 1), directions.named)


def test_facts_tell_true_names_from_permuted_ones():
    x, targets, directions, _ = task(classes=6)
    priors = [Prior.of(Span.of(x, targets), given) for given in (directions, in_another_order(directions))]
    true, permuted = (prior.facts[0] / prior.named[0, 0] for prior in priors)
    assert (true[1:5] > permuted[1:5] + 0.3).all(), "accuracy, likelihood and fit"
    torch.testing.assert_close(true[5:], permuted[5:])
    torch.testing.assert_close(permuted[0], true[0])


def test_names_that_the_images_contradict_are_left_out(model):
    x, targets, directions, centres = task(classes=6, shots=1)
    permuted = in_another_order(directions)
    span = Span.of(x, targets)
    assert Prior.of(span, directions).named > 0.99 and Prior.of(span, permuted).named < 1e-3
    query, latents = centres[None], torch.zeros(1, 6, COEFFICIENTS)
    nameless, true, false = (
        model.logits(latents, model.encode(x, targets, None, given), query) for given in (None, directions, permuted)
    )
    assert (true - nameless).abs().max() > 0.5
    torch.testing.assert_close(false, nameless, rtol=0.02, atol=0.02)


def test_the_belief_in_names_that_images_say_nothing_of_is_that_beforehand():
    nothing = torch.zeros(2, 4, 4)
    torch.testing.assert_close(belief(nothing), torch.full((2,), TRUE).sigmoid())
    own = 0.3 * torch.eye(4) - 0.075
    fits = torch.stack([own, own.roll(1, 0)])
    assert belief(fits)[0] > belief(nothing)[0] > 0.5 > belief(fits)[1]
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(belief(fits[:, order][:, :, order]), belief(fits))


@pytest.mark.parametrize("free", [0, 12])
def test_heads_on_features_give_the_same_logits(model, free):
    x, targets, directions, centres = task()
    more = torch.randn(1, free, WIDTH) + centres[torch.arange(free) % 4] if free else None
    query = torch.randn(1, 7, WIDTH) + 3
    condition = model.encode(x, targets, more, directions)
    latents = torch.randn(1, condition.num_tokens, COEFFICIENTS)
    state = model.to_heads(latents, condition)
    expected = model.logits(latents, condition, query)
    torch.testing.assert_close(query @ state["weight"].mT + state["bias"][:, None], expected, rtol=1e-3, atol=1e-3)


def test_heads_go_through_the_whitening_at_once(model, space):
    x, targets, directions, _ = task()
    condition = model.encode(space.features(x), targets, None, directions)
    latents = torch.randn(2, condition.num_tokens, COEFFICIENTS)
    after = space.fold(model.to_heads(latents, condition))
    at_once = space.fold(model.to_heads(latents, condition, space.whiten), turned=True)
    for name in after:
        torch.testing.assert_close(at_once[name], after[name], rtol=1e-3, atol=1e-3)


def test_permuting_classes_with_their_names_permutes_the_rows(model):
    x, targets, directions, _ = task()
    order = torch.tensor([2, 0, 3, 1])
    other = Directions(directions.weight[:, order], directions.variance[:, order], directions.named)
    latents = torch.zeros(1, 12, COEFFICIENTS)
    first = model.to_heads(latents, model.encode(x, targets, None, directions))
    second = model.to_heads(latents, model.encode(x, targets[..., order], None, other))
    for name in first:
        torch.testing.assert_close(second[name], first[name][:, order], rtol=1e-3, atol=1e-3)


def test_names_help_where_images_are_few():
    torch.manual_seed(0)
    plain = DualDenoiser(width=16, depth=1, heads=2, names=True).eval().requires_grad_(False)
    x, targets, directions, centres = task(classes=8, shots=1, seed=3)
    x = x + 3 * torch.randn(x.shape)
    query = (centres.unsqueeze(1) + 2 * torch.randn(8, 40, WIDTH)).flatten(0, 1)[None]
    labels, zero = torch.arange(8).repeat_interleave(40), torch.zeros(1, 8, COEFFICIENTS)
    hits = [
        (plain.logits(zero, plain.encode(x, targets, None, given), query)[0].argmax(-1) == labels).float().mean()
        for given in (None, directions)
    ]
    assert hits[1] > hits[0] + 0.03


def test_a_task_without_names_in_a_batch_is_as_without_any(model):
    x, targets, directions, _ = task()
    nothing = Directions(directions.weight, directions.variance, torch.zeros(1))
    latents = torch.zeros(1, 12, COEFFICIENTS)
    first, second = (model.to_heads(latents, model.encode(x, targets, None, given)) for given in (None, nothing))
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_a_model_without_names_ignores_them():
    torch.manual_seed(0)
    plain = DualDenoiser(width=16, depth=1, heads=2).eval().requires_grad_(False)
    x, targets, directions, _ = task()
    latents = torch.zeros(1, 12, COEFFICIENTS)
    first, second = (plain.to_heads(latents, plain.encode(x, targets, None, given)) for given in (None, directions))
    assert all(torch.equal(first[name], second[name]) for name in first)
