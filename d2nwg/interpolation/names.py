"""A path between two class *names*: the head row at each point, what lies beside it, and the images it likes best.

Source: the interpolation between tasks of Zhang et al., arXiv 2506.17807, here between names: a point's row is the
direction that the bundle predicts for a text between the two names.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2nwg.bundles import load_pipeline, resolve_bundle
from d2nwg.conditions.class_names import check_distinct, check_names, class_of, embed_names
from d2nwg.data.image_set import ImageSet
from d2nwg.data.labelled import check_readable
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.images import load_encoder
from d2nwg.heads import Head
from d2nwg.interpolation.methods import NAME_POINTS
from d2nwg.interpolation.name_result import NamePath
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown
from d2nwg.weights.networks import logits

MOST_POINTS = 101  # a page shows the images of every point
MOST_BEST = 24  # images of a point


def name_path(
    names: Sequence[str],
    images: ImageSet | None = None,
    *,
    bundle: str | Path | None = None,
    points: int = NAME_POINTS,
    best: int = 6,
    max_query: int = 200,
    seed: int = 0,
    device: str | None = None,
    progress: Progress = silent,
) -> NamePath:
    """Go from one class name to another, by a bundle that makes heads from names.

    Args:
        names: two, each perhaps with a description after a colon.
        images: to score; of a set with a test split that, or else all of it: names alone make the rows, so no image was
            seen. None to look at known names only.
        bundle: name or path; by default the shipped one.
        points: P, both names included.
        best: images to keep of each point.
        max_query: most images to score, of all classes alike.
        seed: of the choice among more images.
        progress: stages "Opening the bundle", "Reading the names", "Reading images".
    Raises:
        UserError: other than two names, or two that are the same to the text encoder; names that cannot be used; a
            bundle that knows none; or images most of which cannot be read.
    """
    names = _two(names)
    whole(points, "The number of points", 2, MOST_POINTS)
    whole(best, "The number of images of a point", 1, MOST_BEST)
    whole(max_query, "The largest number of query images", 1)
    seed_number(seed)
    progress("Opening the bundle", 0, 1)
    path = resolve_bundle(bundle)
    pipe = load_pipeline(path, device)
    if not pipe.uses_names:
        raise UserError(f"The bundle {path.name} was trained without class names: choose one that knows names.")
    on = pipe.names_on()
    on.prepare()
    encoder = load_encoder(on.encoder, device)
    progress("Opening the bundle", 1, 1)
    started = time.perf_counter()
    progress("Reading the names", 0, 1)
    check_distinct(names, embed_names(names, on.text_encoder))
    directions, share = on.between(*names, points), torch.linspace(0, 1, points)
    state = on.fold({"weight": directions, "bias": torch.zeros(points)})
    head = _head(state, encoder, names, share, path.name)
    progress("Reading the names", 1, 1)
    index, features, notes = np.zeros(0, np.int64), torch.zeros(0, encoder.num_features), ()
    if images is not None:
        index, features, notes = _read(images, encoder, max_query, seed, progress)
        head.keep_scale(images.pixels.scale())
    scores = logits(head.state, features).mT
    return NamePath(
        (names[0], names[1]),
        path.name,
        share,
        head,
        on.known_names,
        on.cosines(directions),
        images,
        index,
        scores,
        scores.topk(min(best, len(index)), -1).indices,
        notes,
        time.perf_counter() - started,
    )


def _two(names: Sequence[str]) -> list[str]:
    if len(names) == 1:
        raise UserError(f"A path between names needs two of them, and {shown(names[0])} is the only one.")
    names = check_names(names)
    if len(names) > 2:
        raise UserError(f"A path leads from one name to another: give two names, not {len(names):,}.")
    return names


def _head(state: dict[str, Tensor], encoder: Encoder, names: Sequence[str], share: Tensor, bundle: str) -> Head:
    first, last = map(class_of, names)
    classes = [f"{first} → {last} {part:.2f}" for part in share.tolist()]
    info = {"bundle": bundle, "data": "class names", "shots": 0, "selection": "path between names"}
    return Head(state, encoder.name, tuple(classes), encoder.preprocessing, info)


def _read(images: ImageSet, encoder: Encoder, most: int, seed: int, progress: Progress) -> tuple[Any, Tensor, tuple]:
    """The images to score: their numbers (m,), their features (m, d), and notes."""
    pool = np.flatnonzero(images.is_test) if images.is_test.any() else np.arange(len(images))
    pool = np.random.default_rng(seed).permutation(pool)
    labels = images.labels[pool]
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    turn = np.empty(len(pool), int)
    turn[order] = np.arange(len(pool)) - starts  # the first of every class, then the second of every class, …
    chosen = np.sort(pool[np.lexsort((labels, turn))][:most])
    scale = images.pixels.scale(progress)
    features, seen = encoder.encode([images.items[int(i)] for i in chosen], progress=progress, **scale.option)
    readable = np.zeros(len(images), bool)
    readable[chosen] = seen
    notes = (*images.notes, *check_readable(images, chosen, readable), *scale.notes())
    return chosen[seen], features[torch.from_numpy(seen)], notes
