"""The start of the dual-coordinate generator: a closed-form head whose few scalars are learned.

The weighted sum of class means, ridge regression and logistic regression on the support. The weights and penalties are
smooth functions of facts about the support (`describe`), learned on other tasks: cross-validation needs more images
than a small support has.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d2nwg.models.prior import NAME_FACTS, Prior, strengths
from d2nwg.models.span import Span

FACTS = 10  # numbers that describe a task
# A ridge whose penalty the support itself chooses (`tuned_ridge`) is mixed in: from more than FEW labelled images a
# class on, linearly up to the share TUNED of the head at MANY. Chosen on training sets, and on digits and letters.
FEW, MANY, TUNED = 1, 7, 0.75
PENALTIES = torch.logspace(-3, 2, 16).tolist()
SCALES = (2 ** torch.arange(0, 7.1, 0.25)).tolist()
# Logarithms of where the learned scalars start.
SCALARS = {
    "ridge_penalty": math.log(0.5),
    "logistic_penalty": math.log(0.015),
    "mean_strength": 0.6,
    "ridge_strength": 1.5,
    "logistic_strength": 0.2,
    "metric": 0.1,  # not a logarithm: the power of the spectrum that weighs axes in distances to class means
    "sharpness": math.log(10.0),
    "trust": 0.0,  # logit of the weight of an unlabelled image beside a labelled one
}
OF_NAMES = {"unit_strength": 0.5, "length_strength": 0.5}  # likewise, of the directions that names give


@dataclass
class Start:
    """A closed-form head of B tasks, and what its corrections are computed from.

    Attributes:
        weight: (B, C, r) and ``bias`` (B, C): the head on the coordinates of the span.
        share: (B, n, C) how far each image belongs to each class: one-hot, or estimated where unlabelled.
        counts: (B, C) images of each class by these shares.
        trust: (B, n) weight of each image's class as the ridge's aim, 1 where labelled.
        missed: (B, n) how far the ridge stays below its aim for the image's class.
        mean_filter, ridge_filter: (B, 1, 1) and (B, 1, r): what a weighed sum of a class's images is multiplied by to
            add to the mean part (over ``counts``) and to the ridge part of the head.
        facts: (B, FACTS).
        tuned: weight and bias of `tuned_ridge`, where there are enough labelled images, and ``tuned_share`` (B, 1, 1),
            its share of the head.
        beyond: (B, C, d) what class names add to the head outside of the span, on `Span.placed` features; None without
            names.
        named: (B, 1, 1) how far the names count (`Prior`); None without names.
    """

    weight: Tensor
    bias: Tensor
    share: Tensor
    counts: Tensor
    trust: Tensor
    missed: Tensor
    mean_filter: Tensor
    ridge_filter: Tensor
    facts: Tensor
    tuned: tuple[Tensor, Tensor] | None = None
    tuned_share: Tensor | None = None
    beyond: Tensor | None = None
    named: Tensor | None = None

    def finish(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The head with what the generator adds to it: (S, C, r) and (S, C)."""
        weight, bias = self.weight + weight, self.bias + bias
        if self.tuned is None:
            return weight, bias
        # In place: many samples of many classes are gigabytes.
        return weight.lerp_(self.tuned[0], self.tuned_share), bias.lerp_(self.tuned[1], self.tuned_share.squeeze(-1))


class ClosedForm(nn.Module):
    """Support → `Start`.

    Args:
        rounds: of soft k-means, where there are unlabelled images.
        iterations: Newton steps of the logistic regression.
        width: hidden width of the network that sets the scalars.
        names: whether class names can add to it.
    """

    def __init__(self, rounds: int = 5, iterations: int = 10, width: int = 32, names: bool = False):
        super().__init__()
        self.rounds, self.iterations = rounds, iterations
        self.start = SCALARS | OF_NAMES if names else SCALARS
        self.facts = FACTS + NAME_FACTS if names else FACTS
        self.scalars = nn.Sequential(nn.Linear(self.facts, width), nn.SiLU(), nn.Linear(width, len(self.start)))
        with torch.no_grad():
            self.scalars[-1].weight.zero_()
            self.scalars[-1].bias.copy_(torch.tensor(list(self.start.values())))

    def forward(self, span: Span, prior: Prior | None = None) -> Start:
        """The start of B tasks; every class has a labelled image."""
        facts = describe(span)
        if self.facts > FACTS:
            said = facts.new_zeros(len(facts), NAME_FACTS) if prior is None else prior.facts
            facts = torch.cat([facts, said], -1)
        raw = {name: value[:, None, None] for name, value in zip(self.start, self.scalars(facts).mT, strict=True)}
        scalar = {name: value if name in ("metric", "trust") else value.exp() for name, value in raw.items()}
        points, labelled = span.points, span.labelled.unsqueeze(-1)
        classes = span.targets.shape[-1]

        spectrum = span.spectrum.unsqueeze(1)
        relative = spectrum / spectrum.mean(-1, keepdim=True).clamp_min(1e-12)
        metric = ((relative + 0.3).log() * scalar["metric"]).exp()
        pull, beyond = points.new_zeros(()), None
        if prior is not None:
            strength = strengths(raw["unit_strength"], raw["length_strength"], prior.length) * prior.named
            pull, beyond = strength * prior.inside, strength * prior.beyond
        named = points @ pull.mT if pull.ndim else pull
        share, means = self._cluster(span, metric, scalar["sharpness"], raw["trust"].sigmoid(), named)
        weight = means * metric
        bias = -0.5 * (weight * means).sum(-1)

        # Unlabelled images pull on the ridge towards their estimated classes, weaker than labelled ones.
        trust = torch.where(labelled > 0, 1.0, raw["trust"].sigmoid())
        aim = trust * (share - share.sum(-1, keepdim=True) / classes)
        ridge_filter = 1 / (spectrum + scalar["ridge_penalty"])
        ridge = (aim.mT @ points) * ridge_filter
        missed = (share * (aim - points @ ridge.mT)).sum(-1)

        logistic, offset = self._logistic(points, share, spectrum, scalar["logistic_penalty"])
        each = labelled.sum((1, 2)) / classes
        share_of_tuned = TUNED * ((each - FEW) / (MANY - FEW)).clamp(0, 1)[:, None, None]
        # Left out while training, which learns what the support alone does not show.
        tuned = not self.training and bool((share_of_tuned > 0).any()) and bool((labelled > 0).all())
        of_mean, of_ridge, of_logistic = (scalar[f"{name}_strength"] for name in ("mean", "ridge", "logistic"))
        return Start(
            weight=of_mean * weight + of_ridge * ridge + of_logistic * logistic + pull,
            bias=of_mean.squeeze(-1) * bias + of_logistic.squeeze(-1) * offset,
            share=share,
            counts=share.sum(1),
            trust=trust.squeeze(-1),
            missed=missed,
            mean_filter=of_mean,
            ridge_filter=of_ridge * ridge_filter,
            facts=facts,
            tuned=tuned_ridge(span) if tuned else None,
            tuned_share=share_of_tuned if tuned else None,
            beyond=beyond * (1 - share_of_tuned) if tuned and beyond is not None else beyond,
            named=None if prior is None else prior.named,
        )

    def _cluster(
        self, span: Span, metric: Tensor, sharpness: Tensor, trust: Tensor, named: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Soft k-means from the class means, with the logits that the ``named`` (B, n, C) classes give: shares
        (B, n, C) and means (B, C, r)."""
        share = span.targets
        means = (share.mT @ span.points) / share.sum(1).unsqueeze(-1)
        unlabelled = 1 - span.labelled.unsqueeze(-1)
        if not unlabelled.any():
            return share, means
        for _ in range(self.rounds):
            weight = means * metric
            distance = span.points @ weight.mT - 0.5 * (weight * means).sum(-1).unsqueeze(1)
            guess = (sharpness * distance + named).softmax(-1) * unlabelled
            weighed = span.targets + trust * guess
            means = (weighed.mT @ span.points) / weighed.sum(1).unsqueeze(-1)
        return span.targets + guess, means

    def _logistic(self, points: Tensor, share: Tensor, spectrum: Tensor, penalty: Tensor):
        """Logistic regression by Newton steps with Böhning's bound on the Hessian, which is diagonal here (compare
        `d2nwg.weights.probes.fit_linear`): weight (B, C, r) and bias (B, C)."""
        images, classes = share.shape[1:]
        curvature = 0.5 * spectrum / images + penalty
        weight = old_weight = points.new_zeros(len(points), classes, points.shape[-1])
        bias = old_bias = points.new_zeros(len(points), 1, classes)
        momentum = 1.0
        for _ in range(self.iterations):
            following = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
            ahead, momentum = 1 + (momentum - 1) / following, following
            w, b = torch.lerp(old_weight, weight, ahead), torch.lerp(old_bias, bias, ahead)
            residual = ((points @ w.mT + b).softmax(-1) - share) / images
            old_weight, weight = weight, w - (residual.mT @ points + penalty * w) / curvature
            old_bias, bias = bias, b - 2 * residual.sum(1, keepdim=True)
        return weight, bias.squeeze(1)


@torch.no_grad()
def tuned_ridge(span: Span) -> tuple[Tensor, Tensor]:
    """Ridge regression whose penalty has the least squared error when each image in turn is left out (exact, from the
    leverages), times the factor that makes those scores the likeliest logits: weight (B, C, r) and bias (B, C)."""
    points, targets, spectrum = span.points, span.targets, span.spectrum.unsqueeze(1)
    offset = targets.mean(1, keepdim=True)
    aim = targets - offset
    onto, squares = aim.mT @ points, points.square()
    least = points.new_full((len(points), 1, 1), torch.inf)
    weight = scores = None
    for penalty in PENALTIES:
        fitted = onto / (spectrum + penalty)
        leverage = (squares / (spectrum + penalty)).sum(-1, keepdim=True) + 1 / points.shape[1]
        missed = (aim - points @ fitted.mT) / (1 - leverage).clamp_min(1e-3)
        error = missed.square().mean((1, 2), keepdim=True)
        better = error < least
        weight = fitted if weight is None else torch.where(better, fitted, weight)
        scores = targets - missed if scores is None else torch.where(better, targets - missed, scores)
        least = torch.minimum(least, error)
    labels = targets.argmax(-1)
    own = scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    surprise = torch.stack([((scores * scale).logsumexp(-1) - own * scale).mean(1) for scale in SCALES])  # (L, B)
    scale = points.new_tensor(SCALES)[surprise.argmin(0)][:, None, None]
    return weight * scale, (offset * scale).squeeze(1)


def describe(span: Span) -> Tensor:
    """What the learned scalars depend on, (B, FACTS), all of order 1: images a class, classes, spread of the spectrum,
    how much of the images' variance the classes explain, unlabelled images, leave-one-out accuracy of class means and
    of ridge."""
    points, targets, labelled = span.points, span.targets, span.labelled
    classes, shown = targets.shape[-1], labelled.sum(1)
    unlabelled = labelled.shape[1] - shown
    each = shown / classes
    spectrum = span.spectrum
    share = spectrum / spectrum.sum(-1, keepdim=True).clamp_min(1e-12)
    effective = torch.special.entr(share).sum(-1)  # logarithm of the effective number of axes
    counts = targets.sum(1)
    means = (targets.mT @ points) / counts.unsqueeze(-1)
    lengths = points.square().sum(-1)
    total = (lengths * labelled).sum(1) / shown
    between = means.square().sum(-1).mean(1)
    several = each > 1
    noise = (total - between).clamp_min(0) / (each - 1).clamp_min(0.5)
    signal = torch.where(several, (between - noise) / total.clamp_min(1e-12), 0.0)

    own = (targets * counts.unsqueeze(1)).sum(-1)
    similarity = points @ means.mT
    near = similarity - 0.5 * means.square().sum(-1).unsqueeze(1)
    rest = (own - 1).clamp_min(1)
    mine, size = ((targets * v).sum(-1) for v in (similarity, means.square().sum(-1).unsqueeze(1)))
    without = (own * mine - lengths) / rest - 0.5 * (own**2 * size - 2 * own * mine + lengths) / rest**2
    near = torch.where(targets > 0, without.unsqueeze(-1), near)
    right_mean = _hits(near, targets, labelled)

    penalty = 0.5
    leverage = (points.square() / (spectrum + penalty).unsqueeze(1)).sum(-1, keepdim=True)
    aim = (targets - 1 / classes) * labelled.unsqueeze(-1)
    fitted = points @ ((aim.mT @ points) / (spectrum + penalty).unsqueeze(1)).mT
    right_ridge = _hits(aim - (aim - fitted) / (1 - leverage).clamp_min(1e-3), targets, labelled)
    facts = [
        each.log() / 2,
        (each.new_full((), float(classes)).log() / 2 - 1).expand_as(each),
        (each < 1.5).to(each.dtype),
        effective / 2 - 1,
        4 * share[:, 0],
        2 * signal,
        (unlabelled > 0).to(each.dtype),
        (unlabelled / classes).log1p() / 2,
        torch.where(several, right_mean, 0.0),
        torch.where(several, right_ridge, 0.0),
    ]
    return torch.stack(facts, -1)


def _hits(scores: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
    """(B,) share of labelled images whose own class scores highest."""
    return ((scores.argmax(-1) == targets.argmax(-1)) * labelled).sum(1) / labelled.sum(1)
