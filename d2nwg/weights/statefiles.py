"""One checkpoint file, read without running code that it contains.

``.safetensors`` files hold data only. ``.pt``, ``.pth``, ``.th``, ``.bin`` and ``.ckpt`` files are pickles; they are
opened with ``weights_only=True``, which reads tensors and plain containers and refuses all that would call code.
"""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from d2nwg.data.archives import MAX_BYTES, MAX_RATIO
from d2nwg.data.tables import FACTS, as_fact
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
MAX_TENSORS = 20_000
# The usual keys of a training script's checkpoint for its weights, in the order of preference.
WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "module", "params", "weights", "ema")


@dataclass
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        state: stored name → tensor, contiguous and with memory of its own, bit for bit as in the file.
        facts: those of ``accuracy`` (a fraction), ``epoch`` and ``task`` that the file gives.
    """

    state: dict[str, Tensor]
    facts: dict = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or a sharded one by its ``….index.json``.

    Raises:
        UserError: it needs code, is damaged, unpacks to too much, holds no weights, or holds NaN or infinite ones.
    """
    name = shown(path.name)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{name} is larger than {MAX_BYTES // 2**30} GiB, which is the limit.")
        if path.name.endswith(".index.json"):
            found = Checkpoint(_sharded(path))
        else:
            found = Checkpoint(_safetensors(path)) if path.suffix == ".safetensors" else _pickled(path)
    except UserError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError) as reason:
        raise UserError(f"{name} is damaged: what its header says does not fit what it holds.") from reason
    if not found.state:
        raise UserError(f"{name} holds no weights: save a state dict, name → tensor.")
    if len(found.state) > MAX_TENSORS:
        raise UserError(f"{name} holds more than {MAX_TENSORS:,} tensors, which is the limit.")
    for tensor, value in found.state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            kind = "NaN" if torch.isnan(value).any() else "infinite"
            raise UserError(f"{name} holds {kind} weights, in {shown(tensor)}: leave this checkpoint out.")
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)


def _sharded(index: Path) -> dict[str, Tensor]:
    files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    state: dict[str, Tensor] = {}
    for name in files:
        if not isinstance(name, str) or Path(name).name != name:
            raise UserError(f"{shown(index.name)} names a file outside its folder, {shown(name)}.")
        shard = index.with_name(name)
        if not shard.is_file():
            raise UserError(f"{shown(index.name)} names {shown(name)}, which is missing.")
        state |= read_checkpoint(shard).state
    return state


def _pickled(path: Path) -> Checkpoint:
    name = shown(path.name)
    if zipfile.is_zipfile(path):
        _check_packing(path, name)
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
    state, facts = _find_state(content), _find_facts(content)
    for tensor, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
            raise UserError(f"{name} holds {shown(tensor)}, which is not a plain dense tensor: convert it first.")
        if value.numel() > value.untyped_storage().nbytes() // max(1, value.element_size()):
            raise UserError(f"{name} is damaged: {shown(tensor)} claims to be larger than its data.")
    return Checkpoint({n: v.detach().clone(memory_format=torch.contiguous_format) for n, v in state.items()}, facts)


def _check_packing(path: Path, name: str) -> None:
    """Refuse an archive that unpacks to many times its size: PyTorch stores tensors without compression."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, UnicodeDecodeError) as reason:
        raise UserError(f"{name} is damaged, or no checkpoint that PyTorch wrote.") from reason
    if total > min(MAX_BYTES, MAX_RATIO * path.stat().st_size):
        raise UserError(f"{name} unpacks to more than {MAX_RATIO} times its size, which is the limit.")


def _find_state(content) -> dict[str, Tensor]:
    """The state dict in a training script's checkpoint: under a usual key (see `WEIGHTS`), or the largest one."""
    if not isinstance(content, Mapping):
        return {}
    own = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if len(own) > len(content) // 2:
        return own
    for key in WEIGHTS:
        if found := _find_state(content.get(key)):
            return found
    inner = [_find_state(value) for key, value in content.items() if "optim" not in str(key)]
    return max([own, *inner], key=lambda state: sum(value.numel() for value in state.values()))


def _find_facts(content) -> dict:
    facts: dict = {}
    for fact, keys in FACTS.items():
        for key in keys:
            value = content.get(key) if isinstance(content, Mapping) else None
            if isinstance(value, Tensor) and value.numel() == 1:
                value = value.item()
            if isinstance(value, str) if fact == "task" else isinstance(value, (int, float)):
                facts[fact] = as_fact(fact, value)
                break
    return {fact: value for fact, value in facts.items() if value is not None}
