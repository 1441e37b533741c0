"""The cache folder, and files and folders that are written completely or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """``$D2NWG_CACHE``, or ``~/.cache/d2nwg``: the folder of what can be made again. The variable is read on each call;
    the folder need not exist yet."""
    chosen = os.environ.get("D2NWG_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "d2nwg"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder, which is renamed to `target` at the end of the ``with``, or removed on an exception. A
    `target` that another process made meanwhile stays as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        yield partial
        try:
            os.replace(partial, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:  # renamed, or to be removed
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically: a reader finds the old text or the new one, also after a kill or on a full disk."""
    part = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def shipped(name: str) -> Path:
    """The folder ``pretrained`` or ``assets`` of this distribution: inside the package where it is installed, beside it
    in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
