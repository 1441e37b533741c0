"""The data-set encoder: support features → class-wise embeddings and z_D (paper section 3.3, figure 5).

A Set Transformer (Lee et al., 2019) pools the images of each class, another pools the classes. The second cannot know
the order of the classes, so the class-wise embeddings are kept beside z_D, in slot order.
"""

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from d2nwg.conditions.base import Condition, Conditioner, Task
from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Depth, Width


class SetAttention(nn.Module):
    """The Set Transformer's MAB: queries attend to a set, then a feed-forward layer, both residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.before_q, self.before_x = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, queries: Tensor, members: Tensor, mask: Tensor) -> Tensor:
        """(B, q, width), (B, n, width), (B, n) bool → (B, q, width); each row of ``mask`` has a True."""
        x = self.before_x(members)
        queries = queries + self.attention(self.before_q(queries), x, x, ~mask, need_weights=False)[0]
        return queries + self.feed_forward(queries)


class SetPool(nn.Module):
    """Self-attention blocks over a set, then one learned query pools it (SAB, PMA)."""

    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        self.blocks = nn.ModuleList(SetAttention(width, heads) for _ in range(depth))
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pool = SetAttention(width, heads)

    def forward(self, members: Tensor, mask: Tensor) -> Tensor:
        """(B, n, width), (B, n) bool → (B, width)."""
        for block in self.blocks:
            members = block(members, members, mask)
        return self.pool(self.query.expand(len(members), -1, -1), members, mask).squeeze(1)


class SupportEncoder(Conditioner):
    """What encoders of a data set's support images share."""

    given, described = "a few images a class", "data-set encoder"

    @staticmethod
    def example(zoo) -> str:
        """See `Conditioner`."""
        return "samples = pipe(support, num_samples=50)  # support: one (images, features) tensor a class"

    def training_inputs(self, data, batch, rng) -> tuple[Tensor, ...]:
        """See `Conditioner`: support images of a random number of shots."""
        return data.condition_input(batch.support, rng)

    def record_inputs(self, zoo, records, shots: int) -> tuple[Tensor, ...]:
        """See `Conditioner`."""
        return zoo.support_features(records, shots)

    def encode(self, task: Task, space, order: Tensor | None = None) -> tuple[Condition, Tensor]:
        """See `Conditioner`; by default in the space's canonical order of the classes."""
        if not task.support:
            raise UserError("This bundle is conditioned on images of the task: give some of each class.")
        projected = [space.project(images) for images in task.support]
        if order is None:
            order = space.canonical_order(torch.stack([images.mean(0) for images in projected]))
        shots = max(map(len, projected))
        features = projected[0].new_zeros(1, space.max_classes, shots, space.config.projected)
        mask = torch.zeros(features.shape[:-1], dtype=torch.bool, device=features.device)
        for slot, label in enumerate(order.tolist()):
            features[0, slot, : len(projected[label])] = projected[label]
            mask[0, slot, : len(projected[label])] = True
        return self(features, mask), order

    def _alignment_loss(self, dataset: Tensor, latents: Tensor) -> Tensor:
        """CLIP-style InfoNCE between z_D (B, E) and the latents of the same tasks' heads (paper equation 2)."""
        left = nn.functional.normalize(dataset, dim=-1)
        right = nn.functional.normalize(self.latent_map(latents.flatten(1)), dim=-1)
        scores = left @ right.T * self.temperature.exp().clamp_max(100)
        target = torch.arange(len(scores), device=scores.device)
        cross_entropy = nn.functional.cross_entropy
        return (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2


class DatasetEncoder(SupportEncoder):
    """Support features of C classes → `Condition`.

    A class's embedding is its mean feature, as it is, followed by what the Set Transformer makes of its images.

    Args:
        num_features: k, width of projected features.
        width: of the Set Transformers, and E of z_D.
        heads: attention heads.
        depth: self-attention blocks within a class and across classes.
        latent_size: numbers in a latent, for the alignment (`align`).
    """

    @register_to_config
    def __init__(
        self, num_features: int, width: Width = 128, heads: Depth = 4, depth: Depth = 1, latent_size: int = 1024
    ):
        super().__init__()
        self.inward = nn.Linear(num_features, width)
        self.within = SetPool(width, heads, depth)
        self.across = SetPool(width, heads, depth)
        self.latent_map = nn.Linear(latent_size, width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    @property
    def slot_size(self) -> int:
        """e, width of a class-wise embedding."""
        return self.config.num_features + self.config.width

    @classmethod
    def for_zoo(cls, zoo, config, latent_size: int) -> SupportEncoder:
        """See `Conditioner`; the configuration's ``dataset_encoder`` says of which kind."""
        width = zoo.images["projection"].shape[0]
        if config.dataset_encoder == "mlp":
            return MLPEncoder(width, zoo.config.max_classes, max(config.shots), config.encoder_width, latent_size)
        return cls(width, config.encoder_width, depth=config.encoder_depth, latent_size=latent_size)

    def forward(self, features: Tensor, mask: Tensor, latents: Tensor | None = None) -> Condition | Tensor:
        """Encode B tasks; with their heads' latents, return the alignment loss instead.

        Args:
            features: (B, C, M, k) projected features of the support images.
            mask: (B, C, M) bool, False for padding; a class without any image is an unused slot.
            latents: (B, c, h, w), scaled.
        """
        used = mask.any(-1)
        # Only classes that are there: attention over an empty set is not defined, and padding costs time.
        pooled = self.within(self.inward(features[used]), mask[used])
        embedded = pooled.new_zeros(*used.shape, pooled.shape[-1])
        embedded[used] = pooled
        weight = mask.unsqueeze(-1).to(features.dtype)
        mean = (features * weight).sum(2) / weight.sum(2).clamp_min(1)
        dataset = self.across(embedded, used)
        slots = torch.cat([mean, embedded], -1) * used.unsqueeze(-1)
        if latents is None:
            return Condition(dataset=dataset, slots=slots, used=used)
        return self._alignment_loss(dataset, latents)


class MLPEncoder(SupportEncoder):
    """The paper's two-layer MLP (A.6): for each of the images' numbers the first layer mixes the images, of all classes
    in slot order; the second makes z_D of what it puts out. There are no class-wise embeddings: z_D knows the order.

    A class with more than M images is read to its M-th; missing classes and images are zeros, which is the paper's
    "dynamic" layer.

    Args:
        num_features: k, width of projected features.
        num_classes: C_max.
        shots: M.
        width: E of z_D.
        latent_size: numbers in a latent, for the alignment.
        hidden: outputs of the first layer for each of the k numbers.
    """

    has_slots = False

    @register_to_config
    def __init__(
        self,
        num_features: int,
        num_classes: int,
        shots: int = 5,
        width: Width = 128,
        latent_size: int = 1024,
        hidden: Width = 16,
    ):
        super().__init__()
        self.mix = nn.Linear(num_classes * shots, hidden)
        self.outward = nn.Linear(num_features * hidden, width)
        self.latent_map = nn.Linear(latent_size, width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    @property
    def slot_size(self) -> int:
        """e: one number, which is zero."""
        return 1

    def forward(self, features: Tensor, mask: Tensor, latents: Tensor | None = None) -> Condition | Tensor:
        """Encode B tasks, as `DatasetEncoder.forward`."""
        used = mask.any(-1)
        features = (features * mask.unsqueeze(-1))[:, :, : self.config.shots]
        missing = self.config.num_classes - features.shape[1], self.config.shots - features.shape[2]
        features = nn.functional.pad(features, (0, 0, 0, missing[1], 0, missing[0]))
        hidden = torch.relu(self.mix(features.flatten(1, 2).mT))  # (B, k, hidden)
        dataset = self.outward(hidden.flatten(1))
        if latents is None:
            return Condition(dataset=dataset, slots=dataset.new_zeros(*used.shape, 1), used=used)
        return self._alignment_loss(dataset, latents)
