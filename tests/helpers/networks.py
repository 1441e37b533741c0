"""Small networks."""

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
