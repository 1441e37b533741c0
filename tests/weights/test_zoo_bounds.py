"""Zoos of heads: numbers that no machine can do are refused before an image is read; few images are enough."""

import pytest

from d2nwg.data.images import load_images
from d2nwg.utils import limits
from d2nwg.weights.build import build_zoo
from d2nwg.weights.zoo import Zoo, ZooConfig
from tests.helpers.refusals import refusal


class Unread:
    """An encoder that must not be used."""

    name, num_features, device, preprocessing = "fake/unread", 48, "cpu", {}

    def encode(self, *_args, **_options):
        raise AssertionError("images were read")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (dict(max_classes=1_000_000, subsets=10_000), "--classes 2-1000000 (no data set has more than 3) needs "),
        (dict(max_classes=10**9, subsets=1), "choose a smaller range"),
        (dict(subsets=10**9, max_classes=1000), "A zoo of 1,000,000,000 heads of up to 1,000 classes needs "),
    ],
)
def test_a_zoo_that_cannot_be_built(numbers, words, image_folder, tmp_path):
    config = ZooConfig(**{"subsets": 4, "max_classes": 3, **numbers})
    said = refusal(build_zoo, [load_images(image_folder)], Unread(), config, tmp_path / "zoo", device="cpu")
    assert words in said and "are free: " in said and not any(tmp_path.glob("*zoo*"))


def test_training_of_probes_that_does_not_fit(image_folder, tmp_path, monkeypatch):
    config = ZooConfig(subsets=200, max_classes=3, images=8)
    monkeypatch.setattr(limits, "free_memory", lambda device: 0.8e6)
    said = refusal(build_zoo, [load_images(image_folder)], Unread(), config, tmp_path / "zoo", device="cpu")
    assert "Training 128 probes on 23 numbers an image needs " in said and "lower --images or --classes" in said


def test_fewer_images_than_asked_for_are_enough(image_folder, cheap_encoder, tmp_path):
    config = ZooConfig(subsets=6, max_classes=3, images=500, max_per_class=10**9, width=4)
    build_zoo([load_images(image_folder)], cheap_encoder, config, tmp_path / "zoo", device="cpu")
    assert Zoo(tmp_path / "zoo").records([0]).support.shape[-1] <= 8
