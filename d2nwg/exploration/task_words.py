"""A map of tasks as sentences, as a dictionary and as files."""

import json
from pathlib import Path

import numpy as np

from d2nwg.analysis.projections import write_projector
from d2nwg.exploration.task_map import TaskMap
from d2nwg.exploration.words import write_csv
from d2nwg.utils.text import number, shown, some

NAMED = 3  # tasks in a sentence


def sentences(made: TaskMap) -> list[str]:
    """What the map says, the answer first."""
    said = [*_of_description(made)] if made.description else []
    names = some([task.name for task in made.tasks], 6)
    said.append(
        f"The bundle {made.bundle} keeps {number(len(made.vectors), 'adapter')} of "
        f"{number(len(made.tasks), 'task')} ({names}): several seeds of each, and checkpoints of the same training."
    )
    apart, between = _finite(made.apart), _finite(made.between)
    if len(apart):
        text = f"Within a task the nearest other adapter is at most {apart.max():.1f} away (median 1, the unit)"
        if len(between):
            text += f"; the nearest of another task is {np.median(between):.1f} away (median)"
        said.append(f"{text}.")
    return said


def _of_description(made: TaskMap) -> list[str]:
    beside = some([f"{made.tasks[n].name} ({cosine:.2f})" for n, cosine in made.nearest], NAMED)
    first = made.tasks[made.nearest[0][0]].name
    said = [
        f"This is a task that the generator knows, {first}."
        if made.seen
        else "The generator knows no such task, so expect little of its adapters."
    ]
    said[0] += f" Nearest by description (cosine): {beside}."
    distance = _finite(made.distance)
    if not len(distance):
        return [*said, "No task has two adapters, so there is no unit for the distance of samples to the zoo."]
    owners, counts = np.unique(made.owners[made.beside], return_counts=True)
    order = counts.argsort()[::-1]
    whose = some([f"{made.tasks[owners[i]].name} ({counts[i]:,})" for i in order], NAMED)
    copied = number(made.copies, "is a near copy", "are near copies") if made.copies else "none is a near copy"
    said.append(
        f"{number(len(made.samples), 'sample lies', 'samples lie')} {np.median(distance):.2f} from the nearest zoo "
        f"adapter (median; from {distance.min():.2f} to {distance.max():.2f}), where 1 is how far adapters of one task "
        f"lie from their nearest; {copied} (below 0.5). The nearest are of {whose}."
    )
    return said


def summary(made: TaskMap) -> dict:
    """The result without the points, as JSON; distances in the median one within a task."""
    distance, apart, between = (_finite(values) for values in (made.distance, made.apart, made.between))
    return {
        "bundle": made.bundle,
        "base": made.base,
        "adapters": len(made.vectors),
        "tasks": [
            {
                "task": task.name,
                "descriptions": list(task.descriptions),
                "classes": list(task.classes),
                "metric": task.metric,
                "adapters": int((made.owners == n).sum()),
            }
            for n, task in enumerate(made.tasks)
        ],
        "description": made.description or None,
        "seen": made.seen,
        "nearest": [{"task": made.tasks[n].name, "cosine": round(cosine, 4)} for n, cosine in made.nearest],
        "samples": len(made.samples),
        "near_copies": made.copies,
        "distance": _spread(distance),
        "within_task": _spread(apart),
        "to_other_task": _spread(between),
        "map": made.projection.words,
        "seed": made.seed,
        "words": sentences(made),
        "seconds": round(made.seconds, 3),
    }


def table(made: TaskMap) -> dict[str, list]:
    """Column name → values, a row a point: the zoo's adapters, then the samples."""
    zoo, new = len(made.vectors), len(made.samples)
    owners = [made.tasks[n] for n in made.owners]
    nearest = [made.tasks[made.owners[n]].name for n in made.beside]
    said = [task.descriptions[0] if task.descriptions else "" for task in owners]
    columns: dict[str, list] = {
        "origin": ["zoo"] * zoo + ["sample"] * new,
        "task": [task.name for task in owners] + [""] * new,
        "metric": [task.metric for task in owners] + [""] * new,
        "description": said + [made.description] * new,
        "nearest_task": [task.name for task in owners] + nearest,
        "distance": [*made.apart.tolist(), *made.distance.tolist()],
    }
    for name, plane in (("tsne", made.projection.tsne), ("pca", made.projection.pca)):
        columns |= {f"{name}_{axis + 1}": plane[:, axis].tolist() for axis in (0, 1)}
    return columns


def save(made: TaskMap, folder: str | Path) -> dict[str, list[Path]]:
    """Write ``tasks.json``, ``tasks.csv`` and ``projector/``.

    Returns:
        name → files: ``data``, ``projector``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tasks.json").write_text(json.dumps(summary(made), indent=1, ensure_ascii=False), encoding="utf-8")
    columns = table(made)
    listing = write_csv(folder / "tasks.csv", columns)
    metadata = {name: columns[name] for name in ("origin", "task", "nearest_task", "distance")}
    points = np.concatenate([made.vectors, made.samples])
    projector = write_projector(folder / "projector", points, metadata, f"{shown(made.bundle)} (adapters)")
    return {"data": [folder / "tasks.json", listing], "projector": projector}


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _spread(values: np.ndarray) -> dict | None:
    if not len(values):
        return None
    return {name: round(float(fn(values)), 4) for name, fn in (("min", np.min), ("median", np.median), ("max", np.max))}
