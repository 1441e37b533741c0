"""Labelled images from a folder, an archive, loose files, a Hugging Face data set or an example.

Nothing is decoded while loading, so a folder of 50,000 files takes a second; unreadable images come to light when
they are encoded (`d2nwg.data.image_set.check_readable` turns them into a note or a refusal).
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from d2nwg.data import archives
from d2nwg.data.archives import archive_stem, extract_images
from d2nwg.data.array_images import image_set, in_one_folder, read_arrays
from d2nwg.data.examples import example_folder
from d2nwg.data.hf_datasets import is_datasets_folder, is_hub_name, load_hub, load_local
from d2nwg.data.image_set import SUFFIXES, ImageSet
from d2nwg.data.labelled import TEST_NAMES, TRAIN_NAMES, labelled_set
from d2nwg.data.listing import is_hidden, list_folder, skipped_note, walk
from d2nwg.data.text_set import TextSet
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, is_utf8, number, shown, some

MAX_FILES = 2_000_000  # in one folder of images


def load_images(source: str | Path, *, into: Path | None = None, progress: Progress = silent) -> ImageSet:
    """Load a labelled data set from a path or a name:

    - a folder of class folders, optionally under ``train/`` and ``test/`` (or ``valid/``);
    - a zip or tar (plain, gz, bz2, xz) of one, unpacked below `into` or the cache folder;
    - an ``.npz`` file, or IDX files or the folder that they lie in (`d2nwg.data.array_files`);
    - a local `datasets` folder (``save_to_disk``, or parquet files);
    - ``"example:digits"`` and the other names of `d2nwg.data.examples.EXAMPLES`;
    - ``"org/name"`` or ``"org/name@config"``: a data set on the Hugging Face Hub.

    This function opens any path that it is given. A server, whose texts come from strangers, calls `load_files` or
    `d2nwg.data.hf_datasets.load_hub` instead.

    Raises:
        UserError: naming the file or class at fault.
    """
    text = str(source)
    if text.startswith("example:"):
        return replace(load_folder(example_folder(text[8:], progress=progress)), name=text[8:])
    path = Path(text).expanduser()
    if arrays := read_arrays(path):
        return image_set(arrays)
    if path.is_dir():
        return _of_images(load_local(path, progress=progress)) if is_datasets_folder(path) else load_folder(path)
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            raise UserError(f"{shown(path.name)} is a single image; give a folder with one folder of images per class.")
        return load_folder(extract_images(path, into=into, progress=progress), name=archive_stem(path))
    if isinstance(source, str) and is_hub_name(text):
        return _of_images(load_hub(text, progress=progress))
    raise UserError(f"There is no folder or archive at {shown(text)}.")


def _of_images(found: ImageSet | TextSet) -> ImageSet:
    if isinstance(found, TextSet):
        raise UserError(f"{found.name} holds texts, and images are needed here.")
    return found


def load_files(
    files: Sequence[Path], *, name: str = "images", into: Path | None = None, progress: Progress = silent
) -> ImageSet:
    """Load uploaded files: one archive, folder or array file, the files of one IDX set, or loose images whose names
    begin with their class (``cat_01.jpg``, ``cat (2).png`` and ``cat-3.jpg`` are all of the class ``cat``).

    Raises:
        UserError: naming the file or class at fault.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise UserError("No files were given; choose an archive or some images.")
    if len(paths) == 1 and paths[0].suffix.lower() not in SUFFIXES:
        return load_images(paths[0], into=into, progress=progress)
    if into and (folder := in_one_folder(paths, into / "idx")):
        return load_images(folder, progress=progress)
    images = sorted((p for p in paths if p.suffix.lower() in SUFFIXES), key=lambda p: (p.name, str(p)))
    others = [p for p in paths if p.suffix.lower() not in SUFFIXES and not is_hidden(p.name)]
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
        ImageSet,
        name,
        [path for path, _ in labelled],
        [label for _, label in labelled],
        [False] * len(labelled),
        ["Classes were read from the file names."],
    )


def load_folder(root: Path, *, name: str | None = None) -> ImageSet:
    """Load a folder of class folders (see `load_images`); files are listed, not opened.

    Raises:
        UserError: naming the file, folder or class at fault.
    """
    root = Path(root)
    name = name or shown(root.resolve().name)
    top, left_out = root, archives.left_out(root)
    for _ in range(4):  # an archive's or a download's single top folder
        listing = list_folder(root, top)
        if len(listing.folders) != 1 or _images(listing.files):
            break
        if not list_folder(root / listing.folders[0], top).folders:
            break
        root = root / listing.folders[0]
    notes: list[str] = []
    folders = [root / folder for folder in listing.folders]
    by_name = {folder.name.lower(): folder for folder in folders}
    train = _first_split(by_name, TRAIN_NAMES, top)
    test = _first_split(by_name, TEST_NAMES, top)
    splits = [(train, False), (test, True)] if train and test else [(root, False)]
    if train and test:
        spare = sorted(f.name for f in folders if f not in (train, test))
        if spare:
            notes.append(f"Only {train.name} and {test.name} were read; left out: {some(spare)}.")
    labels: list[str] = []
    found: list[tuple[str, Path, bool]] = []
    others, skipped = len(left_out), list(listing.skipped) if train and test else []
    for folder, testing in splits:
        listing = list_folder(folder, top)
        skipped += listing.skipped
        class_folders, loose = [folder / name for name in listing.folders], _images(listing.files)
        if loose and not class_folders:
            where = name if folder == root else shown(folder.name)
            raise UserError(f"The images in {where} are in no class folder; put each class in a folder of its own.")
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
            images, other, links = _walk(class_folder, top)
            others += other
            skipped += links
            labels.append(label)
            found += [(label, path, testing) for path in images]
            if len(found) > MAX_FILES:
                raise UserError(f"{name} holds more than {MAX_FILES:,} images, which is the limit.")
    notes += skipped_note(skipped, top)
    if not found:
        raise UserError(
            f"{name} holds no images; it should have one folder of images "
            f"({', '.join(sorted(SUFFIXES)[:4])} …) per class."
        )
    empty = sorted(set(labels) - {label for label, _, _ in found})
    if empty:
        notes.append(f"Folders without images were left out: {some(empty)}.")
    if others:
        notes.append(f"Left out, because they are no images or their names not UTF-8: {number(others, 'file')}.")
    return labelled_set(
        ImageSet, name, [p for _, p, _ in found], [c for c, _, _ in found], [t for _, _, t in found], notes
    )


def load_unlabelled(files: Sequence[Path], *, into: Path | None = None, progress: Progress = silent) -> list[Path]:
    """The images in folders (at any depth), archives and loose files, whatever their names.

    Raises:
        UserError: there are none.
    """

    found: list[Path] = []
    for path in map(Path, files):
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            found.append(path)
        elif path.is_file():
            unpacked = extract_images(path, into=into, progress=progress)
            found += _walk(unpacked, unpacked)[0]
        elif path.is_dir():
            found += _walk(path, path)[0]
        else:
            raise UserError(f"There is no folder or archive at {shown(str(path))}.")
    if not found:
        raise UserError("The folders, archives or files hold no images.")
    return found


def _walk(folder: Path, root: Path) -> tuple[list[Path], int, list[tuple[str, str]]]:
    """The image files at any depth under `folder`, sorted; the number of other files; and what was not read, with the
    reason (see `d2nwg.data.listing`)."""
    images, others, skipped = [], 0, []
    for listing in walk(folder, root):
        skipped += listing.skipped
        for name in listing.files:
            path = os.path.join(listing.path, name)
            if _is_image(name) and is_utf8(path):
                images.append(path)
            else:
                others += 1
    return [Path(path) for path in sorted(images)], others, skipped


def _first_split(by_name: dict[str, Path], names: Sequence[str], top: Path) -> Path | None:
    """The first folder of these names that holds class folders. One that holds images is a class called "train"."""
    for name in names:
        if name in by_name:
            listing = list_folder(by_name[name], top)
            if listing.folders and not _images(listing.files):
                return by_name[name]
    return None


def _images(files: Sequence[str]) -> list[str]:
    return [file for file in files if _is_image(file)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _class_name(name: str) -> str:
    if not is_utf8(name):
        raise UserError(f"The folder name {shown(name)} is not UTF-8; rename it.")
    return unicodedata.normalize("NFC", name).strip()
