"""Comparing sets of points: what must hold for any, and what moving, scaling and reordering must not change.

Coordinates are small whole numbers, so that moved and doubled points have the same distances to the last bit.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from d2nwg.analysis.compare import density, energy_test, similarity

few = settings(max_examples=30)
WIDTH = 3


def samples(least: int = 2, most: int = 8):
    """Points (n, 3) of small whole numbers."""
    shape = st.integers(least, most).map(lambda n: (n, WIDTH))
    return arrays.arrays(np.float64, shape, elements=st.integers(-6, 6).map(float))


def test(a, b, **options):
    return energy_test(a, b, permutations=39, **options)


test.__test__ = False


@few
@given(samples(), samples())
def test_energy_is_between_alike_and_apart(a, b):
    found, swapped = test(a, b), test(b, a)
    assert -1e-6 <= found.statistic <= 1 + 1e-6 and swapped.statistic == pytest.approx(found.statistic, abs=1e-5)
    assert found.sizes == (len(a), len(b)) == swapped.sizes[::-1]
    for each in (found, swapped):
        assert 0 < each.p <= 1 and each.p * 40 == pytest.approx(round(each.p * 40))


@few
@given(
    samples(), samples(), st.lists(st.integers(-9, 9), min_size=WIDTH, max_size=WIDTH), st.permutations(range(WIDTH))
)
def test_energy_does_not_change_where_points_are_moved_turned_and_scaled(a, b, by, axes):
    found = test(a, b)
    assert test(a + by, b + by) == found
    assert test(-a[:, axes], -b[:, axes]) == found
    doubled = test(2 * a, 2 * b)
    assert (doubled.statistic, doubled.p) == (pytest.approx(found.statistic), found.p)


@few
@given(samples(3))
def test_a_set_beside_itself_has_no_energy(a):
    found = test(a, a)
    assert found.statistic == pytest.approx(0, abs=1e-5)


@few
@given(samples(4), samples(4))
def test_sets_far_apart_have_most_of_it(a, b):
    """The energy coefficient goes to 1; of the permutations only those that part the points as they are reach it."""
    near, far = test(a, b), test(a, b + 1e4)
    assert far.statistic > 0.99 and far.statistic >= near.statistic - 1e-6
    assert far.p <= 0.2


@given(samples(2), st.data())
def test_similarities_are_symmetric_and_do_not_change_with_length(points, data):
    points = points[np.linalg.norm(points, axis=1) > 0]
    counts = np.array(data.draw(st.lists(st.integers(2, 3), min_size=len(points), max_size=len(points))), int)
    if not len(points):
        return
    values, order = similarity(points, counts)
    assert sorted(order.tolist()) == list(range(len(points)))
    assert np.array_equal(values, values.T, equal_nan=True) and np.diag(values) == pytest.approx(1)
    assert np.array_equal(np.isnan(values), counts[order][:, None] != counts[order])
    assert np.nanmax(np.abs(values)) <= 1 + 1e-6
    scaled, same_order = similarity(4 * points, counts)
    assert np.array_equal(order, same_order) and np.array_equal(scaled, values, equal_nan=True)


@given(st.lists(st.lists(st.integers(-50, 50), min_size=1, max_size=40), min_size=1, max_size=3))
def test_densities_are_shares_of_the_numbers_in_their_bins(groups):
    edges, heights = density({str(i): np.array(values, float) for i, values in enumerate(groups)}, bins=12)
    assert len(edges) == 13 and (np.diff(edges) > 0).all() and set(heights) == {str(i) for i in range(len(groups))}
    for i, values in enumerate(groups):
        inside = np.count_nonzero((np.array(values) >= edges[0]) & (np.array(values) <= edges[-1]))
        assert (heights[str(i)] >= 0).all()
        assert (heights[str(i)] * np.diff(edges)).sum() == pytest.approx(inside / len(values), abs=1e-9)
