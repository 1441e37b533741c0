"""Data sets of a table, and their features."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.papers.run import Run
from d2nwg.data.array_files import read_npz
from d2nwg.data.image_set import ImageSet
from d2nwg.data.images import load_images
from d2nwg.encoders.base import Encoder


def image_set(run: Run, name: str) -> ImageSet:
    """A data set below ``--data``, or the example that stands for it. Raises UserError as `Run.source`."""
    source = run.source(name)
    if not source.endswith(".npz"):
        return load_images(source, progress=run.progress)
    found = read_npz(Path(source))
    return ImageSet(found.name, found.classes, [png(one) for one in found.images], found.labels, found.is_test)


def png(pixels: np.ndarray) -> bytes:
    """(h, w, c) uint8 → an encoded image."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def features_of(run: Run, images: ImageSet, encoder: Encoder, rows: np.ndarray | None = None) -> torch.Tensor:
    """The features (n, D) of a data set's images; of those in ``rows`` alone where that is given, zeros for others."""
    rows = np.arange(len(images)) if rows is None else np.unique(rows)
    found, readable = encoder.encode([images.items[i] for i in rows], progress=run.progress)
    assert readable.all()
    features = torch.zeros(len(images), encoder.num_features)
    features[torch.from_numpy(rows)] = found
    return features


def percent(values: list[float], half: float) -> tuple[float, float]:
    """Fractions → their mean in percent ± half of an interval given as a fraction, to a tenth."""
    return round(100 * sum(values) / len(values), 1), round(100 * half, 1)
