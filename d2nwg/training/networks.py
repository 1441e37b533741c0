"""Training on a zoo of whole models: the paper's stages, with a network's architecture and task as the condition."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from d2nwg.conditions.task_id import TaskIndex
from d2nwg.models.schedulers import make_scheduler
from d2nwg.models.spaces import ModelSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.training.config import ModelsConfig
from d2nwg.training.stages import Stages
from d2nwg.utils.errors import UserError
from d2nwg.weights.model_zoo import ModelZoo

UNTOLD = "not told"  # the task of checkpoints without one
ZOO_SAMPLE = 1024  # zoo members whose latents a bundle keeps
CACHED = 2**26  # numbers of zoo members that stay in memory; the others are read again from disk


@dataclass
class ModelBatch:
    """B networks.

    Attributes:
        vectors: (B, N) standardised.
        mask: (B, N) bool, the numbers that count.
        ids: (B, 2 T), what the generator is told.
        group: (B,), which architecture and task (`ModelSpace.group`).
    """

    vectors: Tensor
    mask: Tensor
    ids: Tensor
    group: Tensor


class ModelBatches:
    """Draws training batches from a zoo of whole models, and keeps a tenth of it aside."""

    def __init__(self, zoo: ModelZoo, space: ModelSpace, device: torch.device):
        self.zoo, self.space, self.device = zoo, space, device
        self.part = slice(None)
        digests, tasks = list(zoo.architectures()), space.config.tasks
        self.members = torch.tensor(
            [[digests.index(r["architecture"]), tasks.index(r.get("task", UNTOLD))] for r in zoo.records]
        )
        order = np.random.default_rng(0).permutation(len(zoo))  # a zoo may be in the order of its tasks
        self.aside, self.train = order[: len(zoo) // 10].tolist(), order[len(zoo) // 10 :]
        if not space.centres.any():  # not yet measured
            space.centre((int(self.members[number, 0]), self._read(number)) for number in self.train.tolist())
        self._vector = lru_cache(max(1, CACHED // space.size))(self._read)

    def _read(self, number: int) -> Tensor:
        state = {name: tensor.unsqueeze(0) for name, tensor in self.zoo.plain_state(number).items()}
        return self.space.to_vectors(state, int(self.members[number, 0]))[0]

    def draw(self, size: int, rng: np.random.Generator) -> ModelBatch:
        """A random batch; of several processes each reads its part of the same `size` records."""
        return self.batch(self.train[rng.integers(len(self.train), size=size)][self.part].tolist())

    def batch(self, numbers: list[int]) -> ModelBatch:
        """These records."""
        members = self.members[numbers]
        vectors = torch.stack([self._vector(number) for number in numbers])
        mask, ids = self.space.mask(members[:, 0]), self.space.ids(members)
        parts = vectors, mask, ids, self.space.group(members)
        return ModelBatch(*(part.to(self.device) for part in parts))


class WholeStages(Stages):
    """The stages on whole models. What can be measured without running the networks is how near they come."""

    @torch.no_grad()
    def _latent_scale(self, vae: WeightVAE) -> float:
        """1 / std of the latents about the mean of their architecture and task, which is measured here as well."""
        space, rows = self.data.space, self.data.train[:ZOO_SAMPLE].tolist()
        batches = [self.data.batch(rows[first : first + 16]) for first in range(0, len(rows), 16)]
        latents = torch.cat([vae.encode(batch.vectors).mean for batch in batches])
        groups = torch.cat([batch.group for batch in batches])
        self.centres = torch.zeros(len(space.latent_centres), *vae.latent_shape, device=latents.device)
        for group in range(len(self.centres)):
            if (groups == group).any():
                self.centres[group] = latents[groups == group].mean(0)
        used = torch.cat([vae.latent_mask(batch.mask) for batch in batches])
        spread = (latents - self.centres[groups])[used].square().mean().sqrt()
        if spread < 1e-3 * latents[used].std():  # one network a task: they differ from those of other tasks alone
            self.centres.zero_()
            spread = latents[used].std()
        return 1.0 / max(float(spread), 1e-6)

    def _scaled(self, latents: Tensor, batch: ModelBatch, vae: WeightVAE) -> Tensor:
        return (latents - self.centres[batch.group]) * vae.config.latent_scale

    def _told(self, batch: ModelBatch, rng) -> tuple[Tensor, ...]:
        return (batch.ids,)

    @torch.no_grad()
    def _reconstruction(self, vae: WeightVAE) -> dict[str, float]:
        """Share of the variance of the weights (about their architecture's mean) that reconstruction loses: of members
        trained on, and of those kept aside."""
        lost = {}
        for name, numbers in (("trained", self.data.train[:64].tolist()), ("aside", self.data.aside[:64])):
            batch = self.data.batch(numbers) if numbers else None
            if batch:
                error = (vae.decode(vae.encode(batch.vectors).mean) - batch.vectors).square()[batch.mask].mean()
                lost[f"lost_{name}"] = round(float(error / batch.vectors[batch.mask].square().mean()), 6)
        return lost

    @torch.no_grad()
    def _sampled(self, denoiser, encoder, vae, scheduler, ema) -> dict:
        return {}


def model_space(zoo: ModelZoo, config: ModelsConfig) -> ModelSpace:
    """The space of a zoo's networks, its layouts measured on all members."""
    architectures = []
    for digest, members in zoo.architectures().items():
        layout, state = zoo.layout(digest, config.chunk, config.batchnorm), zoo.plain_state(members[0])
        left = [[n, list(t.shape), str(t.dtype).removeprefix("torch.")] for n, t in state.items()
                if n not in layout.shapes]  # fmt: skip
        architectures.append(
            {
                "name": zoo.records[members[0]]["name"],
                "layout": layout.to_config(),
                "order": list(state),
                "left_out": left,
            }
        )
    tasks = sorted({record.get("task", UNTOLD) for record in zoo.records})
    most = max(len(ModelSpace(architectures=[one], tasks=tasks).layouts[0].places) for one in architectures)
    tokens = 1 if config.layout == "whole" else most
    return ModelSpace(architectures, tasks, tokens)


def train_whole(zoo: ModelZoo, config: ModelsConfig, work, accelerator, log, progress) -> tuple[list, dict]:
    """Train on a zoo of whole models: VAE, id embeddings aligned with its latents, denoiser.

    Returns:
        The parts of a `ModelGenerationPipeline`, and what was measured.
    Raises:
        UserError: the zoo has fewer than five models.
    """
    device, space = accelerator.device, model_space(zoo, config)
    data = ModelBatches(zoo, space, device)
    if len(data.train) < 5:
        raise UserError(f"The zoo {zoo.path} has too few models to learn from: import at least five.")
    tokens = space.config.tokens
    vae = WeightVAE(
        size=space.size,
        tokens=tokens,
        patch=config.patch,
        channels=config.vae_channels,
        latent_channels=config.latent_channels,
        skip=config.vae_skip,
    ).to(device)
    stages = WholeStages(config, data, work, accelerator, log, progress)
    measured = stages.train_vae(vae)
    encoder = TaskIndex(space.names, config.encoder_width, torch.Size(vae.latent_shape).numel()).to(device)
    stages.train_encoder(encoder, vae)
    denoiser = ConditionalUNet(
        latent_shape=vae.latent_shape,
        tokens=tokens,
        num_classes=2 * tokens,
        slot_size=encoder.slot_size,
        dataset_size=config.encoder_width,
        condition_channels=config.condition_channels,
        channels=config.unet_channels,
        layers=config.unet_layers,
        skip=config.unet_skip,
    ).to(device)
    scheduler = make_scheduler(config.prediction)
    stages.train_denoiser(denoiser, encoder, vae, scheduler)
    return [vae, encoder, denoiser, scheduler, _filled(zoo, data, vae, stages.centres)], measured


@torch.no_grad()
def _filled(zoo: ModelZoo, data: ModelBatches, vae: WeightVAE, centres: Tensor) -> ModelSpace:
    """The space with the latents of zoo members that were trained on."""
    rows = data.train[:ZOO_SAMPLE].tolist()
    parts = [vae.encode(data.batch(rows[i : i + 16]).vectors).mean.cpu() for i in range(0, len(rows), 16)]
    space, told = data.space, dict(data.space.config)
    keys = ("architectures", "tasks", "tokens")
    filled = ModelSpace(**{key: told[key] for key in keys}, latent_shape=tuple(vae.latent_shape), zoo_size=len(rows))
    filled.load_state_dict(
        {
            "centres": space.centres,
            "units": space.units,
            "latent_centres": centres.cpu(),
            "zoo_latents": torch.cat(parts),
            "zoo_members": data.members[rows].float(),
            "zoo_accuracy": torch.tensor([zoo.records[i].get("accuracy", float("nan")) for i in rows]),
        }
    )
    return filled
