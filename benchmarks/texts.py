"""Heads from a few texts: accuracy on text sets that no part of a bundle was trained on; writes JSON and a table.

    python -m benchmarks.texts FOLDER... --out texts.json [--readme]

A folder holds tables named train and test (or dev), such as train.jsonl.gz, and may hold a ``task.json`` whose
``labels`` name the classes; ``--rename mr=negative,positive`` names those of one set. For every set, number of texts a
class and seed, every row is scored on the same support and query texts, on a frozen sentence encoder: class mean, ridge
and logistic regression tuned on the support; the bundle's head with class names, without them and with permuted ones;
the first two with unlabelled texts beside the support; and names alone. Of pairs of texts names say nothing. What the
JSON file holds already is not measured again.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.unseen import (
    README,
    episode,
    full_table,
    goals,
    interval,
    measure_baselines,
    measure_bundle,
    short_table,
    summarise,
    write_between,
)
from d2nwg.bundles import load_pipeline, resolve_bundle
from d2nwg.conditions.class_names import check_names
from d2nwg.data.sources import load_data
from d2nwg.data.text_set import TextSet
from d2nwg.encoders.open import load_encoder, name_for
from d2nwg.pipelines import DEFAULT
from d2nwg.utils.progress import TerminalProgress

MARKS = ("<!-- texts -->", "<!-- /texts -->")


def load(folder: str, renamed: dict[str, list[str]]) -> TextSet:
    """The texts of a folder, its classes called by their names where those are known."""
    texts = load_data(folder)
    assert isinstance(texts, TextSet)
    file = Path(folder) / "task.json"
    names = renamed.get(texts.name) or (json.loads(file.read_text()).get("labels") if file.exists() else None)
    if not names:
        return texts
    classes = [names[int(label)] if label.isdigit() else label for label in texts.classes]
    return replace(texts, classes=tuple(check_names(classes)))


def frequent(texts: TextSet, least: int) -> TextSet:
    """Those classes alone that have so many texts for training."""
    counts = np.bincount(texts.labels[~texts.is_test], minlength=len(texts.classes))
    kept = np.flatnonzero(counts >= least)
    rows = np.flatnonzero(np.isin(texts.labels, kept))
    labels = np.searchsorted(kept, texts.labels[rows])
    items, classes = [texts.items[i] for i in rows], tuple(texts.classes[c] for c in kept)
    return replace(texts, items=items, labels=labels, is_test=texts.is_test[rows], classes=classes)


def measure(args, cells: dict, save) -> None:
    """Fill in the cells that are missing: "data|ways|shots|seed" → method → scores."""
    progress, bundle = TerminalProgress(), resolve_bundle(args.bundle)
    pipe, renamed = load_pipeline(bundle), dict(_renaming(text) for text in args.rename)
    for folder in args.data:
        texts = frequent(load(folder, renamed), max(args.shots) + 1)
        encoder = load_encoder(name_for(texts, args.encoder, ""))
        ways = min(args.ways, len(texts.classes))
        for shots in args.shots:
            for seed in range(args.seeds):
                cell = cells.setdefault(f"{texts.name}|{ways}|{shots}|{seed}", {})
                if f"{bundle.name}/chosen" in cell:
                    continue
                task = episode(texts, ways, shots, args.query, args.unlabelled, seed)
                x, xq, free = (_features(texts, task[part], encoder) for part in ("support", "query", "unlabelled"))
                y, yq = torch.from_numpy(task["labels"]), torch.from_numpy(task["query_labels"])
                classes = [texts.classes[c] for c in task["classes"]]
                rows = measure_bundle(pipe, encoder.name, classes, x, y, xq, yq, free, shots, seed, args)
                cell |= measure_baselines(x, y, xq, yq, seed) | {f"{bundle.name}/{n}": s for n, s in rows.items()}
                progress(f"{texts.name}, {shots} texts a class", seed + 1, args.seeds)
            save()


def _features(texts: TextSet, chosen: np.ndarray, encoder) -> torch.Tensor:
    features, readable = encoder.encode([texts.items[i] for i in chosen])
    assert readable.all()
    return features


def _renaming(text: str) -> tuple[str, list[str]]:
    name, _, classes = text.partition("=")
    return name, [one.strip() for one in classes.split(",")]


def worth(cells: dict, bundle: str, shots: int, row: str, other: str) -> tuple[float, float]:
    """How many points a row is ahead of another one, over all tasks of so many texts a class that have both, and half
    the 95 % interval of that."""
    rows = {"best baseline": ("class_mean", "ridge", "logistic_regression")}.get(other, (f"{bundle}/{other}",))
    kept = [cell for key, cell in cells.items() if int(key.split("|")[2]) == shots]
    kept = [cell for cell in kept if f"{bundle}/{row}" in cell and all(name in cell for name in rows)]
    if not kept:
        return float("nan"), float("nan")
    best = max(rows, key=lambda name: statistics.mean(cell[name]["accuracy"] for cell in kept))
    lead = [100 * (cell[f"{bundle}/{row}"]["accuracy"] - cell[best]["accuracy"]) for cell in kept]
    return statistics.mean(lead), interval(lead)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--bundle", default="heads-dual")
    parser.add_argument("--encoder", help="another text encoder than the default one")
    parser.add_argument("--rename", nargs="+", default=[], metavar="SET=A,B,C")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--ways", type=int, default=10, help="most classes of a task")
    parser.add_argument("--unlabelled", type=int, default=15, help="texts without labels a class")
    parser.add_argument("--query", type=int, default=40, help="most held-out texts a class")
    parser.add_argument("--num-samples", type=int, default=50)
    parser.add_argument("--readme", action="store_true", help="put the tables into benchmarks/README.md")
    args = parser.parse_args(argv)
    args.sampler, args.steps = DEFAULT, None
    out, bundle = Path(args.out), resolve_bundle(args.bundle).name
    cells = json.loads(out.read_text())["cells"] if out.exists() else {}

    def save() -> None:
        summary = summarise(cells)
        rows = [{"data": d, "ways": w, "shots": s, "methods": m} for (d, w, s), m in summary.items()]
        arguments = {**vars(args), "data": [Path(d).name for d in args.data], "bundle": bundle}
        result = {"arguments": arguments, "goals": goals(summary, cells, bundle), "summary": rows, "cells": cells}
        out.write_text(json.dumps(result, indent=1))

    measure(args, cells, save)
    save()
    summary = summarise(cells)
    short, full = short_table(summary, bundle), full_table(summary, bundle)
    print(short, full, sep="\n\n")
    for shots in args.shots:
        for row, other in (("chosen", "best baseline"), ("chosen", "nameless"), ("chosen_unlabelled", "chosen")):
            lead, half = worth(cells, bundle, shots, row, other)
            print(f"{shots} texts a class: {row} against {other}: {lead:+.1f} ± {half:.1f} points")
    if args.readme:
        words = (
            f"Percent right, mean of {args.seeds} seeds; at most {args.ways} of the classes with more than "
            f"{max(args.shots)} training texts, and {args.query} held-out texts a "
            f"class, {args.num_samples} samples, every column on the same support and query texts. *with unlabelled*: "
            f"{args.unlabelled} texts a class without labels beside the support. *names only*: without a text. "
            "*permuted*: each class has the name of another. \\*: on those sets where names say something."
        )
        renames = f" --rename {' '.join(args.rename)}" if args.rename else ""
        command = f"python -m benchmarks.texts {' '.join(Path(d).name for d in args.data)}{renames} --out texts.json"
        text = f"{words}\n\n{short}\n\nEvery set, with half the 95 % interval:\n\n{full}\n\n`{command} --readme`"
        write_between(README, text, MARKS)


if __name__ == "__main__":
    main()
