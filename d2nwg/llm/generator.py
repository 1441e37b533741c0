"""A distribution over the chunks of a language model: a VAE, and diffusion conditioned on the chunk index alone (paper
appendix A.4).

The VAE compresses: a row of a chunk, a vector of the residual stream, becomes a row of fewer latents. It begins with
the leading principal components of the rows, and training goes on from there.

Diffusion is conditioned on the index of a chunk, and on nothing else of it. Latents are whitened by the mean and
covariance of their index over the checkpoints (`IndexGaussian`), and a UNet with the index as its class learns what
is left. It predicts the velocity, which is zero for unit Gaussian noise: its output begins at zero. No original is
needed to sample.

A single pretrained model gives one point for each index. The distribution of an index is then the VAE's posterior
around that chunk's reconstruction. Several checkpoints of one model give a distribution that
is worth learning: chunks are then taken about the checkpoints' average, which is what they have in common.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from d2nwg.llm.chunks import Chunks
from d2nwg.llm.index_gaussian import IndexGaussian
from d2nwg.llm.presets import RefineConfig
from d2nwg.models.schedulers import NOISE_SCHEDULE
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines.denoise import denoise
from d2nwg.training.loop import MetricsLog, Run, run_stage, step_rng
from d2nwg.utils.devices import loading
from d2nwg.utils.progress import Progress, silent

NOISE = dict(NOISE_SCHEDULE, clip_sample=False, prediction_type="v_prediction")


class ChunkGenerator:
    """VAE and denoiser of the chunks of some units; `fit` comes first.

    Attributes:
        index: what is known of each chunk index, set by `fit`.
    """

    index: IndexGaussian

    def __init__(self, chunks: Chunks, config: RefineConfig, device: str | torch.device = "cpu"):
        self.chunks, self.config, self.device = chunks, config, torch.device(device)
        columns = math.gcd(chunks.width, 16)
        while chunks.width // columns < 4 and columns > 1:  # fewer channels could hardly be made less
            columns //= 2
        channels = chunks.width // columns
        latent_channels = max(1, min(channels, round(channels / config.compression)))
        with loading, torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.vae = WeightVAE(
                size=chunks.size,
                tokens=chunks.rows_a_chunk,
                patch=(channels, 1, columns),
                channels=(config.vae_channels,),
                latent_channels=latent_channels,
                skip=True,
            )
            self.denoiser = UNet2DModel(
                sample_size=(chunks.rows_a_chunk, columns),
                in_channels=latent_channels,
                out_channels=latent_channels,
                down_block_types=("DownBlock2D",) * len(config.unet_channels),
                up_block_types=("UpBlock2D",) * len(config.unet_channels),
                block_out_channels=config.unet_channels,
                layers_per_block=1,
                norm_num_groups=8,
                add_attention=False,
                num_class_embeds=len(chunks),
            )
        self.vae.to(self.device)
        self.denoiser.to(self.device)

    @torch.no_grad()
    def _start(self, files: Sequence[Path]) -> None:
        """Begin with the leading principal components of the rows, and a denoiser that adds nothing."""
        moments, count = torch.zeros(self.chunks.width, self.chunks.width, dtype=torch.float64), 0
        for unit in self.chunks.units:
            for file in files:
                rows, _ = self.chunks.rows(unit, file)
                moments += (rows.T @ rows).double()
                count += len(rows)
        values, axes = torch.linalg.eigh(moments / count)
        self.vae.begin_with(axes, values, self.config.kl_weight)
        for parameter in (self.denoiser.conv_out.weight, self.denoiser.conv_out.bias):
            parameter.zero_()

    def fit(self, folder: Path, progress: Progress = silent, *, files: Sequence[Path] = ()) -> None:
        """Train both, from the last checkpoints in `folder` where there are some.

        Args:
            folder: for checkpoints, ``metrics.jsonl`` with the losses, and the checkpoints' average.
            progress: exceptions that it raises pass through.
            files: several checkpoints of the model, each with all tensors of the units; otherwise the chunks' own file
                is the only one.
        Raises:
            UserError: a file lacks a tensor, or has another shape of it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = [Path(file) for file in files] or [self.chunks.file]
        if len(files) > 1:
            self.chunks.centre(files, folder / "average.safetensors")
        self._start(files)
        accelerator = Accelerator(cpu=self.device.type == "cpu")
        run = Run(folder, accelerator, MetricsLog(folder / "metrics.jsonl", accelerator), progress)
        config, size = self.config, math.prod(self.vae.latent_shape)

        def vae_loss(model, chunks, used, numbers, generator):
            posterior = model.encode(chunks)
            rebuilt = model.decode(posterior.sample(generator))
            error = ((rebuilt - chunks).square() * used).sum() / used.sum()
            kl = posterior.kl().mean() / size
            return error + config.kl_weight * kl, {"error": round(error.item(), 6), "kl": round(kl.item(), 6)}

        self._train("vae", self.vae, vae_loss, config.vae_steps, config.vae_lr, run, files)
        self.index = self._index(files)
        noiser = DDPMScheduler(**NOISE)

        def denoiser_loss(model, chunks, used, numbers, generator):
            with torch.no_grad():
                drawn = self.vae.encode(chunks).sample(generator)
                clean = self.index.whiten(drawn.flatten(1), numbers).reshape(drawn.shape)
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            time = torch.randint(noiser.config.num_train_timesteps, (len(clean),), generator=generator)
            time = time.to(clean.device)
            noisy = noiser.add_noise(clean, noise, time)
            target = noiser.get_velocity(clean, noise, time)
            predicted = model(noisy, time, class_labels=numbers).sample
            weight = self.vae.latent_mask(used).to(clean)
            return ((predicted - target).square() * weight).sum() / weight.sum(), {}

        ema = EMAModel(self.denoiser.parameters(), decay=0.99, use_ema_warmup=True, power=0.75)
        ema.to(self.device)
        steps, rate = config.diffusion_steps, config.diffusion_lr
        self._train("denoiser", self.denoiser, denoiser_loss, steps, rate, run, files, ema)
        ema.copy_to(self.denoiser.parameters())

    def _train(self, stage: str, model: nn.Module, loss, steps: int, rate: float, run: Run, files, ema=None):
        model.train().requires_grad_(True)
        prepared, optimiser = run.accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=rate))
        size, count = len(self.chunks), len(self.chunks) * len(files)

        def step(number: int, part: int):  # a batch is never worked on in parts here
            rng, generator = step_rng(self.config.seed, stage, number)
            drawn = sorted(int(i) for i in rng.choice(count, min(self.config.batch_size, count), replace=False))
            parts = [
                self.chunks.read([i % size for i in drawn if i // size == f], file) for f, file in enumerate(files)
            ]
            chunks, used = (torch.cat(pair).to(self.device) for pair in zip(*parts, strict=True))
            numbers = torch.tensor([i % size for i in drawn], device=self.device)
            return loss(prepared, chunks, used, numbers, generator)

        run_stage(
            stage,
            step,
            modules={"model": prepared},
            optimiser=optimiser,
            steps=steps,
            checkpoint_every=self.config.checkpoint_every,
            run=run,
            ema=ema,
        )
        model.eval().requires_grad_(False)

    @torch.inference_mode()
    def _index(self, files: Sequence[Path]) -> IndexGaussian:
        """The Gaussian of every index, over the files."""
        found, total, count = [], 0.0, 0
        for file in files:
            means = []
            for batch in self._batches(range(len(self.chunks))):
                chunks, used = (read.to(self.device) for read in self.chunks.read(batch, file))
                posterior, mask = self.vae.encode(chunks), self.vae.latent_mask(used)
                means.append(posterior.mean.flatten(1))
                total, count = total + float(posterior.var[mask].sum()), count + int(mask.sum())
            found.append(torch.cat(means))
        return IndexGaussian(torch.stack(found, 1), total / count)

    def _batches(self, numbers: Sequence[int]) -> list[list[int]]:
        size = self.config.batch_size
        return [list(numbers[first : first + size]) for first in range(0, len(numbers), size)]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many numbers are generated, how many latents they are made of, and the decoder's parameters."""
        decoder = (self.vae.autoencoder.decoder, self.vae.autoencoder.post_quant_conv, self.vae.outward)
        parameters = sum(p.numel() for module in (*decoder, self.vae.skip_out) for p in module.parameters())
        numbers = sum(part.numbers for unit in self.chunks.units for part in unit.parts)
        latents = sum(self.chunks.rows_a_unit) * math.prod(self.vae.latent_shape) // self.chunks.rows_a_chunk
        return numbers, latents, parameters

    @property
    def compression(self) -> dict[str, float]:
        """How many numbers are generated for each latent (``latents``), and for each of latents and the decoder's
        parameters together (``with_decoder``)."""
        numbers, latents, parameters = self.sizes
        return {"latents": numbers / latents, "with_decoder": numbers / (latents + parameters)}

    @torch.inference_mode()
    def reconstruct(self, unit: int) -> dict[str, Tensor]:
        """A unit decoded from the mean latents of its chunks: its tensors, float32, in their own shapes."""
        mean = self.index.mean
        parts = [
            self.vae.decode(mean[batch].reshape(-1, *self.vae.latent_shape)).cpu()
            for batch in self._batches(self.chunks.of_unit(unit))
        ]
        return self.chunks.assemble(unit, torch.cat(parts))

    @torch.inference_mode()
    def sample(self, unit: int, number: int, indices: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Sample a unit, conditioned on the indices of its chunks: its tensors, float32, in their own shapes.

        Args:
            unit: its number among the chunks' units.
            number: of the sample: the same one gives the same weights.
            indices: other chunk indices to condition on, one for each chunk of the unit.
        """
        _, generator = step_rng(self.config.seed, f"sample of {self.chunks.units[unit].name}", number)
        steps, parts = self.config.sampling_steps, []
        for batch in self._batches(self.chunks.of_unit(unit) if indices is None else indices):
            numbers = torch.tensor(batch, device=self.device)
            noise = torch.randn((len(batch), *self.vae.latent_shape), generator=generator).to(self.device)

            def predict(latents, time, numbers=numbers):
                return self.denoiser(latents, time, class_labels=numbers).sample

            white = white_samples(predict, noise, steps)
            latents = self.index.colour(white.flatten(1), numbers).reshape(white.shape)
            parts.append(self.vae.decode(latents).cpu())
        return self.chunks.assemble(unit, torch.cat(parts))


def white_samples(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Samples of whitened latents (B, …) from unit Gaussian noise of their shape and a denoiser that predicts the
    velocity."""

    def made(predict, noise):
        return denoise(DDIMScheduler(**NOISE, timestep_spacing="trailing"), predict, noise, steps)

    # Few steps shrink even a unit Gaussian, whose velocity is zero: that is known, and taken back.
    return made(predict, noise) / made(lambda latents, time: torch.zeros_like(latents), torch.ones(1)).item()
