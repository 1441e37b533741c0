"""The paper's ablations, on a small zoo of heads made from the data sets given; writes JSON, and prints a table.

    python -m benchmarks.ablations DATA... --out ablations.json

Each row is a generator trained with one thing changed: the data-set encoder (table 21, figure 7), an accuracy predictor
(table 20), no condition (table 11), no VAE (figure 6b), a smaller zoo (figure 6a). All rows are scored on the same
tasks of the zoo, on images of their classes that are in no part of it, as one of a task's images may be support of
another: the mean of samples, their average, and what would be handed out (the average, or what the predictor chooses).
Beside them stand the zoo's own heads, which saw more images, and the class means of the same support. Means ± standard
deviations over seeds, each of which trains anew. What the JSON holds already is not measured again.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from d2nwg.bundles import load_bundle
from d2nwg.data.image_set import ImageSet
from d2nwg.data.images import load_images
from d2nwg.encoders.images import load_encoder
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.baselines import class_mean_head, normalised
from d2nwg.evaluation.selection import choose
from d2nwg.training.config import UNetConfig
from d2nwg.training.data import training_records
from d2nwg.training.run import train_bundle
from d2nwg.training.settings import changed, split_setting
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import Progress, TerminalProgress, silent
from d2nwg.weights.build import build_zoo
from d2nwg.weights.networks import fold_projection, select_classes
from d2nwg.weights.zoo import QUERY, Zoo, ZooConfig


class Row(NamedTuple):
    """What a row changes: the paper's table or figure, what a person reads, and the fields of the configuration."""

    table: str
    label: str
    changes: dict


ROWS = {
    "base": Row("20, 21", "Set Transformer, aligned", {}),
    "joint": Row("21, figure 7", "Set Transformer, joint with the denoiser", dict(alignment="joint")),
    "mlp": Row("21", "two-layer MLP, aligned", dict(dataset_encoder="mlp")),
    "mlp-joint": Row("21", "two-layer MLP, joint with the denoiser", dict(dataset_encoder="mlp", alignment="joint")),
    "predictor": Row("20", "with a predictor that ranks samples", dict(predictor="dataset")),
    "guided": Row("20", "with a predictor that ranks and guides", dict(predictor="dataset", predictor_weight=1.0)),
    "unconditional": Row("11", "no condition", dict(condition="none")),
    "no-vae": Row("figure 6b", "no VAE, diffusion of weights", dict(vae=False)),
    "half": Row("figure 6a", "half of the zoo", dict(zoo_records=2)),  # the whole divided by this
    "eighth": Row("figure 6a", "an eighth of the zoo", dict(zoo_records=8)),
}
COLUMNS = {"sample": "one sample", "average": "average of the samples", "chosen": "handed out"}


class SeenTask(NamedTuple):
    """A task of the zoo: ``name`` of its data set, support features (C tensors), query features with labels, and the
    zoo's own head."""

    name: str
    support: list[Tensor]
    query: Tensor
    labels: Tensor
    zoo_head: dict[str, Tensor]


def parted(source: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """A data set without `QUERY` images of each class (a quarter, of small ones), and those."""
    held = np.zeros(len(source), bool)
    rng = np.random.default_rng(seed)
    for label in range(len(source.classes)):
        members = np.flatnonzero(source.labels == label)
        held[rng.permutation(members)[: min(QUERY, max(1, len(members) // 4))]] = True
    rows = np.flatnonzero(~held), np.flatnonzero(held)
    kept, shown = (
        replace(
            source,
            items=[source.items[i] for i in part],
            labels=source.labels[part],
            is_test=source.is_test[part],
        )
        for part in rows
    )
    return kept, shown


def query_of(sets: Sequence[ImageSet], encoder, progress: Progress = silent) -> list[Tensor]:
    """Features (n, D) of the images of every class, in the order of a zoo of such sets."""
    found = []
    for source in sets:
        features, readable = encoder.encode(source.items, progress=progress, **source.scale().option)
        labels = source.labels[readable]
        kept = features[torch.from_numpy(readable)]
        found += [kept[torch.from_numpy(labels == label)] for label in range(len(source.classes))]
    return found


def seen_tasks(zoo: Zoo, query: Sequence[Tensor], a_set: int, shots: int) -> list[SeenTask]:
    """At most ``a_set`` tasks of each data set, spread over the records that training may see, classes in the order of
    their numbers; ``query`` holds features (n, D) of images of each class of the zoo."""
    owners = np.repeat(np.arange(len(zoo.datasets)), [len(data["classes"]) for data in zoo.datasets])
    first = owners[zoo.record_classes()[:, 0].numpy()]
    rows = training_records(zoo)
    features, found = zoo.images["features"].float(), []
    for number, data in enumerate(zoo.datasets):
        mine = rows[first[rows] == number]
        for row in mine[np.linspace(0, len(mine) - 1, min(a_set, len(mine))).astype(int)].tolist():
            records = zoo.records([row])
            order = records.classes[0, : int(records.counts[0])].argsort()
            images = [records.support[0, slot].long() for slot in order]
            support = [features[used[used >= 0][:shots]] for used in images]
            shown = [query[int(label)] for label in records.classes[0, order]]
            labels = torch.arange(len(shown)).repeat_interleave(torch.tensor(list(map(len, shown))))
            head = fold_projection(select_classes(records.state, order), zoo.images["projection"], zoo.images["mean"])
            found.append(SeenTask(data["name"], support, torch.cat(shown), labels, head))
    return found


def scored(tasks: Sequence[SeenTask], score) -> dict[str, dict[str, float]]:
    """Mean accuracies over the tasks of each data set: ``score(task)`` is a dict of them."""
    rows: dict[str, list[dict]] = {}
    for task in tasks:
        rows.setdefault(task.name, []).append(score(task))
    return {
        name: {column: round(mean(row[column] for row in found), 4) for column in found[0]}
        for name, found in rows.items()
    }


def beside(task: SeenTask, centre: np.ndarray) -> dict[str, float]:
    """The zoo's own head of the task, and the class means of its support."""
    x, query = (normalised(one.numpy(), centre) for one in (torch.cat(task.support), task.query))
    y = np.repeat(np.arange(len(task.support)), list(map(len, task.support)))
    weight, bias = class_mean_head(x, y, len(task.support))
    right = float(((query @ weight.T + bias).argmax(1) == task.labels.numpy()).mean())
    return {"zoo": float(accuracies(task.zoo_head, task.query, task.labels)[0]), "class_mean": right}


def sampled(pipe, task: SeenTask, count: int, seed: int) -> dict[str, float]:
    """`COLUMNS` of one task."""
    samples = pipe(task.support, num_samples=count, generator=torch.Generator().manual_seed(seed))
    choice = choose(samples.state, task.query[:0], task.labels[:0], samples.expected)
    heads = {"average": choice.average, "chosen": choice.head}
    found = {
        column: float(accuracies({name: value[None] for name, value in head.items()}, task.query, task.labels)[0])
        for column, head in heads.items()
    }
    return {"sample": float(accuracies(samples.state, task.query, task.labels).mean()), **found}


def trained(zoo: Zoo, tasks: Sequence[SeenTask], config: UNetConfig, count: int, progress: Progress = silent) -> dict:
    """Train a generator, and score it: ``sets`` (`scored`), ``measured`` in training, ``networks`` and ``seconds``."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        bundle = train_bundle(zoo, config, Path(folder) / "bundle", device="cpu", progress=progress)
        seconds = time.monotonic() - started
        about = json.loads((bundle / "training.json").read_text())
        pipe = load_bundle(bundle)
    sets = scored(tasks, lambda task: sampled(pipe, task, count, config.seed))
    return {"sets": sets, "measured": about["measured"], "networks": about["networks"], "seconds": round(seconds, 1)}


def configured(base: UNetConfig, row: str, zoo: Zoo, seed: int) -> UNetConfig:
    """The configuration of a row."""
    changes = dict(ROWS[row].changes)
    if "zoo_records" in changes:
        changes["zoo_records"] = max(1, len(training_records(zoo)) // changes["zoo_records"])
    return replace(base, **changes, seed=seed)


def table(results: dict) -> str:
    """What was measured, in percent, as Markdown."""
    sets = list(results["beside"])

    def line(table: str, label: str, column: str, runs: list[dict]) -> str:
        cells = []
        for name in [*sets, None]:
            values = [100 * mean(run[one][column] for one in ([name] if name else sets)) for run in runs]
            cells.append(f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else ""))
        return f"| {table} | {label} | {' | '.join(cells)} |"

    lines = [f"| table | row | {' | '.join(sets)} | mean |", "|---" * (len(sets) + 3) + "|"]
    for column, label in {"zoo": "heads of the zoo", "class_mean": "class means of the support"}.items():
        lines.append(line("", label, column, [results["beside"]]))
    for row, seeds in results["rows"].items():
        runs = [run["sets"] for run in seeds.values()]
        for column, label in COLUMNS.items():
            if column != "chosen" or "predictor" in ROWS[row].changes:  # otherwise the average is handed out
                lines.append(line(ROWS[row].table, f"{ROWS[row].label}: {label}", column, runs))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Build the zoo, train and score each row, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="image data sets, as `zoo build` takes them")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), help="all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--classes", type=int, default=10, help="of every task (10)")
    parser.add_argument("--records", type=int, default=1_000, help="of the zoo (1,000)")
    parser.add_argument("--tasks", type=int, default=10, help="that are scored, of each data set (10)")
    parser.add_argument("--shots", type=int, default=5, help="support images a class (5)")
    parser.add_argument("--num-samples", type=int, default=20)
    parser.add_argument("--encoder", default=None, help="of the images (EfficientNet-Lite0)")
    parser.add_argument("--preset", default="tiny", choices=list(UNetConfig.PRESETS))
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of `train`, in every row")
    parser.add_argument("--zoo", type=Path, default=Path("ablations-zoo"), help="folder, built where it is missing")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    args = parser.parse_args(argv)
    progress = TerminalProgress()
    sets = [parted(load_images(source, progress=progress)) for source in args.data]
    encoder = load_encoder(args.encoder) if args.encoder else load_encoder()
    if not args.zoo.exists():
        size = ZooConfig(subsets=args.records, min_classes=args.classes, max_classes=args.classes)
        build_zoo([kept for kept, _ in sets], encoder, size, args.zoo, progress=progress)
    zoo = Zoo(args.zoo)
    if [(data["name"], tuple(data["classes"])) for data in zoo.datasets] != [(s.name, s.classes) for s, _ in sets]:
        parser.error(f"{args.zoo} is a zoo of other data sets: give --zoo another folder")
    base = changed(UNetConfig.preset(args.preset), dict(split_setting(text) for text in args.set))
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    about = {"zoo": zoo.summary(), "config": base.to_config(), "shots": args.shots, "samples": args.num_samples}
    if results.get("about") != (about := json.loads(json.dumps(about))):
        results = {"about": about, "rows": {}}
    query = query_of([held for _, held in sets], encoder, progress)
    tasks = seen_tasks(zoo, query, args.tasks, args.shots)
    centre = zoo.images["mean"].numpy()
    results["beside"] = scored(tasks, lambda task: beside(task, centre))
    for row in args.rows:
        done = results["rows"].setdefault(row, {})
        for seed in args.seeds:
            if str(seed) not in done:
                config = configured(base, row, zoo, seed)
                done[str(seed)] = trained(zoo, tasks, config, args.num_samples, progress)
                write_whole(args.out, json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
