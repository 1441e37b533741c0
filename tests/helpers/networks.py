"""Small networks."""

from collections import OrderedDict

import torch
from torch import nn


def network(norm: bool = True, width: int = 6, seed: int = 0) -> nn.Module:
    """A small convolutional network that has seen some data."""
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * 4, 3),
    ]
    made = nn.Sequential(*layers)
    made(torch.randn(8, 1, 4, 4) * 3 + 1)
    return made.eval()


class _Block(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)

    def forward(self, x):
        return torch.relu(self.bn1(self.conv1(x)))


def staged(blocks: int, seed: int = 0) -> nn.Module:
    """A small network of two stages of so many blocks, which has seen some data."""
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(1, 4, 3))
    for stage, (before, after) in enumerate(((4, 4), (4, 6)), 1):
        rows = [_Block(before, after), *(_Block(after, after) for _ in range(blocks - 1))]
        layers[f"layer{stage}"] = nn.Sequential(*rows)
    layers.update(flat=nn.Flatten(), linear=nn.Linear(6 * 4, 3))
    made = nn.Sequential(layers)
    made(torch.randn(8, 1, 4, 4) * 3 + 1)
    return made.eval()
