"""Some of a decoder's blocks run alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from d2nwg.llm.architectures import blocks_of, family_of


class _Nothing(nn.Module):
    """In place of the learnt positions where blocks below have added them already."""

    def forward(self, positions: Tensor) -> Tensor:
        return torch.zeros((), device=positions.device)


@contextmanager
def only_blocks(base: nn.Module, first: int, last: int | None) -> Iterator[None]:
    """A decoder that runs blocks ``first`` to ``last`` (exclusive) alone, without the final norm where `last` is
    given. Not for a model that others use at the same time.

    Raises:
        AttributeError: it is of no known family.
    """
    if first == 0 and last is None:
        yield
        return
    blocks, family = blocks_of(base), family_of(base)
    assert family is not None  # or it would have no blocks
    changed: dict[str, nn.Module] = {family.blocks: blocks[first:last]}
    if last is not None:
        changed[family.norm] = nn.Identity()
    if first and family.positions:
        changed[family.positions] = _Nothing()
    before = {name: getattr(base, name) for name in changed}
    try:
        for name, module in changed.items():
            setattr(base, name, module)
        yield
    finally:
        for name, module in before.items():
            setattr(base, name, module)
