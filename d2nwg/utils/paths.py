"""The cache folder, and files and folders that are written completely or not at all."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2nwg.utils.errors import UserError


def cache_dir() -> Path:
    """``$D2NWG_CACHE``, or ``~/.cache/d2nwg``: the folder of what can be made again. The variable is read on each call;
    the folder need not exist yet."""
    chosen = os.environ.get("D2NWG_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "d2nwg"


@contextmanager
def sole_writer(target: Path) -> Iterator[None]:
    """Hold the lock on an output while it is written, and remove what a killed process left of it.

    The lock file is in the cache, not beside `target`; the system releases it when the process ends.

    Raises:
        UserError: another process, or another thread, is writing `target`.
    """
    from filelock import FileLock, Timeout

    target = target.expanduser().resolve()
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(os.fsencode(target)).hexdigest()[:32]}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{target} is being written already: wait for that, or choose another name.") from None
    try:
        remove_partial(target)
        yield
    finally:
        lock.release()


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder, which is renamed to `target` at the end of the ``with``, or removed on an exception. A
    `target` that another process made meanwhile stays as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name[:200]}-", dir=target.parent))
    try:
        yield partial
        try:
            os.replace(partial, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:  # renamed, or to be removed
        shutil.rmtree(partial, ignore_errors=True)


def remove_partial(target: Path) -> None:
    """Remove the incomplete folders that killed processes left beside `target` (see `whole_folder`)."""
    if target.parent.is_dir():
        for path in target.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(target.name[:200])}-[a-z0-9_]{{8}}", path.name):
                shutil.rmtree(path, ignore_errors=True)


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
