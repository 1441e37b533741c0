"""Low-rank adapters as changes of weights, ΔW = B A: what does not depend on how ΔW is parted into B and A."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from d2nwg.weights.networks import State

MATRIX_A, MATRIX_B = ".lora_A", ".lora_B"


def mix_adapters(adapters: Sequence[State], shares: Sequence[float] | None = None) -> State:
    """The weighted sum of B A, cut back to the rank of the first adapter (truncated singular value decomposition, the
    nearest matrix of that rank in Frobenius norm).

    Args:
        adapters: ``….lora_A.weight`` (r, in) and ``….lora_B.weight`` (out, r) of the same layers.
        shares: one for each; by default all alike, with a sum of 1.
    """
    shares = [1 / len(adapters)] * len(adapters) if shares is None else shares
    made: dict[str, Tensor] = {}
    for name, other in _pairs(adapters[0]):
        left = torch.cat([share * one[other].float() for one, share in zip(adapters, shares, strict=True)], 1)
        right = torch.cat([one[name].float() for one in adapters])
        # B A of all together has a rank of at most the sum of theirs: its decomposition is that of a small matrix
        outer, upper = torch.linalg.qr(left)
        inner, lower = torch.linalg.qr(right.mT)
        u, sizes, v = torch.linalg.svd(upper @ lower.mT, full_matrices=False)
        rank = adapters[0][name].shape[0]
        root = sizes[:rank].sqrt()
        made |= {name: root[:, None] * (v[:rank] @ inner.mT), other: outer @ u[:, :rank] * root}
    return {name: made[name].contiguous() for name in adapters[0]}


def inner_products(one: State, other: State) -> Tensor:
    """⟨B A, B' A'⟩ of all layers together, in double precision: (...,) for the leading batch axes of both."""
    total = torch.zeros((), dtype=torch.float64)
    for a, b in _pairs(one):
        across = one[b].double().mT @ other[b].double()  # (..., r, r')
        total = total + (across * (one[a].double() @ other[a].double().mT)).sum((-2, -1))
    return total


def distances(one: State, other: State) -> Tensor:
    """‖B A - B' A'‖, the Frobenius norm over all layers: (...,) for the leading batch axes of both."""
    squared = inner_products(one, one) + inner_products(other, other) - 2 * inner_products(one, other)
    return squared.clamp_min(0).sqrt().float()


def _pairs(adapter: State) -> Iterator[tuple[str, str]]:
    """The names of A and B of each layer."""
    for name in adapter:
        if MATRIX_A in name:
            yield name, name.replace(MATRIX_A, MATRIX_B)
