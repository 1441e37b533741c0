"""State dicts ↔ vectors: the `whole` layout (paper section 3.2, model-wise vectorisation).

Each tensor is flattened, weight then bias, in module order, and all are concatenated. A head for fewer classes than
the layout's largest is zero-padded, and `mask` tells the numbers that count. Standardisation is per tensor: one
global scale would lose the small ones.

With ``tokens = T`` the same numbers are ordered as T equal pieces, piece i holding the i-th share of each tensor;
with T = number of classes, a linear head's piece is one class's row and its bias. T = 1 is the plain order.
"""

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from d2nwg.weights.networks import CLASS_TENSORS, State


@dataclass
class WholeLayout:
    """How one model's tensors become one vector.

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
        """Heads (B, …), padded to `shapes` → standardised vectors (B, N); padding becomes zero only under `mask`."""
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
        """As JSON; `WholeLayout(**config)` reads it back. The shapes become a list: their order is the layout's, and
        writers of JSON may sort the keys of an object."""
        return {**asdict(self), "shapes": list(self.shapes.items())}
