"""Which device to compute on, and one model loaded at a time."""

import atexit
import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

from d2nwg.utils.errors import UserError

# While diffusers builds a model it patches torch.nn.Module for the whole process: a network that another thread
# builds meanwhile would be left without its weights.
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
    """Threads that work on pieces of a job side by side: one a core on a CPU, where torch then runs each piece on one.

    Threads within an operation wait on each other at its end, and on whatever else the machine is doing: with small
    matrices or small batches of pictures, a piece a core is up to several times as fast. On another device the
    threads feed it. A job that is broken off does not wait for pieces that nobody wants any more.
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
        torch.set_num_threads(threads)  # some of the libraries below torch share one number among all threads
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
    """Tell glibc to keep what torch frees instead of returning it to the system and asking again.

    Activations are allocated and freed at every layer; where fresh pages are dear (virtual machines above all), that
    costs as much as the arithmetic: networks run up to twice as fast with it. Elsewhere it does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # names in malloc.h
        libc = ctypes.CDLL(None)
        for option, value in ((trim_threshold, 2**31 - 1), (top_pad, 64 * 2**20), (mmap_max, 0)):
            libc.mallopt(option, value)


def _return_freed_memory() -> None:
    """Once, at the end of a job of many threads: what each has freed lies where no other will take it from, gigabytes
    of it after the singular values of large matrices."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
