"""From class names to directions in feature space, and the whitening of that space.

A pretrained classifier's rows have names, and so have the class means of the training sets. Kernel ridge regression
from a name's text vector to these rows gives a direction for any name, and how far the name is from all that are known.
"""

from dataclasses import dataclass, replace

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn
from torch.nn.functional import normalize

from d2nwg.utils.fields import Width
from d2nwg.weights.networks import State

SHARPNESS, PENALTY = 6.0, 0.3  # of the kernel exp(SHARPNESS · (cosine − 1)), and the ridge; chosen on training sets
SPREAD = 256  # rows that stand for the covariance of all: many draws cost as much as there are rows
WHITENING, FLOOR = -0.25, 0.3  # power of the within-class covariance, and what is added to it in mean eigenvalues


@dataclass
class Directions:
    """What the names of B tasks' classes say about their heads.

    Attributes:
        weight: (B, C, d) directions in feature space. They are shorter the less is known: of unit length where the name
            itself is known.
        variance: (B, C) predictive variance of the regression, from 0 (known) to 1 (nothing like it is).
        named: (B,) 1 where the task has names, 0 where it has none.
    """

    weight: Tensor
    variance: Tensor
    named: Tensor

    @classmethod
    def of_one(cls, weight: Tensor, variance: Tensor) -> "Directions":
        """Of one task, (C, d) and (C,)."""
        return cls(weight[None], variance[None], variance.new_ones(1))

    def to(self, like: Tensor) -> "Directions":
        """With the device and type of a tensor."""
        return replace(self, **{name: value.to(like) for name, value in vars(self).items()})


class NameMap:
    """Text vector → direction, by kernel ridge regression on N known classes.

    Args:
        texts: (N, e) of unit length.
        rows: (N, d) of unit length.
    """

    def __init__(self, texts: Tensor, rows: Tensor):
        self.texts, self.rows = texts.double(), rows.double()
        kernel = _kernel(self.texts, self.texts)
        kernel.diagonal().add_(PENALTY)
        self._factor = torch.linalg.cholesky(kernel)
        self._dual = torch.cholesky_solve(self.rows, self._factor)

    def __call__(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Text vectors (C, e) → directions (C, d) and predictive variances (C,), float32."""
        near = _kernel(texts.double(), self.texts)
        whitened = torch.linalg.solve_triangular(self._factor, near.mT, upper=False)
        variance = (1 - whitened.square().sum(0)).clamp(0, 1)
        return (near @ self._dual).float(), variance.float()

    def nearest(self, texts: Tensor) -> Tensor:
        """(C,) number of the known class whose name is nearest."""
        return (texts.double() @ self.texts.mT).argmax(-1)

    def draws(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        """(number, d) random directions with the covariance of the known rows: what the regression is unsure about."""
        some = self.rows[:: max(1, len(self.rows) // SPREAD)]
        spread = (some - some.mean(0)).float()
        return torch.randn(number, len(spread), generator=generator) @ spread / len(spread) ** 0.5


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (SHARPNESS * (a @ b.mT - 1)).exp()


class NameSpace(ModelMixin, ConfigMixin):
    """The whitened features of a bundle's encoder, and the classes of its training sets with their names.

    Args:
        encoder: name of the image encoder.
        text_encoder: name of the text encoder.
        num_features: d.
        text_width: e.
        classes: (N,) names of the training sets' classes, ``"data set/class"``.
        length: mean length of the encoder's features.
        alone: what turns directions into logits where there are no images: the logarithms of two strengths, as in
            `d2nwg.models.prior.strengths`.
        expected: α, β, γ, δ and σ: without images, the accuracy above chance, as a share of what is possible, is the
            logistic function of α + β · mean variance + γ · log C + δ · mean cosine among the directions, with standard
            deviation σ.

    Tensors: ``mean`` (d,) and ``whiten`` (d, d), as in `features`; ``class_texts`` (N, e) and ``class_means`` (N, d),
    of unit length, whitened; ``imagenet_texts`` (1000, e).
    """

    @register_to_config
    def __init__(
        self,
        encoder: str,
        text_encoder: str,
        num_features: Width,
        text_width: Width,
        classes: list[str],
        length: float = 1.0,
        alone: tuple[float, float] = (1.0, 1.0),
        expected: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0),
    ):
        super().__init__()

        def kept(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape), requires_grad=False)

        self.mean, self.whiten = kept(num_features), kept(num_features, num_features)
        self.class_texts, self.class_means = kept(len(classes), text_width), kept(len(classes), num_features)
        self.imagenet_texts = kept(1000, text_width)

    def features(self, features: Tensor) -> Tensor:
        """The encoder's features (…, d), whitened: an affine map, so that heads stay linear."""
        return (features / self.config.length - self.mean) @ self.whiten

    def fold(self, state: State, turned: bool = False) -> State:
        """Heads (S, C, d) on whitened features → on the encoder's own: the same logits exactly. ``turned`` heads are
        through the linear map already (`d2nwg.models.span.Span.to_features`)."""
        weight = state["weight"] if turned else state["weight"] @ self.whiten.mT
        bias = state["bias"] - weight @ self.mean
        return {"weight": weight / self.config.length, "bias": bias}

    def name_map(self, rows: Tensor | None) -> NameMap:
        """The map of this encoder, from the training sets' classes and from its classifier's rows (1000, d), if it has
        one; on the CPU, wherever the bundle is."""
        texts, means = self.class_texts.cpu(), self.class_means.cpu()
        if rows is None:
            return NameMap(texts, means)
        # A row is a head, a class mean a point: as directions in whitened space they transform inversely.
        whitened = torch.linalg.solve(self.whiten.cpu().double(), centred_rows(rows).double().mT).mT.float()
        return NameMap(torch.cat([self.imagenet_texts.cpu(), texts]), torch.cat([normalize(whitened, dim=-1), means]))

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Set mean, whitening and class means from images (n, d) of classes 0 to N − 1, each with one at least."""
        length = features.norm(dim=-1).mean()
        self.register_to_config(length=float(length))
        unit = normalize(features, dim=-1)
        self.mean.data = unit.mean(0)
        around = normalize(unit - self.mean, dim=-1)
        within = around - class_means(around, labels)[labels]
        values, vectors = torch.linalg.eigh((within.mT @ within / len(within)).double())
        values = values.clamp_min(0)
        scale = (values + FLOOR * values.mean()).clamp_min(1e-12) ** WHITENING
        whiten = vectors * scale @ vectors.mT
        self.whiten.data = (whiten / whiten.diagonal().mean()).to(features.dtype)
        self.class_means.data = normalize(class_means(self.features(features), labels), dim=-1)


def centred_rows(rows: Tensor) -> Tensor:
    """A classifier's rows (N, d) about their mean, of unit length: what all classes share tells none of them."""
    return normalize(rows - rows.mean(0), dim=-1)


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """(n, d) and (n,) → (N, d)."""
    sums = features.new_zeros(int(labels.max()) + 1, features.shape[-1]).index_add_(0, labels, features)
    return sums / labels.bincount().unsqueeze(-1)
