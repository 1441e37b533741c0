"""Mixing points of any size: endpoints exactly, equal points to themselves, and what must not depend on the order."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from d2nwg.interpolation.mixer import blend, slerp

SHARE = st.floats(0, 1)


def points(count: int):
    """``count`` random tensors (2, n) of different lengths, one of them perhaps zero or parallel to another."""

    @st.composite
    def draw_points(draw):
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
        made = torch.randn(count, 2, draw(st.integers(1, 6)), generator=generator)
        made = made * torch.tensor(draw(st.lists(st.floats(0.1, 50), min_size=count, max_size=count)))[:, None, None]
        special = draw(st.sampled_from(["none", "zero", "parallel", "opposite"]))
        if count > 1 and special != "none":
            made[1] = {"zero": 0, "parallel": 3, "opposite": -2}[special] * made[0]
        return list(made)

    return draw_points()


@st.composite
def mixes(draw, count: int):
    """Weights (3, count), each row at least 0 with the sum 1."""
    rows = draw(st.lists(st.lists(st.integers(0, 9), min_size=count, max_size=count), min_size=3, max_size=3))
    weights = torch.tensor([[number + (sum(row) == 0) for number in row] for row in rows], dtype=torch.float32)
    return weights / weights.sum(1, keepdim=True)


@given(st.integers(1, 4).flatmap(points), st.booleans())
def test_a_weight_of_one_gives_that_point_exactly(ends, spherical):
    mixed = blend(ends, torch.eye(len(ends)), spherical)
    assert torch.equal(mixed, torch.stack(ends))


@given(points(1), st.integers(1, 4), st.booleans(), st.data())
def test_a_mix_of_equal_points_is_that_point(ends, count, spherical, data):
    mixed = blend(ends * count, data.draw(mixes(count)), spherical)
    torch.testing.assert_close(mixed, ends[0].expand_as(mixed), rtol=1e-4, atol=1e-4)


@given(points(3), mixes(3), st.permutations(range(3)))
def test_the_order_of_the_points_does_not_matter_on_a_straight_line(ends, mix, order):
    moved = blend([ends[i] for i in order], mix[:, list(order)])
    torch.testing.assert_close(moved, blend(ends, mix), rtol=1e-4, atol=1e-4)
    by_hand = torch.einsum("pe,ern->prn", mix, torch.stack(ends))
    torch.testing.assert_close(blend(ends, mix), by_hand, rtol=1e-4, atol=1e-4)


@given(points(2), SHARE)
def test_a_path_walked_backwards_is_the_same(ends, share):
    (a, b), share = ends, torch.tensor(share)
    torch.testing.assert_close(slerp(a, b, share), slerp(b, a, 1 - share), rtol=1e-3, atol=1e-3)
    pair = torch.stack([1 - share, share])[None]
    torch.testing.assert_close(blend(ends, pair, spherical=True)[0], slerp(a, b, share), rtol=1e-3, atol=1e-3)


@given(points(2), SHARE, st.sampled_from([0.25, 2.0, 8.0]))
def test_scaled_points_give_a_scaled_mix(ends, share, scale):
    a, b = ends
    made = slerp(a, b, torch.tensor(share))
    torch.testing.assert_close(slerp(scale * a, scale * b, torch.tensor(share)), scale * made, rtol=1e-4, atol=1e-4)


@given(st.floats(0.05, 3.0), SHARE, st.floats(0.1, 10))
def test_a_point_on_the_sphere_turns_by_its_share(angle, share, length):
    """Two points of one length, ``angle`` apart: the mix has that length and stands at its share of the angle."""
    a = torch.tensor([length, 0.0])
    b = length * torch.tensor([math.cos(angle), math.sin(angle)])
    expected = length * torch.tensor([math.cos(share * angle), math.sin(share * angle)])
    torch.testing.assert_close(slerp(a, b, torch.tensor(share)), expected, rtol=1e-3, atol=1e-3 * length)
