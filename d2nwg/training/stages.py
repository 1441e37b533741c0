"""The three stages of the paper: VAE (eq. 1), data-set encoder (eq. 2, algorithm 2), diffusion (eq. 5)."""

from dataclasses import replace
from functools import partial

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from d2nwg.conditions.base import Conditioner
from d2nwg.models.schedulers import make_noiser
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.denoise import denoise
from d2nwg.training.config import StagesConfig
from d2nwg.training.loop import Run, run_stage, step_rng


def make_vae(config: StagesConfig, size: int, tokens: int) -> WeightVAE:
    """An untrained VAE for vectors of ``size`` numbers in ``tokens`` equal pieces."""
    return WeightVAE(
        size=size,
        tokens=tokens,
        patch=config.patch,
        channels=config.vae_channels,
        latent_channels=config.latent_channels,
        skip=config.vae_skip,
    )


def make_denoiser(config: StagesConfig, vae: WeightVAE, encoder: Conditioner, num_classes: int) -> ConditionalUNet:
    """An untrained denoiser for the VAE's latents and the conditioner's embeddings of ``num_classes`` slots."""
    return ConditionalUNet(
        latent_shape=vae.latent_shape,
        tokens=vae.config.tokens,
        num_classes=num_classes,
        slot_size=encoder.slot_size,
        dataset_size=config.encoder_width,
        condition_channels=config.condition_channels,
        channels=config.unet_channels,
        layers=config.unet_layers,
        skip=config.unet_skip,
    )


class Stages:
    """The paper's stages on heads; each method runs one to its end.

    Args:
        data: draws the batches, and holds zoo members out for measuring.
    """

    def __init__(self, config: StagesConfig, data, run: Run):
        self.config, self.data, self.run = config, data, run
        self.accelerator, self.log = run.accelerator, run.log

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
            run=self.run,
            ema=ema,
            measure=measure,
        )
        self.data.part = slice(None)
        module.eval().requires_grad_(False)

    def train_vae(self, vae: WeightVAE) -> dict[str, float]:
        """Stage 1. Returns the accuracy of held-out zoo heads, and of their reconstructions."""
        config = self.config

        def loss(model, batch, rng, generator):
            rebuilt, kl = model(batch.vectors, generator)
            counted = batch.mask.sum()
            squares = ((rebuilt - batch.vectors).square() * batch.mask).sum() / counted
            return squares + config.kl_weight * kl.sum() / counted, {"mse": round(float(squares.detach()), 6)}

        optimiser = torch.optim.Adam(vae.parameters(), lr=config.vae_lr)
        self._run("vae", vae, optimiser, loss, config.vae_steps, measure=lambda: self._reconstruction(vae))
        vae.register_to_config(latent_scale=self._latent_scale(vae))
        result = self._reconstruction(vae)
        self.log(stage="vae", **result)
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
        """Accuracy of one sample each for some held-out records, with the weights that will be sampled."""
        data, (rng, generator) = self.data, step_rng(self.config.seed, "held-aside samples", 0)
        records = data.zoo.records(list(data.aside)[:most])
        if encoder.sorts_classes:  # as in training
            _, support = data.arrange(records, rng)
            classes = records.classes.masked_fill(records.classes < 0, 2**62).sort(1).values
            records = replace(records, classes=classes.masked_fill(classes == 2**62, -1), support=support)
        condition = denoiser.lay_out(encoder(*encoder.training_inputs(data, records, rng)))
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

    def train_encoder(self, encoder: Conditioner, vae: WeightVAE) -> None:
        """Stage 2: z_D aligned with the latents of the heads; then frozen."""

        def loss(model, batch, rng, generator):
            with torch.no_grad():
                latents = self._scaled(vae.encode(batch.vectors).mean, batch, vae)
            value = model(*encoder.training_inputs(self.data, batch, rng), latents=latents)
            return value, {}

        rate = self.config.align_lr * encoder.lr_scale
        optimiser = torch.optim.Adam(encoder.parameters(), lr=rate)
        self._run("condition", encoder, optimiser, loss, self.config.align_steps)

    def train_denoiser(self, denoiser: ConditionalUNet, encoder: Conditioner, vae: WeightVAE, scheduler) -> None:
        """Stage 3: noise prediction on scaled latents, VAE and encoder frozen; ends with the EMA weights."""
        config, steps = self.config, scheduler.config.num_train_timesteps
        noiser = make_noiser(scheduler)

        def loss(model, batch, rng, generator):
            with torch.no_grad():
                latents = self._scaled(vae.encode(batch.vectors).sample(generator), batch, vae)
                condition = encoder(*encoder.training_inputs(self.data, batch, rng))
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
        self._run("denoiser", denoiser, optimiser, loss, config.diffusion_steps, ema, measure)
        self.log(stage="denoiser", **measure())
        ema.copy_to(denoiser.parameters())
