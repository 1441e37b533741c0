"""What an exploration has made: heads, or whole networks, of several origins, and all that does not depend on how they
are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from d2nwg.analysis.compare import length
from d2nwg.analysis.populations import MADE, SAMPLE, TRAINED, ZOO, Population, matrix, part_names
from d2nwg.evaluation.zoo_baselines import ZooBaseline
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import read_json


@dataclass(frozen=True)
class Exploration:
    """Generated heads and zoo heads: all results that do not depend on a space or part.

    What is said of networks instead (`d2nwg.exploration.networks`) is another class's; ``noun`` is what a point is,
    ``whole`` what all its numbers are, ``unit_words`` the unit of distances, ``latent_words`` the latent space,
    ``fitted`` what was trained on the same images.

    Attributes:
        bundle: name.
        space, vae: the bundle's; ``vae`` is None where its generator has none.
        heads: zoo heads, samples, and heads trained on the same images.
        tasks: that heads were generated for.
        distance: (n,) of each head to the nearest zoo head in weight space, in lengths of a zoo head
            (`d2nwg.evaluation.zoo_distance`); NaN where none has as many classes.
        baselines: name → `ZooBaseline`: `ZOO` (zoo heads as they are), `NOISE`, `AVERAGE`, `RANDOM`.
        densities: tensor name → (edges, origin → density) of weight values on the projected features.
        zoo_records: heads in the whole zoo; None where the bundle does not record it.
        settings: how it was made.
        seconds: wall time.
    """

    bundle: str
    space: Any
    vae: object
    heads: Population
    tasks: list[Any]
    distance: np.ndarray
    baselines: dict[str, ZooBaseline]
    densities: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]
    zoo_records: int | None
    settings: dict
    seconds: float

    noun: ClassVar[str] = "head"
    whole: ClassVar[str] = "whole heads"
    unit_words: ClassVar[str] = "lengths of a zoo head"
    latent_words: ClassVar[str] = "the VAE's latent space"
    fitted: ClassVar[str] = "heads trained on the same images"

    @property
    def notes(self) -> list[str]:
        """Sentences on what was left out of the tasks' images, and how they were read."""
        return list(dict.fromkeys(note for task in self.tasks for note in task.generation.report.notes))

    @property
    def spaces(self) -> list[str]:
        """The spaces that heads are points of: ``weights``, and ``latent`` where the bundle has a VAE."""
        return ["weights", "latent"] if self.vae is not None else ["weights"]

    def parts(self, where: str = "weights") -> list[str]:
        """The parts of a head that can be compared alone in that space."""
        return part_names(self.space.layout, where)

    def points(self, heads: Population, where: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        """As `d2nwg.analysis.populations.matrix`: (m, d) of some of the heads, and the numbers (m,) of those that have
        the part."""
        return matrix(heads, self.space, self.vae, where, part)

    def unit(self, heads: Population, points: np.ndarray) -> np.ndarray:
        """(n,) the unit of distances of each head among ``points`` (n, d)."""
        return length(heads, points)

    @property
    def compared(self) -> Sequence[int]:
        """The counts (`Population`) of what is compared."""
        return [task.count for task in self.tasks]

    def classes(self, index: int) -> int | None:
        """The number of classes of head ``index``."""
        return int(self.heads.counts[index])

    def task_name(self, index: int) -> str:
        """The task of head ``index``, in words."""
        task = self.heads.task[index]
        return f"a zoo task of {self.heads.counts[index]} classes" if task < 0 else self.tasks[task].name

    def name(self, index: int) -> str:
        """``sample 3``, ``zoo head 17``, ``trained head 2``; ``generated network``, of which a task has one."""
        origin = self.heads.origin[index]
        if origin == MADE:
            return f"generated {self.noun}"
        kind = {ZOO: f"zoo {self.noun}", SAMPLE: "sample", TRAINED: f"trained {self.noun}"}[origin]
        return f"{kind} {self.heads.number[index]}"

    def scored_by(self, index: int) -> Any:
        """The `Task` whose held-out images tell of head ``index``: its own, or for a zoo head the first with as many
        classes; None where there is none."""
        number = self.heads.task[index]
        if number >= 0:
            return self.tasks[number]
        return next((task for task in self.tasks if task.count == self.heads.counts[index]), None)

    def head(self, index: int):
        """Head ``index`` as a `d2nwg.heads.Head`.

        A zoo head gets the classes of the first task with as many, in canonical order: a bundle does not keep its own.

        Raises:
            UserError: there is no task with as many classes.
        """
        task = self.scored_by(index)
        if task is None:
            raise UserError(
                f"The bundle does not keep the classes of {self.name(index)}, and no task here has "
                f"{self.heads.counts[index]}."
            )
        if self.heads.task[index] < 0:
            words = f"{self.name(index)}, its {task.count} outputs named after the classes of {task.name}"
            accuracy = task.score(self.space, self.heads.vectors[[index]])[0]
            return task.head(self.space, self.heads.vectors[index], words, accuracy)
        return task.head(self.space, self.heads.vectors[index], self.name(index), self.heads.accuracy[index])


def zoo_records(path: Path) -> int | None:
    """How many heads or networks the zoo of a bundle had; None where the bundle does not record it."""
    made = read_json(path / "training.json")
    try:
        zoo = made["zoos"][0] if "zoos" in made else made["zoo"]
        count = zoo["records"] if "records" in zoo else zoo["checkpoints"]
    except (KeyError, TypeError, IndexError):
        return None
    return count if isinstance(count, int) else None
