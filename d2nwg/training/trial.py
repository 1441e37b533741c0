"""Networks before they are trained: whether their settings fit together, and whether they fit into the memory.

They are built and run without numbers (on torch's ``meta`` device), which takes a second and no memory: what would fail
after hours of the first stage is refused at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from d2nwg.conditions.base import Condition, Conditioner
from d2nwg.training.config import StagesConfig
from d2nwg.training.stages import make_denoiser, make_vae
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.text import shown

COPIES = 5  # of a network's weights in training: themselves, gradients, two moments, a moving average
ADVICE = "choose smaller widths or batches, or raise `accumulate`"


def check_stages(
    config: StagesConfig,
    size: int,
    tokens: int,
    make_encoder: Callable[[int], Conditioner],
    slots: int,
    device: object,
) -> None:
    """Refuse a configuration whose networks cannot be built, do not fit together, or are too large to be trained here.

    Args:
        size, tokens: of the vectors (`make_vae`).
        make_encoder: makes the conditioner, from the number of numbers in a latent.
        slots: of the condition.
        device: that will train.
    Raises:
        UserError: it cannot be trained.
    """
    part = -(-config.batch_size // config.accumulate)
    with unreal("These settings make no VAE"):
        vae = make_vae(config, size, tokens)
        with counted(vae) as in_vae:
            latents = vae.encode(torch.zeros(1, size)).mean
            vae.decode(latents)
        if tuple(latents.shape[1:]) != tuple(vae.latent_shape):
            raise ValueError(f"a patch of {config.patch} does not divide by {2 ** (len(config.vae_channels) - 1)}")
    with unreal("These settings make no condition"):
        encoder = make_encoder(latents.numel())
    with unreal("These settings make no denoiser"):
        denoiser = make_denoiser(config, vae, encoder, slots)
        given = torch.zeros(1, slots, encoder.slot_size), torch.zeros(1, slots)
        beside = denoiser.lay_out(Condition(torch.zeros(1, config.encoder_width), *given))
        with counted(denoiser) as in_denoiser:
            denoiser.denoise(latents, 0, beside)
    for network, held, words in (
        (vae, in_vae, "Training a VAE"),
        (encoder, [], "Training a condition"),
        (denoiser, in_denoiser, "Training a denoiser"),
    ):
        needed = 4 * (COPIES * weights(network) + part * (sum(held) + 4 * size))
        check_memory(needed, f"{words} of {weights(network):,} weights on batches of {part:,}", ADVICE, device)


def weights(network: nn.Module) -> int:
    """How many a network has."""
    return sum(parameter.numel() for parameter in network.parameters())


@contextmanager
def unreal(words: str) -> Iterator[None]:
    """Without numbers and without random ones: what is built in the ``with`` has shapes only.

    Raises:
        UserError: building or running it failed; the sentence begins with `words`.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            yield
    except UserError:
        raise
    except Exception as reason:  # networks say in many ways that their shapes do not fit
        why = shown((str(reason).strip().splitlines() or [type(reason).__name__])[0], 160).rstrip(".")
        raise UserError(f"{words} ({why}): take those of a preset, or others that fit together.") from reason


@contextmanager
def counted(network: nn.Module) -> Iterator[list[int]]:
    """The numbers that each part of a network puts out in the ``with``: a step of training keeps them all."""
    found: list[int] = []

    def note(_module, _inputs, output) -> None:
        if isinstance(output, torch.Tensor):
            found.append(output.numel())

    hooks = [part.register_forward_hook(note) for part in network.modules() if not list(part.children())]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
