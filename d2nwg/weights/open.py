"""Open a zoo by its path, of heads or of checkpoints."""

from pathlib import Path

from d2nwg.weights.info import OF_CHECKPOINTS, zoo_kind
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.zoo import Zoo


def open_zoo(path: str | Path) -> Zoo | ModelZoo:
    """The zoo of a folder.

    Raises:
        UserError: the folder holds no zoo.
    """
    return ModelZoo(path) if zoo_kind(path) in OF_CHECKPOINTS else Zoo(path)
