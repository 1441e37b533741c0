"""Heads, or networks, of several origins as rows of one matrix: in weight space or in the VAE's latent space, whole or
in part.

A head with fewer classes than the layout's largest is padded with zeros, so that padding alone separates heads with
different numbers of classes: distances are measured only between heads with the same number. The classes of zoo heads
and of samples are in canonical order (`WeightSpace.canonical_order`). Of networks the last layer is left out: what
remains, the trunk, is the same for any number of classes.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from d2nwg.models.spaces import WeightSpace
from d2nwg.utils.errors import UserError
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import fold_projection
from d2nwg.weights.probes import fit_linear, fit_mlp

ZOO, SAMPLE, TRAINED, MADE = "zoo", "sample", "trained", "made"
ORIGINS = (ZOO, TRAINED, SAMPLE, MADE)
WHOLE = "all"  # the part that is the whole vector
ENCODED_AT_ONCE = 1024


@dataclass(frozen=True)
class Population:
    """n heads, or trunks of networks, as vectors, with their origins.

    Attributes:
        vectors: (n, N) float32, standardised vectors of the bundle's layout; zero where a head has no class.
        counts: (n,) int64, classes of each; 0 for trunks, which have none.
        origin: (n,) `ZOO` (kept in the bundle), `SAMPLE` (drawn by diffusion), `TRAINED` (fitted to the same images) or
            `MADE` (generated without drawing: the network that a bundle hands out).
        task: (n,) int64, number of the task a head is for; -1 for zoo heads, whose tasks a bundle does not keep.
        number: (n,) int64, the head's number among those of its origin and task.
        accuracy: (n,) float64, fraction right on held-out images of its own task; NaN where unknown.
    """

    vectors: np.ndarray
    counts: np.ndarray
    origin: np.ndarray
    task: np.ndarray
    number: np.ndarray
    accuracy: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)

    def select(self, index) -> "Population":
        """The heads in ``index`` (numbers or a bool mask)."""
        return Population(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def of(self, origin: str, task: int | None = None) -> np.ndarray:
        """Numbers of the heads of an origin, and of one task where that is given."""
        wanted = self.origin == origin
        return np.flatnonzero(wanted if task is None else wanted & (self.task == task))

    @classmethod
    def join(cls, parts: list["Population"]) -> "Population":
        """Several populations of one layout as one."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def population(vectors: Tensor, counts, origin: str, task: int, accuracy) -> Population:
    """A `Population` of one origin and task from vectors (n, N)."""
    n = len(vectors)
    return Population(
        vectors=vectors.detach().cpu().float().numpy(),
        counts=np.broadcast_to(np.asarray(counts, np.int64), n).copy(),
        origin=np.full(n, origin),
        task=np.full(n, task),
        number=np.arange(n),
        accuracy=np.asarray(accuracy, np.float64),
    )


def zoo_population(space: WeightSpace) -> Population:
    """The zoo heads that a bundle keeps.

    Raises:
        UserError: it keeps none.
    """
    if not len(space.zoo_vectors):
        raise UserError("This bundle keeps no heads of its zoo, so there is nothing to compare samples with.")
    counts = space.zoo_counts.long()
    vectors = space.zoo_vectors * space.layout.mask(counts)
    return population(vectors, counts.cpu(), ZOO, -1, space.zoo_accuracy.cpu())


def trained_vectors(
    space: WeightSpace, features: Tensor, labels: Tensor, order: Tensor, number: int, seed: int, l2: float = 1e-2
) -> Tensor:
    """Heads fitted as a zoo's are (`d2nwg.weights.probes`), each to a random four fifths of a task's support images.

    Args:
        features, labels: the support, (n, D) and (n,).
        order: canonical order of its C classes.
        number: of heads; one where a class has a single image, since all would be equal.
    Returns:
        (number, N) vectors.
    """
    slot = torch.argsort(order)[labels]
    shots = int(torch.bincount(labels).min())
    number = number if shots > 1 else 1
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(number, len(labels))
    for label in labels.unique():
        members = torch.nonzero(labels == label).squeeze(1)
        kept = max(1, round(0.8 * len(members))) if shots > 1 else 1
        for row in weight:
            row[members[torch.randperm(len(members), generator=generator)[:kept]]] = 1
    x = space.project(features.to(space.mean.device)).cpu().expand(number, -1, -1)
    problems = x, slot.expand(number, -1), weight, torch.full((number,), len(order)), len(order)
    if "weight" in space.layout.shapes:
        state = fit_linear(*problems, l2=l2)
    else:
        hidden = space.layout.shapes["0.bias"][0]
        state = fit_mlp(*problems, hidden=hidden, l2=l2, generator=generator)
    state = fold_projection({n: t[:, 0].to(space.mean.device) for n, t in state.items()}, space.projection, space.mean)
    return space.to_vectors(state, torch.arange(len(order), device=space.mean.device))


def part_names(layout: WholeLayout, where: str = "weights") -> list[str]:
    """The parts that can be compared alone: the whole, each tensor (in weight space), and, where the layout keeps the
    numbers of a class together, the row of each class (``row 1`` is the first in canonical order)."""
    tensors = list(layout.shapes) if where == "weights" else []
    rows = [f"row {i + 1}" for i in range(layout.tokens)] if layout.tokens == layout.num_classes else []
    return [WHOLE, *tensors, *rows]


def columns(layout: WholeLayout, part: str) -> np.ndarray:
    """Indices of a part's numbers in a vector.

    Raises:
        UserError: the layout has no such part.
    """
    if part not in (names := part_names(layout)):
        raise UserError(f"There is no part {part}: choose one of {', '.join(names)}.")
    every = np.arange(layout.size)
    if part == WHOLE:
        return every
    if part.startswith("row "):
        return every.reshape(layout.tokens, -1)[int(part[4:]) - 1]
    plain = WholeLayout(layout.shapes, layout.num_classes, layout.tokens)  # moves numbers without rescaling them
    return plain.unflatten(torch.from_numpy(every).double()[None])[part].long().flatten().numpy()


def matrix(
    heads: Population, space: WeightSpace, vae=None, where: str = "weights", part: str = WHOLE
) -> tuple[np.ndarray, np.ndarray]:
    """The heads as points.

    Args:
        where: ``"weights"`` (standardised), or ``"latent"``: means of ``vae``'s posterior, scaled as in sampling.
        part: one of `part_names`.
    Returns:
        (m, d) float32, and the numbers (m,) of the heads that have this part (a head of 5 classes has no row 6).
    Raises:
        UserError: the bundle has no VAE, or there is no such part.
    """
    layout, rows = space.layout, np.arange(len(heads))
    if part.startswith("row ") and part in part_names(layout):
        rows = np.flatnonzero(heads.counts >= int(part[4:]))
    if where == "weights":
        chosen = columns(layout, part)
        vectors = heads.vectors if len(rows) == len(heads) else heads.vectors[rows]
        return (vectors if part == WHOLE else vectors[:, chosen]), rows
    if vae is None:
        raise UserError("This bundle's generator has no VAE, so it has no latent space: choose weight space.")
    if part not in part_names(layout, where):
        raise UserError(f"In latent space there is no part {part}: choose one of {part_names(layout, where)}.")
    return _latents(heads, rows, layout, vae, part), rows


@torch.inference_mode()
def _latents(heads, rows, layout, vae, part) -> np.ndarray:
    tokens = vae.config.tokens
    found = []
    for first in range(0, len(rows), ENCODED_AT_ONCE):
        index = rows[first : first + ENCODED_AT_ONCE]
        latents = vae.encode(torch.from_numpy(heads.vectors[index]).to(vae.device)).mean * vae.config.latent_scale
        # (B, c, T·h, w) → (B, T, c·h·w): a token's numbers together
        latents = latents.cpu().unflatten(2, (tokens, -1)).movedim(2, 1).flatten(2)
        mask = layout.mask(torch.from_numpy(heads.counts[index]))
        latents = latents * mask.unflatten(1, (tokens, -1)).any(-1, keepdim=True)
        found.append(latents.flatten(1) if part == WHOLE else latents[:, int(part[4:]) - 1])
    return torch.cat(found).float().numpy()
