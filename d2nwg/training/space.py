"""What a bundle of heads keeps of its zoo: the layout, and a sample of heads and conditions."""

from collections.abc import Sequence

import torch

from d2nwg.conditions.base import Conditioner
from d2nwg.models.spaces import WeightSpace
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import head_shapes, select_classes
from d2nwg.weights.zoo import Zoo

ZOO_SAMPLE = 256  # zoo heads that a bundle keeps, for plots and for the distance to the nearest
ZOO_CONDITIONS = 1024  # zoo tasks whose z_D it keeps, to tell where a condition is unlike any that was seen


def fit_layout(zoo: Zoo, token: str = "class", rows: Sequence[int] | None = None) -> WholeLayout:
    """The layout of a zoo's heads, standardised on at most 2,048 of them.

    Args:
        token: what one piece of the vectors holds: a ``class``, or the whole ``head``.
        rows: the records to measure on; by default all.
    """
    probe, most = zoo.config.probe, zoo.config.max_classes
    shapes = head_shapes(probe, zoo.images["projection"].shape[0], most, zoo.config.hidden)
    # A linear head is one row a class: a token each. A two-layer head has a shared layer: one token, as in the paper.
    tokens = most if probe == "linear" and token == "class" else 1
    layout = WholeLayout(shapes, num_classes=most, tokens=tokens)
    some = zoo.records((range(len(zoo)) if rows is None else rows)[:2048])
    layout.fit(some.state, some.counts)
    return layout


@torch.inference_mode()
def seen_conditions(
    zoo: Zoo, encoder: Conditioner, rows: Sequence[int], most=ZOO_CONDITIONS, shots: int = 5
) -> torch.Tensor:
    """z_D (n, E) of at most ``most`` tasks spread over ``rows``, from ``shots`` images a class: what training saw."""
    device = next(encoder.parameters()).device
    rows = _spread(rows, most)
    made = []
    for first in range(0, len(rows), 128):
        inputs = encoder.record_inputs(zoo, zoo.records(rows[first : first + 128]), shots)
        made.append(encoder(*(value.to(device) for value in inputs)).dataset.float().cpu())
    return torch.cat(made)


def _spread(rows: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly spread."""
    return [int(rows[i]) for i in torch.linspace(0, len(rows) - 1, min(most, len(rows))).long().tolist()]


def weight_space(
    zoo: Zoo, layout: WholeLayout, encoder: Conditioner | None = None, rows: Sequence[int] | None = None
) -> WeightSpace:
    """The space of a zoo's heads, with a sample of them, and of conditions where there is a conditioner; of the records
    ``rows`` alone, where they are given."""
    rows = range(len(zoo)) if rows is None else rows
    size = min(ZOO_SAMPLE, len(rows))
    some = zoo.records(_spread(rows, size))
    projection = zoo.images["projection"]
    conditions = seen_conditions(zoo, encoder, rows) if encoder else None
    space = WeightSpace(
        encoder=zoo.encoder,
        preprocessing=zoo.preprocessing,
        layout=layout.to_config(),
        num_features=projection.shape[1],
        projected=projection.shape[0],
        zoo_size=size,
        conditions=None if conditions is None else tuple(conditions.shape),
    )
    features, mask = zoo.support_features(some)  # class means in canonical order, as at sampling
    means = features.sum(2) / mask.unsqueeze(-1).sum(2).clamp_min(1)
    keys = (means[..., 0] if encoder is None else encoder.order_keys(some, means)).masked_fill(
        some.classes < 0, torch.inf
    )
    order = keys.argsort(dim=-1, stable=True)
    rows = [select_classes({n: v[i] for n, v in some.state.items()}, order[i]) for i in range(size)]
    vectors = layout.flatten({name: torch.stack([row[name] for row in rows]) for name in some.state})
    vectors = vectors * layout.mask(some.counts)
    state = {
        "mean": zoo.images["mean"],
        "projection": projection,
        "zoo_vectors": vectors,
        "zoo_counts": some.counts.float(),
        "zoo_accuracy": some.accuracy,
    }
    if conditions is not None:
        state["zoo_conditions"] = conditions
    space.load_state_dict(state)
    return space
