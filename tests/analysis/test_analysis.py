"""The numbers of Explore: populations, maps, distances and tests, against scikit-learn, scipy or cases done by hand."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import energy_distance
from sklearn.decomposition import PCA

from d2nwg.analysis import compare, populations, projections
from d2nwg.analysis.populations import WHOLE, ZOO, Population, columns, matrix, part_names, trained_vectors
from d2nwg.bundles import load_pipeline
from d2nwg.utils.errors import UserError
from d2nwg.weights.layouts import WholeLayout


def heads(vectors, counts, origin=ZOO) -> Population:
    return populations.population(
        torch.as_tensor(np.asarray(vectors, np.float32)), counts, origin, -1, np.zeros(len(vectors))
    )


# ----------------------------------------------------------------------------------------------- populations


def test_vectors_and_heads_are_each_others_inverse(tiny_bundle, tiny_mlp_bundle):
    for bundle in (tiny_bundle, tiny_mlp_bundle):
        space = load_pipeline(bundle, "cpu").weight_space
        order = torch.tensor([2, 0, 1])
        vectors = torch.randn(4, space.layout.size, generator=torch.Generator().manual_seed(0))
        vectors = vectors * space.layout.mask(torch.tensor([3]))
        again = space.to_vectors(space.to_heads(vectors, order), order)
        assert torch.allclose(again, vectors, atol=2e-3)


def test_columns_of_a_part():
    layout = WholeLayout({"weight": (3, 2), "bias": (3,)}, num_classes=3, tokens=3)
    assert part_names(layout) == [WHOLE, "weight", "bias", "row 1", "row 2", "row 3"]
    assert part_names(layout, "latent") == [WHOLE, "row 1", "row 2", "row 3"]
    assert columns(layout, "bias").tolist() == [2, 5, 8]  # weight, weight, bias of each class
    assert columns(layout, "weight").tolist() == [0, 1, 3, 4, 6, 7]
    assert columns(layout, "row 2").tolist() == [3, 4, 5]
    with pytest.raises(UserError, match="no part row 4"):
        columns(layout, "row 4")
    plain = WholeLayout({"0.weight": (2, 2), "0.bias": (2,), "2.weight": (3, 2), "2.bias": (3,)}, num_classes=3)
    assert part_names(plain)[1:] == list(plain.shapes)


def test_matrix_of_a_row_leaves_out_heads_without_it(tiny_bundle):
    pipe = load_pipeline(tiny_bundle, "cpu")
    zoo = populations.zoo_population(pipe.weight_space)
    rows_of, kept = matrix(zoo, pipe.weight_space, part="row 4")
    assert kept.tolist() == np.flatnonzero(zoo.counts >= 4).tolist() and len(rows_of) == len(kept)
    latent, _ = matrix(zoo, pipe.weight_space, pipe.vae, "latent")
    encoded = pipe.vae.encode(torch.from_numpy(zoo.vectors)).mean * pipe.vae.config.latent_scale
    full = zoo.counts == pipe.weight_space.max_classes
    assert np.allclose(np.sort(latent[full], 1), np.sort(encoded[full].flatten(1).detach().numpy(), 1), atol=1e-5)
    few = zoo.counts == 2  # latents of rows that hold no class are zero
    assert (latent[few].reshape(few.sum(), pipe.weight_space.max_classes, -1)[:, 2:] == 0).all()
    with pytest.raises(UserError, match="no VAE"):
        matrix(zoo, pipe.weight_space, None, "latent")


def test_trained_heads_solve_their_task(tiny_bundle):
    space = load_pipeline(tiny_bundle, "cpu").weight_space
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(6)
    features = torch.eye(48)[labels] + 0.05 * torch.randn(18, 48, generator=generator)
    order = torch.tensor([1, 2, 0])
    vectors = trained_vectors(space, features, labels, order, 5, seed=0)
    assert len(vectors) == 5 and not torch.equal(vectors[0], vectors[1])
    state = space.to_heads(vectors, order)
    predicted = (features @ state["weight"].mT + state["bias"].unsqueeze(1)).argmax(-1)
    assert (predicted == labels).all()
    assert len(trained_vectors(space, features[::6], labels[::6], order, 5, seed=0)) == 1


# ------------------------------------------------------------------------------------------------------ maps


def test_tsne_is_given_principal_components(monkeypatch):
    given = {}
    monkeypatch.setattr(
        projections,
        "_tsne",
        lambda scores, perplexity, seed, dimensions: (
            given.update(scores=scores, perplexity=perplexity) or scores[:, :2]
        ),
    )
    points = np.random.default_rng(0).normal(size=(80, 120)).astype(np.float32)
    found = projections.project(points, perplexity=100)
    expected = PCA(50, svd_solver="full").fit(points)
    assert np.allclose(np.abs(given["scores"]), np.abs(expected.transform(points)), atol=1e-3)
    assert np.allclose(found.pca, given["scores"][:, :2])
    assert np.allclose(found.explained, expected.explained_variance_ratio_, atol=1e-5)
    assert given["perplexity"] == found.perplexity == 79 / 3
    assert "50 principal components" in found.words


def test_components_of_large_matrices_are_scikit_learns():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 8)) @ rng.normal(size=(8, 700)) + 0.05 * rng.normal(size=(600, 700)) + 3
    scores, explained = projections.reduce(points.astype(np.float32))
    expected = PCA(50, svd_solver="full").fit(points)
    assert np.allclose(np.abs(scores[:, :8]), np.abs(expected.transform(points)[:, :8]), atol=0.02)
    assert np.allclose(explained[:8], expected.explained_variance_ratio_[:8], atol=1e-4)


def test_tsne_keeps_groups_together():
    rng = np.random.default_rng(0)
    centres = 40 * rng.normal(size=(3, 20))
    found = projections.project(np.concatenate([rng.normal(c, 1, (25, 20)) for c in centres]).astype(np.float32), 10, 3)
    groups = found.tsne.reshape(3, 25, 2)
    spread = np.linalg.norm(groups - groups.mean(1, keepdims=True), axis=2).max()
    apart = min(np.linalg.norm(groups[i].mean(0) - groups[j].mean(0)) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert apart > spread


def test_many_points_are_placed_among_landmarks(monkeypatch):
    monkeypatch.setattr(projections, "LANDMARKS", 60)
    monkeypatch.setattr(projections, "_tsne", lambda scores, *_: scores[:, :2])
    points = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    found = projections.project(points)
    assert "60 of the 100 points" in found.words and np.isfinite(found.tsne).all()
    assert projections.place(points[:1], points, points) == pytest.approx(points[:1], abs=1e-2)
    between = projections.place(np.array([[0.5, 0]]), np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 0], [10, 0]]))
    assert between == pytest.approx(np.array([[5.0, 0]]))


@pytest.mark.parametrize("points", [np.zeros((6, 4)), np.ones((1, 4)), np.eye(3), np.arange(8.0)[:, None]])
def test_maps_of_next_to_nothing(points):
    found = projections.project(points.astype(np.float32))
    assert found.pca.shape == found.tsne.shape == (len(points), 2) and np.isfinite(found.tsne).all()


# ----------------------------------------------------------------------------------------------- comparisons


def test_energy_is_scipys_in_one_dimension():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 1)), rng.normal(1, 1, size=(30, 1))
    found = compare.energy_test(a, b, permutations=99)
    across = np.abs(a - b.T).mean()
    assert found.statistic == pytest.approx(energy_distance(a[:, 0], b[:, 0]) ** 2 / (2 * across), rel=1e-4)
    assert found.p == 0.01 and found.sizes == (40, 30)


def test_energy_by_hand():
    # E|X-Y| = (3 + 2) / 2, E|X-X'| = 1/2, E|Y-Y'| = 0
    found = compare.energy_test(np.array([[0.0], [1.0]]), np.array([[3.0]]), permutations=9)
    assert found.statistic == pytest.approx((5 - 0.5) / 5)
    assert 0.1 <= found.p <= 1


def test_energy_of_alike_samples_is_not_significant():
    rng = np.random.default_rng(1)
    p = [compare.energy_test(*rng.normal(size=(2, 25, 3)), permutations=99, seed=i).p for i in range(20)]
    assert 0.25 < np.mean(p) < 0.75


def test_energy_permutes_within_a_count():
    """A difference that only comes from how many heads of each count there are is none."""
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.normal(0, 1, (30, 2)), rng.normal(50, 1, (6, 2))])
    b = np.concatenate([rng.normal(0, 1, (6, 2)), rng.normal(50, 1, (30, 2))])
    a_counts, b_counts = np.repeat([2, 3], [30, 6]), np.repeat([2, 3], [6, 30])
    assert compare.energy_test(a, b, permutations=99).p == 0.01
    assert compare.energy_test(a, b, a_counts, b_counts, permutations=99).p > 0.05
    assert compare.energy_test(a, b, a_counts, b_counts + 5) is None


def test_similarity_puts_alike_heads_side_by_side():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat([0, 1], 8))
    points = np.eye(4)[group] + 0.05 * rng.normal(size=(16, 4))
    values, order = compare.similarity(points, np.full(16, 3))
    assert sorted(order.tolist()) == list(range(16)) and np.count_nonzero(np.diff(group[order])) == 1
    unit = points[order] / np.linalg.norm(points[order], axis=1, keepdims=True)
    assert np.allclose(values, unit @ unit.T, atol=1e-6)
    mixed, _ = compare.similarity(points, np.repeat([2, 3], 8))
    assert np.isnan(mixed[:8, 8:]).all() and np.isfinite(mixed[:8, :8]).all()


def test_densities_have_area_one():
    rng = np.random.default_rng(0)
    edges, heights = compare.density({"a": rng.normal(size=4000), "b": rng.normal(3, 1, size=4000), "c": np.array([])})
    assert set(heights) == {"a", "b"}
    assert all((height * np.diff(edges)).sum() == pytest.approx(1, abs=0.01) for height in heights.values())
    assert np.isfinite(compare.density({"a": np.ones(5)})[1]["a"]).all()


# ------------------------------------------------------------------------------------------------- projector


def test_projector_files(tmp_path, monkeypatch):
    points = np.arange(6, dtype=np.float64).reshape(3, 2)
    columns = {"head": ["a\tb", "c\nd", "e"], "accuracy": [0.5, float("nan"), 1.0]}
    tensor, metadata, config = projections.write_projector(tmp_path, points, columns, "heads")
    assert np.fromfile(tensor, "<f4").reshape(3, 2).tolist() == points.tolist()
    assert metadata.read_text() == "head\taccuracy\na b\t0.5\nc d\t\ne\t1\n"
    said = json.loads(config.read_text())["embeddings"][0]
    assert said == {
        "tensorName": "heads",
        "tensorShape": [3, 2],
        "tensorPath": "tensor.bytes",
        "metadataPath": "metadata.tsv",
    }
    monkeypatch.setattr(projections, "MOST_NUMBERS", 4)
    projections.write_projector(tmp_path, points, columns, "heads")
    assert json.loads(config.read_text())["embeddings"][0]["tensorName"] == "heads, principal components"
