"""Accuracy on data sets that no part of a bundle was trained on; writes JSON, and the tables here or in a model card.

    python -m benchmarks.unseen DATA... --bundles BUNDLE... --out RESULTS.json [--write-card] [--readme]

For every data set, number of classes, number of shots and seed, every row is scored on the same support and query
images: the baselines tuned on the support, and of each bundle the chosen head, one sample, and the best three by the
query images (the papers' protocol); for a dual bundle also the head made with unlabelled images of the same classes
beside the support. A bundle that takes class names is given them; beside it stand the same heads without names and with
those of other classes of the task, and heads from names alone.
What RESULTS.json holds already is not measured again.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.names import heads_from_names, whitened_ridge
from d2nwg.bundles import bundle_encoder, load_pipeline, resolve_bundle
from d2nwg.data.images import load_images
from d2nwg.data.labelled import LabelledSet
from d2nwg.encoders.images import load_encoder
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.baselines import RANDOM_HEADS, baseline_heads, normalised
from d2nwg.evaluation.calibration import calibration_error
from d2nwg.evaluation.selection import choose, selection_split
from d2nwg.pipelines import DEFAULT, SAMPLERS
from d2nwg.pipelines.sampling import choose_sampler, sample_heads
from d2nwg.utils.progress import TerminalProgress
from d2nwg.weights.networks import logits

BASELINES = ("class_mean", "ridge", "logistic_regression")
# Rows of a bundle → headings, in the order of the table.
OWN = {
    "whitened_ridge": "whitened ridge",
    "names_only": "names only",
    "names_nearest": "row of the nearest name",
    "names_no_overlap": "names only, none known",
    "chosen": "chosen",
    "nameless": "chosen without names",
    "permuted_names": "chosen, names permuted",
    "chosen_unlabelled": "chosen, with unlabelled",
    "nameless_unlabelled": "with unlabelled, without names",
    "sample": "sample",
    "oracle_top3": "oracle top 3",
}
ALL = 0  # shots: every image that is not held out
SHOTS = [1, 5, 20, ALL]
MANY = 400  # support images from which on fewer seeds are drawn: tuning the baselines takes minutes
README = Path(__file__).with_name("README.md")
START, END = "<!-- measured -->", "<!-- /measured -->"


def episode(data: LabelledSet, ways: int, shots: int, query: int, unlabelled: int, seed: int) -> dict[str, np.ndarray]:
    """One task: numbers of ``support``, ``query`` and ``unlabelled`` items, labels of the first two, and ``classes``.

    Of ``ways`` random classes, ``shots`` items each, up to ``query`` held-out ones (of the test split where there is
    one), and up to ``unlabelled`` of those that are left.
    """
    rng = np.random.default_rng([seed, ways, shots])
    split = bool(data.is_test.any())
    picked = defaultdict(list)
    for label, c in enumerate(rng.permutation(len(data.classes))[:ways]):
        picked["classes"] += [c]
        own = np.flatnonzero(data.labels == c)
        train, test = rng.permutation(own[~data.is_test[own]]), rng.permutation(own[data.is_test[own]])
        if not split:
            most = min(query, len(train) // 3)
            test, train = (train[:most], train[most:]) if shots == ALL else (train[shots:], train)
        given = len(train) if shots == ALL else shots
        asked = test[:query]
        left = np.setdiff1d(train[given:], asked, assume_unique=True)
        picked["support"] += list(train[:given])
        picked["query"] += list(asked)
        picked["unlabelled"] += list(left[:unlabelled])
        picked["labels"] += [label] * given
        picked["query_labels"] += [label] * len(asked)
    return {name: np.array(values, np.int64) for name, values in picked.items()}


def score(state, features, labels) -> dict[str, float]:
    """Accuracy and calibration error of one head."""
    chance = logits(state, features).double().softmax(-1)
    right = (chance.argmax(-1) == labels).double().mean().item()
    return {"accuracy": right, "ece": calibration_error(chance.numpy(), labels.numpy())}


def measure_baselines(x, y, xq, yq, seed: int) -> dict[str, dict]:
    """The baselines' scores, and a random head's. Features are centred on the support's mean and of unit length."""
    centre = x.numpy().mean(0)
    X, Xq = normalised(x.numpy(), centre), torch.from_numpy(normalised(xq.numpy(), centre))
    rows = {}
    for name, (weight, bias) in baseline_heads(X, y.numpy(), seed=seed).items():
        rows[name] = score({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}, Xq, yq)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(RANDOM_HEADS, int(y.max()) + 1, X.shape[1], generator=generator, dtype=torch.double)
    right = accuracies({"weight": weight, "bias": weight.new_zeros(weight.shape[:2])}, Xq, yq)
    return rows | {"random": {"accuracy": right.mean().item()}}


def measure_bundle(
    pipe, encoder, classes, x, y, xq, yq, free, shots: int, seed: int, args, only: Sequence[str] = tuple(OWN)
) -> dict[str, dict]:
    """The scores of a bundle's heads: chosen, one sample on average, oracle top 3, and chosen with unlabelled images;
    for one that takes names also those without them and with permuted ones, and from names alone; and how the samples'
    disagreement about an image tells that the chosen head is wrong (area under the curve). ``only``: the rows to
    measure."""
    given, aside = selection_split(y, 0 if pipe.uses_all_support else (shots or len(y)), seed)
    by_class = [x[given][y[given] == c] for c in range(int(y.max()) + 1)]
    rows = {}
    plan: list[tuple] = [("chosen", classes, None), ("chosen_unlabelled", classes, free)]
    if pipe.uses_names and not pipe.names_on(encoder).why_not(classes):
        shifted = [*classes[1:], classes[0]]
        plan += [("nameless", (), None), ("permuted_names", shifted, None), ("nameless_unlabelled", (), free)]
        alone = any(row.startswith("names_") for row in only)
        made = heads_from_names(pipe, encoder, classes, args.num_samples, seed) if alone else {}
        for name, state in made.items():
            mean = {part: tensor.mean(0) for part, tensor in state.items()}
            rows[name] = score(mean, xq, yq)
            if len(state["bias"]) > 1:
                rows[name]["spread_tells"] = spread_tells(state, mean, xq, yq)
        if "whitened_ridge" in only and (ridge := whitened_ridge(pipe.names_on(encoder), x, y, xq)):
            query = ridge.pop("query")
            rows["whitened_ridge"] = score(ridge, query, yq)
    for row, names, extra in plan:
        if row not in only:
            continue
        if extra is not None and (not pipe.uses_unlabelled or not len(free)):
            continue
        generator = torch.Generator().manual_seed(seed)
        sampling, steps = choose_sampler(pipe, args.sampler, args.steps)
        run = {"unlabelled": extra, "names": names, "encoder": encoder}
        samples = sample_heads(sampling, by_class, args.num_samples, generator, steps, **run)
        state = {name: tensor.cpu() for name, tensor in samples.state.items()}
        chosen = choose(state, x[aside], y[aside]).head
        rows[row] = score(chosen, xq, yq)
        if row == "chosen":
            each = accuracies(state, xq, yq)
            rows["sample"] = {"accuracy": each.mean().item()}
            rows["oracle_top3"] = {"accuracy": each.topk(min(3, len(each))).values.mean().item()}
            rows["chosen"]["spread_tells"] = spread_tells(state, chosen, xq, yq)
    return rows


def spread_tells(state, chosen, xq, yq) -> float:
    """Chance that of two images, one right and one wrong, the samples disagree more about the wrong one."""
    from sklearn.metrics import roc_auc_score

    wrong = (logits(chosen, xq).argmax(-1) != yq).numpy()
    if wrong.all() or not wrong.any():
        return float("nan")
    each = logits({n: t[:20] for n, t in state.items()}, xq).softmax(-1)
    disagreement = torch.special.entr(each.mean(0)).sum(-1) - torch.special.entr(each).sum(-1).mean(0)
    return float(roc_auc_score(wrong, disagreement.numpy()))


def measure(args, cells: dict, save) -> None:
    """Fill in the cells that are missing: "data|ways|shots|seed" → method → scores."""
    progress = TerminalProgress()
    bundles = {path.name: path for path in map(resolve_bundle, args.bundles)}
    encoder = load_encoder(args.encoder or bundle_encoder(next(iter(bundles.values()))))
    for source in args.data:
        images = load_images(source)
        features, readable = encoder.encode(images.items, progress=progress)
        assert readable.all()
        every = len(images.classes)
        plan = [(w, k) for w in sorted({w for w in args.ways if w < every} | {every}) for k in args.shots]
        for ways, shots in plan:
            for seed in range(args.seeds):
                task = episode(images, ways, shots, args.query, args.unlabelled, seed)
                if len(task["support"]) > MANY and seed >= args.seeds_many:
                    break
                x, xq, free = (features[task[name]] for name in ("support", "query", "unlabelled"))
                y, yq = torch.from_numpy(task["labels"]), torch.from_numpy(task["query_labels"])
                cell = cells.setdefault(f"{images.name}|{ways}|{shots}|{seed}", {})
                if "class_mean" not in cell and not args.no_baselines:
                    cell |= measure_baselines(x, y, xq, yq, seed)
                for name, path in bundles.items():
                    pipe = load_pipeline(path)
                    if f"{name}/chosen" in cell or (pipe.max_classes is not None and ways > pipe.max_classes):
                        continue
                    classes = [images.classes[c] for c in task["classes"]]
                    rows = measure_bundle(pipe, encoder.name, classes, x, y, xq, yq, free, shots, seed, args)
                    cell |= {f"{name}/{row}": scores for row, scores in rows.items()}
                progress(f"{images.name}, {ways}-way, {shots or 'all'} shots", seed + 1, args.seeds)
            save()


def summarise(cells: dict) -> dict[tuple, dict[str, dict[str, float]]]:
    """(data, ways, shots) → method → mean accuracy and ECE over seeds, and half the 95 % interval of the accuracy."""
    groups = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for key, cell in cells.items():
        data, ways, shots, _ = key.split("|")
        for method, scores in cell.items():
            for what, value in scores.items():
                if value == value:
                    groups[data, int(ways), int(shots)][method][what].append(value)
    return {
        group: {
            method: {what: statistics.mean(values) for what, values in scores.items()}
            | {"interval": interval(scores["accuracy"]), "seeds": len(scores["accuracy"])}
            for method, scores in methods.items()
        }
        for group, methods in groups.items()
    }


def interval(values: list[float]) -> float:
    """Half the 95 % interval of the mean."""
    return 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def columns_of(summary: dict, first: str) -> list[str]:
    """The methods in the order of the table: baselines, the other bundles' chosen heads, then those of ``first``."""
    found = list(dict.fromkeys(method for methods in summary.values() for method in methods))
    own = [f"{first}/{row}" for row in OWN]
    others = [m for m in found if m.endswith("/chosen") and m not in own]
    return [m for m in (*BASELINES, "random", *others, *own) if m in found]


def title(method: str, first: str) -> str:
    """A column's heading."""
    bundle, _, row = method.rpartition("/")
    row = OWN.get(row, row)
    return row.replace("_", " ") if bundle in ("", first) else f"`{bundle}`"


def full_table(summary: dict, first: str) -> str:
    """Every data set, number of classes and shots, in percent, with half the 95 % interval."""
    columns = columns_of(summary, first)
    lines = ["| data set | way | shots | " + " | ".join(title(c, first) for c in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 3))
    for (data, ways, shots), methods in summary.items():
        cells = [
            f"{100 * methods[c]['accuracy']:.1f} ± {100 * methods[c]['interval']:.1f}" if c in methods else "–"
            for c in columns
        ]
        lines.append(f"| {data} | {ways} | {shots or 'all'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short_table(summary: dict, first: str) -> str:
    """Averages by number of shots, over the rows that every method has."""
    columns = columns_of(summary, first)
    lines = ["| shots | " + " | ".join(title(c, first) for c in columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for shots in sorted({key[2] for key in summary}, key=lambda s: (s == ALL, s)):
        rows = [methods for key, methods in summary.items() if key[2] == shots]
        here = [c for c in columns if any(c in r for r in rows)]
        for what, name in (("accuracy", ""), ("ece", " (ECE)")):
            cells = []
            for c in columns:
                # A bundle that cannot do all tasks is compared on what it can, against the baselines there.
                values = [r[c][what] for r in rows if c in r and what in r[c]]
                part = "" if len(values) == len(rows) or not values else "*"
                cells.append(f"{100 * statistics.mean(values):.1f}{part}" if values and c in here else "–")
            lines.append(f"| {shots or 'all'}{name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired_interval(cells: dict, first: str, data: str, shots: int) -> list[float]:
    """Lower and upper end of the 95 % interval, in points, of the chosen head minus the baseline that is best on this
    set on average, over all tasks, each on the same images."""
    rows = [
        cell
        for key, cell in cells.items()
        if key.split("|")[0] == data and int(key.split("|")[2]) == shots and f"{first}/chosen" in cell
    ]
    rows = [row for row in rows if BASELINES[0] in row]
    best = max(BASELINES, key=lambda name: statistics.mean(row[name]["accuracy"] for row in rows))
    lead = [100 * (row[f"{first}/chosen"]["accuracy"] - row[best]["accuracy"]) for row in rows]
    return [round(statistics.mean(lead) + side * interval(lead), 2) for side in (-1, 1)]


def goals(summary: dict, cells: dict, first: str) -> dict:
    """How far ahead of each baseline the chosen head is, on average and where it is worst, in points."""
    result = {}
    both = {key: m for key, m in summary.items() if f"{first}/chosen" in m and BASELINES[0] in m}
    for shots in sorted({key[2] for key in both}):
        rows = {key: m for key, m in both.items() if key[2] == shots}
        own = {key: m[f"{first}/chosen"]["accuracy"] for key, m in rows.items()}
        lead = {r: 100 * statistics.mean(own[k] - m[r]["accuracy"] for k, m in rows.items()) for r in BASELINES}
        by_set = defaultdict(list)
        for key, m in rows.items():
            by_set[key[0]].append(100 * (own[key] - np.array([m[r]["accuracy"] for r in BASELINES])))
        worst = {data: float(np.mean(v, 0).min()) for data, v in by_set.items()}  # under the set's best baseline
        more = [
            100 * (m[f"{first}/chosen_unlabelled"]["accuracy"] - own[k])
            for k, m in rows.items()
            if f"{first}/chosen_unlabelled" in m
        ]
        paired = {data: paired_interval(cells, first, data, shots) for data in by_set}
        gains = defaultdict(list)
        for (data, *_), gain in zip(
            [k for k, m in rows.items() if f"{first}/chosen_unlabelled" in m], more, strict=True
        ):
            gains[data].append(gain)
        result[str(shots or "all")] = {
            "lead": {r: round(v, 2) for r, v in lead.items()},
            "against_best_baseline_of_each_set": {d: round(v, 2) for d, v in worst.items()},
            "paired_against_best_on_average": paired,
            "unlabelled_gain": round(statistics.mean(more), 2) if more else None,
            "unlabelled_gain_by_set": {d: round(statistics.mean(v), 2) for d, v in gains.items()},
        }
    return result


def write_between(path: Path, text: str, marks: tuple[str, str] = (START, END)) -> None:
    """Put the text into a page, in place of an earlier one."""
    start, end = marks
    before, _, rest = path.read_text().partition(start)
    after = rest.partition(end)[2].strip("\n")
    after = f"\n{after}\n" if after else ""
    path.write_text(f"{before.rstrip()}\n\n{start}\n{text}\n{end}\n{after}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--bundles", nargs="+", required=True, help="the first one is the tables' own")
    parser.add_argument("--encoder", help="another than the first bundle's (dual bundles)")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seeds-many", type=int, default=3, help=f"where the support is larger than {MANY} images")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help="0: all that are not held out")
    parser.add_argument("--ways", type=int, nargs="+", default=[5, 10], help="besides all classes")
    parser.add_argument("--unlabelled", type=int, default=15, help="images without labels a class")
    parser.add_argument("--num-samples", type=int, default=50)
    parser.add_argument("--query", type=int, default=30, help="most held-out images a class")
    parser.add_argument("--sampler", choices=SAMPLERS, default=DEFAULT)
    parser.add_argument("--steps", type=int, help="denoising steps (the sampler's own number)")
    parser.add_argument("--no-baselines", action="store_true", help="score the bundles alone")
    parser.add_argument("--no-rivals", dest="no_baselines", action="store_true", help=argparse.SUPPRESS)  # older name
    parser.add_argument("--write-card", action="store_true", help="put the tables into the first bundle's README.md")
    parser.add_argument("--readme", action="store_true", help="put the short table into benchmarks/README.md")
    args = parser.parse_args(argv)
    out = Path(args.out)
    cells = json.loads(out.read_text())["cells"] if out.exists() else {}
    names = [resolve_bundle(bundle).name for bundle in args.bundles]

    def save() -> None:
        summary = summarise(cells)
        rows = [{"data": d, "ways": w, "shots": s, "methods": m} for (d, w, s), m in summary.items()]
        arguments = {**vars(args), "data": [Path(d).name for d in args.data], "bundles": names}
        result = {"arguments": arguments, "goals": goals(summary, cells, names[0]), "summary": rows, "cells": cells}
        out.write_text(json.dumps(result, indent=1))

    measure(args, cells, save)
    save()
    summary = summarise(cells)
    short, full = short_table(summary, names[0]), full_table(summary, names[0])
    print(short, json.dumps(goals(summary, cells, names[0]), indent=1), sep="\n\n")
    words = (
        f"Percent right, mean of {args.seeds} seeds (of {args.seeds_many} where the support has more than {MANY} "
        f"images); at most {args.query} held-out images a class, {args.num_samples} samples, every column on the same "
        f"support and query images. *with unlabelled*: {args.unlabelled} images a class without labels beside the "
        "support. *names only*: without an image, by names alone; beside it the row of the known class whose name is "
        "nearest, and names alone where no lemma of a known class equals or contains one of them. *permuted*: each "
        "class has the name of another. *oracle top 3* is the papers' protocol, which looks at the query images to "
        "choose. ECE: expected calibration error. \\*: on those tasks that it can do."
    )
    command = (
        f"python -m benchmarks.unseen {' '.join(Path(d).name for d in args.data)} --bundles {' '.join(names)}"
        f"{f' --encoder {args.encoder}' if args.encoder else ''}"
        f"{'' if args.shots == SHOTS else f' --shots {chr(32).join(map(str, args.shots))}'} --out unseen.json"
    )
    if args.readme:
        write_between(README, f"{words}\n\n{short}\n\n`{command} --readme`")
    if args.write_card:
        card = resolve_bundle(args.bundles[0]) / "README.md"
        text = (
            f"## Accuracy on data sets never trained on\n\n{words}\n\n{short}\n\nWith half the 95 % interval:\n\n{full}"
        )
        write_between(card, f"{text}\n\n`{command} --write-card`")


if __name__ == "__main__":
    main()
