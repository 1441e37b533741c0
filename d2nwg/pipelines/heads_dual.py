"""Sampling heads with the dual-coordinate generator, from images, names or both."""

import torch
from torch import Tensor

from d2nwg.conditions.base import Task
from d2nwg.models.dual import COEFFICIENTS, DualDenoiser
from d2nwg.models.names import NameSpace
from d2nwg.models.spaces import WeightSpace
from d2nwg.pipelines.heads import HeadSamples, WeightGenerationPipeline
from d2nwg.pipelines.names import EncoderNames, encoder_names
from d2nwg.utils.errors import UserError
from d2nwg.weights.networks import State


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

    def sample_bytes(self, classes: int, features: int, images: int) -> float:
        """See `WeightGenerationPipeline`; the denoiser has a token for each image, and holds some layers' outputs of it
        beside the latents and what surrounds them."""
        return super().sample_bytes(classes, features, images) + 4 * images * (6 * self.denoiser.config.width + 24)

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
        named = condition.branches[0].start.named
        belief = None if named is None else float(named)
        return HeadSamples(state, *self._vectors(state, support), trust, belief)

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
        _, classes, features = directions.weight.shape
        self.check_size(num_samples, classes, features, 0)
        return HeadSamples(names.heads(directions, num_samples, generator), None, None)

    def _vectors(self, state: State, support: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Heads on the encoder's features in the layout of the zoo's, and the order of their classes; None where the
        layout cannot hold them."""
        space = self.weight_space
        if len(support) > space.max_classes or support[0].shape[-1] != space.config.num_features:
            return None, None
        order = space.canonical_order(torch.stack([space.project(images).mean(0) for images in support]))
        return space.to_vectors(state, order), order
