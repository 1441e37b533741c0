"""A disk that is full."""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from safetensors import SafetensorError

from d2nwg.utils.errors import UserError


class FullDisk:
    """Below a folder, the file number ``at`` (from 0) that is opened to be written, and all after it, take no byte."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path, at: int):
        self.root, self.at, self.opened = os.path.realpath(root), at, 0
        self._open, self._serialise = io.open, safetensors.torch.serialize_file
        for module in (builtins, io):
            patch.setattr(module, "open", self._open_file)
        patch.setattr(safetensors.torch, "serialize_file", self._write_tensors)

    def _full(self, path) -> bool:
        if not isinstance(path, (str, os.PathLike)) or not os.path.realpath(path).startswith(self.root + os.sep):
            return False
        self.opened += 1
        return self.opened > self.at

    def _open_file(self, path, mode="r", *args, **options):
        if mode[0] not in "wax" or not self._full(path):
            return self._open(path, mode, *args, **options)
        self._open(path, mode, *args, **options).close()  # what is left of it is an empty file
        return self._open("/dev/full", mode.replace("x", "w"), *args, **options)

    def _write_tensors(self, tensors, path, *args, **options):
        if not self._full(path):
            return self._serialise(tensors, path, *args, **options)
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def content(root: Path) -> dict[str, bytes | None]:
    """Every file below a folder with what it holds; None for a folder."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}


def every_full_disk(root: Path, write: Callable[[], object], after: Callable[[], None] = lambda: None) -> int:
    """Let the disk be full at each file in turn that ``write`` writes below ``root``, until it succeeds. Each time it
    says so in a sentence, and what is below ``root`` is as it was.

    Args:
        after: called after each refusal.
    Returns:
        the number of refusals.
    """
    was = content(root)
    for at in range(200):
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, root, at)
            try:
                write()
                assert disk.opened == at, "a full disk went unnoticed"
                return at
            except UserError as reason:
                said = str(reason)
        assert "the disk is full" in said and said.endswith(".") and "\n" not in said, said
        assert content(root) == was, (at, set(content(root)) ^ set(was))
        after()
    raise AssertionError("it writes without end")
