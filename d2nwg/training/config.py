"""What can be chosen in training, and the presets."""

import inspect
import re
from dataclasses import asdict, dataclass, fields, replace

from d2nwg.utils.errors import UserError

STAGES = ("Training the VAE", "Aligning the data-set encoder", "Training the denoiser")


class Recipe:
    """What the generators' configurations share: to JSON and back."""

    def to_config(self) -> dict:
        """As JSON; `from_config` reads it back."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Recipe":
        """JSON turns tuples into lists; this turns them back."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})


@dataclass(frozen=True)
class StagesConfig(Recipe):
    """What a VAE, a condition and a denoiser are trained with, on heads or on whole models.

    Attributes:
        patch: (channels, height, width) of a token's part of the VAE's picture.
        vae_channels, latent_channels: of the VAE.
        vae_skip: linear maps beside the VAE's convolutions (`WeightVAE`).
        unet_channels, unet_layers, condition_channels: of the denoiser.
        unet_skip: the denoiser corrects a linear guess (`ConditionalUNet`); for ``prediction="sample"``.
        encoder_width: of the condition's embeddings.
        vae_steps, align_steps, diffusion_steps: optimiser steps a stage.
        batch_size: records a step.
        vae_lr, align_lr, diffusion_lr: peak learning rates (Adam, Adam, AdamW: paper appendix B).
        kl_weight: β of equation 1.
        condition_dropout: share of training conditions left empty, for guidance.
        prediction: what the denoiser predicts: ``epsilon``, ``v_prediction`` or ``sample``.
        ema: decay of the denoiser's moving average, the weights that are sampled.
        accumulate: parts that a step's batch is worked on in, one after another: so many times less memory.
        mixed_precision: accelerate's setting: ``no``, ``fp16`` or ``bf16``.
        checkpoint_every: optimiser steps between checkpoints.
        seed: of starts, batches and noise.
    """

    patch: tuple[int, int, int] = (64, 1, 2)
    vae_channels: tuple[int, ...] = (32,)
    latent_channels: int = 48
    vae_skip: bool = True
    unet_channels: tuple[int, ...] = (64, 128)
    unet_layers: int = 1
    condition_channels: int = 32
    unet_skip: bool = True
    encoder_width: int = 64
    vae_steps: int = 500
    align_steps: int = 150
    diffusion_steps: int = 2_000
    batch_size: int = 64
    vae_lr: float = 2e-3
    align_lr: float = 5e-4
    diffusion_lr: float = 1e-3
    kl_weight: float = 1e-6
    condition_dropout: float = 0.1
    prediction: str = "sample"
    ema: float = 0.999
    accumulate: int = 1
    mixed_precision: str = "no"
    checkpoint_every: int = 250
    seed: int = 0

    def stages(self) -> dict[str, int]:
        """The stages by name, with their steps."""
        return dict(zip(STAGES, (self.vae_steps, self.align_steps, self.diffusion_steps), strict=True))


@dataclass(frozen=True)
class TrainConfig(StagesConfig):
    """Every number of the three stages on a zoo of heads: those of `StagesConfig`, and

    Attributes:
        encoder_depth: of the data-set encoder's Set Transformers; ``encoder_width`` is theirs too.
        shots: support images a class that the condition sees in training, drawn from this list.
        condition: what the generator is told of a task: ``dataset`` (a few images of it) or ``task`` (the names of its
            classes, each a learned embedding).
    """

    encoder_depth: int = 1
    shots: tuple[int, ...] = (1, 2, 5, 10)
    condition: str = "dataset"

    @classmethod
    def preset(cls, name: str, **changes) -> "TrainConfig":
        """``tiny`` (seconds, for trying out), ``small`` (under an hour on two cores), ``standard`` (wider and four
        times as long) or ``paper`` (a GPU)."""
        if name not in PRESETS:
            raise UserError(f"Preset {name!r} is not known: choose one of {', '.join(PRESETS)}.")
        return replace(cls(**PRESETS[name]), **changes)


PRESETS: dict[str, dict] = {
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


@dataclass(frozen=True)
class DualConfig(Recipe):
    """Every number of training the dual-coordinate generator.

    Attributes:
        width, depth, heads: of the denoiser (`DualDenoiser`).
        steps: optimiser steps.
        tasks: that a step sees, all of one shape.
        lr, weight_decay: of AdamW; the rate falls linearly to zero.
        max_classes: most classes of a task; the number is drawn log-uniformly from 2.
        shots: support images a class, drawn from this list.
        unlabelled: images without labels a class, drawn from this list; a quarter of them is left out at random.
        max_images: most support images of a task, and most unlabelled ones.
        query: held-out images a class that the task loss looks at.
        denoising: weight of the denoising loss beside the task loss.
        held_out: data sets never trained on; the moving average that is best on them is kept.
        validate_every: steps between looks at them.
        ema: decay of the moving average, the weights that are sampled.
        accumulate: gradients of so many batches of ``tasks`` are added up before a step.
        mixed_precision: accelerate's setting: ``no``, ``fp16`` or ``bf16``.
        checkpoint_every: optimiser steps between checkpoints.
        seed: of starts, tasks and noise.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    steps: int = 2_000
    tasks: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-2
    max_classes: int = 100
    shots: tuple[int, ...] = (1, 1, 1, 2, 3, 5, 5, 5, 10, 20, 40, 80)
    unlabelled: tuple[int, ...] = (0, 0, 5, 15)
    max_images: int = 320
    query: int = 10
    denoising: float = 0.1
    held_out: tuple[str, ...] = ()
    validate_every: int = 250
    ema: float = 0.995
    accumulate: int = 1
    mixed_precision: str = "no"
    checkpoint_every: int = 250
    seed: int = 0

    @classmethod
    def preset(cls, name: str, **changes) -> "DualConfig":
        """``tiny`` (seconds, for trying out) or ``small`` (minutes on two cores)."""
        if name not in DUAL_PRESETS:
            raise UserError(f"The dual generator has no preset {name!r}: choose one of {', '.join(DUAL_PRESETS)}.")
        return replace(cls(**DUAL_PRESETS[name]), **changes)


DUAL_PRESETS: dict[str, dict] = {
    "tiny": dict(width=32, depth=1, steps=100, tasks=4, max_images=60, validate_every=50, checkpoint_every=50),
    "small": {},
}


@dataclass(frozen=True)
class ModelsConfig(StagesConfig):
    """Every number of training on a zoo of whole models: those of `StagesConfig`, and

    Attributes:
        layout: ``whole`` (a network is one vector; for small networks, of which no two weights are alike) or
            ``chunked`` (every chunk goes through the same maps; for large ones).
        chunk: numbers a chunk; each layer is padded to a multiple of it.
        batchnorm: running statistics ``travel`` with the weights, or are left out to ``recalibrate`` on data.
    """

    layout: str = "whole"
    chunk: int = 64
    batchnorm: str = "travel"
    patch: tuple[int, int, int] = (1, 16, 16)
    vae_channels: tuple[int, ...] = (16, 32)
    latent_channels: int = 4
    condition_channels: int = 8
    encoder_width: int = 32
    vae_steps: int = 600
    align_steps: int = 100
    diffusion_steps: int = 3_000
    batch_size: int = 32
    vae_lr: float = 1e-3
    condition_dropout: float = 0.0
    ema: float = 0.995
    checkpoint_every: int = 500

    # What the stages ask of every recipe; here the ids of architecture, place and task are the condition.
    condition = "task"

    @classmethod
    def preset(cls, name: str, **changes) -> "ModelsConfig":
        """``tiny`` (seconds, for trying out) or ``small`` (minutes on two cores)."""
        if name not in MODELS_PRESETS:
            raise UserError(f"Whole models have no preset {name!r}: choose one of {', '.join(MODELS_PRESETS)}.")
        return replace(cls(**MODELS_PRESETS[name]), **changes)


MODELS_PRESETS: dict[str, dict] = {
    "tiny": dict(
        unet_channels=(32,), vae_steps=60, align_steps=20, diffusion_steps=100, batch_size=16, checkpoint_every=50
    ),
    "small": {},
}

GENERATORS = {"unet": TrainConfig, "dual": DualConfig, "models": ModelsConfig}


def generator_of(config: TrainConfig | DualConfig | ModelsConfig) -> str:
    """What a generator with this configuration is called in `GENERATORS`."""
    return next(name for name, kind in GENERATORS.items() if isinstance(config, kind))


def meanings(config: type = TrainConfig) -> dict[str, str]:
    """What each field means, from the docstrings of the configuration's class and of those it builds on."""
    found = {}
    for kind in reversed(config.__mro__):
        text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[2]
        for names, meaning in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
            for name in names.split(", "):
                found[name] = " ".join(meaning.replace("`", "").split())
    return {field.name: found[field.name] for field in fields(config)}


def split_setting(text: str) -> tuple[str, str]:
    """``"vae_steps=1000"`` → the two sides.

    Raises:
        UserError: it is not of that form.
    """
    name, sign, value = text.partition("=")
    if not sign:
        raise UserError(f"{text!r} is no setting: write FIELD=VALUE, such as vae_steps=1000.")
    return name.strip().replace("-", "_"), value.strip()


def changed(config: "TrainConfig | DualConfig", values: dict[str, str]) -> "TrainConfig | DualConfig":
    """The configuration with some fields given as text: ``64,128`` for several numbers, ``yes`` or ``no``.

    Raises:
        UserError: a field is not known, or its value cannot be one.
    """
    known, new = {field.name: getattr(config, field.name) for field in fields(config)}, {}
    for name, text in values.items():
        if name not in known:
            raise UserError(f"There is no setting {name}: choose among {', '.join(known)}.")
        try:
            new[name] = _like(known[name], str(text))
        except ValueError:
            raise UserError(f"{text!r} cannot be the {name}: write for instance {as_text(known[name])}.") from None
        if name in CHOICES and new[name] not in CHOICES[name]:
            raise UserError(f"{text!r} cannot be the {name}: choose one of {', '.join(CHOICES[name])}.")
    return replace(config, **new)


CHOICES = {
    "condition": ("dataset", "task"),
    "layout": ("whole", "chunked"),
    "batchnorm": ("travel", "recalibrate"),
    "prediction": ("epsilon", "v_prediction", "sample"),
    "mixed_precision": ("no", "fp16", "bf16"),
}


def as_text(value) -> str:
    """A field's value as `changed` reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _like(known, text: str):
    """Text → a value of the same kind; raises ValueError."""
    if isinstance(known, bool):
        said = {"yes": True, "true": True, "no": False, "false": False}
        if text.lower() not in said:
            raise ValueError
        return said[text.lower()]
    if isinstance(known, tuple):
        parts = tuple(part.strip() for part in text.strip("()[] ").split(",") if part.strip())
        if not known or isinstance(known[0], str):
            return parts
        numbers = tuple(map(int, parts))
        if not numbers or min(numbers) < min(1, *known, 1):
            raise ValueError
        return numbers
    if isinstance(known, str):
        return text
    value = type(known)(text)
    if not 0 <= value < 1e12:  # NaN too
        raise ValueError
    return value
