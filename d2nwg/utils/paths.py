"""The cache folder, and files and folders that are written completely or not at all."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

DAY = 86_400.0  # seconds
_held = threading.local()


def cache_dir() -> Path:
    """``$D2NWG_CACHE``, or ``~/.cache/d2nwg``: the folder of what can be made again. The variable is read on each call;
    the folder need not exist yet."""
    chosen = os.environ.get("D2NWG_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "d2nwg"


@contextmanager
def sole_writer(target: Path) -> Iterator[None]:
    """Hold the lock on an output while it is written, and remove what a killed process left of it. A thread that holds
    the lock may take it again.

    The lock file is in the cache, not beside `target`; the system releases it when the process ends.

    Raises:
        UserError: another process, or another thread, is writing `target`.
    """
    from filelock import FileLock, Timeout

    target = target.expanduser().resolve()
    if target in _mine():
        yield
        return
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(os.fsencode(target)).hexdigest()[:32]}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{target} is being written already: wait for that, or choose another name.") from None
    _mine().add(target)
    try:
        remove_partial(target)
        yield
    finally:
        _mine().discard(target)
        lock.release()


def _mine() -> set[Path]:
    """What this thread holds the lock on."""
    if not hasattr(_held, "targets"):
        _held.targets = set()
    return _held.targets


@contextmanager
def whole_folder(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yields an empty folder, which becomes `target` at the end of the ``with``, or is removed on an exception. A
    `target` that is empty already is filled: it may be a mount, to which nothing can be renamed.

    Args:
        keep: where another program made `target` meanwhile, keep both: the new folder gets a number. Without it, the
            other one is taken to be as good.
    Raises:
        UserError: ``keep``, and another program made `target` meanwhile; the sentence says where the folder is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target, older=DAY)
    fill = target.is_dir() and not any(target.iterdir())
    with partial_folder(target, inside=fill) as partial:
        yield partial
        if fill:
            _move_all(partial, target)
            return
        try:
            os.replace(partial, target)
        except OSError:
            if not (target.exists() if keep else target.is_dir()):
                raise
            if keep:
                number = next(n for n in range(2, 10**6) if not target.with_name(f"{target.name}-{n}").exists())
                os.replace(partial, other := target.with_name(f"{target.name}-{number}"))
                raise UserError(f"Another program made {target} meanwhile: the result is in {other}.") from None


@contextmanager
def partial_folder(target: Path, *, inside: bool = False) -> Iterator[Path]:
    """An empty folder beside `target`, or inside it, which is removed at the end where it is still there; after a kill
    by `remove_partial`."""
    prefix, place = (_prefix(""), target) if inside else (_prefix(target.name), target.parent)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_all(folder: Path, target: Path) -> None:
    """Move what is in a folder to `target`, all or nothing.

    Raises:
        OSError: something of such a name is there already.
    """
    moved: list[Path] = []
    try:
        for path in sorted(folder.iterdir()):
            if (target / path.name).exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target / path.name))
            os.replace(path, target / path.name)
            moved.append(path)
    except OSError:
        for path in moved:
            os.replace(target / path.name, path)
        raise


def remove_partial(target: Path, older: float = 0.0) -> None:
    """Remove the incomplete folders that killed processes left of `target` (see `whole_folder`), those that nothing was
    added to for so many seconds."""
    for folder, name in ((target.parent, target.name), (target, "")):
        if not folder.is_dir():
            continue
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                left = re.fullmatch(re.escape(_prefix(name)) + "[a-z0-9_]{8}", path.name)
                if left and time.time() - path.lstat().st_mtime >= older:
                    shutil.rmtree(path, ignore_errors=True)


def partial_name(target: Path, end: str) -> Path:
    """An incomplete folder of `target` under a name that several processes know; ``end`` has eight characters."""
    return target.with_name(_prefix(target.name) + end)


def _prefix(name: str) -> str:
    """How the names of incomplete folders begin, with place for eight more characters in 255 bytes."""
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}.partial-" if name else ".partial-"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields the path of a file to write, which takes the place of `path` at the end of the ``with``, or is removed on
    an exception: a reader finds the old content or the new one, also after a kill or on a full disk."""
    import psutil

    stem = _prefix(path.name)
    for left in path.parent.glob(f"{glob.escape(stem)}*.file"):  # of killed processes
        pid = left.name[len(stem) :].partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            left.unlink(missing_ok=True)
    part = path.with_name(f"{stem}{os.getpid()}-{threading.get_ident()}.file")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Whether a path is named like what a killed process left of a folder or a file (`whole_folder`, `whole_file`)."""
    return re.fullmatch(r"\.(.+\.)?partial-.+", path.name) is not None


def write_whole(path: Path, text: str) -> None:
    """Write a text file with `whole_file`."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def leads_out(path: Path) -> bool:
    """Whether a path is a link that leads out of its folder, to anywhere but the Hub's cache, whose folders are made
    of links."""
    if not path.is_symlink():
        return False
    from huggingface_hub import constants

    target, places = path.resolve(), (path.parent.resolve(), Path(constants.HF_HUB_CACHE).resolve())
    return not any(place in target.parents for place in places)


def check_own_files(folder: Path, what: str) -> None:
    """Refuse a folder with a file that is not its own: a link that leads out, or a FIFO or a device, which would block
    or never end.

    Args:
        what: the folder's name in a sentence.
    Raises:
        UserError: naming the file.
    """
    for path in (folder, *sorted(folder.iterdir())):
        if leads_out(path):
            name = shown(path.name)
            raise UserError(f"{what} holds {name}, a link that leads elsewhere: put the file itself there.")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{what} holds {shown(path.name)}, which is no regular file: remove it.")


def read_json(path: Path, most: int = 64 * 2**20) -> Any:
    """The content of a small JSON file; None for what is no regular file or a link that leads elsewhere, is larger than
    ``most`` bytes, or no JSON."""
    try:
        if not path.is_file() or path.stat().st_size > most or leads_out(path):  # a FIFO would block
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_lines(path: Path) -> list[dict]:
    """The JSON objects of a file with one a line, without lines that a kill left torn; none where there is no file."""
    lines: list[dict] = []
    with contextlib.suppress(OSError):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                lines += [line] if isinstance(line, dict) else []
    return lines


def shipped(name: str) -> Path:
    """The folder ``pretrained`` or ``assets`` of this distribution: inside the package where it is installed, beside it
    in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
