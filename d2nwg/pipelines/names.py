"""What class names are worth on an encoder: directions, how far the names are from all that is known, and heads from
names alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from d2nwg.conditions.class_names import OF_IMAGES, OF_TEXTS, embed_names, embed_rows, readable
from d2nwg.encoders.imagenet import NamedRows, classifier_rows
from d2nwg.encoders.sentences import TEXTS, takes_texts, text_encoder_of
from d2nwg.encoders.texts import TOWER, TextEncoder, load_text_encoder
from d2nwg.models.names import Directions, NameMap, NameSpace, centred_rows
from d2nwg.models.prior import strengths
from d2nwg.weights.networks import State

TOWER_LENGTH = 0.8  # of directions that a text tower gives, where 1 is certain
# Likewise where the items are texts themselves, and the variance; chosen on tweet_sentiment, clinc150, atis, mpqa,
# tweet_emoji and boolq_q.
TEXT_LENGTH, TEXT_VARIANCE = 12.0, 0.6
FAR = 0.965  # mean predictive variance from which on names say little: 0.93 to 0.955 for everyday classes, 1 is none


@dataclass(frozen=True)
class Expectation:
    """What to expect of a head made from names alone.

    Attributes:
        accuracy: as a fraction, measured on classes of the training sets that were new to the map; None for an encoder
            on which nothing was measured.
        give_or_take: the standard deviation of tasks about it.
        variance: mean predictive variance of the names: 0 known, 1 nothing like them is.
        nearest: (C,) the known class that is nearest to each name.
    """

    accuracy: float | None
    give_or_take: float | None
    variance: float
    nearest: tuple[str, ...]

    @property
    def far(self) -> bool:
        """Whether the names are far from all that is known."""
        return self.variance > FAR


@dataclass(frozen=True)
class KnownName:
    """A class whose row is known.

    Attributes:
        label: in full: all lemmas of a synset, or ``"data set/class"``.
        name: short, as a person would say it.
        source: the training set; "" for a class of the encoder's own classifier.
    """

    label: str
    name: str
    source: str = ""


class Near(NamedTuple):
    """A known class beside a direction or a text: its number among `EncoderNames.known_names`, and the cosine."""

    number: int
    cosine: float


class EncoderNames:
    """Class names on one encoder.

    Args:
        space: the bundle's.
        encoder: of the images or texts, by name.
    """

    def __init__(self, space: NameSpace, encoder: str):
        self.space, self.encoder = space, encoder
        self.own = encoder == space.config.encoder
        self.tower = not self.own and encoder.startswith((TOWER, TEXTS))

    @property
    def known(self) -> bool:
        """Whether names say anything here: the bundle's encoder, one with a text tower, or one with a classifier of
        ImageNet's classes."""
        return self.own or self.tower or self.rows is not None

    def why_not(self, names: Sequence[str]) -> str | None:
        """A sentence on why these names say nothing here; None where they do."""
        if takes_texts(self.encoder) == 2:
            return "Class names say nothing about pairs of texts, and are ignored."
        if not self.known:
            return (
                "This encoder has neither a classifier of ImageNet's classes nor a text tower: class names are ignored."
            )
        if takes_texts(self.encoder) and not any(map(str.isalpha, "".join(names))):
            return "Class names without a letter say nothing about texts, and are ignored: give others with --names."
        return None

    @cached_property
    def rows(self) -> NamedRows | None:
        """Of the encoder's own classifier."""
        return None if self.tower else classifier_rows(self.encoder)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The one whose vectors the map takes."""
        return load_text_encoder(text_encoder_of(self.encoder) if self.tower else self.space.config.text_encoder)

    @cached_property
    def map(self) -> NameMap:
        """Solved at first use."""
        if self.own:
            return self.space.name_map(None if self.rows is None else self.rows.weight)
        texts = self.space.imagenet_texts.cpu()
        if not texts.any():
            texts = embed_rows(self.rows, self.text_encoder)
        return NameMap(texts, centred_rows(self.rows.weight))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of the map's classes."""
        rows = () if self.rows is None else self.rows.names
        return (*rows, *self.space.config.classes) if self.own else rows

    @cached_property
    def known_names(self) -> tuple[KnownName, ...]:
        """The map's classes, whose rows are `map.rows`, in order; none for a text tower, which has a direction for
        every text and a row for none."""
        own = 0 if self.rows is None else len(self.rows.names)
        of_classifier = [KnownName(label, label.split(",")[0]) for label in self.labels[:own]]
        parts = [(label, *label.partition("/")[::2]) for label in self.labels[own:]]
        of_sets = [KnownName(label, readable(name or label), source if name else "") for label, source, name in parts]
        return (*of_classifier, *of_sets)

    def cosines(self, directions: Tensor) -> Tensor:
        """(m, N) of some unit directions (m, d) with the rows of `known_names`."""
        return directions @ self.map.rows.float().mT if self.known_names else directions.new_zeros(len(directions), 0)

    def prepare(self) -> None:
        """Load and solve what is needed, once a process."""
        if self.known:
            _ = self.text_encoder, None if self.tower else self.map

    def features(self, features: Tensor) -> Tensor:
        """In the space of the directions."""
        return self.space.features(features) if self.own else features

    @property
    def onto(self) -> Tensor | None:
        """The linear part of `features`; None where there is nothing to do."""
        return self.space.whiten if self.own else None

    def fold(self, state: State, turned: bool = False) -> State:
        """Heads in that space → on the encoder's own features; see `NameSpace.fold`."""
        if not self.own:
            return state
        return self.space.fold({name: tensor.to(self.space.mean) for name, tensor in state.items()}, turned)

    def _embedded(self, names: Sequence[str]) -> Tensor:
        return embed_names(names, self.text_encoder, OF_TEXTS if takes_texts(self.encoder) else OF_IMAGES)

    def directions(self, names: Sequence[str]) -> Directions | None:
        """Of one task; None where names say nothing."""
        if not self.known:
            return None
        texts = self._embedded(names)
        if self.tower:
            around = normalize(texts - texts.mean(0), dim=-1)
            length, variance = TOWER_LENGTH, 1 - TOWER_LENGTH**2
            if takes_texts(self.encoder):
                length, variance = TEXT_LENGTH, TEXT_VARIANCE
            return Directions.of_one(length * around, torch.full((len(names),), variance))
        return Directions.of_one(*self.map(texts))

    def between(self, first: str, last: str, points: int) -> Tensor:
        """(points, d) unit directions on the way from one name to another: each that of a point between their texts."""
        ends = self._embedded([first, last])
        share = torch.linspace(0, 1, points).unsqueeze(-1)
        texts = normalize(torch.lerp(ends[:1], ends[1:], share), dim=-1)
        return normalize(texts if self.tower else self.map(texts)[0], dim=-1)

    def expectation(self, names: Sequence[str], directions: Directions) -> Expectation:
        """What a head from these names alone can be expected to do."""
        variance, unit = directions.variance[0], normalize(directions.weight[0], dim=-1)
        *weights, spread = self.space.config.expected
        nearest: tuple[str, ...] = ()
        if not self.tower:
            nearest = tuple(self.labels[i] for i in self.map.nearest(embed_names(names, self.text_encoder)).tolist())
        if not self.own or not any(weights):
            return Expectation(None, None, float(variance.mean()), nearest)
        facts = expectation_facts(unit, variance)
        above = float((facts @ torch.tensor(weights)).sigmoid())
        classes = len(unit)
        accuracy = 1 / classes + (1 - 1 / classes) * above
        return Expectation(accuracy, (1 - 1 / classes) * spread, float(variance.mean()), nearest)

    def heads(self, directions: Directions, num_samples: int, generator: torch.Generator | None) -> State:
        """Heads from names alone, on the encoder's features: ``weight`` (S, C, d) and ``bias`` (S, C). They are draws
        of the regression's posterior about the directions, in pairs on opposite sides: their average is its mean."""
        mean, variance = directions.weight[0], directions.variance[0]
        length = mean.norm(dim=-1, keepdim=True)
        if self.own:
            of_unit, of_length = torch.tensor(self.space.config.alone)
            strength = strengths(of_unit, of_length, length)
        elif self.tower:  # the logit scale that CLIP, and sentence encoders, are trained with
            strength = torch.full_like(length, 20.0 if takes_texts(self.encoder) else 100.0)
        else:  # as sure of itself as the encoder's own classifier
            sure = float(self.rows.weight.norm(dim=-1).mean())
            strength = torch.full_like(length, sure)
        noise = torch.zeros(num_samples, *mean.shape)
        if not self.tower and (pairs := num_samples // 2):
            draws = self.map.draws(pairs * len(mean), generator).view(pairs, *mean.shape)
            draws = draws * variance.sqrt().unsqueeze(-1)
            noise[: 2 * pairs] = torch.cat([draws, -draws])
        weight = strength / length.clamp_min(1e-6) * (mean + noise)
        return self.fold({"weight": weight, "bias": torch.zeros(weight.shape[:2])})


def nearest(cosines: Tensor, most: int) -> list[list[Near]]:
    """For each row of cosines (m, N), the ``most`` largest, in order."""
    best = cosines.topk(min(most, cosines.shape[1]), -1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[Near(*pair) for pair in zip(*row, strict=True)] for row in pairs]


def expectation_facts(unit: Tensor, variance: Tensor) -> Tensor:
    """What the expected accuracy without images depends on: 1, mean variance, log C, mean cosine among the unit
    directions (C, d)."""
    classes = len(unit)
    between = (unit.sum(0).square().sum() - classes) / max(1, classes * (classes - 1))
    return torch.stack([torch.ones(()), variance.mean().cpu(), torch.tensor(math.log(classes)), between.cpu()])


@lru_cache(maxsize=8)
def encoder_names(space: NameSpace, encoder: str) -> EncoderNames:
    """Class names on an encoder, prepared once."""
    return EncoderNames(space, encoder)
