"""Short trainings, and what is compared of two of them."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from d2nwg.training.config import DualConfig, UNetConfig
from d2nwg.utils.errors import Cancelled

# Of two data sets whose classes have names that mean something, and of a bundle that learns these.
FIRST, SECOND = ("cat", "dog", "horse", "sheep", "goat"), ("apple", "pear", "plum", "cherry", "dog")
NAMED = DualConfig(width=16, depth=1, heads=2, steps=4, tasks=2, checkpoint_every=2, validate_every=2, max_images=20)
SHORT = dict(vae_steps=6, align_steps=6, diffusion_steps=6, batch_size=4, checkpoint_every=2)  # for `quick_config`


def quick_config(**changes):
    """The tiny preset cut to a few steps: enough to run every line of training, not enough to learn."""
    few = dict(vae_steps=30, align_steps=20, diffusion_steps=30, batch_size=8, checkpoint_every=10)
    return UNetConfig.preset("tiny", **few | changes)


def tensors(bundle: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a bundle."""
    return {
        f"{path.parent.name}.{name}": tensor
        for path in sorted(bundle.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def stop_at(stage: str, step: int):
    """A progress callback that ends the run as a kill would."""

    def progress(now: str, done: int, total: int) -> None:
        if (now, done) == (stage, step):
            raise Cancelled

    return progress
