"""Heads from class names alone, for the tables of `benchmarks.unseen`: of the bundle, and two beside it that keep it
honest."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from d2nwg.conditions.base import Task
from d2nwg.conditions.class_names import embed_names, spellings
from d2nwg.models.names import Directions, NameMap
from d2nwg.pipelines.names import EncoderNames
from d2nwg.utils.text import folded
from d2nwg.weights.networks import State


def heads_from_names(pipe, encoder: str, names: Sequence[str], num_samples: int, seed: int) -> dict[str, State]:
    """Samples (S, C, d) of heads from names alone: ``names_only`` as the bundle makes them; ``names_nearest``, the row
    of the known class whose name is nearest; ``names_no_overlap``, as the first, from a map without any class of which
    a lemma equals or contains one of the names."""
    on = pipe.names_on(encoder)
    if not on.known:
        return {}
    found = {"names_only": pipe(Task(names=names, encoder=encoder), num_samples, _seeded(seed)).state}
    if on.tower:
        return found
    texts = embed_names(names, on.text_encoder)
    rows = on.map.rows[on.map.nearest(texts)].float()
    found["names_nearest"] = on.heads(Directions.of_one(rows, torch.zeros(len(names))), 1, _seeded(seed))
    apart = _map_without(on, tuple(names))
    found["names_no_overlap"] = on.heads(Directions.of_one(*apart(texts)), 1, _seeded(seed))
    return {name: {key: tensor.cpu() for key, tensor in state.items()} for name, state in found.items()}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache(maxsize=64)
def _map_without(on: EncoderNames, names: tuple[str, ...]) -> NameMap:
    wanted = [folded(spelling) for name in names for spelling in spellings(name)]

    def overlaps(label: str) -> bool:
        return any(name in lemma for lemma in spellings(label.rpartition("/")[2]) for name in wanted)

    kept = torch.tensor([not overlaps(label) for label in on.labels])
    return NameMap(on.map.texts[kept], on.map.rows[kept])


def whitened_ridge(on: EncoderNames, x: Tensor, y: Tensor, xq: Tensor) -> State | None:
    """A ridge regression (penalty 1) on whitened, centred features of unit length, without names; on ``features``
    of the same kind, which this returns for the query images: the head (1, C, d) and those features."""
    if not on.own:
        return None
    centre = on.features(x).mean(0)
    z, zq = (normalize(on.features(images) - centre, dim=-1) for images in (x, xq))
    targets = torch.eye(int(y.max()) + 1)[y]
    targets = targets - targets.mean(0)
    gram = z @ z.mT + torch.eye(len(z))
    weight = (z.mT @ torch.linalg.solve(gram, targets)).mT
    return {"weight": 8 * weight, "bias": torch.zeros(len(weight)), "query": zq}
