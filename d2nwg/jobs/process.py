"""Processes of jobs: known by number and start, suspended, continued and ended by signals."""

import os
import sys
import time
from pathlib import Path

from d2nwg.utils.errors import UserError

PATIENCE = 30.0  # seconds a process gets to act on a signal


def identity(pid: int) -> str:
    """What differs between this process and a later one with the same number: its start time and, on Linux, the boot.
    Empty if there is no such process."""
    import psutil

    try:
        if sys.platform == "linux":
            start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{start}"
        return str(psutil.Process(pid).create_time())
    except (OSError, psutil.Error, IndexError):
        return ""


def process_state(pid: int | None, known: str | None) -> str:
    """``"alive"``, ``"suspended"`` or ``"gone"``, for the process with this number and this `identity`."""
    import psutil

    if not pid or not known or identity(pid) != known:
        return "gone"
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return "gone"
    return {psutil.STATUS_ZOMBIE: "gone", psutil.STATUS_DEAD: "gone", psutil.STATUS_STOPPED: "suspended"}.get(
        status, "alive"
    )


def send_signal(pid: int | None, known: str | None, number: int | None, until: str | None = None) -> None:
    """Send a signal to a job's process and its children, which are a session of their own.

    Args:
        pid, known: as of `process_state`.
        number: of the signal; None stands for one that this system does not have.
        until: the `process_state` to wait for.
    Raises:
        UserError: the process is gone, or does not act on the signal, or there is no such signal.
    """
    if number is None:
        raise UserError("This system cannot pause a process: stop the job and resume it later.")
    if not pid or process_state(pid, known) == "gone":
        raise UserError("The process of this job is gone.")
    try:
        os.killpg(pid, number) if hasattr(os, "killpg") else os.kill(pid, number)
    except ProcessLookupError:
        raise UserError("The process of this job is gone.") from None
    deadline = time.monotonic() + PATIENCE
    while until and process_state(pid, known) not in (until, "gone"):
        if time.monotonic() > deadline:
            raise UserError("The process of this job does not answer: stop the job and resume it later.")
        time.sleep(0.02)
