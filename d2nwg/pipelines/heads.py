"""The sampling pipeline: condition → latents → vectors → heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from d2nwg.bundles import DEFAULT_STEPS
from d2nwg.conditions.dataset import DatasetEncoder
from d2nwg.conditions.task_id import TaskIndex, compose
from d2nwg.models.dual import COEFFICIENTS, DualDenoiser
from d2nwg.models.padding import Padding
from d2nwg.models.schedulers import ancestral
from d2nwg.models.spaces import WeightSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines.denoise import denoise
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
        trust: how far images without labels counted, from 0 to 1; None without any.
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


class WeightGenerationPipeline(DiffusionPipeline):
    """Samples classifier heads for a data set from a few images a class (D2NWG, section 3.4).

    >>> pipe = WeightGenerationPipeline.from_pretrained("pretrained/heads-efficientnet-lite0")
    >>> samples = pipe(support, num_samples=50, generator=torch.Generator().manual_seed(0))
    >>> samples.state["weight"].shape, samples.modules[0]

    A bundle is what `save_pretrained` writes. Any diffusers scheduler can take the place of ``pipe.scheduler``.

    The denoiser says which kind of bundle it is: with a `ConditionalUNet` a VAE and a data-set encoder belong to it and
    heads have up to ``weight_space.max_classes`` classes; a `DualDenoiser` needs neither, and takes any number of
    classes and any encoder's features.
    """

    _optional_components: ClassVar = ["vae", "condition_encoder"]
    vae: WeightVAE | None
    condition_encoder: DatasetEncoder | TaskIndex | None
    denoiser: ConditionalUNet | DualDenoiser
    weight_space: WeightSpace

    def __init__(self, vae, condition_encoder, denoiser, scheduler, weight_space):
        super().__init__()
        self.register_modules(
            vae=vae,
            condition_encoder=condition_encoder,
            denoiser=denoiser,
            scheduler=scheduler,
            weight_space=weight_space,
        )

    @torch.inference_mode()
    def __call__(
        self,
        support: Tensor | Sequence[Tensor],
        num_samples: int = 50,
        generator: torch.Generator | None = None,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = 1.0,
        unlabelled: Tensor | None = None,
        progress: Progress = silent,
    ) -> HeadSamples:
        """Sample heads.

        Args:
            support: features of the support images, (C, M, D) or a sequence of C tensors (M_i, D), from the encoder
                that ``weight_space.config.encoder`` names.
            num_samples: S.
            generator: of the noise; the same one gives the same heads.
            num_inference_steps: denoising steps.
            guidance_scale: 1 samples the condition as learnt; above 1 exaggerates it (classifier-free guidance, UNet
                bundles only).
            unlabelled: (m, D) features of images of the same classes without labels, in any order and proportion. Dual
                bundles learn from them; others leave them aside.
            progress: called with the stage ``"Sampling heads"``.
        Raises:
            UserError: fewer than two classes or more than the bundle can hold, a class without images, or features
                of another width.
        """
        support = self._check(support)
        make = self._sample_dual if self.is_dual else self._sample_unet
        run = (num_samples, generator, generator, num_inference_steps, progress)
        return make(support, unlabelled if self.is_dual else guidance_scale, *run)

    @property
    def is_told(self) -> bool:
        """Whether the bundle is told tasks by name (`for_tasks`) and looks at no images."""
        return isinstance(self.condition_encoder, TaskIndex)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The classes of each task that it is told by name; none where it is shown images."""
        return self.condition_encoder.tasks if self.is_told else {}

    @property
    def is_dual(self) -> bool:
        """Whether the bundle diffuses coefficients on the support images."""
        return isinstance(self.denoiser, DualDenoiser)

    @torch.inference_mode()
    def for_tasks(
        self,
        tasks: Sequence[Sequence[str]],
        shares: Sequence[float] | None = None,
        num_samples: int = 50,
        generator: torch.Generator | None = None,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = 1.0,
        progress: Progress = silent,
    ) -> HeadSamples:
        """Sample networks for tasks told by name, in a bundle trained with ``--condition task``.

        Args:
            tasks: the class names (``"data set/class"``) of each task; with several, row i of the result belongs to the
                i-th class of every one of them.
            shares: of the tasks' ids in the id that is sampled; by default equal. They may be negative.
        Raises:
            UserError: the bundle is told by images, or does not know a name, or the tasks differ in their number of
                classes.
        """
        condition, order = self.told_condition(tasks, shares)
        run = (generator, num_inference_steps, progress)
        return self._sample_given(condition, order, guidance_scale, num_samples, generator, *run)

    def told_condition(self, tasks: Sequence[Sequence[str]], shares: Sequence[float] | None = None):
        """The condition (batch of 1) of a mix of tasks told by name, as in `for_tasks`, and the canonical order (C,) of
        the classes as they were named.

        Raises:
            UserError: as `for_tasks`.
        """
        index, sizes = self.condition_encoder, self.weight_space.zoo_counts.long().unique().tolist()
        if not self.is_told:
            raise UserError("This bundle is shown images of a task: one trained with --condition task is told names.")
        if not tasks or len({len(names) for names in tasks}) > 1 or len(tasks[0]) > self.weight_space.max_classes:
            raise UserError("Tasks that are mixed need the same number of classes, and no more than the bundle holds.")
        device, count = self.weight_space.mean.device, len(tasks[0])
        if len(sizes) == 1 and count != sizes[0]:
            raise UserError(f"This bundle makes networks for {sizes[0]} classes, and the task has {count}.")
        conditions = []
        # The bundle knows classes in the order of their numbers; rows are put back into the order they were named in.
        order = index.numbers(tasks[0]).argsort()
        for names in tasks:
            padded = torch.full((1, self.weight_space.max_classes), -1)
            padded[0, :count] = index.numbers(names)[order]
            conditions.append(index(padded.to(device)))
        return compose(conditions, shares or [1 / len(tasks)] * len(tasks)), order.to(device)

    def _sample_unet(self, support: list[Tensor], guidance: float, num_samples: int, generator, *run) -> HeadSamples:
        return self._sample_given(*self._condition(support), guidance, num_samples, generator, *run)

    def _sample_given(self, condition, order, guidance: float, num_samples: int, generator, *run) -> HeadSamples:
        beside = self.denoiser.lay_out(condition)
        predict = self.denoiser.denoise
        if guidance != 1.0:
            drop = torch.tensor([True], device=beside.device)
            without = self.denoiser.lay_out(condition.dropped(drop))

            def predict(latents, time, beside):
                empty = self.denoiser.denoise(latents, time, without)
                return empty + guidance * (self.denoiser.denoise(latents, time, beside) - empty)

        noise = self._noise((num_samples, *self.vae.latent_shape), generator)
        padding = self.padding(len(order))
        latents = self._denoise(lambda latents, time: predict(latents, time, beside), noise, *run, padding=padding)
        vectors = self.vae.decode(latents / self.vae.config.latent_scale)
        state = self.weight_space.to_heads(vectors, order)
        return HeadSamples(state=state, vectors=vectors, order=order)

    def _sample_dual(
        self, support: list[Tensor], unlabelled: Tensor | None, num_samples: int, generator, *run
    ) -> HeadSamples:
        features = torch.cat(support).unsqueeze(0)
        labels = torch.arange(len(support)).repeat_interleave(torch.tensor([len(images) for images in support]))
        targets = torch.eye(len(support), device=features.device)[labels.to(features.device)].unsqueeze(0)
        if unlabelled is not None:
            unlabelled = unlabelled.to(features).unsqueeze(0)
        condition = self.denoiser.encode(features, targets, unlabelled)
        noise = condition.arrange(self._noise((num_samples, condition.num_tokens, COEFFICIENTS), generator))
        latents = self._denoise(lambda latents, time: self.denoiser(latents, time, condition), noise, *run)
        state = self.denoiser.to_heads(latents, condition)
        trust = None if condition.gate is None else float(condition.gate)
        return HeadSamples(state, *self._vectors(state, support), trust)

    def _vectors(self, state: State, support: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Heads on the encoder's features in the layout of the zoo's, and the order of their classes, where it can hold
        them."""
        space = self.weight_space
        if len(support) > space.max_classes or support[0].shape[-1] != space.config.num_features:
            return None, None
        order = space.canonical_order(torch.stack([space.project(images).mean(0) for images in support]))
        return space.to_vectors(state, order), order

    def use_ancestral_sampler(self) -> int:
        """Swap in DDPM ancestral sampling (paper equation 6); returns its number of steps."""
        self.scheduler = ancestral(self.scheduler)
        return self.scheduler.config.num_train_timesteps

    def _check(self, support) -> list[Tensor]:
        space = self.weight_space
        support = [images.to(space.mean.device, torch.float32) for images in support]
        if self.is_dual and len(support) < 2:
            raise UserError(f"A head tells at least two classes apart, and the data set has {len(support)}.")
        if not self.is_dual and not 2 <= len(support) <= space.max_classes:
            raise UserError(
                f"This bundle makes heads for 2 to {space.max_classes} classes, and the data set has {len(support)}: "
                "leave some classes out, or choose another bundle."
            )
        for number, images in enumerate(support):
            if not len(images):
                raise UserError(f"Class number {number + 1} has no support image.")
            if images.shape[-1] != (support[0].shape[-1] if self.is_dual else space.config.num_features):
                raise UserError(
                    f"The features are {images.shape[-1]} wide, and this bundle takes {space.config.num_features}: "
                    f"use its encoder, {space.config.encoder}."
                )
        return support

    def _condition(self, support: list[Tensor], order: Tensor | None = None):
        """The condition (batch of 1) in canonical class order, or in the one given, and that order."""
        if self.is_told:
            raise UserError("This bundle is told which task it is by name, and cannot look at images: use for_tasks.")
        space = self.weight_space
        projected = [space.project(images) for images in support]
        if order is None:
            order = space.canonical_order(torch.stack([images.mean(0) for images in projected]))
        shots = max(map(len, projected))
        features = projected[0].new_zeros(1, space.max_classes, shots, space.config.projected)
        mask = torch.zeros(features.shape[:-1], dtype=torch.bool, device=features.device)
        for slot, label in enumerate(order.tolist()):
            features[0, slot, : len(projected[label])] = projected[label]
            mask[0, slot, : len(projected[label])] = True
        return self.condition_encoder(features, mask), order

    def _noise(self, shape: tuple[int, ...], generator) -> Tensor:
        return randn_tensor(shape, generator=generator, device=self.weight_space.mean.device, dtype=torch.float32)

    def padding(self, count: int) -> Padding | None:
        """The rows of a latent that belong to no class of a head of ``count`` classes; None where there is none."""
        mask = self.weight_space.layout.mask(torch.tensor([count], device=self.weight_space.mean.device))
        return self.vae.padding(mask)

    def _denoise(self, predict, noise: Tensor, generator, steps, progress, padding: Padding | None = None) -> Tensor:
        """Noise (S, ...) → clean latents (S, ...); ``predict(latents, time)`` is the denoiser with its condition."""
        given = {"generator": generator, "padding": padding, "stage": "Sampling heads", "progress": progress}
        return denoise(self.scheduler, predict, noise, steps, **given)
