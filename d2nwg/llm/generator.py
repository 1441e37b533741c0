"""A distribution over the chunks of one language model's matrices: a VAE, and diffusion conditioned on the chunk index
(paper appendix A.4).

A single pretrained model gives one training point for each index. The distribution of an index is then the VAE's
posterior around that chunk, as in the paper; the KL weight sets its width. The VAE is initialised with all principal
components of the rows, so that reconstruction is nearly exact from the start and training shapes the posterior.

The denoiser models an index's latents minus their mean, divided by the posterior's common width. Its inputs are the
noisy latents, the mean and, as class, the index. It predicts the velocity, which is zero for unit Gaussian noise: its
output is initialised at zero, and training learns how each index differs from a Gaussian. The mean is encoded from the
pretrained chunk when it is needed, because a learned table of means would be as large as the weights.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from d2nwg.llm.chunks import MatrixChunks
from d2nwg.llm.presets import RefineConfig
from d2nwg.models.schedulers import NOISE_SCHEDULE
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines.denoise import denoise
from d2nwg.training.loop import MetricsLog, Run, run_stage, step_rng
from d2nwg.utils.devices import loading
from d2nwg.utils.progress import Progress, silent

NOISE = dict(NOISE_SCHEDULE, clip_sample=False, prediction_type="v_prediction")


class ChunkGenerator:
    """VAE and denoiser of the chunks of some matrices.

    Attributes:
        width: the root mean square of the posterior's standard deviation over latents, set by `fit`.
    """

    def __init__(self, chunks: MatrixChunks, config: RefineConfig, device: str | torch.device = "cpu"):
        self.chunks, self.config, self.device = chunks, config, torch.device(device)
        self.width = 1.0
        columns = math.gcd(chunks.width, 16)
        channels = chunks.width // columns
        with loading, torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.vae = WeightVAE(
                size=chunks.size,
                tokens=chunks.rows_a_chunk,
                patch=(channels, 1, columns),
                channels=(config.vae_channels,),
                latent_channels=channels,
                skip=True,
            )
            self.denoiser = UNet2DModel(
                sample_size=(chunks.rows_a_chunk, columns),
                in_channels=2 * channels,
                out_channels=channels,
                down_block_types=("DownBlock2D",) * len(config.unet_channels),
                up_block_types=("UpBlock2D",) * len(config.unet_channels),
                block_out_channels=config.unet_channels,
                layers_per_block=1,
                norm_num_groups=8,
                add_attention=False,
                num_class_embeds=len(chunks),
            )
        self._start(channels)
        self.vae.to(self.device)
        self.denoiser.to(self.device)

    @torch.no_grad()
    def _start(self, channels: int) -> None:
        """Initialise the linear maps with the principal components of the rows, and the convolutions to add nothing."""
        moments, count = torch.zeros(self.chunks.width, self.chunks.width, dtype=torch.float64), 0
        for matrix, name in enumerate(self.chunks.names):
            rows = (self.chunks.rows(name) - self.chunks.mean[matrix]) / self.chunks.std[matrix]
            moments += (rows.T @ rows).double()
            count += len(rows)
        values, axes = torch.linalg.eigh(moments / count)
        scale = values.clamp_min(1e-3 * float(values.max())).sqrt()
        self.vae.skip_in.weight.copy_((axes / scale).T)
        self.vae.skip_out.weight.copy_(axes * scale)
        posterior = self.vae.autoencoder.quant_conv
        for parameter in (
            *(self.vae.skip_in.bias, self.vae.skip_out.bias, self.vae.outward.weight, self.vae.outward.bias),
            *(posterior.weight[:channels], posterior.bias),
        ):
            parameter.zero_()
        posterior.weight[channels:] *= 0.1
        self.denoiser.conv_out.weight.zero_()
        self.denoiser.conv_out.bias.zero_()
        posterior.bias[channels:] = math.log(self.config.kl_weight / (2 + self.config.kl_weight))

    def fit(self, folder: Path, progress: Progress = silent) -> None:
        """Train both, from the last checkpoints in `folder` where there are some.

        Args:
            folder: for checkpoints and ``metrics.jsonl`` with the losses.
            progress: exceptions that it raises pass through.
        """
        folder.mkdir(parents=True, exist_ok=True)
        accelerator = Accelerator(cpu=self.device.type == "cpu")
        run = Run(folder, accelerator, MetricsLog(folder / "metrics.jsonl", accelerator), progress)
        config, size = self.config, math.prod(self.vae.latent_shape)

        def vae_loss(model, chunks, used, numbers, generator):
            posterior = model.encode(chunks)
            rebuilt = model.decode(posterior.sample(generator))
            error = ((rebuilt - chunks).square() * used).sum() / used.sum()
            kl = posterior.kl().mean() / size
            return error + config.kl_weight * kl, {"error": round(error.item(), 6), "kl": round(kl.item(), 6)}

        self._train("vae", self.vae, vae_loss, config.vae_steps, config.vae_lr, run)
        self.width = self._posterior_width()
        noiser = DDPMScheduler(**NOISE)

        def denoiser_loss(model, chunks, used, numbers, generator):
            with torch.no_grad():
                posterior = self.vae.encode(chunks)
                clean = (posterior.sample(generator) - posterior.mean) / self.width
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            time = torch.randint(noiser.config.num_train_timesteps, (len(clean),), generator=generator)
            time = time.to(clean.device)
            noisy = noiser.add_noise(clean, noise, time)
            target = noiser.get_velocity(clean, noise, time)
            predicted = model(torch.cat([noisy, posterior.mean], 1), time, class_labels=numbers).sample
            weight = used.reshape(len(chunks), self.chunks.rows_a_chunk, -1)[:, None, :, :1].to(clean)
            loss = ((predicted - target).square() * weight).sum() / weight.expand_as(noise).sum()
            return loss, {}

        ema = EMAModel(self.denoiser.parameters(), decay=0.99, use_ema_warmup=True, power=0.75)
        ema.to(self.device)
        steps, rate = config.diffusion_steps, config.diffusion_lr
        self._train("denoiser", self.denoiser, denoiser_loss, steps, rate, run, ema)
        ema.copy_to(self.denoiser.parameters())

    def _train(self, stage: str, model: nn.Module, loss, steps: int, rate: float, run: Run, ema=None):
        model.train().requires_grad_(True)
        prepared, optimiser = run.accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=rate))

        def step(number: int, part: int):  # a batch is never worked on in parts here
            rng, generator = step_rng(self.config.seed, stage, number)
            drawn = sorted(rng.choice(len(self.chunks), min(self.config.batch_size, len(self.chunks)), replace=False))
            chunks, used = (read.to(self.device) for read in self.chunks.read([int(i) for i in drawn]))
            numbers = torch.tensor([int(i) for i in drawn], device=self.device)
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
    def _posterior_width(self) -> float:
        rng, _ = step_rng(self.config.seed, "posterior width", 0)
        drawn = sorted(rng.choice(len(self.chunks), min(16, len(self.chunks)), replace=False))
        total, count = 0.0, 0
        for batch in self._batches([int(i) for i in drawn]):
            std = self.vae.encode(self.chunks.read(batch)[0].to(self.device)).std
            total, count = total + float(std.square().sum()), count + std.numel()
        return max((total / count) ** 0.5, 1e-6)

    def _batches(self, numbers: Sequence[int]) -> list[list[int]]:
        size = self.config.batch_size
        return [list(numbers[first : first + size]) for first in range(0, len(numbers), size)]

    @torch.inference_mode()
    def reconstruct(self, matrix: int) -> Tensor:
        """A matrix decoded from the posterior means of its chunks; float32, in its own shape."""
        parts = []
        for batch in self._batches(self.chunks.of_matrix(matrix)):
            chunks = self.chunks.read(batch)[0].to(self.device)
            parts.append(self.vae.decode(self.vae.encode(chunks).mean).cpu())
        return self.chunks.assemble(matrix, torch.cat(parts))

    @torch.inference_mode()
    def sample(self, matrix: int, number: int) -> Tensor:
        """Sample a matrix, conditioned on the indices of its chunks; float32, in its own shape.

        Args:
            matrix: its number among the chunks' matrices.
            number: of the sample: the same one gives the same matrix.
        """
        _, generator = step_rng(self.config.seed, f"sample of {self.chunks.names[matrix]}", number)
        parts = []
        for batch in self._batches(self.chunks.of_matrix(matrix)):
            mean = self.vae.encode(self.chunks.read(batch)[0].to(self.device)).mean
            labels = torch.tensor(batch, device=self.device)
            noise = torch.randn(mean.shape, generator=generator).to(mean)

            def predict(latents, time, mean=mean, labels=labels):
                return self.denoiser(torch.cat([latents, mean], 1), time, class_labels=labels).sample

            scheduler = DDIMScheduler(**NOISE, timestep_spacing="trailing")
            latents = denoise(scheduler, predict, noise, self.config.sampling_steps)
            parts.append(self.vae.decode(mean + self.width * latents).cpu())
        return self.chunks.assemble(matrix, torch.cat(parts))
