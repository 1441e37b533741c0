# ruff: noqa: RUF009 (`setting` returns a field)
"""What can be chosen in training: one configuration a generator, each field with its meaning, and the presets.

Light on purpose: the command line's ``--help`` reads these.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from typing_extensions import Self

from d2nwg.conditions import CONDITIONERS
from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Count, Depth, Seed, Steps, Width, Widths, check_fields
from d2nwg.utils.text import shown

# Ids of the stages of training → what a person reads. Ids name checkpoint folders and seed the random numbers.
STAGES = {
    "vae": "Training the VAE",
    "condition": "Aligning the condition",
    "denoiser": "Training the denoiser",
    "generator": "Training the generator",
    "finished": "Finished",
}

Batch = Annotated[int, Ge(1), Le(10**6)]  # at a time
Counts = Annotated[tuple[Count, ...], MinLen(1), MaxLen(1_000)]
Positive = Annotated[float, Ge(0), Le(10**6)]
Share = Annotated[float, Ge(0), Le(1)]
PATCH = "channels, height and width of a token's part of the VAE's picture"
Precision = Literal["no", "fp16", "bf16"]


def setting(default: Any, meaning: str, choices=None) -> Any:
    """A field of a configuration: its default, what it means, and, where its type does not say so, a function that
    returns what it can be."""
    return field(default=default, metadata={"help": meaning, "choices": choices})


class JsonConfig:
    """A frozen dataclass of settings, to JSON and back.

    Raises:
        UserError: a field is not of its type, or out of its limits.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    def to_config(self) -> dict:
        """As JSON; `from_config` reads it back."""
        return asdict(self)  # type: ignore[call-overload]  # its subclasses are dataclasses

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """JSON turns tuples into lists; this turns them back.

        Raises:
            UserError: the JSON holds other settings, or values that they cannot have.
        """
        if not isinstance(config, dict) or config.keys() - cls.__dataclass_fields__.keys():  # type: ignore[attr-defined]
            raise UserError(f"The settings of a {cls.__name__} are damaged: begin anew.")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})


@dataclass(frozen=True)
class Config(JsonConfig):
    """What the generators' configurations share.

    Attributes:
        PRESETS: name → the fields whose values differ from the defaults.
        STEPS: id of a stage (`STAGES`) → the field with its number of optimiser steps, in order.
    """

    PRESETS: ClassVar[dict[str, dict]] = {"small": {}}
    STEPS: ClassVar[dict[str, str]] = {}

    ema: Share = setting(0.999, "decay of the denoiser's moving average, the weights that are sampled")
    accumulate: Batch = setting(1, "parts that a step's batch is computed in, one after another: less memory")
    mixed_precision: Precision = setting("no", "accelerate's setting")
    checkpoint_every: Count = setting(250, "optimiser steps between checkpoints")
    seed: Seed = setting(0, "of initial weights, batches and noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in fields(self):
            listed = one.metadata["choices"]
            if listed and getattr(self, one.name) not in listed():
                value = shown(getattr(self, one.name), 40)
                raise UserError(f"The setting {one.name} cannot be {value}: choose one of {', '.join(listed())}.")

    @classmethod
    def preset(cls, name: str, **changes) -> Self:
        """The configuration of a preset, with some fields changed.

        Raises:
            UserError: this generator has no such preset.
        """
        if name not in cls.PRESETS:
            raise UserError(f"This generator has no preset {name!r}: choose one of {', '.join(cls.PRESETS)}.")
        return replace(cls(**cls.PRESETS[name]), **changes)

    def stages(self) -> dict[str, int]:
        """The stages by id, with their optimiser steps."""
        return {stage: getattr(self, name) for stage, name in self.STEPS.items()}

    def shortened(self, steps: int) -> Self:
        """The same work at each step, but so few steps a stage and no checkpoint: to measure time and memory."""
        few: dict[str, Any] = dict.fromkeys(self.STEPS.values(), steps)
        return replace(self, **few, checkpoint_every=10**6)


@dataclass(frozen=True)
class StagesConfig(Config):
    """What a VAE, a condition and a denoiser are trained with, on heads or on networks: the paper's three stages."""

    STEPS: ClassVar[dict[str, str]] = {"vae": "vae_steps", "condition": "align_steps", "denoiser": "diffusion_steps"}

    patch: tuple[Width, Width, Width] = setting((64, 1, 2), PATCH)
    vae_channels: Widths = setting((32,), "widths of the VAE's levels")
    latent_channels: Width = setting(48, "channels of a latent")
    vae_skip: bool = setting(True, "linear maps beside the VAE's convolutions")
    unet_channels: Widths = setting((64, 128), "widths of the denoiser's levels")
    unet_layers: Depth = setting(1, "residual blocks a level of the denoiser")
    condition_channels: Width = setting(32, "channels of the denoiser's input that hold the condition")
    unet_skip: bool = setting(True, "the denoiser corrects a linear guess; for prediction = sample")
    encoder_width: Width = setting(64, "width of the condition's embeddings")
    vae_steps: Steps = setting(500, "optimiser steps of the VAE")
    align_steps: Steps = setting(150, "optimiser steps of the condition's alignment with the VAE's latents")
    diffusion_steps: Steps = setting(2_000, "optimiser steps of the denoiser")
    batch_size: Batch = setting(64, "zoo records a step")
    vae_lr: Positive = setting(2e-3, "peak learning rate of the VAE (Adam)")
    align_lr: Positive = setting(5e-4, "peak learning rate of the alignment (Adam)")
    diffusion_lr: Positive = setting(1e-3, "peak learning rate of the denoiser (AdamW)")
    kl_weight: Positive = setting(1e-6, "weight of the KL divergence in the VAE's loss (equation 1)")
    condition_dropout: Share = setting(0.1, "share of training conditions left empty, for classifier-free guidance")
    prediction: Literal["epsilon", "v_prediction", "sample"] = setting("sample", "what the denoiser predicts")


@dataclass(frozen=True)
class UNetConfig(StagesConfig):
    """The three stages on a zoo of heads."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "tiny": dict(
            latent_channels=24,
            unet_channels=(64,),
            condition_channels=32,
            encoder_width=32,
            vae_steps=200,
            align_steps=40,
            diffusion_steps=300,
            batch_size=32,
            vae_lr=3e-3,
            diffusion_lr=2e-3,
            ema=0.99,
            checkpoint_every=100,
        ),
        "small": {},
        "standard": dict(
            vae_channels=(64,),
            unet_channels=(96, 192),
            unet_layers=2,
            encoder_width=128,
            vae_steps=2_000,
            align_steps=600,
            diffusion_steps=8_000,
            batch_size=128,
            checkpoint_every=500,
        ),
        "paper": dict(
            patch=(1, 16, 64),
            vae_channels=(64, 128, 256),
            latent_channels=4,
            vae_skip=False,
            unet_channels=(128, 256, 512),
            unet_layers=2,
            encoder_width=1024,
            encoder_depth=2,
            vae_steps=100_000,
            align_steps=20_000,
            diffusion_steps=300_000,
            batch_size=128,
            vae_lr=1e-4,
            align_lr=1e-4,
            diffusion_lr=1e-4,
            unet_skip=False,
            prediction="epsilon",
            shots=(5,),
            ema=0.9999,
            mixed_precision="bf16",
            checkpoint_every=2_000,
        ),
    }

    encoder_depth: Depth = setting(1, "depth of the data-set encoder's Set Transformers")
    shots: Counts = setting((1, 2, 5, 10), "support images a class that training draws from")
    condition: str = setting(
        "dataset",
        "what heads are generated for: dataset (a few images of it) or task (its id: the names of its classes, each a "
        "learned embedding)",
        lambda: tuple(CONDITIONERS),
    )


@dataclass(frozen=True)
class DualConfig(Config):
    """The dual-coordinate generator, on one zoo of heads or several."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "tiny": dict(width=32, depth=1, steps=100, tasks=4, max_images=60, validate_every=50, checkpoint_every=50),
        "small": {},
    }
    STEPS: ClassVar[dict[str, str]] = {"generator": "steps"}

    width: Width = setting(64, "width of the denoiser")
    depth: Depth = setting(2, "blocks of the denoiser")
    heads: Depth = setting(4, "attention heads of the denoiser")
    steps: Steps = setting(2_000, "optimiser steps")
    tasks: Batch = setting(8, "tasks a step, all of one shape")
    lr: Positive = setting(1e-3, "peak learning rate (AdamW); it falls linearly to zero")
    weight_decay: Positive = setting(1e-2, "weight decay (AdamW)")
    max_classes: Batch = setting(100, "most classes of a task; the number is drawn log-uniformly from 2")
    shots: Counts = setting((1, 1, 1, 2, 3, 5, 5, 5, 10, 20, 40, 80), "support images a class that training draws from")
    unlabelled: Annotated[tuple[Steps, ...], MinLen(1), MaxLen(1_000)] = setting(
        (0, 0, 5, 15), "images without labels a class that training draws from; a quarter is left out at random"
    )
    max_images: Batch = setting(320, "most support images of a task, and most unlabelled ones")
    query: Batch = setting(10, "held-out images a class in the task loss")
    names: bool = setting(
        True, "class names are a condition beside the images, where the zoo has something to learn from"
    )
    denoising: Positive = setting(0.1, "weight of the denoising loss beside the task loss")
    held_out: tuple[str, ...] = setting((), "data sets left out of training; the moving average best on them is kept")
    validate_every: Count = setting(250, "optimiser steps between evaluations on the held-out data sets")
    ema: Share = setting(0.995, "decay of the moving average, the weights that are sampled")

    def shortened(self, steps: int) -> Self:
        """See `Config`."""
        return replace(super().shortened(steps), validate_every=10**6, held_out=())


@dataclass(frozen=True)
class NetworksConfig(StagesConfig):
    """The three stages on a zoo of networks, conditioned on architecture and task id."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "tiny": dict(
            unet_channels=(32,), vae_steps=60, align_steps=20, diffusion_steps=100, batch_size=16, checkpoint_every=50
        ),
        "small": {},
    }

    layout: Literal["whole", "chunked"] = setting(
        "whole",
        "whole: a network is one vector (for small networks, of which no two weights are alike); chunked: every chunk "
        "goes through the same maps (for large ones)",
    )
    chunk: Batch = setting(64, "numbers a chunk; each layer is padded to a multiple of it")
    batchnorm: Literal["travel", "recalibrate"] = setting(
        "travel", "running statistics travel with the weights, or are left out and recalibrated on data"
    )
    patch: tuple[Width, Width, Width] = setting((1, 16, 16), PATCH)
    vae_channels: Widths = setting((16, 32), "widths of the VAE's levels")
    latent_channels: Width = setting(4, "channels of a latent")
    condition_channels: Width = setting(8, "channels of the denoiser's input that hold the condition")
    encoder_width: Width = setting(32, "width of the condition's embeddings")
    vae_steps: Steps = setting(600, "optimiser steps of the VAE")
    align_steps: Steps = setting(100, "optimiser steps of the condition's alignment with the VAE's latents")
    diffusion_steps: Steps = setting(3_000, "optimiser steps of the denoiser")
    batch_size: Batch = setting(32, "networks a step")
    vae_lr: Positive = setting(1e-3, "peak learning rate of the VAE (Adam)")
    condition_dropout: Share = setting(0.0, "share of training conditions left empty, for classifier-free guidance")
    ema: Share = setting(0.995, "decay of the denoiser's moving average, the weights that are sampled")
    checkpoint_every: Count = setting(500, "optimiser steps between checkpoints")


@dataclass(frozen=True)
class AdaptersConfig(StagesConfig):
    """The three stages on a zoo of adapters, conditioned on descriptions of the tasks."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "tiny": dict(coordinates=16, vae_steps=60, align_steps=20, diffusion_steps=100, batch_size=16),
        "small": {},
    }

    layout: Literal["whole", "layers"] = setting(
        "whole",
        "whole: an adapter is one vector; layers: each layer's matrices, and the head, are vectors of their own",
    )
    coordinates: Width = setting(64, "principal coordinates of each such vector, which the VAE compresses")
    text_encoder: str = setting("sentence-transformers/all-MiniLM-L6-v2", "of the descriptions")
    held_out: tuple[str, ...] = setting((), "tasks left out of training, to see what the generator makes of new ones")
    patch: tuple[Width, Width, Width] = setting((16, 4, 4), PATCH)
    vae_channels: Widths = setting((32,), "widths of the VAE's levels")
    latent_channels: Width = setting(2, "channels of a latent")
    encoder_width: Width = setting(64, "width of the condition's embeddings")
    vae_steps: Steps = setting(1_000, "optimiser steps of the VAE")
    align_steps: Steps = setting(300, "optimiser steps of the condition's alignment with the VAE's latents")
    diffusion_steps: Steps = setting(3_000, "optimiser steps of the denoiser")
    checkpoint_every: Count = setting(500, "optimiser steps between checkpoints")
    ema: Share = setting(0.995, "decay of the denoiser's moving average, the weights that are sampled")
