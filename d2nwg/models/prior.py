"""What class names add to the closed-form start of a head: directions seen from the images of a task."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from d2nwg.models.names import Directions
from d2nwg.models.span import Span

NAME_FACTS = 8  # numbers that describe what the names say
SHARPNESS = 10.0  # of the probabilities that the names give the support
TRUE = 2.0  # log-odds of names that mean something, before the images are seen; chosen on training sets


@dataclass
class Prior:
    """Directions of B tasks, seen from a span.

    Attributes:
        inside: (B, C, r) unit directions in the coordinates of the span.
        beyond: (B, C, d) what of them lies outside of it.
        length: (B, C, 1) of the directions as the names gave them, 0 for tasks without names.
        named: (B, 1, 1) how far the names count: the `belief` in them, 0 for tasks without names.
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
        unit = normalize(directions.weight, dim=-1)
        inside = unit @ span.basis.mT
        fit = _fit(span, inside)
        named = directions.named * belief(fit)
        facts = _facts(span, inside, unit, directions, fit) * named.unsqueeze(-1)
        named = named[:, None, None]
        length = directions.weight.norm(dim=-1, keepdim=True) * named
        return cls(inside, unit - inside @ span.basis, length, named, facts)


def strengths(of_unit: Tensor, of_length: Tensor, length: Tensor) -> Tensor:
    """How strongly unit directions count: the sum of a part that is the same for all, and one in proportion to the
    ``length`` that the names gave them, which is what is known; both factors are given as logarithms."""
    return of_unit.exp() + of_length.exp() * length


def belief(fit: Tensor) -> Tensor:
    """The probability (B,) that each name is that of its own class rather than of any, from how the class means fit the
    names (B, C, C). Names in another order, or of other things, are left out where the images contradict them."""
    classes = fit.shape[-1]
    own = (SHARPNESS * fit).log_softmax(-1).diagonal(dim1=-2, dim2=-1)
    return (TRUE + (own + math.log(classes)).sum(-1)).sigmoid()


def _fit(span: Span, inside: Tensor) -> Tensor:
    """(B, C, C) cosines of each class's mean, about the mean of all, with the direction of each name, about the mean of
    these cosines."""
    targets = span.targets
    means = normalize((targets.mT @ span.points) / targets.sum(1).unsqueeze(-1), dim=-1)
    means = means - means.mean(1, keepdim=True)
    fit = means @ inside.mT
    return fit - fit.mean(-1, keepdim=True)


def _facts(span: Span, inside: Tensor, unit: Tensor, directions: Directions, fit: Tensor) -> Tensor:
    """Whether there are names; how well they predict the labelled images: accuracy above chance, log-likelihood; how
    well they fit the class means: cosine with the own one beyond that with the others, plain and in standard errors of
    names in any order; predictive variance; how alike the directions are; their length."""
    targets, labelled = span.targets, span.labelled
    classes, shown = targets.shape[-1], labelled.sum(1)
    scores = span.points @ inside.mT
    right = ((scores.argmax(-1) == targets.argmax(-1)) * labelled).sum(1) / shown
    chance = (SHARPNESS * scores).log_softmax(-1)
    likelihood = (targets * chance).sum((1, 2)) / shown
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
        4 * directions.variance.mean(-1) - 2,
        2 * between,
        2 * directions.weight.norm(dim=-1).mean(-1) - 1,
    ]
    return torch.stack(facts, -1)
