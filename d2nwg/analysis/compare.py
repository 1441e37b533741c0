"""Comparing sets of weights: nearest zoo heads, an energy test, similarities, densities.

Heads are compared only with heads that have as many classes (see `d2nwg.analysis.populations`).
"""

from dataclasses import dataclass

import numpy as np
import torch

from d2nwg.analysis.populations import SAMPLE, TRAINED, ZOO, Population
from d2nwg.evaluation.zoo_distance import LEAST_LENGTH, Neighbours, nearest, zoo_length
from d2nwg.models.spaces import WeightSpace

MOST_ZOO_QUERIES = 1000  # zoo heads whose neighbours are searched; of more, a random subset of this size


def length(heads: Population, points: np.ndarray) -> np.ndarray:
    """(n,) the unit of distances (`zoo_length`) for each head, among ``points`` (n, d)."""
    zoo = heads.of(ZOO)
    return zoo_length(heads.counts, points[zoo], heads.counts[zoo])


def spacing(heads: Population, points: np.ndarray) -> np.ndarray:
    """(n,) the unit of distances between networks: the (lower) median distance from a zoo member to the nearest other
    one, among ``points`` (n, d), as `DatasetNetworkPipeline.distance` has it; NaN where the zoo has fewer than two."""
    zoo = heads.of(ZOO)
    counts = heads.counts[zoo]
    distance = nearest(points[zoo], counts, points[zoo], counts, 1, np.arange(len(zoo))).nearest
    unit = max(float(np.sort(distance)[(len(zoo) - 1) // 2]), LEAST_LENGTH) if len(zoo) > 1 else np.nan
    return np.full(len(heads), unit)


def to_zoo(
    heads: Population, points: np.ndarray, seed: int = 0, k: int = 5, unit: np.ndarray | None = None
) -> Neighbours:
    """The k nearest zoo heads of each head, as numbers of heads, with distances in lengths of a zoo head; a head is no
    neighbour of its own.

    Args:
        points: (n, d) the heads' coordinates in some space.
        seed: of the choice of `MOST_ZOO_QUERIES` zoo heads where there are more; the others get no neighbours.
        unit: (n,) another unit of distances, as of `spacing`.
    """
    unit = length(heads, points) if unit is None else unit
    zoo = heads.of(ZOO)
    asked = np.ones(len(heads), bool)
    if len(zoo) > MOST_ZOO_QUERIES:
        asked[zoo] = False
        asked[np.random.default_rng(seed).choice(zoo, MOST_ZOO_QUERIES, replace=False)] = True
    itself = np.full(len(heads), -1)
    itself[zoo] = np.arange(len(zoo))
    rows = np.flatnonzero(asked)
    found = nearest(points[rows], heads.counts[rows], points[zoo], heads.counts[zoo], k, itself[rows])
    index, distance = np.full((len(heads), k), -1), np.full((len(heads), k), np.inf)
    index[rows] = np.where(found.index >= 0, zoo[found.index], -1)
    distance[rows] = np.where(np.isfinite(found.distance), found.distance / unit[rows, None], np.inf)
    return Neighbours(index, distance)


@dataclass(frozen=True)
class TwoSample:
    """Result of `energy_test`.

    Attributes:
        statistic: energy coefficient, from 0 (equal distributions) to 1:
            (2 E|X-Y| - E|X-X'| - E|Y-Y'|) / (2 E|X-Y|).
        p: share of permutations with a statistic at least as large, the observed one included.
        sizes: points of each side that were compared.
        permutations: their number.
    """

    statistic: float
    p: float
    sizes: tuple[int, int]
    permutations: int


def energy_test(
    a: np.ndarray, b: np.ndarray, a_counts=None, b_counts=None, permutations: int = 999, seed: int = 0, most: int = 500
) -> TwoSample | None:
    """Test whether two samples come from one distribution, by the energy distance (Székely and Rizzo, 2013) and
    permutations.

    Args:
        a, b: (n, d) and (m, d).
        a_counts, b_counts: (n,) and (m,) numbers of classes. Only points with the same number are compared and
            permuted; the statistic is the mean over numbers of classes, each weighted by n·m / (n + m).
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

    Heads with different numbers of classes have no similarity (NaN) and are clustered separately.

    Returns:
        (m, m) float32, and the numbers (m,) of the heads in that order; m ≤ ``most``, drawn at random.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    rows = np.arange(len(points))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    unit = points[rows] / np.maximum(np.linalg.norm(points[rows], axis=1, keepdims=True), LEAST_LENGTH)
    values = (unit @ unit.T).astype(np.float32)
    order: list[np.ndarray] = []
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


def weight_densities(heads: Population, space: WeightSpace, most: int = 2000, seed: int = 0) -> dict:
    """Tensor name → (edges, origin → density) of weight values (not standardised), padding left out.

    Zoo heads are those with as many classes as one of the other heads; of more than ``most`` of an origin so many are
    drawn at random.
    """
    rng = np.random.default_rng(seed)
    values: dict[str, dict[str, np.ndarray]] = {}
    comparable = np.isin(heads.counts, heads.counts[heads.origin != ZOO])
    for origin in (ZOO, SAMPLE, TRAINED):
        rows = np.flatnonzero((heads.origin == origin) & comparable)
        if not len(rows):
            continue
        rows = rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
        layout = space.layout
        mask = layout.unflatten(layout.mask(torch.from_numpy(heads.counts[rows])).float())
        state = layout.unflatten(torch.from_numpy(heads.vectors[rows]))
        for name, tensor in state.items():
            used = mask[name] > layout.mean[name] + 0.5 * layout.std[name]  # the mask went through the same map
            values.setdefault(name, {})[origin] = tensor[used].numpy()
    return {name: density(groups) for name, groups in values.items()}
