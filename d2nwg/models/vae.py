"""The weight VAE: a vector of weights ↔ a small latent picture (paper section 3.2, equation 1); and what stands in its
place where diffusion learns the weights themselves (C.4)."""

import math

import torch
from diffusers import AutoencoderKL, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from d2nwg.models.padding import Padding
from d2nwg.utils.fields import Depth, Width, Widths


class WeightVAE(ModelMixin, ConfigMixin):
    """Linear in → picture → the encoder of latent diffusion → latent → its decoder → Linear out.

    The vector is read as ``tokens`` equal pieces (see `WholeLayout`). Each piece goes through the same linear map to
    one ``patch`` of the picture, patches stacked downwards, so piece i of the vector is row i of the latent. With one
    token and a patch of 1×H×W this is the paper's VAE: one linear map from the whole vector to the whole picture.

    With ``skip`` a linear map from piece to latent row, and one back, run beside the convolutions, which then learn
    what is left over: group normalisation makes them slow to learn a plain projection, which most of this job is.

    Args:
        size: N, length of a vector.
        tokens: T, must divide N.
        patch: (channels, height, width) of one token's part of the picture; height and width divisible by
            2^(levels - 1).
        channels: widths of the convolutional levels; each level after the first halves the picture.
        latent_channels: channels of a latent.
        layers: residual blocks a level.
        norm_groups: groups of the group normalisation.
        skip: add the linear maps.
        latent_scale: 1 / standard deviation of the latents over the training set, set after training.
    """

    @register_to_config
    def __init__(
        self,
        size: int,
        tokens: int = 1,
        patch: tuple[int, int, int] = (1, 64, 64),
        channels: Widths = (32, 64, 128),
        latent_channels: int = 4,
        norm_groups: int = 8,
        skip: bool = False,
        latent_scale: float = 1.0,
        layers: Depth = 1,
    ):
        super().__init__()
        depth, height, width = patch
        self.inward = nn.Linear(size // tokens, depth * height * width)
        self.outward = nn.Linear(depth * height * width, size // tokens)
        self.autoencoder = AutoencoderKL(
            in_channels=depth,
            out_channels=depth,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            latent_channels=latent_channels,
            norm_num_groups=norm_groups,
            sample_size=max(height * tokens, width),
        )
        if skip:
            row = torch.Size(self.latent_shape).numel() // tokens
            self.skip_in, self.skip_out = nn.Linear(size // tokens, row), nn.Linear(row, size // tokens)

    @torch.no_grad()
    def begin_with(self, axes: Tensor, variances: Tensor, kl_weight: float) -> None:
        """Start where principal component analysis ends: the linear maps are the leading components, whitened, the
        convolutions add nothing, and the posterior is as wide as the KL divergence wants it.

        Args:
            axes: (D, K) unit vectors of pieces, and ``variances`` (K,), the largest last.
        """
        kept = len(self.skip_in.weight)
        variances, axes = variances[-kept:], axes[:, -kept:]
        missing = kept - len(variances)  # fewer components than latents: the others stay zero
        variances, axes = nn.functional.pad(variances, (missing, 0)), nn.functional.pad(axes, (missing, 0))
        scale = variances.clamp_min(max(1e-3 * float(variances.max()), 1e-12)).sqrt()
        self.skip_in.weight.copy_((axes / scale).T)
        self.skip_out.weight.copy_(axes * scale)
        posterior, channels = self.autoencoder.quant_conv, self.config.latent_channels
        for parameter in (
            *(self.skip_in.bias, self.skip_out.bias, self.outward.weight, self.outward.bias),
            *(posterior.weight[:channels], posterior.bias),
        ):
            parameter.zero_()
        posterior.weight[channels:] *= 0.1
        posterior.bias[channels:] = math.log(kl_weight / (2 + kl_weight))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        factor = 2 ** (len(self.config.channels) - 1)
        _, height, width = self.config.patch
        return self.config.latent_channels, self.config.tokens * height // factor, width // factor

    def latent_mask(self, mask: Tensor) -> Tensor:
        """(B, N) bool, the numbers of vectors that are weights → (B, c, h, w) bool, the latents of tokens with any."""
        channels, rows, columns = self.latent_shape
        tokens = mask.reshape(len(mask), self.config.tokens, -1).any(-1)
        rows_used = tokens.repeat_interleave(rows // self.config.tokens, 1)
        return rows_used[:, None, :, None].expand(-1, channels, -1, columns)

    @torch.no_grad()
    def padding(self, mask: Tensor) -> Padding | None:
        """What sampling holds fixed for vectors of which ``mask`` (B, N) bool are weights: the scaled latents of a
        vector of padding alone. None where every token holds a weight."""
        used = self.latent_mask(mask)
        if used.all():
            return None
        empty = self.encode(torch.zeros(1, self.config.size, device=mask.device)).mean
        return Padding(~used, empty * self.config.latent_scale)

    def encode(self, vectors: Tensor) -> DiagonalGaussianDistribution:
        """(B, N) standardised vectors → distribution over latents (B, c, h, w), unscaled."""
        tokens, (depth, height, width) = self.config.tokens, self.config.patch
        pieces = vectors.reshape(len(vectors), tokens, -1)
        picture = self.inward(pieces).reshape(-1, tokens, depth, height, width)
        picture = picture.transpose(1, 2).reshape(-1, depth, tokens * height, width)
        posterior = self.autoencoder.encode(picture).latent_dist
        if not self.config.skip:
            return posterior
        channels, rows, columns = self.latent_shape
        plain = self.skip_in(pieces).reshape(-1, tokens, channels, rows // tokens, columns)
        mean = posterior.mean + plain.transpose(1, 2).reshape(posterior.mean.shape)
        return DiagonalGaussianDistribution(torch.cat([mean, posterior.logvar], 1))

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents (B, c, h, w) → standardised vectors (B, N)."""
        tokens, (depth, height, width) = self.config.tokens, self.config.patch
        picture = self.autoencoder.decode(latents).sample.reshape(-1, depth, tokens, height, width)
        pieces = self.outward(picture.transpose(1, 2).reshape(len(latents), tokens, -1))
        if self.config.skip:
            channels, rows, columns = self.latent_shape
            plain = latents.reshape(-1, channels, tokens, rows // tokens, columns).transpose(1, 2)
            pieces = pieces + self.skip_out(plain.reshape(len(latents), tokens, -1))
        return pieces.flatten(1)

    def forward(self, vectors: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(B, N) → reconstruction (B, N) from a sampled latent, and KL divergence (B,) from the unit Gaussian."""
        posterior = self.encode(vectors)
        return self.decode(posterior.sample(generator)), posterior.kl()


class PlainWeights(ModelMixin, ConfigMixin):
    """No VAE: the latents are the standardised weights, each token's zero-padded to whole rows (paper C.4, figure 6b).

    It has the methods of `WeightVAE`, so that a denoiser of weights is trained and sampled as one of latents is.

    Args:
        size: N, length of a vector.
        tokens: T, must divide N.
        rows, columns: height and width of a token's part of the latent; its channels follow, ⌈N / (T·rows·columns)⌉.
    """

    @register_to_config
    def __init__(self, size: int, tokens: int = 1, rows: Width = 16, columns: Width = 16, latent_scale: float = 1.0):
        super().__init__()
        self.unit = nn.Parameter(torch.ones(()), requires_grad=False)  # says which device the model is on

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        tokens, rows, columns = self.config.tokens, self.config.rows, self.config.columns
        return -(-self.config.size // (tokens * rows * columns)), tokens * rows, columns

    def _lay_out(self, vectors: Tensor) -> Tensor:
        """(B, N) → (B, c, h, w); what pads is zero, or False."""
        (channels, _, columns), tokens = self.latent_shape, self.config.tokens
        pieces = vectors.reshape(len(vectors), tokens, -1)
        pieces = nn.functional.pad(pieces, (0, channels * self.config.rows * columns - pieces.shape[-1]))
        picture = pieces.reshape(len(vectors), tokens, channels, self.config.rows, columns)
        return picture.transpose(1, 2).reshape(len(vectors), *self.latent_shape)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """(B, N) bool, the numbers of vectors that are weights → (B, c, h, w) bool, where they lie."""
        return self._lay_out(mask)

    def padding(self, mask: Tensor) -> Padding | None:
        """What sampling holds at zero: all that is no weight."""
        used = self.latent_mask(mask)
        return None if used.all() else Padding(~used, torch.zeros(1, *self.latent_shape, device=mask.device))

    def encode(self, vectors: Tensor) -> DiagonalGaussianDistribution:
        """(B, N) standardised vectors → a distribution without any spread about themselves, (B, c, h, w)."""
        mean = self._lay_out(vectors)
        return DiagonalGaussianDistribution(torch.cat([mean, torch.zeros_like(mean)], 1), deterministic=True)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, c, h, w) → (B, N), the inverse of `encode`."""
        (channels, _, columns), tokens = self.latent_shape, self.config.tokens
        pieces = latents.reshape(len(latents), channels, tokens, self.config.rows, columns).transpose(1, 2)
        pieces = pieces.reshape(len(latents), tokens, -1)
        return pieces[..., : self.config.size // tokens].reshape(len(latents), -1)


Latents = WeightVAE | PlainWeights  # what a pipeline may have in place of a VAE
