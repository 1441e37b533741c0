"""Array files as a labelled set of images, for everything that takes one."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from d2nwg.data.array_files import Arrays, find_idx, is_idx, read_idx, read_npz
from d2nwg.data.image_set import ImageSet


class EncodedArrays(Sequence):
    """The images of an array file, each a PNG file (nothing is lost) that is made when it is indexed.

    Attributes:
        arrays: the images as they are.
    """

    def __init__(self, arrays: Arrays):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays.images)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # no slices
        pixels, file = self.arrays.images[index], io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()


def read_arrays(path: Path) -> Arrays | None:
    """The arrays of an ``.npz`` file, of IDX files or of the folder that they lie in (`d2nwg.data.array_files`); None
    for anything else.

    Raises:
        UserError: they are damaged, or no labelled images.
    """
    if idx := find_idx(path):
        return read_idx(idx)
    return read_npz(path) if path.is_file() and path.suffix.lower() == ".npz" else None


def image_set(arrays: Arrays) -> ImageSet:
    """The set of these images; its classes are in the order of their labels."""
    return ImageSet(arrays.name, arrays.classes, EncodedArrays(arrays), arrays.labels, arrays.is_test)


def in_one_folder(files: Sequence[Path], folder: Path) -> Path | None:
    """Where each of several files is one of IDX, as an upload that keeps them apart leaves them: ``folder`` with copies
    of them; None otherwise."""
    if not all(is_idx(file.name) for file in files):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / file.name)
    return folder
