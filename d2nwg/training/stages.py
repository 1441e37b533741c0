"""The three stages of the paper: VAE (eq. 1), data-set encoder (eq. 2, algorithm 2), diffusion (eq. 5)."""

from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from d2nwg.bundles import DEFAULT_STEPS
from d2nwg.conditions.dataset import DatasetEncoder
from d2nwg.conditions.task_id import TaskIndex
from d2nwg.models.schedulers import make_noiser
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines.denoise import denoise
from d2nwg.training.config import STAGES, TrainConfig
from d2nwg.training.data import ZooBatches
from d2nwg.training.loop import run_stage, step_rng


class Stages:
    """What the stages share: configuration, batches, device, log. Each method runs one stage to its end."""

    def __init__(self, config: TrainConfig, data: ZooBatches, folder, accelerator: Accelerator, log, progress):
        self.config, self.data, self.folder = config, data, folder
        self.accelerator, self.log, self.progress = accelerator, log, progress

    def _run(self, stage: str, module: nn.Module, optimiser, loss, steps: int, ema=None, measure=None) -> None:
        module.train()
        prepared, optimiser = self.accelerator.prepare(module, optimiser)

        def step(number: int, part: int) -> tuple[Tensor, dict[str, float]]:
            rng, generator = step_rng(self.config.seed, stage, number)  # of the batch, which processes and parts share
            place = self.accelerator.process_index + part * self.accelerator.num_processes
            if place:
                _, generator = step_rng(self.config.seed, stage, number, place)
            self.data.part = slice(place, None, self.accelerator.num_processes * self.config.accumulate)
            with self.accelerator.autocast():
                return loss(prepared, self.data.draw(self.config.batch_size, rng), rng, generator)

        run_stage(
            stage,
            step,
            modules={"model": prepared},
            optimiser=optimiser,
            steps=steps,
            checkpoint_every=self.config.checkpoint_every,
            folder=self.folder / stage.lower().replace(" ", "-"),
            accelerator=self.accelerator,
            log=self.log,
            ema=ema,
            progress=self.progress,
            measure=measure,
        )
        self.data.part = slice(None)
        module.eval().requires_grad_(False)

    def _told(self, batch, rng) -> tuple[Tensor, ...]:
        """What the condition encoder is given: images, or the classes' numbers."""
        if self.config.condition == "task":
            return (self.data.class_numbers(batch.support),)
        return self.data.condition_input(batch.support, rng)

    def train_vae(self, vae: WeightVAE) -> dict[str, float]:
        """Stage 1. Returns the accuracy of held-aside zoo heads, and of their reconstructions."""
        config = self.config

        def loss(model, batch, rng, generator):
            rebuilt, kl = model(batch.vectors, generator)
            counted = batch.mask.sum()
            squares = ((rebuilt - batch.vectors).square() * batch.mask).sum() / counted
            return squares + config.kl_weight * kl.sum() / counted, {"mse": round(float(squares.detach()), 6)}

        optimiser = torch.optim.Adam(vae.parameters(), lr=config.vae_lr)
        self._run(STAGES[0], vae, optimiser, loss, config.vae_steps, measure=lambda: self._reconstruction(vae))
        vae.register_to_config(latent_scale=self._latent_scale(vae))
        result = self._reconstruction(vae)
        self.log(stage=STAGES[0], **result)
        return result

    @torch.inference_mode()
    def _latent_scale(self, vae: WeightVAE) -> float:
        """1 / std of the latents' means over training records; rows that hold no class do not count."""
        rng, _ = step_rng(self.config.seed, "latent scale", 0)
        values = []
        for _ in range(8):
            batch = self.data.draw(256, rng)
            latents = vae.encode(batch.vectors).mean
            values.append(latents[vae.latent_mask(batch.mask)])
        return 1.0 / max(float(torch.cat(values).std()), 1e-6)

    def _scaled(self, latents: Tensor, batch, vae: WeightVAE) -> Tensor:
        """Latents as the denoiser sees them."""
        return latents * vae.config.latent_scale

    @torch.no_grad()
    def _reconstruction(self, vae: WeightVAE) -> dict[str, float]:
        data, rows = self.data, list(self.data.aside)
        records = data.zoo.records(rows)
        vectors = data.layout.flatten({n: v.to(data.device) for n, v in records.state.items()})
        mask = data.layout.mask(records.counts.to(data.device))
        rebuilt = data.layout.unflatten(vae.decode(vae.encode(vectors * mask).mean))
        original = data.layout.unflatten(vectors)
        return {
            "zoo_accuracy": round(float(data.query_accuracy(original, records).mean()), 4),
            "reconstructed_accuracy": round(float(data.query_accuracy(rebuilt, records).mean()), 4),
        }

    @torch.no_grad()
    def _sampled(self, denoiser: ConditionalUNet, encoder, vae: WeightVAE, scheduler, ema, most: int = 64) -> dict:
        """Accuracy of one sample each for some held-aside records, with the weights that will be sampled."""
        data, (rng, generator) = self.data, step_rng(self.config.seed, "held-aside samples", 0)
        records = data.zoo.records(list(data.aside)[:most])
        if self.config.condition == "task":  # classes in the order of their numbers, as in training
            _, support = data.arrange(records, rng)
            classes = records.classes.masked_fill(records.classes < 0, 2**62).sort(1).values
            records = replace(records, classes=classes.masked_fill(classes == 2**62, -1), support=support)
        condition = denoiser.lay_out(encoder(*self._told(records, rng)))
        scheduler = type(scheduler).from_config(scheduler.config)
        noise = torch.randn(len(records.counts), *vae.latent_shape, generator=generator).to(data.device)
        padding = vae.padding(data.layout.mask(records.counts.to(data.device)))
        ema.store(denoiser.parameters())
        ema.copy_to(denoiser.parameters())
        predict = partial(denoiser.denoise, beside=condition)
        latents = denoise(scheduler, predict, noise, DEFAULT_STEPS, padding=padding)
        ema.restore(denoiser.parameters())
        state = data.layout.unflatten(vae.decode(latents / vae.config.latent_scale))
        return {"sampled_accuracy": round(float(data.query_accuracy(state, records).mean()), 4)}

    def train_encoder(self, encoder: DatasetEncoder | TaskIndex, vae: WeightVAE) -> None:
        """Stage 2: z_D aligned with the latents of the heads; then frozen."""

        def loss(model, batch, rng, generator):
            with torch.no_grad():
                latents = self._scaled(vae.encode(batch.vectors).mean, batch, vae)
            value = model(*self._told(batch, rng), latents=latents)
            return value, {}

        rate = self.config.align_lr * (10 if self.config.condition == "task" else 1)  # a table learns row by row
        optimiser = torch.optim.Adam(encoder.parameters(), lr=rate)
        self._run(STAGES[1], encoder, optimiser, loss, self.config.align_steps)

    def train_denoiser(
        self, denoiser: ConditionalUNet, encoder: DatasetEncoder | TaskIndex, vae: WeightVAE, scheduler
    ) -> None:
        """Stage 3: noise prediction on scaled latents, VAE and encoder frozen; ends with the EMA weights."""
        config, steps = self.config, scheduler.config.num_train_timesteps
        noiser = make_noiser(scheduler)

        def loss(model, batch, rng, generator):
            with torch.no_grad():
                latents = self._scaled(vae.encode(batch.vectors).sample(generator), batch, vae)
                condition = encoder(*self._told(batch, rng))
                drop = torch.rand(len(latents), generator=generator) < config.condition_dropout
                condition = condition.dropped(drop.to(latents.device))
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            time = torch.randint(steps, (len(latents),), generator=generator).to(latents.device)
            noisy = noiser.add_noise(latents, noise, time)
            target = {
                "epsilon": noise,
                "sample": latents,
                "v_prediction": noiser.get_velocity(latents, noise, time),
            }[config.prediction]
            weight = vae.latent_mask(batch.mask).to(latents)
            squares = (model(noisy, time, condition).float() - target).square()
            return (squares * weight).sum() / weight.sum(), {}

        optimiser = torch.optim.AdamW(denoiser.parameters(), lr=config.diffusion_lr)
        ema = EMAModel(denoiser.parameters(), decay=config.ema, use_ema_warmup=True, power=0.75)
        ema.to(self.data.device)
        measure = partial(self._sampled, denoiser, encoder, vae, scheduler, ema)
        self._run(STAGES[2], denoiser, optimiser, loss, config.diffusion_steps, ema, measure)
        self.log(stage=STAGES[2], **measure())
        ema.copy_to(denoiser.parameters())
