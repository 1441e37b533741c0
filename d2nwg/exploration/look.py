"""The heads of an exploration, mapped and compared in one space, whole or one part of them."""

from dataclasses import dataclass, replace

import numpy as np

from d2nwg.analysis.compare import MOST_ZOO_QUERIES, TwoSample, energy_test, similarity, to_zoo
from d2nwg.analysis.populations import SAMPLE, TRAINED, WHOLE, ZOO
from d2nwg.analysis.projections import Projection, check_perplexity, project
from d2nwg.evaluation.zoo_distance import Neighbours, nearest
from d2nwg.exploration.result import Exploration
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent


@dataclass(frozen=True)
class View:
    """The heads in one space, whole or one part of them.

    Attributes:
        where, part: the space and the part.
        rows: (m,) numbers of the heads shown.
        points: (m, d) their coordinates.
        projection: their two maps.
        near: the nearest zoo heads of each, as numbers of heads, with distances in the exploration's unit.
        tests: (origin, origin) → `TwoSample`; None where there is nothing to compare.
        closeness: median distances to the nearest neighbour, in that unit: ``samples_to_zoo``,
            ``zoo_to_zoo``, ``zoo_to_samples``, ``samples_to_samples``, ``samples_to_trained``; NaN where there is none.
        copies: number of near copies: samples whose distance to the zoo is less than half the median distance between
            zoo heads.
        similarity: cosines (s, s) in the order of a clustering, and the numbers (s,) of those heads.
    """

    where: str
    part: str
    rows: np.ndarray
    points: np.ndarray
    projection: Projection
    near: Neighbours
    tests: dict[tuple[str, str], TwoSample | None]
    closeness: dict[str, float]
    copies: int
    similarity: tuple[np.ndarray, np.ndarray]


def look(
    found: Exploration,
    *,
    where: str = "weights",
    part: str = WHOLE,
    perplexity: float = 30,
    seed: int = 0,
    all_counts: bool = False,
    dimensions: int = 2,
    progress: Progress = silent,
) -> View:
    """Map and compare the heads.

    Args:
        where: ``"weights"`` or ``"latent"``.
        part: one of ``found.parts(where)``.
        perplexity, seed: of t-SNE.
        all_counts: show also zoo heads with numbers of classes that no task has.
        dimensions: of the maps, 2 or 3.
        progress: stages "Comparing", "Drawing the map".
    Raises:
        UserError: no such space or part, or another number of dimensions.
    """
    check_perplexity(perplexity)
    whole(dimensions, "The number of dimensions", 2, 3)
    seed_number(seed)
    progress("Comparing", 0, 2)
    every = found.heads
    shown = np.arange(len(every))
    if not all_counts:
        shown = np.flatnonzero(np.isin(every.counts, found.compared))
    if len(shown) < len(every):  # a copy of many heads is large
        every = every.select(shown)
    points, kept = found.points(every, where, part)
    rows = shown[kept]
    heads = every if len(kept) == len(every) else every.select(kept)
    if not len(heads.of(SAMPLE)) or not len(heads.of(ZOO)):
        raise UserError(f"No head here has {part}: choose another part.")
    unit = found.unit(heads, points)
    near = to_zoo(heads, points, seed, unit=unit)
    tests, closeness = {}, _closeness(heads, points, near, unit, seed)
    progress("Comparing", 1, 2)
    for a, b in ((SAMPLE, ZOO), (SAMPLE, TRAINED)):
        x, y = heads.of(a), heads.of(b)
        tests[a, b] = energy_test(points[x], points[y], heads.counts[x], heads.counts[y], seed=seed) if len(y) else None
    distance = near.distance[heads.of(SAMPLE), 0]
    copies = int((distance < 0.5 * closeness["zoo_to_zoo"]).sum())
    values, order = similarity(points, heads.counts, most=90, seed=seed)
    progress("Drawing the map", 0, 1)
    mapped = project(points, perplexity, seed, dimensions)
    progress("Drawing the map", 1, 1)
    near = Neighbours(np.where(near.index >= 0, rows[near.index], -1), near.distance)
    return View(where, part, rows, points, mapped, near, tests, closeness, copies, (values, rows[order]))


def turned(view: View, dimensions: int, perplexity: float = 30, seed: int = 0, progress: Progress = silent) -> View:
    """The same view with maps of another number of dimensions; what was compared is not compared again."""
    whole(dimensions, "The number of dimensions", 2, 3)
    progress("Drawing the map", 0, 1)
    mapped = project(view.points, perplexity, seed, dimensions)
    progress("Drawing the map", 1, 1)
    return replace(view, projection=mapped)


def _closeness(heads, points, near, unit, seed) -> dict[str, float]:
    """`View.closeness`."""
    zoo, samples, trained = (heads.of(origin) for origin in (ZOO, SAMPLE, TRAINED))
    zoo = zoo[np.isin(heads.counts[zoo], heads.counts[samples])]  # others may be shown, but are not compared

    def median(values) -> float:
        values = values[np.isfinite(values)]
        return float(np.median(values)) if len(values) else float("nan")

    def between(a, b, itself=None) -> float:
        found = nearest(points[a], heads.counts[a], points[b], heads.counts[b], 1, itself)
        return median(found.distance[:, 0] / unit[a])

    few = zoo if len(zoo) <= MOST_ZOO_QUERIES else np.random.default_rng(seed).choice(zoo, MOST_ZOO_QUERIES, False)
    return {
        "samples_to_zoo": median(near.distance[samples, 0]),
        "zoo_to_zoo": median(near.distance[zoo, 0]),
        "zoo_to_samples": between(few, samples),
        "samples_to_samples": between(samples, samples, np.arange(len(samples))),
        "samples_to_trained": between(samples, trained) if len(trained) else float("nan"),
    }
