"""Compute devices: choice, threads, memory, and a lock for loading models."""

import atexit
import ctypes
import os
import platform
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

# While diffusers builds a model it patches torch.nn.Module for the whole process: a network that another thread
# builds at the same time would not get its weights. Held while a model is loaded.
loading = threading.RLock()


def resolve_device(name: str | None = None) -> str:
    """``name`` if this machine has that device; without a name CUDA where there is one, otherwise the CPU.

    Raises:
        UserError: the machine has no such device.
    """
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = name or ("cuda" if cuda else "cpu")
    if name == "cpu":
        _keep_freed_memory()
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,4})?", name):
        raise UserError(f"{shown(name)} is no device: write cpu, cuda, cuda:N or mps.")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= cuda:
        has = "none" if not cuda else f"{cuda}, counted from 0"
        raise UserError(
            f"There is no CUDA device {name} here (PyTorch sees {has}): choose another --device, such as cpu."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("There is no MPS device here: choose another --device, such as cpu.")
    return name


@contextmanager
def workers(device: str) -> Iterator[Executor]:
    """A thread pool for independent parts of a computation: one thread a core on a CPU, with one torch thread each.

    Threads within one operation wait for each other at its end; with small matrices or batches, one part a core is up
    to several times as fast. On another device the threads prepare its inputs. On an exception, parts that have not
    begun are dropped.
    """
    import torch

    threads = torch.get_num_threads()
    if device == "cpu":
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    else:
        pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(threads)  # some libraries that torch calls have one setting for all threads
        if device == "cpu":
            _return_freed_memory()


def leave_group_at_exit() -> None:
    """Leave torch's process group before the interpreter exits: its threads would otherwise abort the process now and
    then."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        atexit.unregister(_leave_group)
        atexit.register(_leave_group)


def _leave_group() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@cache
def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for reuse instead of returning it to the system.

    Activations are allocated and freed at every layer. Where new pages are slow to get, as on virtual machines, that
    takes as long as the arithmetic, and networks run up to twice as fast with this setting. Without glibc it does
    nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # names in malloc.h
        libc = ctypes.CDLL(None)
        for option, value in ((trim_threshold, 2**31 - 1), (top_pad, 64 * 2**20), (mmap_max, 0)):
            libc.mallopt(option, value)


def _return_freed_memory() -> None:
    """Return the memory that ended threads have freed to the system; no other thread can reuse it. After the singular
    values of large matrices it is gigabytes."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
