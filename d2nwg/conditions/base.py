"""What all conditions share: the task they are made from, and what a denoiser receives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


@dataclass
class Condition:
    """What a denoiser receives about B tasks; encoded once a call.

    Attributes:
        dataset: z_D (B, E), the data-set embedding.
        slots: (B, C_max, e), class-wise embeddings: row i belongs to row i of the head; unused rows are zero.
        used: (B, C_max) bool, the rows that hold a class.
    """

    dataset: Tensor
    slots: Tensor
    used: Tensor

    def dropped(self, drop: Tensor) -> "Condition":
        """With the entries where ``drop`` (B,) is True made empty: the unconditional case of classifier-free
        guidance."""
        keep = ~drop
        return Condition(self.dataset * keep[:, None], self.slots * keep[:, None, None], self.used)

    def repeated(self, times: int) -> "Condition":
        """The batch so many times over."""
        return Condition(self.dataset.repeat(times, 1), self.slots.repeat(times, 1, 1), self.used.repeat(times, 1))


@dataclass(frozen=True)
class Task:
    """What is known about a task that weights are wanted for. Each conditioner reads the part that it needs.

    Attributes:
        support: features (M_i, D) of each class's support images.
        ids: class names ("data set/class") of tasks that were seen in training; with several tasks, whose ids are
            mixed, row i of the head belongs to the i-th class of every one of them.
        shares: of each task of ``ids`` in the mix, in sum 1 by convention; None for equal ones. They may be negative.
        names: of the classes, in words: as many as classes of the support, or without any support.
        encoder: of the images, by name; None for the bundle's.
        description: of the task, in words.
    """

    support: Sequence[Tensor] = ()
    ids: Sequence[Sequence[str]] = ()
    shares: Sequence[float] | None = None
    names: Sequence[str] = ()
    encoder: str | None = None
    description: str = ""


class Conditioner(ModelMixin, ConfigMixin):
    """Task → `Condition`. A new one is a subclass in a file of its own and an entry in `d2nwg.conditions`.

    Attributes:
        lr_scale: the learning rate of its alignment, as a multiple of the configuration's.
        given: what it is made from, in a card's sentence.
        described: what it is, in a card's sentence.
        sorts_classes: whether training sees the classes of a task in the order of their numbers in the zoo, and not in
            a random one.
        has_slots: whether it makes class-wise embeddings; without, z_D holds all that it says.
        takes_images: whether a bundle of it is given images of the classes when it samples.
    """

    given: ClassVar[str]
    described: ClassVar[str]
    lr_scale: ClassVar[float] = 1.0
    sorts_classes: ClassVar[bool] = False
    has_slots: ClassVar[bool] = True
    takes_images: ClassVar[bool] = True

    @classmethod
    def for_zoo(cls, zoo, config, latent_size: int) -> "Conditioner":
        """An untrained one for a zoo of heads.

        Args:
            zoo: a `d2nwg.weights.zoo.Zoo`.
            config: the generator's configuration, whose ``encoder_width`` is the width E of z_D.
            latent_size: numbers in a latent, for the alignment of z_D with it.
        """
        raise NotImplementedError

    @property
    def slot_size(self) -> int:
        """e, width of a class-wise embedding."""
        raise NotImplementedError

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The classes of each task that can be given by its id; none where ids are not the condition."""
        return {}

    @staticmethod
    def example(zoo) -> str:
        """A line of Python that samples heads with ``pipe``, for a card."""
        raise NotImplementedError

    def training_inputs(self, data, batch, rng) -> tuple[Tensor, ...]:
        """The arguments of `forward` for a training batch.

        Args:
            data: what drew the batch, such as `d2nwg.training.data.ZooBatches`.
            rng: a numpy generator.
        """
        raise NotImplementedError

    def record_inputs(self, zoo, records, shots: int) -> tuple[Tensor, ...]:
        """The arguments of `forward` for zoo records, with ``shots`` support images a class where it takes images."""
        raise NotImplementedError

    def encode(self, task: Task, space, order: Tensor | None = None) -> tuple[Condition, Tensor]:
        """The condition (batch of 1) of a task, and the order (C,) in which its classes take their slots.

        Args:
            space: the bundle's `d2nwg.models.spaces.WeightSpace`.
            order: the order to take instead of the canonical one, where the conditioner can.
        Raises:
            UserError: the task lacks what this conditioner reads.
        """
        raise NotImplementedError

    def order_keys(self, records, means: Tensor) -> Tensor:
        """(B, C_max) numbers by which the classes of zoo records take their slots, the smallest first.

        Args:
            records: B `d2nwg.weights.zoo.Records`.
            means: (B, C_max, k) means of each class's support images.
        """
        return means[..., 0]


def alignment_loss(dataset: Tensor, latents: Tensor, same: Tensor, temperature: Tensor) -> Tensor:
    """InfoNCE (equation 2) where all records of one task are positive pairs.

    Args:
        dataset: z_D (B, E).
        latents: (B, E), the latents of the same B records, mapped to the width of z_D.
        same: (B, B) bool, which records are of one task.
        temperature: the logarithm of the factor of the cosines.
    """
    scores = normalize(dataset, dim=-1) @ normalize(latents, dim=-1).T * temperature.exp().clamp_max(100)
    target = same.to(scores.dtype)
    target = target / target.sum(1, keepdim=True)
    return (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
