"""How good a small network is on data sets in array files; on others `d2nwg.heads.evaluate_head` says it."""

from pathlib import Path

import numpy as np
import torch

from d2nwg.data.array_files import find_idx
from d2nwg.data.arrays import load_arrays, to_channels
from d2nwg.evaluation.accuracy import confusion_matrix, per_class_accuracy
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import some
from d2nwg.weights.network_files import NetworkFile

ROWS = 60_000  # most images that are read


def is_arrays(source: str | Path) -> bool:
    """Whether a data set is in array files, whose images `d2nwg.data.sources.load_data` does not read."""
    path = Path(source).expanduser()
    return bool(find_idx(path)) or (path.is_file() and path.suffix.lower() == ".npz")


def evaluate_arrays(network: NetworkFile, source: str | Path, progress: Progress = silent) -> dict:
    """As `d2nwg.heads.evaluate_head`, on the test part of a data set in array files.

    Raises:
        UserError: it cannot be read, or has classes that the network does not know.
    """
    data = load_arrays(source, size=network.size, rows=ROWS, progress=progress)
    if unknown := [name for name in data.classes if name not in network.classes]:
        own = some(network.classes, 8)
        raise UserError(f"{data.name} has classes that the network does not know ({some(unknown)}): it knows {own}.")
    images = to_channels(torch.from_numpy(np.ascontiguousarray(data.test)), network.channels)
    truth = np.array([network.classes.index(name) for name in data.classes])[data.test_labels]
    confusion = confusion_matrix(truth, network.logits(images).argmax(1).numpy(), len(network.classes))
    per_class = per_class_accuracy(confusion, network.classes)
    return {
        "accuracy": float(confusion.trace() / confusion.sum()),
        "per_class": {name: right for name, right in per_class.items() if right is not None},
        "num_images": int(confusion.sum()),
        "classes": list(network.classes),
        "confusion": confusion.tolist(),
        "skipped": 0,
        "notes": list(data.notes),
    }
