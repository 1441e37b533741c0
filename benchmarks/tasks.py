"""Task identity as the condition: a zoo of whole small networks, bundles told the task by name, and three cases.

    python -m benchmarks.tasks gray-mnist.npz gray-notmnist.npz --out tasks-small-networks [--write-card]

Each archive holds x_train, y_train, x_test, y_test and class_names; scikit-learn's digits are always there too, tested
on the images of the app's example. The tasks of a set are its pictures as they are, turned by 45 and 90 degrees, and as
negatives. Networks are two-layer perceptrons on the pixels, from one common start, trained
all at once (one batched optimisation, no loop over networks). Then, on test images:

1. one seen task: a bundle that knows that task alone;
2. several seen tasks: one bundle for all of them;
3. unseen tasks: ids composed of seen ones, beside the same sums of the trained weights, and beside networks trained on
   the unseen task itself.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.unseen import write_between
from d2nwg.bundles import load_pipeline
from d2nwg.data.examples import scanned_digits
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.training.cards import this_command
from d2nwg.training.config import UNetConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.progress import TerminalProgress
from d2nwg.weights.networks import State, fold_projection, head_shapes, logits, pick
from d2nwg.weights.zoo import Zoo, ZooConfig, fit_projection, project

SIZE = 28
# What follows a set's name in the name of a task. A task is named as the example whose images it is for, if any.
SEEN = {"": (0, False), "-turned-45": (45, False), "-turned-90": (90, False), "-negative": (0, True)}
# name: (turn, negative, {seen task: share})
UNSEEN = {
    " turned 22": (22.5, False, {"": 0.5, "-turned-45": 0.5}),
    " turned 67": (67.5, False, {"-turned-45": 0.5, "-turned-90": 0.5}),
    " turned 45, from 0 and 90": (45, False, {"": 0.5, "-turned-90": 0.5}),
    " negative, turned 45": (45, True, {"-negative": 1.0, "-turned-45": 1.0, "": -1.0}),
}
SMALL = dict(
    patch=(8, 8, 8),
    latent_channels=4,
    unet_channels=(64,),
    condition_channels=16,
    vae_steps=600,
    align_steps=150,
    diffusion_steps=800,
    batch_size=32,
    ema=0.99,
    condition="task",
)


def digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits as such an archive: the app's example to test on, the other images to train on."""
    found = {"train": ([], []), "test": ([], [])}
    seen = dict.fromkeys(map(str, range(10)), 0)
    for label, image in scanned_digits(a_class=200):
        pictures, labels = found["test" if seen[label] < 60 else "train"]
        pictures.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        labels.append(int(label))
        seen[label] += 1
    arrays = {f"{xy}_{part}": np.array(found[part][i]) for part in found for i, xy in enumerate("xy")}
    return {**arrays, "class_names": np.array(list(seen))}


def change(pictures: np.ndarray, turn: float, negative: bool) -> Tensor:
    """(n, 28, 28) uint8 → (n, 784) grey values in [0, 1], turned counter-clockwise by degrees, as a negative."""
    x = torch.from_numpy(pictures.astype(np.float32) / 255)
    angle = torch.tensor(np.deg2rad(turn), dtype=torch.float32)
    grid = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])
    field = torch.nn.functional.affine_grid(grid.expand(1, 2, 3), (1, 1, SIZE, SIZE), align_corners=False)
    x = torch.nn.functional.grid_sample(x[:, None], field.expand(len(x), -1, -1, -1), align_corners=False)[:, 0]
    return (1 - x if negative else x).flatten(1)


def fit_networks(
    pools: list[Tensor],
    labels: list[Tensor],
    each: int,
    hidden: int,
    classes: int,
    *,
    steps: int,
    seed: int,
    checkpoints: int = 1,
    batch: int = 64,
    progress=None,
) -> State:
    """Train ``each`` networks on every pool (n, k), all at once; every network draws its own batches.

    All start from the same numbers: networks from different ones differ by permutations of their hidden units, which
    no average survives.

    Returns:
        heads (pools · each, checkpoints, …): ``0.weight`` (…, h, k), ``0.bias``, ``2.weight`` (…, C, h), ``2.bias``.
    """
    generator = torch.Generator().manual_seed(seed)
    count, size = len(pools) * each, min(map(len, pools))
    features, targets = torch.stack([x[:size] for x in pools]), torch.stack([y[:size] for y in labels])
    state = {}
    for name, shape in head_shapes("mlp", pools[0].shape[1], classes, hidden).items():
        start = (
            torch.zeros(shape) if name.endswith("bias") else torch.randn(shape, generator=generator) / shape[1] ** 0.5
        )
        state[name] = start.expand(count, *shape).clone().requires_grad_()
    optimiser = torch.optim.Adam(state.values(), lr=0.01, foreach=True)
    owner, kept = torch.arange(len(pools)).repeat_interleave(each)[:, None], []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * (1 - 0.9 * step / steps)
        rows = torch.randint(size, (count, batch), generator=generator)
        x, y = features[owner, rows], targets[owner, rows]
        # A sum over networks, so that each has its own gradient whatever the others.
        loss = torch.nn.functional.cross_entropy(logits(state, x).flatten(0, 1), y.flatten(), reduction="sum") / batch
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (last := steps - 1 - step) % 20 == 0 and last < 20 * checkpoints:
            kept.append({name: value.detach().clone() for name, value in state.items()})
        if progress and step % 20 == 0:
            progress("Training networks", step, steps)
    return {name: torch.stack([k[name] for k in kept], 1) for name in state}


class Tasks:
    """Pictures of every task, and the projection that all networks are learnt on."""

    def __init__(self, archives: list[Path], width: int, pool: int, test: int, seed: int):
        self.sets = {}
        rng = np.random.default_rng(seed)
        read = {"digits": digits(), **{path.stem.removeprefix("gray-"): np.load(path) for path in archives}}
        for name, data in read.items():
            # A pool as large as the others' of whatever there is.
            train = np.resize(rng.permutation(len(data["x_train"])), pool)
            held = rng.permutation(len(data["x_test"]))[:test]
            self.sets[name] = (
                data["x_train"][train],
                torch.from_numpy(data["y_train"][train].astype(np.int64)),
                data["x_test"][held],
                torch.from_numpy(data["y_test"][held].astype(np.int64)),
                [str(name) for name in data["class_names"]],
            )
        everything = torch.cat([change(x[:500], *how) for x, *_ in self.sets.values() for how in SEEN.values()])
        mean, projection = fit_projection(everything, width)
        self.images = {"mean": mean, "projection": projection}

    def train(self, name: str, how: tuple[float, bool]) -> tuple[Tensor, Tensor]:
        """Projected training pictures (n, k) and labels of a task."""
        x, y, *_ = self.sets[name]
        return project(change(x, *how), self.images), y

    def test(self, name: str, how: tuple[float, bool]) -> tuple[Tensor, Tensor]:
        """Pixels (m, 784) of the test pictures and labels."""
        _, _, x, y, _ = self.sets[name]
        return change(x, *how), y

    def ids(self, name: str, task: str) -> list[str]:
        """What the bundle is told of a seen task: its classes by name."""
        return [f"{name}{task}/{c}" for c in self.sets[name][4]]


def write_zoo(
    tasks: Tasks,
    seen: list[tuple[str, str]],
    networks: State,
    each: int,
    folder: Path,
    hidden: int,
    seed: int,
    images: int = 20,
) -> Zoo:
    """The networks of the seen tasks as a zoo, in random order, with some pictures of each class."""
    features, labels, accuracy, first = [], [], [], 0
    support = torch.full((len(seen), 10, images), -1)
    for number, (name, task) in enumerate(seen):
        x, y, *_, classes = tasks.sets[name]
        own = {n: t[number * each : (number + 1) * each].flatten(0, 1) for n, t in networks.items()}
        pixels, truth = tasks.test(name, SEEN[task])
        accuracy.append(accuracies(own, project(pixels, tasks.images), truth).reshape(each, -1))
        for c in range(len(classes)):
            own = torch.nonzero(y == c)[: 2 * images, 0]  # the second half scores the VAE
            features.append(change(x[own.numpy()], *SEEN[task]))
            labels.append(torch.full((len(own),), number * 10 + c))
            support[number, c] = torch.arange(first, first + images)
            first += len(own)
    count, checkpoints = next(iter(networks.values())).shape[:2]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    owner = torch.arange(count) // each
    config = ZooConfig(
        subsets=count,
        min_classes=10,
        max_classes=10,
        images=images,
        probe="mlp",
        hidden=hidden,
        width=len(tasks.images["projection"]),
        checkpoints=checkpoints,
        seed=seed,
    )
    folder.mkdir(parents=True)
    save_file(
        {"features": torch.cat(features).half(), "label": torch.cat(labels), **tasks.images},
        folder / "features.safetensors",
    )
    record = {name: value[order].contiguous() for name, value in networks.items()}
    classes = (owner * 10)[:, None] + torch.arange(10)
    save_file(
        {
            **record,
            "classes": classes[order].int().contiguous(),
            "support": support[owner][order].int().contiguous(),
            "accuracy": torch.cat(accuracy)[order].contiguous(),
        },
        folder / "records-00000.safetensors",
    )
    preprocessing = {"size": SIZE, "crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3}
    info = {
        "config": asdict(config),
        "encoder": f"pixels/{SIZE}",
        "preprocessing": preprocessing,
        "datasets": [{"name": f"{name}{task}", "classes": tasks.sets[name][4]} for name, task in seen],
        "num_images": first,
        "num_records": count,
        "command": this_command(),
    }
    (folder / "zoo.json").write_text(json.dumps(info, indent=1))
    return Zoo(folder)


def spread(values: Tensor) -> dict:
    """Mean and standard deviation of accuracies."""
    return {"mean": round(float(values.mean()), 4), "std": round(float(values.std(correction=0)), 4)}


def measure(pipe, ids: list[list[str]], shares, trained: State, x: Tensor, y: Tensor, samples: int, seeds: int) -> dict:
    """Accuracy on test pictures of trained networks (on pixels) and of sampled ones, seed by seed."""
    sampled = [pipe.for_tasks(ids, shares, samples, torch.Generator().manual_seed(seed)).state for seed in range(seeds)]
    one = torch.cat([accuracies(state, x, y) for state in sampled])
    mean = torch.cat([accuracies({n: t.mean(0, keepdim=True) for n, t in s.items()}, x, y) for s in sampled])
    flat = [torch.cat([t.flatten(1) for t in state.values()], 1) for state in (sampled[0], trained)]
    between = torch.cdist(flat[1], flat[1]).fill_diagonal_(torch.inf).min(1).values.mean()
    near = torch.cdist(flat[0], flat[1]).min(1).values.mean()
    return {
        "trained": spread(accuracies(trained, x, y)),
        "sampled": spread(one),
        "average of samples": spread(mean),
        "distance to the nearest trained, in units of that between trained ones": round(float(near / between), 3),
    }


def rows(results: dict) -> str:
    """Markdown: percent, mean ± standard deviation."""
    heads = ("trained on it", "sampled", "average of samples", "same sum of weights")
    lines = ["| case | task | " + " | ".join(heads) + " |", "|" + "---|" * 6]
    for case, tasks in results.items():
        for task, row in tasks.items():
            cells = [row.get(key) for key in ("trained", "sampled", "average of samples", "sum of weights")]
            shown = [f"{100 * c['mean']:.1f} ± {100 * c['std']:.1f}" if c else "" for c in cells]
            lines.append(f"| {case} | {task} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def where_it_fails(cases: dict) -> str:
    """The three cases in a sentence each, from the same numbers."""

    def gap(case: str, rival: str) -> float:
        found = [row["sampled"]["mean"] - row[rival]["mean"] for row in cases[case].values()]
        return 100 * sum(found) / len(found)

    one, several, unseen = cases
    worst, row = min(cases[unseen].items(), key=lambda item: item[1]["sampled"]["mean"] - item[1]["trained"]["mean"])
    return (
        f"One seen task: samples are {gap(one, 'trained'):+.1f} points from trained networks; several seen tasks "
        f"in one generator: {gap(several, 'trained'):+.1f} points on average. Ids composed of seen ones, for unseen "
        f"tasks: {gap(unseen, 'trained'):+.1f} points from networks trained on the task itself, "
        f"{gap(unseen, 'sum of weights'):+.1f} from the same sum of the trained weights, which needs no generator. "
        f"Worst is {worst}, with {row['sampled']['mean']:.1%} against {row['trained']['mean']:.1%}: composing works as "
        "far as the parts are alike."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Build the zoo, train the bundles, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path, help="the bundle to write")
    parser.add_argument("--each", type=int, default=40, help="networks a task")
    parser.add_argument("--fit-steps", type=int, default=400)
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--write-card", action="store_true")
    args = parser.parse_args(argv)
    config, pictures = UNetConfig(**SMALL), (4000, 1000)
    if args.smoke:
        args.each, args.fit_steps, args.samples, args.seeds, pictures = 8, 4, 3, 1, (400, 50)
        config = UNetConfig(**SMALL | dict(vae_steps=4, align_steps=4, diffusion_steps=4, batch_size=4))
    progress = TerminalProgress()
    tasks = Tasks(args.archives, args.width, *pictures, seed=0)
    seen = [(name, task) for name in tasks.sets for task in SEEN]
    fit = dict(each=args.each, hidden=args.hidden, classes=10, steps=args.fit_steps, seed=0, progress=progress)
    pools = [tasks.train(name, SEEN[task]) for name, task in seen]
    networks = fit_networks(*zip(*pools, strict=True), checkpoints=3, **fit)

    def on_pixels(state: State) -> State:
        return fold_projection(state, tasks.images["projection"], tasks.images["mean"])

    trained = {
        one: on_pixels(pick({n: t[:, -1] for n, t in networks.items()}, slice(i * args.each, (i + 1) * args.each)))
        for i, one in enumerate(seen)
    }
    cases = {"1 one seen task": {}, "2 several seen tasks": {}, "3 unseen, composed id": {}}
    with tempfile.TemporaryDirectory() as scratch:
        alone = {n: t[: args.each] for n, t in networks.items()}
        first = train_bundle(
            write_zoo(tasks, seen[:1], alone, args.each, Path(scratch) / "one", args.hidden, 0),
            config,
            Path(scratch) / "bundle-one",
            progress=progress,
        )
        zoo = write_zoo(tasks, seen, networks, args.each, Path(scratch) / "zoo", args.hidden, 0)
        train_bundle(zoo, config, args.out, progress=progress)
        how = dict(samples=args.samples, seeds=args.seeds)
        name, task = seen[0]
        cases["1 one seen task"][f"{name}{task}"] = measure(
            load_pipeline(first), [tasks.ids(name, task)], None, trained[seen[0]], *tasks.test(name, SEEN[task]), **how
        )
    pipe = load_pipeline(args.out)
    for name, task in seen:
        cases["2 several seen tasks"][f"{name}{task}"] = measure(
            pipe, [tasks.ids(name, task)], None, trained[name, task], *tasks.test(name, SEEN[task]), **how
        )
    unseen = [(name, task) for name in tasks.sets for task in UNSEEN]
    pools = [tasks.train(name, UNSEEN[task][:2]) for name, task in unseen]
    own = fit_networks(*zip(*pools, strict=True), **fit | dict(each=4))
    for i, (name, task) in enumerate(unseen):
        *to, shares = UNSEEN[task]
        x, y = tasks.test(name, to)
        ids = [tasks.ids(name, part) for part in shares]
        row = measure(
            pipe,
            ids,
            list(shares.values()),
            on_pixels(pick({n: t[:, -1] for n, t in own.items()}, slice(4 * i, 4 * i + 4))),
            x,
            y,
            **how,
        )
        row["sum of weights"] = spread(
            accuracies(
                {n: sum(s * trained[name, part][n] for part, s in shares.items()) for n in trained[seen[0]]}, x, y
            )
        )
        cases["3 unseen, composed id"][f"{name}{task}"] = row
    (args.out / "tasks.json").write_text(json.dumps(cases, indent=1))
    print(rows(cases))
    if args.write_card:
        names = " ".join(path.name for path in args.archives)
        write_between(
            args.out / "README.md",
            f"## Sampled against trained\n\nPercent of 1,000 test pictures (600 for digits), mean ± standard deviation "
            f"over networks ({args.each} trained, {args.samples} sampled from each of {args.seeds} seeds). Command: "
            f"`python -m benchmarks.tasks {names} --out {args.out.name} --write-card`\n\n{rows(cases)}\n\n"
            f"{where_it_fails(cases)}",
        )


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
