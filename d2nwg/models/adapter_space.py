"""What bundles of adapters know of the weights that they generate: coordinates ↔ matrices, and the zoo's tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

from d2nwg.weights.networks import State

HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True)
class KnownTask:
    """A task of the zoo, as a bundle remembers it.

    Attributes:
        name: of it.
        descriptions: that the generator was trained with.
        classes: names of the head's rows; none where it says a value.
        metric: accuracy, matthews or pearson.
        pairs: whether it is about pairs of texts.
    """

    name: str
    descriptions: Sequence[str]
    classes: Sequence[str]
    metric: str
    pairs: bool

    @property
    def rows(self) -> int:
        """C, rows of its head: one where it says a value."""
        return len(self.classes) or 1


class AdapterSpace(ModelMixin, ConfigMixin):
    """Adapters and heads of several tasks ↔ coordinates of one length.

    An adapter with its head is one vector of N numbers: the matrices in module order, then the head's rows and their
    biases, padded to the most rows of a task. Each number counts as its distance from the zoo's mean, in units of its
    tensor's standard deviation. The vectors of a zoo span few dimensions, so that they are kept as k principal
    coordinates: of the whole vector (``whole``), or of each layer and of the head apart (``layers``).

    Args:
        shape: a `d2nwg.encoders.lora.LoraShape` as JSON.
        encoder_key: differs for other weights of the encoder.
        tensors: [name, shape] of the adapter's matrices, in module order.
        num_features: d, width of the encoder's vectors.
        tasks: a `KnownTask` each, as JSON.
        parts: T pieces of the vector with coordinates of their own; 1, or one a layer and one for the head.
        coordinates: k of each piece.
        text_size: (descriptions, width) of the vectors of all tasks' descriptions.
        zoo_size: Z, members whose coordinates the bundle keeps.

    Tensors: ``mean`` (N,), ``units`` (tensors + 2,), ``basis`` (k, N) with orthonormal rows within each piece,
    ``scales`` (T, k), ``texts`` (descriptions, width), ``zoo_vectors`` (Z, T k), ``zoo_tasks`` (Z,).
    """

    @register_to_config
    def __init__(
        self,
        shape: dict,
        encoder_key: str,
        tensors: list,
        num_features: int,
        tasks: list[dict],
        parts: int = 1,
        coordinates: int = 64,
        text_size: tuple[int, int] = (0, 0),
        zoo_size: int = 0,
    ):
        super().__init__()
        self.tasks = [KnownTask(**task) for task in tasks]
        rows = max(task.rows for task in self.tasks)
        self.shapes = {name: tuple(size) for name, size in tensors}
        self.shapes |= {HEAD[0]: (rows, num_features), HEAD[1]: (rows,)}
        self.lengths = [torch.Size(size).numel() for size in self.shapes.values()]
        self.size = sum(self.lengths)
        self.pieces = self._pieces(parts)

        def kept(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*size), requires_grad=False)

        self.mean, self.units = kept(self.size), kept(len(self.shapes))
        self.basis, self.scales = kept(coordinates, self.size), kept(parts, coordinates)
        self.texts = kept(*text_size)
        self.zoo_vectors, self.zoo_tasks = kept(zoo_size, parts * coordinates), kept(zoo_size)

    def _pieces(self, parts: int) -> list[slice]:
        """Of the vector: all of it, or the matrices of each layer, and the head."""
        ends = [0, *accumulate(self.lengths)]
        if parts == 1:
            return [slice(0, self.size)]
        layers = layers_of(list(self.shapes)[:-2])
        if len(layers) + 1 != parts:
            raise ValueError(f"{parts} pieces for {len(layers)} layers and a head")
        names = list(self.shapes)
        firsts = [ends[names.index(layer[0])] for layer in layers] + [ends[-3]]
        return [slice(first, last) for first, last in zip(firsts, [*firsts[1:], self.size], strict=True)]

    @property
    def length(self) -> int:
        """T k, numbers of an adapter."""
        return self.scales.numel()

    @property
    def description_tasks(self) -> Tensor:
        """The number of the task of each row of ``texts``."""
        return torch.tensor([n for n, task in enumerate(self.tasks) for _ in task.descriptions])

    def mask(self, tasks: Tensor) -> Tensor:
        """(B,) task numbers → (B, N) bool, the numbers that count: not the rows that pad a head."""
        rows, width = self.shapes[HEAD[0]]
        masks = torch.ones(len(tasks), self.size, dtype=torch.bool)
        used = torch.arange(rows) < torch.tensor([self.tasks[int(n)].rows for n in tasks])[:, None]
        masks[:, -rows * (width + 1) :] = torch.cat([used.repeat_interleave(width, 1), used], 1)
        return masks

    def flat(self, state: State) -> Tensor:
        """One adapter with its head → (N,), as it is."""
        pieces = []
        for name, size in self.shapes.items():
            padded = torch.zeros(size)
            padded[tuple(slice(n) for n in state[name].shape)] = state[name].float()
            pieces.append(padded.flatten())
        return torch.cat(pieces)

    @torch.no_grad()
    def fit(self, states: Iterable[tuple[State, int]]) -> Tensor:
        """Measure mean, units and basis on adapters and the numbers of their tasks; returns their coordinates (B, T k)
        in units of their standard deviations."""
        pairs = list(states)
        flat, tasks = torch.stack([self.flat(state) for state, _ in pairs]), torch.tensor([task for _, task in pairs])
        used = self.mask(tasks)
        count = used.sum(0).clamp_min(1)
        self.mean.copy_((flat * used).sum(0) / count)
        away = (flat - self.mean) * used
        for place, (piece, counted) in enumerate(
            zip(away.split(self.lengths, 1), used.split(self.lengths, 1), strict=True)
        ):
            self.units[place] = (piece.square().sum() / counted.sum().clamp_min(1)).sqrt().clamp_min(1e-8)
        away /= self._spread(self.units)
        k = self.basis.shape[0]
        for number, piece in enumerate(self.pieces):
            # as many directions as the members span at most; the others stay zero
            _, sizes, directions = torch.linalg.svd(away[:, piece], full_matrices=False)
            most = min(k, int((sizes > 1e-5 * sizes[0].clamp_min(1e-12)).sum()))
            self.basis[:most, piece] = directions[:most]
            self.scales[number, :most] = (sizes[:most] / len(flat) ** 0.5).clamp_min(1e-8)
        return self.to_vectors(pairs)

    @torch.no_grad()
    def to_vectors(self, states: Iterable[tuple[State, int]]) -> Tensor:
        """Adapters and the numbers of their tasks → coordinates (B, T k)."""
        rows = []
        for state, task in states:
            away = (self.flat(state) - self.mean.cpu()) * self.mask(torch.tensor([task]))[0]
            away /= self._spread(self.units.cpu())
            found = torch.stack([self.basis[:, piece].cpu().float() @ away[piece] for piece in self.pieces])
            scales = self.scales.cpu()
            rows.append((found / scales.clamp_min(1e-8) * (scales > 0)).flatten())
        return torch.stack(rows)

    @torch.no_grad()
    def to_states(self, vectors: Tensor, rows: int) -> State:
        """Coordinates (B, T k) → adapters with heads of so many rows, (B, …) a tensor."""
        found = vectors.reshape(len(vectors), *self.scales.shape) * self.scales
        flat = torch.zeros(len(vectors), self.size, device=vectors.device)
        for number, piece in enumerate(self.pieces):
            flat[:, piece] = found[:, number] @ self.basis[:, piece].float()
        flat = flat * self._spread(self.units) + self.mean
        state = {
            name: part.reshape(len(vectors), *size)
            for (name, size), part in zip(self.shapes.items(), flat.split(self.lengths, 1), strict=True)
        }
        return {name: part[:, :rows] if name in HEAD else part for name, part in state.items()}

    def nearest(self, text: Tensor, most: int = 3) -> list[tuple[int, float]]:
        """The tasks whose descriptions are nearest to a text's vector (width,): their numbers and cosines."""
        cosines = self.texts.cpu() @ text.cpu()
        best = torch.full((len(self.tasks),), -2.0).scatter_reduce(0, self.description_tasks, cosines, "amax")
        return [(int(n), float(best[n])) for n in best.argsort(descending=True)[:most]]

    def _spread(self, units: Tensor) -> Tensor:
        return torch.cat([unit.expand(length) for unit, length in zip(units, self.lengths, strict=True)])


def layers_of(names: Sequence[str]) -> list[list[str]]:
    """Names of an adapter's matrices, those of one adapted layer (A and B) together."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.split(".lora_")[0], []).append(name)
    return list(layers.values())
