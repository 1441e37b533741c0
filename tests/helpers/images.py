"""Small folders of images, whose classes are easy to tell apart."""

from pathlib import Path

import numpy as np
from PIL import Image


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
