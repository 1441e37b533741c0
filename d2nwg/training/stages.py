"""The three stages of the paper: VAE (eq. 1), data-set encoder (eq. 2, algorithm 2), diffusion (eq. 5)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from diffusers.training_utils import EMAModel
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from d2nwg.conditions.base import Conditioner
from d2nwg.models.predictor import AccuracyPredictor
from d2nwg.models.schedulers import make_noiser
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import Latents, PlainWeights, WeightVAE
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.denoise import denoise
from d2nwg.training.config import PredictedConfig, StagesConfig
from d2nwg.training.loop import Run, run_stage, step_rng

PREDICTOR_LR = 1e-3  # peak, of the accuracy predictor


def make_vae(config: StagesConfig, size: int, tokens: int) -> Latents:
    """An untrained VAE for vectors of ``size`` numbers in ``tokens`` equal pieces; or, without a VAE, what lays the
    weights out in pictures of the height and width that the VAE's latents would have."""
    if not config.vae:
        factor, (_, rows, columns) = 2 ** (len(config.vae_channels) - 1), config.patch
        return PlainWeights(size, tokens, max(1, rows // factor), max(1, columns // factor))
    return WeightVAE(
        size=size,
        tokens=tokens,
        patch=config.patch,
        channels=config.vae_channels,
        latent_channels=config.latent_channels,
        skip=config.vae_skip,
        layers=config.vae_layers,
    )


def make_denoiser(config: StagesConfig, vae: Latents, encoder: Conditioner, num_classes: int) -> ConditionalUNet:
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
        dataset_picture=config.dataset_picture or not encoder.has_slots,
    )


def guidance_loss(predictor: AccuracyPredictor, vectors: Tensor, rebuilt: Tensor, mask: Tensor, *beside) -> Tensor:
    """The mean of ‖g(w) − g(ŵ)‖² (D2NWG, equation 9, algorithm 3) over B vectors w and their reconstructions ŵ.

    Args:
        vectors, rebuilt: (B, N) standardised.
        mask: (B, N) bool, the numbers that are weights.
        beside: the class means, of a predictor that is conditioned on them.
    """
    with torch.no_grad():
        target = predictor(vectors, mask, *beside)
    return (predictor(rebuilt, mask, *beside) - target).square().mean()


class Joint(nn.Module):
    """A conditioner and a denoiser, trained as one module. What only the alignment needs stays as it is."""

    def __init__(self, encoder: Conditioner, denoiser: ConditionalUNet):
        super().__init__()
        self.encoder, self.denoiser = encoder, denoiser
        for name, parameter in encoder.named_parameters():
            if name.startswith(("latent_map.", "temperature")):
                parameter.requires_grad_(False)

    def forward(self, noisy: Tensor, time: Tensor, inputs: tuple[Tensor, ...], drop: Tensor) -> Tensor:
        """`ConditionalUNet.forward` for the tasks of ``inputs``, empty where ``drop`` (B,) is True."""
        return self.denoiser(noisy, time, self.encoder(*inputs).dropped(drop))


class Stages:
    """The paper's stages on heads; each method runs one to its end.

    Args:
        data: draws the batches, and holds zoo members out for measuring.
    """

    def __init__(self, config: StagesConfig, data, run: Run):
        self.config, self.data, self.run = config, data, run
        self.accelerator, self.log = run.accelerator, run.log

    def _run(
        self, stage: str, module: nn.Module, optimiser, loss, steps: int, ema=None, measure=None, draw=None
    ) -> None:
        draw = draw or self.data.draw
        module.train()
        prepared, optimiser = self.accelerator.prepare(module, optimiser)

        def step(number: int, part: int) -> tuple[Tensor, dict[str, float]]:
            rng, generator = step_rng(self.config.seed, stage, number)  # of the batch, which processes and parts share
            place = self.accelerator.process_index + part * self.accelerator.num_processes
            if place:
                _, generator = step_rng(self.config.seed, stage, number, place)
            self.data.part = slice(place, None, self.accelerator.num_processes * self.config.accumulate)
            with self.accelerator.autocast():
                return loss(prepared, draw(self.config.batch_size, rng), rng, generator)

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

    def train_vae(self, vae: Latents, predictor: AccuracyPredictor | None = None) -> dict[str, float]:
        """Stage 1, guided by a predictor where one is given and its weight is not zero (equation 9). Without a VAE only
        the scale of the latents is measured.

        Returns:
            The accuracy of held-out zoo heads, and of their reconstructions.
        """
        config = self.config
        weight = config.predictor_weight if isinstance(config, PredictedConfig) else 0.0
        guided = predictor if weight else None

        def loss(model, batch, rng, generator):
            rebuilt, kl = model(batch.vectors, generator)
            counted = batch.mask.sum()
            squares = ((rebuilt - batch.vectors).square() * batch.mask).sum() / counted
            numbers = {"mse": round(float(squares.detach()), 6)}
            total = squares + config.kl_weight * kl.sum() / counted
            if guided is not None:
                beside = self.data.predictor_inputs(batch, rng) if guided.conditioned else ()
                guidance = guidance_loss(guided, batch.vectors, rebuilt, batch.mask, *beside)
                numbers["guidance"] = round(float(guidance.detach()), 6)
                total = total + weight * guidance
            return total, numbers

        if isinstance(vae, WeightVAE):
            optimiser = torch.optim.Adam(vae.parameters(), lr=config.vae_lr)
            self._run("vae", vae, optimiser, loss, config.vae_steps, measure=lambda: self._reconstruction(vae))
        vae.register_to_config(latent_scale=self._latent_scale(vae))
        result = self._reconstruction(vae)
        self.log(stage="vae", **result)
        return result

    @torch.inference_mode()
    def _latent_scale(self, vae: Latents) -> float:
        """1 / std of the latents' means over training records; rows that hold no class do not count."""
        rng, _ = step_rng(self.config.seed, "latent scale", 0)
        values = []
        for _ in range(8):
            batch = self.data.draw(256, rng)
            latents = vae.encode(batch.vectors).mean
            values.append(latents[vae.latent_mask(batch.mask)])
        return 1.0 / max(float(torch.cat(values).std()), 1e-6)

    def _scaled(self, latents: Tensor, batch, vae: Latents) -> Tensor:
        """Latents as the denoiser sees them."""
        return latents * vae.config.latent_scale

    @torch.no_grad()
    def _reconstruction(self, vae: Latents) -> dict[str, float]:
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
    def _sampled(self, denoiser: ConditionalUNet, encoder, vae: Latents, scheduler, ema, most: int = 64) -> dict:
        """Accuracy of one sample each for some held-out records, with the weights that will be sampled."""
        data, (rng, generator) = self.data, step_rng(self.config.seed, "held-aside samples", 0)
        records = data.zoo.records(list(data.aside)[:most])
        if encoder.sorts_classes:  # as in training
            _, support = data.arrange(records, rng)
            classes = records.classes.masked_fill(records.classes < 0, 2**62).sort(1).values
            records = replace(records, classes=classes.masked_fill(classes == 2**62, -1), support=support)
        inputs = encoder.training_inputs(data, records, rng)
        scheduler = type(scheduler).from_config(scheduler.config)
        noise = torch.randn(len(records.counts), *vae.latent_shape, generator=generator).to(data.device)
        padding = vae.padding(data.layout.mask(records.counts.to(data.device)))
        with self.averaged(ema):
            predict = partial(denoiser.denoise, beside=denoiser.lay_out(encoder(*inputs)))
            latents = denoise(scheduler, predict, noise, DEFAULT_STEPS, padding=padding)
        state = data.layout.unflatten(vae.decode(latents / vae.config.latent_scale))
        return {"sampled_accuracy": round(float(data.query_accuracy(state, records).mean()), 4)}

    @contextmanager
    def averaged(self, ema: EMAModel) -> Iterator[None]:
        """In the ``with``, what the last stage trains has the weights that will be sampled."""
        ema.store(self.trained.parameters())
        ema.copy_to(self.trained.parameters())
        try:
            yield
        finally:
            ema.restore(self.trained.parameters())

    def train_predictor(self, predictor: AccuracyPredictor) -> dict[str, float]:
        """Before stage 1: the accuracy predictor (appendix B.1); then frozen.

        Returns:
            Rank correlations (Spearman) of expected and measured accuracy on members that are held out.
        """
        assert isinstance(self.config, PredictedConfig)  # no other asks for a predictor

        def loss(model, batch, rng, generator):
            beside = self.data.predictor_inputs(batch, rng) if predictor.conditioned else ()
            odds = model(batch.vectors, batch.mask, *beside, odds=True).float()
            return binary_cross_entropy_with_logits(odds, batch.accuracy), {}

        optimiser = torch.optim.AdamW(predictor.parameters(), lr=PREDICTOR_LR, weight_decay=0.01)
        self._run("predictor", predictor, optimiser, loss, self.config.predictor_steps, draw=self.data.draw_judged)
        result = self._predicted(predictor)
        self.log(stage="predictor", **result)
        return result

    @torch.no_grad()
    def _predicted(self, predictor: AccuracyPredictor) -> dict[str, float]:
        rng, _ = step_rng(self.config.seed, "predictor, held out", 0)
        found = {}
        for name, batch in self.data.judged_aside(rng).items():
            beside = self.data.predictor_inputs(batch, rng) if predictor.conditioned else ()
            pairs = predictor(batch.vectors, batch.mask, *beside).cpu(), batch.accuracy.cpu()
            if all(len(values.unique()) > 1 for values in pairs):
                found[f"predictor_{name}"] = round(float(spearmanr(*pairs).statistic), 4)
        return found

    def train_encoder(self, encoder: Conditioner, vae: Latents) -> None:
        """Stage 2: z_D aligned with the latents of the heads; then frozen. Nothing where it is trained with the
        denoiser, or has nothing to learn."""
        if self.config.alignment == "joint" or not _learns(encoder):
            encoder.eval()
            return

        def loss(model, batch, rng, generator):
            with torch.no_grad():
                latents = self._scaled(vae.encode(batch.vectors).mean, batch, vae)
            value = model(*encoder.training_inputs(self.data, batch, rng), latents=latents)
            return value, {}

        rate = self.config.align_lr * encoder.lr_scale
        optimiser = torch.optim.Adam(encoder.parameters(), lr=rate)
        self._run("condition", encoder, optimiser, loss, self.config.align_steps)

    def train_denoiser(self, denoiser: ConditionalUNet, encoder: Conditioner, vae: Latents, scheduler) -> None:
        """Stage 3: noise prediction on scaled latents, VAE and encoder frozen, or the encoder trained too; ends with
        the EMA weights."""
        config, steps = self.config, scheduler.config.num_train_timesteps
        noiser = make_noiser(scheduler)
        joint = config.alignment == "joint" and _learns(encoder)
        self.trained = Joint(encoder, denoiser) if joint else denoiser

        def loss(model, batch, rng, generator):
            with torch.no_grad():
                latents = self._scaled(vae.encode(batch.vectors).sample(generator), batch, vae)
                inputs = encoder.training_inputs(self.data, batch, rng)
                drop = torch.rand(len(latents), generator=generator) < config.condition_dropout
                drop = drop.to(latents.device)
                given = (inputs, drop) if joint else (encoder(*inputs).dropped(drop),)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            time = torch.randint(steps, (len(latents),), generator=generator).to(latents.device)
            noisy = noiser.add_noise(latents, noise, time)
            target = {
                "epsilon": noise,
                "sample": latents,
                "v_prediction": noiser.get_velocity(latents, noise, time),
            }[config.prediction]
            weight = vae.latent_mask(batch.mask).to(latents)
            squares = (model(noisy, time, *given).float() - target).square()
            return (squares * weight).sum() / weight.sum(), {}

        optimiser = torch.optim.AdamW(self.trained.parameters(), lr=config.diffusion_lr)
        ema = EMAModel(self.trained.parameters(), decay=config.ema, use_ema_warmup=True, power=0.75)
        ema.to(self.data.device)
        measure = partial(self._sampled, denoiser, encoder, vae, scheduler, ema)
        self._run("denoiser", self.trained, optimiser, loss, config.diffusion_steps, ema, measure)
        self.log(stage="denoiser", **measure())
        ema.copy_to(self.trained.parameters())


def _learns(module: nn.Module) -> bool:
    """Whether it has anything to learn."""
    return any(parameter.requires_grad for parameter in module.parameters())
