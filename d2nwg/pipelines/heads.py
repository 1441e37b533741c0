"""Sampling heads: condition → latents → weights. One pipeline for each kind of denoiser, with one interface."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from typing_extensions import Self

from d2nwg.conditions.base import Condition, Conditioner, Task
from d2nwg.models.dual import COEFFICIENTS, DualDenoiser
from d2nwg.models.names import NameSpace
from d2nwg.models.padding import Padding
from d2nwg.models.schedulers import ancestral
from d2nwg.models.spaces import WeightSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.base import BundlePipeline, find_folder, read_index
from d2nwg.pipelines.denoise import denoise
from d2nwg.pipelines.names import EncoderNames, encoder_names
from d2nwg.utils.errors import UserError
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
    """

    state: State
    vectors: Tensor | None
    order: Tensor | None
    trust: float | None = None

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
        task = task if isinstance(task, Task) else Task(support=list(task))
        if task.support or not (task.ids or (task.names and self.uses_names)):
            task = replace(task, support=self._check(task.support))
        run = (num_inference_steps, generator, progress)
        return self._sample(task, num_samples, run, guidance_scale=guidance_scale, unlabelled=unlabelled)

    def for_tasks(self, tasks, shares=None, *args, **kwargs) -> HeadSamples:
        """`__call__` for ``Task(ids=tasks, shares=shares)``."""
        return self(Task(ids=tasks, shares=shares), *args, **kwargs)

    def ancestral(self) -> "WeightGenerationPipeline":
        """The same pipeline with ancestral sampling (D2NWG, equation 6)."""
        return type(self)(**self.components | {"scheduler": ancestral(self.scheduler)})

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


class LatentHeadPipeline(WeightGenerationPipeline):
    """The paper's: a VAE of whole heads, a conditioner and a UNet over latents. Heads of up to
    ``weight_space.max_classes`` classes on the bundle's encoder."""

    vae: WeightVAE
    condition_encoder: Conditioner
    denoiser: ConditionalUNet
    weight_space: WeightSpace

    def __init__(self, vae, condition_encoder, denoiser, scheduler, weight_space):
        super().__init__()
        self._register(
            vae=vae,
            condition_encoder=condition_encoder,
            denoiser=denoiser,
            scheduler=scheduler,
            weight_space=weight_space,
        )

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

    def padding(self, count: int) -> Padding | None:
        """The rows of a latent that belong to no class of a head of ``count`` classes; None where there is none."""
        mask = self.weight_space.layout.mask(torch.tensor([count], device=self.weight_space.mean.device))
        return self.vae.padding(mask)

    def _sample(self, task: Task, num_samples: int, run, *, guidance_scale: float, unlabelled: Tensor | None):
        condition, order = self.condition_encoder.encode(task, self.weight_space)
        beside = self.denoiser.lay_out(condition)
        empty = None
        if guidance_scale != 1.0:
            empty = self.denoiser.lay_out(condition.dropped(torch.tensor([True], device=beside.device)))

        def predict(latents, time):
            with_condition = self.denoiser.denoise(latents, time, beside)
            if empty is None:
                return with_condition
            without = self.denoiser.denoise(latents, time, empty)
            return without + guidance_scale * (with_condition - without)

        noise = self._noise((num_samples, *self.vae.latent_shape), run[1])
        latents = self._denoise(predict, noise, run, self.padding(len(order)))
        vectors = self.vae.decode(latents / self.vae.config.latent_scale)
        return HeadSamples(self.weight_space.to_heads(vectors, order), vectors, order)


class DualHeadPipeline(WeightGenerationPipeline):
    """Diffuses corrections of a closed-form head's coefficients on the support images (`d2nwg.models.dual`): any
    number of classes, any encoder."""

    any_encoder = uses_unlabelled = uses_all_support = True
    _optional_components = ["names"]  # noqa: RUF012 (diffusers')
    denoiser: DualDenoiser
    weight_space: WeightSpace
    names: NameSpace | None

    def __init__(self, denoiser, scheduler, weight_space, names):
        super().__init__()
        self._register(denoiser=denoiser, scheduler=scheduler, weight_space=weight_space, names=names)

    @property
    def max_classes(self) -> None:
        """See `WeightGenerationPipeline`."""
        return None

    @property
    def uses_names(self) -> bool:
        """See `WeightGenerationPipeline`."""
        return self.names is not None

    def names_on(self, encoder: str | None = None) -> EncoderNames:
        """What class names are worth on an encoder, by default the bundle's.

        Raises:
            UserError: the bundle has none.
        """
        if self.names is None:
            raise UserError("This bundle was trained without class names: choose another one, or show it images.")
        return encoder_names(self.names, encoder or self.names.config.encoder)

    def _names_for(self, task: Task) -> EncoderNames | None:
        """Names on the task's encoder; None without names in the bundle, or for features that are not of its own."""
        if self.names is None:
            return None
        own = self.names.config.num_features
        if task.encoder is None and task.support and task.support[0].shape[-1] != own:
            return None
        return self.names_on(task.encoder)

    def _sample(self, task: Task, num_samples: int, run, *, guidance_scale: float, unlabelled: Tensor | None):
        support, names = task.support, self._names_for(task)
        if support and task.names and len(task.names) != len(support):
            raise UserError(f"{len(task.names)} names are given for {len(support)} classes: name each of them.")
        directions = names.directions(task.names) if names and task.names else None
        if not support:
            return self._from_names(task, names, directions, num_samples, run[1])
        features = torch.cat(support).unsqueeze(0)
        labels = torch.arange(len(support)).repeat_interleave(torch.tensor([len(images) for images in support]))
        targets = torch.eye(len(support), device=features.device)[labels.to(features.device)].unsqueeze(0)
        if unlabelled is not None:
            unlabelled = unlabelled.to(features).unsqueeze(0)
        if names is not None:
            features = names.features(features)
            unlabelled = None if unlabelled is None else names.features(unlabelled)
            directions = directions and directions.to(features)
        condition = self.denoiser.encode(features, targets, unlabelled, directions)
        noise = condition.arrange(self._noise((num_samples, condition.num_tokens, COEFFICIENTS), run[1]))
        latents = self._denoise(lambda latents, time: self.denoiser(latents, time, condition), noise, run)
        state = self.denoiser.to_heads(latents, condition, names.onto if names else None)
        state = names.fold(state, turned=True) if names else state
        trust = None if condition.gate is None else float(condition.gate)
        return HeadSamples(state, *self._vectors(state, support), trust)

    def _from_names(self, task: Task, names: EncoderNames | None, directions, num_samples: int, generator):
        if not task.names or names is None:
            raise UserError("This bundle is conditioned on images of the task: give some of each class.")
        if len(task.names) < 2:
            raise UserError(f"A head tells at least two classes apart, and {len(task.names)} is named.")
        if directions is None:
            raise UserError(
                f"The encoder {names.encoder} has neither a text tower nor a classifier of ImageNet's classes, so "
                "names alone make no head on it: give images, or choose another encoder."
            )
        return HeadSamples(names.heads(directions, num_samples, generator), None, None)

    def _vectors(self, state: State, support: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Heads on the encoder's features in the layout of the zoo's, and the order of their classes; None where the
        layout cannot hold them."""
        space = self.weight_space
        if len(support) > space.max_classes or support[0].shape[-1] != space.config.num_features:
            return None, None
        order = space.canonical_order(torch.stack([space.project(images).mean(0) for images in support]))
        return space.to_vectors(state, order), order
