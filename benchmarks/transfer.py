"""ResNets of CIFAR-10: one generator rebuilds several, and another makes the layers of architectures it has not seen.

    python -m benchmarks.transfer resnet{32,20,44,56}.th --images cifar10.npz --out transfer.json

Checkpoints are state dicts of the CIFAR ResNets of He et al. (2016) without parameters in their shortcuts (option A);
they take pixels normalised by ImageNet's mean and standard deviation. Every accuracy is on the test images.

1. *Reconstruction.* All checkpoints are one zoo, one of each architecture, in the layout ``independent``. Samples stand
   beside the checkpoints, and beside these with noise as large as the samples are away from them.
2. *Transfer.* A generator that knows the first checkpoint alone makes the layers of each other architecture, from those
   of the same type and the nearest relative depth. Its starts stand beside random ones, and beside the matching layers
   themselves, copied, before a step, with and without recalibrated BatchNorm statistics, and after some steps.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from d2nwg.bundles import load_bundle
from d2nwg.data.arrays import load_arrays, to_channels
from d2nwg.training.config import NetworksConfig
from d2nwg.training.run import train_bundle
from d2nwg.training.settings import changed, split_setting
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import TerminalProgress
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.layer_types import copy_matching
from d2nwg.weights.layouts import recalibrate
from d2nwg.weights.model_zoo import ModelZoo, without_prefix
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import logits_of, stack_states, train_networks
from d2nwg.weights.statefiles import read_checkpoint

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the checkpoints were trained
BATCH, VALIDATION, CALIBRATION = 128, 1000, 512
ARMS = {  # in the order of the table
    "random": "random",
    "copy": "matching layers, copied",
    "noise": "the copy + noise as large as the sample's",
    "sample": "assembled from samples",
    "own": "its own checkpoint",
}
TUNED = ("random", "copy", "sample")  # are trained for some steps
FIXED = ("copy", "own")  # are the same for all seeds


class Block(nn.Module):
    """Two 3×3 convolutions with BatchNorm; where shapes change, the shortcut drops pixels and adds empty channels."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.stride, self.empty = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(
            y + functional.pad(shortcut, (0, 0, 0, 0, self.empty // 2, self.empty - self.empty // 2))
        )


class CifarResNet(nn.Module):
    """Pixels (B, 3, s, s) → logits (B, C).

    Args:
        blocks: in each of the three stages; ResNet-20 has 3.
        widths: channels of the stages.
        classes: C.
    """

    def __init__(self, blocks: int, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        stages, before = [], widths[0]
        for number, width in enumerate(widths):
            rows = [Block(before, width, 2 if number else 1), *(Block(width, width, 1) for _ in range(blocks - 1))]
            stages.append(nn.Sequential(*rows))
            before = width
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    @classmethod
    def like(cls, state: State) -> "CifarResNet":
        """The architecture of a state dict."""
        blocks = sum(name.startswith("layer1.") and name.endswith(".conv1.weight") for name in state)
        first, second, third = (len(state[f"layer{stage}.0.conv1.weight"]) for stage in (1, 2, 3))
        return cls(blocks, (first, second, third), len(state["linear.bias"]))

    @classmethod
    def random(cls, state: State, seed: int) -> State:
        """Random weights of the architecture of a state dict, and no other tensors than it has."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = cls.like(state).state_dict()
        return {name: made[name] for name in state}


class Images:
    """Normalised images and labels, float32 in channels_last: ``train``, ``validation`` (of the training part) and
    ``test``; and ``calibration`` images for BatchNorm."""

    def __init__(self, path: Path):
        data = load_arrays(path, size=32)
        self.parts, order = {}, torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
        aside = min(VALIDATION, len(order) // 5)
        train, labels = self._normalised(data.train), torch.from_numpy(data.train_labels).long()
        self.parts["validation"] = train[order[:aside]], labels[order[:aside]]
        self.parts["train"] = train[order[aside:]], labels[order[aside:]]
        self.parts["test"] = self._normalised(data.test), torch.from_numpy(data.test_labels).long()
        self.calibration = self.parts["train"][0][:CALIBRATION].split(256)

    @staticmethod
    def _normalised(images) -> Tensor:
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
        pixels = to_channels(torch.from_numpy(images), 3).float()
        return ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def said(self, state: State, part: str = "test") -> Tensor:
        """What a network says of each image of a part, (n,)."""
        one = {name: value.unsqueeze(0) for name, value in state.items()}
        module = CifarResNet.like(state).to(memory_format=torch.channels_last)
        return logits_of(module, one, self.parts[part][0].unsqueeze(0))[0].argmax(-1)

    def right(self, state: State, part: str = "test") -> float:
        """The fraction of a part's images that a network is right on."""
        return share(self.said(state, part) == self.parts[part][1])

    def recalibrated(self, state: State) -> State:
        """The network with BatchNorm statistics measured on training images."""
        module = CifarResNet.like(state)
        module.load_state_dict(state)
        return recalibrate(module.to(memory_format=torch.channels_last), self.calibration).state_dict()

    def tuned(self, states: list[State], rates: list[float], seed: int, steps: int) -> list[State]:
        """Networks of one architecture after so many steps of training (Adam), each with its learning rate; all see the
        same images."""
        images, labels = (part.unsqueeze(0) for part in self.parts["train"])
        module, seeds = CifarResNet.like(states[0]), [seed] * len(states)
        trained = train_networks(
            module, stack_states(states), images, labels, steps=steps, batch_size=BATCH, lr=rates, seeds=seeds
        )
        return [pick(trained, number) for number in range(len(states))]


def share(right: Tensor) -> float:
    """The fraction of (n,) bool that is True."""
    return round(float(right.float().mean()), 5)


def weights(state: State) -> dict[str, Tensor]:
    """The tensors that hold weights, without BatchNorm statistics and counters."""
    return {n: v for n, v in state.items() if v.is_floating_point() and "running" not in n}


def apart(state: State, other: State) -> float:
    """Distance of the weights of one network from another's, as a share of the length of the other's."""
    pairs = [(state[name], value) for name, value in weights(other).items()]
    distance = sum(float((one - two).square().sum()) for one, two in pairs)
    return round((distance / sum(float(two.square().sum()) for _, two in pairs)) ** 0.5, 5)


def noisy(state: State, sample: State, seed: int) -> State:
    """A network moved at random, each weight tensor as far as that of the sample is from it."""
    generator, moved = torch.Generator().manual_seed(seed), dict(state)
    for name, value in weights(state).items():
        noise = torch.randn(value.shape, generator=generator)
        moved[name] = value + noise * ((sample[name] - value).norm() / noise.norm())
    return moved


def learn(files: list[Path], config: NetworksConfig, work: Path, progress) -> tuple[ModelZoo, Path]:
    """A zoo of these checkpoints, and a bundle of a generator that was trained on it; what is there is used again."""
    if not (work / "zoo").exists():
        made = import_checkpoints(files, work / "zoo")
        if made.refused:
            raise SystemExit(f"Not imported: {made.refused}")
    zoo = ModelZoo(work / "zoo")
    if not (work / "bundle").exists():
        unfinished = (work / "bundle.training" / "config.json").exists()
        train_bundle(zoo, config, work / "bundle", device="cpu", resume=unfinished, progress=progress)
    return zoo, work / "bundle"


def reconstruction(zoo: ModelZoo, bundle: Path, images: Images, samples: int) -> list[dict]:
    """One row a checkpoint: its accuracy, those of samples of its architecture, and how far they are from it."""
    pipe, rows = load_bundle(bundle), []
    for number, (record, *_) in enumerate(zoo.architectures().values()):
        own = zoo.plain_state(record)
        drawn = pipe(number, num_samples=samples, generator=torch.Generator().manual_seed(0)).states()
        said, labels = images.said(own), images.parts["test"][1]
        row = {"checkpoint": zoo.records[record]["name"], "numbers": sum(v.numel() for v in weights(own).values())}
        row |= {"images": len(said), "own": share(said == labels), "distance": [apart(state, own) for state in drawn]}
        for name, states in (("sampled", drawn), ("noise", [noisy(own, state, i) for i, state in enumerate(drawn)])):
            theirs = [images.said(state) for state in states]
            row[name] = [share(one == labels) for one in theirs]
            row[f"{name}_disagree"] = [int((one != said).sum()) for one in theirs]
        row["recalibrated"] = [images.right(images.recalibrated(state)) for state in drawn]
        rows.append(row)
    return rows


def starts(pipe, source: State, own: State, seed: int) -> dict[str, State]:
    """Each arm's network for the architecture of ``own``."""
    copied = copy_matching(source, own)
    sample = pick(pipe.assemble(own, generator=torch.Generator().manual_seed(seed)), 0)
    return {
        "random": CifarResNet.random(own, seed),
        "copy": copied,
        "noise": noisy(copied, sample, seed),
        "sample": sample,
        "own": own,
    }


def transfer(bundle: Path, source: State, targets: dict[str, State], images: Images, args, result: dict, save) -> None:
    """One row an architecture, seed and arm, appended to ``result["transfer"]``: accuracy without a step, and after
    some. What is there already is not measured again, nor what no seed changes."""
    pipe, rows = load_bundle(bundle), result["transfer"]
    for seed in range(args.seeds):
        for name, own in targets.items():
            if any((row["target"], row["seed"]) == (name, seed) for row in rows):
                continue
            arms = starts(pipe, source, own, seed)
            found = {arm: {"target": name, "seed": seed, "arm": arm, "steps": args.steps} for arm in arms}
            for arm, state in arms.items():
                found[arm]["distance"] = apart(state, arms["copy"])
                if arm not in FIXED or not seed:
                    found[arm]["zero"] = images.right(state)
                    found[arm]["recalibrated"] = images.right(images.recalibrated(state))
            if args.steps:
                if "rates" not in result:  # chosen on the first target and seed, for all
                    result["rates"] = best_rates(arms, images, args, seed)
                rates = [result["rates"][arm] for arm in TUNED]
                after = images.tuned([arms[arm] for arm in TUNED], rates, seed, args.steps)
                for arm, state in zip(TUNED, after, strict=True):
                    # of the start's running statistics a part is left after few steps
                    found[arm]["tuned"] = images.right(images.recalibrated(state))
            rows += found.values()
            save()


def best_rates(arms: dict[str, State], images: Images, args, seed: int) -> dict[str, float]:
    """For each arm the learning rate after which it is right on most validation images."""
    if len(args.rates) == 1:
        return dict.fromkeys(TUNED, args.rates[0])
    pairs = [(arm, rate) for arm in TUNED for rate in args.rates]
    tried = images.tuned([arms[arm] for arm, _ in pairs], [rate for _, rate in pairs], seed, args.steps)
    right = {pair: images.right(state, "validation") for pair, state in zip(pairs, tried, strict=True)}
    return {arm: max(args.rates, key=lambda rate: right[arm, rate]) for arm in TUNED}


def mean_of(rows: list[dict], key: str) -> str:
    """Mean ± standard deviation over seeds, in percent."""
    values = torch.tensor([100 * row[key] for row in rows if key in row])
    if not len(values):
        return "–"
    return f"{values.mean():.1f} ± {values.std(correction=0):.1f}" if len(values) > 1 else f"{values.mean():.1f}"


def tables(result: dict) -> str:
    """Markdown, a table a part."""
    parts = {"reconstruction": reconstructed, "transfer": transferred}
    return "\n\n".join(write(result[part]) for part, write in parts.items() if result[part])


def reconstructed(rows: list[dict]) -> str:
    """A line a checkpoint."""
    lines = [
        "| checkpoint | its accuracy | samples | samples, BatchNorm recalibrated | images on which they disagree | "
        "checkpoint + noise: accuracy, disagree | distance |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        mean = {key: sum(value) / len(value) for key, value in row.items() if isinstance(value, list)}
        same = f"{mean['sampled_disagree']:.0f} of {row['images']:,}"
        noise = f"{mean['noise']:.1%}, {mean['noise_disagree']:.0f}"
        cells = [f"{row['own']:.1%}", f"{mean['sampled']:.1%}", f"{mean['recalibrated']:.1%}", same, noise]
        lines.append(f"| {row['checkpoint']} | {' | '.join(cells)} | {mean['distance']:.3f} |")
    return "\n".join(lines)


def transferred(rows: list[dict]) -> str:
    """A line an architecture and start."""
    head = f"0 steps | 0 steps, BatchNorm recalibrated | {rows[0]['steps']} steps, recalibrated | distance"
    lines = [f"| architecture | start | {head} |", "|---" * 6 + "|"]
    for name in dict.fromkeys(row["target"] for row in rows):
        for arm, said in ARMS.items():
            own = [row for row in rows if row["target"] == name and row["arm"] == arm]
            cells = [mean_of(own, key) for key in ("zero", "recalibrated", "tuned")]
            away = sum(row["distance"] for row in own) / len(own)
            lines.append(f"| {name} | {said} | {' | '.join(cells)} | {away:.3f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Learn, sample, assemble, fine-tune, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="the first is the one that layers are taken from")
    parser.add_argument("--images", type=Path, required=True, help="CIFAR-10: an .npz, or as zoo build takes it")
    parser.add_argument("--seeds", type=int, default=3, help="of random starts, samples and the order of images (3)")
    parser.add_argument("--samples", type=int, default=3, help="of each architecture, in the reconstruction (3)")
    parser.add_argument("--steps", type=int, default=39, help="of 128 images (39: an epoch of the 5,000)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3], help="of Adam, to choose from")
    parser.add_argument("--only", choices=("reconstruction", "transfer"), help="one of the two")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of `train`")
    parser.add_argument("--work", type=Path, default=Path("transfer"), help="folder for zoos and bundles")
    parser.add_argument("--out", type=Path, help="JSON to write; what it holds already is kept")
    args = parser.parse_args(argv)
    images, progress, began = Images(args.images), TerminalProgress(), time.monotonic()
    config = changed(NetworksConfig.preset("large"), dict(split_setting(text) for text in args.set))
    result: dict = {"reconstruction": [], "transfer": [], "seconds": 0}
    if args.out and args.out.is_file():
        result = json.loads(args.out.read_text())
    before = result["seconds"]

    def save() -> None:
        result["seconds"] = round(before + time.monotonic() - began)
        if args.out:
            write_whole(args.out, json.dumps(result, indent=1))

    if args.only != "transfer" and not result["reconstruction"]:
        zoo, bundle = learn(args.checkpoints, config, args.work / "all", progress)
        result["reconstruction"] = reconstruction(zoo, bundle, images, args.samples)
        save()
    if args.only != "reconstruction":
        few = replace(config, latent_channels=max(1, config.latent_channels // 4))  # for one network fewer will do
        zoo, bundle = learn(args.checkpoints[:1], few, args.work / "first", progress)
        targets = {path.stem: without_prefix(read_checkpoint(path).state) for path in args.checkpoints[1:]}
        transfer(bundle, zoo.plain_state(0), targets, images, args, result, save)
        save()
    print(tables(result))


if __name__ == "__main__":
    main()
