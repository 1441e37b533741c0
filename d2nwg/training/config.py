# ruff: noqa: RUF009 (`setting` returns a field)
"""What can be chosen in training: one configuration a generator, each field with its meaning, and the presets.

Light on purpose: the command line's ``--help`` reads these.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from typing_extensions import Self

from d2nwg.conditions import CONDITIONERS
from d2nwg.training.config_base import Batch, Config, Counts, Positive, Share, setting
from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Count, Depth, Steps, Width, Widths
from d2nwg.utils.limits import MANY

Records = Annotated[int, Ge(0), Le(MANY)]
PATCH = "channels, height and width of a token's part of the VAE's picture"


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
    vae_layers: Depth = setting(1, "residual blocks a level of the VAE")
    dataset_picture: bool = setting(
        False, "z_D lies beside a latent as a picture of its own, as in the paper; otherwise as constant channels"
    )
    vae: bool = setting(True, "diffusion of a VAE's latents; without, of the standardised weights themselves")
    alignment: Literal["aligned", "joint"] = setting(
        "aligned", "the condition is aligned with the latents and then frozen, or trained together with the denoiser"
    )

    def stages(self) -> dict[str, int]:
        """See `Config`; without those that have nothing to train."""
        idle = {"vae": not self.vae, "condition": self.alignment == "joint"}
        return {stage: steps for stage, steps in super().stages().items() if not idle.get(stage)}


@dataclass(frozen=True)
class PredictedConfig(StagesConfig):
    """The same, with an accuracy predictor g if one is asked for (D2NWG, equation 9)."""

    STEPS: ClassVar[dict[str, str]] = {"predictor": "predictor_steps", **StagesConfig.STEPS}

    predictor: Literal["no", "weights", "dataset"] = setting(
        "no",
        "an accuracy predictor, which ranks samples where there are no labels: no; weights (it sees them alone); or "
        "dataset (and the class means of a few images of the data set)",
    )
    predictor_weight: Positive = setting(0.0, "weight of the predictor's guidance in the VAE's loss (equation 9)")
    predictor_steps: Steps = setting(1_000, "optimiser steps of the predictor")

    def stages(self) -> dict[str, int]:
        """See `Config`."""
        return {stage: steps for stage, steps in super().stages().items() if stage != "predictor" or self.predicts}

    @property
    def predicts(self) -> bool:
        """Whether there is a predictor."""
        return self.predictor != "no"


@dataclass(frozen=True)
class UNetConfig(PredictedConfig):
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
        # Tables 8 and 24, appendices A.6 and B: 2,580 numbers → 1×64×64 → a latent of 4×16×16. Of 16,384 heads 100,000
        # steps are 780 epochs, and 250,000 are 1,950 (table 8: 50 to 2,000).
        "paper": dict(
            token="head",
            patch=(1, 64, 64),
            vae_channels=(128, 256, 512),
            vae_layers=2,
            latent_channels=4,
            vae_skip=False,
            unet_channels=(128, 256, 512),
            unet_layers=2,
            unet_skip=False,
            condition_channels=4,
            dataset_picture=True,
            condition_dropout=0.0,
            encoder_width=1024,
            encoder_depth=2,
            vae_steps=100_000,
            align_steps=20_000,
            diffusion_steps=250_000,
            batch_size=128,
            vae_lr=1e-3,
            align_lr=1e-4,
            diffusion_lr=1e-4,
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
        "what heads are generated for: dataset (a few images of it), task (its id: the names of its classes, each a "
        "learned embedding) or none (nothing: any head of the zoo)",
        lambda: tuple(CONDITIONERS),
    )
    dataset_encoder: Literal["set", "mlp"] = setting(
        "set", "what encodes the images of a data set: Set Transformers, or a two-layer MLP, which makes z_D alone"
    )
    token: Literal["class", "head"] = setting(
        "class", "what the VAE maps to a part of its picture: one class's row of a linear head, or the whole head"
    )
    zoo_records: Records = setting(0, "zoo records to train on, a random part of them; 0 for all")

    def stages(self) -> dict[str, int]:
        """See `Config`; without those that have nothing to train."""
        return {
            stage: steps
            for stage, steps in super().stages().items()
            if stage != "condition" or self.condition != "none"
        }


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
class NetworksConfig(PredictedConfig):
    """The three stages on a zoo of networks, conditioned on architecture and task id."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "tiny": dict(
            unet_channels=(32,), vae_steps=60, align_steps=20, diffusion_steps=100, batch_size=16, checkpoint_every=50
        ),
        "small": {},
        # 1,152 latents for the 2,304 numbers of a chunk: a VAE that begins with principal components gives back the
        # chunks of a zoo that has no more than as many (four ResNets of CIFAR-10: 1,124).
        "large": dict(
            layout="independent",
            chunk=2304,
            patch=(16, 4, 4),
            vae_channels=(32,),
            latent_channels=72,
            unet_channels=(32,),
            encoder_width=1536,
            vae_steps=20,
            vae_lr=1e-4,
            align_steps=20,
            diffusion_steps=1_000,
            batch_size=64,
        ),
    }

    layout: Literal["whole", "chunked", "independent"] = setting(
        "whole",
        "whole: a network is one vector (for small networks, of which no two weights are alike); chunked: every chunk "
        "goes through the same maps; independent: every chunk is encoded and sampled for itself, given its layer and "
        "its place there (for large networks; a sample mixes the chunks of several checkpoints of one architecture)",
    )
    chunk: Batch = setting(64, "numbers a chunk; each layer is padded to a multiple of it")
    predictor: Literal["no", "weights"] = setting(
        "no", "an accuracy predictor, from the weights, which ranks samples where nothing was measured"
    )
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
    batch_size: Batch = setting(32, "networks a step; chunks of networks in the layout independent")
    vae_lr: Positive = setting(1e-3, "peak learning rate of the VAE (Adam)")
    condition_dropout: Share = setting(0.0, "share of training conditions left empty, for classifier-free guidance")
    ema: Share = setting(0.995, "decay of the denoiser's moving average, the weights that are sampled")
    checkpoint_every: Count = setting(500, "optimiser steps between checkpoints")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout == "independent" and self.predicts:
            raise UserError("A predictor judges whole networks: take another layout than independent, or predictor=no.")


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
    unet_channels: Widths = setting((32,), "widths of the denoiser's levels")
    vae_channels: Widths = setting((32,), "widths of the VAE's levels")
    latent_channels: Width = setting(2, "channels of a latent")
    encoder_width: Width = setting(64, "width of the condition's embeddings")
    vae_steps: Steps = setting(1_000, "optimiser steps of the VAE")
    align_steps: Steps = setting(300, "optimiser steps of the condition's alignment with the VAE's latents")
    diffusion_steps: Steps = setting(3_000, "optimiser steps of the denoiser")
    checkpoint_every: Count = setting(500, "optimiser steps between checkpoints")
    ema: Share = setting(0.995, "decay of the denoiser's moving average, the weights that are sampled")


@dataclass(frozen=True)
class DatasetNetworksConfig(Config):
    """Small networks generated from images of a data set, on a zoo of `zoo build --network`."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "tiny": dict(
            width=32, components=16, coordinates=8, steps=60, tasks=2, query=3, members=4, checkpoint_every=30
        ),
        "small": {},
        "standard": dict(width=256, steps=20_000, tasks=8, members=32, checkpoint_every=500),
    }
    STEPS: ClassVar[dict[str, str]] = {"generator": "steps"}

    width: Width = setting(128, "width of the generator")
    depth: Depth = setting(2, "layers across the classes")
    coordinates: Width = setting(32, "principal coordinates of a trunk, which diffusion samples")
    components: Width = setting(64, "principal components of an image, which the generator sees")
    steps: Steps = setting(3_000, "optimiser steps")
    tasks: Batch = setting(4, "random tasks a step, whose loss is taken through the networks that are made for them")
    members: Batch = setting(8, "networks of the zoo a step, whose coordinates diffusion learns")
    lr: Positive = setting(1e-3, "peak learning rate (AdamW); it falls linearly to zero")
    weight_decay: Positive = setting(1e-2, "weight decay (AdamW)")
    max_classes: Batch = setting(20, "most classes of a random task")
    shots: Counts = setting((1, 2, 5, 5, 5, 10), "support images a class that training draws from")
    query: Batch = setting(5, "held-out images a class in the task loss")
    denoising: Positive = setting(0.1, "weight of the denoising loss beside the task loss")
    held_out: Share = setting(0.1, "share of the zoo's tasks that measure the generator and take no part in training")
    ema: Share = setting(0.995, "decay of the moving average, the weights that are sampled")
