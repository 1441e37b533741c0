"""The settings of a fine-tuning, checked, and the folder in which a run keeps its state."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from d2nwg.evaluation.finetune_report import default_checkpoints
from d2nwg.evaluation.finetune_starts import ARMS
from d2nwg.heads import Head
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.paths import read_json, write_whole
from d2nwg.utils.text import some
from d2nwg.weights.network_files import NetworkFile, is_network, load_network

FORMAT = 1  # of unfinished runs
MOST_SEEDS, MOST_EPOCHS = 100, 100_000


def check_plan(epochs, seeds, checkpoints, lr, arms, batch_size, max_images, seed) -> dict[str, Any]:
    """The settings, checked, as JSON.

    Raises:
        UserError: one of them is out of its limits.
    """
    epochs = whole(epochs, "The number of epochs", 1, MOST_EPOCHS)
    first, seeds = seed_number(seed), whole(seeds, "The number of seeds", 1, MOST_SEEDS)
    whole(batch_size, "The size of a batch", 1)
    whole(max_images, "The largest number of images", 4)
    if lr is not None and not 0 < lr <= 10:
        raise UserError("The learning rate should be above 0 and at most 10.")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise UserError(f"There is no start {some(unknown)}: choose of {', '.join(ARMS)}.")
    if checkpoints is not None and not all(isinstance(epoch, int) and 0 <= epoch <= epochs for epoch in checkpoints):
        raise UserError(f"Checkpoints are epochs from 0 to {epochs:,}, the number of epochs.")
    shown = default_checkpoints(epochs) if checkpoints is None else default_checkpoints(epochs, checkpoints)
    return {
        "epochs": epochs,
        "seeds": [(first + i) % 2**63 for i in range(seeds)],
        "checkpoints": shown,
        "lr": lr,
        "arms": [ARMS[0], *(arm for arm in ARMS[1:] if arm in arms)],
        "batch_size": int(batch_size),
        "max_images": int(max_images),
    }


@dataclass(frozen=True)
class Work:
    """Where the state of a run is kept.

    Attributes:
        folder: None where it is not.
        resumed: whether it holds a run that is gone on with.
    """

    folder: Path | None
    resumed: bool = False

    @classmethod
    def open(cls, folder: Path | None, resume: bool) -> "Work":
        """Look whether there is a run to go on with, before anything is read.

        Raises:
            UserError: there is one and ``resume`` is False, or the reverse, or something else is there.
        """
        if folder is None:
            return cls(None)
        if (folder / "run.json").exists():
            if not resume:
                raise UserError(f"An unfinished run lies in {folder}: go on with --resume, or remove that folder.")
            return cls(folder, True)
        if resume:
            raise UserError(f"There is no unfinished run in {folder} to resume: leave out --resume to start one.")
        if folder.exists() and not (folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())):
            raise UserError(f"{folder} is there and no unfinished run: choose another name, or remove it.")
        return cls(folder)

    def begin(self, about: dict[str, Any]) -> None:
        """Say what the run is of.

        Raises:
            UserError: the one in the folder is of something else.
        """
        if self.folder is None:
            return
        about = json.loads(json.dumps({"format": FORMAT, **about}))
        if self.resumed:
            if read_json(self.folder / "run.json") != about:
                raise UserError(
                    f"The run in {self.folder} was begun with another head, other data or other settings: give those, "
                    "or remove it."
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "run.json", json.dumps(about, indent=1))


def is_count(value: object, low: int) -> TypeGuard[int]:
    """Whether something from a file is a whole number, at least ``low``, that can be counted or seeded with."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**63


def open_start(path: str | Path) -> Head | NetworkFile:
    """What ``generate`` wrote: a head file, or the folder that it or a network is in.

    Raises:
        UserError: it is none.
    """
    place = Path(path).expanduser()
    if is_network(place):
        return load_network(place)
    return Head.load(place / "head.safetensors" if place.is_dir() else place)
