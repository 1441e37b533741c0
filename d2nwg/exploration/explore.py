"""Explore a bundle: generate heads for some tasks and compare them with the bundle's zoo heads.

`explore` generates; `d2nwg.exploration.look` maps and compares the heads, which can be repeated for another space, part
or perplexity without generating again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2nwg.analysis.compare import to_zoo, weight_densities
from d2nwg.analysis.populations import SAMPLE, TRAINED, ZOO, Population, part_names, zoo_population
from d2nwg.bundles import load_pipeline, resolve_bundle
from d2nwg.data.image_set import ImageSet
from d2nwg.evaluation.zoo_baselines import AVERAGE, NOISE, RANDOM, ZooBaseline, make_zoo_baselines
from d2nwg.evaluation.zoo_distance import Neighbours, class_mask, nearest_zoo_heads
from d2nwg.exploration.tasks import Task, fewer, make_task, subsets
from d2nwg.models.spaces import WeightSpace
from d2nwg.pipelines import DEFAULT
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory, seed_number, whole
from d2nwg.utils.paths import read_json
from d2nwg.utils.progress import Progress, silent

MOST_TASKS = 10_000  # to draw from one data set: each is sampled and scored


@dataclass(frozen=True)
class Exploration:
    """Generated heads and zoo heads: all results that do not depend on a space or part.

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
    space: WeightSpace
    vae: object
    heads: Population
    tasks: list[Task]
    distance: np.ndarray
    baselines: dict[str, ZooBaseline]
    densities: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]
    zoo_records: int | None
    settings: dict
    seconds: float

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

    def task_name(self, index: int) -> str:
        """The task of head ``index``, in words."""
        task = self.heads.task[index]
        return f"a zoo task of {self.heads.counts[index]} classes" if task < 0 else self.tasks[task].name

    def name(self, index: int) -> str:
        """``sample 3``, ``zoo head 17``, ``trained head 2``."""
        kind = {ZOO: "zoo head", SAMPLE: "sample", TRAINED: "trained head"}[self.heads.origin[index]]
        return f"{kind} {self.heads.number[index]}"

    def head(self, index: int):
        """Head ``index`` as a `d2nwg.heads.Head`.

        A zoo head gets the classes of the first task with as many, in canonical order: a bundle does not keep its own.

        Raises:
            UserError: there is no task with as many classes.
        """
        task = self.heads.task[index]
        if task < 0:
            fitting = [t for t in self.tasks if t.count == self.heads.counts[index]]
            if not fitting:
                raise UserError(
                    f"The bundle does not keep the classes of {self.name(index)}, and no task here has "
                    f"{self.heads.counts[index]}."
                )
            words = f"{self.name(index)}, its {fitting[0].count} outputs named after the classes of {fitting[0].name}"
            accuracy = fitting[0].score(self.space, self.heads.vectors[[index]])[0]
            return fitting[0].head(self.space, self.heads.vectors[index], words, accuracy)
        return self.tasks[task].head(
            self.space, self.heads.vectors[index], self.name(index), self.heads.accuracy[index]
        )


def explore(
    images: ImageSet | Sequence[ImageSet],
    *,
    bundle: str | Path | None = None,
    tasks: int = 1,
    classes: int | None = None,
    shots: int = 5,
    num_samples: int = 200,
    num_trained: int = 50,
    seed: int = 0,
    steps: int | None = None,
    sampler: str = DEFAULT,
    max_query: int = 150,
    device: str | None = None,
    progress: Progress = silent,
) -> Exploration:
    """Generate heads for one task or several and compare them with the bundle's zoo.

    Args:
        images: a data set, or several: each is a task.
        bundle: name or path; by default the shipped one.
        tasks: number of tasks to draw from one data set, each a random subset of its classes; 1 takes all classes. A
            task-conditioned bundle knows whole data sets only, and takes all classes.
        classes: of such a subset; by default half of the data set's.
        shots, seed, device: as in `generate_heads`.
        num_samples: heads to sample, in equal parts for the tasks.
        steps, sampler: as in `generate_heads`.
        num_trained: heads to train on the same support images, in equal parts.
        max_query: most held-out images of a data set to score on.
        progress: the stages of `generate_heads`, and "Training heads to compare with", "Scoring the baselines".
    Raises:
        UserError: as `generate_heads`, or the bundle keeps no zoo head to compare with.
    """
    whole(tasks, "The number of tasks", 1, MOST_TASKS)
    whole(shots, "The number of shots", 1)
    whole(num_samples, "The number of heads to sample", 1)
    whole(num_trained, "The number of heads to train", 0)
    whole(max_query, "The largest number of query images", 1)
    seed_number(seed)
    if classes is not None:
        whole(classes, "The number of classes of a task", 2)
    started = time.perf_counter()
    sets = [images] if isinstance(images, ImageSet) else list(images)
    path = resolve_bundle(bundle)
    pipe = load_pipeline(path, device)
    if tasks > 1 and len(sets) == 1 and not pipe.tasks:
        pool = fewer(sets[0], shots, max_query, seed)
        sets = subsets(pool, tasks, classes or max(2, len(pool.classes) // 2), seed)
    space = pipe.weight_space
    zoo = zoo_population(space)
    _check_counts(sets, zoo, path.name)
    _check_size(pipe, sets, num_samples, num_trained, shots)
    made, heads = [], [zoo]
    settings: dict[str, Any] = {
        "shots": shots,
        "seed": seed,
        "steps": steps,
        "sampler": sampler,
        "max_query": max_query,
    }
    for i, data in enumerate(sets):
        prefix = f"Task {i + 1} of {len(sets)}: " if len(sets) > 1 else ""
        task, part = make_task(
            data,
            pipe,
            bundle=path,
            number=i,
            device=device,
            **settings,
            num_samples=-(-num_samples // len(sets)),
            num_trained=-(-num_trained // len(sets)),
            progress=lambda stage, done, total, prefix=prefix: progress(
                prefix + (stage[0].lower() + stage[1:] if prefix else stage), done, total
            ),
        )
        made.append(task)
        heads.append(part)
    population = Population.join(heads)
    progress("Scoring the baselines", 0, 1)
    neighbours = to_zoo(population, population.vectors, seed)
    found = Exploration(
        bundle=path.name,
        space=space,
        vae=getattr(pipe, "vae", None),
        heads=population,
        tasks=made,
        distance=neighbours.nearest,
        baselines=zoo_baselines(population, made, space, neighbours, seed),
        densities=weight_densities(population, space),
        zoo_records=_zoo_records(path),
        settings={**settings, "tasks": len(sets), "num_samples": num_samples, "num_trained": num_trained},
        seconds=time.perf_counter() - started,
    )
    progress("Scoring the baselines", 1, 1)
    return found


def zoo_baselines(
    heads: Population, tasks: Sequence[Task], space: WeightSpace, near: Neighbours, seed: int
) -> dict[str, ZooBaseline]:
    """Heads that the zoo gives without a generator, scored on the tasks as the samples are.

    Args:
        near: the nearest zoo heads of each head (`to_zoo`).
        seed: of the noise.
    Returns:
        `ZOO`, the zoo heads themselves (all with as many classes as the task); and for each sample `NOISE`, `AVERAGE`
        and `RANDOM` (`make_zoo_baselines`).
    """
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list] = {ZOO: [], NOISE: [], AVERAGE: [], RANDOM: []}
    for i, task in enumerate(tasks):
        samples, zoo = heads.of(SAMPLE, i), heads.of(ZOO)
        zoo = zoo[heads.counts[zoo] == task.count]
        kept, zoo_counts = heads.vectors[zoo], heads.counts[zoo]
        index = np.searchsorted(zoo, near.index[samples])
        used = class_mask(space, task.count).numpy()
        made = make_zoo_baselines(heads.vectors[samples], kept, index, used, generator)
        for name, vectors in {ZOO: kept, **{name: made[name] for name in (NOISE, AVERAGE, RANDOM)}}.items():
            if name == ZOO:
                distance = Neighbours(near.index[zoo], near.distance[zoo]).nearest
            elif name == RANDOM:
                distance = np.full(len(vectors), np.nan)
            else:
                distance = nearest_zoo_heads(vectors, np.full(len(vectors), task.count), kept, zoo_counts).nearest
            rows[name].append((distance, task.score(space, vectors), np.full(len(vectors), i)))
    return {
        name: ZooBaseline(*(np.concatenate(part) for part in zip(*found, strict=True))) for name, found in rows.items()
    }


def _check_counts(sets, zoo, bundle) -> None:
    kept = sorted(set(zoo.counts.tolist()))
    for data in sets:
        if len(data.classes) not in kept:
            raise UserError(
                f"{data.name} has {len(data.classes)} classes, and the bundle {bundle} keeps zoo heads of "
                f"{', '.join(map(str, kept))} classes: leave some classes out, or draw tasks of fewer classes from it."
            )


def _check_size(pipe, sets, num_samples: int, num_trained: int, shots: int) -> None:
    """Raises UserError for more heads than fit into the memory: all as vectors, in some copies, and of one task those
    that are trained at once."""
    space, layout = pipe.weight_space, pipe.weight_space.layout
    at_once, classes = -(-num_trained // len(sets)), max(len(data.classes) for data in sets)
    width, features = space.config.projected, space.config.num_features
    training = at_once * 4 * (shots * classes * width + 2 * width**2 + 2 * classes * (features + 1))
    needed = 4 * 6 * layout.size * (num_samples + num_trained) + training
    what = f"Exploring {num_samples:,} samples and {num_trained:,} trained heads"
    check_memory(needed, what, "ask for fewer of them", space.mean.device)


def _zoo_records(path: Path) -> int | None:
    made = read_json(path / "training.json")
    try:
        count = (made["zoos"][0] if "zoos" in made else made["zoo"])["records"]
    except (KeyError, TypeError, IndexError):
        return None
    return count if isinstance(count, int) else None
