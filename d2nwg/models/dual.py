"""The dual-coordinate generator: it diffuses a head's coefficients on the support images.

A head's rows lie, nearly, in the span of the support features: ``W = Aᵀ X``. The start is a closed-form head
(`ClosedForm`); a sample corrects it by three numbers for each image: changes of its weight in the class mean, of its
target in the ridge regression, and of its class's bias. They are generated from inner products of features alone, with
attention across the images and no position. So permuting the classes permutes the rows, rotating the features changes
nothing, and the number of classes, images and features is free.
"""

from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional

from d2nwg.models.closed_form import ClosedForm, Start
from d2nwg.models.names import Directions
from d2nwg.models.prior import Prior
from d2nwg.models.span import Span
from d2nwg.utils.fields import Depth, Width
from d2nwg.weights.networks import State

COEFFICIENTS = 3  # numbers generated an image: on the mean, on the ridge, on the bias
IMAGE_FACTS = 11
ENOUGH = 10  # labelled images a class beyond which the unlabelled ones count less and less
PARTS = 4  # of the labelled images, which in turn show what the unlabelled ones are worth
# How much unlabelled images are expected to raise the log-probability of the right class: mean and standard deviation
# of the prior, standard deviation of the measurement, and where log-probabilities are clipped. Chosen on training
# sets, digits and letters.
GAIN, DOUBT, ERROR, LEAST = 0.2, 0.3, 0.1, -4.6
ROWS = 1024  # images whose attention is worked out at a time: bounds the memory of thousands
ENTRIES = 2**26  # numbers held at a time of several samples' weighed images


@dataclass
class Branch:
    """B tasks, encoded with their unlabelled images or without. ``tokens`` (B, n, width) describe the
    images, ``guess`` (B, n, COEFFICIENTS) is the expected correction."""

    span: Span
    start: Start
    tokens: Tensor
    guess: Tensor

    def scores(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Logits (B, m, C) that heads on the span's coordinates, (B, C, r) and (B, C), give images (B, m, d)."""
        placed, rows = self.span.placed(features), weight @ self.span.basis
        rows = rows if self.start.beyond is None else rows + self.start.beyond
        return placed @ rows.mT + bias.unsqueeze(1)


@dataclass
class DualCondition:
    """B tasks, encoded once for the denoiser. With unlabelled images there are two branches, without and with them, and
    ``gate`` (B, 1, 1) is the weight of the second; otherwise one, and no gate."""

    branches: list[Branch]
    gate: Tensor | None

    @property
    def num_tokens(self) -> int:
        """Rows of a latent: the images of all branches."""
        return sum(branch.tokens.shape[1] for branch in self.branches)

    def split(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Latents (…, num_tokens, k) by branch."""
        return latents.split([branch.tokens.shape[1] for branch in self.branches], dim=-2)

    def arrange(self, noise: Tensor) -> Tensor:
        """Noise (S, num_tokens, k) assigned to the images of one task by a key of each image: the same image gets the
        same noise in any order of the classes and under any rotation of the features."""
        parts = [
            own[:, branch.span.key[0].argsort().argsort()]
            for branch, own in zip(self.branches, self.split(noise), strict=True)
        ]
        return torch.cat(parts, 1)


class Block(nn.Module):
    """Self-attention across images, biased by their similarity and by the probability that they share a class."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.alike = nn.Parameter(torch.randn(3, heads, 1, 1) * 0.5)

    def forward(self, x: Tensor, points: Tensor, share: Tensor) -> Tensor:
        """x (B, n, width), points (B, n, r), share (B, n, C) → (B, n, width)."""
        batch, images, width = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(batch, images, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = []
        for first in range(0, images, ROWS):
            rows = slice(first, first + ROWS)
            inner, same = (t[:, rows] @ t.mT for t in (points, share))
            pairs = (inner, same, inner * same)
            bias = sum(p.unsqueeze(1) * weight for p, weight in zip(pairs, self.alike, strict=True))
            seen.append(functional.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=bias))
        x = x + self.out(torch.cat(seen, 2).transpose(1, 2).reshape(batch, images, width))
        return x + self.feed_forward(self.after(x))


class DualDenoiser(ModelMixin, ConfigMixin):
    """Predicts the clean corrections of a head's dual coefficients from noisy ones (``prediction_type="sample"``).

    Args:
        width: of the tokens.
        depth: attention blocks.
        heads: of the attention.
        rounds, iterations: see `ClosedForm`.
        names: whether class names can be a condition beside the images.

    ``spread`` (COEFFICIENTS,) is the standard deviation of the corrections in training; latents are divided by it.
    """

    @register_to_config
    def __init__(
        self,
        width: Width = 64,
        depth: Depth = 2,
        heads: Depth = 4,
        rounds: Depth = 5,
        iterations: Depth = 10,
        names: bool = False,
    ):
        super().__init__()
        self.start = ClosedForm(rounds, iterations, names=names)
        facts = self.start.facts
        self.embed = nn.Linear(IMAGE_FACTS + facts, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.guess = nn.Linear(width, COEFFICIENTS)
        self.gate = nn.Sequential(nn.Linear(facts, 16), nn.SiLU(), nn.Linear(16, 1))
        self.of_token, self.of_latent = nn.Linear(width, width), nn.Linear(3 * COEFFICIENTS, width, bias=False)
        self.time = Timesteps(32, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.of_time = TimestepEmbedding(32, width)
        self.denoise = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, COEFFICIENTS))
        self.spread = nn.Parameter(torch.ones(COEFFICIENTS), requires_grad=False)
        for last in (self.guess, self.gate[-1], self.denoise[-1]):  # the untrained model is its start
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def encode(
        self,
        features: Tensor,
        targets: Tensor,
        unlabelled: Tensor | None = None,
        directions: Directions | None = None,
    ) -> DualCondition:
        """Support images' features (B, n, d), one-hot targets (B, n, C), features (B, m, d) of images without labels,
        what the names of the classes say → what sampling needs."""
        directions = directions if self.config.names else None
        if unlabelled is None or not unlabelled.shape[1]:
            return DualCondition([self._branch(Span.of(features, targets), directions)], None)
        branches = self._branches(features, targets, unlabelled, directions)
        gate = self.gate(branches[1].start.facts).sigmoid().unsqueeze(-1)
        each = targets.sum((1, 2)) / targets.shape[-1]
        gate = gate * (ENOUGH / each).clamp_max(1)[:, None, None]
        if not self.training:
            tasks = zip(features, targets, unlabelled, branches[0].span.key, strict=True)
            worth = [self._worth(*task, _part(directions, i)) for i, task in enumerate(tasks)]
            gate = gate * torch.stack(worth)[:, None, None]
        return DualCondition(branches, gate)

    def _branches(
        self, features: Tensor, targets: Tensor, unlabelled: Tensor, directions: Directions | None
    ) -> list[Branch]:
        nothing = targets.new_zeros(len(targets), unlabelled.shape[1], targets.shape[-1])
        everything = Span.of(torch.cat([features, unlabelled], 1), torch.cat([targets, nothing], 1))
        return [self._branch(span, directions) for span in (Span.of(features, targets), everything)]

    @torch.no_grad()
    def _worth(
        self, features: Tensor, targets: Tensor, unlabelled: Tensor, key: Tensor, directions: Directions | None = None
    ) -> Tensor:
        """The weight, from 0 to 1, of one task's images without labels (m, d), measured on its n labelled ones, each of
        which has a ``key`` (n,) (`Span`).

        Cross-validation: each part of every class in turn is put among the images without labels, and both branches
        predict its class. The result is 1 unless the images without labels make the right class less likely: twice the
        posterior probability that they do not, given a normal prior. Where clusters are classes such images help; where
        they are not they cost up to a tenth of the accuracy.
        """
        labels, gains = targets.argmax(-1), []
        order = key.argsort()
        rank = torch.empty_like(labels)  # within its class, whatever the order
        rank[order] = ((targets[order].cumsum(0) - 1) * targets[order]).sum(-1).to(rank)
        several = targets.sum(0)[labels] > 1
        for part in range(PARTS):
            held = several & (rank % PARTS == part)
            if not held.any():
                continue
            rest, chances = ~held, []
            free = torch.cat([unlabelled, features[held]])
            for branch in self._branches(features[rest][None], targets[rest][None], free[None], directions):
                weight, bias = self.corrected(branch, branch.guess / self.spread)
                scores = branch.scores(features[held][None], weight, bias)[0]
                own = scores.log_softmax(-1).gather(-1, labels[held].unsqueeze(-1))
                chances.append(own.clamp_min(LEAST))
            gains.append(chances[1] - chances[0])
        if not gains:
            return features.new_ones(())
        gain = torch.cat(gains)
        prior, seen = DOUBT**-2, 1 / (gain.var(correction=0) / len(gain) + ERROR**2)
        expected = (prior * GAIN + seen * gain.mean()) / (prior + seen)
        return (2 * torch.special.ndtr(expected * (prior + seen).sqrt())).clamp_max(1)

    def _branch(self, span: Span, directions: Directions | None) -> Branch:
        start = self.start(span, None if directions is None else Prior.of(span, directions))
        tokens = self.embed(
            torch.cat([image_facts(span, start), start.facts.unsqueeze(1).expand(-1, span.points.shape[1], -1)], -1)
        )
        for block in self.blocks:
            tokens = block(tokens, span.points, start.share)
        tokens = self.norm(tokens)
        return Branch(span, start, tokens, self.guess(tokens))

    def forward(self, latents: Tensor, timestep: Tensor | int, condition: DualCondition) -> Tensor:
        """Noisy latents (S, num_tokens, COEFFICIENTS), step (S,) or one number → clean ones. S samples of one task, or
        one sample for each of S tasks."""
        timestep = torch.as_tensor(timestep, device=latents.device).reshape(-1)
        time = self.of_time(self.time(timestep).to(latents.dtype)).unsqueeze(1)
        clean = []
        for branch, noisy in zip(condition.branches, condition.split(latents), strict=True):
            share = branch.start.share
            of_class = (share / share.sum(1, keepdim=True)).mT @ noisy  # (S, C, k)
            around = torch.cat([noisy, share @ of_class, noisy.mean(1, keepdim=True).expand_as(noisy)], -1)
            hidden = self.of_token(branch.tokens) + self.of_latent(around) + time
            clean.append(branch.guess / self.spread + self.denoise(hidden))
        return torch.cat(clean, 1)

    def corrected(self, branch: Branch, latents: Tensor) -> tuple[Tensor, Tensor]:
        """One branch's latents (S, n, COEFFICIENTS) → heads on its coordinates, (S, C, r) and (S, C)."""
        start, points = branch.start, branch.span.points
        on_mean, on_ridge, on_bias = (latents * self.spread).unbind(-1)  # each (S, n)
        counts = start.counts.unsqueeze(-1)
        step = max(1, ENTRIES // points[0].numel())
        weights = []
        for first in range(0, len(latents), step):
            rows = slice(first, first + step)
            share, some = (t if len(t) == 1 else t[rows] for t in (start.share, points))
            mean = class_sums(on_mean[rows], share, some) / (counts if len(counts) == 1 else counts[rows])
            ridge = class_sums(on_ridge[rows] * start.trust, share, some)
            weights.append(start.mean_filter * mean + start.ridge_filter * ridge)
        shift = class_sums(on_bias, start.share, torch.ones_like(points[..., :1])).squeeze(-1)
        return start.finish(torch.cat(weights), shift / start.counts)

    def logits(self, latents: Tensor, condition: DualCondition, features: Tensor) -> Tensor:
        """Clean latents of B tasks, images' features (B, q, d) → (B, q, C)."""
        scores = []
        for branch, own in zip(condition.branches, condition.split(latents), strict=True):
            weight, bias = self.corrected(branch, own)
            scores.append(branch.scores(features, weight, bias))
        return scores[0] if condition.gate is None else torch.lerp(scores[0], scores[1], condition.gate)

    def to_heads(self, latents: Tensor, condition: DualCondition, onto: Tensor | None = None) -> State:
        """Clean latents (S, num_tokens, COEFFICIENTS) of one task → heads on the features that it was encoded from:
        ``weight`` (S, C, d) and ``bias`` (S, C); or, where those are a linear map ``onto`` (d, d) of others, on those
        others."""
        heads = [
            branch.span.to_features(*self.corrected(branch, own), branch.start.beyond, onto)
            for branch, own in zip(condition.branches, condition.split(latents), strict=True)
        ]
        (weight, bias), *more = heads
        for other_weight, other_bias in more:
            gate = condition.gate
            weight, bias = weight.lerp(other_weight, gate), bias.lerp(other_bias, gate.squeeze(-1))
        return {"weight": weight, "bias": bias}


def _part(directions: Directions | None, i: int) -> Directions | None:
    """The directions of one task."""
    return directions and Directions(**{name: value[i : i + 1] for name, value in vars(directions).items()})


def class_sums(weights: Tensor, share: Tensor, points: Tensor) -> Tensor:
    """Weighted sums of each class's images: (S, n), (1 or S, n, C), (1 or S, n, r) → (S, C, r)."""
    if len(share) == 1 and not share.requires_grad and ((share == 0) | (share == 1)).all():
        # Thousands of classes: adding up the images beats a product with a matrix of zeros.
        labels = share[0].argmax(-1)
        sums = points.new_zeros(len(weights), share.shape[-1], points.shape[-1])
        return sums.index_add_(1, labels, weights.unsqueeze(-1) * points)
    return (weights.unsqueeze(-1) * share).mT @ points


def image_facts(span: Span, start: Start) -> Tensor:
    """The features of each image's token, (B, n, IMAGE_FACTS), from inner products: length, similarity to its own class
    mean, to that without itself, to the other classes on average, to the nearest other; the start's probability of its
    class and entropy; what the ridge misses of its class; whether it is labelled, how sure its class is if not, images
    in its class."""
    points, share, labelled = span.points, start.share, span.labelled
    counts = share.sum(1)
    similarity = points @ ((share.mT @ points) / counts.unsqueeze(-1)).mT
    length = points.square().sum(-1)
    own, size = (share * similarity).sum(-1), (share * counts.unsqueeze(1)).sum(-1)
    without = torch.where(size > 1.01, (own * size - length) / (size - 1).clamp_min(0.01), 0.0)
    others = (similarity.sum(-1) - own) / (similarity.shape[-1] - 1)
    nearest = similarity.masked_fill(share > 0.5, -torch.inf).amax(-1)
    chance = (points @ start.weight.mT + start.bias.unsqueeze(1)).softmax(-1)
    entropy = torch.special.entr(chance).sum(-1) / torch.tensor(float(share.shape[-1])).log()
    facts = (
        length,
        own,
        without,
        others,
        nearest,
        (share * chance).sum(-1),
        entropy,
        start.missed,
        labelled,
        (1 - labelled) * share.amax(-1),
        size.clamp_min(0.1).log() / 2,
    )
    return torch.stack(facts, -1)
