"""Finding heads among those of an exploration, and the images that one of them gets right and wrong."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from d2nwg.exploration.result import Exploration

MOST = 12  # images of a kind


@dataclass(frozen=True)
class Seen:
    """What a head predicts of held-out images.

    Attributes:
        task: the data set's name.
        of: the number of held-out images.
        correct: how many of them it gets right.
        right: some of those, every class in turn: (number in the data set, class).
        wrong: some of the others: (number in the data set, class, predicted class).
    """

    task: str
    of: int
    correct: int
    right: list[tuple[int, str]]
    wrong: list[tuple[int, str, str]]


def seen(found: Exploration, index: int, most: int = MOST) -> Seen | None:
    """The held-out images of its task that head ``index`` gets right and wrong, at most ``most`` of each; a zoo head is
    tried on the first task that it fits. None where there is none."""
    task = found.scored_by(index)
    if task is None:
        return None
    head = found.head(index)
    truth, predicted, numbers = np.asarray(task.labels), task.predicted(head), task.query_index
    names, right = head.classes, predicted == truth
    chosen = [_in_turn(np.flatnonzero(which), truth, most) for which in (right, ~right)]
    return Seen(
        task.name,
        len(truth),
        int(right.sum()),
        [(int(numbers[i]), names[truth[i]]) for i in chosen[0]],
        [(int(numbers[i]), names[truth[i]], names[predicted[i]]) for i in chosen[1]],
    )


def _in_turn(rows: np.ndarray, labels: np.ndarray, most: int) -> list[int]:
    """Some of the rows, the first of each class, then the second of each."""
    place = np.zeros(len(rows))
    for label in np.unique(labels[rows]):
        own = labels[rows] == label
        place[own] = np.arange(own.sum())
    return rows[np.lexsort((labels[rows], place))][:most].tolist()


def search(
    found: Exploration, rows: Sequence[int], text: str = "", origins: Collection[str] | None = None
) -> list[int]:
    """Those of some heads that match.

    Args:
        rows: numbers of heads.
        text: a part of the head's name, or of its task's or one of its classes' names, in any case; several words are
            all looked for, and a number only as a whole: 2 is not found in 12. A zoo head's classes are not known.
        origins: of `d2nwg.analysis.populations.ORIGINS`; None for all.
    """
    words = text.casefold().split()
    about = [" ".join((task.name, *task.images.classes)).casefold() for task in found.tasks]
    matching = []
    for row in rows:
        number = int(found.heads.task[row])
        said = f"{found.name(row)} {found.task_name(row)} {about[number] if number >= 0 else ''}".casefold()
        if (origins is None or found.heads.origin[row] in origins) and _all_in(words, said):
            matching.append(int(row))
    return matching


def _all_in(words: Sequence[str], said: str) -> bool:
    whole = set(re.findall(r"\w+", said))
    return all(word in whole if word.isdigit() else word in said for word in words)
