"""A zoo by its path, whichever kind it is: of heads, or of whole models."""

import json
from pathlib import Path

from d2nwg.weights.model_zoo import FORMAT, ModelZoo
from d2nwg.weights.zoo import Zoo


def holds_models(path: str | Path) -> bool:
    """Whether a folder is a zoo of whole models."""
    try:
        return json.loads((Path(path) / "zoo.json").read_text()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def open_zoo(path: str | Path) -> Zoo | ModelZoo:
    """The zoo of a folder. Raises UserError if it is none."""
    return ModelZoo(path) if holds_models(path) else Zoo(path)
