"""Generated networks as a start, on data sets that no network of the zoo was trained on: JSON and a table.

    python -m benchmarks.networks DATA... --bundle BUNDLE --out RESULTS.json

A task is ten classes of a data set (``--classes``), whose few support images (``--shots``) are shown. Every arm starts
from them and is fine-tuned on more training images; its accuracy on the test images is measured after 0, 10, 50 and 200
steps of 64. The learning rate of each arm and number of steps is chosen on a validation part of the training images.
Distances are those of trunks to the nearest network that the bundle keeps of its zoo, in distances between neighbours
there; the noise of *nearest member + noise* is as large as the generated network is far from that member.
What RESULTS.json holds already is not measured again.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2nwg.bundles import data_bundle, load_bundle
from d2nwg.data.arrays import ImageArrays, load_arrays, to_channels
from d2nwg.evaluation import network_baselines as baselines
from d2nwg.pipelines.dataset_networks import DatasetNetworkPipeline
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import TerminalProgress
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import accuracy_of, train_networks

ARMS = {  # in the order of the table
    "random": "random",
    "average": "average of the zoo",
    "nearest": "nearest member, classes matched",
    "noise": "nearest member + noise",
    "density": "kernel density of the 30 best (SKDE30)",
    "average_closed_form": "average trunk + closed-form head",
    "gradient": "gradient steps on the shown images, equal seconds",
    "gradient_50": "50 gradient steps on the shown images",
    "common_closed_form": "ours without its condition: mean trunk + closed-form head",
    "sample": "ours, one sample",
    "generated": "ours, deterministic",
    "sample_closed_form": "ours, one sample + closed-form head",
    "closed_form": "ours, deterministic + closed-form head",
}
BATCH = 64


def task(data: ImageArrays, channels: int, classes: int, shots: int, seed: int) -> dict[str, Tensor]:
    """Images and labels of a random task: ``support``, ``train`` (the support among them), ``validation``, ``test``."""
    rng = np.random.default_rng([seed, classes, shots])
    chosen = rng.permutation(len(data.classes))[:classes]
    rows: dict[str, list] = {"support": [], "train": [], "validation": [], "test": []}
    for c in chosen:
        own = rng.permutation(np.flatnonzero(data.train_labels == c))
        aside = max(1, len(own) // 5)
        rows["validation"].append(own[:aside])
        rows["train"].append(own[aside:])
        rows["support"].append(own[aside:][:shots])
        rows["test"].append(np.flatnonzero(data.test_labels == c))
    found = {}
    for part, parts in rows.items():
        images = (data.test if part == "test" else data.train)[np.concatenate(parts)]
        found[part] = to_channels(torch.from_numpy(np.ascontiguousarray(images)), channels)
        found[f"{part}_labels"] = torch.arange(classes).repeat_interleave(torch.tensor([len(p) for p in parts]))
    return found


def starts(pipe: DatasetNetworkPipeline, given: dict[str, Tensor], seed: int) -> tuple[dict[str, State], dict]:
    """Each arm's networks before fine-tuning (one each, no batch axis), and how long generation took."""
    space, model = pipe.weight_space, pipe.hypernetwork
    images, labels = given["support"], given["support_labels"]
    classes, generator = int(labels.max()) + 1, torch.Generator().manual_seed(seed)
    pipe(images, labels)  # warm
    began = time.perf_counter()
    solved = pipe(images, labels, head="closed-form")
    seconds = time.perf_counter() - began
    drawn = {
        head: pipe(images, labels, 1, torch.Generator().manual_seed(seed), head=head).state
        for head in ("generated", "closed-form")
    }
    nearest = baselines.nearest_member(space, images, labels)
    penalty = model.config.average_penalty
    trained, steps = baselines.gradient_steps(space, images, labels, seconds=seconds, seed=seed)
    found: dict[str, State | None] = {
        "random": baselines.random_networks(space, classes, [seed]),
        "average": baselines.average_network(space, classes),
        "nearest": nearest,
        "noise": None,
        "density": baselines.density_samples(space, classes, 1, generator),
        "average_closed_form": baselines.average_closed_form(space, images, labels, penalty),
        "gradient": trained,
        "gradient_50": baselines.gradient_steps(space, images, labels, steps=50, seed=seed)[0],
        "common_closed_form": baselines.common_closed_form(model, space, images, labels),
        "sample": {name: value[1:] for name, value in drawn["generated"].items()},
        "generated": {name: value[:1] for name, value in drawn["generated"].items()},
        "sample_closed_form": {name: value[1:] for name, value in drawn["closed-form"].items()},
        "closed_form": solved.state,
    }
    if nearest is not None:
        apart = [space.standardised(space.split(state)[0]) for state in (solved.state, nearest)]
        found["noise"] = baselines.with_noise(space, nearest, float((apart[0] - apart[1]).norm()), generator)
    return {name: pick(state, 0) for name, state in found.items() if state}, {"seconds": seconds, "steps": steps}


def distances(pipe: DatasetNetworkPipeline, states: dict[str, State]) -> dict[str, float]:
    """Of each arm's trunk, to the nearest of the zoo's."""
    space = pipe.weight_space
    trunks = torch.cat([space.standardised(space.split(_one(state))[0]) for state in states.values()])
    return dict(zip(states, (round(value, 3) for value in pipe.distance(trunks).tolist()), strict=True))


def _one(state: State) -> State:
    return {name: value.unsqueeze(0) for name, value in state.items()}


def measure(pipe: DatasetNetworkPipeline, data: ImageArrays, seed: int, args, progress) -> list[dict]:
    """One row an arm: ``test`` and ``validation`` accuracies by learning rate and steps, and the distance."""
    space = pipe.weight_space
    given = task(data, space.config.channels, min(args.classes, len(data.classes)), args.shots, seed)
    arms, cost = starts(pipe, given, seed)
    away = distances(pipe, arms)
    module = baselines.module_for(space, int(given["support_labels"].max()) + 1)
    parts = {part: space.normalised(given[part]).unsqueeze(0) for part in ("train", "validation", "test")}
    pairs = [(arm, rate) for arm in arms for rate in args.rates]
    stacked = {name: torch.stack([arms[arm][name] for arm, _ in pairs]) for name in arms["random"]}
    found: dict[str, dict[str, dict[str, list[float]]]] = {arm: {"test": {}, "validation": {}} for arm in arms}

    def look(step: int, states: State) -> None:
        for part in ("test", "validation"):
            right = accuracy_of(module, states, parts[part], given[f"{part}_labels"].unsqueeze(0)).tolist()
            for (arm, _), value in zip(pairs, right, strict=True):
                found[arm][part].setdefault(str(step), []).append(round(value, 5))

    look(0, stacked)
    after = [step for step in args.steps if step]
    if after:
        train_networks(
            module,
            stacked,
            parts["train"],
            given["train_labels"].unsqueeze(0),
            steps=max(after),
            batch_size=BATCH,
            lr=[rate for _, rate in pairs],
            seeds=[seed] * len(pairs),
            at=after,
            on_step=look,
            progress=progress,
        )
    about = {"data": data.name, "seed": seed, "classes": args.classes, "shots": args.shots, "rates": args.rates}
    return [{**about, "arm": arm, "distance": away[arm], "generation": cost, **found[arm]} for arm in arms]


def chosen(rows: list[dict], step: str) -> list[float]:
    """Test accuracies of one arm's rows after so many steps, with the rate whose mean validation accuracy is best."""
    validation = np.mean([row["validation"][step] for row in rows], 0)
    return [row["test"][step][int(validation.argmax())] for row in rows]


def table(rows: list[dict]) -> str:
    """Markdown, a table a data set: an arm a line, mean and standard deviation over seeds after so many steps."""
    parts = []
    for name in dict.fromkeys(row["data"] for row in rows):
        steps = list(rows[0]["test"])
        lines = [f"| {name}, after steps | {' | '.join(steps)} | distance |", "|---" * (len(steps) + 2) + "|"]
        for arm, said in ARMS.items():
            own = [row for row in rows if row["arm"] == arm and row["data"] == name]
            if own:
                values = [100 * np.array(chosen(own, step)) for step in steps]
                cells = " | ".join(f"{value.mean():.1f} ± {value.std():.1f}" for value in values)
                lines.append(f"| {said} | {cells} | {np.mean([row['distance'] for row in own]):.2f} |")
        parts.append("\n".join([*lines, "", saved(rows, name)]))
    return "\n\n".join(parts)


def saved(rows: list[dict], name: str) -> str:
    """In words, how many steps a random start needs to be as good as the generated one is without any."""
    own = {arm: [row for row in rows if row["data"] == name and row["arm"] == arm] for arm in ("closed_form", "random")}
    steps = list(rows[0]["test"])
    start = float(np.mean(chosen(own["closed_form"], steps[0])))
    curve = [float(np.mean(chosen(own["random"], step))) for step in steps]
    reached = next((step for step, value in zip(steps, curve, strict=True) if value >= start), None)
    many = f"at most {reached} steps (of those measured)" if reached else f"more than {steps[-1]} steps"
    cost = [row["generation"] for row in own["closed_form"]]
    spent = np.mean([one["seconds"] for one in cost]), np.mean([one["steps"] for one in cost])
    return (
        f"{name}: the generated start (closed-form head) is right on {start:.1%} without a step; a random start needs "
        f"{many}. Generation took {spent[0]:.2f} s, the time of {spent[1]:.0f} gradient steps on the shown images."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA", help="as zoo build --network takes them")
    parser.add_argument("--bundle", required=True, help="of --generator dataset-networks")
    parser.add_argument("--classes", type=int, default=10, help="of a task (10)")
    parser.add_argument("--shots", type=int, default=5, help="images a class that are shown (5)")
    parser.add_argument("--seeds", type=int, default=3, help="tasks of each data set (3)")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 10, 50, 200], help="of fine-tuning (0 10 50 200)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3], help="of Adam, to choose from")
    parser.add_argument("--rows", type=int, default=6000, help="most training images of a data set (6000)")
    parser.add_argument("--out", metavar="RESULTS.json", help="where to write; measured tasks are kept")
    args = parser.parse_args(arguments)
    args.steps = sorted({0, *args.steps})
    pipe, progress = load_bundle(data_bundle(args.bundle)), TerminalProgress()
    out = Path(args.out) if args.out else None
    rows: list[dict] = json.loads(out.read_text())["rows"] if out and out.is_file() else []
    for source in args.data:
        data = load_arrays(source, size=pipe.weight_space.config.size, rows=args.rows, progress=progress)
        for seed in range(args.seeds):
            if any(row["data"] == data.name and row["seed"] == seed for row in rows):
                continue
            rows += measure(pipe, data, seed, args, progress)
            if out:
                write_whole(out, json.dumps({"bundle": Path(args.bundle).name, "rows": rows}, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
