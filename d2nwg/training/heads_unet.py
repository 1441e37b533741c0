"""Training the paper's generator of heads: VAE, condition, UNet denoiser."""

from dataclasses import replace

import torch

from d2nwg.conditions import get_conditioner
from d2nwg.conditions.base import Conditioner
from d2nwg.models.predictor import AccuracyPredictor
from d2nwg.models.schedulers import make_scheduler
from d2nwg.pipelines.heads import LatentHeadPipeline
from d2nwg.training.config import UNetConfig
from d2nwg.training.data import ZooBatches, training_records
from d2nwg.training.loop import Run
from d2nwg.training.space import fit_layout, weight_space
from d2nwg.training.stages import Stages, make_denoiser, make_vae
from d2nwg.training.trial import check_stages
from d2nwg.utils.errors import UserError
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.zoo import Zoo


def train(zoos: list[Zoo], config: UNetConfig, run: Run) -> tuple[LatentHeadPipeline, dict[str, float]]:
    """Train the three stages on one zoo of heads, and before them an accuracy predictor if one is asked for.

    Returns:
        The pipeline, and the accuracies of held-out zoo heads and of their reconstructions.
    Raises:
        UserError: the settings do not fit together.
    """
    zoo, device = zoos[0], run.accelerator.device
    kept = training_records(zoo, config.zoo_records, config.seed)
    known = kept.tolist() if config.zoo_records else None  # what the bundle keeps of the zoo comes from these
    layout = fit_layout(zoo, config.token, known)
    if layout.tokens == 1 and config.patch == UNetConfig.patch:
        # No rows: one square picture for the whole vector and a latent of 4 × 16 × 16, as in the paper.
        levels = (config.vae_channels * 3)[:3]
        config = replace(config, patch=(1, 64, 64), vae_channels=levels, latent_channels=4, condition_channels=8)
    conditioner = get_conditioner(config.condition)

    def make_encoder(latent: int) -> Conditioner:
        return conditioner.for_zoo(zoo, config, latent)

    check_stages(config, layout.size, layout.tokens, make_encoder, layout.num_classes, device)
    data = ZooBatches(zoo, layout, config.shots, device, conditioner.sorts_classes, kept)
    stages = Stages(config, data, run)
    measured: dict[str, float] = {}
    predictor = make_predictor(config, zoo, layout)
    if predictor is not None:
        measured |= stages.train_predictor(predictor.to(device))
    vae = make_vae(config, layout.size, layout.tokens).to(device)
    measured |= stages.train_vae(vae, predictor)
    encoder = make_encoder(torch.Size(vae.latent_shape).numel()).to(device)
    stages.train_encoder(encoder, vae)
    denoiser = make_denoiser(config, vae, encoder, layout.num_classes).to(device)
    scheduler = make_scheduler(config.prediction)
    stages.train_denoiser(denoiser, encoder, vae, scheduler)
    space = weight_space(zoo, layout, encoder, known)
    return LatentHeadPipeline(vae, encoder, denoiser, scheduler, space, predictor), measured


def make_predictor(config: UNetConfig, zoo: Zoo, layout: WholeLayout) -> AccuracyPredictor | None:
    """An untrained accuracy predictor for the zoo's heads; None where none is asked for.

    Raises:
        UserError: it would see images, which the bundle is not shown.
    """
    if not config.predicts:
        return None
    if config.predictor == "weights":
        return AccuracyPredictor(layout.size, layout.tokens)
    if not get_conditioner(config.condition).takes_images:
        raise UserError(f"A bundle with condition={config.condition} sees no images: choose predictor=weights.")
    width = zoo.images["projection"].shape[0]
    return AccuracyPredictor(layout.size, layout.tokens, num_classes=layout.num_classes, num_features=width)
