"""Heads from a pipeline, with the sampler and the number of steps that a person chose."""

from collections.abc import Sequence

import torch
from torch import Tensor

from d2nwg.conditions.base import Task
from d2nwg.pipelines import ANCESTRAL, DEFAULT, DEFAULT_STEPS, SAMPLERS
from d2nwg.pipelines.heads import HeadSamples, WeightGenerationPipeline
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown


def choose_sampler(
    pipe: WeightGenerationPipeline, sampler: str = DEFAULT, steps: int | None = None
) -> tuple[WeightGenerationPipeline, int]:
    """A pipeline with the same parts and the sampler asked for, and its number of denoising steps.

    Args:
        sampler: ``"default"``, the bundle's own scheduler, or ``"ancestral"``, the paper's sampler (equation 6).
        steps: denoising steps; by default 5, or for the ancestral sampler all that the bundle was trained with.
    Raises:
        UserError: no such sampler, or more steps than the bundle was trained with.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"There is no sampler {shown(sampler)}: choose one of {', '.join(SAMPLERS)}.")
    most = pipe.scheduler.config.num_train_timesteps
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= most):
        raise UserError(
            f"The denoising steps of this bundle are 1 to {most:,}, not {shown(steps, 40)}; the paper's sampler is the "
            f"sampler {ANCESTRAL}."
        )
    if sampler == DEFAULT:
        return pipe, steps or DEFAULT_STEPS
    return pipe.ancestral(), steps or most


def sample_heads(
    pipe: WeightGenerationPipeline,
    by_class: list[Tensor],
    num_samples: int,
    generator: torch.Generator,
    steps: int = DEFAULT_STEPS,
    progress: Progress = silent,
    unlabelled: Tensor | None = None,
    task: tuple | None = None,
    names: Sequence[str] = (),
    encoder: str | None = None,
) -> HeadSamples:
    """Sample heads from a data set or for a named task, whichever the bundle is conditioned on.

    Args:
        by_class: features of the support images, C tensors (M_i, D).
        num_samples: heads to sample.
        generator: of the noise.
        steps: denoising steps.
        progress: stage "Sampling heads".
        unlabelled: (m, D) features of images without labels, for dual bundles.
        task: names and shares (`name_classes`), which take the place of the support in a task-conditioned bundle.
        names: of the C classes, for bundles that were trained with names.
        encoder: of the images, by name; None for the bundle's.
    """
    run = {"num_samples": num_samples, "generator": generator, "num_inference_steps": steps, "progress": progress}
    if task:
        return pipe.for_tasks(*task, **run)
    return pipe(Task(support=by_class, names=names, encoder=encoder), unlabelled=unlabelled, **run)
