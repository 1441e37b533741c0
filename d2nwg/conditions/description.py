"""A task description as the condition (paper, section 3.3 and table 14): the vector of a sentence encoder, mapped."""

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from d2nwg.conditions.base import Condition, Conditioner, Task, alignment_loss
from d2nwg.encoders.texts import load_text_encoder
from d2nwg.utils.errors import UserError

JITTER = 1.2  # greatest length of the noise that training adds to vectors of length 1: paraphrases differ by as much


class DescriptionEncoder(Conditioner):
    """Vectors of descriptions → `Condition`.

    Args:
        text_encoder: of the descriptions, by name.
        text_width: of its vectors.
        width: E of z_D, and e of a slot.
        tokens: T slots, which all hold the same.
        latent_size: numbers in a latent, for the alignment.
    """

    given, described = "a description of the task in words", "a sentence encoder's vectors"
    takes_images = False

    @register_to_config
    def __init__(self, text_encoder: str, text_width: int, width: int = 64, tokens: int = 1, latent_size: int = 64):
        super().__init__()
        self.whole = nn.Sequential(nn.Linear(text_width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.latent_map = nn.Linear(latent_size, width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    @property
    def slot_size(self) -> int:
        """e, width of a slot."""
        return self.config.width

    def training_inputs(self, data, batch, rng) -> tuple[Tensor, ...]:
        """The arguments of `forward` for a training batch: one description of each member's task, and what it is."""
        texts = data.described(batch, rng)
        lengths = JITTER * rng.random((len(texts), 1)) / texts.shape[1] ** 0.5
        noise = torch.from_numpy(lengths * rng.standard_normal(texts.shape)).float()
        return nn.functional.normalize(texts + noise.to(texts), dim=-1), batch.tasks

    def encode(self, task: Task, space, order: Tensor | None = None) -> tuple[Condition, Tensor]:
        """See `Conditioner`; the order is that of the classes."""
        text = self.texts([task.description]).to(space.mean.device)
        return self(text), torch.arange(len(task.names))

    def texts(self, descriptions) -> Tensor:
        """Descriptions → vectors (n, text_width) of length 1.

        Raises:
            UserError: one is empty.
        """
        if not all(text.strip() for text in descriptions):
            raise UserError("Describe the task in a sentence, such as: Is this film review positive?")
        return load_text_encoder(self.config.text_encoder).encode(list(descriptions))

    def forward(self, texts: Tensor, tasks: Tensor | None = None, latents: Tensor | None = None) -> Condition | Tensor:
        """Map B vectors; with the latents of adapters, return the alignment loss instead.

        Args:
            texts: (B, text_width), of length 1.
            tasks: (B,) task numbers.
            latents: (B, c, h, w), scaled.
        """
        dataset = self.whole(texts * texts.shape[1] ** 0.5)
        if latents is None or tasks is None:
            slots = dataset.unsqueeze(1).expand(-1, self.config.tokens, -1)
            return Condition(dataset=dataset, slots=slots, used=torch.ones_like(slots[..., 0], dtype=torch.bool))
        same = tasks.unsqueeze(0) == tasks.unsqueeze(1)
        return alignment_loss(dataset, self.latent_map(latents.flatten(1)), same, self.temperature)
