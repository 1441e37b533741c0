"""The files of a zoo of heads, checked before their numbers are used as numbers of classes and images."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from d2nwg.utils.errors import UserError

Shape = tuple[int | None, ...]  # None: any


def open_member(folder: Path, name: str, shapes: Mapping[str, Shape]):
    """A safetensors file in a folder, opened; its tensors are not read.

    Args:
        shapes: of the tensors that it must hold.
    Raises:
        UserError: it is missing, damaged, a link or a special file, or holds other tensors.
    """
    path = folder / name
    try:
        if path.is_symlink() or not path.is_file():  # a link could name any file of the machine, a FIFO would block
            raise FileNotFoundError(path)
        file = safe_open(path, "pt")
        found = {tensor: file.get_slice(tensor).get_shape() for tensor in shapes}
    except (OSError, SafetensorError) as reason:
        raise damaged(folder, name) from reason
    for tensor, shape in shapes.items():
        if len(found[tensor]) != len(shape) or any(
            n not in (None, m) for n, m in zip(shape, found[tensor], strict=True)
        ):
            raise damaged(folder, name)
    return file


def check_range(tensor: Tensor, low: int, high: int, folder: Path, name: str) -> Tensor:
    """The tensor of whole numbers from ``low`` to below ``high``, int64.

    Raises:
        UserError: it holds others.
    """
    if tensor.is_floating_point() or (tensor.numel() and (tensor.min() < low or tensor.max() >= high)):
        raise damaged(folder, name)
    return tensor.long()


def check_finite(tensors: Mapping[str, Tensor], folder: Path, name: str) -> None:
    """Raises UserError where one of the tensors is not of real, finite numbers."""
    if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise damaged(folder, name)


def check_labels(label: Tensor, classes: int, folder: Path, name: str) -> None:
    """Raises UserError where one of so many classes has no image, or an image has another class."""
    if not bool(torch.bincount(check_range(label, 0, classes, folder, name), minlength=classes).all()):
        raise damaged(folder, name)


def damaged(folder: Path, name: str) -> UserError:
    """The refusal of a zoo with such a file."""
    return UserError(f"The zoo {folder} is incomplete: build it again, for {name} is missing or damaged.")
