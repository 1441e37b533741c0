"""Distances to the zoo, and the baselines that the zoo gives, against cases done by hand."""

import numpy as np
import pytest
import torch

from d2nwg.evaluation import zoo_distance as distances
from d2nwg.evaluation.zoo_baselines import AVERAGE, NEAREST, NOISE, RANDOM, make_zoo_baselines, novelty
from d2nwg.evaluation.zoo_distance import nearest, zoo_distance, zoo_length
from d2nwg.models.spaces import WeightSpace
from d2nwg.weights.layouts import WholeLayout

C, D = 3, 2  # most classes, features


def space(vectors, counts) -> WeightSpace:
    """A bundle's weight space whose vectors are linear heads for two features, row by row: weight, weight, bias."""
    layout = WholeLayout({"weight": (C, D), "bias": (C,)}, num_classes=C, tokens=C)
    made = WeightSpace("fake", {}, vars(layout), num_features=D, projected=D, zoo_size=len(vectors))
    made.projection.data, made.zoo_counts.data = torch.eye(D), torch.tensor(counts, dtype=torch.float32)
    made.zoo_vectors.data = torch.tensor(vectors, dtype=torch.float32)
    return made


def test_nearest_is_of_the_same_count_and_not_itself(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", 8)
    rng = np.random.default_rng(0)
    points, counts = rng.normal(size=(30, 4)).astype(np.float32), np.repeat([2, 3], 15)
    found = nearest(points, counts, points, counts, 3, np.arange(30))
    for i in range(30):
        distance = np.linalg.norm(points - points[i], axis=1)
        distance[(counts != counts[i]) | (np.arange(30) == i)] = np.inf
        assert found.index[i].tolist() == np.argsort(distance)[:3].tolist()
        assert found.distance[i] == pytest.approx(np.sort(distance)[:3], rel=1e-5)
    alone = nearest(points[:2], np.array([9, 2]), points, counts, 2)
    assert alone.index[0].tolist() == [-1, -1] and np.isinf(alone.distance[0]).all() and alone.index[1, 0] == 1
    assert np.isnan(alone.nearest[0]) and alone.nearest[1] == 0


def test_the_unit_is_the_median_norm_of_zoo_heads_with_as_many_classes():
    zoo, counts = np.diag([1.0, 2.0, 5.0, 9.0]), np.array([2, 2, 2, 3])
    assert zoo_length(np.array([2, 3]), zoo, counts).tolist() == [2, 9]
    assert np.isnan(zoo_length(np.array([4]), zoo, counts)).all()


def test_distance_to_the_nearest_zoo_head_with_as_many_classes():
    # Two zoo heads of 2 classes, of norms 2 and 6 (unit 4), and one of 3 classes, which is nearer but does not count.
    made = space([[2, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 6, 0, 0, 0, 0, 0], [1.0] * 9], [2, 2, 3])
    vectors = torch.tensor([[2.0, 0, 0, 0, 0, 0, 7, 7, 7], [2, 1, 0, 0, 0, 0, 7, 7, 7], [0, 0, 0, 4, 0, 0, 0, 0, 0]])
    assert zoo_distance(made, vectors, 2) == pytest.approx([0, 0.25, 0.5]), "row 3 belongs to no class"
    assert np.isnan(zoo_distance(made, vectors, 4)).all()


def test_baselines_lie_where_they_should():
    rng = np.random.default_rng(0)
    zoo, points, used = rng.normal(size=(40, 9)), rng.normal(3, 1, size=(5, 9)), np.arange(9) < 6
    zoo, points = (zoo * used).astype(np.float32), (points * used).astype(np.float32)
    order = np.argsort(np.linalg.norm(points[:, None] - zoo, axis=2), axis=1)
    made = make_zoo_baselines(points, zoo, order[:, :5], used, torch.Generator().manual_seed(0))
    assert np.array_equal(made[NEAREST], zoo[order[:, 0]])
    assert made[AVERAGE] == pytest.approx(zoo[order[:, :3]].mean(1))
    gap = np.linalg.norm(points - made[NEAREST], axis=1)
    assert np.linalg.norm(made[NOISE] - made[NEAREST], axis=1) == pytest.approx(gap, rel=1e-5)
    assert all((made[name][:, ~used] == 0).all() for name in made)
    many = make_zoo_baselines(np.zeros((2000, 9), np.float32), zoo, np.zeros((2000, 3), int), used, torch.Generator())
    assert many[RANDOM][:, used].std() == pytest.approx(zoo[:, used].std(), rel=0.05)


def test_novelty_by_hand():
    # The class of a point (a, b) is whether a or b is larger. Zoo: two heads that see it, one that says the opposite.
    right, wrong = [1.0, 0, 0, 0, 1, 0, 0, 0, 0], [0.0, 1, 0, 1, 0, 0, 0, 0, 0]
    made = space([[2 * x for x in right], [4 * x for x in wrong], [3 * x for x in right]], [2, 2, 2])
    features, labels = torch.tensor([[1.0, 0], [0, 1], [2, 1]]), torch.tensor([0, 1, 0])
    samples = torch.tensor([wrong, wrong]) * torch.tensor([[4.0], [4.2]])
    found = novelty(made, samples, torch.arange(2), features, labels, torch.Generator().manual_seed(0))
    assert found.distance == pytest.approx(0.1 / 3, abs=1e-4), "norms of the zoo: √2 times 2, 4 and 3"
    assert found.nearest_zoo_head == 0 and found.zoo_head_plus_noise == 0  # so little noise changes no answer
    assert found.average_of_nearest == 1  # 5 right against 4 wrong
    mirrored = novelty(made, samples, torch.tensor([1, 0]), features, labels, torch.Generator().manual_seed(0))
    assert mirrored.nearest_zoo_head == 1 and mirrored.average_of_nearest == 0
    assert novelty(made, samples, torch.arange(3), features, labels, torch.Generator()) is None
