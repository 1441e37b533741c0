"""Accuracy on data sets that no part of a bundle was trained on; writes JSON, and the table of the model card.

    python -m benchmarks.unseen DATA... --bundle BUNDLE --out RESULTS.json [--write-card]

For every data set, number of classes, number of shots and seed, the same support and query images score every row:
the generated heads (chosen without the query images), and the rivals fitted on the same support.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch

from d2nwg.bundles import resolve_bundle
from d2nwg.conditions.encoders import load_encoder
from d2nwg.evaluate import accuracies, rivals
from d2nwg.generate import choose, load_pipeline, sample, set_aside
from d2nwg.images import ImageSet, load_images
from d2nwg.progress import TerminalProgress

ROWS = ("chosen", "average", "mean", "oracle_top3", "class_mean", "ridge", "logistic_regression", "random")
START, END = "<!-- measured -->", "<!-- /measured -->"


def episode(features, images: ImageSet, ways: int, shots: int, query: int, seed: int):
    """One task: ``ways`` random classes, ``shots`` support images of each, and up to ``query`` held-out ones."""
    rng = np.random.default_rng([seed, ways, shots])
    split = bool(images.is_test.any())
    picked = {"support": [], "query": []}
    for label, c in enumerate(rng.permutation(len(images.classes))[:ways]):
        own = np.flatnonzero(images.labels == c)
        train, test = rng.permutation(own[~images.is_test[own]]), rng.permutation(own[images.is_test[own]])
        held_out = test if split else train[shots:]
        picked["support"] += [(i, label) for i in train[:shots]]
        picked["query"] += [(i, label) for i in held_out[:query]]
    result = []
    for pairs in picked.values():
        index, labels = zip(*pairs, strict=True)
        result += [features[list(index)], torch.tensor(labels)]
    return result


def measure(pipe, features, images, ways, shots, seed, num_samples, query, steps) -> dict[str, float]:
    """Accuracy of every row on one task."""
    x, y, xq, yq = episode(features, images, ways, shots, query, seed)
    given, aside = set_aside(y, shots, seed)
    generator = torch.Generator().manual_seed(seed)
    samples = sample(pipe, [x[given][y[given] == c] for c in range(ways)], num_samples, generator, steps)
    state = {name: tensor.cpu() for name, tensor in samples.state.items()}
    chosen, average, _ = choose(state, x[aside], y[aside])
    scores = accuracies(state, xq, yq)
    one = {name: torch.stack([chosen[name], average[name]]) for name in chosen}
    best = accuracies(one, xq, yq)
    own = {
        "chosen": best[0],
        "average": best[1],
        "mean": scores.mean(),
        "oracle_top3": scores.topk(3).values.mean(),
    }
    others = rivals(x, y, xq, yq, mean=pipe.weight_space.mean.cpu(), seed=seed)
    return {name: float(value) for name, value in own.items()} | others


def interval(values: list[float]) -> float:
    """Half the 95 % interval of the mean."""
    return 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def table(results: list[dict]) -> str:
    """Markdown: mean accuracy in percent, and half the 95 % interval of `chosen`."""
    heads = ["data set", "way", "shots", *(r.replace("_", " ") for r in ROWS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in results:
        cells = [f"{100 * row['mean'][name]:.1f}" for name in ROWS]
        cells[0] += f" ± {100 * row['interval']['chosen']:.1f}"
        lines.append("| " + " | ".join([row["data"], str(row["ways"]), str(row["shots"]), *cells]) + " |")
    for shots in sorted({row["shots"] for row in results}):
        part = [row for row in results if row["shots"] == shots]
        cells = [f"**{100 * statistics.mean(row['mean'][name] for row in part):.1f}**" for name in ROWS]
        lines.append("| " + " | ".join(["**all of these**", "", str(shots), *cells]) + " |")
    return "\n".join(lines)


def write_card(bundle: Path, text: str) -> None:
    """Put the table into the bundle's README, in place of an earlier one."""
    card = bundle / "README.md"
    before, _, rest = card.read_text().partition(START)
    after = rest.partition(END)[2]
    card.write_text(f"{before.rstrip()}\n\n{START}\n{text}\n{END}\n{after.lstrip()}")


def main() -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--bundle")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--ways", type=int, nargs="+", default=[5, 10], help="besides all classes")
    parser.add_argument("--num-samples", type=int, default=50)
    parser.add_argument("--query", type=int, default=40, help="most held-out images a class")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--write-card", action="store_true", help="put the table into the bundle's README.md")
    args = parser.parse_args()
    bundle = resolve_bundle(args.bundle)
    pipe = load_pipeline(bundle)
    encoder = load_encoder(pipe.weight_space.config.encoder)
    progress, results = TerminalProgress(), []
    for source in args.data:
        images = load_images(source)
        features, readable = encoder.encode(images.items, progress=progress)
        assert readable.all()
        every = len(images.classes)
        for ways in sorted({w for w in args.ways if w < every} | {every}):
            for shots in args.shots:
                rows = []
                for seed in range(args.seeds):
                    rows.append(
                        measure(pipe, features, images, ways, shots, seed, args.num_samples, args.query, args.steps)
                    )
                    progress(f"{images.name}, {ways}-way, {shots} shots", seed + 1, args.seeds)
                columns = {name: [row[name] for row in rows] for name in ROWS}
                results.append(
                    {
                        "data": images.name,
                        "ways": ways,
                        "shots": shots,
                        "seeds": args.seeds,
                        "mean": {name: statistics.mean(column) for name, column in columns.items()},
                        "interval": {name: interval(column) for name, column in columns.items()},
                    }
                )
                Path(args.out).write_text(json.dumps({"arguments": vars(args), "results": results}, indent=1))
    command = (
        f"python -m benchmarks.unseen {' '.join(Path(d).name for d in args.data)} --bundle {bundle.name} "
        f"--seeds {args.seeds} --num-samples {args.num_samples}"
    )
    words = (
        f"## Accuracy on data sets never trained on\n\nPercent, mean of {args.seeds} seeds (± half the 95 % interval "
        f"of the mean), {args.num_samples} samples, at most {args.query} held-out images a class; every row sees "
        f"the same support and query images. `oracle top3` is the papers' protocol: it looks at the query images. "
        f"Command: `{command}`\n\n"
    )
    print(table(results))
    if args.write_card:
        write_card(bundle, words + table(results))


if __name__ == "__main__":
    main()
