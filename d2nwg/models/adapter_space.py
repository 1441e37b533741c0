"""What bundles of adapters know of the weights that they generate: coordinates ↔ matrices, and the zoo's tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

from d2nwg.utils.errors import UserError
from d2nwg.weights.networks import State

HEAD = ("head.weight", "head.bias")
SHARPNESS = 20.0  # of what recognises a task: the likeliest value for descriptions of the zoo left out in turn
MOST_BYTES = 8 * 2**20  # of a tensor of the basis: a file of a bundle should hold less than 10 MB


@dataclass(frozen=True)
class KnownTask:
    """A task of the zoo, as a bundle remembers it.

    Attributes:
        name: of it.
        descriptions: that the generator was trained with.
        classes: names of the head's rows; none where it says a value.
        metric: accuracy, matthews or pearson.
        pairs: whether it is about pairs of texts.
        head_alone: by the metric, of the best head on the encoder without an adapter; None where it is not known.
        trained: likewise, the mean of the zoo's last adapters of the task with their heads.
    """

    name: str
    descriptions: Sequence[str]
    classes: Sequence[str]
    metric: str
    pairs: bool
    head_alone: float | None = None
    trained: float | None = None

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

    Tensors: ``mean`` (N,), ``units`` (tensors + 2,), ``basis`` (k, N), in parts of some rows, in half precision, with
    orthonormal rows within each piece, ``scales`` (T, k), ``texts`` (descriptions, width), ``zoo_vectors`` (Z, T k),
    ``zoo_tasks`` (Z,).
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

        def kept(*size: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*size, dtype=dtype), requires_grad=False)

        self.mean, self.units = kept(self.size), kept(len(self.shapes))
        most = max(1, MOST_BYTES // (2 * self.size))
        counts = [min(most, coordinates - first) for first in range(0, coordinates, most)]
        self.basis = nn.ParameterList(kept(count, self.size, dtype=torch.float16) for count in counts)
        self.scales = kept(parts, coordinates)
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
        if not (away.isfinite().all() and self.units.isfinite().all()):
            raise UserError("Adapters of this zoo hold numbers too large to learn from: build it again.")
        k = self.config.coordinates
        basis = torch.zeros(k, self.size)
        for number, piece in enumerate(self.pieces):
            # as many directions as the members span at most; the others stay zero
            _, sizes, directions = torch.linalg.svd(away[:, piece], full_matrices=False)
            most = min(k, int((sizes > 1e-5 * sizes[0].clamp_min(1e-12)).sum()))
            basis[:most, piece] = directions[:most]
            self.scales[number, :most] = (sizes[:most] / len(flat) ** 0.5).clamp_min(1e-8)
        for part, own in zip(self.basis, basis.split([len(part) for part in self.basis]), strict=True):
            part.copy_(own)
        return self.to_vectors(pairs)

    @torch.no_grad()
    def to_vectors(self, states: Iterable[tuple[State, int]]) -> Tensor:
        """Adapters and the numbers of their tasks → coordinates (B, T k)."""
        rows, basis = [], torch.cat(list(self.basis)).cpu()
        for state, task in states:
            away = (self.flat(state) - self.mean.cpu()) * self.mask(torch.tensor([task]))[0]
            away /= self._spread(self.units.cpu())
            found = torch.stack([basis[:, piece].float() @ away[piece] for piece in self.pieces])
            scales = self.scales.cpu()
            rows.append((found / scales.clamp_min(1e-8) * (scales > 0)).flatten())
        return torch.stack(rows)

    @torch.no_grad()
    def to_states(self, vectors: Tensor, rows: int) -> State:
        """Coordinates (B, T k) → adapters with heads of so many rows, (B, …) a tensor."""
        found = vectors.reshape(len(vectors), *self.scales.shape) * self.scales
        flat, basis = torch.zeros(len(vectors), self.size, device=vectors.device), torch.cat(list(self.basis))
        for number, piece in enumerate(self.pieces):
            flat[:, piece] = found[:, number] @ basis[:, piece].float()
        flat = flat * self._spread(self.units) + self.mean
        state = {
            name: part.reshape(len(vectors), *size)
            for (name, size), part in zip(self.shapes.items(), flat.split(self.lengths, 1), strict=True)
        }
        return {name: part[:, :rows] if name in HEAD else part for name, part in state.items()}

    def apart(self) -> Tensor:
        """(Z,) distances of the zoo's coordinates to the nearest others of the same task; inf for a task's only one."""
        zoo, tasks = self.zoo_vectors, self.zoo_tasks
        between = torch.cdist(zoo, zoo).masked_fill(tasks[:, None] != tasks[None], torch.inf)
        return between.fill_diagonal_(torch.inf).amin(1) if len(zoo) else torch.zeros(0)

    def unit(self) -> Tensor:
        """The median of what is finite of `apart`: the unit of distances to the zoo; NaN where no task has two."""
        apart = self.apart()
        apart = apart[apart.isfinite()]
        return apart.median().clamp_min(1e-8) if len(apart) else torch.tensor(torch.nan)

    def nearest(self, text: Tensor, most: int = 3, likely: Tensor | None = None) -> list[tuple[int, float]]:
        """The tasks whose descriptions are nearest to a text's vector (width,): their numbers and cosines; in the
        order of `likely` (`recognise`) where that is given."""
        cosines = self.texts.cpu() @ text.cpu()
        best = torch.full((len(self.tasks),), -2.0).scatter_reduce(0, self.description_tasks, cosines, "amax")
        order = best if likely is None else self.of_tasks(likely)
        return [(int(n), float(best[n])) for n in order.argsort(descending=True, stable=True)[:most]]

    def of_tasks(self, likely: Tensor) -> Tensor:
        """Probabilities (descriptions,) of `recognise`, added up by task."""
        return torch.zeros(len(self.tasks)).index_add_(0, self.description_tasks, likely.cpu())

    def recognise(self, text: Tensor, agree: Tensor | None = None, labels: int = 0) -> Tensor:
        """How likely a task is one of those known, by its description and, where they are named, by its labels.

        Args:
            text: (width,) vector of the description.
            agree: (tasks,) cosines of the vector of its label names with those of the known tasks.
            labels: how many there are: where known tasks have as many, it is one of these.
        Returns:
            (descriptions,) probabilities of the known descriptions, which add up to 1.
        """
        scores = self.texts.cpu() @ text.cpu()
        if agree is not None:
            scores = scores + agree.cpu()[self.description_tasks]
            fits = torch.tensor([task.rows == labels for task in self.tasks])[self.description_tasks]
            scores = scores.masked_fill(~fits, -torch.inf) if fits.any() else scores
        return (SHARPNESS * scores).softmax(0)

    def _spread(self, units: Tensor) -> Tensor:
        return torch.cat([unit.expand(length) for unit, length in zip(units, self.lengths, strict=True)])


def layers_of(names: Sequence[str]) -> list[list[str]]:
    """Names of an adapter's matrices, those of one adapted layer (A and B) together."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.split(".lora_")[0], []).append(name)
    return list(layers.values())
