"""Heads from a pipeline, with the number of steps that a person chose."""

import torch
from torch import Tensor

from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.heads import HeadSamples, WeightGenerationPipeline
from d2nwg.utils.progress import Progress, silent


def sample_heads(
    pipe: WeightGenerationPipeline,
    by_class: list[Tensor],
    num_samples: int,
    generator: torch.Generator,
    steps: int | None = None,
    progress: Progress = silent,
    unlabelled: Tensor | None = None,
    task: tuple | None = None,
) -> HeadSamples:
    """Sample heads with the bundle's own sampler; its full number of steps means the paper's ancestral one.

    Args:
        by_class: features of the support images, C tensors (M_i, D).
        unlabelled: (m, D) features of images without labels, for dual bundles.
        task: names and shares (`name_classes`), which take the place of the support in a task-conditioned bundle.
    """
    steps = steps or DEFAULT_STEPS
    if steps >= pipe.scheduler.config.num_train_timesteps:
        pipe = pipe.ancestral()
        steps = pipe.scheduler.config.num_train_timesteps
    run = {"num_samples": num_samples, "generator": generator, "num_inference_steps": steps, "progress": progress}
    return pipe.for_tasks(*task, **run) if task else pipe(by_class, unlabelled=unlabelled, **run)
