"""What a generator is compared with: other candidates for the same matrices, no more of them, and chosen alike."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from d2nwg.llm.architectures import Unit, pieces
from d2nwg.llm.chunks import Chunks, joined, split
from d2nwg.llm.groups import GroupedGenerator
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.spectrum import threshold
from d2nwg.training.loop import step_rng

# (number of the unit, number of the candidate, its weights as one tensor) -> weights at full strength, float32.
# Candidates of a second pass have further numbers.
Propose = Callable[[int, int, Tensor], Tensor]
EDGE = "edge"  # of the Marchenko-Pastur law: what lies below is as in a random matrix
CUTS = (0.5, EDGE, 0.15, 0.05)  # shares of the singular directions that are kept, in the order they are tried


def samples(config: RefineConfig, generator: GroupedGenerator) -> Propose:
    """The generator's samples, no further away than `config.reach`."""

    def propose(number: int, candidate: int, now: Tensor) -> Tensor:
        return _towards(now, joined(generator.chunks.units[number], generator.sample(number, candidate)), config.reach)

    return propose


def reconstructions(config: RefineConfig, generator: GroupedGenerator) -> Propose:
    """What the VAE gives back, no further away than `config.reach`."""

    def propose(number: int, candidate: int, now: Tensor) -> Tensor:
        return _towards(now, joined(generator.chunks.units[number], generator.reconstruct(number)), config.reach)

    return propose


def _towards(now: Tensor, aim: Tensor, reach: float) -> Tensor:
    change = aim - now
    length = float(change.norm() / now.norm().clamp_min(1e-12))
    return now + change * min(1.0, reach / max(length, 1e-12))


def noise_like(config: RefineConfig, chunks: Chunks, lines: Sequence[dict]) -> Propose:
    """Gaussian noise in place of samples: candidate k of a matrix is as far from the weights as sample k was.

    Args:
        lines: of the refinement's log.
    """

    def propose(number: int, candidate: int, now: Tensor) -> Tensor:
        _, generator = step_rng(config.seed, f"noise for {chunks.units[number].name}", candidate)
        noise = torch.randn(now.shape, generator=generator)
        tried = [one for line in lines[number :: len(chunks.units)] for one in line["candidates"]]
        like = tried[candidate % len(tried)]  # noise may have a pass more
        return now + noise * (like["distance"] / like["strength"] * now.norm() / noise.norm())

    return propose


def rank_cuts(chunks: Chunks) -> Propose:
    """Layer-selective rank reduction (Sharma et al., arXiv 2312.13558): candidate k keeps one of the
    shares `CUTS`, in turn, of a matrix's singular directions, or those above the edge of the Marchenko-Pastur law.
    Fused matrices are cut one by one; several vectors are the rows of a matrix."""
    held: list[tuple[int, Tensor, list[tuple[Tensor, Tensor, Tensor]]]] = []  # of one unit at a time

    def propose(number: int, candidate: int, now: Tensor) -> Tensor:
        unit = chunks.units[number]
        if not held or held[0][0] != number or not torch.equal(held[0][1], now):  # a later pass has other weights
            found = [torch.linalg.svd(matrix, full_matrices=False) for matrix in _as_matrices(chunks, unit, now)]
            held[:] = [(number, now, found)]
        cut = [_kept(left, values, right, CUTS[candidate % len(CUTS)]) for left, values, right in held[0][2]]
        return _as_unit(chunks, unit, torch.cat(cut))

    return propose


def _kept(left: Tensor, values: Tensor, right: Tensor, share: float | str) -> Tensor:
    """A matrix of which singular directions are kept: a share of them, at least one, or those above the edge."""
    if isinstance(share, str):
        shape = len(left), right.shape[1]
        spread = float(values.square().sum() / (shape[0] * shape[1])) ** 0.5
        kept = int((values > threshold(values.numpy(), shape, spread, "paper")).sum())
    else:
        kept = round(share * len(values))
    kept = max(1, kept)
    return (left[:, :kept] * values[:kept]) @ right[:kept]


def _as_matrices(chunks: Chunks, unit: Unit, now: Tensor) -> list[Tensor]:
    tensors = split(unit, now)
    rows = [(part, chunks.lay_out(part, tensors[part.name])) for part in unit.parts]
    return list(pieces(*rows[0])) if len(rows) == 1 else [torch.cat([matrix for _, matrix in rows])]


def _as_unit(chunks: Chunks, unit: Unit, rows: Tensor) -> Tensor:
    found, start = {}, 0
    for part in unit.parts:
        count = chunks.rows_of(part)
        found[part.name] = chunks.take_back(part, rows[start : start + count])
        start += count
    return joined(unit, found)
