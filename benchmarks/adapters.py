"""Generated adapters beside trained ones: table 5 of the paper, and tasks that were never seen.

    python -m benchmarks.adapters ZOO TASK... --about benchmarks/text_tasks.json --out adapters.json
    python -m benchmarks.adapters ZOO TASK... --about benchmarks/text_tasks.json --unseen sst2 cola --out new.json

ZOO is what `zoo build --adapter lora` made of the same tasks with the same seed. A bundle is trained on it, or given by
``--bundle``. All columns of a task are scored on the same texts, which no adapter was trained on:

- head: the best head on the encoder without an adapter; trained: the zoo's last checkpoints, mean of its seeds;
- description, paraphrase: generated from a description of training, and from the descriptions kept aside;
- labelled: likewise from paraphrases, with the names of the task's labels given as well;
- recognised: share of paraphrases that are taken for their own task; recognised labelled: with the labels' names;
- oracle5: the best 5 of 8 samples by the very texts that score (the paper's protocol);
- look-up: the zoo's first adapter of the task that the paraphrase is taken for; look-up labelled: with the names;
- noise: the zoo's adapter and noise of the size of the differences between its seeds.

``--write-card`` puts the table into the bundle's card. With ``--unseen`` each of the tasks named is left out of
training in turn and its labels are given: generated, the adapter of the nearest task, the average adapter (of B A,
cut back to the rank), and none, all with a head from names.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.unseen import write_between
from d2nwg.bundles import load_bundle
from d2nwg.data.text_tasks import TEST, TextTask, load_text_task, read_about
from d2nwg.encoders.lora import AdaptedEncoder, LoraShape
from d2nwg.from_description import NAMED, rows_of_names
from d2nwg.models.adapter_space import HEAD
from d2nwg.training.config import AdaptersConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.progress import TerminalProgress
from d2nwg.weights.build_adapters import examples_of
from d2nwg.weights.finetune import predictions, score
from d2nwg.weights.lora import mix_adapters
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.networks import State

SAMPLES, ORACLE = 8, 5
COMMAND = (
    "python -m benchmarks.adapters adapter-zoo texts/* --about benchmarks/text_tasks.json --bundle adapters --out "
    "adapters.json --write-card"
)
EXPLAINED = """## Measured

In percent (distance aside), on texts that no adapter was trained on. Head: the best one on the encoder without
an adapter; trained: the zoo's last adapters; description: generated from one that training saw; paraphrase:
from those kept aside; labelled: from these and the names of the task's labels; recognised: share of these that
are taken for their own task; look-up: the zoo's adapter of the task they are taken for; noise: the zoo's
adapter with noise of the size of the differences between seeds; oracle5: the best five of eight by the very
texts that score; distance: to the nearest adapter of the zoo, 1 for adapters of one task to each other. On
these tasks this is retrieval."""


class Bench:
    """A zoo, its tasks, and an encoder that takes one adapter after another."""

    def __init__(self, zoo: ModelZoo, tasks: Sequence[TextTask]):
        self.zoo, self.tasks = zoo, {task.name: task for task in tasks}
        self.encoder = AdaptedEncoder(LoraShape.from_json(zoo.adapters.shape))
        build = zoo.adapters.build
        self.texts = {n: examples_of(t, TEST, build["scored"], build["seed"]) for n, t in self.tasks.items()}
        self.about = {task.name: task for task in zoo.adapters.tasks}

    def score(self, name: str, matrices: State | None, head: State) -> float:
        """Of an adapter (None for none) and a head on a task's texts."""
        self.encoder.reset()
        if matrices is not None:
            self.encoder.load(matrices)
        texts = self.texts[name]
        return score(self.about[name].metric, predictions(self.encoder, head, texts.texts), texts.targets)

    def fitting(self, name: str, matrices: State, head: State) -> float:
        """`score`, or 0 for a head of another number of rows: one of another task."""
        rows = len(self.about[name].classes) or 1
        return self.score(name, matrices, head) if len(head[HEAD[1]]) == rows else 0.0

    def members(self, name: str) -> list[tuple[State, State]]:
        """The last checkpoint of each seed of a task: matrices and head."""
        last: dict[str, int] = {}
        for number, record in enumerate(self.zoo.records):
            if record["task"] == name:
                last[record["name"].rpartition("/")[0]] = number
        return [parted(self.zoo.plain_state(number)) for number in last.values()]


def parted(state: State) -> tuple[State, State]:
    """An adapter with its head → both."""
    return {k: v for k, v in state.items() if k not in HEAD}, {k: state[k] for k in HEAD}


def seen(bench: Bench, pipe, seeds: int) -> dict[str, dict[str, float]]:
    """The columns for every task of the zoo."""
    rows = {}
    for name, about in bench.about.items():
        members = bench.members(name)
        row = {"head": about.frozen["test"], "trained": mean(bench.score(name, *member) for member in members)}
        first, aside = about.descriptions[0], about.aside
        row["description"] = mean(bench.score(name, *sampled(pipe, first, seed)) for seed in range(seeds))
        if aside:
            words = [aside[seed % len(aside)] for seed in range(seeds)]
            for column, end, labels in (("paraphrase", "", ()), ("labelled", "_labelled", about.classes)):
                found = [sampled(pipe, text, seed, labels) for seed, text in enumerate(words)]
                owners = [pipe.weight_space.tasks[nearest(pipe, text, labels)].name for text in words]
                row[f"recognised{end}"] = mean(owner == name for owner in owners)
                row[column] = mean(bench.fitting(name, *made) for made in found)
                looked = {owner: bench.fitting(name, *bench.members(owner)[0]) for owner in set(owners)}
                row[f"look_up{end}"] = mean(looked[owner] for owner in owners)
        samples = pipe(first, SAMPLES, torch.Generator().manual_seed(0))
        each = sorted((bench.score(name, *one(samples, n)) for n in range(SAMPLES)), reverse=True)
        row |= {
            "oracle5": mean(each[:ORACLE]),
            "spread": float(np.std(each)),
            "distance": float(samples.distance.mean()),
        }
        row["noise"] = mean(bench.score(name, *noised(members, seed)) for seed in range(seeds))
        rows[name] = {key: round(value, 4) for key, value in row.items()}
        print(f"{name:16}", " ".join(f"{key} {value:.3f}" for key, value in rows[name].items()), flush=True)
    return rows


def one(samples, number: int) -> tuple[State, State]:
    """A sample's matrices and head."""
    matrices, head = samples.one(number)
    return {k: v.contiguous() for k, v in matrices.items()}, {k: v.contiguous() for k, v in head.items()}


def sampled(pipe, text: str, seed: int, labels: Sequence[str] = ()) -> tuple[State, State]:
    """What `generate_from_description` takes of eight samples."""
    samples = pipe(text, SAMPLES, torch.Generator().manual_seed(seed), labels=labels)
    return one(samples, samples.central())


def nearest(pipe, text: str, labels: Sequence[str] = ()) -> int:
    """The number of the task that a description is taken for."""
    return int(pipe.weight_space.of_tasks(pipe.recognise(text, labels)[1]).argmax())


def noised(members: list[tuple[State, State]], seed: int) -> tuple[State, State]:
    """The first member of a task and noise as large as the members' standard deviation, tensor by tensor."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for place in (0, 1):
        state = {}
        for name, tensor in members[0][place].items():
            spread = torch.stack([member[place][name] for member in members]).std(0).mean() if len(members) > 1 else 0.0
            state[name] = tensor + spread * torch.randn(tensor.shape, generator=generator)
        parts.append(state)
    return parts[0], parts[1]


def unseen(bench: Bench, config: AdaptersConfig, names: Sequence[str], seeds: int) -> dict[str, dict[str, float]]:
    """The columns for tasks that are left out in turn."""
    rows = {}
    for name in names:
        about = bench.about[name]
        with tempfile.TemporaryDirectory() as folder:
            out = train_bundle(bench.zoo, replace(config, held_out=(name,)), Path(folder) / "adapters", device="cpu")
            pipe = load_bundle(out)
        text = about.descriptions[0]
        others = [task.name for task in pipe.weight_space.tasks]
        near = others[nearest(pipe, text, about.classes)]
        columns = {
            "generated": [sampled(pipe, text, seed, about.classes)[0] for seed in range(seeds)],
            "nearest": [member[0] for member in bench.members(near)],
            "average": [mix_adapters([bench.members(other)[0][0] for other in others])],
            "none": [None],
        }
        row = {}
        for column, adapters in columns.items():
            row[column] = mean(bench.score(name, one, named_head(bench, one, about.classes)) for one in adapters)
        row |= {"head": about.frozen["test"], "trained": mean(bench.score(name, *m) for m in bench.members(name))}
        rows[name] = {**{key: round(value, 4) for key, value in row.items()}, "nearest_task": near}
        print(f"{name:16}", rows[name], flush=True)
    return rows


def named_head(bench: Bench, matrices: State | None, classes: Sequence[str]) -> State:
    """A head from class names, on the encoder with this adapter."""
    bench.encoder.reset()
    if matrices is not None:
        bench.encoder.load(matrices)
    words = [name.replace("_", " ") for name in classes]
    return {HEAD[0]: NAMED * rows_of_names(words, bench.encoder), HEAD[1]: torch.zeros(len(words))}


def table(rows: dict[str, dict], whole: dict[str, float], about: dict) -> str:
    """The rows in Markdown: a task each, in percent, and their mean; distances and shares as they are."""
    keys = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(key.replace('_', ' ') for key in keys)} |", "|---" * (len(keys) + 1) + "|"]
    for name, row in [*rows.items(), ("mean", whole)]:
        metric = about[name].metric if name in about else "accuracy"
        label = name if metric == "accuracy" else f"{name} ({metric.capitalize()})"
        cells = [cell(key, row.get(key, "")) for key in keys]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(key: str, value) -> str:
    """A number of a table, or a word."""
    if isinstance(value, str):
        return value
    return f"{value:.2f}" if key == "distance" or key.startswith("recognised") else f"{100 * value:.1f}"


def mean(values) -> float:
    """Of numbers."""
    return float(np.mean(list(values)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, print the rows and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("tasks", nargs="+", type=Path)
    parser.add_argument("--about", type=Path, help="JSON with descriptions, labels and metric of tasks by name")
    parser.add_argument("--bundle", type=Path, help="trained on this zoo; by default one is trained")
    parser.add_argument("--preset", default="small", help="of the training (small)")
    parser.add_argument("--unseen", nargs="+", default=[], metavar="TASK", help="leave each of these out in turn")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--write-card", action="store_true", help="put the table into the README.md of --bundle")
    parser.add_argument("--smoke", action="store_true", help="a few steps of training: see whether it runs")
    args = parser.parse_args(arguments)
    zoo, config = ModelZoo(args.zoo), AdaptersConfig.preset(args.preset)
    config = config.shortened(4) if args.smoke else config
    said = read_about(args.about) if args.about else None
    bench = Bench(zoo, [load_text_task(path, seed=zoo.adapters.build["seed"], said=said) for path in args.tasks])
    if unknown := [name for name in args.unseen if name not in bench.about or not bench.about[name].classes]:
        parser.error(f"{unknown[0]} is no task of the zoo with classes")
    if args.unseen:
        rows = unseen(bench, config, args.unseen, args.seeds)
    elif args.bundle:
        rows = seen(bench, load_bundle(args.bundle), args.seeds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            out = train_bundle(zoo, config, Path(folder) / "adapters", progress=TerminalProgress())
            rows = seen(bench, load_bundle(out), args.seeds)
    numbers = [key for key, value in next(iter(rows.values())).items() if isinstance(value, float)]
    whole = {key: round(mean(row[key] for row in rows.values() if key in row), 4) for key in numbers}
    print("mean", " ".join(f"{key} {value:.3f}" for key, value in whole.items()))
    args.out.write_text(json.dumps({"tasks": rows, "mean": whole, "seeds": args.seeds}, indent=1))
    text = table(rows, whole, bench.about)
    print(text)
    if args.write_card and args.bundle:
        write_between(args.bundle / "README.md", f"{EXPLAINED}\n\n{text}\n\n`{COMMAND}`")


if __name__ == "__main__":
    main()
