"""Task identity as the condition: a learned embedding a class that was seen, no images (Zhang et al., 2506.17807).

A task is given by the names of its classes, so that ids are made of shared parts: any set of seen classes has one, and
ids can be mixed with a weight each (`compose`).
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from d2nwg.conditions.base import Condition, Conditioner, Task, alignment_loss
from d2nwg.conditions.task_names import tasks_of
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import some


class TaskIndex(Conditioner):
    """Numbers of the classes of a task → `Condition`, as `DatasetEncoder` makes one from images.

    Args:
        names: of the classes seen in training, ``"data set/class"``.
        width: E of z_D, and e of a slot.
        latent_size: numbers in a latent, for the alignment.
    """

    given, described = "the names of its classes (`pipe.for_tasks`), without an image", "learned class embeddings"
    lr_scale = 10.0  # a table is learnt row by row
    sorts_classes, takes_images = True, False

    @register_to_config
    def __init__(self, names: list[str], width: int = 64, latent_size: int = 1024):
        super().__init__()
        self.table = nn.Embedding(len(names), width)
        self.whole = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.latent_map = nn.Linear(latent_size, width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The classes of each task that was seen."""
        return tasks_of(self.config.names)

    @property
    def slot_size(self) -> int:
        """e, width of a class-wise embedding."""
        return self.config.width

    @classmethod
    def for_zoo(cls, zoo, config, latent_size: int) -> "TaskIndex":
        """See `Conditioner`."""
        return cls([f"{data}/{name}" for data, name in zoo.class_names], config.encoder_width, latent_size)

    @staticmethod
    def example(zoo) -> str:
        """See `Conditioner`."""
        first = zoo.datasets[0]
        names = [f"{first['name']}/{label}" for label in first["classes"][: zoo.config.max_classes]]
        return f"samples = pipe.for_tasks([{names}], num_samples=50)  # one list of names a task; more are mixed"

    def training_inputs(self, data, batch, rng) -> tuple[Tensor, ...]:
        """See `Conditioner`: the numbers of the ids."""
        return (data.ids(batch),)

    def record_inputs(self, zoo, records, shots: int) -> tuple[Tensor, ...]:
        """See `Conditioner`."""
        return (records.classes,)

    def encode(self, task: Task, space, order: Tensor | None = None) -> tuple[Condition, Tensor]:
        """See `Conditioner`. Classes take their slots in the order of their numbers, whatever ``order`` says."""
        if not task.ids:
            raise UserError("This bundle is conditioned on task ids and cannot look at images: name a task.")
        tasks, sizes = task.ids, space.zoo_counts.long().unique().tolist()
        if len({len(names) for names in tasks}) > 1 or len(tasks[0]) > space.max_classes:
            raise UserError("Tasks that are mixed need the same number of classes, and no more than the bundle holds.")
        device, count = space.mean.device, len(tasks[0])
        if len(sizes) == 1 and count != sizes[0]:
            raise UserError(f"This bundle makes networks for {sizes[0]} classes, and the task has {count}.")
        order = self.numbers(tasks[0]).argsort()
        conditions = []
        for names in tasks:
            padded = torch.full((1, space.max_classes), -1)
            padded[0, :count] = self.numbers(names)[order]
            conditions.append(self(padded.to(device)))
        return compose(conditions, task.shares or [1 / len(tasks)] * len(tasks)), order.to(device)

    def order_keys(self, records, means: Tensor) -> Tensor:
        """See `Conditioner`: the classes' numbers."""
        return records.classes.float()

    def numbers(self, names: Sequence[str]) -> Tensor:
        """The classes' numbers (C,). Raises UserError for names that were not seen."""
        place = {name: i for i, name in enumerate(self.config.names)}
        unknown = [name for name in names if name not in place]
        if unknown:
            raise UserError(f"The bundle has not seen {some(unknown)}: it knows {some(self.config.names, 6)}.")
        return torch.tensor([place[name] for name in names])

    def forward(self, classes: Tensor, latents: Tensor | None = None) -> Condition | Tensor:
        """Encode B tasks; with their networks' latents, return the alignment loss instead.

        Args:
            classes: (B, C_max) class numbers, -1 for an unused slot.
            latents: (B, c, h, w), scaled.
        """
        used = classes >= 0
        slots = self.table(classes.clamp_min(0)) * used.unsqueeze(-1)
        dataset = self.whole(slots.sum(1) / used.sum(1, keepdim=True).clamp_min(1))
        if latents is None:
            return Condition(dataset=dataset, slots=slots, used=used)
        same = (classes.unsqueeze(0) == classes.unsqueeze(1)).all(-1)
        return alignment_loss(dataset, self.latent_map(latents.flatten(1)), same, self.temperature)


def compose(conditions: Sequence[Condition], shares: Sequence[float]) -> Condition:
    """Mix conditions (each a batch of B) with a weight each; a slot is used where any of them uses it.

    Weights need not be positive: ``a + b - c`` adds the difference of b and c to a.
    """

    def mixed(name: str) -> Tensor:
        return sum(share * getattr(condition, name) for share, condition in zip(shares, conditions, strict=True))

    used = torch.stack([condition.used for condition in conditions]).any(0)
    return Condition(dataset=mixed("dataset"), slots=mixed("slots"), used=used)
