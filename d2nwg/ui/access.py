"""What visitors may name on this machine: nothing but what whoever started the app has allowed.

A text from a visitor becomes a path here or nowhere. Everything else that they name is looked up in a list (bundles,
examples, zoos) or lies where uploads lie (`d2nwg.ui.uploads.own_file`).
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d2nwg.utils.errors import UserError


@dataclass
class Access:
    """The options of whoever started the app.

    Attributes:
        folders: visitors may use the models and zoos in them.
        shared_jobs: whether every visitor sees all jobs.
        tunnelled: whether the app has a public address of which visitors seem to come from this machine.
    """

    folders: tuple[Path, ...] = ()
    shared_jobs: bool = False
    tunnelled: bool = False


ACCESS = Access()


def open_to_visitors(folders: Iterable[str | Path] = (), shared_jobs: bool = False, tunnelled: bool = False) -> None:
    """Set the options of this process.

    Raises:
        UserError: one of the folders is none.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise UserError(f"There is no folder {path} to take models from: give one that exists to --models.")
    ACCESS.folders = tuple(path.resolve() for path in paths)
    ACCESS.shared_jobs, ACCESS.tunnelled = shared_jobs, tunnelled


def on_a_space() -> bool:
    """Whether the app runs as a Space of the Hugging Face Hub, for strangers."""
    return bool(os.environ.get("SPACE_ID"))


def folders() -> tuple[Path, ...]:
    """The folders that visitors may use models and zoos of; none on a Space."""
    return () if on_a_space() else ACCESS.folders


def allowed_path(text: str) -> Path | None:
    """The file or folder that a visitor names, links resolved; None where it is not below an allowed folder, leads out
    of it by a link of its own or of anything in it, or holds something that is neither file nor folder. Nothing outside
    of the allowed folders is looked at but the links on the way."""
    try:
        path = Path(text).resolve()
        if any(path.is_relative_to(folder) for folder in folders()) and path.exists() and _all_inside(path):
            return path
    except (OSError, ValueError, RuntimeError):  # no access, NUL, links in a circle
        pass
    return None


def _all_inside(path: Path) -> bool:
    if not path.is_dir():
        return stat.S_ISREG(path.stat().st_mode)
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = Path(entry.path).resolve()
                    if not any(target.is_relative_to(folder) for folder in folders()) or not target.is_file():
                        return False
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    return False
    return True
