"""No condition: any weights of the zoo, whatever the task (paper C.6, table 11)."""

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from d2nwg.conditions.base import Condition, Conditioner, Task
from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Width


class NoCondition(Conditioner):
    """The same empty `Condition` for every task. What stays known is how many classes there are, which a head's shape
    says; they take their slots in the order that they are given in, as those of a zoo's record do in the order of their
    numbers.

    Args:
        width: E of z_D.
    """

    given, described = "nothing (any head of the zoo)", "no condition"
    sorts_classes, has_slots = True, False

    @register_to_config
    def __init__(self, width: Width = 64):
        super().__init__()
        self.dataset = nn.Parameter(torch.zeros(width), requires_grad=False)

    @property
    def slot_size(self) -> int:
        """e: one number, which is zero."""
        return 1

    @classmethod
    def for_zoo(cls, zoo, config, latent_size: int) -> "NoCondition":
        """See `Conditioner`."""
        return cls(config.encoder_width)

    @staticmethod
    def example(zoo) -> str:
        """See `Conditioner`."""
        return "samples = pipe(support, num_samples=50)  # of the support only the number of classes counts"

    def training_inputs(self, data, batch, rng) -> tuple[Tensor, ...]:
        """See `Conditioner`: the numbers of classes."""
        return (batch.counts.to(data.device), torch.tensor(batch.support.shape[1]))

    def record_inputs(self, zoo, records, shots: int) -> tuple[Tensor, ...]:
        """See `Conditioner`."""
        return records.counts, torch.tensor(records.classes.shape[1])

    def order_keys(self, records, means: Tensor) -> Tensor:
        """See `Conditioner`: the classes' numbers."""
        return records.classes.float()

    def encode(self, task: Task, space, order: Tensor | None = None) -> tuple[Condition, Tensor]:
        """See `Conditioner`; by default the classes take their slots in the order of the support."""
        if not task.support:
            raise UserError("Say how many classes there are: give some images of each, which nothing else is read of.")
        device, count = self.dataset.device, len(task.support)
        order = torch.arange(count, device=device) if order is None else order
        return self(torch.tensor([count], device=device), torch.tensor(space.max_classes)), order

    def forward(self, counts: Tensor, slots: Tensor) -> Condition:
        """The condition of B tasks.

        Args:
            counts: (B,) numbers of classes.
            slots: C_max, as a tensor without axes.
        """
        used = torch.arange(int(slots), device=counts.device) < counts.unsqueeze(1)
        dataset = self.dataset.expand(len(counts), -1)
        return Condition(dataset=dataset, slots=dataset.new_zeros(*used.shape, 1), used=used)
