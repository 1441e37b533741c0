"""Intervals of accuracies."""

import pytest

from d2nwg.evaluation.accuracy import interval


def test_the_wilson_interval_by_its_formula():
    z, n, k = 1.959964, 50, 41
    p = k / n
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert interval(k, n) == pytest.approx(expected, abs=1e-6)


def test_all_right_is_not_certain():
    low, high = interval(20, 20)
    assert 0.8 < low < 0.85 and high == 1
    assert interval(0, 20) == pytest.approx((1 - high, 1 - low))
    for right, total in ((0, 0), (3, 2)):
        with pytest.raises(ValueError):
            interval(right, total)
