"""Small image classifiers whose weights a generator can learn whole: a table of architectures.

All layers have names, and the last one, which gives the logits, is called ``head``; the layers before it are the
trunk. `cnn` is the network of the model zoos of Schürholt et al. (2022, "Model Zoos: A Dataset of Diverse Populations
of Neural Network Models"), here with GELU in every case.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from d2nwg.utils.errors import UserError
from d2nwg.weights.networks import State

HEAD = "head"  # the last layer, of every architecture
MAX_SIZE, MAX_CLASSES = 128, 1000


@dataclass(frozen=True)
class SmallNetwork:
    """An architecture.

    Attributes:
        name: its id; ``label`` and ``about`` are for people.
        smallest: the least side of the images, in pixels.
        layers: (channels, classes, side in pixels) → the module.
    """

    name: str
    label: str
    about: str
    smallest: int
    layers: Callable[[int, int, int], nn.Module]

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The module, (B, channels, size, size) → logits (B, classes), with random weights.

        Raises:
            UserError: the images are too small or too large for it, or there are fewer than two classes.
        """
        if not self.smallest <= size <= MAX_SIZE:
            raise UserError(
                f"The network {self.name} takes images of {self.smallest} to {MAX_SIZE} pixels a side, not {size}."
            )
        if channels not in (1, 3) or not 2 <= classes <= MAX_CLASSES:
            raise UserError(
                f"A small network has one or three channels and 2 to {MAX_CLASSES:,} classes, "
                f"not {channels} and {classes:,}."
            )
        return self.layers(channels, classes, size)


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _cnn(channels: int, classes: int, size: int) -> nn.Module:
    side = ((size - 4) // 2 - 4) // 2 - 1
    return _named(
        conv1=nn.Conv2d(channels, 8, 5),
        pool1=nn.MaxPool2d(2),
        act1=nn.GELU(),
        conv2=nn.Conv2d(8, 6, 5),
        pool2=nn.MaxPool2d(2),
        act2=nn.GELU(),
        conv3=nn.Conv2d(6, 4, 2),
        act3=nn.GELU(),
        flat=nn.Flatten(),
        linear=nn.Linear(4 * side * side, 20),
        act4=nn.GELU(),
        head=nn.Linear(20, classes),
    )


def _wide(channels: int, classes: int, size: int) -> nn.Module:
    side = size // 2 // 2 // 2
    return _named(
        conv1=nn.Conv2d(channels, 16, 3, padding=1),
        pool1=nn.MaxPool2d(2),
        act1=nn.GELU(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        pool2=nn.MaxPool2d(2),
        act2=nn.GELU(),
        conv3=nn.Conv2d(32, 32, 3, padding=1),
        pool3=nn.MaxPool2d(2),
        act3=nn.GELU(),
        flat=nn.Flatten(),
        linear=nn.Linear(32 * side * side, 64),
        act4=nn.GELU(),
        head=nn.Linear(64, classes),
    )


def _mlp(channels: int, classes: int, size: int) -> nn.Module:
    return _named(
        flat=nn.Flatten(),
        linear1=nn.Linear(channels * size * size, 32),
        act1=nn.GELU(),
        linear2=nn.Linear(32, 32),
        act2=nn.GELU(),
        head=nn.Linear(32, classes),
    )


class _Block(nn.Module):
    """Two convolutions with BatchNorm and a residual connection, which is a 1×1 convolution where shapes change."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.skip = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x))


def _resnet(channels: int, classes: int, size: int) -> nn.Module:
    return _named(
        conv=nn.Conv2d(channels, 8, 3, 1, 1, bias=False),
        norm=nn.BatchNorm2d(8),
        act=nn.ReLU(),
        block1=_Block(8, 8, 1),
        block2=_Block(8, 16, 2),
        block3=_Block(16, 32, 2),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(32, classes),
    )


NETWORKS: dict[str, SmallNetwork] = {
    network.name: network
    for network in (
        SmallNetwork("cnn", "Small CNN", "three convolutions and two linear layers, 2,464 numbers for MNIST", 20, _cnn),
        SmallNetwork("cnn-wide", "Wider CNN", "three wider convolutions and two linear layers", 16, _wide),
        SmallNetwork("mlp", "MLP", "three linear layers on the pixels", 4, _mlp),
        SmallNetwork("resnet", "Small ResNet", "three residual blocks with BatchNorm", 8, _resnet),
    )
}


def small_network(name: str) -> SmallNetwork:
    """Raises UserError where there is no architecture of this name."""
    if name not in NETWORKS:
        raise UserError(f"There is no small network {name!r}: choose one of {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def last_layer(name: str) -> str:
    """The name of the module's final `nn.Linear`, its head."""
    small_network(name)
    return HEAD


def initial_state(name: str, channels: int, classes: int, size: int, seed: int) -> State:
    """PyTorch's random weights of the architecture, those of ``seed``; BatchNorm statistics are among them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = small_network(name).build(channels, classes, size)
    return {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
