"""The regular files below a folder. What is neither a regular file nor a folder is not opened, only named."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import number, shown, some


@dataclass
class Listing:
    """One folder, without hidden entries; everything is sorted by name.

    Attributes:
        path: of the folder.
        folders, files: names of the folders and of the regular files in it.
        skipped: (path, reason) of links that lead out of the data, of links to folders, and of special files.
    """

    path: str
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def list_folder(folder: str | Path, root: str | Path) -> Listing:
    """List one folder of the data below `root`.

    Raises:
        UserError: it cannot be read.
    """
    listing = Listing(os.fspath(folder))
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if reason := _why_skipped(entry, os.fspath(root)):
                    listing.skipped.append((entry.path, reason))
                elif entry.is_dir(follow_symlinks=False):
                    listing.folders.append(entry.name)
                else:
                    listing.files.append(entry.name)
    except OSError as error:
        name = shown(os.path.basename(listing.path))
        raise UserError(f"The folder {name} cannot be read: {error.strerror}.") from None
    for names in (listing.folders, listing.files, listing.skipped):
        names.sort()
    return listing


def walk(folder: str | Path, root: str | Path) -> Iterator[Listing]:
    """The listings of a folder and of all folders below it, parents first.

    Raises:
        UserError: a folder cannot be read.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        listing = list_folder(waiting.pop(), root)
        yield listing
        waiting += [os.path.join(listing.path, name) for name in reversed(listing.folders)]


def skipped_note(skipped: list[tuple[str, str]], root: str | Path) -> list[str]:
    """One sentence for each reason, with the number of entries and a few of their paths."""
    notes = []
    for reason in sorted({reason for _, reason in skipped}):
        names = sorted(os.path.relpath(path, root) for path, why in skipped if why == reason)
        notes.append(f"Not read: {number(len(names), 'entry', 'entries')} {reason}: {some(names)}.")
    return notes


def _why_skipped(entry: os.DirEntry, root: str) -> str:
    """The reason, as a phrase after a number, or nothing for a regular file and a folder."""
    if not entry.is_symlink():
        regular = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
        return "" if regular else "neither regular file nor folder"
    target, base = os.path.realpath(entry.path), os.path.realpath(root)
    if os.path.isdir(target):
        return "linked to a folder"
    if not os.path.isfile(target):
        return "linked to nothing that is a regular file"
    return "" if target.startswith(os.path.join(base, "")) else "linked to a file outside the folder"


def is_hidden(name: str) -> bool:
    """Whether an entry is hidden, or one that an operating system adds by itself."""
    return name.startswith(".") or name.lower() in ("__macosx", "thumbs.db", "desktop.ini")
