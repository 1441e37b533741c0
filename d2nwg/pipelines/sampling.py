"""Heads from a bundle on disk: load its pipeline, and sample with it."""

from functools import lru_cache
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from d2nwg.bundles import DEFAULT_STEPS
from d2nwg.pipelines.heads import HeadSamples, WeightGenerationPipeline
from d2nwg.utils.devices import loading, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent


def load_pipeline(path: Path, device: str | None = None) -> WeightGenerationPipeline:
    """The pipeline of a bundle, loaded once a process, and again when the bundle has changed.

    Raises:
        UserError: the folder is no complete bundle, or there is no such device.
    """
    changed = (path / "model_index.json").stat().st_mtime_ns
    with loading:
        return _load_pipeline(path.resolve(), resolve_device(device), changed)


@lru_cache(maxsize=2)
def _load_pipeline(path: Path, device: str, _changed: int) -> WeightGenerationPipeline:
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipe = WeightGenerationPipeline.from_pretrained(path, local_files_only=True)
    except Exception as reason:  # diffusers raises many types; all mean that the folder is damaged
        raise UserError(f"The bundle {path} cannot be opened: {str(reason).splitlines()[0]}") from reason
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


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
        pipe = WeightGenerationPipeline(**pipe.components)
        steps = pipe.use_ancestral_sampler()
    run = {"num_samples": num_samples, "generator": generator, "num_inference_steps": steps, "progress": progress}
    return pipe.for_tasks(*task, **run) if task else pipe(by_class, unlabelled=unlabelled, **run)
