"""Whole networks sampled instead of stored, for every data set of the zoo: table 3 of the D2NWG paper.

    python -m benchmarks.retrieval cifar10.npz gray-mnist.npz caltech101/ ... --out retrieval.json

Of each data set four classes, drawn by seed 0, in colour, 28 × 28 pixels. Two thirds of its training images (at most
2,000) train, the rest scores the zoo's networks while they are built; the accuracies here are of its test images. The
zoo: five small CNNs of each data set, which begin alike, are trained for 25 epochs, and keep their last three
checkpoints. Two generators learn all of it, as in `benchmarks.epochs`: one is given the name of the data set, the other
five images a class of it. A seed decides the samples and the images shown. Beside them: the trained networks, their
average (of a data set, not of the whole zoo), and the member nearest to the sample by id with noise as large as the
sample's. *Distance*: to the nearest checkpoint of the data set; 1 is the median distance of a last checkpoint to the
nearest other one. Seconds are of one network, after a first one; of a training, from the random start of the zoo.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.epochs import BATCH, Members, Sizes, Task, opened, said, sizes_of, tested, work_of
from benchmarks.transfer import noisy
from d2nwg.evaluation import network_baselines as baselines
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import TerminalProgress
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import stack_states, train_networks

ARMS = {  # in the order of the columns
    "trained": "trained",
    "id": "by id, one sample",
    "noise": "a trained one + noise as far as that sample",
    "data": "by data set, one sample",
    "fixed": "by data set, deterministic",
    "average": "average of the trained",
}
AWAY = {"id": "distance by id", "data": "distance by data set"}
COLOUR = dict(channels=3, classes=4)
SIZES = replace(Sizes(), networks=5, **COLOUR)


def timed(work: Callable):
    """What a call returns, and its seconds."""
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


def training_seconds(task: Task, members: Members, sizes: Sizes) -> float:
    """How long one network of the zoo takes to train by itself."""
    module = baselines.module_for(members.space, len(task.classes))
    start = baselines.random_networks(members.space, len(task.classes), [0])
    images, labels = task.images["train"][None], task.labels["train"][None]
    steps = max(1, round(sizes.zoo_epochs * len(labels[0]) / BATCH))
    how = dict(batch_size=BATCH, lr=3e-3, seeds=[0])
    return timed(lambda: train_networks(module, start, images, labels, steps=steps, **how))[1]


def measure(task: Task, members: Members, pipes, sizes: Sizes, seed: int) -> dict:
    """One seed of a data set: each arm's accuracy, distances of the samples, and seconds."""
    shown, generators = task.shown(sizes.shots, seed), [torch.Generator().manual_seed(seed) for _ in range(2)]
    by_id, id_seconds = timed(lambda: pick(pipes[0](0, task.name, 1, generators[0]).state, 0))
    (fixed, by_data), data_seconds = timed(lambda: pipes[1](*shown, 1, generators[1]).states())
    arms: dict[str, State] = {
        "id": by_id,
        "noise": noisy(members.nearest(by_id)[0], by_id, seed),
        "data": by_data,
        "fixed": fixed,
        "average": {name: value.mean(0) for name, value in members.states.items()},
    }
    right = tested(task, members, stack_states(list(arms.values())))
    return {
        "right": dict(zip(arms, (round(value, 5) for value in right), strict=True)),
        "distance": {arm: round(members.nearest(arms[arm])[1], 4) for arm in AWAY},
        "seconds": {"id": round(id_seconds, 4), "data": round(data_seconds, 4)},
    }


def table(result: dict) -> str:
    """Markdown: a line a data set, percent right, and their average; then what it costs, in words."""
    sets, heads, means = result["sets"], [*ARMS.values(), *AWAY.values()], []
    lines = [f"| data set | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, one in sets.items():
        each = {arm: [row["right"][arm] for row in one["rows"]] for arm in ARMS if arm != "trained"}
        right = [100 * np.array(values) for values in (one["trained"], *each.values())]
        away = [float(np.mean([row["distance"][arm] for row in one["rows"]])) for arm in AWAY]
        cells = [said(values) if values.std() else f"{values.mean():.1f}" for values in right]
        lines.append(f"| {name} | {' | '.join([*cells, *(f'{value:.2f}' for value in away)])} |")
        means.append([*(values.mean() for values in right), *away])
    digits = [1] * len(ARMS) + [2] * len(AWAY)
    cells = [f"**{value:.{few}f}**" for value, few in zip(np.mean(means, 0), digits, strict=True)]
    lines.append(f"| **average of {len(sets)}** | {' | '.join(cells)} |")
    return "\n".join([*lines, "", cost(result)])


def cost(result: dict) -> str:
    """In words: seconds a network, sampled and trained; bytes of the networks and of the generators."""
    trained = [one["seconds"] for one in result["sets"].values()]
    sampled = {
        arm: np.median([row["seconds"][arm] for one in result["sets"].values() for row in one["rows"]])
        for arm in ("id", "data")
    }
    size = {name: f"{value / 1e6:.1f} MB" for name, value in result["bytes"].items()}
    return (
        f"A network is sampled in {sampled['id']:.2f} s by id and {sampled['data']:.2f} s by data set (with the "
        f"deterministic one), and trained in {np.mean(trained):.1f} s. The generators take {size['by-id']} and "
        f"{size['by-data']}, one network of every data set {size['networks']}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Build the zoo, train the generators, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA", help="of four classes or more, as zoo build takes them")
    parser.add_argument("--seeds", type=int, default=3, help="of the samples and the images shown (3)")
    parser.add_argument("--smoke", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULTS.json", help="what it holds is kept")
    args = parser.parse_args(argv)
    sizes, progress = replace(sizes_of(True), **COLOUR) if args.smoke else SIZES, TerminalProgress()
    tasks, zoo, pipes, result = opened(args, sizes, {"sets": {}}, progress)
    files = {name: (work_of(args) / name).rglob("*.safetensors") for name in ("by-id", "by-data")}
    result["bytes"] = {name: sum(file.stat().st_size for file in of) for name, of in files.items()}
    result["bytes"]["networks"] = 4 * sum(value.numel() for value in zoo.plain_state(0).values()) * len(tasks)
    for task in tasks:
        members = Members(zoo, task.name, pipes[1].weight_space)
        if task.name not in result["sets"]:
            right = tested(task, members, members.states)
            seconds = round(training_seconds(task, members, sizes), 3)
            result["sets"][task.name] = {"trained": right, "seconds": seconds, "rows": []}
            measure(task, members, pipes, sizes, 0)  # what a first call costs is not in the seconds
        rows = result["sets"][task.name]["rows"]
        rows += [measure(task, members, pipes, sizes, seed) for seed in range(len(rows), args.seeds)]
        write_whole(args.out, json.dumps(result, indent=1))
    print(table(result))


if __name__ == "__main__":
    main()
