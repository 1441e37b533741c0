"""A bundle opened for a data set: what it is shown of the data, and samples of heads."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d2nwg.bundles import DEFAULT_BUNDLE, load_pipeline, resolve_bundle
from d2nwg.conditions.task_names import name_classes
from d2nwg.encoders.open import FeatureEncoder, load_encoder, name_for
from d2nwg.encoders.split import SplitFeatures
from d2nwg.evaluation.selection import selection_split
from d2nwg.pipelines.heads import HeadSamples, WeightGenerationPipeline
from d2nwg.pipelines.sampling import choose_sampler, sample_heads
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent


@dataclass(frozen=True)
class Opened:
    """A bundle, ready to sample.

    Attributes:
        name: the bundle's.
        pipe, steps: with the sampler asked for, and its denoising steps.
        task: in words; None for a bundle that is shown the data.
        names: what the pipeline takes for the task (`name_classes`); None likewise.
        classes: names of the classes where they are a condition; empty where not.
        notes: sentences for the user.
    """

    name: str
    pipe: WeightGenerationPipeline
    steps: int
    encoder: FeatureEncoder
    task: str | None
    names: tuple | None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def on_own_encoder(self) -> bool:
        """Whether the heads sit on the same encoder as the zoo's."""
        return self.encoder.name == self.pipe.weight_space.config.encoder

    def part(self, data: SplitFeatures, shots: int, seed: int) -> tuple[Tensor, Tensor]:
        """Bool masks (n,) of the support items that condition the generator, and of those that choose a sample."""
        # A dual generator gains more from all of the support than from a choice among its samples; a task-conditioned
        # one sees none, so that all of them can choose.
        all_shown = self.pipe.uses_all_support or self.names
        shown, kept = selection_split(data.labels, 0 if all_shown else shots, seed)
        return shown, (shown if self.names else kept)

    def sample(
        self,
        by_class: list[Tensor],
        num_samples: int,
        generator: torch.Generator,
        unlabelled: Tensor | None = None,
        progress: Progress = silent,
    ) -> HeadSamples:
        """Sample heads; their state is on the CPU."""
        run: dict = {"steps": self.steps, "unlabelled": unlabelled, "task": self.names, "progress": progress}
        run |= {"names": self.classes, "encoder": self.encoder.name}
        samples = sample_heads(self.pipe, by_class, num_samples, generator, **run)
        samples.state = {name: tensor.cpu() for name, tensor in samples.state.items()}
        return samples


def open_for(
    given, classes, bundle, encoder, with_unlabelled: bool, task, sampler, steps, device, progress: Progress
) -> Opened:
    """Open the bundle and its encoder. What they cannot do is refused before minutes are spent on reading."""
    progress("Opening the bundle", 0, 1)
    path = resolve_bundle(bundle)
    pipe, steps = choose_sampler(load_pipeline(path, device), sampler, steps)
    space = pipe.weight_space
    if pipe.max_classes is not None and len(given.classes) > pipe.max_classes:
        raise UserError(
            f"{given.name} has {len(given.classes)} classes, and the bundle {path.name} makes heads for at most "
            f"{pipe.max_classes}: leave some classes out, or choose another bundle."
        )
    name = name_for(given, encoder, space.config.encoder)
    other = not pipe.any_encoder and name != space.config.encoder
    if other or (with_unlabelled and not pipe.uses_unlabelled):
        what = f"the encoder {name}" if other else f"unlabelled {given.noun}s"
        raise UserError(f"The bundle {path.name} cannot use {what}: choose a dual bundle, such as {DEFAULT_BUNDLE}.")
    task = task or given.name if pipe.tasks or task else None
    names = name_classes(pipe.tasks, task, given.classes) if task else None
    opened = Opened(path.name, pipe, steps, load_encoder(name, device), task, names)
    if pipe.uses_names:
        ignored = pipe.names_on(opened.encoder.name).why_not(classes)
        opened = replace(opened, notes=(ignored,)) if ignored else replace(opened, classes=tuple(classes))
    progress("Opening the bundle", 1, 1)
    return opened
