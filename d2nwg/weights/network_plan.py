"""Which small networks a zoo is of: its settings, and its tasks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from d2nwg.data.arrays import ImageArrays
from d2nwg.utils.errors import UserError
from d2nwg.weights.network_tasks import PLAIN, NetworkTask


@dataclass(frozen=True)
class NetworkZooConfig:
    """How a zoo of small networks is built.

    Attributes:
        network: of `d2nwg.weights.small_networks.NETWORKS`.
        size: of the images, in pixels a side.
        classes: of a task; by default those of the data sets, which then have equally many.
        subsets: tasks of random classes in random order, shared evenly among the data sets; 0 for one task a data set,
            of all its classes in their order.
        variants: of the images, beside the plain ones; random tasks take them in turn, whole data sets take each.
        epochs: passes over a task's images; 0 for ``updates``.
        updates: steps of the optimiser, whatever the number of images.
        batch: images a step.
        lr: learning rate of Adam.
        keep: checkpoints of a network that are kept: the last one, and others at equal distances in the last third, or
            of the last epochs.
        starts: initial weights; the networks take them in turn.
        seeds: networks a task; they differ by the order of the images.
        seed: of everything that is random.
    """

    network: str = "cnn"
    size: int = 28
    classes: int | None = None
    subsets: int = 0
    variants: tuple[str, ...] = ()
    epochs: int = 0
    updates: int = 400
    batch: int = 64
    lr: float = 5e-3
    keep: int = 1
    starts: int = 1
    seeds: int = 1
    seed: int = 0


def plan(sets: Sequence[ImageArrays], config: NetworkZooConfig) -> dict[str, NetworkTask]:
    """The tasks of a zoo by name, those of a data set one after the other.

    Raises:
        UserError: a data set has too few classes, or they have not equally many.
    """
    variants = (PLAIN, *config.variants)
    tasks: dict[str, NetworkTask] = {}
    for number, one in enumerate(sets):
        count = len(one.classes)
        classes = config.classes or len(sets[0].classes)
        if classes > count or (not config.subsets and classes != count):
            raise UserError(
                f"{one.name} has {count:,} classes, and the zoo's networks tell {classes:,} apart: give a number of "
                "classes that every data set has (--classes) and how many random subsets to train on (--subsets)."
            )
        chosen: list[tuple[str, Sequence[int], str]] = []
        if config.subsets:
            rng = np.random.default_rng([config.seed % 2**64, number])
            share = config.subsets // len(sets) + (number < config.subsets % len(sets))
            for i in range(share):
                drawn = rng.permutation(count)[:classes].tolist()
                chosen.append((f"{one.name}-{i:04d}", drawn, variants[i % len(variants)]))
        else:
            chosen = [(one.name, range(count), variant) for variant in variants]
        for name, numbers, variant in chosen:
            name = name if variant == PLAIN else f"{name}-{variant}"
            tasks[name] = NetworkTask(set=number, classes=list(numbers), variant=variant)  # type: ignore[arg-type]
    return tasks


def prepared(sets: Sequence[ImageArrays]) -> list[ImageArrays]:
    """Under names that are all different, and all of three channels where one of them is."""
    channels, names = max(one.channels for one in sets), [one.name for one in sets]
    alike = [one if one.channels == channels else one.coloured() for one in sets]
    return [
        replace(one, name=f"{one.name}-{names[: i + 1].count(one.name)}") if one.name in names[:i] else one
        for i, one in enumerate(alike)
    ]


def fingerprint(one: ImageArrays) -> str:
    """A data set's fingerprint."""
    content = hashlib.sha256(repr((one.classes, one.train.shape, one.test.shape)).encode("utf-8", "replace"))
    for array in (one.train, one.train_labels, one.test, one.test_labels):
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()[:32]
