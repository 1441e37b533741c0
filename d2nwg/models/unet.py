"""The denoiser of the paper: a UNet over latents with the condition concatenated (sections 3.4 and A.6)."""

import torch
from diffusers import ModelMixin, UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

from d2nwg.conditions.base import Condition
from d2nwg.utils.fields import Depth, Widths


class ConditionalUNet(ModelMixin, ConfigMixin):
    """Predicts the noise in latents z_t from z_t, the time step and the condition.

    The class-wise embeddings lie beside the latent in slot order: with T tokens, each token's share of the slots is
    mapped linearly onto that token's rows of the latent picture; z_D is mapped onto constant channels, or onto a whole
    picture; a last channel tells used rows from unused ones. All are concatenated with z_t along the channels.

    Args:
        latent_shape: (c, h, w).
        tokens: T; T = C_max puts each class beside its own row of the head.
        num_classes: C_max.
        slot_size: e.
        dataset_size: E.
        condition_channels: channels that the slots get.
        channels: widths of the UNet's levels.
        layers: residual blocks a level.
        skip: a linear map of each token's slots guesses its rows of the clean latent; the UNet sees the guess and
            predicts what it lacks. For ``prediction_type="sample"``: the UNet starts where a regression ends.
        dataset_picture: z_D is mapped onto ``condition_channels`` whole channels, not onto as many constants.
    """

    @register_to_config
    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        tokens: int,
        num_classes: int,
        slot_size: int,
        dataset_size: int,
        condition_channels: int = 16,
        channels: Widths = (64, 128),
        layers: Depth = 1,
        skip: bool = False,
        dataset_picture: bool = False,
    ):
        super().__init__()
        latent_channels, height, width = latent_shape
        per_token = num_classes // tokens
        rows = height // tokens
        beside = condition_channels + (latent_channels if skip else 0)
        self.slot_map = nn.Linear(per_token * (slot_size + 1), beside * rows * width)
        self.dataset_map = nn.Linear(dataset_size, condition_channels * (height * width if dataset_picture else 1))
        self.unet = UNet2DModel(
            sample_size=(height, width),
            in_channels=latent_channels + beside + condition_channels + 1,
            out_channels=latent_channels,
            down_block_types=("DownBlock2D",) + ("AttnDownBlock2D",) * (len(channels) - 1),
            up_block_types=("AttnUpBlock2D",) * (len(channels) - 1) + ("UpBlock2D",),
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            attention_head_dim=32,
            norm_num_groups=16,
        )
        if skip:
            nn.init.zeros_(self.unet.conv_out.weight)
            nn.init.zeros_(self.unet.conv_out.bias)

    def forward(self, latents: Tensor, timestep: Tensor | int, condition: Condition) -> Tensor:
        """Scaled latents (B, c, h, w), step (B,) or one number, condition of B → (B, c, h, w)."""
        return self.denoise(latents, timestep, self.lay_out(condition))

    def denoise(self, latents: Tensor, timestep: Tensor | int, beside: Tensor) -> Tensor:
        """`forward` with the condition laid out before; ``beside`` (1 or B, …) is shared by all if it is one."""
        predicted = self.unet(torch.cat([latents, beside.expand(len(latents), -1, -1, -1)], 1), timestep).sample
        return predicted + beside[:, : latents.shape[1]] if self.config.skip else predicted

    def lay_out(self, condition: Condition) -> Tensor:
        """The condition as channels beside the latent, (B, channels, h, w): the guess at the latent if there is one,
        the slots, z_D, and which rows are used."""
        _, height, width = self.config.latent_shape
        tokens = self.config.tokens
        batch = len(condition.slots)
        used = condition.used.to(condition.slots.dtype)
        slots = torch.cat([condition.slots, used.unsqueeze(-1)], -1).reshape(batch, tokens, -1)
        beside = self.slot_map(slots).reshape(batch, tokens, -1, height // tokens, width)
        beside = beside.transpose(1, 2).reshape(batch, -1, height, width)
        dataset = self.dataset_map(condition.dataset).reshape(batch, self.config.condition_channels, -1, 1)
        if self.config.dataset_picture:
            dataset = dataset.reshape(batch, -1, height, width)
        everywhere = dataset.expand(-1, -1, height, width)
        share = used.reshape(batch, tokens, -1).mean(-1)
        rows = share.repeat_interleave(height // tokens, 1)[:, None, :, None].expand(-1, 1, -1, width)
        return torch.cat([beside, everywhere, rows], 1)
