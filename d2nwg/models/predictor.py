"""The accuracy predictor g of the paper: weights → accuracy (appendix B.1, equation 9, algorithm 3)."""

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

from d2nwg.conditions.dataset import SetPool
from d2nwg.utils.fields import Depth, Width


class AccuracyPredictor(ModelMixin, ConfigMixin):
    """Predicts how accurate weights are on their task.

    A vector is read as T tokens, which a Set Transformer pools. Conditioned on a data set, each token also sees the
    means of its own classes' images; where tokens are classes it sees how its row scores the mean of its own class
    beside those of the others, so that permuting the classes changes nothing.

    Args:
        size: N, length of a vector.
        tokens: T, must divide N.
        ordered: whether tokens are told their place, as chunks of a network are; classes are not.
        num_classes: C_max, a multiple of T; 0: no condition.
        num_features: k, width of the class means.
        width: of the Set Transformer.
        depth: of the Set Transformer.
        heads: attention heads.
    """

    @register_to_config
    def __init__(
        self,
        size: int,
        tokens: int = 1,
        ordered: bool = False,
        num_classes: int = 0,
        num_features: int = 0,
        width: Width = 64,
        depth: Depth = 2,
        heads: Depth = 4,
    ):
        super().__init__()
        self.inward = nn.Linear(size // tokens, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width)) if ordered else None
        if num_classes:
            self.beside = nn.Linear(num_classes // tokens * num_features, width)
            self.mix = nn.Linear(3 * width + 2, width)
        self.pool = SetPool(width, heads, depth)
        self.outward = nn.Sequential(
            nn.LayerNorm(width + 1), nn.Linear(width + 1, width), nn.GELU(), nn.Linear(width, 1)
        )

    @property
    def conditioned(self) -> bool:
        """Whether it sees class means."""
        return bool(self.config.num_classes)

    def forward(self, vectors: Tensor, mask: Tensor, means: Tensor | None = None, odds: bool = False) -> Tensor:
        """The expected accuracy, (B,) between 0 and 1.

        Args:
            vectors: (B, N) standardised.
            mask: (B, N) bool, the numbers that are weights.
            means: (B, C_max, k) means of each class's support images, projected, in the order of the slots; zero for
                slots without a class. For a predictor that is conditioned on them.
            odds: return the logarithm of the odds instead, as a loss takes it.
        """
        pieces = (vectors * mask).reshape(len(vectors), self.config.tokens, -1)
        used = mask.reshape(len(mask), self.config.tokens, -1).any(-1)
        tokens = self.inward(pieces)
        if self.conditioned:
            assert means is not None
            seen = self.beside(means.reshape(len(means), self.config.tokens, -1))
            tokens = self.mix(torch.cat([tokens, seen, tokens * seen, self._margins(tokens, seen, used)], -1))
        if self.place is not None:
            tokens = tokens + self.place
        share = used.to(vectors.dtype).mean(1, keepdim=True)  # a mean over tokens does not know how many there are
        found = self.outward(torch.cat([self.pool(tokens, used), share], 1)).squeeze(1)
        return found if odds else found.sigmoid()

    @staticmethod
    def _margins(tokens: Tensor, seen: Tensor, used: Tensor) -> Tensor:
        """(B, T, 2): how each token scores its own class means, and (softly) the best score of another token there."""
        scores = tokens @ seen.mT / tokens.shape[-1] ** 0.5  # (B, row, mean)
        own = scores.diagonal(dim1=1, dim2=2)
        others = scores.masked_fill(torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device), -1e4)
        others = others.masked_fill(~used.unsqueeze(2), -1e4).logsumexp(1)
        return torch.stack([own, others.clamp_min(-10)], -1)
