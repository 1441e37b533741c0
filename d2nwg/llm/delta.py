"""A refinement without its model: the tensors that changed, and which base they belong to.

``delta.safetensors`` holds the new tensors whole (not differences), so applying it gives them back bit for bit. Its
header names the base, and for every tensor the SHA-256 of the base's: on another base it is refused, nothing changed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import explained
from d2nwg.utils.paths import whole_file
from d2nwg.utils.text import is_utf8, number, shown

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

KEY, VERSION = "d2nwg_delta", 1
FILE = "delta.safetensors"


@dataclass
class Delta:
    """A delta read from a file.

    Attributes:
        base: the name of the model it was made from.
        tensors: name → new tensor.
        hashes: name → SHA-256 of the base's tensor.
        facts: how it was made.
    """

    base: str
    tensors: dict[str, "Tensor"]
    hashes: dict[str, str]
    facts: dict = field(default_factory=dict)

    @property
    def dtype(self):
        """The number format of the model it was made from."""
        return next(iter(self.tensors.values())).dtype


def fingerprint(tensor: "Tensor") -> str:
    """SHA-256 of a tensor's number format, shape and bytes."""
    import torch

    data = tensor.detach().cpu().contiguous()
    head = f"{str(data.dtype).removeprefix('torch.')} {list(data.shape)}\n".encode()
    return hashlib.sha256(head + data.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def save_delta(
    base: Mapping[str, "Tensor"], refined: Mapping[str, "Tensor"], out: str | Path, *, name: str, facts: dict
) -> Path:
    """Write the tensors of `refined` that differ from those of `base` (name → tensor; names that `base` lacks are left
    out) as the file `out`, or ``delta.safetensors`` in that folder. `name` is the base's.

    Raises:
        UserError: nothing differs, or the file cannot be written.
    """
    kept, hashes = {}, {}
    for key, old in base.items():
        new = refined.get(key)
        if new is None or _same(new, old):
            continue
        kept[key], hashes[key] = new, fingerprint(old)
    if not kept:
        raise UserError("No tensor differs from the base: there is nothing to save as a delta.")
    return write_delta(Delta(name, kept, hashes, facts), out)


def _same(new: "Tensor", old: "Tensor") -> bool:
    """Whether two tensors are alike, bit for bit: 0.0 and -0.0 are not."""
    import torch

    if new.shape != old.shape or new.dtype != old.dtype:
        return False
    return torch.equal(new.contiguous().view(torch.uint8), old.to(new.device).contiguous().view(torch.uint8))


def write_delta(delta: Delta, out: str | Path) -> Path:
    """Write a delta as the file `out`, or ``delta.safetensors`` in that folder."""
    from safetensors.torch import save_file

    path = Path(out)
    path = path if path.suffix == ".safetensors" else path / FILE
    head = {"version": VERSION, "base": delta.base, "hashes": delta.hashes, "facts": delta.facts}
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in delta.tensors.items()}
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                save_file(tensors, part, {"format": "pt", KEY: json.dumps(head)})
    except OSError as reason:
        raise UserError(f"{path} could not be written: {(reason.strerror or str(reason)).lower()}.") from reason
    return path


def read_delta(path: str | Path) -> Delta:
    """Read a delta, from its file or the folder that holds it.

    Raises:
        UserError: there is none, or it is damaged or something else.
    """
    import torch
    from safetensors import safe_open

    formats = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    name = shown(path.name)
    if not path.is_file():
        raise UserError(f"{shown(path)} is not there: give the file {FILE} or the folder that holds it.")
    try:
        with safe_open(path, "pt") as file:
            head = json.loads((file.metadata() or {}).get(KEY) or "{}")
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (no mapping)
        version, base = head.get("version", 0), head.get("base")
        hashes, facts = head.get("hashes", {}), head.get("facts", {})
    except Exception as reason:  # a damaged file can fail in any way
        raise UserError(f"{name} is damaged or incomplete: save or download it again.") from reason
    if not version:
        raise UserError(f"{name} is no delta: it does not say which base it belongs to.")
    kinds = ((version, int), (base, str), (hashes, dict), (facts, dict))
    fits = all(isinstance(value, kind) for value, kind in kinds)
    if not fits or not is_utf8(json.dumps([base, facts], ensure_ascii=False)):
        raise UserError(f"{name} is damaged: its header is not that of a delta; save or download it again.")
    if version > VERSION:
        raise UserError(f"{name} was written by a newer version of this program: update it.")
    if not tensors or set(hashes) != set(tensors):
        raise UserError(f"{name} is damaged: its header names other tensors than it holds.")
    for key, value in tensors.items():
        if value.dtype not in formats or not torch.isfinite(value).all():
            raise UserError(f"{name} holds numbers that no model has, in {shown(key)}: save it again.")
    if len({value.dtype for value in tensors.values()}) > 1:
        raise UserError(f"{name} holds tensors in several number formats: refine the model in one of them.")
    return Delta(base, tensors, hashes, facts)


def apply_delta(delta: Delta | str | Path, model: "PreTrainedModel") -> Delta:
    """Put a delta's tensors into its base, in place; bit for bit those that were saved. A model in another number
    format is first converted to that of the delta. Returns the delta.

    Raises:
        UserError: it belongs to another base (the model is then as it was), or see `read_delta`.
    """
    import torch

    delta = delta if isinstance(delta, Delta) else read_delta(delta)
    state = model.state_dict()
    check_base(delta, state)
    if model.dtype != delta.dtype:
        model.to(delta.dtype)
        state = model.state_dict()
    with torch.no_grad():
        for key, value in delta.tensors.items():
            state[key].copy_(value)
    return delta


def check_base(delta: Delta, state: Mapping[str, "Tensor"]) -> None:
    """Raises UserError where a model's state, in the delta's number format, is not what the delta was made from."""
    missing = [key for key in delta.tensors if key not in state or state[key].shape != delta.tensors[key].shape]
    if missing:
        raise UserError(
            f"The delta belongs to {shown(delta.base)}, and this model has another shape ({shown(missing[0])} "
            "differs): give the base it was made from."
        )
    changed = [key for key, value in delta.hashes.items() if fingerprint(state[key].to(delta.dtype)) != value]
    if changed:
        raise UserError(
            f"The delta belongs to {shown(delta.base)}, and {number(len(changed), 'tensor')} of this model "
            f"({shown(changed[0])} for one) are not what it was made from: give the base it was made from."
        )


def merge_deltas(deltas: Sequence[Delta], model: "PreTrainedModel") -> Delta:
    """The average of several refinements of one base (a model soup): each tensor is the mean over all variants, where a
    variant that left it alone counts with the base's.

    Raises:
        UserError: fewer than two, or one belongs to another base.
    """
    import torch

    if len(deltas) < 2:
        raise UserError("Give at least two deltas to average.")
    state = model.state_dict()
    for delta in deltas:
        check_base(delta, state)
    if len({delta.dtype for delta in deltas}) > 1:
        raise UserError("The deltas were made in different number formats: refine the variants in one of them.")
    dtype = deltas[0].dtype
    tensors, hashes = {}, {}
    for key in dict.fromkeys(key for delta in deltas for key in delta.tensors):
        old = state[key].detach().cpu().to(dtype)
        total = torch.zeros_like(old, dtype=torch.float64)
        for delta in deltas:
            total += delta.tensors.get(key, old)
        tensors[key] = (total / len(deltas)).to(dtype)
        hashes[key] = fingerprint(old)
    return Delta(deltas[0].base, tensors, hashes, {"average_of": [delta.facts for delta in deltas]})


def variant_of(model: "PreTrainedModel", tensors: Mapping[str, "Tensor"]) -> "PreTrainedModel":
    """A second model with some tensors (name → tensor) of its own that shares the memory of all others with `model`,
    which stays as it is. Neither may be changed in place afterwards.

    Raises:
        UserError: `model` has no tensor of such a name and shape.
    """
    import copy

    import torch

    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for name, value in tensors.items():
        place, _, leaf = name.rpartition(".")
        try:
            old = twin.get_submodule(place)._parameters[leaf]
        except (AttributeError, KeyError):
            old = None
        if old is None or old.shape != value.shape:
            raise UserError(f"The model has no tensor {shown(name)} of this shape: give the base it was made from.")
        new = torch.nn.Parameter(value.to(old.device, old.dtype), requires_grad=False)
        for other in twin.modules():  # a tied one is in several
            for key, parameter in other._parameters.items():
                if parameter is old:
                    other._parameters[key] = new
    return twin
