"""Explore a bundle: generate heads, or whole networks, for some tasks and compare them with the bundle's zoo.

`explore` generates; `d2nwg.exploration.look` maps and compares, which can be repeated for another space, part or
perplexity without generating again.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2nwg.analysis.compare import length, to_zoo, weight_densities
from d2nwg.analysis.populations import Population, zoo_population
from d2nwg.bundles import data_bundle, load_pipeline, makes_for_data, resolve_bundle
from d2nwg.data.image_set import ImageSet
from d2nwg.exploration.baselines import zoo_baselines
from d2nwg.exploration.networks import explore_networks
from d2nwg.exploration.result import Exploration, zoo_records
from d2nwg.exploration.tasks import fewer, make_task, of_task, subsets
from d2nwg.pipelines import DEFAULT
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory, seed_number, whole
from d2nwg.utils.progress import Progress, silent

MOST_TASKS = 10_000  # to draw from one data set: each is sampled and scored


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
    """Generate heads for one task or several and compare them with the bundle's zoo. Of a bundle of whole networks that
    are made for a data set, networks (`d2nwg.exploration.networks`).

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
    made_for: dict[str, Any] = dict(shots=shots, seed=seed, steps=steps, max_query=max_query)
    if bundle is not None and makes_for_data(bundle):
        if sampler != DEFAULT:
            raise UserError("Bundles of whole networks have one sampler: choose no other.")
        if tasks > 1 and len(sets) == 1:
            # a set without a test part keeps a fifth of its images to score on
            most = max_query if sets[0].is_test.any() else 5 * max_query
            sets = _drawn(sets[0], tasks, classes, shots, most, seed)
        return explore_networks(
            sets,
            data_bundle(bundle),
            num_samples=num_samples,
            num_trained=num_trained,
            device=device,
            progress=progress,
            **made_for,
        )
    path = resolve_bundle(bundle)
    pipe = load_pipeline(path, device)
    if tasks > 1 and len(sets) == 1 and not pipe.tasks:
        sets = _drawn(sets[0], tasks, classes, shots, max_query, seed)
    space = pipe.weight_space
    zoo = zoo_population(space)
    _check_counts(sets, zoo, path.name)
    _check_size(pipe, sets, num_samples, num_trained, shots)
    made, heads = [], [zoo]
    settings = made_for | {"sampler": sampler}
    for i, data in enumerate(sets):
        task, part = make_task(
            data,
            pipe,
            bundle=path,
            number=i,
            device=device,
            **settings,
            num_samples=-(-num_samples // len(sets)),
            num_trained=-(-num_trained // len(sets)),
            progress=of_task(progress, i, len(sets)),
        )
        made.append(task)
        heads.append(part)
    population = Population.join(heads)
    progress("Scoring the baselines", 0, 1)
    unit = length(population, population.vectors)
    neighbours = to_zoo(population, population.vectors, seed, unit=unit)
    found = Exploration(
        bundle=path.name,
        space=space,
        vae=getattr(pipe, "vae", None),
        heads=population,
        tasks=made,
        distance=neighbours.nearest,
        baselines=zoo_baselines(population, made, space, neighbours, unit, seed),
        densities=weight_densities(population, space),
        zoo_records=zoo_records(path),
        settings={**settings, "tasks": len(sets), "num_samples": num_samples, "num_trained": num_trained},
        seconds=time.perf_counter() - started,
    )
    progress("Scoring the baselines", 1, 1)
    return found


def _drawn(images: ImageSet, tasks: int, classes: int | None, shots: int, max_query: int, seed: int) -> list[ImageSet]:
    """Tasks drawn from a data set, of half of its classes where nothing else is asked for."""
    pool = fewer(images, shots, max_query, seed)
    return subsets(pool, tasks, classes or max(2, len(pool.classes) // 2), seed)


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
