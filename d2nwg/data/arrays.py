"""Small labelled images as arrays of one size: from array files (``.npz``, IDX) and from whatever
`d2nwg.data.images.load_images` takes. Grey images keep one channel."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from d2nwg.data.array_files import Arrays
from d2nwg.data.array_images import EncodedArrays
from d2nwg.data.decode import open_image
from d2nwg.data.image_set import ImageSet
from d2nwg.data.images import load_images
from d2nwg.data.labelled import LabelledSet, check_readable
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

TEST_SHARE = 0.2  # of a class's images, where a data set has no test part
BLOCK = 256  # files that are decoded between two reports


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Labelled images of s × s pixels, to train (n) and to test (m) with, of C classes.

    Attributes:
        train: (n, c, s, s) uint8, c = 1 for grey images and 3 for others.
        train_labels: (n,) int64, index into ``classes``.
        test: (m, c, s, s) uint8.
        test_labels: (m,) int64.
        test_index: (m,) the numbers of the test images in the data set that they are of; empty where that is not known.
        notes: sentences for the user.
    """

    name: str
    classes: tuple[str, ...]
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    notes: tuple[str, ...] = ()
    test_index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def channels(self) -> int:
        return self.train.shape[1]

    def coloured(self) -> "ImageArrays":
        """With three channels, equal ones where it was grey."""
        train, test = (np.broadcast_to(x, (len(x), 3, *x.shape[2:])) for x in (self.train, self.test))
        return replace(self, train=train, test=test)


def load_arrays(
    source: str | Path | LabelledSet, *, size: int = 28, rows: int = 6_000, seed: int = 0, progress: Progress = silent
) -> ImageArrays:
    """Load a labelled data set as arrays of ``size`` × ``size`` pixels; other shapes are cropped to their middle.

    Args:
        source: an `ImageSet`, or what `d2nwg.data.images.load_images` takes.
        rows: most training images, and three times as many as test images at most; drawn by the seed, each class in
            proportion. Without a test part a fifth of each class is one.
    Raises:
        UserError: naming the file, class or array at fault, or a set of texts.
    """
    data = source if isinstance(source, LabelledSet) else load_images(source, progress=progress)
    if not isinstance(data, ImageSet):
        raise UserError(f"{data.name} holds {data.noun}s, and images are needed here.")
    if isinstance(data.items, EncodedArrays):
        return _from_arrays(data.items.arrays, size, rows, seed)
    return _from_files(data, size, rows, seed, progress)


def draw(labels: np.ndarray, is_test: np.ndarray, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images to train with, at most ``rows``, and to test with, at most a third as many (100 or more),
    each class in proportion."""
    rng = np.random.default_rng(seed % 2**64)
    place = np.zeros(len(labels))  # of an image among those of its class and part, from 0 to 1
    for part in (False, True):
        for label in np.unique(labels):
            mine = rng.permutation(np.flatnonzero((labels == label) & (is_test == part)))
            place[mine] = (np.arange(len(mine)) + 0.5) / max(1, len(mine))
    if not is_test.any():
        is_test = place > 1 - TEST_SHARE
        place = np.where(is_test, 1 - place, place)
    parts = (np.flatnonzero(~is_test), rows), (np.flatnonzero(is_test), max(100, rows // 3))
    train, test = (np.sort(one[np.argsort(place[one], kind="stable")[:most]]) for one, most in parts)
    return train, test


def _from_arrays(found: Arrays, size: int, rows: int, seed: int) -> ImageArrays:
    train, test = draw(found.labels, found.is_test, rows, seed)
    parts = [(_resized(found.images[part], size), found.labels[part]) for part in (train, test)]
    return _checked(found.name, found.classes, *parts[0], *parts[1], test)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """(n, h, w, c) uint8 → (n, c, size, size), from the middle square."""
    side = min(images.shape[1:3])
    top, left = ((length - side) // 2 for length in images.shape[1:3])
    square = np.ascontiguousarray(images[:, top : top + side, left : left + side].transpose(0, 3, 1, 2))
    if side == size or not len(square):
        return square.reshape(len(square), square.shape[1], size, size)
    shape = (size, size)
    made = torch.nn.functional.interpolate(torch.from_numpy(square), shape, mode="bilinear", antialias=True)
    return made.numpy()


def _from_files(data: ImageSet, size: int, rows: int, seed: int, progress: Progress) -> ImageArrays:
    train, test = draw(data.labels, data.is_test, rows, seed)
    chosen = np.concatenate([train, test])
    scale = data.scale(progress)

    def read(number: int) -> np.ndarray | None:
        try:
            image = open_image(data.items[int(number)], min_side=size, scale=scale)
        except UserError:
            return None
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))

    pixels: list[np.ndarray | None] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(chosen), BLOCK):
            progress("Reading images", start, len(chosen))
            pixels += pool.map(read, chosen[start : start + BLOCK])
    readable = np.ones(len(data), bool)
    readable[chosen] = [image is not None for image in pixels]
    notes = (*data.notes, *check_readable(data, chosen, readable))
    images = np.stack([image for image in pixels if image is not None]).transpose(0, 3, 1, 2)
    if (images == images[:, :1]).all():
        images = images[:, :1]
    kept = np.cumsum(readable[chosen]) - 1  # places among the images that could be read
    first, second = (readable[part] for part in (train, test))
    one, two = kept[: len(train)][first], kept[len(train) :][second]
    labels = data.labels[train][first], data.labels[test][second]
    return _checked(data.name, data.classes, images[one], labels[0], images[two], labels[1], test[second], notes)


def _checked(
    name: str, classes: Sequence[str], train, train_labels, test, test_labels, test_index, notes: tuple[str, ...] = ()
) -> ImageArrays:
    """The set, once every class has images to train with and to test with."""
    for labels, what in ((train_labels, "train"), (test_labels, "test")):
        sizes = np.bincount(labels, minlength=len(classes))
        if (sizes == 0).any():
            short = shown(classes[int(np.argmin(sizes))])
            raise UserError(f"The class {short} of {name} has no image to {what} with: add some, or leave it out.")
    return ImageArrays(name, tuple(classes), train, train_labels, test, test_labels, notes, test_index)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Bytes (n, 1 or 3, s, s) as grey ones (ITU-R 601 luma, as Pillow's) or coloured ones."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor([19595, 38470, 7471]).reshape(3, 1, 1)
    return (((images.int() * weights).sum(1, keepdim=True) + 0x8000) >> 16).to(torch.uint8)
