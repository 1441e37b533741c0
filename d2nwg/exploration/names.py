"""A map of the rows that a bundle knows by name, with names of one's own among them, and search by name."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from d2nwg.analysis.projections import Projection, check_perplexity, on_components, place, project
from d2nwg.bundles import load_pipeline, resolve_bundle
from d2nwg.conditions.class_names import LONGEST, check_names, embed_names
from d2nwg.pipelines.names import EncoderNames, KnownName, Near, nearest
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, is_utf8, shown

NEAREST = 5  # known names beside each of one's own
MEANT = 10  # known names that a search finds by their meaning
KEPT = 4  # maps of a process
NOWHERE = 4  # the rank of a name that a text is no part of
_maps: dict[tuple, Projection] = {}  # by the rows that are mapped, and the settings of t-SNE


class Spelled(NamedTuple):
    """A known name that a text is part of: its number, and the lemma that the text is part of."""

    number: int
    lemma: str


@dataclass(frozen=True)
class Found:
    """Known names that a text was searched for in.

    Attributes:
        text: that was searched for.
        spelled: the known names that it is part of: those that it is, of which it is a word, that it begins, others.
        meant: the known names whose meaning is nearest to it, nearest first, with the cosines of the text vectors.
    """

    text: str
    spelled: tuple[Spelled, ...]
    meant: tuple[Near, ...]


@dataclass
class NamedRowsMap:
    """The N rows that a bundle knows by name as points of the plane, and M names among them.

    Attributes:
        bundle, encoder: names.
        known: (N,) the named rows.
        rows: (N, d) unit directions in the whitened space of the bundle.
        projection: their two maps.
        names: (M,) one's own.
        directions: (M, d) unit directions that the names stand for.
        variance: (M,) predictive variance of the names: 0 known, 1 nothing like them is.
        nearest: (M,) the known rows that have the largest cosines with each direction.
        pca, tsne: (M, 2) places of one's own names.
        found: what was searched for; None where nothing was.
        seed: of t-SNE.
        seconds: wall time.
    """

    bundle: str
    encoder: str
    known: tuple[KnownName, ...]
    rows: np.ndarray
    projection: Projection
    names: tuple[str, ...]
    directions: np.ndarray
    variance: np.ndarray
    nearest: list[list[Near]]
    pca: np.ndarray
    tsne: np.ndarray
    found: Found | None
    seed: int
    seconds: float


def map_names(
    names: Sequence[str] = (),
    search: str = "",
    *,
    bundle: str | Path | None = None,
    perplexity: float = 30,
    seed: int = 0,
    device: str | None = None,
    progress: Progress = silent,
) -> NamedRowsMap:
    """Map the rows that a bundle knows by name, and place other names among them.

    t-SNE places the known rows once a process. A name of one's own stands at the mean of the five known rows whose
    directions are nearest to its own.

    Args:
        names: of classes, each perhaps with a description after a colon; there may be none.
        search: a text to search the known names for; "" for none.
        bundle: name or path; by default the shipped one.
        perplexity, seed: of t-SNE.
        progress: stages "Opening the bundle", "Reading the names", "Drawing the map".
    Raises:
        UserError: names that cannot be used (`check_names`), a text that cannot be searched for, or a bundle that knows
            no names.
    """
    check_perplexity(perplexity)
    names = check_names(names, least=1) if names else []
    seed_number(seed)
    text = check_search(search) if search else ""
    progress("Opening the bundle", 0, 1)
    path = resolve_bundle(bundle)
    on = names_of(path, device)
    started = time.perf_counter()
    progress("Reading the names", 0, 1)
    known = on.known_names
    if not known:
        raise UserError(f"The bundle {path.name} reads names but keeps no named row, so there is nothing to map.")
    rows = on.map.rows.float()
    directions, variance = torch.zeros(0, rows.shape[1]), torch.zeros(0)
    if names:
        directions, variance = on.map(embed_names(names, on.text_encoder))
        directions = normalize(directions, dim=-1)
    progress("Drawing the map", 0, 1)
    projection = _projection(rows.numpy(), perplexity, seed)
    pca, tsne = _placed(directions, rows, projection)
    progress("Drawing the map", 1, 1)
    return NamedRowsMap(
        path.name,
        on.encoder,
        known,
        rows.numpy(),
        projection,
        tuple(names),
        directions.numpy(),
        variance.numpy(),
        nearest(on.cosines(directions), NEAREST),
        pca,
        tsne,
        find(on, text) if text else None,
        seed,
        time.perf_counter() - started,
    )


def names_of(path: Path, device: str | None = None) -> EncoderNames:
    """The class names that a bundle knows, on its encoder, ready to use.

    Raises:
        UserError: it knows none.
    """
    pipe = load_pipeline(path, device)
    if not pipe.uses_names:
        raise UserError(f"The bundle {path.name} was trained without class names: choose one that knows names.")
    on = pipe.names_on()
    on.prepare()
    return on


def check_search(text: str) -> str:
    """A text to search names for, without the spaces around it.

    Raises:
        UserError: it is empty, too long, or not UTF-8.
    """
    text = text.strip()
    if not text:
        raise UserError("There is nothing to search for: write a name, or a part of one.")
    if len(text) > LONGEST:
        raise UserError(f"The text to search for has {len(text):,} characters: write at most {LONGEST}.")
    if not is_utf8(text):
        raise UserError(f"The text {shown(text)} is not UTF-8: write it anew.")
    return text


def find(on: EncoderNames, text: str) -> Found:
    """Search the known names for a text: as a part of them, capitals aside, and by its meaning.

    Raises:
        UserError: as `check_search`.
    """
    text = check_search(text)
    part, spelled = folded(text), []
    for number, known in enumerate(on.known_names):
        lemmas = [known.name, known.source] if known.source else known.label.split(", ")
        rank, lemma = min(((_rank(part, folded(lemma)), lemma) for lemma in lemmas), key=lambda pair: pair[0])
        if rank < NOWHERE or part in folded(known.label):
            spelled.append((rank, number, lemma))
    spelled.sort()
    cosines = embed_names([text], on.text_encoder).double() @ on.map.texts.mT
    return Found(text, tuple(Spelled(number, lemma) for _, number, lemma in spelled), tuple(nearest(cosines, MEANT)[0]))


def _rank(part: str, lemma: str) -> int:
    """0 for a text that is a lemma, 1 for a word of it, 2 for the beginning of a word, 3 for another part of it, or
    `NOWHERE`."""
    if part not in lemma:
        return NOWHERE
    if part == lemma:
        return 0
    words = lemma.split()
    return 1 if part in words else 2 if any(word.startswith(part) for word in words) else 3


def _projection(rows: np.ndarray, perplexity: float, seed: int) -> Projection:
    key = hashlib.sha256(rows.tobytes()).digest(), perplexity, seed
    if key not in _maps:
        drawn = project(rows, perplexity, seed)
        while len(_maps) >= KEPT:
            _maps.pop(next(iter(_maps)), None)
        _maps[key] = drawn
    return _maps[key]


def _placed(directions: Tensor, rows: Tensor, projection: Projection) -> tuple[np.ndarray, np.ndarray]:
    """The places of directions (M, d) on the two maps of the known rows (N, d)."""
    if not len(directions):
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    points, known = directions.numpy(), rows.numpy()
    return on_components(points, known, projection.pca), place(points, known, projection.tsne)
