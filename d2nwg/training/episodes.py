"""Tasks for training the dual-coordinate generator, drawn from the records of zoos, on one encoder or several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.models.names import Directions
from d2nwg.training.config import DualConfig
from d2nwg.training.names import ZooNames
from d2nwg.utils.errors import UserError
from d2nwg.weights.zoo import BATCH, Zoo

PLAIN = 0.25  # of tasks with names are as on an encoder of which nothing but its classifier is known


@dataclass
class Episode:
    """B tasks of one shape.

    Attributes:
        support: (B, n, d) features and ``targets`` (B, n, C).
        unlabelled: (B, m, d), images of the same classes; m may be 0.
        query: (B, q, d) and ``labels`` (q,), the same for every task.
        zoo_logits: (B, n + m + q, C) what the zoo's heads, trained on many images of these classes, say of all
            these images in that order.
        directions: what the names of the classes say, in the space of the features; None where names are no condition.
    """

    support: Tensor
    targets: Tensor
    unlabelled: Tensor
    query: Tensor
    labels: Tensor
    zoo_logits: Tensor
    directions: Directions | None = None


class ZooEpisodes:
    """Draws tasks by step. Data sets named in ``config.held_out`` are drawn by `held_out` alone.

    Raises:
        UserError: a zoo of two-layer heads, or held-out data sets that leave nothing to train on or are not there.
    """

    def __init__(
        self,
        zoos: Sequence[Zoo],
        config: DualConfig,
        device: torch.device,
        names: Sequence[ZooNames | None] = (),
    ):
        """``names`` are those of each zoo; nothing for a generator without them."""
        self.names = list(names) or [None] * len(zoos)
        self.zoos, self.config, self.device = list(zoos), config, device
        names = {d["name"] for zoo in zoos for d in zoo.datasets}
        if unknown := set(config.held_out) - names:
            raise UserError(f"{sorted(unknown)[0]} is not in the zoo, whose data sets are {', '.join(sorted(names))}.")
        self._blocks: list[list[np.ndarray]] = []
        self._aside: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        for zoo in self.zoos:
            if zoo.config.probe != "linear":
                raise UserError(f"The dual generator makes linear heads, and {zoo.path} holds two-layer ones.")
            held = torch.tensor([name in config.held_out for name, _ in zoo.class_names])
            classes = zoo.record_classes()
            kept = ~held[classes[:, 0]].numpy()
            # Records of one block have the same number of classes (`d2nwg.weights.zoo`), so that they stack.
            blocks = [np.flatnonzero(kept[i : i + BATCH]) + i for i in range(0, len(zoo), BATCH)]
            self._blocks.append([block for block in blocks if len(block)])
            self._counts.append((classes >= 0).sum(1).numpy())
            self._aside.append(np.flatnonzero(~kept))
            if not self._blocks[-1]:
                raise UserError(f"Nothing of {zoo.path} is left to train on: hold fewer data sets aside.")

    def draw(self, rng: np.random.Generator) -> Episode:
        """Tasks of random records of one zoo, on a random part of their classes."""
        number = int(rng.integers(len(self.zoos)))
        block = self._blocks[number][rng.integers(len(self._blocks[number]))]
        c = self.config
        most = min(int(self._counts[number][block[0]]), c.max_classes)
        ways = min(most, int(np.exp(rng.uniform(np.log(2), np.log(most + 1)))))
        shots, unlabelled = int(rng.choice(c.shots)), int(rng.choice(c.unlabelled))
        return self._episode(number, rng.choice(block, c.tasks), ways, shots, unlabelled, rng)

    def held_out(
        self, ways: int, shots: int, unlabelled: int, rng: np.random.Generator, true: bool = True
    ) -> Episode | None:
        """Tasks of the first zoo's held-out data sets, of fewer classes where no record has so many, with their own
        names or (``true`` = False) those in another order; None without any held-out data set."""
        aside = self._aside[0]
        if not len(aside):
            return None
        counts = self._counts[0][aside]
        ways = min(ways, int(counts.max()))
        enough = aside[counts >= ways]
        return self._episode(0, rng.choice(enough, self.config.tasks), ways, shots, unlabelled, rng, true)

    def _episode(self, number, rows, ways, shots, unlabelled, rng, true=None) -> Episode:
        zoo, names = self.zoos[number], self.names[number]
        records = zoo.records(rows.tolist())
        keys = torch.from_numpy(rng.random(records.classes.shape)) + (records.classes < 0)
        part = keys.argsort(-1)[:, :ways]  # (B, C) rows of the zoo's heads
        members = zoo.class_images[records.classes.gather(1, part)]  # (B, C, L)
        keys = torch.from_numpy(rng.random(members.shape)) + (members < 0)
        members = members.gather(-1, keys.argsort(-1))
        available = int((members >= 0).sum(-1).min())
        limit = max(1, self.config.max_images // ways)
        shots = max(1, min(shots, limit, available // 2))
        unlabelled = min(unlabelled, limit, max(0, available - shots - 5))
        query = max(1, min(self.config.query, available - shots - unlabelled))
        support, rest, asked = members[..., : shots + unlabelled + query].split([shots, unlabelled, query], -1)
        rest = rest.flatten(1)
        # The classes of unlabelled images are seldom equally frequent.
        rest = rest[:, torch.from_numpy(rng.permutation(rest.shape[1])[: -(-rest.shape[1] * 3 // 4)])]
        images = torch.cat([support.flatten(1), rest, asked.flatten(1)], 1)
        plain = names is None or (names.plain is not None and true is None and rng.random() < PLAIN)
        # Nothing but the classifier is known of encoders beside the first one.
        plain = plain or zoo.encoder != self.zoos[0].encoder
        source = zoo.images["features"] if plain or names is None else names.features
        features = source[images].float().to(self.device)
        directions = None
        if names is not None:
            directions = names.directions(records.classes.gather(1, part), plain, rng, true).to(features)
        projected = zoo.projected[images].to(self.device)
        state = {name: value.to(self.device) for name, value in records.state.items()}
        part = part.to(self.device)
        weight = state["weight"].gather(1, part.unsqueeze(-1).expand(-1, -1, state["weight"].shape[-1]))
        logits = projected @ weight.mT + state["bias"].gather(1, part).unsqueeze(1)
        eye = torch.eye(ways, device=self.device)
        given, free, scored = features.split([ways * shots, rest.shape[1], ways * query], 1)
        return Episode(
            support=given,
            targets=eye.repeat_interleave(shots, 0).expand(len(rows), -1, -1),
            unlabelled=free,
            query=scored,
            labels=torch.arange(ways, device=self.device).repeat_interleave(query),
            zoo_logits=logits,
            directions=directions,
        )
