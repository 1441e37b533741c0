"""Table 1's own backbone: a Conv4 and two generators for it, trained on some classes, on episodes of others. It takes
hours on two cores, and is part of ``--full`` alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.papers.run import Run
from d2nwg.bundles import load_pipeline
from d2nwg.data.image_set import ImageSet
from d2nwg.encoders.base import Encoder
from d2nwg.training.config import DualConfig, UNetConfig
from d2nwg.training.run import train_bundle
from d2nwg.utils.progress import Progress
from d2nwg.weights.build import build_zoo
from d2nwg.weights.zoo import Zoo, ZooConfig

SIDE, WIDTH, BATCH = 64, 64, 64  # pixels a side; channels; images a step
PREPROCESSING = {"size": SIDE, "crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}


@dataclass(frozen=True)
class Settings:
    """How much is trained.

    Attributes:
        base: classes that the network and the generators learn from; episodes are of the others.
        epochs: of the network.
        zoo: heads on its features.
        unet, dual: the generators.
    """

    base: int = 120
    epochs: int = 40
    zoo: ZooConfig = field(default_factory=lambda: ZooConfig(subsets=16_384))
    unet: UNetConfig = field(default_factory=UNetConfig)
    dual: DualConfig = field(default_factory=lambda: DualConfig(names=False))


def conv4() -> nn.Sequential:
    """Four blocks of a 3 × 3 convolution, BatchNorm, ReLU and max pooling: (n, 3, 64, 64) → (n, 1024)."""
    blocks: list[nn.Module] = []
    for inputs in (3, WIDTH, WIDTH, WIDTH):
        blocks += [nn.Conv2d(inputs, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten())


def encoder_of(network: nn.Module) -> Encoder:
    """With the preprocessing of `pixels_of`."""
    return Encoder("conv4", network, WIDTH * (SIDE // 16) ** 2, PREPROCESSING, "cpu")


def divided(images: ImageSet, base: int, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """A data set with some of its classes, drawn by the seed, and one with the others; all images for training."""
    order = np.random.default_rng(seed).permutation(len(images.classes))
    return tuple(only(images, np.sort(part)) for part in (order[:base], order[base:]))


def only(images: ImageSet, classes: np.ndarray) -> ImageSet:
    """A data set with the classes of these numbers, in this order."""
    rows = np.flatnonzero(np.isin(images.labels, classes))
    new = np.full(len(images.classes), -1)
    new[classes] = np.arange(len(classes))
    return replace(
        images,
        classes=tuple(images.classes[c] for c in classes),
        items=[images.items[i] for i in rows],
        labels=new[images.labels[rows]],
        is_test=np.zeros(len(rows), bool),
    )


def train(images: ImageSet, epochs: int, progress: Progress, seed: int = 0) -> nn.Sequential:
    """A Conv4 by cross-entropy with a linear layer on top, which is left out; images mirrored and moved at random."""
    torch.manual_seed(seed)
    network, reader = conv4(), encoder_of(conv4())
    head = nn.Linear(reader.num_features, len(images.classes))
    pixels = torch.from_numpy(np.stack([reader.preprocess(item) for item in images.items]))
    labels = torch.from_numpy(images.labels)
    weights = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, 1e-3, weight_decay=5e-4)
    steps = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        for rows in torch.randperm(len(labels)).split(BATCH):
            loss = functional.cross_entropy(head(network(_varied(pixels[rows]))), labels[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        progress("Training a Conv4", epoch + 1, epochs)
    return network.eval()


def _varied(pixels: Tensor) -> Tensor:
    """(n, s, s, 3) bytes → (n, 3, s, s), half of the batches mirrored, each moved by up to an eighth."""
    x = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)
    if torch.rand(()) < 0.5:
        x = x.flip(-1)
    room = SIDE // 8
    left, top = torch.randint(2 * room + 1, (2,)).tolist()
    padded = functional.pad(x, (room,) * 4, mode="reflect")
    return padded[..., top : top + SIDE, left : left + SIDE]


def prepare(run: Run, images: ImageSet, settings: Settings, names: Sequence[str]) -> tuple[Encoder, dict, ImageSet]:
    """The encoder, the pipelines by name (of the UNet, of the dual generator), and the images of the classes that
    neither has seen. What OUT holds already is not trained again."""
    base, others = divided(images, settings.base)
    work = run.out / "conv4"
    work.mkdir(parents=True, exist_ok=True)
    file, network = work / "network.safetensors", conv4()
    if not file.is_file():
        save_file(train(base, settings.epochs, run.progress).state_dict(), file)
    network.load_state_dict(load_file(file))
    encoder = encoder_of(network)
    if not (work / "zoo").is_dir():
        build_zoo([base], encoder, settings.zoo, work / "zoo", device="cpu", progress=run.progress)
    pipes = {}
    for name, config in zip(names, (settings.unet, settings.dual), strict=True):
        pipes[name] = load_pipeline(trained(work / "zoo", config, work / name, run.progress))
    return encoder, pipes, others


def trained(zoo: Path, config, out: Path, progress: Progress) -> Path:
    """A bundle, trained unless it is there; an interrupted training goes on."""
    if not out.is_dir():
        going_on = out.with_name(f"{out.name}.training").is_dir()
        train_bundle(Zoo(zoo), config, out, device="cpu", resume=going_on, progress=progress)
    return out
