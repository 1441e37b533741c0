"""How alike two sets of weights are: nearest neighbours, an energy test, similarities, densities.

Only heads with as many classes are compared with each other (see `population`): neighbours are looked for among those,
and the test permutes origins among those.
"""

from dataclasses import dataclass

import numpy as np

BLOCK = 2**25  # distances held at a time
LEAST_LENGTH = 1e-12


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of each of n points.

    Attributes:
        index: (n, k) numbers of the neighbours, nearest first, -1 where there are fewer.
        distance: (n, k), infinite where there are fewer: Euclidean, or in the unit that whoever made this says.
    """

    index: np.ndarray
    distance: np.ndarray


def nearest(
    points: np.ndarray,
    counts: np.ndarray,
    others: np.ndarray,
    other_counts: np.ndarray,
    k: int = 5,
    itself: np.ndarray | None = None,
) -> Neighbours:
    """The nearest of ``others`` (m, d) with as many classes, for each of ``points`` (n, d), by Euclidean distance.

    Args:
        counts, other_counts: (n,) and (m,) numbers of classes.
        itself: (n,) the number among ``others`` of each point, which is no neighbour of its own; -1 for none.
    """
    index = np.full((len(points), k), -1)
    distance = np.full((len(points), k), np.inf)
    for count in np.unique(counts):
        targets = np.flatnonzero(other_counts == count)
        rows = np.flatnonzero(counts == count)
        if not len(targets):
            continue
        target = others if len(targets) == len(others) else others[targets]  # a copy of many heads is large
        squares = np.einsum("ij,ij->i", target, target)
        step = max(1, BLOCK // len(targets))
        for first in range(0, len(rows), step):
            block = rows[first : first + step]
            near = squares - 2 * points[block] @ target.T
            if itself is not None:
                near[itself[block][:, None] == targets] = np.inf
            kept = min(k, len(targets))
            best = np.argpartition(near, kept - 1, axis=1)[:, :kept]
            # Squares of differences, not differences of squares: exact for near copies.
            exact = np.stack([np.linalg.norm(points[block] - target[column], axis=1) for column in best.T], 1)
            exact[~np.isfinite(np.take_along_axis(near, best, 1))] = np.inf
            order = np.argsort(exact, axis=1, kind="stable")
            exact, best = np.take_along_axis(exact, order, 1), np.take_along_axis(best, order, 1)
            index[block, :kept] = np.where(np.isfinite(exact), targets[best], -1)
            distance[block, :kept] = exact
    return Neighbours(index, distance)


@dataclass(frozen=True)
class TwoSample:
    """What `energy_test` finds.

    Attributes:
        statistic: energy coefficient, 0 (alike) to 1: (2 E|X-Y| - E|X-X'| - E|Y-Y'|) / (2 E|X-Y|).
        p: share of permutations with at least as large a statistic, the observed one counted in.
        sizes: how many of each side were compared.
        permutations: how many.
    """

    statistic: float
    p: float
    sizes: tuple[int, int]
    permutations: int


def energy_test(
    a: np.ndarray, b: np.ndarray, a_counts=None, b_counts=None, permutations: int = 999, seed: int = 0, most: int = 500
) -> TwoSample | None:
    """Are two samples of one distribution? The energy distance (Székely and Rizzo, 2013) with a permutation test.

    Args:
        a, b: (n, d) and (m, d).
        a_counts, b_counts: (n,) and (m,) numbers of classes. Only points with as many are compared and exchanged; the
            statistic is the mean over numbers of classes, weighted by n·m / (n + m) of each.
        most: a larger side is represented by so many points drawn at random.
    Returns:
        None where no number of classes occurs on both sides, with at least two points on one.
    """
    rng = np.random.default_rng(seed)
    a_counts = np.zeros(len(a), int) if a_counts is None else np.asarray(a_counts)
    b_counts = np.zeros(len(b), int) if b_counts is None else np.asarray(b_counts)
    shared = np.intersect1d(a_counts, b_counts)
    a, a_counts = _draw(a, a_counts, np.isin(a_counts, shared), most, rng)
    b, b_counts = _draw(b, b_counts, np.isin(b_counts, shared), most, rng)
    observed, total, permuted, sizes = 0.0, 0.0, np.zeros(permutations), [0, 0]
    for count in shared:
        x, y = a[a_counts == count], b[b_counts == count]
        if not len(x) or not len(y) or len(x) + len(y) < 3:
            continue
        distance, size = _pairwise(np.concatenate([x, y])), (len(x), len(y))
        weight = size[0] * size[1] / sum(size)
        side = np.zeros((permutations + 1, sum(size)), np.float32)
        side[0, : size[0]] = 1
        for row in side[1:]:
            row[rng.permutation(sum(size))[: size[0]]] = 1
        between, energy = _energies(distance, side, size)
        observed, permuted = observed + weight * energy[0], permuted + weight * energy[1:]
        total += weight * 2 * between[0]
        sizes = [sizes[0] + size[0], sizes[1] + size[1]]
    if not sizes[0]:
        return None
    p = (1 + np.count_nonzero(permuted >= observed - 1e-9 * abs(observed))) / (permutations + 1)
    return TwoSample(float(max(0.0, observed / max(total, 1e-12))), float(p), (sizes[0], sizes[1]), permutations)


def _draw(points, counts, wanted, most, rng):
    rows = np.flatnonzero(wanted)
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    return points[rows], counts[rows]


def _pairwise(points: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import pdist, squareform

    return squareform(pdist(points.astype(np.float64))).astype(np.float32)


def _energies(distance, side, size) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance between the sides, and the energy distance, for each row of ``side`` (P, n + m)."""
    n, m = size
    to_first = side @ distance
    within_first = (to_first * side).sum(1, dtype=np.float64)
    across = (to_first * (1 - side)).sum(1, dtype=np.float64)
    within_second = distance.sum(dtype=np.float64) - within_first - 2 * across
    between = across / (n * m)
    return between, 2 * between - within_first / n**2 - within_second / m**2


def similarity(points: np.ndarray, counts: np.ndarray, most: int = 120, seed: int = 0):
    """Cosine similarities of heads, in the order of a hierarchical clustering (average linkage).

    Heads with different numbers of classes have no similarity (NaN); their clusters stand side by side.

    Returns:
        (m, m) float32, and the numbers (m,) of the heads in that order; m ≤ ``most``, drawn at random.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    rows = np.arange(len(points))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    unit = points[rows] / np.maximum(np.linalg.norm(points[rows], axis=1, keepdims=True), LEAST_LENGTH)
    values, order = (unit @ unit.T).astype(np.float32), []
    for count in np.unique(counts[rows]):
        same = np.flatnonzero(counts[rows] == count)
        if len(same) > 2:
            apart = np.clip(1 - values[np.ix_(same, same)], 0, None)[np.triu_indices(len(same), 1)]
            same = same[leaves_list(linkage(apart, "average", optimal_ordering=True))]
        order.extend(same)
    values[counts[rows][:, None] != counts[rows]] = np.nan
    return values[np.ix_(order, order)], rows[order]


def density(groups: dict[str, np.ndarray], bins: int = 80) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Histograms of some groups of numbers on the same bins, each with area 1.

    The bins span all but the outermost 0.1 % on either side.

    Returns:
        edges (bins + 1,), and name → density (bins,).
    """
    groups = {name: values for name, values in groups.items() if len(values)}
    low = min(float(np.quantile(values, 0.001)) for values in groups.values())
    high = max(float(np.quantile(values, 0.999)) for values in groups.values())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    heights = {name: np.histogram(values, edges)[0] / (len(values) * np.diff(edges)) for name, values in groups.items()}
    return edges, heights
