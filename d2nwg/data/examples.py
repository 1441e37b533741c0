"""Example data sets of real images, shipped as files or made on first use from the data in a dependency; nothing is
downloaded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, shipped, whole_folder
from d2nwg.utils.progress import Progress, silent


@dataclass(frozen=True)
class Example:
    """A data set that needs neither an upload nor a network connection."""

    name: str  # what follows "example:"
    title: str
    description: str  # one sentence
    licence: str  # with the source
    images: Callable[[], Iterator[tuple[str, Image.Image]]] | None  # yields (class, image); None: files in assets/

    def folder(self, *, progress: Progress = silent) -> Path:
        """The folder of class folders, written on the first call unless it is shipped."""
        if self.images is None:
            return shipped("assets") / self.name
        target = cache_dir() / "examples" / self.name
        if target.is_dir():
            return target
        with whole_folder(target) as partial:
            for i, (label, image) in enumerate(self.images()):
                if i % 50 == 0:
                    progress("Making the example", i, 0)
                (partial / label).mkdir(exist_ok=True)
                image.save(partial / label / f"{i:04d}.png")
        return target


def example_folder(name: str, *, progress: Progress = silent) -> Path:
    """The folder of the example of this name. Raises UserError when there is none."""
    if name not in EXAMPLES:
        raise UserError(f"There is no example named {name}; choose one of {', '.join(EXAMPLES)}.")
    return EXAMPLES[name].folder(progress=progress)


def scanned_digits(a_class: int = 60) -> Iterator[tuple[str, Image.Image]]:
    """The first images of each digit: 8 × 8 pixels of 0 … 16, enlarged to 64 × 64 by bicubic interpolation."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        for pixels in digits.images[digits.target == label][:a_class]:
            image = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
            yield str(label), image.resize((64, 64), Image.Resampling.BICUBIC)


def _digits_on(white: bool) -> Iterator[tuple[str, Image.Image]]:
    """Five classes, 50 images each that no other example has; those on white are negatives of the scans."""
    first = 110 if white else 60
    for i, (label, image) in enumerate(scanned_digits(first + 50)):
        if i % (first + 50) >= first and label < "5":
            yield label, ImageOps.invert(image) if white else image


def _digits_changed(turn: int = 0, negative: bool = False) -> Iterator[tuple[str, Image.Image]]:
    """The digits of the first example, rotated counter-clockwise by `turn` degrees, or as negatives."""
    for label, image in scanned_digits():
        yield label, ImageOps.invert(image) if negative else image.rotate(turn, Image.Resampling.BICUBIC)


DIGITS_LICENCE = "CC BY 4.0, E. Alpaydin and C. Kaynak: Optical Recognition of Handwritten Digits, via scikit-learn"

EXAMPLES: dict[str, Example] = {
    example.name: example
    for example in (
        Example(
            "clothes",
            "Clothes, ten kinds",
            "Photographs of clothes as people take them: 10 classes, 12 to 24 images each.",
            "CC0 1.0, A. Grigorev and others: clothing-dataset-small, its validation split",
            None,
        ),
        Example(
            "digits",
            "Handwritten digits",
            "Real handwritten digits, scanned at 8 × 8 pixels and enlarged: 10 classes, 60 images each.",
            DIGITS_LICENCE,
            scanned_digits,
        ),
        Example(
            "digits-on-black",
            "Digits 0 to 4, white on black",
            "Real handwritten digits, scanned at 8 × 8 pixels and enlarged: 5 classes, 50 images each.",
            DIGITS_LICENCE,
            lambda: _digits_on(white=False),
        ),
        Example(
            "digits-on-white",
            "Digits 0 to 4, black on white",
            "The same five digits, other scans, as negatives: the other endpoint of a path from the ones on black.",
            DIGITS_LICENCE,
            lambda: _digits_on(white=True),
        ),
        *(
            Example(
                f"digits-{name}",
                f"Handwritten digits, {title}",
                f"The digits of the first example, {title}: held-out images of a task that a bundle knows by name.",
                DIGITS_LICENCE,
                partial(_digits_changed, **change),
            )
            for name, title, change in (
                ("turned-45", "turned by 45 degrees", dict(turn=45)),
                ("turned-90", "turned by 90 degrees", dict(turn=90)),
                ("negative", "as negatives", dict(negative=True)),
            )
        ),
    )
}
