"""State dicts ↔ vectors or chunks.

`WholeLayout` (paper section 3.2, model-wise vectorisation): each tensor is flattened, weight then bias, in module
order, and all are concatenated. A head for fewer classes than the layout's largest is zero-padded; `mask` is False for
the padding. With ``tokens = T`` the same numbers are ordered as T equal pieces, piece i holding the i-th share of each
tensor; with T = number of classes, a piece of a linear head is one class's row and its bias.

`ChunkedLayout` (paper section 3.2, layer-wise vectorisation): each layer is flattened by itself, weight then bias,
zero-padded to a multiple of the chunk length and cut. Chunks of networks of different shapes have the same length, so
that one generator, conditioned on the layer and the position of each chunk, can learn them all.

Both standardise per tensor: the scales of a layer's weight, its bias and the running statistics of a BatchNorm differ.
Integer tensors (``num_batches_tracked``) are in no layout. The running statistics of a BatchNorm are either among the
numbers (the variance as its logarithm, so that every generated value is a variance), or left out and measured again on
data before the network is used (`recalibrate`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from d2nwg.utils.errors import UserError
from d2nwg.weights.networks import CLASS_TENSORS, State


@dataclass
class WholeLayout:
    """The layout of a head's tensors in one vector.

    Attributes:
        shapes: tensor name → shape, in module order, for the largest number of classes.
        num_classes: that number, C_max.
        tokens: number of equal pieces the vector is ordered in.
        mean, std: per tensor, measured on the zoo (`fit`); padding does not count.
    """

    shapes: dict[str, tuple[int, ...]]
    num_classes: int
    tokens: int = 1
    mean: dict[str, float] = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.shapes = {name: tuple(shape) for name, shape in dict(self.shapes).items()}
        for name in self.shapes:
            self.mean.setdefault(name, 0.0)
            self.std.setdefault(name, 1.0)
            if self._numel(name) % self.tokens:
                raise ValueError(f"{name} {self.shapes[name]} does not divide into {self.tokens} tokens.")

    def _numel(self, name: str) -> int:
        return int(torch.Size(self.shapes[name]).numel())

    @property
    def size(self) -> int:
        """Length of a vector."""
        return sum(map(self._numel, self.shapes))

    def fit(self, state: State, counts: Tensor) -> None:
        """Measure mean and standard deviation of each tensor over a batch of padded heads.

        Args:
            state: tensors with one leading batch axis (B, …), zero-padded to `shapes`.
            counts: (B,) number of classes each head has.
        """
        masks = self._tensor_masks(counts)
        for name, tensor in state.items():
            values = tensor[masks[name]].double()
            self.mean[name], self.std[name] = float(values.mean()), float(values.std().clamp_min(1e-8))

    def flatten(self, state: State) -> Tensor:
        """Heads (B, …), padded to `shapes` → standardised vectors (B, N). Padding is not zero in them; see `mask`."""
        pieces = [
            ((state[name] - self.mean[name]) / self.std[name]).reshape(len(state[name]), self.tokens, -1)
            for name in self.shapes
        ]
        return torch.cat(pieces, dim=-1).flatten(1)

    def unflatten(self, vectors: Tensor) -> State:
        """Vectors (B, N) → heads (B, …), the inverse of `flatten`."""
        widths = [self._numel(name) // self.tokens for name in self.shapes]
        pieces = vectors.reshape(len(vectors), self.tokens, -1).split(widths, dim=-1)
        return {
            name: piece.reshape(-1, *self.shapes[name]) * self.std[name] + self.mean[name]
            for name, piece in zip(self.shapes, pieces, strict=True)
        }

    def mask(self, counts: Tensor) -> Tensor:
        """(B,) numbers of classes → (B, N) bool, True where a number belongs to one of those classes."""
        masks = self._tensor_masks(counts)
        return torch.cat([masks[n].reshape(len(counts), self.tokens, -1) for n in self.shapes], dim=-1).flatten(1)

    def _tensor_masks(self, counts: Tensor) -> dict[str, Tensor]:
        used = torch.arange(self.num_classes, device=counts.device) < counts.unsqueeze(1)  # (B, C_max)
        masks = {}
        for name, shape in self.shapes.items():
            if name in CLASS_TENSORS:
                masks[name] = used.reshape(*used.shape, *[1] * (len(shape) - 1)).expand(-1, *shape)
            else:
                masks[name] = torch.ones(1, *shape, dtype=torch.bool, device=counts.device).expand(len(counts), *shape)
        return masks

    def to_config(self) -> dict:
        """For JSON; `WholeLayout(**config)` is the inverse. The shapes become a list: their order is the layout's, and
        writers of JSON may sort the keys of an object."""
        return {**asdict(self), "shapes": list(self.shapes.items())}


STATISTICS = ("running_mean", "running_var")
BATCHNORM = ("travel", "recalibrate")
_TINY = 1e-12  # keeps the logarithm of a variance of zero finite


def layer_of(tensor: str) -> str:
    """``"layer1.conv.weight"`` → ``"layer1.conv"``; a parameter of the model itself is a layer of its own."""
    return tensor.rpartition(".")[0] or tensor


@dataclass
class ChunkedLayout:
    """The layout of a network's tensors in chunks of one length.

    Attributes:
        shapes: tensor name → shape of every tensor in the chunks, in module order.
        chunk: numbers a chunk, L.
        batchnorm: ``"travel"`` (running statistics are among the numbers) or ``"recalibrate"`` (they are not).
        mean, std: per tensor, measured on the zoo (`fit`); a variance's are of its logarithm.
    """

    shapes: dict[str, tuple[int, ...]]
    chunk: int = 1024
    batchnorm: str = "travel"
    mean: dict[str, float] = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.batchnorm not in BATCHNORM:
            raise UserError(f"BatchNorm {self.batchnorm!r} is not known: choose {' or '.join(BATCHNORM)}.")
        if self.chunk < 1:
            raise UserError("A chunk must hold at least one number.")
        self.shapes = {name: tuple(shape) for name, shape in dict(self.shapes).items()}
        for name in self.shapes:
            self.mean.setdefault(name, 0.0)
            self.std.setdefault(name, 1.0)

    @classmethod
    def of(cls, state: State, chunk: int = 1024, batchnorm: str = "travel") -> "ChunkedLayout":
        """The layout of one network's state dict (no batch axis), before `fit`."""
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in state.items()
            if tensor.is_floating_point()
            and tensor.numel()
            and not (batchnorm == "recalibrate" and name.rpartition(".")[2] in STATISTICS)
        }
        return cls(shapes, chunk, batchnorm)

    @property
    def layers(self) -> dict[str, list[str]]:
        """Layer name → its tensors, in module order."""
        layers: dict[str, list[str]] = {}
        for name in self.shapes:
            layers.setdefault(layer_of(name), []).append(name)
        return layers

    def numel(self, layer: str) -> int:
        """Numbers of a layer, without padding."""
        return sum(torch.Size(self.shapes[name]).numel() for name in self.layers[layer])

    @property
    def places(self) -> list[tuple[int, int]]:
        """(number of its layer, position in the layer) of each chunk: what its generation is conditioned on."""
        return [(i, k) for i, name in enumerate(self.layers) for k in range(-(-self.numel(name) // self.chunk))]

    @property
    def spans(self) -> dict[str, slice]:
        """The slice of each tensor's numbers in the flattened chunks."""
        spans, first = {}, 0
        for layer, names in self.layers.items():
            start = first
            for name in names:
                spans[name] = slice(start, start + torch.Size(self.shapes[name]).numel())
                start = spans[name].stop
            first += -(-self.numel(layer) // self.chunk) * self.chunk
        return spans

    def mask(self) -> Tensor:
        """(chunks, L) bool, False where a layer's last chunk is padded."""
        rows = []
        for name in self.layers:
            used = torch.zeros(-(-self.numel(name) // self.chunk) * self.chunk, dtype=torch.bool)
            used[: self.numel(name)] = True
            rows.append(used.reshape(-1, self.chunk))
        return torch.cat(rows)

    def fit(self, states: Iterable[State]) -> None:
        """Measure each tensor's mean and standard deviation over networks (no batch axis), read one at a time."""
        sums: dict[str, Tensor] = {name: torch.zeros(3, dtype=torch.float64) for name in self.shapes}
        for state in states:
            for name in self.shapes:
                values = _plain(name, state[name]).double()
                sums[name] += torch.tensor([values.numel(), float(values.sum()), float(values.square().sum())])
        for name, (count, total, squares) in sums.items():
            mean = float(total / count)
            self.mean[name] = mean
            self.std[name] = max(float(squares / count) - mean**2, 0.0) ** 0.5 or 1.0  # a constant is only shifted

    def flatten(self, state: State) -> Tensor:
        """Networks (B, …) → standardised chunks (B, chunks, L), padding zero."""
        rows = []
        for names in self.layers.values():
            parts = [((_plain(n, state[n]) - self.mean[n]) / self.std[n]).reshape(len(state[n]), -1) for n in names]
            row = torch.cat(parts, 1)
            row = nn.functional.pad(row, (0, -row.shape[1] % self.chunk))
            rows.append(row.reshape(len(row), -1, self.chunk))
        return torch.cat(rows, 1)

    def unflatten(self, chunks: Tensor) -> State:
        """Chunks (B, chunks, L) → float32 networks (B, …), the inverse of `flatten`; padding is dropped."""
        state, first = {}, 0
        for layer, names in self.layers.items():
            count = -(-self.numel(layer) // self.chunk)
            row = chunks[:, first : first + count].flatten(1)
            first, start = first + count, 0
            for name in names:
                end = start + torch.Size(self.shapes[name]).numel()
                value = row[:, start:end] * self.std[name] + self.mean[name]
                value = value.reshape(-1, *self.shapes[name])
                state[name] = (value.exp() - _TINY).clamp_min(0) if name.endswith("running_var") else value
                start = end
        return state

    def to_config(self) -> dict:
        """For JSON; `ChunkedLayout(**config)` is the inverse."""
        return {**asdict(self), "shapes": list(self.shapes.items())}


def _plain(name: str, tensor: Tensor) -> Tensor:
    """The numbers that are standardised: float32, a variance as its logarithm."""
    tensor = tensor.float()
    return (tensor.clamp_min(0) + _TINY).log() if name.endswith("running_var") else tensor


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Measure the running statistics of a network's BatchNorm layers on data, for ``batchnorm="recalibrate"``.

    Args:
        network: changed in place; its other modules stay in evaluation mode.
        batches: inputs of the network, several examples each; the statistics are the mean over batches.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta: Mapping[nn.Module, float | None] = {norm: norm.momentum for norm in norms}
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over batches, not an exponential one
        norm.train()
    for batch in batches:
        network(batch)
    for norm in norms:
        norm.momentum = momenta[norm]
    return network.eval()
