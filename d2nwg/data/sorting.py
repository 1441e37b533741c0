"""Loose pictures that a person sorts into classes, until they are a data set as a zip of class folders is."""

import hashlib
import re
import unicodedata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock

from d2nwg.data.image_set import SUFFIXES, ImageSet
from d2nwg.data.images import load_images
from d2nwg.data.listing import is_hidden
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_space
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, is_utf8, number, shown

MOST, MOST_CLASSES = 2000, 100  # pictures; beyond them nobody sorts by hand
LONGEST = 80  # characters of a class name
STEM = "sorted photographs"  # of the zip, and of the folder in it


@dataclass
class Picture:
    """A file with an image.

    Attributes:
        name: its own, not unique.
        label: its class; empty while it is not sorted.
        content: the SHA-256 of the file.
    """

    path: Path
    name: str
    label: str
    content: str


class Sorting:
    """Pictures in classes. Methods may be called from several threads.

    Attributes:
        classes: in the order in which they were added.
        pictures: by a number that stays the same.
        changes: how many there were.
    """

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.pictures: dict[int, Picture] = {}
        self.changes = 0
        self.lock = RLock()

    def of(self, label: str) -> list[int]:
        """The numbers of the pictures of a class; of no class for an empty text."""
        with self.lock:
            return [key for key, picture in self.pictures.items() if picture.label == label]

    def add_classes(self, typed: str) -> list[str]:
        """Add classes, whose names are separated by commas or lines; those that are there already stay as they are.

        Raises:
            UserError: none is new, one cannot be a class name, or there are more than `MOST_CLASSES`.
        """
        names = [check_name(part) for part in re.split(r"[,;\n]", typed) if part.strip()]
        if not names:
            raise UserError("Type the name of a class first.")
        with self.lock:
            new = [self._add_class(name) for name in names if self._like(name) is None]
            if not new:
                raise UserError(f"There is a class {shown(self._like(names[0]))} already.")
            return new

    def rename(self, old: str, new: str) -> str:
        """Rename a class; given the name of another one, it becomes part of that one. Returns the class's name.

        Raises:
            UserError: there is no such class, or it cannot be a class name.
        """
        name = check_name(new)
        with self.lock:
            self._check(old)
            there = self._like(name)
            if there is None or there == old:
                self.classes[self.classes.index(old)] = name
            else:
                self.classes.remove(old)
                name = there
            self._relabel(self.of(old), name)
            return name

    def remove_class(self, name: str) -> int:
        """Remove a class; its pictures are not sorted any more. Returns their number.

        Raises:
            UserError: there is no such class.
        """
        with self.lock:
            self._check(name)
            self.classes.remove(name)
            return self._relabel(self.of(name), "")

    def move(self, keys: Iterable[int], label: str) -> int:
        """Put pictures into a class, or into none; returns how many were elsewhere.

        Raises:
            UserError: there is no such class.
        """
        with self.lock:
            if label:
                self._check(label)
            return self._relabel([key for key in keys if key in self.pictures], label)

    def drop(self, keys: Iterable[int]) -> int:
        """Take pictures out; returns how many."""
        with self.lock:
            found = [key for key in dict.fromkeys(keys) if self.pictures.pop(key, None)]
            self.changes += 1
            return len(found)

    def add(self, path: Path, label: str, name: str | None = None) -> int | None:
        """Add the image in a file to a class, which is added too where it is missing; returns its number, or None where
        the same file is there already: as two it would be learnt from and measured on.

        Raises:
            UserError: there are `MOST` pictures, or it cannot be a class name.
        """
        content = _sha256(path)
        with self.lock:
            if any(picture.content == content for picture in self.pictures.values()):
                return None
            if len(self.pictures) >= MOST:
                raise UserError(
                    f"Sorting by hand is for up to {MOST:,} pictures: put more into a folder of class folders, and "
                    "choose that."
                )
            if label:
                label = self._like(label) or self._add_class(check_name(label))
            self.changes += 1
            key = self.changes  # never used before
            self.pictures[key] = Picture(path, name or path.name, label, content)
            return key

    def check(self) -> None:
        """Refuse what is no data set yet.

        Raises:
            UserError: saying what is missing.
        """
        with self.lock:
            filled = {picture.label for picture in self.pictures.values()} - {""}
            if not self.pictures:
                raise UserError("There are no pictures to sort yet: drop some in the box.")
            if len(filled) < 2:
                raise UserError("Put pictures into at least two classes first.")

    def pack(self, file: Path, progress: Progress = silent) -> Path:
        """Write the sorted pictures as a zip of class folders, the same bytes for the same classes. Names that two
        pictures of a class have are numbered.

        Raises:
            UserError: see `check`; a file is gone, or there is no room on the disk.
        """
        self.check()
        with self.lock:
            pictures = sorted((p.label, _file_name(p.name), p.content, p.path) for p in self.pictures.values())
        needed = sum(path.stat().st_size for *_, path in pictures if path.is_file())
        check_space(needed, file.parent, "The zip of the sorted photographs", "sort fewer, or smaller ones")
        taken: set[str] = set()
        with zipfile.ZipFile(file, "w") as archive:
            for done, (label, name, _, path) in enumerate(pictures):
                progress("Packing the pictures", done, len(pictures))
                if label:
                    member = _free(f"{STEM}/{label}/{name}", taken)
                    _write(archive, member, path)
        return file

    def load(self, folder: Path, progress: Progress = silent) -> ImageSet:
        """The sorted pictures as a data set, read as the zip of `pack` is, below a folder.

        Raises:
            UserError: see `check`, and `d2nwg.data.images.load_images`.
        """
        file = self.pack(folder / f"{STEM}.zip", progress)
        try:
            images = load_images(file, into=folder, progress=progress)
        finally:
            file.unlink()
        left = len(self.of(""))
        notes = [f"Left out, because not sorted: {number(left, 'picture')}."] if left else []
        return replace(images, name="your photographs", notes=(*images.notes, *notes))

    def _add_class(self, name: str) -> str:
        if len(self.classes) >= MOST_CLASSES:
            raise UserError(f"There may be {MOST_CLASSES} classes to sort into by hand.")
        self.classes.append(name)
        self.changes += 1
        return name

    def _relabel(self, keys: list[int], label: str) -> int:
        moved = [key for key in keys if self.pictures[key].label != label]
        for key in moved:
            self.pictures[key] = replace(self.pictures[key], label=label)
        self.changes += 1
        return len(moved)

    def _like(self, name: str) -> str | None:
        """The class of this name, but for capitals and how accents are stored."""
        return next((known for known in self.classes if folded(known) == folded(name)), None)

    def _check(self, label: str) -> None:
        if label not in self.classes:
            raise UserError(f"There is no class {shown(label)} any more; choose one first.")


def check_name(text: str) -> str:
    """A class name that a folder can have.

    Raises:
        UserError: it is none.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not name:
        raise UserError("Type the name of the class first.")
    if not is_utf8(name) or not name.isprintable() or re.search(r"[/\\:*?\"<>|]", name) or is_hidden(name):
        raise UserError(
            f'{shown(name)} cannot be the name of a class, which is one of a folder: leave out / \\ : * ? " < > | '
            "and a dot at the beginning."
        )
    if len(name) > LONGEST or len(name.encode()) > 200:
        raise UserError(f"The name of a class may have {LONGEST} letters.")
    return name


def pack_folder(files: Iterable[tuple[str, Path]], file: Path, progress: Progress = silent) -> Path:
    """Write the files of a folder, given by their paths in it, as a zip, which is then checked as any other.

    Raises:
        UserError: a path that no zip can hold; a file is gone.
    """
    pairs = list(files)
    with zipfile.ZipFile(file, "w") as archive:
        for done, (inside, path) in enumerate(pairs):
            progress("Packing the folder", done, len(pairs))
            if not is_utf8(inside) or len(inside.encode()) > 4096:
                raise UserError(f"The folder holds a name that cannot be a file name, {shown(inside)}; rename it.")
            _write(archive, inside, path)
    return file


def _write(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    info = zipfile.ZipInfo(member)  # of a fixed date
    info.external_attr = 0o100644 << 16
    try:
        with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as sink:
            while block := source.read(2**20):
                sink.write(block)
    except FileNotFoundError:
        raise UserError(f"The uploaded file {shown(path.name)} is no longer here; please choose it again.") from None


def _file_name(name: str) -> str:
    """The name of an image's file that any archive may hold."""
    stem, suffix = Path(name).stem.lstrip(". "), Path(name).suffix.lower()
    stem = "".join(char if char.isprintable() and char not in '/\\:*?"<>|' else "_" for char in stem)[:LONGEST]
    while len(stem.encode("utf-8", "replace")) > 200:
        stem = stem[:-1]
    return f"{stem or 'picture'}{suffix if suffix in SUFFIXES else '.jpg'}"


def _free(path: str, taken: set[str]) -> str:
    """A path that is not taken yet, with a number where it has to be; it is taken then."""
    stem, _, suffix = path.rpartition(".")
    names = (path if n == 1 else f"{stem}-{n}.{suffix}" for n in range(1, 10**6))
    free = next(name for name in names if folded(name) not in taken)
    taken.add(folded(free))
    return free


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
    except FileNotFoundError:
        raise UserError(f"The uploaded file {shown(path.name)} is no longer here; please choose it again.") from None
    return digest.hexdigest()
