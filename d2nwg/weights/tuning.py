"""Zoos of adapters, of whatever base (`Tuning`): adapters for each task and seed (`d2nwg.weights.building.build`).

A zoo of adapters is a zoo of checkpoints (`d2nwg.weights.model_zoo`) whose ``zoo.json`` says in ``adapters`` what they
are adapters of, and of which tasks. A checkpoint holds the adapter's matrices under peft's names.
"""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from d2nwg.encoders.lora import Adapted
from d2nwg.utils.paths import read_json, write_whole
from d2nwg.utils.progress import Progress
from d2nwg.weights.building import Building, run_file, shifted
from d2nwg.weights.finetune import STAGE
from d2nwg.weights.model_zoo import architecture
from d2nwg.weights.networks import State


class Tuning(Building):
    """What a zoo of adapters is made by: a base, tasks, and how an adapter is trained and scored.

    Attributes:
        names: of the tasks; an adapter is trained for each task and seed.
        seeds: adapters a task.
        seed: the first one.
        keep: most checkpoints of an adapter.
    """

    names: Sequence[str]
    seeds: int
    seed: int
    keep: int

    @property
    def runs(self) -> int:
        """One adapter each: task by task, seed by seed."""
        return len(self.names) * self.seeds

    @abstractmethod
    def open(self, device: str) -> Adapted:
        """Load the base, and check what can be checked, before a folder is made."""

    @abstractmethod
    def units(self, task: int) -> int:
        """Of progress, until an adapter of this task is trained and scored."""

    @abstractmethod
    def frozen(self, task: int, work: Path) -> dict[str, float]:
        """What the base scores without an adapter. ``work`` may keep what belongs to the task."""

    @abstractmethod
    def tune(
        self, task: int, seed: int, work: Path, name: str, progress: Progress
    ) -> Iterator[tuple[int, State, dict[str, Any]]]:
        """Train an adapter from the common initialisation; ``progress`` in the stage `STAGE`, of `units`.

        Yields:
            Of each checkpoint its step, its tensors, and what its record says of its scores.
        """

    @abstractmethod
    def facts(self, frozen: Sequence[dict[str, float]]) -> dict[str, Any]:
        """What ``zoo.json`` says in ``adapters`` (`d2nwg.weights.model_zoo.Adapters`), given `frozen` of each task."""

    def train(self, opened: Adapted, work: Path, runs: Sequence[int], progress: Progress) -> None:
        """In the stage `STAGE`, in the units of `units` of all these runs."""
        total, done = sum(self.units(run // self.seeds) for run in runs), 0
        for run in runs:
            if not run_file(work, run).exists():
                progress(STAGE, done, total)
                _train_one(self, opened, work, run, shifted(progress, done, total))
            done += self.units(run // self.seeds)
            progress(STAGE, done, total)

    def content(self, work: Path) -> dict[str, Any]:
        """See `Building`."""
        runs = [read_json(run_file(work, run)) for run in range(self.runs)]
        records = [record for run in runs for record in run["records"]]
        orders = {run["records"][0]["architecture"]: run["order"] for run in runs}
        about = self.facts([run["frozen"] for run in runs[:: self.seeds]])
        return {"architectures": orders, "records": records, "adapters": about}


def _train_one(tuning: Tuning, adapted: Adapted, work: Path, run: int, progress: Progress) -> None:
    """One adapter's checkpoints, and then the file that says that they are whole."""
    task, seed = run // tuning.seeds, tuning.seed + run % tuning.seeds
    frozen = _frozen(tuning, adapted, work, task)
    adapted.reset()
    name, records, order = f"{tuning.names[task]}/seed-{seed}", [], []
    for number, (step, state, said) in enumerate(tuning.tune(task, seed, work, name, progress)):
        file = f"models/{run * tuning.keep + number:05d}.safetensors"
        path = work / file
        save_file(state, path)
        record: dict[str, Any] = {
            "file": file,
            "name": f"{name}/step-{step}",
            "architecture": architecture(state),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "task": tuning.names[task],
            "epoch": step,
        }
        records.append(record | said)
        order = list(state)
    write_whole(run_file(work, run), json.dumps({"records": records, "order": order, "frozen": frozen}))


def _frozen(tuning: Tuning, adapted: Adapted, work: Path, task: int) -> dict[str, float]:
    """What the base scores on a task without an adapter, worked out once."""
    file = work / f"frozen-{task:05d}.json"
    if not file.exists():
        adapted.reset()
        write_whole(file, json.dumps(tuning.frozen(task, work)))
    return read_json(file)
