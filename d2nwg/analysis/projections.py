"""Maps of points to the plane or to space (principal components, t-SNE), and files for the TensorBoard Embedding
Projector."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2nwg.data.tables import as_cell
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import MANY

COMPONENTS = 50  # kept before t-SNE
LANDMARKS = 3000  # points that t-SNE itself places
NEIGHBOURS = 5  # landmarks that place each of the others


@dataclass(frozen=True)
class Projection:
    """Two maps of n points, to the plane or to space.

    Attributes:
        pca: (n, 2) first two principal components, or (n, 3) three.
        tsne: (n, 2) or (n, 3).
        explained: (k,) shares of the variance of the first k ≤ 50 components.
        perplexity: of t-SNE, as used.
        words: how the maps were made, in a sentence.
    """

    pca: np.ndarray
    tsne: np.ndarray
    explained: np.ndarray
    perplexity: float
    words: str

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return self.pca.shape[1]


def reduce(matrix: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) → scores (n, k) on the first k = min(50, n - 1, d) principal components, and their shares of the
    variance (k,). Large matrices by randomised SVD (Halko et al., 2011), small ones exactly."""
    from sklearn.decomposition import PCA
    from sklearn.utils.extmath import randomized_svd

    k = max(1, min(COMPONENTS, len(matrix) - 1, matrix.shape[1]))
    if len(matrix) < 2 or not np.ptp(matrix, axis=0).any():  # all points are one: nothing varies
        return np.zeros((len(matrix), k), np.float32), np.zeros(k)
    if min(matrix.shape) <= 500:
        pca = PCA(k, svd_solver="full")
        return pca.fit_transform(matrix), pca.explained_variance_ratio_
    # As PCA(svd_solver="randomized"), which would hold several copies of the matrix.
    centred = matrix - matrix.mean(0)
    total = np.einsum("ij,ij->", centred, centred, dtype=np.float64)
    left, values, _ = randomized_svd(centred, k, random_state=seed % 2**32)
    return left * values, values.astype(np.float64) ** 2 / total


def project(matrix: np.ndarray, perplexity: float = 30, seed: int = 0, dimensions: int = 2) -> Projection:
    """Both maps of the points in the rows of ``matrix`` (n, d), to the plane or, with ``dimensions=3``, to space.

    t-SNE works on the scores of `reduce`. Of more than `LANDMARKS` points it places a random subset of that size; each
    of the others is placed at the mean of its nearest landmarks in those scores, weighted by 1/distance.
    """
    scores, explained = reduce(matrix, seed)
    plane = np.zeros((len(scores), dimensions), np.float32)
    plane[:, : min(dimensions, scores.shape[1])] = scores[:, :dimensions]
    used = fitting_perplexity(perplexity, min(len(scores), LANDMARKS))
    k = scores.shape[1]
    if len(scores) < 4 or not explained.any():
        words = f"{len(scores)} points are too few, or too similar, for t-SNE: both maps show principal components."
        return Projection(plane, plane.copy(), explained, used, words)
    chosen = np.arange(len(scores))
    if len(scores) > LANDMARKS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(scores), LANDMARKS, replace=False))
    tsne = np.zeros((len(scores), dimensions), np.float32)
    tsne[chosen] = _tsne(scores[chosen], used, seed, dimensions)
    method = "t-SNE in three dimensions" if dimensions == 3 else "t-SNE"
    words = f"{method} (perplexity {used:g}, seed {seed}) of the first {k} principal components"
    if len(chosen) < len(scores):
        others = np.setdiff1d(np.arange(len(scores)), chosen)
        tsne[others] = place(scores[others], scores[chosen], tsne[chosen])
        words += (
            f", which places {len(chosen):,} of the {len(scores):,} points, drawn at random; each of the others "
            f"is placed at the mean of its {NEIGHBOURS} nearest of those"
        )
    return Projection(plane, tsne, explained, used, words + f", which hold {explained.sum():.0%} of the variance.")


def check_perplexity(perplexity: object) -> None:
    """Raises UserError for what is no perplexity of t-SNE."""
    if isinstance(perplexity, bool) or not isinstance(perplexity, (int, float)) or not 1 <= perplexity <= MANY:
        raise UserError(f"The perplexity should be a number from 1 to {MANY:,}.")


def fitting_perplexity(perplexity: float, n: int) -> float:
    """The nearest perplexity that n points allow: at most a third of the other points, at least 1."""
    return float(max(1.0, min(perplexity, (n - 1) / 3)))


def _tsne(scores: np.ndarray, perplexity: float, seed: int, dimensions: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    start = "pca" if scores.shape[1] >= dimensions else "random"
    return TSNE(n_components=dimensions, perplexity=perplexity, init=start, random_state=seed % 2**32).fit_transform(
        scores
    )


def place(scores: np.ndarray, landmarks: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Place points on a map of landmarks: at the mean of the nearest landmarks, weighted by 1/distance.

    Args:
        scores: (m, k) the points.
        landmarks: (n, k) in the same coordinates.
        plane: (n, 2) the landmarks' places on the map, or (n, 3).
    Returns:
        (m, 2) or (m, 3) places.
    """
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(landmarks))).fit(landmarks)
    distance, index = near.kneighbors(scores)
    weight = 1 / np.maximum(distance, 1e-6)
    return (plane[index] * (weight / weight.sum(1, keepdims=True))[..., None]).sum(1)


def on_components(points: np.ndarray, matrix: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Points (m, d) on the first two principal components of ``matrix`` (n, d), whose own places there are ``plane``
    (n, 2), as `project` gives them: (m, 2)."""
    mean = matrix.mean(0)
    # With the singular value decomposition U S Vᵀ of the centred matrix, plane = U S, and its transpose times U S is
    # V S²: the components, up to their lengths.
    axes = (matrix - mean).T @ plane / np.maximum(np.square(plane).sum(0), 1e-12)
    return (points - mean) @ axes


MOST_NUMBERS = 20_000_000  # 80 MB; the projector runs in a browser


def write_projector(folder: str | Path, matrix: np.ndarray, columns: Mapping[str, Sequence], name: str) -> list[Path]:
    """Write ``tensor.bytes`` (row-major little-endian float32), ``metadata.tsv`` (a row a point, with a header) and
    ``projector_config.json``.

    Args:
        matrix: (n, d); with more than `MOST_NUMBERS` numbers its first 50 principal components are written instead.
        columns: name → n values; at least two, for with one the projector expects no header.
        name: shown for the tensor.
    Returns:
        the three files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if matrix.size > MOST_NUMBERS:
        matrix, name = reduce(matrix)[0], f"{name}, principal components"
    tensor, metadata, config = (folder / file for file in ("tensor.bytes", "metadata.tsv", "projector_config.json"))
    tensor.write_bytes(np.ascontiguousarray(matrix, "<f4").tobytes())
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    metadata.write_text("".join("\t".join(map(_cell, row)) + "\n" for row in rows), encoding="utf-8", newline="\n")
    embedding = {
        "tensorName": name,
        "tensorShape": list(matrix.shape),
        "tensorPath": tensor.name,
        "metadataPath": metadata.name,
    }
    config.write_text(json.dumps({"embeddings": [embedding]}, indent=1, ensure_ascii=False), encoding="utf-8")
    return [tensor, metadata, config]


def _cell(value) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(as_cell(" ".join(str(value).split())))
