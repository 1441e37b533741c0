"""Numbers that the main jobs cannot do are refused before an image is read."""

import pytest
import torch

from d2nwg.data.images import load_images
from d2nwg.encoders.base import Encoder
from d2nwg.exploration.explore import explore
from d2nwg.exploration.look import look
from d2nwg.generate import generate_heads
from d2nwg.interpolation.result import Interpolation
from tests.helpers.refusals import refusal


@pytest.fixture
def images(patterns, cheap_encoder, monkeypatch):
    """A data set whose images must not be read."""
    for module in ("d2nwg.opened", "d2nwg.interpolation.path"):
        monkeypatch.setattr(f"{module}.load_encoder", lambda *_: cheap_encoder)
    for kind in (type(cheap_encoder), Encoder):
        monkeypatch.setattr(kind, "encode", lambda *_args, **_options: pytest.fail("images were read"))
    return load_images(patterns)


NUMBERS = [
    (dict(shots=0), "number of shots should be a whole number from 1"),
    (dict(shots=float("nan")), "number of shots"),
    (dict(num_samples=0), "number of "),
    (dict(num_samples=-1), "number of "),
    (dict(num_samples=10**13), "whole number from 1 to 1,000,000,000"),
    (dict(num_samples=10**9), "GB of memory, and "),
    (dict(seed=-1), "The seed should be a whole number from 0"),
    (dict(seed=2**63), "The seed"),
    (dict(seed=0.5), "The seed"),
    (dict(steps=0), "denoising steps of this bundle are 1 to 1,024, not 0"),
    (dict(steps=10**9), "1 to 1,024, not 1000000000"),
    (dict(steps=True), "1 to 1,024, not True"),
    (dict(max_query=0), "number of query images"),
    (dict(max_query=-5), "number of query images"),
]
EXPLORED = [
    (dict(num_trained=-1), "number of heads to train should be a whole number from 0"),
    (dict(num_trained=10**9), "trained heads needs "),
    (dict(tasks=0), "number of tasks should be a whole number from 1 to 10,000"),
    (dict(tasks=10**6), "number of tasks"),
    (dict(classes=1), "number of classes of a task"),
]


@pytest.mark.parametrize(("numbers", "words"), NUMBERS)
def test_numbers_of_a_generation(numbers, words, images, tiny_bundle):
    small = load_subset(images)
    assert words in refusal(generate_heads, small, bundle=tiny_bundle, device="cpu", **{"num_samples": 2, **numbers})


@pytest.mark.parametrize(("numbers", "words"), NUMBERS + EXPLORED)
def test_numbers_of_an_exploration(numbers, words, images, tiny_bundle):
    small = load_subset(images)
    given = {"bundle": tiny_bundle, "device": "cpu", "num_samples": 2, "num_trained": 2, **numbers}
    assert words in refusal(explore, small, **given)


@pytest.mark.parametrize(
    "numbers", [dict(perplexity=0), dict(perplexity=float("nan")), dict(perplexity="x"), dict(seed=-1)]
)
def test_numbers_of_a_map(numbers):
    said = refusal(look, None, **numbers)
    assert "The perplexity should be a number from 1" in said or "The seed should be" in said


@pytest.mark.parametrize(
    "shares", [[1], [0, 0], [-1, 2], [float("nan"), 1], [1e308, 1e308], [float("inf"), 1], [1, 1, 1]]
)
def test_shares_of_a_mix(shares):
    class Ends:
        members = (1, 2)

    made = Interpolation(Ends(), torch.linspace(0, 1, 2), {}, None, "b", {})
    assert "Give a share of at least 0 for every endpoint" in refusal(made.mixed, shares, "weights")


def load_subset(images):
    """Of four classes, which the bundle has heads for."""
    from d2nwg.exploration.tasks import subsets

    return subsets(images, 1, 4, 0)[0]
