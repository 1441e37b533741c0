"""A function in a forked process, within bounds, and what is known of how it ended."""

import contextlib
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.room import Room
from tests.fuzz.watch import watch

GIB = 2**30


@dataclass
class Limits:
    """Bounds of a process: seconds on the clock (of a machine that is not busy) and of a processor, bytes of memory
    beyond those at its start, and bytes of a file."""

    wall: float = 60.0
    cpu: float = 20.0
    memory: int = GIB
    file: int = 2 * GIB


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: exit code; negative for a signal.
        out, err: what it printed.
        told: what it was seen to do that it must not.
        seconds: on the clock.
        memory: peak, in bytes, beyond what it was at its start.
        kept: `Room.kept` before the function ran; None if it never did.
    """

    code: int
    out: str
    err: str
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: int = 0
    late: bool = False


def run_forked(
    function: Callable[[], int],
    room: Room,
    limits: Limits,
    *,
    stdin: str = "",
    watched: bool = True,
    writable: Sequence[Path] = (),
) -> Ended:
    """Run a function in a forked process, in a room.

    Args:
        function: returns an exit code; `SystemExit` is one too.
        stdin: what the process reads there.
        watched: tell what it opens, changes and starts outside its room.
        writable: more places where it may write.
    """
    start = time.monotonic()
    before = resident()
    reader, writer = os.pipe()
    names = [room.root / name for name in ("stdin", "stdout", "stderr")]
    names[0].write_text(stdin, encoding="utf-8", errors="surrogateescape")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.close(reader)
            os.setpgid(0, 0)
            code = _child(function, room, limits, names, writer, watched, writable)
        finally:
            os._exit(code & 0xFF)
    os.close(writer)
    with contextlib.suppress(OSError):  # it may have done so itself
        os.setpgid(pid, pid)
    told, late = _listen(reader, start + limits.wall * _busy())
    if late:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # what it started
    os.close(reader)
    peak = max(0, used.ru_maxrss * 1024 - before)
    out, err = (name.read_text(encoding="utf-8", errors="replace") for name in names[1:])
    return Ended(os.waitstatus_to_exitcode(status), out, err, told, time.monotonic() - start, peak, late)


def _busy() -> float:
    """How many processes share a processor, at least 1: on a busy machine a process gets more time on the clock."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _listen(reader: int, until: float) -> tuple[list[str], bool]:
    """What the process tells until it ends, and whether it was too late for that."""
    data, late = b"", False
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            late = True
            break
        block = os.read(reader, 65536)
        if not block:
            break
        data = (data + block)[: 2**20]
    return list(dict.fromkeys(data.decode("utf-8", "replace").splitlines())), late


def _child(function, room: Room, limits: Limits, names, writer: int, watched: bool, writable) -> int:
    for number, name in enumerate(names):
        os.dup2(os.open(name, os.O_RDONLY if not number else os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    os.environ |= {"D2NWG_CACHE": str(room.cache), "TMPDIR": str(room.tmp), "GRADIO_TEMP_DIR": str(room.tmp)}
    tempfile.tempdir = str(room.tmp)
    os.chdir(room.work)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        _bound(limits)
        if watched:

            def tell(sentence: str) -> None:
                os.write(writer, f"{' '.join(sentence.split())[:400]}\n".encode("utf-8", "replace"))

            watch(
                [room.out, room.cache, room.tmp, *writable],
                [room.canary, Path("/etc/passwd"), Path("/etc/shadow")],
                tell,
            )
        code = function()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1 if left.code else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    return code


def _bound(limits: Limits) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + limits.memory
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    seconds = int(spent + limits.cpu) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file, limits.file))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
