"""Checkpoints before they are imported: layers, chunks, and a histogram of the weights."""

import numpy as np

from d2nwg.utils.text import shown, some
from d2nwg.weights.imports import Imported
from d2nwg.weights.layouts import ChunkedLayout
from d2nwg.weights.model_zoo import without_prefix

BINS = np.linspace(-0.5, 0.5, 81)


def preview(made: Imported, chunk: int = 1024) -> list[dict]:
    """Statistics of each architecture among checkpoints that were read without importing them, the most frequent first.

    Args:
        made: of `import_checkpoints` with ``out=None``.
        chunk: length of a chunk.
    Returns:
        A dict an architecture, of its first checkpoint: number of ``checkpoints``, ``names``, ``parameters``,
        ``layers`` (layer, shapes, numbers, chunks, padding, mean, std), ``counters`` (tensors that no layout holds),
        ``histogram`` (edges, share of the weights in each bin) and ``difference``, a sentence on how its shapes differ
        from the first architecture's.
    """
    groups: dict[str, list[int]] = {}
    for number, record in enumerate(made.records):
        groups.setdefault(record["architecture"], []).append(number)
    shown_groups, first = [], None
    for architecture, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        state = without_prefix(made.sources[members[0]].read().state)
        state = {name: state[name] for name in made.architectures[architecture]}
        layout = ChunkedLayout.of(state, chunk)
        layout.fit([state])
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        first = shapes if first is None else first
        counts = np.zeros(len(BINS) - 1)
        for name in layout.shapes:
            counts += np.histogram(state[name].float().numpy().clip(BINS[0], BINS[-1]), BINS)[0]
        shown_groups.append(
            {
                "checkpoints": len(members),
                "names": [made.records[member]["name"] for member in members],
                "parameters": sum(layout.numel(layer) for layer in layout.layers),
                "layers": [_layer(layout, layer) for layer in layout.layers],
                "counters": [name for name in state if name not in layout.shapes],
                "histogram": {"edges": BINS.tolist(), "share": (counts / max(1, counts.sum())).tolist()},
                "difference": _difference(shapes, first),
            }
        )
    return shown_groups


def _layer(layout: ChunkedLayout, layer: str) -> dict:
    names, numbers = layout.layers[layer], layout.numel(layer)
    chunks = -(-numbers // layout.chunk)
    return {
        "layer": layer,
        "shapes": {name.rpartition(".")[2]: list(layout.shapes[name]) for name in names},
        "numbers": numbers,
        "chunks": chunks,
        "padding": chunks * layout.chunk - numbers,
        "mean": round(layout.mean[names[0]], 5),
        "std": round(layout.std[names[0]], 5),
    }


def _difference(shapes: dict[str, tuple], first: dict[str, tuple]) -> str:
    if shapes == first:
        return ""
    more, fewer = sorted(set(shapes) - set(first)), sorted(set(first) - set(shapes))
    other = [name for name in shapes if name in first and shapes[name] != first[name]]
    parts = [
        f"{len(more)} more tensors ({some(more, 1)})" if more else "",
        f"{len(fewer)} fewer ({some(fewer, 1)})" if fewer else "",
        f"{len(other)} of another shape ({shown(other[0])}: {_by(shapes[other[0]])} instead of {_by(first[other[0]])})"
        if other
        else "",
    ]
    return (
        f"Unlike the first architecture: {', '.join(filter(None, parts))}. Kept as an architecture of its own; "
        "cut into chunks, the end of each layer is padded."
    )


def _by(shape: tuple) -> str:
    return "×".join(map(str, shape)) or "one number"
