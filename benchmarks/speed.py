"""Speed, each measurement side by side with its rival in one run; writes JSON.

    python -m benchmarks.speed --zoo ZOO --data DATA --out SPEED.json [--only probes encoder sampling sampler]

Rivals take turns, and the medians over the repetitions are compared, so that a busy machine is unfair to none.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from benchmarks.unseen import episode
from d2nwg.bundles import resolve_bundle
from d2nwg.conditions.encoders import load_encoder
from d2nwg.evaluate import accuracies, logistic_regression_head, normalised
from d2nwg.generate import load_pipeline, sample
from d2nwg.images import load_images, open_image
from d2nwg.weights import zoo as zoos
from d2nwg.weights.probes import fit_linear, masked_accuracy


def medians(repetitions: int, **jobs: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each job; they take turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repetitions + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def probes(args) -> dict:
    """Probes a second: the batched optimisation against a loop of scikit-learn, on the same subsets and features."""
    zoo = zoos.Zoo(args.zoo)
    records = zoo.records(range(zoos.BATCH))
    count = int(records.counts[0])
    table, rng = zoo.class_images, np.random.default_rng(0)
    support, query = zoos._draw_images(records.classes[:, :count], table, zoo.config.images, rng)
    train, held_out = (zoos.gather_images(zoo.projected, chosen, "cpu") for chosen in (support, query))
    numbers = torch.full((zoos.BATCH,), count)
    few = 16  # problems that the loop solves each turn
    made = {}

    def ours():
        made["ours"] = fit_linear(*train, numbers, count, l2=zoo.config.l2, checkpoints=zoo.config.checkpoints)

    def loop(features):
        right = []
        for i in range(few):
            known, asked = train[2][i] > 0, held_out[2][i] > 0
            strength = 1 / (zoo.config.l2 * int(known.sum()))
            model = LogisticRegression(C=strength).fit(features(train, support, i, known), train[1][i][known])
            right.append(model.score(features(held_out, query, i, asked), held_out[1][i][asked]))
        made["loop"] = float(np.mean(right))

    full = zoo.images["features"].float()
    seconds = medians(
        args.repetitions,
        ours=ours,
        loop=lambda: loop(lambda part, chosen, i, rows: part[0][i][rows].numpy()),
        loop_full=lambda: loop(lambda part, chosen, i, rows: full[chosen[i].flatten()[rows]].numpy()),
    )
    last = {name: tensor[:, -1] for name, tensor in made["ours"].items()}
    loop(lambda part, chosen, i, rows: part[0][i][rows].numpy())
    return {
        "classes": count,
        "images_per_class": zoo.config.images,
        "probes_per_second": zoos.BATCH / seconds["ours"],
        "loop_per_second": few / seconds["loop"],
        "loop_1280_features_per_second": few / seconds["loop_full"],
        "ratio": zoos.BATCH / seconds["ours"] / (few / seconds["loop"]),
        "ratio_1280_features": zoos.BATCH / seconds["ours"] / (few / seconds["loop_full"]),
        "accuracy": float(masked_accuracy(last, *held_out, numbers)[:few].mean()),
        "loop_accuracy": made["loop"],
    }


def encoder(args) -> dict:
    """Images a second from 500-pixel JPEG files, against the bare forward pass on ready tensors."""
    network = load_encoder()
    images = load_images(args.data)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, item in enumerate(list(images.items)[:64]):
            files.append(Path(folder) / f"{number}.jpg")
            open_image(item).resize((500, 500), Image.Resampling.BICUBIC).save(files[-1], quality=90)
        ready = torch.from_numpy(np.stack([network.preprocess(file) for file in files]))
        ready = ((ready.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def bare(size):
            for part in ready.split(size):
                network.network(part)

        seconds = medians(
            args.repetitions,
            ours=lambda: network.encode(files, cache=False),
            same_batch=lambda: bare(network.batch_size),
            batch_32=lambda: bare(32),
        )
    rates = {name: len(files) / value for name, value in seconds.items()}
    return {
        "images_per_second": rates["ours"],
        "bare_per_second": rates["same_batch"],
        "bare_batch_32_per_second": rates["batch_32"],
        "ratio": rates["ours"] / rates["same_batch"],
    }


def _task(args, ways: int):
    pipe = load_pipeline(resolve_bundle(args.bundle))
    images = load_images(args.data)
    features, _ = load_encoder().encode(images.items)
    ways = min(ways, len(images.classes))
    x, y, xq, yq = episode(features, images, ways, 5, 40, seed=0)
    return pipe, [x[y == c] for c in range(ways)], (x, y, xq, yq), ways


def sampling(args) -> dict:
    """50 samples of a 10-class head against one tuned logistic regression on the same support."""
    pipe, by_class, (x, y, _, _), ways = _task(args, 10)
    z = normalised(x.numpy(), x.numpy().mean(0))
    seconds = medians(
        args.repetitions,
        samples=lambda: sample(pipe, by_class, 50, torch.Generator().manual_seed(0)),
        tuned=lambda: logistic_regression_head(z, y.numpy(), ways),
        plain=lambda: LogisticRegression(C=10.0).fit(z, y.numpy()),
    )
    return {"classes": ways, "seconds": seconds, "ratio_to_tuned": seconds["samples"] / seconds["tuned"]}


def sampler(args) -> dict:
    """The paper's 1024-step ancestral sampler against the default one: seconds, and accuracy of both."""
    pipe, by_class, (_, _, xq, yq), ways = _task(args, 10)
    result = {"classes": ways, "num_samples": 8}
    for name, steps in (("default", None), ("ancestral_1024", 1024)):
        started = time.perf_counter()
        state = sample(pipe, by_class, 8, torch.Generator().manual_seed(0), steps).state
        average = {key: tensor.mean(0, keepdim=True) for key, tensor in state.items()}
        result[name] = {
            "seconds": time.perf_counter() - started,
            "accuracy_average": float(accuracies(average, xq, yq)[0]),
            "accuracy_mean": float(accuracies(state, xq, yq).mean()),
        }
    return result


MEASUREMENTS = {job.__name__: job for job in (probes, encoder, sampling, sampler)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", help="a zoo, for `probes`")
    parser.add_argument("--data", default="example:digits", help="a data set, for the other three")
    parser.add_argument("--bundle")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    results = {"threads": torch.get_num_threads(), "processor": platform.processor() or platform.machine()}
    for name in args.only:
        results[name] = MEASUREMENTS[name](args)
        print(name, json.dumps(results[name], indent=1))
        Path(args.out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
