"""Classifiers as ONNX files, which runtimes in other languages and on other devices read."""

import json
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from d2nwg.utils.paths import whole_file

OPSET = 17  # read by onnxruntime from 1.12 on
INPUT, OUTPUT = "images", "probabilities"
_exporting = threading.Lock()  # the exporter keeps what it does in globals


class Classifier(nn.Module):
    """Bytes in, probabilities out: images (B, c, s, s) of 0 … 255 → (B, C).

    Args:
        logits: takes normalised images, (B, c, s, s) → (B, C): a network, or an encoder with its head.
        mean, std: (c,) it takes ``(x / 255 - mean) / std``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, logits: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.logits = logits
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, c, s, s) → float32 (B, C)."""
        return self.logits((images.float() / 255 - self.mean) / self.std).softmax(-1)


def write_onnx(classifier: Classifier, shape: tuple[int, int, int], path: Path, about: Mapping[str, object]) -> Path:
    """Write a classifier as one ONNX file for any number of images at once.

    Args:
        shape: (c, s, s) of an image.
        about: JSON values that the file's metadata hold, each under its key, such as the names of the classes.
    """
    import onnx

    with whole_file(path) as part, _exporting, warnings.catch_warnings():
        # The exporter that works without a compiler: 0.1 s, where torch.export takes ten, and one dependency.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            classifier.eval().cpu(),
            (torch.zeros(2, *shape, dtype=torch.uint8),),
            str(part),
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            opset_version=OPSET,
        )
        model = onnx.load(part)
        for key, value in about.items():
            model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
        part.write_bytes(model.SerializeToString())
    return path
