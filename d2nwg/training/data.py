"""Batches for the three stages: zoo records with their class order shuffled, and their support images."""

from dataclasses import dataclass, replace

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
        accuracy: (B,) on images of the same classes outside the support.
    """

    vectors: Tensor
    mask: Tensor
    counts: Tensor
    support: Tensor
    accuracy: Tensor


class ZooBatches:
    """Draws training batches from a zoo, by step, and holds its last records out."""

    def __init__(
        self,
        zoo: Zoo,
        layout: WholeLayout,
        shots: tuple[int, ...],
        device: torch.device,
        sort: bool = False,
        kept: np.ndarray | None = None,
    ):
        """``sort``: classes are in the order of their numbers (`Conditioner.sorts_classes`), not in a random one;
        ``kept``: the records to draw from (`training_records`), by default all that are not held out."""
        self.arrange = sort_classes if sort else shuffle_classes
        self.zoo, self.layout, self.shots, self.device = zoo, layout, shots, device
        self.part = slice(None)
        self.features = zoo.projected.to(device)
        self.kept = training_records(zoo) if kept is None else kept
        self.aside = range(_training_size(zoo), len(zoo))

    def draw(self, size: int, rng: np.random.Generator) -> Batch:
        """A random batch, each record at a random one of its checkpoints. Of several processes each reads its part of
        the same `size` records."""
        return self.batch(self._records(size, rng), rng)

    def _records(self, size: int, rng: np.random.Generator) -> Records:
        numbers = self.kept[rng.integers(len(self.kept), size=size)][self.part].tolist()
        steps = rng.integers(self.zoo.config.checkpoints, size=size)[self.part].tolist()
        return self.zoo.records(numbers, steps)

    def draw_judged(self, size: int, rng: np.random.Generator) -> Batch:
        """As `draw`, for an accuracy predictor: a third of the heads as they are, with the accuracies that the zoo
        records; the others spoilt (`spoil`), as samples can be and zoo heads are not, and measured on the same images.
        """
        records = self._records(size, rng)
        return self.batch(self.judged(records, rng.integers(3, size=len(records.counts)), rng), rng)

    def judged_aside(self, rng: np.random.Generator) -> dict[str, Batch]:
        """The held-out records as they are (``zoo``), and spoilt in equal parts (``spoilt``)."""
        records = self.zoo.records(list(self.aside))
        spoilt = self.judged(records, 1 + np.arange(len(records.counts)) % 2, rng)
        return {"zoo": self.batch(records, rng), "spoilt": self.batch(spoilt, rng)}

    def judged(self, records: Records, kinds: np.ndarray, rng: np.random.Generator) -> Records:
        """Records with their heads spoilt, as ``kinds`` (B,) says, and the accuracies that these have."""
        state = spoil(records.state, kinds, self.layout.std, rng)
        moved = {name: value.to(self.device) for name, value in state.items()}
        accuracy = torch.where(torch.from_numpy(kinds) > 0, self.query_accuracy(moved, records), records.accuracy)
        return replace(records, state=state, accuracy=accuracy)

    def predictor_inputs(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor]:
        """(B, C_max, k) means of each class's support images, of a random number of shots; zero for unused slots."""
        features, mask = self.condition_input(batch.support, rng)
        return (features.sum(2) / mask.sum(2, keepdim=True).clamp_min(1),)

    def batch(self, records: Records, rng: np.random.Generator) -> Batch:
        """Records → vectors, with each record's classes in a new random order (used slots stay first), or sorted."""
        state, support = self.arrange(records, rng)
        counts = records.counts.to(self.device)
        state = {name: value.to(self.device) for name, value in state.items()}
        mask = self.layout.mask(counts)
        return Batch(self.layout.flatten(state) * mask, mask, counts, support, records.accuracy.to(self.device))

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


def _training_size(zoo: Zoo) -> int:
    return len(zoo) - min(HELD_ASIDE, len(zoo) // 5)


def training_records(zoo: Zoo, most: int = 0, seed: int = 0) -> np.ndarray:
    """Numbers of the records to train on: all that are not held out, or at random at most ``most`` of them."""
    size = _training_size(zoo)
    if not most or most >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng([seed, most]).permutation(size)[:most])


def spoil(state: State, kinds: np.ndarray, std: dict[str, float], rng: np.random.Generator) -> State:
    """Heads (B, …) as they are (kind 0), with noise of a random size (1), or mixed with another head of the batch (2).

    Args:
        kinds: (B,).
        std: of each tensor's numbers over the zoo, the unit of the noise.
    """
    size, kind = len(kinds), torch.from_numpy(kinds)
    noise = torch.from_numpy(10 ** rng.uniform(-1, 0.5, size)).float() * (kind == 1)
    share = torch.from_numpy(rng.uniform(0, 1, size)).float() * (kind == 2)
    other, made = torch.from_numpy(rng.permutation(size)), {}
    for name, tensor in state.items():
        shape = (-1, *[1] * (tensor.dim() - 1))
        drawn = torch.from_numpy(rng.standard_normal(tensor.shape, dtype=np.float32)) * std[name]
        made[name] = tensor + noise.reshape(shape) * drawn + share.reshape(shape) * (tensor[other] - tensor)
    return made


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
