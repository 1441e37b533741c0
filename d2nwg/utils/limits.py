"""Bounds: numbers within limits, and memory and disk space that are there before they are used.

Whatever a person can ask for is checked here before memory or minutes are spent on it. An estimate is a lower bound: it
refuses what cannot end well, not what is merely close.
"""

import contextlib
import math
import shutil
import sys
from pathlib import Path

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

MANY = 10**9  # of anything that is counted
MOST_SEED = 2**63 - 1  # that every random generator takes
_CGROUPS = Path("/sys/fs/cgroup")


def whole(value: object, name: str, low: int, high: int = MANY) -> int:
    """A whole number from `low` to `high`; `name` is what it is called in a sentence.

    Raises:
        UserError: it is not one.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not hasattr(value, "__index__") or not low <= value <= high:  # type: ignore[operator]
        raise UserError(f"{name} should be a whole number from {low:,} to {high:,}.")
    return int(value)


def seed_number(value: object) -> int:
    """A seed that every random generator takes.

    Raises:
        UserError: it is not one.
    """
    return whole(value, "The seed", 0, MOST_SEED)


def check_memory(needed: float, what: str, advice: str, device: object = "cpu") -> None:
    """Refuse what does not fit into the memory that is free.

    Args:
        needed: bytes, at least.
        what: that needs them, as the beginning of a sentence.
        advice: what to do, as an imperative without a full stop.
        device: whose memory.
    Raises:
        UserError: it does not fit.
    """
    free = free_memory(device)
    if needed > free:
        raise UserError(f"{what} needs {size(needed)} of memory, and {size(free)} are free: {advice}.")


def check_space(needed: float, folder: Path, what: str, advice: str) -> None:
    """Refuse what does not fit on the disk of a folder, which need not exist yet; as `check_memory`."""
    place = folder.expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(f"{what} needs {size(needed)} on the disk, and {size(free)} are free: {advice}.")


def size(count: float) -> str:
    """Bytes for a person: ``8.7 GB``, ``350 MB``."""
    if count < 1e9:
        return f"{max(1.0, count / 1e6):.0f} MB"
    return f"{count / 1e9:,.1f} GB" if count < 1e15 else "more than 1,000,000 GB"


def free_memory(device: object = "cpu") -> float:
    """Bytes that this process can still get: of a GPU, or of the machine within the limits that are set for the
    process and its control groups."""
    import psutil

    torch = sys.modules.get("torch")  # without it nothing is on a GPU
    if torch and str(device).startswith("cuda") and torch.cuda.is_available():
        return float(torch.cuda.mem_get_info(torch.device(str(device)))[0])

    return min(float(psutil.virtual_memory().available), _in_address_space(), _in_cgroups())


def _in_address_space() -> float:
    """Bytes left of what ``ulimit -v`` allows."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    import psutil

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else max(0.0, float(limit - psutil.Process().memory_info().vms))


def _in_cgroups() -> float:
    """Bytes left in the control groups (version 2, and the first one's root) that this process is in: the limits of a
    container. Pages that only cache files count as free."""
    left = math.inf
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "/")
        folder = _CGROUPS / own.strip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(_CGROUPS):
                break
            left = min(left, _left(place, "memory.max", "memory.current", "inactive_file"))
    return min(
        left, _left(_CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )


def _left(folder: Path, limit: str, used: str, cached: str) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        most = int((folder / limit).read_text())  # a ValueError for "max"
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0.0, float(most - int((folder / used).read_text()) + int(stat.get(cached, 0))))
    return math.inf


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a CPU or on a device."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
    return isinstance(error, (RuntimeError, OSError)) and any(word in str(error).lower() for word in words)


def given_text(text: object, name: str) -> str:
    """A name or a path that a person gave: not empty, and without the NUL bytes that no path can hold.

    Raises:
        UserError: it is not one.
    """
    found = str(text)
    if not found.strip():
        raise UserError(f"{name} is empty: give a name.")
    if "\0" in found:
        raise UserError(f"{name} holds a NUL byte, which no name can: {shown(found)}.")
    return found
