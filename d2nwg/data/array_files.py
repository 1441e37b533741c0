"""Labelled images in array files: NumPy's ``.npz``, and the IDX files in which MNIST and its relatives come."""

import gzip
import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.text import is_utf8, number, shown

MAX_BYTES = 2 * 2**30  # of all arrays of a file
COPIES, FEWER = 2, "give fewer images, or smaller ones"  # a part is read, and then joined with the others
MAX_CLASSES = 100_000
KEYS = (  # images and labels to train with, and to test with
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y", "", ""),
    ("images", "labels", "", ""),
)
NAMES = ("class_names", "classes")
_IDX = re.compile(r"(?P<set>.*?)(?P<part>train|t10k|test)-images[-.]idx3-ubyte(?P<packed>\.gz)?", re.IGNORECASE)
_DAMAGE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Labelled images of one shape.

    Attributes:
        images: (n, h, w, c) uint8; c is 1 or 3.
        labels: (n,) int64, index into ``classes``.
        is_test: (n,) bool, all False where there is no test part.
    """

    name: str
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray


def read_npz(path: Path) -> Arrays:
    """Images and labels of an ``.npz`` file (see `KEYS`): images (n, h, w), (n, h, w, c) or (n, c, h, w) with values of
    0 to 255, or floats from 0 to 1; labels (n,) whole numbers or texts; perhaps ``class_names`` of the numbers.

    Raises:
        UserError: it is damaged, too large, holds other arrays, or such that only pickle could read.
    """
    name = shown(path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            keys = next((keys for keys in KEYS if all(key in members for key in keys[:2])), None)
            if keys is None:
                raise UserError(
                    f"{name} holds no labelled images: name its arrays x_train, y_train, x_test and y_test, or x and y."
                )
            if (keys[2] in members) != (keys[3] in members):
                raise UserError(f"{name} has only one of {keys[2]} and {keys[3]}: give both, or neither.")
            parts = [keys[:2]] + [keys[2:]] * (keys[2] in members)
            wanted = [*(key for part in parts for key in part), *(key for key in NAMES if key in members)]
            total = sum(members[key].file_size for key in wanted)
            if total > MAX_BYTES:
                raise UserError(f"The arrays of {name} are larger than {MAX_BYTES // 2**30} GiB, which is the limit.")
            check_memory(COPIES * total, f"Reading {name}", FEWER)
            arrays = {key: _member(archive, members[key], f"{key} of {name}") for key in wanted}
    except UserError:
        raise
    except (MemoryError, *_DAMAGE) as reason:
        raise UserError(f"{name} cannot be read as arrays: it is damaged, cut short or of another format.") from reason
    known = next((arrays[key] for key in NAMES if key in arrays), None)
    pairs = [(_pixels(arrays[x], f"{x} of {name}"), _labels(arrays[y], f"{y} of {name}")) for x, y in parts]
    return _joined(shown(path.stem), name, pairs, known)


def is_idx(name: str) -> bool:
    """Whether a file is named as those of IDX sets are, of images or of labels."""
    return bool(_IDX.fullmatch(re.sub("labels([-.])idx1", r"images\1idx3", name, flags=re.IGNORECASE)))


def find_idx(path: Path) -> list[Path]:
    """The files of images of an IDX set: of training, and of test where there is one. ``path`` is the folder they lie
    in, or the first file itself; none for anything else.

    Raises:
        UserError: the folder holds several sets.
    """
    folder, chosen = (path.parent, _IDX.fullmatch(path.name)) if path.is_file() else (path, None)
    if not folder.is_dir() or (path.is_file() and not chosen):
        return []
    found: dict[str, dict[bool, Path]] = {}
    try:
        files = sorted(file for file in folder.iterdir() if _IDX.fullmatch(file.name))
    except OSError:  # whoever reads images there says why
        return []
    for file in files:
        if (match := _IDX.fullmatch(file.name)) and file.is_file():
            found.setdefault(match["set"], {}).setdefault(match["part"].lower() != "train", file)
    sets = {name: parts for name, parts in found.items() if False in parts}
    if chosen:
        sets = {name: parts for name, parts in sets.items() if name == chosen["set"]}
    if len(sets) > 1:
        raise UserError(f"{shown(folder.name)} holds several sets of IDX files: give the file of training images.")
    return [parts[part] for parts in sets.values() for part in (False, True) if part in parts]


def read_idx(images: list[Path]) -> Arrays:
    """Images and labels of the IDX files that `find_idx` found, packed with gzip or not; the labels lie beside the
    images (``train-labels-idx1-ubyte``).

    Raises:
        UserError: naming the file that is missing, damaged, too large or of another type.
    """
    pairs = []
    for file in images:
        stem = re.sub("images([-.])idx3", r"labels\1idx1", file.name, flags=re.IGNORECASE).removesuffix(".gz")
        beside = next((p for p in (file.with_name(stem), file.with_name(f"{stem}.gz")) if p.is_file()), None)
        if beside is None:
            raise UserError(f"There is no {shown(stem)} beside {shown(file.name)}: its labels are missing.")
        pairs.append((_idx(file, 3)[..., None], _idx(beside, 1).astype(np.int64)))
    match = _IDX.fullmatch(images[0].name)
    name = match["set"].strip("-_.") if match else ""
    return _joined(shown(name or images[0].resolve().parent.name), shown(images[0].name), pairs, None)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> np.ndarray:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, kind = read(file)
        if kind.hasobject:
            raise UserError(f"The array {what} holds Python objects, which are not read: save numbers or texts.")
        if math.prod(shape) * kind.itemsize > info.file_size:
            raise ValueError("cut short")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _pixels(array: np.ndarray, what: str) -> np.ndarray:
    """(n, h, w, c) uint8."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or not all(array.shape):
        raise UserError(f"The array {what} holds no images: give (n, height, width), with or without 1 or 3 channels.")
    if array.dtype == np.uint8:
        return array
    low, high = (float(value) for value in (array.min(), array.max())) if array.dtype.kind in "biuf" else (-1, -1)
    if not 0 <= low <= high <= 255:  # also where one is NaN
        raise UserError(f"The array {what} holds values that are no pixels: give whole numbers from 0 to 255.")
    return (array * (255 if high <= 1 and array.dtype.kind in "bf" else 1)).round().astype(np.uint8)


def _labels(array: np.ndarray, what: str) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise UserError(f"The array {what} holds no labels: give one whole number or text an image.")
    return array


def _joined(name: str, file: str, pairs: list[tuple[np.ndarray, np.ndarray]], known: np.ndarray | None) -> Arrays:
    """The parts as one set, with names of its classes."""
    for images, labels in pairs:
        if len(images) != len(labels):
            raise UserError(
                f"{file} has {len(images):,} images and {len(labels):,} labels in one part: they must agree."
            )
    if len({images.shape[1:] for images, _ in pairs}) > 1 or len({labels.dtype.kind == "U" for _, labels in pairs}) > 1:
        raise UserError(f"The test images of {file} have another shape, or another kind of labels, than the others.")
    values, labels = np.unique(np.concatenate([labels for _, labels in pairs]), return_inverse=True)
    if not 2 <= len(values) <= MAX_CLASSES:
        found = number(len(values), "class", "classes")
        raise UserError(f"{file} has {found}; a classifier needs 2 to {MAX_CLASSES:,}.")
    classes = [str(value) for value in values]
    if known is not None and values.dtype.kind != "U":
        if known.ndim != 1 or known.dtype.kind != "U" or values[0] < 0 or values[-1] >= len(known):
            raise UserError(f"The class names of {file} do not fit its labels: give a text for each number from 0 on.")
        classes = [str(known[int(value)]) for value in values]
    if len(set(classes)) < len(classes) or not all(text.strip() and is_utf8(text) for text in classes):
        raise UserError(f"The class names of {file} are empty, damaged or not all different: rename them.")
    is_test = np.repeat([False, True][: len(pairs)], [len(labels) for _, labels in pairs])
    images = np.concatenate([images for images, _ in pairs])
    return Arrays(name, tuple(classes), images, labels.reshape(-1).astype(np.int64), is_test)


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file of so many dimensions."""
    name = shown(path.name)
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            shape = [int(n) for n in np.frombuffer(head, ">u4", dimensions, 4)]
            if head[:4] != bytes((0, 0, 8, dimensions)):
                raise ValueError("another type")
            if math.prod(shape) > MAX_BYTES:
                raise UserError(f"{name} is larger than {MAX_BYTES // 2**30} GiB, which is the limit.")
            check_memory(COPIES * math.prod(shape), f"Reading {name}", FEWER)
            content = file.read(math.prod(shape) + 1)
        if len(content) != math.prod(shape) or not content:
            raise ValueError("cut short")
    except UserError:
        raise
    except (MemoryError, *_DAMAGE) as reason:
        raise UserError(f"{name} is no IDX file of bytes in {dimensions} dimensions, damaged or cut short.") from reason
    return np.frombuffer(content, np.uint8).reshape(shape)
