"""Training on a zoo of networks: the paper's stages, conditioned on architecture and task id."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from d2nwg.conditions.task_id import TaskIndex
from d2nwg.models.schedulers import make_scheduler
from d2nwg.models.spaces import NetworkSpace
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines.networks import NetworkGenerationPipeline
from d2nwg.training.config import NetworksConfig
from d2nwg.training.loop import Run
from d2nwg.training.stages import Stages, make_denoiser, make_vae
from d2nwg.training.trial import check_stages
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.text import shown
from d2nwg.weights.layouts import ChunkedLayout
from d2nwg.weights.model_zoo import UNKNOWN_TASK, ModelZoo

ZOO_SAMPLE = 1024  # zoo members whose latents a bundle keeps
CACHED = 2**26  # numbers of zoo members that stay in memory; the others are read again from disk


@dataclass
class NetworkBatch:
    """B networks.

    Attributes:
        vectors: (B, N) standardised.
        mask: (B, N) bool, the numbers that count.
        ids: (B, 2 T), numbers of the architecture's places and of the task (`NetworkSpace.ids`).
        group: (B,), which architecture and task (`NetworkSpace.group`).
    """

    vectors: Tensor
    mask: Tensor
    ids: Tensor
    group: Tensor


class NetworkBatches:
    """Draws training batches from a zoo of networks, and holds a tenth of it out."""

    def __init__(self, zoo: ModelZoo, space: NetworkSpace, device: torch.device):
        self.zoo, self.space, self.device = zoo, space, device
        self.part = slice(None)
        digests, tasks = list(zoo.architectures()), space.config.tasks
        self.members = torch.tensor(
            [[digests.index(r["architecture"]), tasks.index(r.get("task", UNKNOWN_TASK))] for r in zoo.records]
        )
        order = np.random.default_rng(0).permutation(len(zoo))  # a zoo may be in the order of its tasks
        self.aside, self.train = order[: len(zoo) // 10].tolist(), order[len(zoo) // 10 :]
        if not space.centres.any():  # not yet measured
            space.centre((int(self.members[number, 0]), self._read(number)) for number in self.train.tolist())
        self._vector = lru_cache(max(1, CACHED // space.size))(self._read)

    def _read(self, number: int) -> Tensor:
        state = {name: tensor.unsqueeze(0) for name, tensor in self.zoo.plain_state(number).items()}
        return self.space.to_vectors(state, int(self.members[number, 0]))[0]

    def draw(self, size: int, rng: np.random.Generator) -> NetworkBatch:
        """A random batch; of several processes each reads its part of the same `size` records."""
        return self.batch(self.train[rng.integers(len(self.train), size=size)][self.part].tolist())

    def ids(self, batch: NetworkBatch) -> Tensor:
        """(B, 2 T) the ids that are the condition."""
        return batch.ids

    def batch(self, numbers: list[int]) -> NetworkBatch:
        """These records."""
        members = self.members[numbers]
        vectors = torch.stack([self._vector(number) for number in numbers])
        mask, ids = self.space.mask(members[:, 0]), self.space.ids(members)
        parts = vectors, mask, ids, self.space.group(members)
        return NetworkBatch(*(part.to(self.device) for part in parts))


class NetworkStages(Stages):
    """The stages on networks. Without running them, what can be measured is the error of their weights."""

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

    def _scaled(self, latents: Tensor, batch: NetworkBatch, vae: WeightVAE) -> Tensor:
        return (latents - self.centres[batch.group]) * vae.config.latent_scale

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
    def _sampled(self, denoiser, encoder, vae, scheduler, ema, most: int = 64) -> dict:
        return {}


def network_space(zoo: ModelZoo, config: NetworksConfig) -> NetworkSpace:
    """The space of a zoo's networks, its layouts measured on all members."""
    architectures = []
    for digest, members in zoo.architectures().items():
        state = zoo.plain_state(members[0])
        _check_layout(ChunkedLayout.of(state, config.chunk, config.batchnorm), zoo, members[0])
        layout = zoo.layout(digest, config.chunk, config.batchnorm)
        left_out = [
            [name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for name, tensor in state.items()
            if name not in layout.shapes
        ]
        architectures.append(
            {
                "name": zoo.records[members[0]]["name"],
                "layout": layout.to_config(),
                "order": list(state),
                "left_out": left_out,
            }
        )
    tasks = sorted({record.get("task", UNKNOWN_TASK) for record in zoo.records})
    most = max(len(NetworkSpace(architectures=[one], tasks=tasks).layouts[0].places) for one in architectures)
    tokens = 1 if config.layout == "whole" else most
    return NetworkSpace(architectures, tasks, tokens)


def _check_layout(layout: ChunkedLayout, zoo: ModelZoo, number: int) -> None:
    """Raises UserError for networks without weights, or with vectors that do not fit into the memory."""
    name = shown(zoo.records[number]["name"])
    if not layout.shapes:
        raise UserError(f"{name} of the zoo {zoo.path} holds no floating-point weights: leave it out of the zoo.")
    numbers = layout.chunk * sum(-(-layout.numel(layer) // layout.chunk) for layer in layout.layers)
    what = f"Learning {name} as {numbers:,} numbers in chunks of {layout.chunk:,}"
    check_memory(32 * numbers, what, "choose a smaller `chunk`")


def train(zoos: list[ModelZoo], config: NetworksConfig, run: Run) -> tuple[NetworkGenerationPipeline, dict[str, float]]:
    """Train on a zoo of networks: VAE, id embeddings aligned with its latents, denoiser.

    Returns:
        The pipeline, and the share of the weights' variance that reconstruction loses.
    Raises:
        UserError: the zoo has fewer than five networks.
    """
    zoo = zoos[0]
    device, space = run.accelerator.device, network_space(zoo, config)
    data = NetworkBatches(zoo, space, device)
    if len(data.train) < 5:
        raise UserError(f"The zoo {zoo.path} has too few networks to learn from: import at least five.")
    tokens = space.config.tokens

    def make_encoder(latent: int) -> TaskIndex:
        return TaskIndex(space.names, config.encoder_width, latent)

    check_stages(config, space.size, tokens, make_encoder, 2 * tokens, device)
    vae = make_vae(config, space.size, tokens).to(device)
    stages = NetworkStages(config, data, run)
    measured = stages.train_vae(vae)
    encoder = make_encoder(torch.Size(vae.latent_shape).numel()).to(device)
    stages.train_encoder(encoder, vae)
    denoiser = make_denoiser(config, vae, encoder, 2 * tokens).to(device)
    scheduler = make_scheduler(config.prediction)
    stages.train_denoiser(denoiser, encoder, vae, scheduler)
    space = _filled(zoo, data, vae, stages.centres)
    return NetworkGenerationPipeline(vae, encoder, denoiser, scheduler, space), measured


@torch.no_grad()
def _filled(zoo: ModelZoo, data: NetworkBatches, vae: WeightVAE, centres: Tensor) -> NetworkSpace:
    """The space with the latents of zoo members that were trained on."""
    rows = data.train[:ZOO_SAMPLE].tolist()
    parts = [vae.encode(data.batch(rows[i : i + 16]).vectors).mean.cpu() for i in range(0, len(rows), 16)]
    space, config = data.space, dict(data.space.config)
    keys = ("architectures", "tasks", "tokens")
    filled = NetworkSpace(
        **{key: config[key] for key in keys}, latent_shape=tuple(vae.latent_shape), zoo_size=len(rows)
    )
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
