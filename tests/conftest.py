"""What all tests share: a cache of their own, no network, few threads, and small folders of images."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def _own_cache():
    """The cache folder of this session, for processes that tests start as well."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2NWG_CACHE", folder)
        yield


def make_image_folder(root: Path, classes=("blue", "green", "red"), per_class: int = 8, size: int = 32,
                      seed: int = 0) -> Path:
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
