"""Tasks that a generator of small networks learns from: random classes of a zoo's images, and the zoo's own tasks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.utils.errors import UserError
from d2nwg.weights.network_tasks import NetworkTasks, varied


@dataclass
class NetworkEpisode:
    """B tasks of C classes.

    Attributes:
        support: (B, C, n, c, s, s) bytes.
        query: (B, C × q, c, s, s) bytes, grouped by class.
        labels: (C × q,) their classes.
    """

    support: Tensor
    query: Tensor
    labels: Tensor


class TaskPool:
    """The images of a zoo's data sets, by class: what random tasks are drawn from, also of classes and orders that no
    network was trained on.

    Args:
        tasks: of the zoo.
        held_out: names of tasks whose classes no random task has.
    """

    def __init__(self, tasks: NetworkTasks, held_out: Iterable[str] = ()):
        self.tasks = tasks
        left_out = {(tasks.tasks[name].set, c) for name in held_out for c in tasks.tasks[name].classes}
        self.images: dict[int, Tensor] = {}
        self.rows: dict[int, list[np.ndarray]] = {}  # of each class's images
        self.groups = sorted({(about.set, about.variant) for about in tasks.tasks.values()})
        for number in {number for number, _ in self.groups}:
            self.images[number], labels, _, _ = tasks.set_images(number)
            kept = [c for c in labels.unique().tolist() if (number, c) not in left_out]
            self.rows[number] = [np.flatnonzero((labels == c).numpy()) for c in kept]
        self.groups = [group for group in self.groups if len(self.rows[group[0]]) > 1]
        if not self.groups:
            raise UserError("The zoo's tasks leave nothing to train on: build one of more classes.")
        self.most = max(len(self.rows[number]) for number, _ in self.groups)

    def draw(self, count: int, classes: int, shots: int, query: int, rng: np.random.Generator) -> NetworkEpisode:
        """Random tasks: of a random set and variant each (larger sets more often), ``classes`` of its classes,
        ``shots`` support images and ``query`` others of each."""
        large = [group for group in self.groups if len(self.rows[group[0]]) >= classes]
        share = np.array([math.sqrt(len(self.rows[number])) for number, _ in large])
        found = []
        for _ in range(count):
            number, variant = large[int(rng.choice(len(large), p=share / share.sum()))]
            own = self.rows[number]
            chosen = [_some(own[c], shots + query, rng) for c in rng.permutation(len(own))[:classes]]
            found.append(varied(self.images[number][np.stack(chosen)], variant))
        images = torch.stack(found)  # (B, C, shots + query, c, s, s)
        labels = torch.arange(classes).repeat_interleave(query)
        return NetworkEpisode(images[:, :, :shots], images[:, :, shots:].flatten(1, 2), labels)

    def of_task(self, name: str, shots: int, query: int, rng: np.random.Generator) -> NetworkEpisode:
        """A task of the zoo (B = 1), its rows in the networks' order: support images from its training part, at most
        ``query`` a class from its test part."""
        images, labels, test, test_labels = self.tasks.images(name)
        classes = len(self.tasks.tasks[name].classes)
        own = [np.flatnonzero((labels == row).numpy()) for row in range(classes)]
        support = images[np.stack([_some(rows, shots, rng) for rows in own])]
        held = [rng.permutation(np.flatnonzero((test_labels == row).numpy()))[:query] for row in range(classes)]
        chosen = np.concatenate(held)
        return NetworkEpisode(support.unsqueeze(0), test[chosen].unsqueeze(0), test_labels[chosen])


def _some(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` of these in random order; of too few some again."""
    chosen = rng.permutation(rows)[:count]
    return np.concatenate([chosen, rng.choice(rows, size=count - len(chosen))]) if len(chosen) < count else chosen


def choose_held_out(tasks: NetworkTasks, share: float) -> list[str]:
    """Tasks that measure a generator: about this share of all, of sets that have so many classes that random tasks
    without theirs are left; none where there is no such set."""
    left: dict[int, set[int]] = {}
    sizes: dict[int, int] = {}
    for about in tasks.tasks.values():
        left.setdefault(about.set, set()).update(about.classes)
        sizes[about.set] = max(sizes.get(about.set, 0), len(about.classes))
    chosen: list[str] = []
    most = round(share * len(tasks.tasks))
    names = sorted(tasks.tasks)
    for number in np.random.default_rng(0).permutation(len(names)).tolist():
        about = tasks.tasks[names[number]]
        rest = left[about.set] - set(about.classes)
        if len(chosen) < most and len(rest) >= max(2 * sizes[about.set], len(left[about.set]) // 2):
            left[about.set] = rest
            chosen.append(names[number])
    return chosen
