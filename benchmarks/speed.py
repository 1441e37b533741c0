"""Seconds, side by side in one run; writes JSON and prints the table.

    python -m benchmarks.speed [--only probes encoder heads classes sampler] [--zoo ZOO] [--images DIR] [--data DATA]
                               [--bundle BUNDLE] [--repeats N] [--smoke] [--out FILE.json]

- probes: probes a second of `zoo build` against a loop of scikit-learn's LogisticRegression on the same subsets.
- encoder: images a second from 500-pixel JPEG files against timm's bare forward pass on ready tensors.
- heads: 50 samples of a 10-class head against one tuned LogisticRegression on the same support.
- classes: seconds and memory of 50 samples against the number of classes, five images each (dual bundles).
- sampler: the 1024 ancestral steps of the paper against the default sampler, seconds and accuracy.

What is compared takes turns within each repetition, so that a busy machine slows all of it; numbers are medians. Every
baseline runs in each way it could (threads, batch sizes, memory layouts) and counts with its fastest.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from d2nwg.bundles import load_pipeline, resolve_bundle
from d2nwg.data.decode import open_image
from d2nwg.data.images import load_images
from d2nwg.data.split import split_support_query
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.images import EMBEDDED_WEIGHTS, load_encoder
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.baselines import logistic_regression_head, normalised
from d2nwg.evaluation.selection import choose
from d2nwg.pipelines import ANCESTRAL, DEFAULT, SAMPLERS
from d2nwg.pipelines.sampling import choose_sampler, sample_heads
from d2nwg.utils.devices import workers
from d2nwg.utils.progress import TerminalProgress, silent
from d2nwg.weights import build
from d2nwg.weights import zoo as zoos

PROBE_CLASSES = (2, 5, 8, 11, 14, 17, 20)  # stand for the zoo's uniform draw of 2 to 20
FITS = 4  # of the baseline a repetition and number of classes
BATCH_SIZES = (1, 8, 16, 32, 64)  # of the bare forward pass, besides the encoder's own
CLASSES = (2, 5, 10, 20, 50, 100, 200, 500, 1500)
PIXELS = 500  # longer side of the encoder's files


def seconds(work: Callable) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def thread_counts() -> list[int]:
    """One thread, and all of them: small problems often run faster on one."""
    return sorted({1, torch.get_num_threads()})


class Features:
    """Images as features, for the probes: those of a zoo, or of a data set encoded now."""

    def __init__(self, zoo: str | None, data: str):
        if zoo:
            opened = zoos.Zoo(zoo)
            self.images, sizes = opened.images, [len(d["classes"]) for d in opened.datasets]
        else:
            source = load_images(data)
            self.images = build.encode_sets([source], load_encoder(), zoos.ZooConfig(), TerminalProgress())
            sizes = [len(source.classes)]
        self.owner = np.repeat(np.arange(len(sizes)), sizes)
        self.full = self.images["features"].float()
        self.projected = zoos.project(self.full, self.images)
        self.table = zoos.class_table(self.images["label"], sum(sizes))


def measure_probes(args) -> dict:
    """Probes a second, a number a way of making them, and the accuracy of ours and the baseline on held-out images."""
    from sklearn.linear_model import LogisticRegression

    data, rng, progress = Features(args.zoo, args.data), np.random.default_rng(args.seed), TerminalProgress()
    counts = [c for c in PROBE_CLASSES if c <= np.bincount(data.owner).max()]
    times, right = defaultdict(lambda: defaultdict(list)), defaultdict(list)

    def fit(x, labels, l2):
        # scikit-learn fits one row w for two classes, whose penalty is half of that on (-w/2, w/2).
        strength = (2 if labels.max() == 1 else 1) / (l2 * len(labels))
        return LogisticRegression(C=strength, max_iter=1000).fit(x, labels)

    for repeat in range(args.repeats + 1):  # the first one warms up
        for count in counts:
            config = zoos.ZooConfig(min_classes=count, max_classes=count)
            again = copy.deepcopy(rng)  # draws the same subsets a second time, for the baseline
            call = (zoos.BATCH, data.projected, data.table, data.owner, config)
            started = time.perf_counter()
            with workers("cpu") as pool:
                made = build.train_batch(*call, rng, "cpu", pool)
            spent = {"ours": (time.perf_counter() - started) / zoos.BATCH}
            classes = build.draw_classes(zoos.BATCH, data.owner, config, again)
            support, query = build.draw_images(classes, data.table, config.images, again)
            assert torch.equal(made["support"].long(), support)
            labels = torch.arange(count)[:, None]
            tasks = []
            for some in (support[:FITS], query[:FITS]):
                tasks.append([(task[task >= 0], labels.expand_as(task)[task >= 0].numpy()) for task in some])
            for threads in thread_counts():
                with threadpool_limits(threads):
                    for name, features, number in (("projected", data.projected, FITS), ("full", data.full, 1)):
                        started = time.perf_counter()
                        heads = [fit(features[i].numpy(), y, config.l2) for i, y in tasks[0][:number]]
                        spent[f"{name}, {threads} threads"] = (time.perf_counter() - started) / number
                        if repeat and threads == 1 and name == "projected":
                            scores = [
                                h.score(features[i].numpy(), y) for h, (i, y) in zip(heads, tasks[1], strict=True)
                            ]
                            right["baseline"] += scores
                            right["ours"] += made["accuracy"][:FITS, -1].tolist()
            for name, value in spent.items() if repeat else ():
                times[name][count].append(value)
            progress("Probes", repeat * len(counts) + counts.index(count) + 1, (args.repeats + 1) * len(counts))
    each = {name: {c: statistics.median(v) for c, v in by_count.items()} for name, by_count in times.items()}
    rate = {name: 1 / statistics.mean(by_count.values()) for name, by_count in each.items()}
    best = {kind: max(v for n, v in rate.items() if n.startswith(kind)) for kind in ("projected", "full")}
    return {
        "probes_per_second": rate,
        "seconds_per_probe_by_classes": each,
        "ratio_projected": rate["ours"] / best["projected"],
        "ratio_full": rate["ours"] / best["full"],
        "accuracy": {name: statistics.mean(v) for name, v in right.items()},
        "goal": 50,
    }


def write_photographs(folder: Path, source: str | None, number: int, seed: int) -> list[Path]:
    """JPEG files whose longer side is `PIXELS`: from a folder of images, or crops of scikit-learn's two photographs."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    if source:
        found = sorted(p for p in Path(source).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        pictures = [open_image(found[i]) for i in rng.integers(len(found), size=number)]
    else:
        from sklearn.datasets import load_sample_images

        both = [Image.fromarray(a) for a in load_sample_images().images]
        pictures = []
        for i in range(number):
            whole, width, height = both[i % 2], int(rng.integers(300, 600)), int(rng.integers(250, 400))
            left, top = rng.integers(whole.width - width), rng.integers(whole.height - height)
            pictures.append(whole.crop((left, top, left + width, top + height)))
    paths = []
    for i, picture in enumerate(pictures):
        scale = PIXELS / max(picture.size)
        paths.append(folder / f"{i:04d}.jpg")
        picture.resize([round(scale * s) for s in picture.size], Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def bare_network(encoder: Encoder) -> torch.nn.Module:
    """The encoder's network as timm makes it."""
    import timm

    model = encoder.name.partition("/")[2]
    network = timm.create_model(model, pretrained=model not in EMBEDDED_WEIGHTS, num_classes=0)
    return network.eval().requires_grad_(False)


def measure_encoder(args) -> dict:
    """Images a second of `Encoder.encode` from files, of the bare forward pass, and of decoding and resizing alone."""
    encoder, progress, times = load_encoder(args.encoder, "cpu"), TerminalProgress(), defaultdict(list)
    size, network = encoder.preprocessing["size"], bare_network(encoder)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths = write_photographs(Path(folder), args.images, args.num_images, args.seed)
        ready = torch.randn(args.num_images, 3, size, size)

        def forward(x, batch):
            for part in x.split(batch):
                network(part)

        for repeat in range(args.repeats + 1):
            spent = {"ours": seconds(lambda: encoder.encode(paths, cache=False))}
            for layout in (torch.channels_last, torch.contiguous_format):
                network.to(memory_format=layout)
                x = ready.contiguous(memory_format=layout)
                for batch in sorted({*BATCH_SIZES, encoder.batch_size}):
                    spent[f"{str(layout)[6:]}, {batch}"] = seconds(lambda x=x, batch=batch: forward(x, batch))
            spent["reading alone, one thread"] = seconds(lambda: [encoder.preprocess(p) for p in paths])
            for name, value in spent.items() if repeat else ():
                times[name].append(args.num_images / value)
            progress("Encoder", repeat + 1, args.repeats + 1)
    rate = {name: statistics.median(v) for name, v in times.items()}
    bare = {name: v for name, v in rate.items() if name[:4] in ("chan", "cont")}
    same = max(v for name, v in bare.items() if name.endswith(f" {encoder.batch_size}"))
    best = max(bare, key=bare.get)
    return {
        "images_per_second": rate,
        "batch_size": encoder.batch_size,
        "ratio_same_batch": rate["ours"] / same,
        "best_batch": best,
        "ratio_best_batch": rate["ours"] / bare[best],
        "goal": 0.8,
    }


class Task:
    """Ten classes (or all, if fewer) of a data set, five shots: support by class, and query images."""

    def __init__(self, args):
        self.pipe = load_pipeline(resolve_bundle(args.bundle), "cpu")
        images = load_images(args.data)
        encoder = load_encoder(self.pipe.weight_space.config.encoder, "cpu")
        support, query = split_support_query(images, 5, seed=args.seed)
        self.name, self.ways = images.name, min(10, len(images.classes))
        parts = []
        for index in (support, query):
            index = index[images.labels[index] < self.ways]
            parts += [encoder.encode([images.items[i] for i in index])[0], torch.from_numpy(images.labels[index])]
        self.x, self.y, self.query, self.query_labels = parts
        self.by_class = [self.x[self.y == c] for c in range(self.ways)]

    def samples(self, seed: int, sampler: str = DEFAULT, steps: int | None = None, progress=silent):
        """50 heads from a sampler (`choose_sampler`)."""
        pipe, steps = choose_sampler(self.pipe, sampler, steps)
        return sample_heads(pipe, self.by_class, 50, torch.Generator().manual_seed(seed), steps, progress).state


def measure_heads(args) -> dict:
    """Seconds of 50 samples, and of one tuned and one plain logistic regression."""
    from sklearn.linear_model import LogisticRegression

    task, times, progress = Task(args), defaultdict(list), TerminalProgress()
    y = task.y.numpy()
    x = normalised(task.x.numpy(), task.pipe.weight_space.mean.numpy())
    for repeat in range(args.repeats + 1):
        spent = {}
        for threads in thread_counts():
            with threadpool_limits(threads):
                spent[f"ours, {threads} threads"] = seconds(lambda repeat=repeat: task.samples(repeat))
                spent[f"tuned, {threads} threads"] = seconds(lambda: logistic_regression_head(x, y, task.ways))
                spent[f"plain, {threads} threads"] = seconds(lambda: LogisticRegression(C=10, max_iter=1000).fit(x, y))
        for name, value in spent.items() if repeat else ():
            times[name].append(value)
        progress("Heads", repeat + 1, args.repeats + 1)
    took = {name: statistics.median(v) for name, v in times.items()}
    ours, tuned, plain = (min(v for n, v in took.items() if n.startswith(k)) for k in ("ours", "tuned", "plain"))
    return {
        "data": task.name,
        "classes": task.ways,
        "seconds": took,
        "ours": ours,
        "times_one_tuned_fit": ours / tuned,
        "times_one_plain_fit": ours / plain,
    }


def measure_classes(args) -> dict:
    """Seconds of 50 samples for ever more classes of made-up features, 1,280 wide, and the process's peak memory."""
    import resource

    pipe, result = load_pipeline(resolve_bundle(args.bundle), "cpu"), {}
    generator = torch.Generator().manual_seed(args.seed)
    numbers = CLASSES[:2] if args.smoke else CLASSES
    for classes in numbers if pipe.max_classes is None else ():
        centres = torch.randn(classes, 1, 1280, generator=generator)
        support = list(5 + centres + torch.randn(classes, 5, 1280, generator=generator))
        spent = [
            seconds(lambda s=support: sample_heads(pipe, s, 50, generator)) for _ in range(3 if classes < 500 else 1)
        ]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        result[classes] = {"seconds": min(spent), "peak_gib": round(peak, 2)}
        TerminalProgress()(f"{classes} classes", len(result), len(numbers))
    if args.figure and result:
        import plotly.graph_objects as go

        figure = go.Figure(go.Scatter(x=list(result), y=[r["seconds"] for r in result.values()], mode="lines+markers"))
        figure.update_xaxes(type="log", title="classes, five images each", dtick=1)
        figure.update_yaxes(type="log", title="seconds", dtick=1)
        title = "What do fifty samples cost as classes become more?"
        figure.update_layout(title=title, template="simple_white", colorway=["#009e73"])
        figure.write_html(args.figure)
    return result


def measure_sampler(args) -> dict:
    """Seconds and query accuracy of the default sampler and of the paper's, on the same support and seeds."""
    task, result = Task(args), {}
    steps = {name: choose_sampler(task.pipe, name)[1] for name in SAMPLERS}
    if args.smoke:
        steps[ANCESTRAL] = 2
    scores, times = defaultdict(lambda: defaultdict(list)), defaultdict(list)
    task.samples(0)  # warms up
    for seed in range(args.sampler_repeats):
        for name, number in steps.items():
            started = time.perf_counter()
            state = task.samples(seed, name, number, TerminalProgress())
            times[name].append(time.perf_counter() - started)
            average = choose(state, task.x[:0], task.y[:0]).average
            each = accuracies(state, task.query, task.query_labels)
            one = accuracies({n: t[None] for n, t in average.items()}, task.query, task.query_labels)
            scores[name]["average"].append(float(one))
            scores[name]["mean"].append(float(each.mean()))
    for name in steps:
        accuracy = {row: statistics.mean(v) for row, v in scores[name].items()}
        result[name] = {"seconds": statistics.median(times[name]), "accuracy": accuracy}
    return {
        "data": task.name,
        "seeds": args.sampler_repeats,
        "steps": steps,
        **result,
    }


def machine() -> dict:
    """What the numbers were measured on."""
    import sklearn
    import timm

    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{m.__name__: m.__version__ for m in (torch, timm, sklearn)},
    }


def table(results: dict) -> str:
    """Markdown: what, ours, the baseline, ratio."""
    rows = []
    if (r := results.get("probes")) is not None:
        rate = {
            k: max(v for n, v in r["probes_per_second"].items() if n.startswith(k)) for k in ("ours", "proj", "full")
        }
        right = r["accuracy"]
        rows += [
            (
                "probes a second of `zoo build`, against a loop of LogisticRegression on the same subsets and "
                f"128 features (right on {right['ours']:.1%} and {right['baseline']:.1%} of held-out images)",
                f"{rate['ours']:.0f}",
                f"{rate['proj']:.1f}",
                f"{r['ratio_projected']:.0f}×",
            ),
            (
                "the same, against the loop on all 1,280 features",
                f"{rate['ours']:.0f}",
                f"{rate['full']:.1f}",
                f"{r['ratio_full']:.0f}×",
            ),
        ]
    if (r := results.get("encoder")) is not None:
        ours, rates = r["images_per_second"]["ours"], r["images_per_second"]
        rows += [
            (
                f"images a second from {PIXELS}-pixel JPEG files, against the bare forward pass on ready tensors, "
                f"{r['batch_size']} at a time",
                f"{ours:.0f}",
                f"{ours / r['ratio_same_batch']:.0f}",
                f"{r['ratio_same_batch']:.0%}",
            ),
            (
                f"the same, against its fastest batch ({r['best_batch'].replace('_', ' ')})",
                f"{ours:.0f}",
                f"{rates[r['best_batch']]:.0f}",
                f"{r['ratio_best_batch']:.0%}",
            ),
        ]
    if (r := results.get("heads")) is not None:
        for kind in ("tuned", "plain"):
            ours, ratio = r["ours"], r[f"times_one_{kind}_fit"]
            rows.append(
                (
                    f"seconds for 50 samples of a {r['classes']}-class head, against one {kind} LogisticRegression",
                    f"{ours:.2f}",
                    f"{ours / ratio:.3f}",
                    f"{ratio:.1f}×",
                )
            )
    if r := results.get("classes"):
        times = ", ".join(f"{n} classes {v['seconds']:.2f} s" for n, v in r.items() if n in (10, 100, 500, 1500))
        most = max(v["peak_gib"] for v in r.values())
        rows.append((f"50 samples for ever more classes, five images each: {times}", "", "", f"{most:.1f} GiB at most"))
    if (r := results.get("sampler")) is not None:
        fast, slow = r["default"], r["ancestral"]
        cells = [
            f"{v['seconds']:.1f} s, right on {v['accuracy']['average']:.1%} (one sample {v['accuracy']['mean']:.1%})"
            for v in (fast, slow)
        ]
        rows.append(
            (
                f"{r['steps']['default']} steps of the default sampler, against {r['steps']['ancestral']} ancestral "
                f"ones, on {r['data']}",
                *cells,
                f"{slow['seconds'] / fast['seconds']:.0f}× faster",
            )
        )
    return "\n".join(
        ["| what | ours | baseline | ratio |", "|---|---|---|---|", *("| " + " | ".join(r) + " |" for r in rows)]
    )


MEASURES = {
    "probes": measure_probes,
    "encoder": measure_encoder,
    "heads": measure_heads,
    "classes": measure_classes,
    "sampler": measure_sampler,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is asked for, print the table, and write the JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--zoo", help="whose images the probes are trained on (otherwise those of --data)")
    parser.add_argument("--data", default="example:digits", help="the task of heads and sampler (example:digits)")
    parser.add_argument("--images", help="a folder of images to make the encoder's files from (two photographs)")
    parser.add_argument("--num-images", type=int, default=256)
    parser.add_argument("--encoder", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--bundle")
    parser.add_argument("--figure", help="an HTML file for the cost against the number of classes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sampler-repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--out")
    args = parser.parse_args(argv)
    if args.smoke:
        args.repeats, args.sampler_repeats, args.num_images = 1, 1, 4
    results = {"machine": machine(), "arguments": vars(args)}
    for name in args.only:
        results[name] = MEASURES[name](args)
        if args.out:
            Path(args.out).write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
