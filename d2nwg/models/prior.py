"""What class names add to the closed-form start of a head: directions seen from the images of a task."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from d2nwg.models.names import Directions
from d2nwg.models.span import Span

NAME_FACTS = 8  # numbers that describe what the names say
SHARPNESS = 10.0  # of the probabilities that the names give the support, in the facts


@dataclass
class Prior:
    """Directions of B tasks, seen from a span.

    Attributes:
        inside: (B, C, r) unit directions in the coordinates of the span.
        beyond: (B, C, d) what of them lies outside of it.
        length: (B, C, 1) of the directions as the names gave them, 0 for tasks without names.
        named: (B, 1, 1).
        facts: (B, NAME_FACTS), all 0 for tasks without names.
    """

    inside: Tensor
    beyond: Tensor
    length: Tensor
    named: Tensor
    facts: Tensor

    @classmethod
    def of(cls, span: Span, directions: Directions) -> "Prior":
        """Directions in the space of the features that the span was made of."""
        named = directions.named[:, None, None]
        length = directions.weight.norm(dim=-1, keepdim=True) * named
        unit = normalize(directions.weight, dim=-1)
        inside = unit @ span.basis.mT
        facts = _facts(span, inside, unit, length, directions.variance) * directions.named.unsqueeze(-1)
        return cls(inside, unit - inside @ span.basis, length, named, facts)


def strengths(of_unit: Tensor, of_length: Tensor, length: Tensor) -> Tensor:
    """How strongly unit directions count: the sum of a part that is the same for all, and one in proportion to the
    ``length`` that the names gave them, which is what is known; both factors are given as logarithms."""
    return of_unit.exp() + of_length.exp() * length


def _facts(span: Span, inside: Tensor, unit: Tensor, length: Tensor, variance: Tensor) -> Tensor:
    """Whether there are names; how well they predict the labelled images: accuracy above chance, log-likelihood; how
    well they fit the class means: cosine with the own one beyond that with the others, plain and in standard errors of
    names in any order; predictive variance; how alike the directions are; their length."""
    targets, labelled = span.targets, span.labelled
    classes, shown = targets.shape[-1], labelled.sum(1)
    scores = span.points @ inside.mT
    right = ((scores.argmax(-1) == targets.argmax(-1)) * labelled).sum(1) / shown
    chance = (SHARPNESS * scores).log_softmax(-1)
    likelihood = (targets * chance).sum((1, 2)) / shown
    means = normalize((targets.mT @ span.points) / targets.sum(1).unsqueeze(-1), dim=-1)
    means = means - means.mean(1, keepdim=True)
    fit = means @ inside.mT
    fit = fit - fit.mean(-1, keepdim=True)
    own = fit.diagonal(dim1=-2, dim2=-1).sum(-1)
    others = (fit.sum((1, 2)) - own) / max(1, classes * (classes - 1))
    gap = own / classes - others
    error = fit.square().mean((1, 2)).sqrt() / classes**0.5
    between = (unit.sum(1).square().sum(-1) - classes) / max(1, classes * (classes - 1))
    logarithm = torch.tensor(float(classes)).log().to(scores)
    facts = [
        torch.ones_like(right),
        2 * (right - 1 / classes) / (1 - 1 / classes),
        (likelihood / logarithm).clamp(-4, 1) + 1,
        5 * gap,
        (gap / error.clamp_min(1e-6)).clamp(-3, 9) / 3,
        4 * variance.mean(-1) - 2,
        2 * between,
        2 * length.mean((1, 2)) - 1,
    ]
    return torch.stack(facts, -1)
