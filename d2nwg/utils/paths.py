"""Where things that can be made again are kept, and how a folder appears there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """``$D2NWG_CACHE``, or ``~/.cache/d2nwg``. Read on every call, so that a test or a server can move it; the
    folder need not exist yet."""
    chosen = os.environ.get("D2NWG_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "d2nwg"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill: it becomes `target` at the end of the ``with``, or vanishes on an exception. When
    somebody else made `target` meanwhile, theirs stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        yield partial
        try:
            os.replace(partial, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:  # gone already when all went well
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that whoever reads it, whenever, finds the old text or the new one, whole; also after a
    kill or on a full disk."""
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
    """A folder that comes with the program, ``pretrained`` or ``assets``: inside the package once it is installed, and
    beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
