"""The result of an exploration as sentences, as a dictionary and as files."""

import json
from pathlib import Path

import numpy as np

from d2nwg.analysis.populations import MADE, ORIGINS, SAMPLE, TRAINED, WHOLE, ZOO
from d2nwg.analysis.projections import write_projector
from d2nwg.data import tables
from d2nwg.exploration.look import View
from d2nwg.exploration.result import Exploration
from d2nwg.utils.text import number

LEVEL = 0.1  # distances that differ by a smaller share are called equal


def verdict(found: Exploration, view: View) -> list[str]:
    """How close samples are to the zoo, in plain sentences; the answer first."""
    heads, close, noun = found.heads, view.closeness, found.noun
    samples = np.isin(view.rows, heads.of(SAMPLE)).sum()
    zoo = np.isin(view.rows, heads.of(ZOO)).sum()
    ratio = close["samples_to_zoo"] / close["zoo_to_zoo"] if close["zoo_to_zoo"] else float("nan")
    if not np.isfinite(ratio):
        answer = "There are too few zoo heads with as many classes to say how far samples usually are from them."
    else:
        how = (
            f"as far from the zoo as zoo {noun}s are from each other"
            if abs(ratio - 1) <= LEVEL
            else f"{'farther from' if ratio > 1 else 'nearer to'} the zoo than zoo {noun}s are to each other"
        )
        answer = f"Samples are {how}; {_copies(view.copies, int(samples))}"
    where = found.latent_words if view.where == "latent" else "weight space"
    what = found.whole if view.part == WHOLE else f"the part “{view.part}”"
    sentences = [
        answer,
        f"The median distance from a sample to the nearest zoo {noun} is {_far(close['samples_to_zoo'])} "
        f"{found.unit_words}; from zoo {noun} to zoo {noun} it is {_far(close['zoo_to_zoo'])}, and from zoo {noun} to "
        f"sample {_far(close['zoo_to_samples'])} ({what} in {where}).",
    ]
    for (_, other), test in view.tests.items():
        if test is None:
            continue
        name = f"zoo {noun}s" if other == ZOO else found.fitted
        sentences.append(_tested(test, name))
    sentences.append(_who(found, int(zoo), int(samples)))
    return sentences


def _copies(copies: int, samples: int) -> str:
    if not copies:
        return f"none of {number(samples, 'sample')} is a near copy of one."
    return f"{copies:,} of {number(samples, 'sample')} {'is a near copy' if copies == 1 else 'are near copies'}."


def _far(distance: float) -> str:
    return "unknown" if not np.isfinite(distance) else f"{distance:.2f}"


def _tested(test, name: str) -> str:
    if test.p > 0.05:
        meaning = f"As a whole, samples cannot be distinguished from {name}"
    else:
        degree = "slightly" if test.statistic < 0.1 else "clearly" if test.statistic < 0.4 else "very much"
        meaning = f"As a whole, samples differ {degree} from {name}"
    least = f"{1 / (test.permutations + 1):.3f}"
    p = f"p = {test.p:.3f}" + (", the least it can be" if f"{test.p:.3f}" == least else "")
    return (
        f"{meaning} (energy coefficient {test.statistic:.2f} of 1, {p}; {test.sizes[0]} samples, {test.sizes[1]} "
        f"{name}, {test.permutations} permutations)."
    )


def _who(found: Exploration, zoo: int, samples: int) -> str:
    kept = f"of {found.zoo_records:,} " if found.zoo_records else ""
    keeps = (
        f"The bundle keeps {len(found.heads.of(ZOO)):,} {kept}zoo {found.noun}s: copies of the others would not be "
        "noticed."
    )
    if found.noun != "head":
        return (
            f"The map shows networks by {found.whole}, whose rows stand in each task's own order: "
            f"{number(samples, 'sample')} for {number(len(found.tasks), 'task')} with "
            f"{number(zoo, f'zoo {found.noun}')}, each trained for a task of its own. To be scored on these tasks, zoo "
            "networks and what is made from them get a last layer by ridge regression on the images that generation "
            f"was shown. {keeps}"
        )
    counts = sorted({task.count for task in found.tasks})
    classes = ", ".join(map(str, counts))
    return (
        f"Only heads with as many classes ({classes}) are compared: {number(samples, 'sample')} for "
        f"{number(len(found.tasks), 'task')} with {number(zoo, 'zoo head')}, each trained for a task of its own. "
        + keeps
    )


def table(found: Exploration, view: View) -> dict[str, list]:
    """Column name → values, one for each point of the map."""
    heads, rows = found.heads.select(view.rows), view.rows.tolist()
    distance = np.where(np.isfinite(view.near.distance[:, 0]), view.near.distance[:, 0], np.nan)
    return {
        "point": rows,
        found.noun: [found.name(i) for i in rows],
        "origin": heads.origin.tolist(),
        "task": [found.task_name(i) for i in rows],
        "classes": [found.classes(i) for i in rows],
        "accuracy": heads.accuracy.tolist(),
        f"distance_to_nearest_zoo_{found.noun}": distance.tolist(),
        f"nearest_zoo_{found.noun}": [found.name(i) if i >= 0 else "" for i in view.near.index[:, 0].tolist()],
        **{f"pca_{i + 1}": axis.astype(float).tolist() for i, axis in enumerate(view.projection.pca.T)},
        **{f"tsne_{i + 1}": axis.astype(float).tolist() for i, axis in enumerate(view.projection.tsne.T)},
    }


def details(found: Exploration, view: View, point: int) -> dict:
    """The head that is a point of the map.

    Returns:
        ``point``, ``head``, ``noun``, ``unit`` of distances, ``origin``, ``task``, ``classes``, ``accuracy``,
        ``distance`` to the nearest zoo head, and ``neighbours``, the nearest five zoo heads as (name, distance,
        accuracy on their own tasks).
    """
    place = int(np.flatnonzero(view.rows == point)[0])
    heads, near = found.heads, view.near
    neighbours = [
        (found.name(i), float(d), float(heads.accuracy[i]))
        for i, d in zip(near.index[place].tolist(), near.distance[place].tolist(), strict=True)
        if i >= 0
    ]
    return {
        "point": int(point),
        "head": found.name(point),
        "noun": found.noun,
        "unit": found.unit_words,
        "origin": str(heads.origin[point]),
        "task": found.task_name(point),
        "classes": found.classes(point),
        "accuracy": float(heads.accuracy[point]),
        "distance": neighbours[0][1] if neighbours else float("nan"),
        "neighbours": neighbours,
    }


def summary(found: Exploration, view: View) -> dict:
    """All results except the points, as JSON; unknown numbers are null. Distances are in ``unit_of_distances``."""
    heads = found.heads

    def spread(values) -> dict | None:
        values = values[np.isfinite(values)]
        return {"mean": float(values.mean()), "std": float(values.std()), "n": len(values)} if len(values) else None

    baselines = {
        name: {"accuracy": spread(baseline.accuracy), "distance": spread(baseline.distance)}
        for name, baseline in found.baselines.items()
    }
    data = {
        "bundle": found.bundle,
        "makes": found.noun,
        **(
            {"encoder": found.space.config.encoder} if found.noun == "head" else {"network": found.space.config.network}
        ),
        "unit_of_distances": found.unit_words,
        "space": view.where,
        "part": view.part,
        "tasks": [
            {
                "name": task.name,
                "classes": list(task.images.classes),
                "num_query": len(task.labels),
                "accuracy": spread(heads.accuracy[heads.of(SAMPLE, i)]),
                "accuracy_trained": spread(heads.accuracy[heads.of(TRAINED, i)]),
            }
            for i, task in enumerate(found.tasks)
        ],
        "points": {origin: int(np.isin(view.rows, heads.of(origin)).sum()) for origin in ORIGINS},
        "zoo_accuracy_on_own_tasks": spread(heads.accuracy[heads.of(ZOO)]),
        "rivals_on_these_tasks": baselines,
        "distance": view.closeness,
        "near_copies": view.copies,
        "tests": {
            f"{a}_against_{b}": test
            and {
                "energy_coefficient": test.statistic,
                "p": test.p,
                "sizes": list(test.sizes),
                "permutations": test.permutations,
            }
            for (a, b), test in view.tests.items()
        },
        "map": view.projection.words,
        "variance_of_two_components": float(view.projection.explained[:2].sum()),
        "words": verdict(found, view),
        "notes": found.notes,
        "settings": found.settings,
        "seconds": round(found.seconds, 3),
    }
    return _finite(data)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_csv(path: Path, columns: dict[str, list]) -> Path:
    """A CSV file with a header, see `d2nwg.data.tables.write_csv`."""
    return tables.write_csv(path, [columns, *zip(*columns.values(), strict=True)])


def save(found: Exploration, view: View, folder: str | Path) -> dict[str, list[Path]]:
    """Write ``projection.csv``, ``baselines.csv``, ``densities.csv``, ``summary.json`` and ``projector/``.

    Returns:
        name → files: ``data``, ``summary``, ``projector``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    columns = table(found, view)
    (folder / "summary.json").write_text(
        json.dumps(summary(found, view), indent=1, ensure_ascii=False), encoding="utf-8"
    )
    data = [
        write_csv(folder / "projection.csv", columns),
        write_csv(folder / "baselines.csv", _baseline_columns(found)),
        write_csv(folder / "densities.csv", _density_columns(found)),
    ]
    metadata = {name: values for name, values in columns.items() if not name.startswith(("pca", "tsne"))}
    projector = write_projector(folder / "projector", view.points, metadata, f"{found.bundle} ({view.where})")
    return {"data": data, "summary": [folder / "summary.json"], "projector": projector}


def _baseline_columns(found: Exploration) -> dict[str, list]:
    heads, rows = found.heads, found.heads.of(SAMPLE)
    groups = {SAMPLE: (heads.task[rows], found.distance[rows], heads.accuracy[rows])}
    for origin in (MADE, TRAINED):
        if len(rows := heads.of(origin)):
            groups[origin] = (heads.task[rows], found.distance[rows], heads.accuracy[rows])
    groups |= {name: (made.task, made.distance, made.accuracy) for name, made in found.baselines.items()}
    far = f"distance_to_nearest_zoo_{found.noun}"
    columns: dict[str, list] = {"row": [], "task": [], far: [], "accuracy": []}
    for name, (task, distance, accuracy) in groups.items():
        columns["row"] += [name] * len(task)
        columns["task"] += [found.tasks[t].name for t in task]
        columns[far] += distance.astype(float).tolist()
        columns["accuracy"] += accuracy.astype(float).tolist()
    return columns


def _density_columns(found: Exploration) -> dict[str, list]:
    columns: dict[str, list] = {"tensor": [], "from": [], "to": [], "origin": [], "density": []}
    for tensor, (edges, heights) in found.densities.items():
        for origin, values in heights.items():
            columns["tensor"] += [tensor] * len(values)
            columns["from"] += edges[:-1].tolist()
            columns["to"] += edges[1:].tolist()
            columns["origin"] += [origin] * len(values)
            columns["density"] += values.tolist()
    return columns
