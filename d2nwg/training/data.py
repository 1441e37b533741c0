"""Batches for the three stages: zoo records with their class order shuffled, and their support images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import State, select_classes
from d2nwg.weights.probes import masked_accuracy
from d2nwg.weights.zoo import QUERY, Records, Zoo, gather_images

HELD_ASIDE = 256  # records at the zoo's end that no stage trains on; they score the VAE


@dataclass
class Batch:
    """B records, class order shuffled.

    Attributes:
        vectors: (B, N) standardised.
        mask: (B, N) bool, the numbers that count.
        counts: (B,) classes.
        support: (B, C_max, M) image numbers, -1 for padding.
    """

    vectors: Tensor
    mask: Tensor
    counts: Tensor
    support: Tensor


class ZooBatches:
    """Draws training batches from a zoo, by step, and holds its last records out."""

    def __init__(self, zoo: Zoo, layout: WholeLayout, shots: tuple[int, ...], device: torch.device, sort: bool = False):
        """``sort``: classes are in the order of their numbers (`Conditioner.sorts_classes`), not in a random one."""
        self.arrange = sort_classes if sort else shuffle_classes
        self.zoo, self.layout, self.shots, self.device = zoo, layout, shots, device
        self.part = slice(None)
        self.features = zoo.projected.to(device)
        aside = min(HELD_ASIDE, len(zoo) // 5)
        self.train_size = len(zoo) - aside
        self.aside = range(self.train_size, len(zoo))

    def draw(self, size: int, rng: np.random.Generator) -> Batch:
        """A random batch, each record at a random one of its checkpoints. Of several processes each reads its part of
        the same `size` records."""
        numbers = rng.integers(self.train_size, size=size)[self.part].tolist()
        steps = rng.integers(self.zoo.config.checkpoints, size=size)[self.part].tolist()
        return self.batch(self.zoo.records(numbers, steps), rng)

    def batch(self, records: Records, rng: np.random.Generator) -> Batch:
        """Records → vectors, with each record's classes in a new random order (used slots stay first), or sorted."""
        state, support = self.arrange(records, rng)
        counts = records.counts.to(self.device)
        state = {name: value.to(self.device) for name, value in state.items()}
        mask = self.layout.mask(counts)
        return Batch(self.layout.flatten(state) * mask, mask, counts, support)

    def condition_input(self, support: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Support images cut to a random number of shots → features (B, C_max, m, k) and mask (B, C_max, m)."""
        keys = torch.from_numpy(rng.random(support.shape)) + (support < 0)
        shots = min(int(rng.choice(self.shots)), support.shape[-1])
        chosen = support.gather(-1, keys.argsort(-1))[..., :shots].to(self.device)
        mask = chosen >= 0
        return self.features[chosen.clamp_min(0)] * mask.unsqueeze(-1), mask

    def ids(self, batch: Batch | Records) -> Tensor:
        """(B, C_max) the numbers of each record's classes, -1 for unused slots."""
        first = batch.support[..., 0]
        labels = self.zoo.images["label"][first.clamp_min(0)].long()
        return torch.where(first >= 0, labels, -1).to(self.device)

    def query_accuracy(self, state: State, records: Records) -> Tensor:
        """(B,) accuracy of heads for these records, on images of their classes outside their support."""
        table = self.zoo.class_images
        members = torch.where(records.classes.unsqueeze(-1) >= 0, table[records.classes.clamp_min(0)], -1)
        used = (members.unsqueeze(-1) == records.support.unsqueeze(-2)).any(-1)
        query = torch.where(used, -1, members)
        query = query.gather(-1, (query < 0).int().argsort(dim=-1, stable=True))[..., :QUERY]
        images = gather_images(self.features, query, self.device)
        return masked_accuracy(state, *images, records.counts.to(self.device)).cpu()


def shuffle_classes(records: Records, rng: np.random.Generator) -> tuple[State, Tensor]:
    """The heads and supports with the used class slots of each record permuted."""
    return _arranged(records, torch.from_numpy(rng.random(records.classes.shape)) + (records.classes < 0))


def sort_classes(records: Records, _rng=None) -> tuple[State, Tensor]:
    """The same, in the order of the classes' numbers."""
    return _arranged(records, torch.where(records.classes < 0, torch.iinfo(torch.int64).max, records.classes))


def _arranged(records: Records, keys: Tensor) -> tuple[State, Tensor]:
    size, order = len(keys), keys.argsort(-1)
    rows = [select_classes({n: v[i] for n, v in records.state.items()}, order[i]) for i in range(size)]
    state = {name: torch.stack([row[name] for row in rows]) for name in records.state}
    support = records.support.gather(1, order.unsqueeze(-1).expand_as(records.support))
    return state, support
