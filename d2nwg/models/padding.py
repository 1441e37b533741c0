"""Latents that stand for no weight."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Padding:
    """The part of the latents that stands for no weight, and the value it has.

    Attributes:
        mask: bool, True where latents are padding; broadcasts against the latents (B, ...).
        value: the scaled latents of padding; broadcasts against the latents too.
    """

    mask: Tensor
    value: Tensor
