"""Explore a bundle of whole networks that are made for a data set: for each task the generated network, samples of the
diffusion and networks trained on the same images, beside the networks of the zoo that the bundle keeps.

A point is a trunk: all layers but the last, standardised as differences from the zoo's average. The last layer is left
out, since the order of its rows is each task's own; so networks for any number of classes can be compared. To be scored
on a task, trunks of the zoo, and those made from them, get a last layer by ridge regression on their features of the
images that generation was shown.
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from d2nwg.analysis.compare import density, spacing, to_zoo
from d2nwg.analysis.populations import MADE, SAMPLE, TRAINED, WHOLE, ZOO, Population, population
from d2nwg.bundles import load_pipeline
from d2nwg.data.image_set import ImageSet
from d2nwg.evaluation import network_baselines
from d2nwg.exploration.baselines import zoo_baselines
from d2nwg.exploration.result import Exploration, zoo_records
from d2nwg.exploration.tasks import of_task
from d2nwg.models.hypernetwork import HyperNetwork
from d2nwg.models.network_space import SmallNetworkSpace
from d2nwg.network_generation import NetworkGeneration, generate_network
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.network_files import NetworkFile
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import accuracy_of, stack_states, train_networks

STEPS, RATE = 50, 3e-3  # of Adam, of a trained network; as of the baseline of Generate
SHARE = 0.8  # of a class's shown images that a trained network gets
AT_ONCE = 64  # trunks that are scored at a time


@dataclass(frozen=True)
class NetworkTask:
    """A data set, the networks generated for it, and the images that score them.

    Attributes:
        name: of the data set, or of the classes.
        images: its `ImageSet`.
        generation: what `generate_network` made.
        model: the bundle's generator, on the CPU, for closed-form last layers.
        trained: networks trained on the shown images, (T, …) a tensor; empty without any.
    """

    name: str
    images: ImageSet
    generation: NetworkGeneration
    model: HyperNetwork
    trained: State

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.generation.network.classes)

    @property
    def group(self) -> int:
        """What its networks are compared by (`Population.counts`): trunks have no classes."""
        return 0

    @property
    def labels(self) -> np.ndarray:
        """(m,) the classes of the held-out images."""
        return self.generation.truth

    @property
    def query_index(self) -> np.ndarray:
        """(m,) numbers of the held-out images in the data set."""
        return self.generation.query_index

    def used(self, space: SmallNetworkSpace) -> np.ndarray:
        """(N,) bool: which numbers of a vector its networks use."""
        return np.ones(space.numel, bool)

    def predicted(self, head: NetworkFile) -> np.ndarray:
        """(m,) the classes that a network predicts of the held-out images."""
        return head.logits(self.generation.query).argmax(-1).numpy()

    @torch.no_grad()
    def completed(self, space: SmallNetworkSpace, vectors: np.ndarray) -> State:
        """Trunks (n, N) as networks (n, …) for the task's classes, their last layer in closed form on the shown
        images."""
        trunk, shown = space.trunk_state(torch.from_numpy(vectors).float()), space.normalised(self.generation.shown)
        targets = torch.eye(self.count)[self.generation.labels].unsqueeze(0)
        rows = self.model.closed_form_rows(space.features(trunk, shown.unsqueeze(0)), targets)
        return space.network_state(trunk, rows)

    def score(self, space: SmallNetworkSpace, vectors: np.ndarray) -> np.ndarray:
        """Accuracies (n,) of trunks (n, N) on the held-out images, each with a last layer of `completed`."""
        module, given = network_baselines.module_for(space, self.count), space.normalised(self.generation.query)
        truth, found = torch.from_numpy(self.labels).unsqueeze(0), []
        for first in range(0, len(vectors), AT_ONCE):
            state = self.completed(space, vectors[first : first + AT_ONCE])
            found.append(accuracy_of(module, state, given.unsqueeze(0), truth))
        return torch.cat(found).double().numpy()


@dataclass(frozen=True)
class NetworkExploration(Exploration):
    """Generated networks and those of the zoo, as trunks: see `Exploration`. ``space`` is a `SmallNetworkSpace` on the
    CPU, ``tasks`` are `NetworkTask`; distances are in units of the median one between neighbours in the zoo, as in
    Generate. ``densities`` are of the weights as they are, without the last layer's."""

    noun: ClassVar[str] = "network"
    whole: ClassVar[str] = "all layers but the last"
    unit_words: ClassVar[str] = "distances between zoo neighbours"
    latent_words: ClassVar[str] = "the zoo's principal coordinates"
    fitted: ClassVar[str] = "networks trained on the same images"

    @property
    def spaces(self) -> list[str]:
        """See `Exploration`: ``latent`` are the principal coordinates that diffusion draws."""
        return ["weights", "latent"]

    def parts(self, where: str = "weights") -> list[str]:
        """See `Exploration`: the trunk, or one tensor of it."""
        return [WHOLE, *(self.space.layout.spans if where == "weights" else ())]

    def points(self, heads: Population, where: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        """See `Exploration`. Raises UserError where there is no such part."""
        if part not in (names := self.parts(where)):
            raise UserError(f"There is no part {part}: choose one of {', '.join(names)}.")
        rows = np.arange(len(heads))
        if where == "latent":
            return self.space.coordinates(torch.from_numpy(heads.vectors)).numpy(), rows
        return (heads.vectors if part == WHOLE else heads.vectors[:, self.space.layout.spans[part]]), rows

    def unit(self, heads: Population, points: np.ndarray) -> np.ndarray:
        """See `Exploration`."""
        return spacing(heads, points)

    @property
    def compared(self) -> Sequence[int]:
        """See `Exploration`."""
        return [0]

    def classes(self, index: int) -> int | None:
        """See `Exploration`: of a zoo member those that it was trained for."""
        task = self.heads.task[index]
        return int(self.space.config.classes) if task < 0 else self.tasks[task].count

    def task_name(self, index: int) -> str:
        """See `Exploration`."""
        task = self.heads.task[index]
        return f"a zoo task of {self.space.config.classes} classes" if task < 0 else self.tasks[task].name

    def scored_by(self, index: int) -> NetworkTask:
        """See `Exploration`: the first task for a zoo member."""
        return self.tasks[max(int(self.heads.task[index]), 0)]

    def head(self, index: int) -> NetworkFile:
        """Network ``index`` to take away. A zoo member gets the classes of the first task, and a last layer of
        `NetworkTask.completed` for them: a bundle does not keep its own classes."""
        task, number = self.scored_by(index), int(self.heads.number[index])
        made, origin = task.generation, self.heads.origin[index]
        if origin == MADE:
            return made.network
        if origin == SAMPLE:
            return made.sample(number)
        if origin == TRAINED:
            state, right = pick(task.trained, number), float(self.heads.accuracy[index])
        else:
            vector = self.heads.vectors[[index]]
            state, right = pick(task.completed(self.space, vector), 0), float(task.score(self.space, vector)[0])
        info = {**made.network.info, "origin": self.name(index), "query_accuracy": right}
        shape = made.network
        return NetworkFile(
            state, shape.network, shape.channels, shape.classes, shape.size, shape.mean, shape.std, shape.bundle, info
        )


def explore_networks(
    sets: Sequence[ImageSet],
    path: Path,
    *,
    shots: int,
    num_samples: int,
    num_trained: int,
    seed: int,
    steps: int | None,
    max_query: int,
    device: str | None = None,
    progress: Progress = silent,
) -> NetworkExploration:
    """See `d2nwg.exploration.explore.explore`; ``sets`` are the tasks, and ``path`` is the bundle's folder.

    Raises:
        UserError: as `generate_network`, the bundle keeps too few networks of its zoo, or more are asked for than fit
            into the memory.
    """
    started = time.perf_counter()
    pipe: Any = load_pipeline(path, device)
    space, model = deepcopy(pipe.weight_space).cpu(), deepcopy(pipe.hypernetwork).cpu()
    if len(space.zoo_trunks) < 2:
        raise UserError(f"The bundle {path.name} keeps too few networks of its zoo to compare samples with.")
    zoo = population(space.zoo_trunks, 0, ZOO, -1, space.zoo_accuracy)
    samples, trained = -(-num_samples // len(sets)), -(-num_trained // len(sets))
    classes = max(len(data.classes) for data in sets)
    pixels = space.config.channels * space.config.size**2
    needed = 4 * (6 * space.numel * (num_samples + num_trained) + trained * shots * classes * pixels)
    what = f"Exploring {num_samples:,} samples and {num_trained:,} trained networks"
    check_memory(needed, what, "ask for fewer of them", space.centre.device)
    tasks, parts = [], [zoo]
    for number, data in enumerate(sets):
        report = of_task(progress, number, len(sets))
        made = generate_network(
            data,
            bundle=path,
            shots=shots,
            num_samples=samples,
            seed=seed,
            steps=steps,
            max_query=max_query,
            device=device,
            progress=report,
        )
        fitted = _train(made, space, model, trained, seed, report) if trained else {}
        tasks.append(NetworkTask(data.name, data, made, model, fitted))
        parts += _populations(tasks[-1], space, number)
    progress("Scoring the baselines", 0, 1)
    heads = Population.join(parts)
    unit = spacing(heads, heads.vectors)
    near = to_zoo(heads, heads.vectors, seed, unit=unit)
    found = NetworkExploration(
        bundle=path.name,
        space=space,
        vae=None,
        heads=heads,
        tasks=tasks,
        distance=near.nearest,
        baselines=zoo_baselines(heads, tasks, space, near, unit, seed),
        densities=_densities(heads, space),
        zoo_records=zoo_records(path),
        settings={
            "shots": shots,
            "seed": seed,
            "steps": steps,
            "max_query": max_query,
            "tasks": len(sets),
            "num_samples": num_samples,
            "num_trained": num_trained,
        },
        seconds=time.perf_counter() - started,
    )
    progress("Scoring the baselines", 1, 1)
    return found


def _train(
    made: NetworkGeneration, space: SmallNetworkSpace, model: HyperNetwork, number: int, seed: int, progress: Progress
) -> State:
    """Networks trained on the shown images, from the zoo's average trunk with a last layer in closed form: each on a
    random share of every class, one of them where a class has a single image."""
    labels, rng = made.labels, np.random.default_rng(seed)
    fewest = int(labels.bincount().min())
    rows = []
    for _ in range(number if fewest > 1 else 1):
        own = [rng.permutation(np.flatnonzero(labels.numpy() == c)) for c in range(len(made.network.classes))]
        rows.append(np.concatenate([some[: max(1, round(SHARE * len(some)))] for some in own]))
    penalty = model.config.average_penalty
    with torch.no_grad():
        starts = [network_baselines.average_closed_form(space, made.shown[row], labels[row], penalty) for row in rows]
    chosen = torch.from_numpy(np.stack(rows))
    return train_networks(
        network_baselines.module_for(space, len(made.network.classes)),
        stack_states([pick(start, 0) for start in starts]),
        space.normalised(made.shown)[chosen],
        labels[chosen],
        steps=STEPS,
        batch_size=chosen.shape[1],
        lr=RATE,
        seeds=[seed + i for i in range(len(rows))],
        progress=progress,
    )


@torch.no_grad()
def _populations(task: NetworkTask, space: SmallNetworkSpace, number: int) -> list[Population]:
    """The networks of a task by their origins."""
    made = task.generation
    alone = {name: value.unsqueeze(0) for name, value in made.network.state.items()}
    groups: list[tuple[str, State, Sequence[float]]] = [
        (SAMPLE, made.samples, [sample.accuracy for sample in made.report.samples]),
        (MADE, alone, [made.report.query_accuracy.network]),
    ]
    if task.trained:
        module = network_baselines.module_for(space, task.count)
        given, truth = space.normalised(made.query), torch.from_numpy(task.labels)
        right: Tensor = accuracy_of(module, task.trained, given.unsqueeze(0), truth.unsqueeze(0))
        groups.append((TRAINED, task.trained, right.tolist()))
    return [
        population(space.standardised(space.split(state)[0]), 0, origin, number, accuracy)
        for origin, state, accuracy in groups
    ]


def _densities(heads: Population, space: SmallNetworkSpace) -> dict:
    """As `d2nwg.analysis.compare.weight_densities`, of the trunk's tensors."""
    values: dict[str, dict[str, np.ndarray]] = {name: {} for name in space.layout.shapes}
    for origin in (ZOO, SAMPLE, TRAINED):
        if len(rows := heads.of(origin)):
            state = space.trunk_state(torch.from_numpy(heads.vectors[rows]))
            for name in values:
                values[name][origin] = state[name].flatten().numpy()
    return {name: density(groups) for name, groups in values.items()}
