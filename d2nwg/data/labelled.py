"""A labelled set of images or texts: what both have, and the checks that every source of one shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from d2nwg.data.deep import PixelScale
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number, shown, some

TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("test", "testing", "valid", "validation", "val")


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """A labelled data set of n items.

    Attributes:
        name: for sentences and reports.
        classes: the class names, sorted; those of array files in the order of their numbers.
        items: (n,) what an encoder takes: see the subclass.
        labels: (n,) int64, index into `classes`.
        is_test: (n,) bool, True for the items of the test split; all False where there is none.
        notes: sentences for the user: what was left out and why.
    """

    name: str
    classes: tuple[str, ...]
    items: Sequence[Any]
    labels: np.ndarray
    is_test: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def noun(self) -> str:
        """What one item is called in a sentence."""
        raise NotImplementedError

    def scale(self, progress: Progress = silent) -> PixelScale:
        """The scale of images of more than 8 bits a channel; nothing for a set without any."""
        return PixelScale()


Set = TypeVar("Set", bound=LabelledSet)


def labelled_set(
    kind: type[Set],
    name: str,
    items: Sequence[Any],
    labels: Sequence[str],
    is_test: Sequence[bool],
    notes: Sequence[str],
) -> Set:
    """The set, of a kind, of items with one class name each.

    Raises:
        UserError: fewer than two classes, or test items of a class that has no training items.
    """
    testing = np.asarray(is_test, bool)
    if not len(labels):
        raise UserError(f"{name} holds no labelled {kind(name, (), items, np.zeros(0, int), testing).noun}s.")
    classes, index = np.unique(np.asarray(labels, object), return_inverse=True)
    classes = tuple(str(label) for label in classes)
    made = kind(name, classes, items, index.astype(np.int64), testing, tuple(notes))
    nouns = f"{made.noun}s"
    if len(classes) < 2:
        raise UserError(f"{name} has only one class, {shown(classes[0])}; a classifier needs at least two.")
    trained = np.bincount(made.labels[~testing], minlength=len(classes))
    tested = np.bincount(made.labels[testing], minlength=len(classes))
    unknown = [label for label, count in zip(classes, trained, strict=True) if not count]
    if unknown:
        raise UserError(
            f"The test {nouns} of {name} have a class that its training {nouns} do not: "
            f"{some(unknown)}; use the same classes in both."
        )
    untested = [label for label, count in zip(classes, tested, strict=True) if not count]
    if testing.any() and untested:
        object.__setattr__(made, "notes", (*made.notes, f"No test {nouns} for {some(untested)}."))
    return made


def check_readable(data: LabelledSet, opened: np.ndarray, readable: np.ndarray) -> tuple[str, ...]:
    """Notes on the items that could not be read: none, or one sentence with their number and a few names.

    Args:
        opened: (m,) indices of the items that were opened.
        readable: (n,) bool, a mask over all items.
    Raises:
        UserError: more than half of the opened items could not be read.
    """
    bad = np.asarray(opened)[~np.asarray(readable)[opened]]
    if not len(bad):
        return ()
    names = some([item_name(data, i) for i in bad[:3]] + [None] * (len(bad) - 3))
    if 2 * len(bad) > len(opened):
        raise UserError(
            f"{len(bad):,} of {len(opened):,} {data.noun}s in {data.name} cannot be read ({names}); check "
            "that none is damaged or empty."
        )
    return (f"Left out {number(len(bad), data.noun)} of {len(opened):,} that could not be read: {names}.",)


def item_name(data: LabelledSet, index: int) -> str:
    """An item in words: its class and the name of its file, or its number."""
    item, label = data.items[int(index)], data.classes[data.labels[index]]
    return f"{label}/{item.name}" if isinstance(item, Path) else f"number {int(index)} ({label})"
