"""What class names say about the tasks of a zoo, each data set as if it had not been in the zoo."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from d2nwg.conditions.class_names import embed_names, embed_rows, without
from d2nwg.encoders.imagenet import NamedRows, classifier_rows
from d2nwg.encoders.texts import load_text_encoder, text_encoder_for
from d2nwg.models.names import Directions, NameMap, NameSpace, centred_rows
from d2nwg.models.prior import strengths
from d2nwg.pipelines.names import expectation_facts
from d2nwg.weights.zoo import Zoo

# How often the names of a training task are its own, those of its classes in another order, those of other classes, or
# left out: a head must lose nothing by names that mean nothing.
TRUE, PERMUTED, FOREIGN = 0.6, 0.2, 0.1
ALONE = 300  # tasks without images that the strength of names alone is fitted on
STEPS = 120  # of that fit


class ZooNames:
    """Features of a zoo's images and directions of its classes.

    What is learned for one data set (whitening and map) leaves out that set and all rows that share a name with one of
    its classes, so that training sees how good names are for new classes.

    Attributes:
        space: the `NameSpace` of all data sets that are not held out; what a bundle keeps.
        features: (n, d) float16 of each image, whitened.
        whitened, plain: `Directions` of all classes (batch of 1), for whitened features; and for those that the encoder
            gives, from its classifier's rows alone, or None where it has none.
        familiar: as ``whitened``, from a map in which only the data set itself is missing: a user's classes are called
            like known ones as often as not.
    """

    def __init__(self, zoo: Zoo, texts: Tensor, rows: NamedRows | None, row_texts: Tensor, held_out: Sequence[str]):
        self.zoo, self.texts, self.rows, self.row_texts = zoo, texts, rows, row_texts
        self._names = [name for _, name in zoo.class_names]
        self._owner = np.array([data for data, _ in zoo.class_names])
        self._kept = ~np.isin(self._owner, list(held_out))
        images, labels = zoo.images["features"].float(), zoo.images["label"].long()
        self.space = self._fit(images, labels, self._kept)
        self.features = torch.zeros_like(zoo.images["features"])
        width = images.shape[-1]
        whitened, plain, familiar = ([torch.zeros(len(texts), width), torch.ones(len(texts))] for _ in range(3))
        for data in dict.fromkeys(self._owner):
            own = self._owner == data
            others = self._kept & ~own
            space = self._fit(images, labels, others) if others.any() and (self._kept & own).any() else self.space
            mine = torch.from_numpy(own)
            here = mine[labels]
            self.features[here] = space.features(images[here]).half()
            taken, nothing = [self._names[i] for i in np.flatnonzero(own)], own & ~own
            for found, *given in ((whitened, taken, others), (plain, taken, nothing), (familiar, [], others)):
                known = self._map(space, *given)
                if known is not None:
                    found[0][mine], found[1][mine] = known(texts[mine])
        self.whitened, self.familiar = Directions.of_one(*whitened), Directions.of_one(*familiar)
        self.plain = None if rows is None else Directions.of_one(*plain)

    @classmethod
    def of(cls, zoo: Zoo, held_out: Sequence[str]) -> "ZooNames | None":
        """Of a zoo; None where there is nothing to learn from: one data set, and an encoder without classifier rows."""
        rows = classifier_rows(zoo.encoder)
        others = {d["name"] for d in zoo.datasets} - set(held_out)
        if rows is None and len(others) < 2:
            return None
        encoder = load_text_encoder(text_encoder_for(zoo.encoder))
        texts = embed_names([name for _, name in zoo.class_names], encoder)
        row_texts = torch.zeros(1000, texts.shape[-1]) if rows is None else embed_rows(rows, encoder)
        return cls(zoo, texts, rows, row_texts, held_out)

    def _fit(self, images: Tensor, labels: Tensor, kept: np.ndarray) -> NameSpace:
        """The space of the classes ``kept`` (classes,) bool."""
        used = torch.from_numpy(kept)
        number = used.cumsum(0) - 1
        names = ["/".join(self.zoo.class_names[i]) for i in np.flatnonzero(kept)]
        sizes = (images.shape[-1], self.texts.shape[-1])
        space = NameSpace(self.zoo.encoder, text_encoder_for(self.zoo.encoder), *sizes, names)
        here = used[labels]
        space.fit(images[here], number[labels[here]])
        space.class_texts.data, space.imagenet_texts.data = self.texts[used].clone(), self.row_texts.clone()
        return space.requires_grad_(False)

    def _map(self, space: NameSpace, taken: list[str], others: np.ndarray) -> NameMap | None:
        """The map without classes that are called like those ``taken``; ``others`` are the other sets' classes, none
        for the map of the rows alone on features that are not whitened."""
        texts, rows = [], []
        if self.rows is not None:
            new = without(self.rows.names, taken)
            full = centred_rows(self.rows.weight)
            if others.any():
                full = functional.normalize(torch.linalg.solve(space.whiten, full.mT).mT, dim=-1)
            texts.append(self.row_texts[new])
            rows.append(full[new])
        if others.any():
            members = np.flatnonzero(others)
            new = without([self._names[i] for i in members], taken)
            place = torch.from_numpy((np.cumsum(self._kept_of(space)) - 1)[members])
            texts.append(self.texts[torch.from_numpy(members)][new])
            rows.append(space.class_means[place][new])
        return NameMap(torch.cat(texts), torch.cat(rows)) if texts and sum(map(len, texts)) else None

    def _kept_of(self, space: NameSpace) -> np.ndarray:
        names = set(space.config.classes)
        return np.array(["/".join(name) in names for name in self.zoo.class_names])

    def directions(
        self, classes: Tensor, plain: bool, rng: np.random.Generator, true: bool | None = None
    ) -> Directions:
        """Directions of B tasks' classes (B, C): their own, or now and then not (`TRUE`, `PERMUTED`, `FOREIGN`).

        Args:
            plain: for features that are not whitened.
            true: always their own, or never (in another order).
        """
        source = self.plain if plain and self.plain is not None else self.whitened
        chosen, named = classes.clone(), torch.ones(len(classes))
        for i, own in enumerate(classes):
            kind = rng.random() if true is None else (0.0 if true else TRUE)
            if kind < TRUE:
                continue
            if kind < TRUE + PERMUTED:
                chosen[i] = own[torch.from_numpy(rng.permutation(len(own)))]
            elif kind < TRUE + PERMUTED + FOREIGN:
                chosen[i] = torch.from_numpy(rng.choice(len(self.texts), len(own), replace=len(own) > len(self.texts)))
            else:
                named[i] = 0
        return Directions(source.weight[0][chosen], source.variance[0][chosen], named)


def fit_alone(names: ZooNames, seed: int = 0) -> dict[str, float]:
    """Set how strong names alone are, and what accuracy is to be expected (`NameSpace`), on tasks of the training sets
    without images, half of them of classes whose names are new; returns what was measured on those, and the mean error
    of the expectation on all."""
    rng = np.random.default_rng(seed)
    table, labels = names.zoo.class_images, names.zoo.images["label"].long()
    owner = np.array([data for data, _ in names.zoo.class_names])
    groups = [np.flatnonzero((owner == data) & names._kept) for data in dict.fromkeys(owner[names._kept])]
    groups = [group for group in groups if len(group) > 1]
    tasks = []
    for number in range(ALONE):
        source = names.familiar if number % 2 else names.whitened
        group = groups[int(rng.integers(len(groups)))]
        ways = round(math.exp(rng.uniform(math.log(2), math.log(min(50, len(group))))))
        chosen = torch.from_numpy(rng.choice(group, ways, replace=False))
        images = table[chosen][:, :10].flatten()
        images = images[images >= 0]
        truth = (labels[images].unsqueeze(1) == chosen).long().argmax(1)
        weight, variance = source.weight[0][chosen], source.variance[0][chosen]
        unit = functional.normalize(weight, dim=-1)
        scores = names.features[images].float() @ unit.mT
        tasks.append((scores, truth, weight.norm(dim=-1), expectation_facts(unit, variance)))
    alone = torch.tensor([1.0, 1.0], requires_grad=True)
    optimiser = torch.optim.Adam([alone], lr=0.05)

    def loss() -> Tensor:
        parts = [
            functional.cross_entropy(scores * strengths(alone[0], alone[1], length), truth) / math.log(scores.shape[-1])
            for scores, truth, length, _ in tasks
        ]
        return torch.stack(parts).mean()

    for _ in range(STEPS):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    alone = alone.detach()
    strength = tuple(round(float(value), 4) for value in alone)
    names.space.register_to_config(alone=strength)
    facts = torch.stack([fact for *_, fact in tasks])
    hits = [
        float(((scores * strengths(alone[0], alone[1], length)).argmax(-1) == truth).float().mean())
        for scores, truth, length, _ in tasks
    ]
    above = torch.tensor(
        [(hit - 1 / len(length)) / (1 - 1 / len(length)) for hit, (_, _, length, _) in zip(hits, tasks, strict=True)]
    )
    logits = above.clamp(0.02, 0.98).logit()
    penalty = 1e-2 * len(facts) * torch.eye(4)
    solved = torch.linalg.solve(facts.T @ facts + penalty, facts.T @ logits)
    missed = (facts @ solved).sigmoid() - above
    names.space.register_to_config(expected=(*(round(float(v), 4) for v in solved), round(float(missed.std()), 4)))
    return {
        "names_alone": round(float(np.mean(hits[::2])), 4),
        "expectation_error": round(float(missed.abs().mean()), 4),
    }
