"""Generated networks as a start on data sets that the zoo knows, by epoch: table 4 of the D2NWG paper.

    python -m benchmarks.epochs gray-mnist.npz fashion.npz cifar10.npz gray-notmnist.npz --out epochs.json

All data sets have ten classes and become grey pictures of 28 × 28 (CIFAR-10 too). Of each, 2,000 training images train,
666 others choose (validation), and 2,000 test images score. The zoo holds ten small CNNs (2,464 numbers) of each data
set, which begin alike, are trained on the 2,000 images for 25 epochs in batches of 64, and keep their last three
checkpoints, an epoch apart. Two generators learn it: one is given the name of the data set (`NetworksConfig`, 600 steps
of the VAE and 1,200 of diffusion), the other five images a class of it (`DatasetNetworksConfig`, 1,500 steps). Every
arm is then trained further on the same 2,000 images, in the same batches. Its learning rate, for each data set and
number of epochs, is the best of four on the validation images, with seed 0. A seed decides the random start, the
samples, the images shown and the order of the batches; all seeds have the same zoo and generators.

Average, kernel density and members are those of the data set, not of the whole zoo. *Nearest member* is the checkpoint
of the data set that is nearest to the sample by id; noise moves each tensor of a member as far as the sample's is from
it. Distances are to the nearest checkpoint of the data set, in standardised numbers; 1 is the median distance of a last
checkpoint to the nearest other one. What the JSON holds is not measured again; zoo and generators lie in a folder
beside it.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.transfer import noisy
from d2nwg.bundles import load_bundle
from d2nwg.data.arrays import ImageArrays, draw, load_arrays, to_channels
from d2nwg.evaluation import network_baselines as baselines
from d2nwg.models.network_space import SmallNetworkSpace
from d2nwg.training.config import DatasetNetworksConfig, NetworksConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import TerminalProgress
from d2nwg.weights.build_networks import NetworkZooConfig, build_networks
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import accuracy_of, stack_states, train_networks

ARMS = {  # in the order of the table
    "random": "random",
    "average": "average of the data set's networks",
    "nearest": "nearest member",
    "noise": "nearest member + noise, as far as the sample by id",
    "noise_data": "nearest member + noise, as far as the sample by data set",
    "density": "kernel density of the 30 best (SKDE30)",
    "id": "ours by id, one sample",
    "data": "ours by data set, one sample",
    "fixed": "ours by data set, deterministic",
}
PAIRS = tuple(product(("id", "data", "fixed"), ("average", "noise")))  # ours, and a baseline: the harder of the noises
ZOO = "the zoo's networks of the data set"
BATCH = 64


@dataclass(frozen=True)
class Sizes:
    """How much of everything: images of a data set, networks of a data set in the zoo, epochs, learning rates."""

    loaded: int = 6000  # training images, of which others than those that train choose; a third as many score
    train: int = 2000
    channels: int = 1
    classes: int = 0  # of a data set, drawn by seed 0; 0 for all of them
    shots: int = 5
    networks: int = 10
    zoo_epochs: int = 25
    keep: int = 3
    epochs: tuple[int, ...] = (0, 1, 5, 25)
    long: int = 50  # epochs of a random start, beside them
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)  # of Adam
    random_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)  # a random start wants larger ones
    by_id: NetworksConfig = field(default_factory=lambda: NetworksConfig(diffusion_steps=1200))
    by_data: DatasetNetworksConfig = field(default_factory=lambda: DatasetNetworksConfig(steps=1500, held_out=0.0))


_SMOKE = Sizes(
    loaded=300,
    train=128,
    shots=2,
    networks=2,
    zoo_epochs=2,
    keep=2,
    epochs=(0, 1),
    long=2,
    rates=(1e-3, 1e-2),
    random_rates=(1e-3, 1e-2),
    by_id=NetworksConfig.preset("tiny", vae_steps=4, align_steps=2, diffusion_steps=4),
    by_data=DatasetNetworksConfig.preset("tiny", steps=3, held_out=0.0),
)


def sizes_of(smoke: bool) -> Sizes:
    """Those of the measurement, or of a trial of the code."""
    return _SMOKE if smoke else Sizes()


def few_classes(data: ImageArrays, count: int) -> ImageArrays:
    """So many of its classes, drawn by seed 0; all of them for 0."""
    if not count:
        return data
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.classes))[:count])
    place = np.full(len(data.classes), -1)
    place[chosen] = np.arange(len(chosen))
    parts = ((data.train, data.train_labels), (data.test, data.test_labels))
    (train, seen), (test, scored) = ((x[place[y] >= 0], place[y][place[y] >= 0]) for x, y in parts)
    return replace(
        data, classes=tuple(data.classes[c] for c in chosen), train=train, train_labels=seen, test=test,
        test_labels=scored, test_index=np.zeros(0, np.int64),
    )  # fmt: skip


@dataclass
class Task:
    """A data set. Images are bytes (n, c, 28, 28), labels (n,): ``train``, ``validation`` and ``test``."""

    name: str
    classes: tuple[str, ...]
    images: dict[str, Tensor]
    labels: dict[str, Tensor]

    @classmethod
    def read(cls, source: str, sizes: Sizes, progress) -> "Task":
        """Training images are shared out between ``train`` and ``validation``, each class in proportion."""
        data = few_classes(load_arrays(source, rows=sizes.loaded, progress=progress), sizes.classes)
        drawn = draw(data.train_labels, np.zeros(len(data.train), bool), sizes.train, seed=0)
        rows = dict(zip(("train", "validation"), drawn, strict=True))
        parts = {part: data.train[of] for part, of in rows.items()} | {"test": data.test}
        images = {part: torch.from_numpy(np.ascontiguousarray(x)) for part, x in parts.items()}
        labels = {part: data.train_labels[of] for part, of in rows.items()} | {"test": data.test_labels}
        return cls(
            data.name.removeprefix("gray-"),
            data.classes,
            {
                part: to_channels(torch.from_numpy(np.ascontiguousarray(x)), sizes.channels)
                for part, x in images.items()
            },
            {part: torch.from_numpy(y).long() for part, y in labels.items()},
        )

    def arrays(self) -> ImageArrays:
        """As a zoo is built from: what scores the zoo's networks are the validation images, so that nothing that is
        chosen by these scores has seen a test image."""
        parts = [one[part].numpy() for part in ("train", "validation") for one in (self.images, self.labels)]
        return ImageArrays(self.name, self.classes, *parts)

    def shown(self, shots: int, seed: int) -> tuple[Tensor, Tensor]:
        """So many training images of each class."""
        rng, labels = np.random.default_rng(seed), self.labels["train"]
        own = [np.flatnonzero(labels == c) for c in range(len(self.classes))]
        rows = np.concatenate([rng.permutation(of)[:shots] for of in own])
        return self.images["train"][rows], labels[rows]


def learn(tasks: list[Task], sizes: Sizes, work: Path, progress) -> tuple[ModelZoo, Path, Path]:
    """The zoo, and the bundles of the generators that take a name and images; what is there is used again."""
    config = NetworkZooConfig(epochs=sizes.zoo_epochs, batch=BATCH, lr=3e-3, keep=sizes.keep, seeds=sizes.networks)
    if not (work / "zoo").exists():
        resume = (work / "zoo.building" / "building.json").exists()
        build_networks([task.arrays() for task in tasks], config, work / "zoo", resume=resume, progress=progress)
    zoo, bundles = ModelZoo(work / "zoo"), (work / "by-id", work / "by-data")
    for out, how in zip(bundles, (sizes.by_id, sizes.by_data), strict=True):
        if not out.exists():
            resume = out.with_name(f"{out.name}.training").joinpath("config.json").exists()
            train_bundle(zoo, how, out, device="cpu", resume=resume, progress=progress)
    return zoo, *bundles


def _batched(state: State) -> State:
    return {name: value.unsqueeze(0) for name, value in state.items()}


class Members:
    """The zoo's networks of one data set.

    Attributes:
        states: all checkpoints, (M, …) a tensor.
        space: of these checkpoints alone, with the units of the whole zoo.
    """

    def __init__(self, zoo: ModelZoo, task: str, space: SmallNetworkSpace):
        records = [(n, record) for n, record in enumerate(zoo.records) if record["task"] == task]
        self.states = stack_states([zoo.plain_state(n) for n, _ in records])
        self.space = copy.deepcopy(space)
        trunks, rows = space.split(self.states)
        self.space.keep(space.standardised(trunks), rows, torch.tensor([record["accuracy"] for _, record in records]))
        self.vectors = self.vector(self.states)
        last = [i for i, (_, record) in enumerate(records) if record["epoch"] == max(r["epoch"] for _, r in records)]
        between = torch.cdist(self.vectors[last], self.vectors[last]).fill_diagonal_(torch.inf)
        self.unit = float(between.min(1).values.median())

    def vector(self, states: State) -> Tensor:
        """Networks (M, …) → standardised numbers of trunk and head (M, D)."""
        trunks, rows = self.space.split(states)
        rows = (rows - self.space.row_centre) / self.space.row_unit
        return torch.cat([self.space.standardised(trunks), rows.flatten(1)], 1)

    def nearest(self, state: State) -> tuple[State, float]:
        """The checkpoint nearest to a network, and how far it is."""
        distance, number = torch.cdist(self.vector(_batched(state)), self.vectors)[0].min(0)
        return pick(self.states, int(number)), float(distance) / self.unit


def work_of(args: argparse.Namespace) -> Path:
    """Where the zoo and the generators lie."""
    return args.out.with_suffix(".smoke" if args.smoke else "")


def opened(args: argparse.Namespace, sizes: Sizes, empty: dict, progress) -> tuple[list[Task], ModelZoo, list, dict]:
    """The data sets, the zoo, the pipelines of both generators, and what ``--out`` holds, or ``empty``."""
    work = work_of(args)
    work.mkdir(parents=True, exist_ok=True)
    tasks = [Task.read(source, sizes, progress) for source in args.data]
    zoo, *bundles = learn(tasks, sizes, work, progress)
    result = json.loads(args.out.read_text()) if args.out.is_file() else {"smoke": args.smoke, **empty}
    if result["smoke"] != args.smoke:
        raise SystemExit(f"{args.out} is of a run of another size: choose another file.")
    return tasks, zoo, [load_bundle(bundle) for bundle in bundles], result


def tested(task: Task, members: Members, states: State) -> list[float]:
    """Accuracies of networks (M, …) on the test images."""
    module = baselines.module_for(members.space, len(task.classes))
    return accuracy_of(module, states, task.images["test"][None], task.labels["test"][None]).tolist()


def starts(task: Task, members: Members, pipes, sizes: Sizes, seed: int) -> dict[str, State]:
    """Each arm's network before training (no batch axis)."""
    classes, generators = len(task.classes), [torch.Generator().manual_seed(seed) for _ in range(3)]
    by_id = pick(pipes[0](0, task.name, 1, generators[0]).state, 0)
    fixed, by_data = pipes[1](*task.shown(sizes.shots, seed), 1, generators[1]).states()
    nearest, other = members.nearest(by_id)[0], members.nearest(by_data)[0]
    density = baselines.density_samples(members.space, classes, 1, generators[2])
    # The zoo's networks begin with the weights of seed 0.
    return {
        "random": pick(baselines.random_networks(members.space, classes, [seed + 1]), 0),
        "average": {name: value.mean(0) for name, value in members.states.items()},
        "nearest": nearest,
        "noise": noisy(nearest, by_id, seed),
        "noise_data": noisy(other, by_data, seed),
        "density": pick(density or members.states, 0),
        "id": by_id,
        "data": by_data,
        "fixed": fixed,
    }


def measure(
    task: Task, arms: dict[str, State], rates: dict[str, list[float]], module, sizes: Sizes, seed: int, progress
) -> dict[str, dict]:
    """Each arm trained further: ``test`` and ``validation`` accuracies by epoch, one for each of its rates."""
    found: dict[str, dict] = {arm: {"rates": rates[arm], "test": {}, "validation": {}} for arm in arms}
    after = {round(epoch * len(task.labels["train"]) / BATCH): epoch for epoch in (*sizes.epochs, sizes.long)}
    longest = {arm: sizes.long if arm == "random" else max(sizes.epochs) for arm in arms}
    for epochs in dict.fromkeys(longest.values()):
        pairs = [(arm, rate) for arm in arms if longest[arm] == epochs for rate in rates[arm]]

        def look(step: int, states: State, pairs=pairs) -> None:
            for part in ("test", "validation"):
                right = accuracy_of(module, states, task.images[part][None], task.labels[part][None]).tolist()
                for (arm, _), value in zip(pairs, right, strict=True):
                    found[arm][part].setdefault(str(after[step]), []).append(round(value, 5))

        stacked = stack_states([arms[arm] for arm, _ in pairs])
        look(0, stacked)
        stops = [step for step, epoch in after.items() if 0 < epoch <= epochs]
        images, labels = task.images["train"][None], task.labels["train"][None]
        order, lr = [seed] * len(pairs), [rate for _, rate in pairs]  # the same batches for all
        train_networks(
            module, stacked, images, labels, steps=max(stops), batch_size=BATCH, lr=lr, seeds=order, at=stops,
            on_step=look, progress=progress,
        )  # fmt: skip
    return found


def best(rows: list[dict], data: str, arm: str) -> dict[str, float]:
    """The learning rate of an arm on a data set, by epoch (but 0): the best on the validation images, with seed 0."""
    first = next(row for row in rows if (row["data"], row["arm"], row["seed"]) == (data, arm, 0))
    return {epoch: first["rates"][int(np.argmax(v))] for epoch, v in first["validation"].items() if epoch != "0"}


def chosen(rows: list[dict], data: str, arm: str, epoch: int) -> np.ndarray:
    """Test accuracies in percent, one a seed, with the rate of `best`."""
    rate = best(rows, data, arm).get(str(epoch))
    own = [row for row in rows if (row["data"], row["arm"]) == (data, arm)]
    return 100 * np.array([row["test"][str(epoch)][row["rates"].index(rate) if epoch else 0] for row in own])


def said(values) -> str:
    """Mean ± standard deviation."""
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


def table(result: dict, sizes: Sizes) -> str:
    """Markdown: a table a data set, then the paired differences."""
    rows, epochs, parts = result["rows"], (*sizes.epochs, sizes.long), []
    for data, zoo in result["zoo"].items():
        heads = f"| {data}, after epochs | {' | '.join(map(str, epochs))} | learning rate | distance |"
        empty = " | –" * (len(epochs) + 1)
        lines = [heads, "|---" * (len(epochs) + 3) + "|", f"| {ZOO} | {said(100 * np.array(zoo))}{empty} |"]
        for arm, words in ARMS.items():
            own = [row for row in rows if (row["data"], row["arm"]) == (data, arm)]
            cells = [said(chosen(rows, data, arm, e)) if str(e) in own[0]["test"] else "–" for e in epochs]
            rate = best(rows, data, arm)
            rates = ", ".join(f"{rate[str(e)]:g}" for e in epochs if str(e) in rate)
            lines.append(
                f"| {words} | {' | '.join(cells)} | {rates} | {np.mean([row['distance'] for row in own]):.2f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, paired(result, sizes)])


def paired(result: dict, sizes: Sizes) -> str:
    """Markdown: ours minus a baseline at three of the epochs, mean and deviation of the seeds' differences."""
    rows, epochs = result["rows"], (*sizes.epochs[:2], sizes.epochs[-1])
    lines = [f"| ours minus a baseline, points, after epochs | {' | '.join(map(str, epochs))} |"]
    lines.append("|---" * (len(epochs) + 1) + "|")
    for ours, other in PAIRS:
        for data in result["zoo"]:
            apart = [chosen(rows, data, ours, epoch) - chosen(rows, data, other, epoch) for epoch in epochs]
            cells = " | ".join(f"{one.mean():+.1f} ± {one.std():.1f}" for one in apart)
            lines.append(f"| {data}: {ARMS[ours]}, minus {ARMS[other]} | {cells} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Build the zoo, train the generators, measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA", help="of ten classes, as zoo build --network takes them")
    parser.add_argument("--seeds", type=int, default=3, help="of starts, samples and the order of images (3)")
    parser.add_argument("--smoke", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULTS.json", help="what it holds is kept")
    args = parser.parse_args(argv)
    sizes, progress = sizes_of(args.smoke), TerminalProgress()
    tasks, zoo, pipes, result = opened(args, sizes, {"zoo": {}, "rows": []}, progress)
    known = {task.name: Members(zoo, task.name, pipes[1].weight_space) for task in tasks}
    for seed in range(args.seeds):
        for task in tasks:
            members, rows = known[task.name], result["rows"]
            there = {row["arm"] for row in rows if (row["data"], row["seed"]) == (task.name, seed)}
            if there == set(ARMS):
                continue
            module = baselines.module_for(members.space, len(task.classes))
            if task.name not in result["zoo"]:
                result["zoo"][task.name] = tested(task, members, members.states)
            arms = starts(task, members, pipes, sizes, seed)
            arms = {arm: state for arm, state in arms.items() if arm not in there}
            rates = {arm: list(sizes.random_rates if arm == "random" else sizes.rates) for arm in arms}
            if seed:
                rates = {arm: sorted(set(best(rows, task.name, arm).values())) for arm in arms}
            for arm, found in measure(task, arms, rates, module, sizes, seed, progress).items():
                away = round(members.nearest(arms[arm])[1], 4)
                rows.append({"data": task.name, "seed": seed, "arm": arm, "distance": away, **found})
            write_whole(args.out, json.dumps(result, indent=1))
    print(table(result, sizes))


if __name__ == "__main__":
    main()
