"""Labelled images: where they come from, how one is opened, and which of them support and which score.

Nothing is decoded while loading, so a folder of 50,000 files takes a second; unreadable images come to light when
they are encoded (`check_readable` turns them into a note or a refusal).
"""

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from d2nwg.data.decode import item_name, open_image
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, is_utf8, number, shown, some

MAX_FILES = 2_000_000  # in one folder of images
SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
    )
)
TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("test", "testing", "valid", "validation", "val")

__all__ = [
    "ImageSet",
    "candidates",
    "check_readable",
    "item_name",
    "labelled_set",
    "load_files",
    "load_folder",
    "load_images",
    "load_unlabelled",
    "open_image",
    "split_support_query",
]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A labelled data set; images stay encoded until they are wanted."""

    name: str
    classes: tuple[str, ...]  # sorted
    items: Sequence[Path | bytes]  # encoded images (files, or bytes for Hub data sets), read lazily
    labels: np.ndarray  # (n,) int64, index into classes
    is_test: np.ndarray  # (n,) bool: came from test/ (all False when there is no split)
    notes: tuple[str, ...] = ()  # sentences for the user: what was skipped and why

    def __len__(self) -> int:
        return len(self.labels)


# ---------------------------------------- loading


def load_images(source: str | Path, *, into: Path | None = None, progress: Progress = silent) -> ImageSet:
    """Load a labelled data set from what a person has:

    - a folder of class folders, optionally under ``train/`` and ``test/`` (or ``valid/``);
    - a zip or tar (plain, gz, bz2, xz) of one, unpacked below `into` or the cache folder;
    - a local `datasets` folder (``save_to_disk``, or parquet files);
    - ``"example:digits"`` and the other names of `d2nwg.data.examples.EXAMPLES`;
    - ``"org/name"`` or ``"org/name@config"``: a data set on the Hugging Face Hub.

    Whatever accepts a text from strangers should call `load_files` or `d2nwg.data.hf_datasets.load_hub` itself: this
    function opens any path it is given.

    Raises UserError naming the file or class at fault.
    """
    text = str(source)
    if text.startswith("example:"):
        from d2nwg.data.examples import example_folder

        return replace(load_folder(example_folder(text[8:], progress=progress)), name=text[8:])
    path = Path(text).expanduser()
    if path.is_dir():
        from d2nwg.data.hf_datasets import is_datasets_folder, load_local

        return load_local(path, progress=progress) if is_datasets_folder(path) else load_folder(path)
    if path.is_file():
        from d2nwg.data.archives import archive_stem, extract_images

        if path.suffix.lower() in SUFFIXES:
            raise UserError(f"{shown(path.name)} is a single image; give a folder with one folder of images per class.")
        return load_folder(extract_images(path, into=into, progress=progress), name=archive_stem(path))
    if isinstance(source, str):
        from d2nwg.data.hf_datasets import is_hub_name, load_hub

        if is_hub_name(text):
            return load_hub(text, progress=progress)
    raise UserError(f"There is no folder or archive at {shown(text)}.")


def load_files(
    files: Sequence[Path], *, name: str = "images", into: Path | None = None, progress: Progress = silent
) -> ImageSet:
    """Load what somebody dropped: one archive or folder, or loose images whose file names carry the class
    (``cat_01.jpg``, ``cat (2).png`` and ``cat-3.jpg`` are all ``cat``).

    Raises UserError naming the file or class at fault.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise UserError("No files were given; choose an archive or some images.")
    if len(paths) == 1 and paths[0].suffix.lower() not in SUFFIXES:
        return load_images(paths[0], into=into, progress=progress)
    images = sorted((p for p in paths if p.suffix.lower() in SUFFIXES), key=lambda p: (p.name, str(p)))
    others = [p for p in paths if p.suffix.lower() not in SUFFIXES and not _ignored(p.name)]
    if others:
        what = "Several archives" if not images else f"{shown(others[0].name)} beside loose images"
        raise UserError(f"{what} cannot be combined; put all images, one folder per class, into one zip.")
    spelling: dict[str, str] = {}
    labelled = []
    for path in images:
        found = re.fullmatch(r"(.*?)[\s_.\-]*(?:\(\s*\d+\s*\)|\d+)?", path.stem, re.DOTALL)
        label = _class_name(found.group(1).rstrip(" _.-"))
        if not label:
            raise UserError(
                f"The file name {shown(path.name)} does not say which class it shows; "
                f"name it like cat_01{path.suffix} or give one folder per class."
            )
        labelled.append((path, spelling.setdefault(folded(label), label)))
    return labelled_set(
        name,
        [path for path, _ in labelled],
        [label for _, label in labelled],
        [False] * len(labelled),
        ["Classes were read from the file names."],
    )


def load_folder(root: Path, *, name: str | None = None) -> ImageSet:
    """Load a folder of class folders (see `load_images`); files are listed, never opened."""
    root = Path(root)
    name = name or shown(root.resolve().name)
    for _ in range(4):  # an archive's or a download's single top folder
        folders, files = _listing(root)
        if len(folders) != 1 or _images(files) or not _listing(folders[0])[0]:
            break
        root = folders[0]
    notes: list[str] = []
    by_name = {folder.name.lower(): folder for folder in folders}
    train = _first_split(by_name, TRAIN_NAMES)
    test = _first_split(by_name, TEST_NAMES)
    splits = [(train, False), (test, True)] if train and test else [(root, False)]
    if train and test:
        spare = sorted(f.name for f in folders if f not in (train, test))
        if spare:
            notes.append(f"Only {train.name} and {test.name} were read; left out: {some(spare)}.")
    labels: list[str] = []
    found: list[tuple[str, Path, bool]] = []
    others = 0
    for folder, testing in splits:
        class_folders, loose = _listing(folder)
        loose = _images(loose)
        if loose and not class_folders:
            where = name if folder == root else shown(folder.name)
            raise UserError(f"The images in {where} lie loose; put each class in a folder of its own.")
        if loose:
            notes.append(f"Images beside the class folders were left out: {some(loose)}.")
        spelled: dict[str, str] = {}
        for class_folder in class_folders:
            label = _class_name(class_folder.name)
            earlier = spelled.setdefault(folded(label), class_folder.name)
            if earlier != class_folder.name:
                raise UserError(
                    f"The class folders {shown(earlier)} and {shown(class_folder.name)} have the same "
                    "name but for capitals, accents or spaces; rename one or merge them."
                )
            images, other = _walk(class_folder)
            others += other
            labels.append(label)
            found += [(label, path, testing) for path in images]
            if len(found) > MAX_FILES:
                raise UserError(f"{name} holds more than {MAX_FILES:,} images, which is the limit.")
    if not found:
        raise UserError(
            f"{name} holds no images; it should have one folder of images "
            f"({', '.join(sorted(SUFFIXES)[:4])} …) per class."
        )
    empty = sorted(set(labels) - {label for label, _, _ in found})
    if empty:
        notes.append(f"Folders without images were left out: {some(empty)}.")
    if others:
        notes.append(f"Left out: {number(others, 'file')} that are not images or whose names are not UTF-8.")
    return labelled_set(name, [p for _, p, _ in found], [c for c, _, _ in found], [t for _, _, t in found], notes)


def load_unlabelled(files: Sequence[Path], *, into: Path | None = None, progress: Progress = silent) -> list[Path]:
    """The images in folders (at any depth), archives and loose files; the names of folders and files say nothing here.

    Raises UserError when there are none.
    """
    from d2nwg.data.archives import extract_images

    found: list[Path] = []
    for path in map(Path, files):
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            found.append(path)
        elif path.is_file():
            found += _walk(extract_images(path, into=into, progress=progress))[0]
        elif path.is_dir():
            found += _walk(path)[0]
        else:
            raise UserError(f"There is no folder or archive at {shown(str(path))}.")
    if not found:
        raise UserError("There are no unlabelled images in what was given.")
    return found


def labelled_set(
    name: str, items: Sequence[Path | bytes], labels: Sequence[str], is_test: Sequence[bool], notes: Sequence[str]
) -> ImageSet:
    """An ImageSet from one class name an item, with the checks that every source shares. Raises UserError."""
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


def _listing(folder: Path) -> tuple[list[Path], list[str]]:
    """The folders (as paths) and the file names directly in `folder`, sorted, hidden ones left out."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _ignored(entry.name):
                    folders.append(Path(entry.path)) if entry.is_dir() else files.append(entry.name)
    except OSError as error:
        raise UserError(f"The folder {shown(folder.name)} cannot be read: {error.strerror}.") from None
    return sorted(folders, key=lambda f: f.name), sorted(files)


def _walk(folder: Path) -> tuple[list[Path], int]:
    """The image files at any depth under `folder`, sorted, and how many other files there are. Links to folders
    are not followed below the class folder, so there are no cycles."""
    images, others, stack = [], 0, [str(folder)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if _ignored(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and is_utf8(entry.path):
                        images.append(entry.path)
                    else:
                        others += 1
        except OSError as error:
            raise UserError(f"The folder {shown(folder.name)} cannot be read: {error.strerror}.") from None
    return [Path(path) for path in sorted(images)], others


def _first_split(by_name: dict[str, Path], names: Sequence[str]) -> Path | None:
    """The first folder of these names that holds class folders rather than images: "train" can be a class."""
    for name in names:
        if name in by_name:
            folders, files = _listing(by_name[name])
            if folders and not _images(files):
                return by_name[name]
    return None


def _images(files: Sequence[str]) -> list[str]:
    return [file for file in files if os.path.splitext(file)[1].lower() in SUFFIXES]


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in ("__macosx", "thumbs.db", "desktop.ini")


def _class_name(name: str) -> str:
    if not is_utf8(name):
        raise UserError(f"The folder name {shown(name)} is not UTF-8; rename it.")
    return unicodedata.normalize("NFC", name).strip()


# ---------------------------------------- splitting


def split_support_query(
    images: ImageSet, shots: int, *, seed: int, readable: np.ndarray | None = None, max_query: int | None = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images that generation may see, and the ones that score it.

    Returns indices ``(support, query)``. `support` holds `shots` images a class, in the order of the classes, from
    the training split when there is a test split. `query` holds the test split, or else all the rest: at most
    `max_query` images, spread over the classes as they occur, at least one a class. The choice depends on the seed
    and the names of classes and files only. `readable` is a mask over all images (False: unreadable, or not looked
    at); an unreadable image is replaced by the next one of its class.

    Raises UserError naming the class that has too few images.
    """
    support, query = [], []
    for label, (train, test, quota) in enumerate(_orders(images, shots, seed, max_query)):
        if readable is not None:
            train = train[readable[train]]
            test = test if test is None else test[readable[test]]
        needed = shots + (test is None)
        if len(train) < needed:
            kind = "" if readable is None else "readable "
            raise UserError(_too_few(images, label, len(train), shots, test is None, kind))
        support.append(train[:shots])
        query.append((train[shots:] if test is None else test)[:quota])
    query = np.concatenate(query)
    if not len(query):
        raise UserError(f"{images.name} has no readable test image to measure on; check its test images.")
    return np.concatenate(support), query


def candidates(
    images: ImageSet, shots: int, *, seed: int, max_query: int | None = 1000, unreadable: np.ndarray | None = None
) -> np.ndarray:
    """The images worth encoding for `split_support_query` of the same arguments, as sorted indices, with two spare
    ones a class in case some cannot be read.

    When more than those cannot be read, call it again with `unreadable`, a mask of what failed so far, until it
    returns nothing new: the split then gives `shots` images a class wherever a class has that many readable ones.

    Raises UserError naming the class that has too few images.
    """
    wanted = []
    for train, test, quota in _orders(images, shots, seed, max_query):
        if unreadable is not None:
            train = train[~unreadable[train]]
            test = test if test is None else test[~unreadable[test]]
        if test is None:
            wanted.append(train[: shots + quota + 2])
        else:
            wanted += [train[: shots + 2], test[:quota]]
    return np.sort(np.concatenate(wanted))


def check_readable(images: ImageSet, looked: np.ndarray, readable: np.ndarray) -> tuple[str, ...]:
    """What to tell about images that could not be read: no sentence or one, with the number and a few names.

    `looked` are the indices of the images that were opened, `readable` a mask over all images. Raises UserError
    when more than half of them could not be read.
    """
    bad = np.asarray(looked)[~np.asarray(readable)[looked]]
    if not len(bad):
        return ()
    names = some([_where(images, i) for i in bad[:3]] + [None] * (len(bad) - 3))
    if 2 * len(bad) > len(looked):
        raise UserError(
            f"{len(bad):,} of {len(looked):,} images in {images.name} cannot be read ({names}); check "
            "that they are whole image files."
        )
    return (f"Left out {number(len(bad), 'image')} of {len(looked):,} that could not be read: {names}.",)


def _where(images: ImageSet, index: int) -> str:
    item, label = images.items[int(index)], images.classes[images.labels[index]]
    return f"{label}/{item.name}" if isinstance(item, Path) else f"number {int(index)} ({label})"


def _too_few(images: ImageSet, label: int, found: int, shots: int, shared: bool, kind: str) -> str:
    has = number(found, f"{kind}{'' if shared else 'training '}image")
    needed = f"{shots + 1} are needed ({shots} shots and one to measure on)" if shared else f"{shots} are needed"
    name = shown(images.classes[label])
    return f"The class {name} has {has} but {needed}; add images to it or choose fewer shots."


def _orders(
    images: ImageSet, shots: int, seed: int, max_query: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None, int]]:
    """For each class: its training indices and its test indices (None without a test split) in a drawn order, and
    how many query images it gives. None of it depends on which images turn out readable, so `candidates` and
    `split_support_query` agree."""
    if shots < 1:
        raise UserError("The number of shots must be at least 1.")
    if max_query is not None and max_query < 1:
        raise UserError("The largest number of query images must be at least 1.")
    split = bool(images.is_test.any())
    count = len(images.classes)
    train_sizes = np.bincount(images.labels[~images.is_test], minlength=count)
    pools = np.bincount(images.labels[images.is_test], minlength=count) if split else train_sizes - shots
    for label in range(count):
        if train_sizes[label] < shots + (not split):
            raise UserError(_too_few(images, label, int(train_sizes[label]), shots, not split, ""))
    quotas = _quotas(pools, max_query)
    order = np.argsort(images.labels, kind="stable")
    for label, indices in enumerate(np.split(order, np.cumsum(np.bincount(images.labels, minlength=count))[:-1])):
        key = hashlib.sha256(images.classes[label].encode()).digest()
        rng = np.random.default_rng([seed % 2**64, int.from_bytes(key[:8], "little")])
        testing = images.is_test[indices]
        train, test = rng.permutation(indices[~testing]), rng.permutation(indices[testing])
        yield train, test if split else None, int(quotas[label])


def _quotas(pools: np.ndarray, most: int | None) -> np.ndarray:
    """Share `most` among the classes in proportion to `pools` (largest remainders first), at least one a class."""
    if most is None or pools.sum() <= most:
        return pools
    exact = pools * (most / pools.sum())
    quotas = np.maximum(np.floor(exact).astype(np.int64), pools > 0)
    spare = max(0, most - int(quotas.sum()))
    room = np.where(quotas < pools, exact - quotas, -math.inf)
    quotas[np.argsort(-room, kind="stable")[:spare]] += 1
    return quotas
