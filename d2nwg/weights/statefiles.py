"""One checkpoint file, read without running code that it contains.

``.safetensors`` files hold data only. ``.pt``, ``.pth``, ``.th``, ``.bin`` and ``.ckpt`` files are pickles; they are
opened with ``weights_only=True``, which reads tensors and plain containers and refuses all that would call code.
"""

import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from d2nwg.data.archives import MAX_BYTES, MAX_RATIO
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import is_utf8, shown, some
from d2nwg.weights.containers import Checkpoint, find_state

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
MAX_TENSORS = 20_000
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
LFS = b"version https://git-lfs.github.com/spec/"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        UserError: it is no regular file, needs code, is damaged, unpacks to too much, holds no weights, weights of
            another than the usual types (`DTYPES`), or NaN or infinite ones.
    """
    name = shown(path.name)
    try:
        if not path.is_file():
            raise UserError(f"{name} is no regular file.")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{name} is larger than {MAX_BYTES // 2**30} GiB, which is the limit.")
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise UserError(f"{name} is a Git LFS pointer, not the file itself: fetch that with `git lfs pull`.")
        found = Checkpoint(_safetensors(path)) if path.suffix.lower() == ".safetensors" else _pickled(path)
        _check(found.state, name)
    except UserError:
        raise
    except Exception as reason:  # a damaged file can fail in any way
        raise UserError(f"{name} is damaged: what its header says does not fit what it holds.") from reason
    return found


def merge_shards(paths: Sequence[Path], index: dict[str, str] | None, name: str) -> Checkpoint:
    """Read the shards of one checkpoint.

    Args:
        paths: of the shards.
        index: tensor name → file name, of the checkpoint's index where it has one.
        name: of the index, or of the first shard, for sentences.
    Raises:
        UserError: as `read_checkpoint`; or two shards hold the same tensor, or other tensors than the index names.
    """
    state: dict[str, Tensor] = {}
    for path in paths:
        part = read_checkpoint(path).state
        if twice := sorted(state.keys() & part.keys()):
            raise UserError(f"{name}: more than one shard holds {some(twice)}.")
        state |= part
    if index is not None:
        if lost := sorted(index.keys() - state.keys()):
            raise UserError(f"{name} names {some(lost)}, which no shard holds.")
        if more := sorted(state.keys() - index.keys()):
            raise UserError(f"{name} does not name {some(more)}, which a shard holds.")
    _check(state, name)
    return Checkpoint(state)


def _check(state: dict[str, Tensor], name: str) -> None:
    """Refuse what is no weights, or no weights that a generator can learn."""
    if not state:
        raise UserError(f"{name} holds no weights: save a state dict, name → tensor.")
    if len(state) > MAX_TENSORS:
        raise UserError(f"{name} holds more than {MAX_TENSORS:,} tensors, which is the limit.")
    for tensor, value in state.items():
        if not is_utf8(tensor):
            raise UserError(f"{name} holds a tensor whose name is not UTF-8, {shown(tensor)}: rename it.")
        if value.dtype not in DTYPES:
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{name} holds {shown(tensor)} as {kind}, which is not supported: convert it to float16.")
        if value.is_floating_point() and not torch.isfinite(value).all():
            kind = "NaN" if torch.isnan(value).any() else "infinite"
            raise UserError(f"{name} holds {kind} weights, in {shown(tensor)}: leave this checkpoint out.")


def _safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)


def _pickled(path: Path) -> Checkpoint:
    name = shown(path.name)
    if zipfile.is_zipfile(path):
        _check_packing(path, name)
    elif tarfile.is_tarfile(path):
        raise UserError(
            f"{name} is in the tar format of PyTorch before version 0.1.10: save it again with a later one."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        wanted = re.search(r"(?:GLOBAL |global )`?([\w.]+)", str(reason))
        if wanted is None:
            raise UserError(
                f"{name} is damaged, or a pickle that only code could open; code in files is never run."
            ) from reason
        raise UserError(
            f"{name} needs code to open (it calls for {shown(wanted[1])}), and code in files is never run: save its "
            "weights alone, with torch.save(model.state_dict(), …) or as safetensors."
        ) from reason
    except Exception as reason:  # a damaged pickle can fail in any way
        raise UserError(f"{name} is damaged, or no checkpoint that PyTorch wrote.") from reason
    found = find_state(content, name)
    for tensor, value in found.state.items():
        if (
            value.layout != torch.strided
            or value.is_nested
            or value.is_quantized
            or value.is_complex()
            or value.device.type != "cpu"
        ):
            raise UserError(f"{name} holds {shown(tensor)}, which is not a plain dense tensor: convert it first.")
        if value.numel() > value.untyped_storage().nbytes() // max(1, value.element_size()):
            raise UserError(f"{name} is damaged: {shown(tensor)} claims to be larger than its data.")
    state = {n: v.detach().clone(memory_format=torch.contiguous_format) for n, v in found.state.items()}
    return Checkpoint(state, found.facts, found.left_out)


def _check_packing(path: Path, name: str) -> None:
    """Refuse an archive that unpacks to many times its size: PyTorch stores tensors without compression."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if any(info.filename.endswith("/constants.pkl") for info in archive.infolist()):
                raise UserError(
                    f"{name} is a TorchScript archive, which holds code, and code in files is never run: save its "
                    "weights alone, with torch.save(model.state_dict(), …)."
                )
    except (zipfile.BadZipFile, UnicodeDecodeError) as reason:
        raise UserError(f"{name} is damaged, or no checkpoint that PyTorch wrote.") from reason
    if total > min(MAX_BYTES, MAX_RATIO * path.stat().st_size):
        raise UserError(f"{name} unpacks to more than {MAX_RATIO} times its size, which is the limit.")
