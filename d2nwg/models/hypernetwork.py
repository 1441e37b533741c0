"""A network that makes networks: from a few images a class to a trunk and a head row for each class.

The images of a class become its slot; slots see each other through their mean alone, so that permuting the classes
permutes the head rows and nothing else, and the number of classes is free. The trunk is made from the mean of the
slots: a deterministic one, trained by the loss of the task through the network that it makes, and samples, drawn by
diffusion of the trunk's principal coordinates around it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from d2nwg.utils.fields import Depth, Width


@dataclass
class Slots:
    """B encoded tasks: ``classes`` (B, C, w) and ``pooled`` (B, w)."""

    classes: Tensor
    pooled: Tensor


def _mlp(given: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, width), nn.GELU(), nn.Linear(width, out))


class HyperNetwork(ModelMixin, ConfigMixin):
    """Support images' features → trunks and head rows; and the denoiser of a trunk's principal coordinates
    (``prediction_type="sample"``), whose output is the deterministic prediction plus a correction.

    Args:
        features: numbers that describe an image (`SmallNetworkSpace.num_described`).
        trunk: N, numbers of a trunk.
        row: numbers of a head row.
        coordinates: k, principal coordinates of a trunk.
        width: w, of a slot.
        depth: layers across the classes.
        head: which of the two heads is the default.
        average_penalty: of a closed-form head on the zoo's average trunk, the baseline; chosen on training tasks.
    """

    @register_to_config
    def __init__(
        self,
        features: Width,
        trunk: Width,
        row: Width,
        coordinates: Width,
        width: Width = 128,
        depth: Depth = 2,
        head: Literal["closed-form", "generated"] = "closed-form",
        average_penalty: float = 0.03,
    ):
        super().__init__()
        self.image = _mlp(features, width, width)
        self.across = nn.ModuleList(_mlp(3 * width, width, width) for _ in range(depth))
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())
        self.guess, self.offset = nn.Linear(width, coordinates), nn.Linear(width, trunk)
        self.rows = _mlp(2 * width, width, row)
        self.time = Timesteps(32, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.of_time = TimestepEmbedding(32, width)
        self.of_noisy = nn.Linear(coordinates, width)
        self.denoise = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, coordinates))
        # The closed-form head on a trunk's features: logarithms of its penalty and of the scale of its logits.
        self.penalty, self.scale = nn.Parameter(torch.tensor(-2.0)), nn.Parameter(torch.tensor(1.5))
        for last in (self.guess, self.offset, self.rows[-1], self.denoise[-1]):  # untrained: the zoo's average
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def encode(self, features: Tensor, used: Tensor | None = None) -> Slots:
        """Features (B, C, n, f) of n support images a class → slots; ``used`` (B, C, n) bool says which are there."""
        each = self.image(features)
        used = torch.ones_like(each[..., 0]) if used is None else used
        slots = (each * used.unsqueeze(-1)).sum(2) / used.sum(2).unsqueeze(-1)
        for norm, layer in zip(self.before, self.across, strict=True):
            own = norm(slots)
            around = torch.cat([own.mean(1, keepdim=True), own.square().mean(1, keepdim=True)], -1)
            slots = slots + layer(torch.cat([own, around.expand(-1, own.shape[1], -1)], -1))
        slots = self.norm(slots)
        return Slots(slots, self.pool(torch.cat([slots.mean(1), slots.square().mean(1)], -1)))

    def forward(self, latents: Tensor, timestep: Tensor | int, slots: Slots) -> Tensor:
        """Noisy coordinates (S, k), step (S,) or one number → clean ones. S samples of one task, or one for each of S
        tasks."""
        timestep = torch.as_tensor(timestep, device=latents.device).reshape(-1)
        time = self.of_time(self.time(timestep).to(latents.dtype))
        return self.guess(slots.pooled) + self.denoise(self.of_noisy(latents) + slots.pooled + time)

    def trunks(self, slots: Slots, basis: Tensor, latents: Tensor | None = None) -> Tensor:
        """Standardised trunks (S, N): of these coordinates (S, k), or the deterministic one of each task.

        Args:
            basis: (k, N), the space's.
        """
        coordinates = self.guess(slots.pooled) if latents is None else latents
        return coordinates @ basis + self.offset(slots.pooled)

    def head_rows(self, slots: Slots, space) -> Tensor:
        """Head rows (B, C, h + 1) of a `SmallNetworkSpace`'s networks."""
        pooled = slots.pooled.unsqueeze(1).expand(-1, slots.classes.shape[1], -1)
        return space.row_centre + space.row_unit * self.rows(torch.cat([slots.classes, pooled], -1))

    def closed_form_rows(self, features: Tensor, targets: Tensor) -> Tensor:
        """The closed-form head on a trunk's features, with this model's penalty and scale: see `ridge_rows`."""
        return ridge_rows(features, targets, self.penalty.exp(), self.scale.exp())


def ridge_rows(features: Tensor, targets: Tensor, penalty: Tensor, scale: Tensor) -> Tensor:
    """Ridge regression of the classes on features.

    Args:
        features: (B, n, h).
        targets: (B or 1, n, C), one-hot.
        penalty: as a multiple of the features' mean variance.
        scale: factor of the logits.
    Returns:
        (B, C, h + 1), weight and bias.
    """
    with torch.autocast(features.device.type, enabled=False):  # there are no solvers in half precision
        features = features.float()
        mean = features.mean(1, keepdim=True)
        centred, aim = features - mean, targets - targets.mean(1, keepdim=True)
        gram = centred.mT @ centred
        size = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-8)[:, None, None]
        matrix = gram / size + (penalty + 1e-4) * torch.eye(gram.shape[-1], device=gram.device)
        weight = torch.linalg.solve(matrix, centred.mT @ aim / size).mT * scale  # (B, C, h)
        bias = -(weight @ mean.mT).squeeze(-1)
    return torch.cat([weight, bias.unsqueeze(-1)], -1)
