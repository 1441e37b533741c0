"""Whole networks: fifty small ones are trained, imported as one zoo, learnt, and sampled again.

    python -m benchmarks.whole_models gray-mnist.npz gray-notmnist.npz --out whole.json

Two architectures (one with BatchNorm) × the data sets × seeds. An .npz holds x_train, y_train, x_test, y_test: grey
images of 28 × 28 pixels, ten classes. Each row is the accuracy on test images that nothing was trained on:

- *zoo*: the networks that were imported. *reconstructed*: the same through the VAE; *aside*: those it never saw.
- *sampled*: from noise. *around*: from zoo members noised to a third of the steps.
- *recalibrated*: samples whose BatchNorm statistics are measured again on 512 training images.
- *average*: of the zoo's weights. *zoo + noise*: members moved, at random, as far as the samples are from theirs.
"""

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from d2nwg.bundles import load_bundle
from d2nwg.training.config import NetworksConfig
from d2nwg.training.networks import NetworkBatches
from d2nwg.training.run import train_bundle
from d2nwg.training.settings import changed, split_setting
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.layouts import recalibrate
from d2nwg.weights.model_zoo import ModelZoo

ARCHITECTURES = ("plain", "batchnorm")


def network(architecture: str) -> nn.Module:
    """Two convolutions and a linear layer, about 4,000 numbers."""
    norm = architecture == "batchnorm"
    first, second = (8, 16) if norm else (10, 18)
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, first, 3, stride=2), nn.BatchNorm2d(first) if norm else nn.Identity(), nn.ReLU(),
        nn.Conv2d(first, second, 3), nn.BatchNorm2d(second) if norm else nn.Identity(), nn.ReLU(),
        nn.Flatten(), nn.Linear(second * 16, 10),
    )  # fmt: skip


def read(path: Path) -> dict[str, Tensor]:
    """Images (n, 1, 28, 28) of zero mean and unit spread, and labels; at most 8,000 and 2,000."""
    data = np.load(path)
    found = {}
    for part, most in (("train", 8000), ("test", 2000)):
        images = torch.from_numpy(data[f"x_{part}"][:most]).float().div(255).unsqueeze(1)
        found[f"x_{part}"] = (images - 0.3) / 0.35
        found[f"y_{part}"] = torch.from_numpy(data[f"y_{part}"][:most]).long()
    return found


def train(architecture: str, data: dict[str, Tensor], seed: int, start: int, epochs: int) -> nn.Module:
    """One network: its start from one seed, the order of its batches from another."""
    torch.manual_seed(start)
    made = network(architecture)
    torch.manual_seed(seed)
    optimiser = torch.optim.Adam(made.parameters(), 3e-3)
    size, batch = len(data["x_train"]), 100
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=epochs * (size // batch))
    for _ in range(epochs):
        for rows in torch.randperm(size).split(batch):
            optimiser.zero_grad()
            functional.cross_entropy(made(data["x_train"][rows]), data["y_train"][rows]).backward()
            optimiser.step()
            schedule.step()
    return made.eval()


@torch.no_grad()
def accuracy(architecture: str, state: dict, data: dict, again: bool = False) -> float:
    """Of one state dict on the test images."""
    made = network(architecture)
    made.load_state_dict(state)
    if again:
        recalibrate(made, data["x_train"][:512].split(128))
    return float((made.eval()(data["x_test"]).argmax(1) == data["y_test"]).float().mean())


def train_zoo(sets: dict, folder: Path, count: int, epochs: int, starts: str) -> None:
    """The folder of checkpoints with ``scores.csv``, as a person might have it."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(count):
        architecture, task = ARCHITECTURES[number % 2], list(sets)[number // 2 % len(sets)]
        start = number if starts == "own" else 0
        made = train(architecture, sets[task], 1000 + number, start, epochs)
        name = f"{architecture}-{task}-{number:02}.safetensors"
        save_file(made.state_dict(), folder / name)
        rows.append([name, task, accuracy(architecture, made.state_dict(), sets[task]), epochs])
    with (folder / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "task", "accuracy", "epoch"], *rows])


@torch.no_grad()
def measure(zoo: ModelZoo, bundle: Path, sets: dict, samples: int) -> list[dict]:
    """One dict of accuracies (means) an architecture and task."""
    pipe = load_bundle(bundle)
    pipe.set_progress_bar_config(disable=True)
    space, rows = pipe.weight_space, []
    data = NetworkBatches(zoo, space, torch.device("cpu"))
    for number, told in enumerate(space.config.architectures):
        architecture = next(name for name in ARCHITECTURES if told["name"].startswith(name))
        for task in space.config.tasks:
            member = space.member(number, task)

            def scored(vectors: Tensor, again=False, architecture=architecture, task=task, number=number) -> float:
                state = space.to_states(vectors, number)
                rights = [accuracy(architecture, {n: t[i] for n, t in state.items()}, sets[task], again)
                          for i in range(len(vectors))]  # fmt: skip
                return float(np.mean(rights))

            mine = [int(i) for i in data.train if torch.equal(data.members[i], member)]
            aside = [i for i in data.aside if torch.equal(data.members[i], member)]
            vectors = data.batch(mine).vectors
            through = pipe.vae.decode(pipe.vae.encode(vectors).mean)
            row = {"architecture": architecture, "task": task, "members": len(mine),
                   "zoo": scored(vectors), "reconstructed": scored(through)}  # fmt: skip
            if aside:
                kept = data.batch(aside).vectors
                row["aside"] = scored(kept)
                row["aside, reconstructed"] = scored(pipe.vae.decode(pipe.vae.encode(kept).mean))
            for name, around in (("sampled", None), ("around", 0.33)):
                made = pipe(number, task, samples, torch.Generator().manual_seed(0), around=around)
                drawn = space.to_vectors(made.state, number)
                row[name] = scored(drawn)
                if architecture == "batchnorm":
                    row[f"{name}, recalibrated"] = scored(drawn, again=True)
                far, nearest = torch.cdist(drawn, vectors).min(1)
                row[f"{name}: members it is near to"] = len(nearest.unique())
                between = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf).min(1).values.median()
                row[f"{name}: distance to the nearest / between neighbours"] = float(far.median() / between)
                spreads = [float((v - v.mean(0)).square().sum(1).mean().sqrt()) for v in (drawn, vectors)]
                row[f"{name}: spread, as a share of the members'"] = spreads[0] / spreads[1]
                noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(1)) * data.batch(mine[:1]).mask
                moved = vectors[nearest] + noise * (far / noise.norm(dim=1)).unsqueeze(1)
                row[f"zoo + noise as far as {name}"] = scored(moved)
            row["average"] = scored(vectors.mean(0, keepdim=True))
            rows.append({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Train, import, learn, sample, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="one .npz a task")
    parser.add_argument("--count", type=int, default=50, help="networks (50)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--starts", default="own", choices=("own", "common"), help="a start each, or one for all (own)")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of `train`")
    parser.add_argument("--work", type=Path, default=Path("whole-models"), help="folder for checkpoints and bundle")
    parser.add_argument("--out", help="JSON to write")
    args = parser.parse_args(argv)
    sets = {path.stem.removeprefix("gray-"): read(path) for path in args.data}
    if not (args.work / "zoo").exists():
        train_zoo(sets, args.work / "checkpoints", args.count, args.epochs, args.starts)
        made = import_checkpoints(args.work / "checkpoints", args.work / "zoo")
        print(f"{len(made.records)} imported, {len(made.refused)} refused", flush=True)
    zoo, started = ModelZoo(args.work / "zoo"), time.monotonic()
    print(json.dumps(zoo.summary(), indent=1), flush=True)
    config = changed(NetworksConfig(), dict(split_setting(text) for text in args.set))
    bundle = args.work / f"bundle-{int(time.time())}"
    train_bundle(zoo, config, bundle, device="cpu")
    seconds = round(time.monotonic() - started)
    lost = json.loads((bundle / "training.json").read_text())["measured"]
    rows = measure(zoo, bundle, sets, args.samples)
    print(f"trained in {seconds} s; {lost}")
    for name in dict.fromkeys(name for row in rows for name in row):
        print(f"{name:60}", *(f"{row.get(name, '–'):>12}" for row in rows))
    if args.out:
        result = {"starts": args.starts, "seconds": seconds, "measured": lost, "rows": rows}
        Path(args.out).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
