"""What a case opens, changes and starts, as Python's audit events tell it."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/tty", "/dev/shm", "/proc/self")
PROGRAMS = ("uname", "ldconfig", "gcc", "cc", "ld", "objdump", "lscpu", "nvidia-smi", "file")  # asked by libraries
# Event → the positions of the paths that it changes, and of the folders that they are relative to.
CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, None),),
}


def watch(writable: Sequence[Path], unreadable: Sequence[Path], tell: Callable[[str], None]) -> None:
    """From now on tell what this process must not do. It cannot be undone: for a process of its own.

    Args:
        writable: folders in which anything may be changed.
        unreadable: what must not be opened at all.
        tell: takes a sentence on each offence.
    """
    may, may_not = tuple(map(str, writable)), tuple(map(str, unreadable))

    def inside(path: str, folders: Sequence[str]) -> bool:
        return any(path == folder or path.startswith(f"{folder}/") for folder in folders)

    def offence(event: str, args: tuple) -> str | None:
        if event == "open":
            path, mode, flags = args
            writes = bool(flags & WRITES if isinstance(flags, int) else set(mode or "") & set("wax+"))
            if (path := _path(path)) is None:
                return None
            if inside(path, may_not):
                return f"opened {path}"
            if writes and not inside(path, (*may, *DEVICES)):
                return f"wrote {path}"
        elif event in CHANGES:
            for where, at in CHANGES[event]:
                path = _path(args[where], args[at] if at is not None and at < len(args) else None, follow=False)
                if path is not None and not inside(path, (*may, *DEVICES)):
                    return f"{event.removeprefix('os.')} of {path}"
        elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
            program = os.fsdecode(args[0])
            if program != sys.executable and Path(program).name not in PROGRAMS:
                return f"started {program}"
        elif event == "os.system":
            return f"started {args[0]!r}"
        elif event == "socket.connect" and isinstance(args[1], tuple):
            host = str(args[1][0])
            if host not in ("127.0.0.1", "::1", "localhost"):
                return f"connected to {host}"
        return None

    def hook(event: str, args: tuple) -> None:
        try:
            if found := offence(event, args):
                tell(found)
        except Exception as problem:  # a mistake of the watch must not become one of the program
            tell(f"could not watch {event} {args!r}: {problem!r}")

    sys.addaudithook(hook)


def _path(path: object, folder: object = None, *, follow: bool = True) -> str | None:
    """The real path of an event's argument; None for an open file. Without `follow`, a link itself, not its target."""
    if isinstance(path, int) or path is None:
        return None
    text = os.fsdecode(path)  # type: ignore[arg-type]
    if "\0" in text:
        return None  # it cannot be opened
    if isinstance(folder, int) and folder >= 0:
        text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    if follow:
        return os.path.realpath(text)
    return os.path.join(os.path.realpath(os.path.dirname(text) or "."), os.path.basename(text))
