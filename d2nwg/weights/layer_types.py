"""Layer types: which layers of one architecture do the job of which layers of another (paper section 4.1.4).

Networks of one family repeat a block in stages: ResNet-32 has five in a stage, ResNet-20 has three. A block is what
shares a name up to its first number (``layer2.3``); a layer without a number is a block of its own (``conv1``). Blocks
are of one type if they have the same stage (``layer2``) and the same tensors in the same shapes; their relative depth
is 0 for the first of a stage and 1 for the last. So a layer's type is its stage and its role in the block.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Size

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown
from d2nwg.weights.networks import State

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Block:
    """One block: its stage and relative depth; its tensors, by their names in the block; its type, their shapes."""

    stage: str
    depth: float
    tensors: dict[str, str]
    type: dict[str, tuple[int, ...]]


def match_tensors(source: Shapes, target: Shapes) -> dict[str, str]:
    """For each tensor of the target, the one of the source that matches: of a block of the same type whose relative
    depth is nearest, the deeper of two.

    Args:
        source, target: tensor name → shape.
    Raises:
        UserError: the source has no block of a type that the target has.
    """
    found, known = {}, _blocks(source)
    for block in _blocks(target):
        same = [one for one in known if (one.stage, one.type) == (block.stage, block.type)]
        if not same:
            name = shown(next(iter(block.tensors.values())))
            raise UserError(
                f"Nothing matches {name}: layers are taken from an architecture of the same family, with the same "
                "names, shapes and stages."
            )
        nearest = min(same, key=lambda one: (round(abs(one.depth - block.depth), 6), -one.depth))
        found.update({name: nearest.tensors[part] for part, name in block.tensors.items()})
    return {name: found[name] for name in target}


def copy_matching(source: State, target: State) -> State:
    """The target's state dict with the numbers of the source's matching tensors: what a generator of layers must beat.

    Args:
        source, target: state dicts of two architectures, no batch axis.
    Raises:
        UserError: as `match_tensors`.
    """
    matches = match_tensors(
        *({name: tuple(value.shape) for name, value in state.items()} for state in (source, target))
    )
    return {name: source[match].clone() for name, match in matches.items()}


def _blocks(shapes: Shapes) -> list[_Block]:
    groups: dict[tuple[str, int | None], list[str]] = {}
    for name in shapes:
        groups.setdefault(_place(name), []).append(name)
    most: dict[str, int] = {}
    for stage, number in groups:
        most[stage] = max(most.get(stage, 0), number or 0)
    blocks = []
    for (stage, number), names in groups.items():
        start = len(stage) if number is None else len(f"{stage}.{number}".lstrip("."))
        tensors = {name[start:]: name for name in names}
        type = {part: tuple(Size(shapes[name])) for part, name in tensors.items()}
        blocks.append(_Block(stage, (number or 0) / max(1, most[stage]), tensors, type))
    return blocks


def _place(name: str) -> tuple[str, int | None]:
    """``"layer2.3.bn1.weight"`` → ``("layer2", 3)``; ``"bn1.weight"`` → ``("bn1", None)``."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal() and part.isascii():
            return ".".join(parts[:i]), int(part)
    return ".".join(parts[:-1]), None
