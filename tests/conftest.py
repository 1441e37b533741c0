"""What all tests share: a cache of their own, no network, few threads, and small folders of images."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def pytest_collection_modifyitems(items):
    """The browser's tests come last: playwright keeps an event loop running, in which no other test could run one."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def _own_cache():
    """The cache folder of this session, for processes that tests start as well."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2NWG_CACHE", folder)
        yield


def make_image_folder(
    root: Path, classes=("blue", "green", "red"), per_class: int = 8, size: int = 32, seed: int = 0
) -> Path:
    """Write ``root/CLASS/00.png`` …: a colour a class, with noise, so that classes are easy to tell apart.

    A class is a name, its colour follows from its place in ``classes``. Returns ``root``.
    """
    rng = np.random.default_rng(seed)
    for i, name in enumerate(classes):
        folder = Path(root) / name
        folder.mkdir(parents=True)
        hue = Image.new("HSV", (1, 1), (255 * i // len(classes), 230, 200)).convert("RGB").getpixel((0, 0))
        for k in range(per_class):
            pixels = np.clip(np.array(hue) + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{k:02}.png")
    return Path(root)


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Three classes of eight solid-colour images."""
    return make_image_folder(tmp_path / "colours")


def make_pattern_folder(root: Path, classes=range(24), per_class: int = 12, size: int = 32, seed: int = 0) -> Path:
    """Write ``root/pattern-NN/00.png`` …: stripes of two colours, so that what a class looks like is known.

    A class's number fixes its colours, direction and width (`pattern`); place and noise differ from image to image.
    Different numbers are different classes, whatever other ones there are. Returns ``root``.
    """
    y, x = np.mgrid[:size, :size] / size
    for number in classes:
        first, second, angle, stripes = pattern(number)
        rng = np.random.default_rng([seed, number])
        folder = Path(root) / f"pattern-{number:02}"
        folder.mkdir(parents=True)
        for k in range(per_class):
            turn = np.deg2rad(angle + rng.normal(0, 4))
            wave = np.sin(2 * np.pi * (stripes * (x * np.cos(turn) + y * np.sin(turn)) + rng.random()))
            share = (0.5 + 0.5 * wave)[..., None]
            pixels = share * first + (1 - share) * second + rng.normal(0, 12) + rng.normal(0, 12, (size, size, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{k:02}.png")
    return Path(root)


def pattern(number: int) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Two colours (RGB), direction in degrees and number of stripes of the class of that number."""
    rng = np.random.default_rng(10_000 + number)
    first, second = rng.uniform(20, 235, (2, 3))
    return first, second, rng.choice([0, 45, 90, 135]), int(rng.choice([2, 4, 7]))


class CheapEncoder:
    """Stands in for a network: 48 features, each the share of pixels near one colour of a 4 × 4 × 3 grid."""

    name, num_features, device = "fake/colours", 48, "cpu"
    preprocessing = {"size": 16, "crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
    grid = np.array(list(product((30, 90, 150, 210), (30, 90, 150, 210), (40, 120, 200))))

    def encode(self, items, *, progress=lambda *_: None, cache=True):
        import torch

        features, readable = torch.zeros(len(items), self.num_features), np.ones(len(items), bool)
        for i, item in enumerate(items):
            try:
                with Image.open(item) as image:
                    pixels = np.asarray(image.convert("RGB").resize((16, 16)), np.float32).reshape(-1, 1, 3)
            except OSError:
                readable[i] = False
                continue
            near = np.exp(-((pixels - self.grid) ** 2).sum(-1) / (2 * 40**2))
            features[i] = torch.from_numpy(np.sqrt(near.mean(0)))
            progress("Reading images", i + 1, len(items))
        return features, readable


@pytest.fixture(scope="session")
def cheap_encoder() -> CheapEncoder:
    return CheapEncoder()


@pytest.fixture(scope="session")
def patterns(tmp_path_factory) -> Path:
    """24 classes of 12 images."""
    return make_pattern_folder(tmp_path_factory.mktemp("data") / "patterns")


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory, patterns, cheap_encoder):
    """300 linear probes of 2 to 6 classes on the cheap encoder."""
    from d2nwg.data.images import load_images
    from d2nwg.weights.zoo import ZooConfig, build_zoo

    config = ZooConfig(subsets=300, min_classes=2, max_classes=6, images=8, width=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2nwg.weights.zoo.BATCH", 20)  # a batch has one number of classes: with many, all occur
        return build_zoo([load_images(patterns)], cheap_encoder, config, tmp_path_factory.mktemp("zoos") / "zoo")


def quick_config(**changes):
    """The tiny preset cut to a few steps: enough to run every line of training, not enough to learn."""
    from d2nwg.training.config import TrainConfig

    few = dict(vae_steps=30, align_steps=20, diffusion_steps=30, batch_size=8, checkpoint_every=10)
    return TrainConfig.preset("tiny", **few | changes)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, tiny_zoo) -> Path:
    """A bundle trained for a few steps on the tiny zoo."""
    from d2nwg.training.run import train_bundle

    return train_bundle(tiny_zoo, quick_config(), tmp_path_factory.mktemp("bundles") / "tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_mlp_bundle(tmp_path_factory, patterns, cheap_encoder) -> Path:
    """A bundle of two-layer heads with 6 hidden units, for up to 5 classes, trained for a step or two."""
    from d2nwg.data.images import load_images
    from d2nwg.training.run import train_bundle
    from d2nwg.weights.zoo import ZooConfig, build_zoo

    folder = tmp_path_factory.mktemp("mlp")
    config = ZooConfig(subsets=10, max_classes=5, images=4, width=8, probe="mlp", hidden=6)
    zoo = build_zoo([load_images(patterns)], cheap_encoder, config, folder / "zoo")
    steps = quick_config(vae_steps=2, align_steps=1, diffusion_steps=2, batch_size=2)
    return train_bundle(zoo, steps, folder / "mlp", device="cpu")
