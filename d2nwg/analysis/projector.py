"""Files for the TensorBoard Embedding Projector (projector.tensorflow.org, or TensorBoard's own tab)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

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
        from d2nwg.analysis.projection import reduce

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
    return " ".join(str(value).split())
