"""What can be chosen in refining a language model, and the presets."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from d2nwg.training.config_base import Batch, JsonConfig, Positive
from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Count, Seed, Steps, Width, Widths
from d2nwg.utils.text import shown

CRITERIA = ("accuracy", "confidence")
Few = Annotated[int, Ge(0), Le(10**5)]  # of what takes seconds each


@dataclass(frozen=True)
class RefineConfig(JsonConfig):
    """Every number of a refinement; `UserError` for one out of its limits.

    Attributes:
        preset: what it began as.
        mode: of the signal-to-noise ratio that chooses the matrices (`spectrum.MODES`).
        percent: the top share of each type that is looked at.
        parts: what is generated: ``matrices`` of the blocks, all vectors of the ``norms`` as one, the output ``head``
            (with the embeddings, where they are tied), or ``all`` parameters of the model. Mode, percent and layers
            choose among matrices, and count for nothing else.
        layers: most matrices to refine, the best ranked of each type first; 0 for all that were chosen. With a zoo, how
            many groups of adjacent blocks are made; 0 for each by itself.
        group: with 4, the top 4 of each type have a generator, the second top 4 another, and so on; 0: all have one.
            Norms always have their own.
        candidates: K, sampled for each matrix; baselines have as many tries, or fewer.
        passes: over all matrices, with fresh candidates in each; one that accepts nothing is the last.
        racing: candidates are scored on a tenth, a fifth, two fifths, seven tenths and all of the selection questions,
            and dropped on the way (`d2nwg.llm.racing`); otherwise all are scored on all.
        chunk: numbers a chunk; whole rows of the residual stream.
        compression: numbers of a matrix for each latent; what can be had is near it.
        vae_channels: width of the VAE's convolutions.
        unet_channels: widths of the denoiser's levels.
        vae_steps, diffusion_steps: optimiser steps.
        batch_size: chunks a step.
        vae_lr, diffusion_lr: peak learning rates.
        kl_weight: β. It sets how wide the VAE's posterior is: samples of one model's chunk lie about the square root of
            β/2 from its reconstruction, relative to it.
        reach: a candidate's distance from the weights it replaces, relative to their norm, is cut down to at most
            this.
        sampling_steps: denoising steps a sample.
        criterion: what a candidate must be better in: ``accuracy``, as in the paper, or ``confidence``, the mean
            log-probability of the right choice under a temperature that is fitted once, on the base model. The
            one-sided 90 % interval of the paired difference must lie above 0.
        normalise: score choices per character (the harness's acc_norm).
        select_questions, report_questions: most questions of each set, drawn by the seed; 0 for all.
        checkpoint_every: optimiser steps between checkpoints.
        seed: of everything that is drawn.
    """

    preset: str = "quick"
    mode: Literal["paper", "spectrum"] = "paper"
    percent: Annotated[float, Gt(0), Le(100)] = 25.0
    parts: Literal["matrices", "norms", "head", "all"] = "matrices"
    layers: Few = 7
    group: Few = 0
    candidates: Annotated[int, Ge(1), Le(10**5)] = 6
    passes: Annotated[int, Ge(1), Le(1000)] = 1
    racing: bool = True
    chunk: Count = 36_864
    compression: Annotated[float, Ge(1), Le(10**6)] = 2.0
    vae_channels: Width = 32
    unet_channels: Widths = (32,)
    vae_steps: Steps = 60
    diffusion_steps: Steps = 120
    batch_size: Batch = 4
    vae_lr: Positive = 1e-3
    diffusion_lr: Positive = 2e-3
    kl_weight: Annotated[float, Gt(0), Le(10**6)] = 0.1
    reach: Positive = 0.5
    sampling_steps: Annotated[int, Ge(1), Le(1024)] = 5
    criterion: Literal["accuracy", "confidence"] = "accuracy"
    normalise: bool = False
    select_questions: Annotated[int, Ge(0), Le(10**6)] = 64
    report_questions: Annotated[int, Ge(0), Le(10**6)] = 200
    checkpoint_every: Count = 50
    seed: Seed = 0

    @classmethod
    def of(cls, name: str, *, zoo: bool = False, **changes) -> "RefineConfig":
        """``tiny`` (a few minutes on two cores for 135 million parameters), ``quick`` (under fifteen), ``standard``
        (hours, or a GPU) or ``paper`` (chunks of 2,097,152 numbers; one 80 GB GPU for a billion parameters).

        With a ``zoo``, ``quick`` has 6 groups of blocks and 4 candidates, and the criterion is ``confidence``."""
        if not isinstance(name, str) or name not in PRESETS:
            raise UserError(f"Preset {shown(name)!r} is not known: choose one of {', '.join(PRESETS)}.")
        with_zoo = {"criterion": "confidence", **ZOO_PRESETS.get(name, {})} if zoo else {}
        return replace(cls(preset=name, **PRESETS[name]), **{**with_zoo, **changes})


PRESETS: dict[str, dict] = {
    "tiny": dict(
        layers=4, candidates=3, vae_channels=16, unet_channels=(16,), vae_steps=20, diffusion_steps=40,
        select_questions=40, report_questions=120,
    ),
    "quick": {},
    "standard": dict(
        layers=0, candidates=16, chunk=147_456, vae_channels=64, unet_channels=(64, 128), vae_steps=500,
        diffusion_steps=3_000, batch_size=8, sampling_steps=20, select_questions=500, report_questions=0,
        checkpoint_every=250,
    ),
    "paper": dict(
        layers=0, candidates=25, chunk=2_097_152, vae_channels=64, unet_channels=(64, 128, 128), vae_steps=4_000,
        diffusion_steps=20_000, batch_size=8, vae_lr=3e-4, diffusion_lr=3e-4, sampling_steps=50, select_questions=0,
        report_questions=0, checkpoint_every=1_000,
    ),
}  # fmt: skip
ZOO_PRESETS: dict[str, dict] = {"quick": dict(layers=6, candidates=4)}  # what is different with a zoo


def smaller(preset: str) -> str:
    """The next smaller preset's name; of the smallest, its own."""
    names = list(PRESETS)
    return names[max(0, names.index(preset) - 1)] if preset in names else names[0]
