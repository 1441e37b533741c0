"""Sampling heads: condition → latents → weights. One pipeline for each kind of denoiser, with one interface."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from typing_extensions import Self

from d2nwg.conditions.base import Condition, Conditioner, Task
from d2nwg.models.padding import Padding
from d2nwg.models.schedulers import ancestral
from d2nwg.models.spaces import WeightSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import Latents
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.base import BundlePipeline, LatentPipeline, find_folder, read_index
from d2nwg.pipelines.denoise import check_numbers, denoise
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, build_head, pick


@dataclass
class HeadSamples:
    """Generated heads.

    Attributes:
        state: all heads as one batch, on the encoder's own features: for linear heads ``weight`` (S, C, D) and
            ``bias`` (S, C).
        vectors: (S, N) the same heads as standardised vectors of the bundle's layout, classes in canonical order; None
            where the layout cannot hold them: more classes than it has rows, or another encoder.
        order: (C,) the classes in canonical order, in which ``vectors`` hold their rows; None where those are.
        trust: the weight that images without labels were given, from 0 to 1; None without any.
        belief: the probability that the names are those of the classes, by the images, which is how far they count;
            None where names or images are no condition.
        expected: (1 + S,) the accuracies that the bundle's predictor expects of the average of the heads and of each;
            None without a predictor.
    """

    state: State
    vectors: Tensor | None
    order: Tensor | None
    trust: float | None = None
    belief: float | None = None
    expected: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.state.values())))

    @property
    def modules(self) -> list[nn.Module]:
        """The heads as plain modules: `nn.Linear(D, C)` or ``Sequential(Linear, ReLU, Linear)``."""
        return [build_head(pick(self.state, i)) for i in range(len(self))]


class WeightGenerationPipeline(BundlePipeline):
    """Samples classifier heads for a task (D2NWG, section 3.4): what `LatentHeadPipeline` and `DualHeadPipeline` share.

    >>> pipe = WeightGenerationPipeline.from_pretrained("pretrained/heads-dual")
    >>> samples = pipe(support, num_samples=50, generator=torch.Generator().manual_seed(0))
    >>> samples.state["weight"].shape, samples.modules[0]

    `from_pretrained` of this class returns the one that the bundle is for. Any diffusers scheduler for discrete time
    steps can take the place of ``pipe.scheduler``.

    Attributes:
        any_encoder: whether heads can be made on the features of any encoder; else on the bundle's only.
        uses_unlabelled: whether images without labels are used.
        uses_all_support: whether generation gains more from the whole support than from a choice among its samples.
    """

    any_encoder: ClassVar[bool] = False
    uses_unlabelled: ClassVar[bool] = False
    uses_all_support: ClassVar[bool] = False

    @property
    def uses_names(self) -> bool:
        """Whether class names are a condition."""
        return False

    @classmethod
    def from_pretrained(cls, path: str | Path, **download) -> Self:
        """See `BundlePipeline.from_pretrained`."""
        if cls is not WeightGenerationPipeline:
            return super().from_pretrained(path, **download)
        from d2nwg.pipelines.heads_dual import DualHeadPipeline

        index = read_index(find_folder(path, **download))
        dual = "DualDenoiser" in index.get("denoiser", ())
        return (DualHeadPipeline if dual else LatentHeadPipeline).from_pretrained(path, **download)

    @property
    def max_classes(self) -> int | None:
        """The most classes of a head; None for any number."""
        return self.weight_space.max_classes

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The classes of each task that can be given by its id; none where ids are not the condition."""
        return {}

    @torch.inference_mode()
    def __call__(
        self,
        task: Task | Tensor | Sequence[Tensor],
        num_samples: int = 50,
        generator: torch.Generator | None = None,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = 1.0,
        unlabelled: Tensor | None = None,
        progress: Progress = silent,
    ) -> HeadSamples:
        """Sample heads.

        Args:
            task: a `Task`; or its support alone: features of the support images, (C, M, D) or a sequence of C tensors
                (M_i, D), from the encoder that ``weight_space.config.encoder`` names.
            num_samples: S.
            generator: of the noise; the same one gives the same heads, with any scheduler.
            num_inference_steps: denoising steps.
            guidance_scale: of classifier-free guidance: 1 samples the condition as learnt, more exaggerates it.
                Dual-coordinate generators have none.
            unlabelled: (m, D) features of images of the same classes without labels, in any order and proportion; left
                aside unless ``uses_unlabelled``.
            progress: called with the stage ``"Sampling heads"``.
        Raises:
            UserError: fewer than two classes or more than the bundle can hold, a class without images, features of
                another width, an unknown id; or the scheduler does not suit the denoiser.
        """
        check_numbers(num_samples, num_inference_steps, self.scheduler, guidance_scale)
        task = task if isinstance(task, Task) else Task(support=list(task))
        if task.support or not (task.ids or (task.names and self.uses_names)):
            task = replace(task, support=self._check(task.support))
            sizes = len(task.support), task.support[0].shape[-1], sum(map(len, task.support))
            self.check_size(num_samples, *sizes, 0 if unlabelled is None else len(unlabelled))
        run = (num_inference_steps, generator, progress)
        return self._sample(task, num_samples, run, guidance_scale=guidance_scale, unlabelled=unlabelled)

    def for_tasks(self, tasks, shares=None, *args, **kwargs) -> HeadSamples:
        """`__call__` for ``Task(ids=tasks, shares=shares)``."""
        return self(Task(ids=tasks, shares=shares), *args, **kwargs)

    def ancestral(self) -> "WeightGenerationPipeline":
        """The same pipeline with ancestral sampling (D2NWG, equation 6)."""
        return type(self)(**self.components | {"scheduler": ancestral(self.scheduler)})

    def sample_bytes(self, classes: int, features: int, images: int) -> float:
        """Bytes that sampling takes for each head, at least.

        Args:
            classes, features: of the head.
            images: that generation sees.
        """
        shapes = self.weight_space.layout.shapes
        hidden = shapes["0.bias"][0] if "0.bias" in shapes else 0
        head = hidden * (features + 1) + classes * (hidden + 1) if hidden else classes * (features + 1)
        return 4 * (2 * head + self.weight_space.layout.size)

    def check_size(self, num_samples: int, classes: int, features: int, images: int, unlabelled: int = 0) -> None:
        """Refuse more heads than fit into the memory.

        Args:
            classes, features: of a head.
            images, unlabelled: that generation sees, with labels and without.
        Raises:
            UserError: they do not fit.
        """
        seen = images * (2 if unlabelled else 1) + unlabelled
        needed = num_samples * self.sample_bytes(classes, features, seen) * (1.5 if unlabelled else 1)
        what = f"Generating {num_samples:,} heads for {classes:,} classes at once"
        check_memory(needed, what, "ask for fewer samples", self.weight_space.mean.device)

    @torch.inference_mode()
    def attempt(self) -> None:
        """See `BundlePipeline`."""
        width = self.weight_space.config.num_features
        task = Task(support=[torch.linspace(0, 1, width)[None], torch.linspace(1, 0, width)[None]])
        if self.tasks:
            name, classes = next(iter(self.tasks.items()))
            sizes = self.weight_space.zoo_counts.long().unique().tolist()
            count = sizes[0] if len(sizes) == 1 else min(len(classes), self.weight_space.max_classes)
            task = Task(ids=[[f"{name}/{label}" for label in classes[:count]]])
        with contextlib.suppress(UserError):  # a bundle for which this is no task
            run = (1, torch.Generator().manual_seed(0), silent)
            self._sample(task, 1, run, guidance_scale=1.0, unlabelled=None)

    def _sample(self, task: Task, num_samples: int, run, *, guidance_scale: float, unlabelled: Tensor | None):
        raise NotImplementedError

    def _check(self, support) -> list[Tensor]:
        space, most = self.weight_space, self.max_classes
        support = [images.to(space.mean.device, torch.float32) for images in support]
        if most is None and len(support) < 2:
            raise UserError(f"A head tells at least two classes apart, and the data set has {len(support)}.")
        if most is not None and not 2 <= len(support) <= most:
            raise UserError(
                f"This bundle makes heads for 2 to {most} classes, and the data set has {len(support)}: "
                "leave some classes out, or choose another bundle."
            )
        for number, images in enumerate(support):
            if not len(images):
                raise UserError(f"Class number {number + 1} has no support image.")
            if images.shape[-1] != (support[0].shape[-1] if self.any_encoder else space.config.num_features):
                raise UserError(
                    f"The features are {images.shape[-1]} wide, and this bundle takes {space.config.num_features}: "
                    f"use its encoder, {space.config.encoder}."
                )
        return support

    def _noise(self, shape: tuple[int, ...], generator) -> Tensor:
        return randn_tensor(shape, generator=generator, device=self.weight_space.mean.device, dtype=torch.float32)

    def _denoise(self, predict, noise: Tensor, run, padding: Padding | None = None) -> Tensor:
        """Noise (S, ...) → clean latents (S, ...); ``predict(latents, time)`` is the denoiser with its condition, and
        ``run`` (steps, generator, progress)."""
        steps, generator, progress = run
        given = {"generator": generator, "padding": padding, "stage": "Sampling heads", "progress": progress}
        return denoise(self.scheduler, predict, noise, steps, **given)


class LatentHeadPipeline(LatentPipeline, WeightGenerationPipeline):
    """The paper's: a VAE of whole heads, a conditioner and a UNet over latents. Heads of up to
    ``weight_space.max_classes`` classes on the bundle's encoder."""

    vae: Latents
    condition_encoder: Conditioner
    denoiser: ConditionalUNet
    weight_space: WeightSpace

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """See `WeightGenerationPipeline`."""
        return self.condition_encoder.tasks

    def condition(self, task: Task, order: Tensor | None = None) -> tuple[Condition, Tensor]:
        """The condition (batch of 1) of a task, and the order (C,) in which its classes take their slots: the canonical
        one unless given. Raises UserError as `__call__` does."""
        if task.support:
            task = replace(task, support=self._check(task.support))
        return self.condition_encoder.encode(task, self.weight_space, order)

    def sample_bytes(self, classes: int, features: int, images: int) -> float:
        """See `WeightGenerationPipeline`; the denoiser holds the outputs of several layers."""
        _, rows, columns = self.vae.latent_shape
        wide = rows * columns * sum(self.denoiser.config.channels)
        return super().sample_bytes(classes, features, images) + 4 * 4 * wide

    def padding(self, count: int) -> Padding | None:
        """The rows of a latent that belong to no class of a head of ``count`` classes; None where there is none."""
        mask = self.weight_space.layout.mask(torch.tensor([count], device=self.weight_space.mean.device))
        return self.vae.padding(mask)

    def _sample(self, task: Task, num_samples: int, run, *, guidance_scale: float, unlabelled: Tensor | None):
        condition, order = self.condition_encoder.encode(task, self.weight_space)
        predict = self._predictor(condition, guidance_scale)
        noise = self._noise((num_samples, *self.vae.latent_shape), run[1])
        latents = self._denoise(predict, noise, run, self.padding(len(order)))
        vectors = self.vae.decode(latents / self.vae.config.latent_scale)
        expected = self._expected(torch.cat([vectors.mean(0, keepdim=True), vectors]), task, order)
        return HeadSamples(self.weight_space.to_heads(vectors, order), vectors, order, expected=expected)

    def _expected(self, vectors: Tensor, task: Task, order: Tensor) -> Tensor | None:
        """The accuracies (S,) that the predictor expects of vectors (S, N); None without a predictor."""
        space, beside = self.weight_space, ()
        if self.predictor is None:
            return None
        if self.predictor.conditioned:
            means = vectors.new_zeros(1, space.max_classes, space.config.projected)
            means[0, : len(order)] = torch.stack([space.project(images).mean(0) for images in task.support])[order]
            beside = (means.expand(len(vectors), -1, -1),)
        mask = space.layout.mask(torch.tensor([len(order)], device=vectors.device))
        return self.predictor(vectors, mask.expand(len(vectors), -1), *beside)
