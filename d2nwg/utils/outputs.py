"""What a verb writes: checked before anything is computed, one writer at a time, whole or not at all; what the disk
refuses becomes a sentence."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import partial_folder, sole_writer, whole_folder
from d2nwg.utils.text import shown

AGAIN = "make room and try again"
THERE = "exists already: choose another name, or remove it"
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "it is larger than a file may be there",
    errno.EROFS: "the disk can only be read",
    errno.EIO: "the disk reports an error",
}


@contextmanager
def new_folder(out: str | Path, *, empty: bool = False, there: str = THERE) -> Iterator[Path]:
    """Yields an empty folder, which becomes the folder `out` at the end of the ``with``, or is removed on an exception.

    Raises:
        UserError: as `claimed`, or something else made `out` meanwhile.
    """
    with claimed(out, empty=empty, there=there) as target, whole_folder(target, keep=True) as part:
        yield part
        part.chmod(0o755)


@contextmanager
def claimed(out: str | Path, *, empty: bool = False, advice: str = AGAIN, there: str = THERE) -> Iterator[Path]:
    """Hold an output from before it is computed until it is written; yields its resolved path. A thread that holds it
    may take it again.

    Args:
        out: the folder or file to make.
        empty: an empty folder may be there already.
        advice: what to do when the disk is full, as the end of a sentence.
        there: what to say of it when there is something already, likewise.
    Raises:
        UserError: something is at `out` already, somebody else is writing it, nothing can be written there, or the disk
            was full in the meantime.
    """
    target = resolved(out)
    with explained(target, advice), sole_writer(target):
        if target.exists() and not (empty and target.is_dir() and not any(target.iterdir())):
            raise UserError(f"{shown(target, 500)} {there}.")
        with _parents(target):
            try:
                with partial_folder(target, inside=target.is_dir()):
                    pass
            except OSError as reason:
                raise UserError(f"{shown(target, 500)} cannot be written: {_why(reason)}.") from reason
            yield target


def claimed_alone(out: str | Path, *, there: str = THERE) -> AbstractContextManager[object]:
    """`claimed`, where this is not one of several processes that make it together: of those the first one takes it,
    once they know of each other."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return claimed(out, there=there) if alone else contextlib.nullcontext()


def resolved(out: str | Path) -> Path:
    """An output's absolute path, links followed.

    Raises:
        UserError: it cannot be a path.
    """
    try:
        target = Path(out).expanduser().resolve()
        target.exists()  # too long a name is noticed here
    except (OSError, ValueError, RuntimeError) as reason:
        why = _why(reason) if isinstance(reason, OSError) else "it is no path"
        raise UserError(f"{shown(out)} cannot be written: {why}.") from reason
    return target


@contextmanager
def explained(target: Path, advice: str = AGAIN) -> Iterator[None]:
    """A full disk, and whatever else keeps `target` from being written, as a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as reason:
        if why := disk_error(reason):
            raise UserError(f"{shown(target, 500)} could not be written: {why}; {advice}.") from reason
        raise


def disk_error(error: BaseException | None) -> str | None:
    """What an exception, or one that it follows from, says of the disk, such as ``the disk is full``; None where it is
    about something else. Libraries turn errors of the system into exceptions of their own."""
    while error is not None:
        found = re.search(r"\(os error (\d+)\)", str(error))  # of Rust, which writes safetensors
        number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
        if number in _REASONS:
            return _REASONS[number]
        if found and "serializ" in str(error):
            return os.strerror(int(found[1])).lower()
        error = error.__cause__ or error.__context__
    return None


def _why(reason: OSError) -> str:
    return disk_error(reason) or (reason.strerror or str(reason)).lower()


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders that `target` lies in; those that were made are removed where it did not come to be."""
    missing = [folder for folder in target.parents if not folder.exists()]
    there = target.parents[len(missing)]
    if not there.is_dir():
        raise UserError(f"{shown(target, 500)} cannot be written: {shown(there, 500)} is no folder.")
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as reason:
            raise UserError(f"{shown(target, 500)} cannot be written: {_why(reason)}.") from reason
        yield
    finally:
        if not os.path.exists(target):  # False where its name is too long, unlike target.exists()
            for folder in missing:
                with contextlib.suppress(OSError):
                    folder.rmdir()
