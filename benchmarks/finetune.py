"""What a generated head is worth as a start of training, on data sets that no part of a bundle was trained on; writes
JSON, and the table here.

    python -m benchmarks.finetune DATA... --out RESULTS.json [--readme]

Each repetition shows other images of each class to the generator and draws another test part; the learning rate of
every start is chosen on a validation part of the training images. What RESULTS.json holds already is not
measured again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.unseen import README, write_between
from d2nwg.data.images import load_images
from d2nwg.data.labelled import LabelledSet
from d2nwg.evaluation.finetune_report import Curve, FineTuneReport, cell, epochs_saved, table
from d2nwg.finetuning.heads import finetune_head
from d2nwg.generate import generate_heads
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import TerminalProgress

START, END = "<!-- finetuned -->", "<!-- /finetuned -->"


def some_of(data: LabelledSet, most: int) -> LabelledSet:
    """At most so many images of a set, the same ones each time, of each class and split its share."""
    if len(data) <= most:
        return data
    rng, kept = np.random.default_rng(0), []
    for part in (False, True):
        for label in range(len(data.classes)):
            own = rng.permutation(np.flatnonzero((data.labels == label) & (data.is_test == part)))
            kept += list(own[: max(1, round(len(own) * most / len(data)))])
    kept = np.sort(kept)
    return replace(
        data, items=[data.items[i] for i in kept], labels=data.labels[kept], is_test=data.is_test[kept], pixels=None
    )


def measure(args, found: dict, save) -> None:
    """Fill in the repetitions that are missing: "data|repetition" → a report."""
    progress = TerminalProgress()
    for source in args.data:
        data = some_of(load_images(source, progress=progress), args.max_images)
        for repetition in range(args.repetitions):
            key = f"{data.name}|{repetition}"
            if key in found:
                continue
            run = {"seed": repetition, "progress": progress}
            made = generate_heads(data, bundle=args.bundle, shots=args.shots, num_samples=args.num_samples, **run)
            tuned = finetune_head(
                made.head, data, epochs=args.epochs, seeds=1, checkpoints=args.checkpoints, max_images=len(data), **run
            )
            found[key] = tuned.report.to_json()
            save()


def merged(found: dict, data: str) -> FineTuneReport:
    """The repetitions of a data set as the seeds of one report; learning rates are their geometric means."""
    reports = [FineTuneReport.from_json(row) for key, row in found.items() if key.split("|")[0] == data]
    curves = []
    for curve in reports[0].curves:
        own = [report.curve(curve.arm) for report in reports]
        right = [[values[0] for values in row] for row in zip(*(c.accuracy for c in own if c), strict=True)]
        lr = float(f"{np.exp(mean(np.log(c.lr) for c in own if c)):.1g}")
        curves.append(Curve(curve.arm, lr, curve.epochs, right))
    return replace(reports[0], curves=curves, seeds=list(range(len(reports))))


def markdown_table(reports: Sequence[FineTuneReport]) -> str:
    """A row a data set and start, and the means over the sets."""
    epochs = reports[0].checkpoints
    lines = [f"| data set | start | {' | '.join(f'epoch {e}' for e in epochs)} | learning rate |"]
    lines.append("|---" * (len(epochs) + 3) + "|")
    rows = {report.data: table(report) for report in reports}
    for data, of_set in rows.items():
        for row in of_set:
            cells = " | ".join(cell(c, len(reports[0].seeds)) for c in row["checkpoints"])
            lines.append(f"| {data.removeprefix('unseen-')} | {row['label']} | {cells} | {row['lr']:g} |")
    for place, row in enumerate(next(iter(rows.values()))):
        means = [mean(of_set[place]["checkpoints"][i]["mean"] for of_set in rows.values()) for i in range(len(epochs))]
        lines.append(f"| **mean** | {row['label']} | {' | '.join(f'**{100 * m:.1f}**' for m in means)} | |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--bundle", help="of heads (the shipped one)")
    parser.add_argument("--out", required=True)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--num-samples", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[0, 1, 5, 50])
    parser.add_argument("--max-images", type=int, default=1500, help="of a set, to show, train and score on")
    parser.add_argument("--readme", action="store_true", help="put the table into benchmarks/README.md")
    args = parser.parse_args(argv)
    out = Path(args.out)
    found = json.loads(out.read_text())["reports"] if out.exists() else {}

    def save() -> None:
        arguments = {**vars(args), "data": [Path(d).name for d in args.data]}
        write_whole(out, json.dumps({"arguments": arguments, "reports": found}, indent=1))

    measure(args, found, save)
    save()
    reports = [merged(found, data) for data in dict.fromkeys(key.split("|")[0] for key in found)]
    words = "\n".join(f"- {report.data.removeprefix('unseen-')}: {epochs_saved(report)}" for report in reports)
    sizes = "; ".join(
        f"{r.data.removeprefix('unseen-')} {r.num_train} and {r.num_test}, {len(r.classes)} classes" for r in reports
    )
    text = (
        f"Percent right on the test part, mean ± standard deviation of {args.repetitions} repetitions, each with other "
        f"images shown ({args.shots} a class) and another test part where the set has no test split. Images that train "
        f"and that score: {sizes}. Batches of {reports[0].batch_size}, Adam; each start has one learning rate for its "
        "whole curve, the best on average over these epochs on a fifth of the training images (here its geometric "
        "mean)."
        f"\n\n{markdown_table(reports)}\n\n{words}"
    )
    print(text)
    if args.readme:
        names = " ".join(Path(d).name for d in args.data)
        write_between(
            README, f"{text}\n\n`python -m benchmarks.finetune {names} --out finetune.json --readme`", (START, END)
        )


if __name__ == "__main__":
    main()
