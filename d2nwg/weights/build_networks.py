"""Zoos of small networks: one network and more for each task, a data set or some of its classes
(``python -m d2nwg zoo build DATA --network NAME``; `d2nwg.weights.building` builds them).

See `d2nwg.weights.network_tasks` for what such a zoo holds; `d2nwg.weights.populations` trains the networks, many at a
time.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from d2nwg.data.arrays import ImageArrays
from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import check_fields
from d2nwg.utils.limits import check_memory, check_space
from d2nwg.utils.paths import read_json, whole_file, write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown
from d2nwg.weights.building import Building, build, run_file, shifted
from d2nwg.weights.model_zoo import ModelZoo, architecture
from d2nwg.weights.network_plan import NetworkZooConfig, fingerprint, plan, prepared
from d2nwg.weights.network_tasks import (
    VARIANTS,
    Networks,
    NetworkSet,
    NetworkTask,
    NetworkTasks,
    image_file,
    task_images,
)
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import MEAN, STAGE, STD, accuracy_of, logits_of, stack_states, train_networks
from d2nwg.weights.small_networks import initial_state, small_network

__all__ = ["NetworkTasks", "NetworkZooConfig", "build_networks"]
TOGETHER, ON_CPU = 128, 8  # networks that are trained at once; the images of each are in memory
LOOKED_AT = 1_000  # training images on which the loss of a trained network is looked at


def build_networks(
    sets: Sequence[ImageArrays],
    config: NetworkZooConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = silent,
) -> ModelZoo:
    """Train a network for each task and seed and write the zoo to ``out`` (`d2nwg.weights.building.build`). Networks
    that diverged are left out and named in ``zoo.json``.

    Args:
        progress: stage `d2nwg.weights.populations.STAGE`, in steps of single networks.
    Raises:
        UserError: as `build`; the data sets and settings do not fit each other; all networks diverged.
    """
    return build(NetworkBuilding(sets, config), out, resume=resume, device=device, progress=progress)


class NetworkBuilding(Building):
    """Networks of one architecture; a run is one network."""

    folders = ("models", "images", "starts")

    def __init__(self, sets: Sequence[ImageArrays], config: NetworkZooConfig):
        check_fields(config)
        if not sets:
            raise UserError("There is no data set to train networks on: name at least one.")
        if unknown := [name for name in config.variants if name not in VARIANTS[1:]]:
            raise UserError(f"There is no variant {shown(unknown[0])}: choose among {', '.join(VARIANTS[1:])}.")
        self.sets, self.config = prepared(sets), config
        self.tasks = plan(self.sets, config)
        self.names = list(self.tasks)
        self.classes = config.classes or len(sets[0].classes)
        self.channels = self.sets[0].channels
        if any(one.train.shape[1:] != (self.channels, config.size, config.size) for one in self.sets):
            raise UserError(f"The images of the data sets are not all of {config.size} pixels a side: load them so.")
        self.module = small_network(config.network).build(self.channels, self.classes, config.size)

    @property
    def about(self) -> dict[str, Any]:
        return {"networks": asdict(self.config), "sets": [[one.name, fingerprint(one)] for one in self.sets]}

    @property
    def runs(self) -> int:
        return len(self.names) * self.config.seeds

    def open(self, device: str) -> torch.device:
        return torch.device(device)

    def prepare(self, work: Path) -> None:
        weights = sum(tensor.numel() * tensor.element_size() for tensor in self.module.state_dict().values())
        needed = weights * (self.runs * self.config.keep + self.config.starts)
        check_space(needed, work, "The zoo", "train fewer networks, or keep fewer checkpoints of each")
        for number, one in enumerate(self.sets):
            arrays = {"train": one.train, "test": one.test}
            arrays |= {"train_labels": one.train_labels, "test_labels": one.test_labels}
            _save(
                {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()},
                work,
                image_file(number),
            )
        for seed in range(self.config.seed, self.config.seed + self.config.starts):
            _save(self._initial(seed), work, f"starts/{seed}.safetensors")

    def train(self, opened: torch.device, work: Path, runs: Sequence[int], progress: Progress) -> None:
        """Groups of networks of one data set, which are trained together; a group is what a kill can lose."""
        missing = [run for run in runs if not run_file(work, run).exists()]
        steps = [self._steps(self._task(run).set) for run in runs]
        total, done = sum(steps), sum(steps) - sum(self._steps(self._task(run).set) for run in missing)
        most = ON_CPU if opened.type == "cpu" else TOGETHER
        while missing:
            of_set = [run for run in missing if self._task(run).set == self._task(missing[0]).set]
            group, missing = of_set[:most], [run for run in missing if run not in of_set[:most]]
            progress(STAGE, done, total)
            self._train_group(group, opened, work, shifted(progress, done, total))
            done += len(group) * self._steps(self._task(group[0]).set)
        progress(STAGE, done, total)

    def content(self, work: Path) -> dict[str, Any]:
        found = [read_json(run_file(work, run)) for run in range(self.runs)]
        records = [record for run in found for record in run["records"]]
        if not records:
            raise UserError("All networks diverged: remove the unfinished zoo and build it with a lower --lr.")
        config = self.config
        about = Networks(
            network=config.network,
            channels=self.channels,  # type: ignore[arg-type]
            classes=self.classes,
            size=config.size,
            mean=[MEAN] * self.channels,
            std=[STD] * self.channels,
            starts=config.starts,
            build=asdict(config),
            sets=[
                NetworkSet(name=one.name, classes=list(one.classes), train=len(one.train), test=len(one.test))
                for one in self.sets
            ],
            tasks=self.tasks,
            left_out=[run["left_out"] for run in found if run["left_out"]],
        )
        orders = {records[0]["architecture"]: list(self.module.state_dict())}
        return {"architectures": orders, "records": records, "networks": about.model_dump()}

    def _task(self, run: int) -> NetworkTask:
        return self.tasks[self.names[run // self.config.seeds]]

    def _start(self, run: int) -> int:
        return self.config.seed + run % self.config.starts

    def _initial(self, seed: int) -> State:
        return initial_state(self.config.network, self.channels, self.classes, self.config.size, seed)

    def _images_of(self, number: int) -> int:
        """About how many training images a task of a data set has."""
        return max(1, round(len(self.sets[number].train) * self.classes / len(self.sets[number].classes)))

    def _steps(self, number: int) -> int:
        """Of the optimiser, of each network of a data set."""
        config = self.config
        return math.ceil(config.epochs * self._images_of(number) / config.batch) if config.epochs else config.updates

    def _kept(self, number: int) -> list[int]:
        config, steps = self.config, self._steps(number)
        if config.epochs:
            kept = {
                math.ceil((config.epochs - i) * steps / config.epochs) for i in range(min(config.keep, config.epochs))
            }
        else:
            kept = {round(steps * (1 - i / (3 * config.keep))) for i in range(config.keep)}
        return sorted(kept - {0})

    def _train_group(self, group: Sequence[int], device: torch.device, work: Path, progress: Progress) -> None:
        config, number = self.config, self._task(group[0]).set
        one = self.sets[number]
        whole = [
            torch.from_numpy(np.ascontiguousarray(x)) for x in (one.train, one.train_labels, one.test, one.test_labels)
        ]
        check_memory(
            len(group) * self._images_of(number) * one.train[0].size, "Training", "give fewer images (--rows)", device
        )
        train, test = [], []
        for run in group:
            task = self._task(run)
            train.append(task_images(whole[0], whole[1], task.classes, task.variant))
            test.append(task_images(whole[2], whole[3], task.classes, task.variant))
        kept: dict[int, State] = {}
        images, labels, counts = _padded(train[:1] if len({run // config.seeds for run in group}) == 1 else train)
        states = stack_states([self._initial(self._start(run)) for run in group])
        train_networks(
            self.module,
            {name: tensor.to(device) for name, tensor in states.items()},
            images,
            labels,
            counts=counts * (len(group) // len(counts)),
            steps=self._steps(number),
            batch_size=config.batch,
            lr=config.lr,
            seeds=[config.seed + run for run in group],
            at=self._kept(number),
            on_step=lambda step, now: kept.update({step: {name: t.cpu() for name, t in now.items()}}),
            progress=progress,
        )
        for place, run in enumerate(group):
            found = {step: pick(states, slice(place, place + 1)) for step, states in kept.items()}
            self._write(run, found, train[place], test[place], device, work)

    def _write(self, run: int, kept: dict[int, State], train, test, device: torch.device, work: Path) -> None:
        """A network's checkpoints, and then the file that says that they are whole."""
        task = self.names[run // self.config.seeds]
        name = task if self.config.seeds == 1 else f"{task}/seed-{self.config.seed + run % self.config.seeds}"
        records: list[dict[str, Any]] = []
        diverged = not self._learnt(kept[max(kept)], train, device)
        for place, step in enumerate(() if diverged else sorted(kept)):
            state = {key: tensor.to(device) for key, tensor in kept[step].items()}
            right = float(accuracy_of(self.module, state, test[0][None], test[1][None])[0])
            single = {key: tensor[0].clone() for key, tensor in kept[step].items()}
            file = f"models/{run * self.config.keep + place:05d}.safetensors"
            save_file(single, work / file)
            records.append(
                {
                    "file": file,
                    "name": f"{name}/step-{step}",
                    "architecture": architecture(single),
                    "sha256": hashlib.sha256((work / file).read_bytes()).hexdigest(),
                    "task": task,
                    "accuracy": round(right, 6),
                    "epoch": round(step * self.config.batch / len(train[1])),
                    "start": self._start(run),
                }
            )
        write_whole(run_file(work, run), json.dumps({"records": records, "left_out": name if diverged else ""}))

    def _learnt(self, state: State, train: tuple[Tensor, Tensor], device: torch.device) -> bool:
        """Whether a network is of finite numbers, and on images that it was trained on not far worse than guessing."""
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            return False
        some = torch.arange(0, len(train[1]), max(1, len(train[1]) // LOOKED_AT))
        said = logits_of(self.module, {key: t.to(device) for key, t in state.items()}, train[0][None, some])[0].cpu()
        return bool(cross_entropy(said, train[1][some]) <= 1.5 * math.log(self.classes))


def _padded(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, list[int]]:
    """Images and labels of several tasks as one batch, and how many each has."""
    counts = [len(labels) for _, labels in parts]
    images = parts[0][0].new_zeros(len(parts), max(counts), *parts[0][0].shape[1:])
    labels = parts[0][1].new_zeros(len(parts), max(counts))
    for number, (some, of_them) in enumerate(parts):
        images[number, : len(some)], labels[number, : len(some)] = some, of_them
    return images, labels, counts


def _save(tensors: State, work: Path, name: str) -> None:
    """Write a file that is not there yet, whole or not at all."""
    if not (work / name).exists():
        with whole_file(work / name) as part:
            save_file(tensors, part)
