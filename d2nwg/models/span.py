"""Tasks by inner products alone: images in coordinates of the space that they span.

Whatever is made from these coordinates by products among them knows neither the axes along which an encoder writes
its features nor their number: rotating the feature space, or taking another encoder, changes nothing by construction.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Span:
    """B tasks of one shape. n images: first the labelled ones, then the unlabelled.

    Attributes:
        points: (B, n, r) images of unit length, centred, their lengths brought half-way to one another, scaled to a
            mean square length of 1; r = min(n, d). Their columns are orthogonal: principal axes, the longest first.
        targets: (B, n, C) one-hot; a row of zeros marks an unlabelled image.
        basis: (B, r, d), orthonormal rows.
        centre: (B, 1, d), mean of the unit-length images.
        scale: (B, 1, 1).
        length: (B, 1, 1), mean length of the images' features.
        key: (B, n) a number an image that no rotation and no order of the images changes.
    """

    points: Tensor
    targets: Tensor
    basis: Tensor
    centre: Tensor
    scale: Tensor
    length: Tensor
    key: Tensor

    @classmethod
    def of(cls, features: Tensor, targets: Tensor) -> "Span":
        """Features (B, n, d) as the encoder gives them, targets (B, n, C)."""
        lengths = features.norm(dim=-1, keepdim=True)
        unit = features / lengths.clamp_min(1e-12)
        centre = unit.mean(1, keepdim=True)
        centred = unit - centre
        # An image far from the others would outweigh them, most of all where it is its class's only one.
        away = centred.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        centred = centred * (away.mean(1, keepdim=True) / away).sqrt()
        scale = centred.square().sum(-1).mean(1).clamp_min(1e-12).rsqrt()[:, None, None]
        points, basis = _principal_axes(centred * scale)
        length = lengths.mean(1, keepdim=True).clamp_min(1e-12)
        key = (lengths / length + away).squeeze(-1)
        return cls(points, targets, basis, centre, scale, length, key)

    def placed(self, features: Tensor) -> Tensor:
        """Any images' features (B, m, d), centred and scaled like the points, which lie in the same space. All are
        divided by one length, so heads stay linear."""
        return (features / self.length - self.centre) * self.scale

    def coordinates(self, features: Tensor) -> Tensor:
        """Any images' features (B, m, d) → (B, m, r)."""
        return self.placed(features) @ self.basis.mT

    def to_features(
        self, weight: Tensor, bias: Tensor, beyond: Tensor | None = None, onto: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Heads on coordinates, (S, C, r) and (S, C), → on the features that the span was made of, (S, C, d) and
        (S, C): the same logits exactly. For one task (B = 1).

        Args:
            beyond: (1, C, d) what they have outside of the span.
            onto: (d, d) the linear map that made these features from others: heads are then for those. Thousands of
                classes make it dear afterwards, and cheap here.
        """
        rows, factor = self.basis * self.scale, self.scale / self.length
        bias = bias - (weight @ (rows @ self.centre.mT)).squeeze(-1)
        basis = self.basis * factor
        weight = weight @ (basis if onto is None else basis @ onto.mT)
        if beyond is not None:
            bias = bias - (beyond * self.scale @ self.centre.mT).squeeze(-1)
            beyond = beyond * factor
            weight += beyond if onto is None else beyond @ onto.mT
        return weight, bias

    @property
    def labelled(self) -> Tensor:
        """(B, n): 1 for a labelled image, 0 for another."""
        return self.targets.sum(-1)

    @property
    def spectrum(self) -> Tensor:
        """(B, r) eigenvalues of the points' scatter matrix, which is diagonal."""
        return self.points.square().sum(1)


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, n, d) = points (B, n, r) @ basis (B, r, d), by the smaller of the two matrices of inner products."""
    images, width = x.shape[-2:]
    gram = (x @ x.mT if images <= width else x.mT @ x).double()
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)
    kept = values > 1e-7 * values[..., :1]  # axes that only rounding spans
    if images > width:
        basis = (vectors * kept.unsqueeze(-2)).mT.to(x.dtype)
        return x @ basis.mT, basis
    lengths = values.sqrt() * kept
    inverse = torch.where(kept, 1 / values.clamp_min(1e-30).sqrt(), 0.0)
    points = (vectors * lengths.unsqueeze(-2)).to(x.dtype)
    return points, (vectors * inverse.unsqueeze(-2)).mT.to(x.dtype) @ x
