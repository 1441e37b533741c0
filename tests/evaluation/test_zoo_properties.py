"""Neighbours of any points: the nearest ones with as many classes, as one would look for them one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d2nwg.evaluation.zoo_distance import nearest


def samples(least: int = 2, most: int = 8):
    """Points (n, 3) of small whole numbers."""
    shape = st.integers(least, most).map(lambda n: (n, 3))
    return arrays.arrays(np.float64, shape, elements=st.integers(-6, 6).map(float))


@given(samples(), samples(), st.integers(1, 4), st.data())
def test_neighbours_are_the_nearest_with_as_many_classes(points, others, k, data):
    counts, other_counts = (
        np.array(data.draw(st.lists(st.integers(2, 3), min_size=len(x), max_size=len(x)))) for x in (points, others)
    )
    found = nearest(points, counts, others, other_counts, k)
    assert found.index.shape == found.distance.shape == (len(points), k)
    for i, point in enumerate(points):
        distance = np.where(other_counts == counts[i], np.linalg.norm(others - point, axis=1), np.inf)
        expected = np.sort(distance)[:k]
        assert found.distance[i] == pytest.approx(np.pad(expected, (0, k - len(expected)), constant_values=np.inf))
        for index, far in zip(found.index[i], found.distance[i], strict=True):
            assert (index == -1) == np.isinf(far) and (index == -1 or distance[index] == pytest.approx(far))
        known = found.index[i][found.index[i] >= 0]
        assert len(set(known)) == len(known)
    order = np.random.default_rng(0).permutation(len(others))
    moved = nearest(points + 5, counts, others[order] + 5, other_counts[order], k)
    assert moved.distance == pytest.approx(found.distance)


@given(samples(2))
def test_a_point_is_no_neighbour_of_its_own(points):
    counts = np.full(len(points), 2)
    found = nearest(points, counts, points, counts, len(points), np.arange(len(points)))
    for i, index in enumerate(found.index):
        assert sorted(index.tolist()) == sorted([-1, *(j for j in range(len(points)) if j != i)])
