"""A labelled set of encoded images, and the checks that every source of one shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2nwg.data.pixels import Pixels
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import number, shown, some

# Of image files, in lower case.
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm"}
TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("test", "testing", "valid", "validation", "val")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A labelled data set of n images, which stay encoded until one is opened.

    Attributes:
        name: for sentences and reports.
        classes: the class names, sorted.
        items: (n,) encoded images: paths of files, or bytes (data sets from the Hub), read when asked for.
        labels: (n,) int64, index into `classes`.
        is_test: (n,) bool, True for the images of the test split; all False where there is none.
        notes: sentences for the user: what was left out and why.
        pixels: the scale of images of more than 8 bits a channel; a part of a data set has that of the whole.
    """

    name: str
    classes: tuple[str, ...]
    items: Sequence[Path | bytes]
    labels: np.ndarray
    is_test: np.ndarray
    notes: tuple[str, ...] = ()
    pixels: Pixels = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self):
        if self.pixels is None:
            object.__setattr__(self, "pixels", Pixels(self.items))

    def __len__(self) -> int:
        return len(self.labels)


def labelled_set(
    name: str, items: Sequence[Path | bytes], labels: Sequence[str], is_test: Sequence[bool], notes: Sequence[str]
) -> ImageSet:
    """The ImageSet of items with one class name each.

    Raises:
        UserError: fewer than two classes, or test images of a class that has no training images.
    """
    if not len(labels):
        raise UserError(f"{name} holds no labelled images.")
    testing = np.asarray(is_test, bool)
    classes, index = np.unique(np.asarray(labels, object), return_inverse=True)
    classes = tuple(str(label) for label in classes)
    if len(classes) < 2:
        raise UserError(f"{name} has only one class, {shown(classes[0])}; a classifier needs at least two.")
    trained = np.bincount(index[~testing], minlength=len(classes))
    tested = np.bincount(index[testing], minlength=len(classes))
    unknown = [label for label, count in zip(classes, trained, strict=True) if not count]
    if unknown:
        raise UserError(
            f"The test images of {name} have a class that its training images do not: "
            f"{some(unknown)}; use the same classes in both."
        )
    untested = [label for label, count in zip(classes, tested, strict=True) if not count]
    if testing.any() and untested:
        notes = [*notes, f"No test images for {some(untested)}."]
    return ImageSet(name, classes, items, index.astype(np.int64), testing, tuple(notes))


def check_readable(images: ImageSet, opened: np.ndarray, readable: np.ndarray) -> tuple[str, ...]:
    """Notes on the images that could not be read: none, or one sentence with their number and a few names.

    Args:
        opened: (m,) indices of the images that were opened.
        readable: (n,) bool, a mask over all images.
    Raises:
        UserError: more than half of the opened images could not be read.
    """
    bad = np.asarray(opened)[~np.asarray(readable)[opened]]
    if not len(bad):
        return ()
    names = some([image_name(images, i) for i in bad[:3]] + [None] * (len(bad) - 3))
    if 2 * len(bad) > len(opened):
        raise UserError(
            f"{len(bad):,} of {len(opened):,} images in {images.name} cannot be read ({names}); check "
            "that they are whole image files."
        )
    return (f"Left out {number(len(bad), 'image')} of {len(opened):,} that could not be read: {names}.",)


def image_name(images: ImageSet, index: int) -> str:
    """An image in words: its class and the name of its file, or its number."""
    item, label = images.items[int(index)], images.classes[images.labels[index]]
    return f"{label}/{item.name}" if isinstance(item, Path) else f"number {int(index)} ({label})"
