"""What is known of each chunk index without learning: mean and covariance of its latents over the checkpoints."""

import torch
from torch import Tensor


class IndexGaussian:
    """A Gaussian over latents for each of N chunk indices.

    Latents are D numbers. Along the directions in which an index's checkpoints differ its variance is theirs and the
    posterior's, and the posterior's alone everywhere else. The mean is the embedding of an index: at full noise it is
    all that a denoiser conditioned on the index can predict, so it is computed and not learnt. Whitened by its
    Gaussian, what is sampled of an index is a unit Gaussian as far as mean and covariance go, whose velocity is zero.

    Args:
        latents: (N, C, D) posterior means of the C checkpoints' chunks.
        variance: the posterior's mean variance.

    Attributes:
        mean: (N, D).
        width: the posterior's standard deviation.
        axes: (N, C - 1, D) unit vectors along which the checkpoints differ.
        stretch: (N, C - 1) standard deviation along each, in units of `width`.
    """

    def __init__(self, latents: Tensor, variance: float):
        self.mean, self.width = latents.mean(1), max(variance**0.5, 1e-6)
        apart = (latents - self.mean[:, None]) / max(1, latents.shape[1] - 1) ** 0.5
        # C points lie in at most C - 1 directions about their mean: those of a C x C matrix. In fewer, the rest of what
        # it gives are rounding errors, and no directions.
        values, vectors = torch.linalg.eigh((apart @ apart.mT).cpu().double())  # not every device has float64
        known = values[:, 1:] > 1e-5 * values[:, -1:].clamp_min(1e-12)
        axes = (vectors[..., 1:] * known[:, None]).mT.to(apart) @ apart
        self.axes = axes / axes.norm(dim=2, keepdim=True).clamp_min(1e-12)
        self.stretch = (1 + values[:, 1:] * known / self.width**2).sqrt().to(apart)

    def whiten(self, latents: Tensor, numbers: Tensor) -> Tensor:
        """(B, D) latents of indices (B,) → (B, D), of unit covariance about zero."""
        return self._scaled((latents - self.mean[numbers]) / self.width, numbers, 1 / self.stretch[numbers])

    def colour(self, white: Tensor, numbers: Tensor) -> Tensor:
        """The inverse of `whiten`."""
        return self.mean[numbers] + self.width * self._scaled(white, numbers, self.stretch[numbers])

    def _scaled(self, values: Tensor, numbers: Tensor, factors: Tensor) -> Tensor:
        """(B, D) vectors, multiplied along each axis of their index by its factor (B, C - 1)."""
        axes = self.axes[numbers]
        along = torch.einsum("bkd,bd->bk", axes, values) * (factors - 1)
        return values + torch.einsum("bk,bkd->bd", along, axes)
