"""The weights in what a training script saved: a state dict, often inside other dictionaries."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from d2nwg.data.tables import FACTS, as_fact
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

# The usual keys of a state dict, in the order of preference.
WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "module", "params", "weights", "ema")
# Of a parameter, in the states of torch's optimisers.
MOMENTS = {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "sum"}
MAX_DICTS, MAX_DEPTH = 100_000, 100  # of dictionaries in one file, and of their nesting


@dataclass
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        state: stored name → tensor, contiguous and with memory of its own, bit for bit as in the file.
        facts: those of ``accuracy`` (a fraction), ``epoch`` and ``task`` that the file gives.
        left_out: keys of other tensors in the file, such as a second state dict; an optimiser's state aside.
    """

    state: dict[str, Tensor]
    facts: dict = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def find_state(content: object, name: str) -> Checkpoint:
    """The state dict in the content of a checkpoint file: under a usual key (see `WEIGHTS`), or the largest one.

    Each dictionary is visited once, however often it occurs: their number, not that of the paths to them, bounds the
    time. The state of an optimiser is not taken for weights.

    Raises:
        UserError: it holds more than `MAX_DICTS` dictionaries, or they are nested deeper than `MAX_DEPTH`; or it holds
            only the state of an optimiser.
    """
    search = _Search(name)
    chosen = search.best(content, "", 0)
    if not chosen and search.optimisers:
        raise UserError(f"{name} holds no weights, only the state of an optimiser: save a state dict, name → tensor.")
    others = [key for key, state in search.states if state is not chosen and _size(state) > len(state)]  # no scalars
    return Checkpoint(chosen, _facts(content), others)


class _Search:
    def __init__(self, name: str):
        self.name = name
        self.states: list[tuple[str, dict[str, Tensor]]] = []  # (key, its own tensors) of each dictionary
        self.optimisers = 0
        self._found: dict[int, dict[str, Tensor]] = {}  # id of a dictionary → the best state dict in it

    def best(self, content: object, key: str, depth: int) -> dict[str, Tensor]:
        """The preferred state dict in this dictionary or below it."""
        if not isinstance(content, Mapping):
            return {}
        if id(content) in self._found:  # shared, or a cycle
            return self._found[id(content)]
        if len(self._found) >= MAX_DICTS or depth > MAX_DEPTH:
            raise UserError(f"{self.name} nests its dictionaries too deep, or holds too many: save a state dict alone.")
        self._found[id(content)] = {}
        own = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if {"state", "param_groups"} <= content.keys() or (own and own.keys() <= MOMENTS):
            self.optimisers += 1
            return {}
        if own:
            self.states.append((key or "its top level", own))
        inner = {
            name: self.best(value, f"{key}.{shown(name, 40)}" if key else shown(name, 40), depth + 1)
            for name, value in content.items()
            if "optim" not in str(name)
        }
        usual = next((inner[name] for name in WEIGHTS if inner.get(name)), None)
        chosen = own if len(own) > len(content) // 2 else usual or max([own, *inner.values()], key=_size)
        self._found[id(content)] = chosen
        return chosen


def _size(state: dict[str, Tensor]) -> int:
    return sum(value.numel() for value in state.values())


def _facts(content: object) -> dict:
    """Those of `FACTS` that the top level gives."""
    facts: dict = {}
    for fact, keys in FACTS.items():
        for key in keys:
            value = content.get(key) if isinstance(content, Mapping) else None
            if isinstance(value, Tensor):
                plain = value.numel() == 1 and value.layout == torch.strided and value.device.type == "cpu"
                value = value.item() if plain and not value.is_nested else None
            if isinstance(value, str) if fact == "task" else isinstance(value, (int, float)):
                facts[fact] = as_fact(fact, value)
                break
    return {fact: value for fact, value in facts.items() if value is not None}
