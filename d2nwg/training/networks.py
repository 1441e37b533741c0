"""Training on a zoo of networks: the paper's stages, conditioned on architecture and task id."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from d2nwg.conditions.task_id import TaskIndex
from d2nwg.models.predictor import AccuracyPredictor
from d2nwg.models.schedulers import make_scheduler
from d2nwg.models.spaces import NetworkSpace
from d2nwg.models.vae import Latents, WeightVAE
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

ZOO_SAMPLE = 1024  # most zoo members whose latents a bundle keeps, and
ZOO_NUMBERS = 2**24  # how many numbers these may be; one member is always kept
COMPONENTS = 2**12  # most chunks whose principal components the VAE begins with
HELD_OUT = 64  # networks at most that are measured while they take no part in training
CACHED = 2**26  # numbers of zoo members that stay in memory; the others are read again from disk


@dataclass
class NetworkBatch:
    """B items: networks, or chunks of them (`NetworkSpace`).

    Attributes:
        vectors: (B, N) standardised.
        mask: (B, N) bool, the numbers that count.
        ids: (B, 2 T), numbers of the architecture's places and of the task (`NetworkSpace.ids`).
        group: (B,), which kind of item and task (`NetworkSpace.group`).
        accuracy: (B,) of its network as the zoo records it, NaN where it does not.
    """

    vectors: Tensor
    mask: Tensor
    ids: Tensor
    group: Tensor
    accuracy: Tensor


class NetworkBatches:
    """Draws training batches from a zoo of networks, and holds a tenth of it out."""

    def __init__(self, zoo: ModelZoo, space: NetworkSpace, device: torch.device):
        self.zoo, self.space, self.device = zoo, space, device
        self.part = slice(None)
        digests, tasks = list(zoo.architectures()), space.config.tasks
        self.members = torch.tensor(
            [[digests.index(r["architecture"]), tasks.index(r.get("task", UNKNOWN_TASK))] for r in zoo.records]
        )
        self.accuracy = torch.tensor([record.get("accuracy", float("nan")) for record in zoo.records])
        order = np.random.default_rng(0).permutation(len(zoo))  # a zoo may be in the order of its tasks
        self.aside, self.train = order[: len(zoo) // 10].tolist(), order[len(zoo) // 10 :]
        self._items = self._items_of(self.train.tolist())
        if not space.centres.any():  # not yet measured
            space.centre((int(self.members[number, 0]), self._read(number)) for number in self.train.tolist())
        self._vector = lru_cache(max(1, CACHED // space.size))(self._read)

    def _read(self, number: int) -> Tensor:
        state = {name: tensor.unsqueeze(0) for name, tensor in self.zoo.plain_state(number).items()}
        return self.space.to_vectors(state, int(self.members[number, 0]))[0]

    def draw(self, size: int, rng: np.random.Generator) -> NetworkBatch:
        """A random batch; of several processes each reads its part of the same `size` items."""
        return self._batch(self._items[rng.integers(len(self._items), size=size)][self.part])

    def draw_judged(self, size: int, rng: np.random.Generator) -> NetworkBatch:
        """As `draw`, of networks whose accuracy the zoo records."""
        known = self.train[self.accuracy[self.train].isfinite().numpy()]
        if not len(known):
            raise UserError(f"No network of the zoo {self.zoo.path} has an accuracy: leave out the predictor.")
        return self.batch(known[rng.integers(len(known), size=size)][self.part].tolist())

    def judged_aside(self, rng: np.random.Generator) -> dict[str, NetworkBatch]:
        """Held-out networks whose accuracy the zoo records, where there are any."""
        known = [number for number in self.aside if bool(self.accuracy[number].isfinite())]
        return {"zoo": self.batch(known[:HELD_OUT])} if len(known) > 1 else {}

    def ids(self, batch: NetworkBatch) -> Tensor:
        """(B, 2 T) the ids that are the condition."""
        return batch.ids

    def batch(self, numbers: list[int]) -> NetworkBatch:
        """All items of these records."""
        return self._batch(self._items_of(numbers))

    def batches(self, numbers: list[int]) -> Iterator[NetworkBatch]:
        """All items of these records, in order, some at a time."""
        items, some = self._items_of(numbers), 256 if self.space.config.independent else 16
        for first in range(0, len(items), some):
            yield self._batch(items[first : first + some])

    def _items_of(self, numbers: list[int]) -> np.ndarray:
        """(B, 2): record, and number of the item in it."""
        pieces = [self.space.pieces[int(self.members[number, 0])] for number in numbers]
        return np.array([(n, k) for n, count in zip(numbers, pieces, strict=True) for k in range(count)])

    def items(self, numbers: list[int]) -> Tensor:
        """The names of all items of these records (`NetworkSpace.items`), (B, 2 or 3)."""
        return torch.cat([self.space.items(self.members[number]) for number in numbers])

    def _batch(self, items: np.ndarray) -> NetworkBatch:
        names = self.members[items[:, 0]]
        if self.space.config.independent:
            names = torch.cat([names, torch.from_numpy(items[:, 1:])], 1)
        size = self.space.item_size
        vectors = torch.stack([self._vector(n).reshape(-1, size)[k] for n, k in items.tolist()])
        parts = vectors, self.space.mask(names), self.space.ids(names), self.space.group(names)
        parts = *parts, self.accuracy[items[:, 0]]
        return NetworkBatch(*(part.to(self.device) for part in parts))


class NetworkStages(Stages):
    """The stages on networks. Without running them, what can be measured is the error of their weights."""

    @torch.no_grad()
    def begin(self, vae: WeightVAE) -> None:
        """Let the VAE of chunks begin with their principal components: their weights are noise to it, most of which
        hundreds of steps would take to find."""
        rows = torch.cat([batch.vectors for batch in self.data.batches(_kept(self.data, vae))])
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.config.seed))[:COMPONENTS]]
        _, lengths, axes = torch.linalg.svd(rows, full_matrices=False)
        vae.begin_with(axes.flip(0).T, lengths.flip(0).square() / len(rows), self.config.kl_weight)

    @torch.no_grad()
    def _latent_scale(self, vae: Latents) -> float:
        """1 / std of the latents about the mean of their group, which is measured here as well."""
        space, latents, groups, used = self.data.space, [], [], []
        for batch in self.data.batches(_kept(self.data, vae)):
            latents.append(vae.encode(batch.vectors).mean)
            groups.append(batch.group)
            used.append(vae.latent_mask(batch.mask))
        latents, groups, used = torch.cat(latents), torch.cat(groups), torch.cat(used)
        self.centres = torch.zeros(len(space.latent_centres), *vae.latent_shape, device=latents.device)
        for group in range(len(self.centres)):
            if (groups == group).any():
                self.centres[group] = latents[groups == group].mean(0)
        spread = (latents - self.centres[groups])[used].square().mean().sqrt()
        if spread < 1e-3 * latents[used].std():  # one network a task: they differ from those of other tasks alone
            self.centres.zero_()
            spread = latents[used].std()
        return 1.0 / max(float(spread), 1e-6)

    def _scaled(self, latents: Tensor, batch: NetworkBatch, vae: Latents) -> Tensor:
        return (latents - self.centres[batch.group]) * vae.config.latent_scale

    @torch.no_grad()
    def _reconstruction(self, vae: Latents) -> dict[str, float]:
        """Share of the variance of the weights (about their architecture's mean) that reconstruction loses: of members
        trained on, and of those kept aside."""
        lost = {}
        for name, numbers in (("trained", self.data.train[:HELD_OUT].tolist()), ("aside", self.data.aside[:HELD_OUT])):
            error, whole = 0.0, 0.0
            for batch in self.data.batches(numbers):
                rebuilt = vae.decode(vae.encode(batch.vectors).mean)
                error += float((rebuilt - batch.vectors).square()[batch.mask].sum())
                whole += float(batch.vectors.square()[batch.mask].sum())
            if numbers:
                lost[f"lost_{name}"] = round(error / max(whole, 1e-12), 6)
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
    tokens = most if config.layout == "chunked" else 1
    return NetworkSpace(architectures, tasks, tokens, independent=config.layout == "independent")


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
        UserError: a network of the zoo cannot be learnt, or the settings do not fit together.
    """
    zoo = zoos[0]
    device, space = run.accelerator.device, network_space(zoo, config)
    data = NetworkBatches(zoo, space, device)
    tokens = space.config.tokens

    def make_encoder(latent: int) -> TaskIndex:
        encoder = TaskIndex(space.names, config.encoder_width, latent)
        if config.layout == "independent":  # of a thousand places none is learnt at the expense of another
            nn.init.orthogonal_(encoder.table.weight, config.encoder_width**0.5)
        return encoder

    check_stages(config, space.item_size, tokens, make_encoder, 2 * tokens, device)
    stages, predictor = NetworkStages(config, data, run), None
    measured: dict[str, float] = {}
    if config.predicts:
        predictor = AccuracyPredictor(space.size, tokens, ordered=tokens > 1).to(device)
        measured |= stages.train_predictor(predictor)
    vae = make_vae(config, space.item_size, tokens).to(device)
    if config.layout == "independent" and config.vae_skip and isinstance(vae, WeightVAE):
        stages.begin(vae)
    measured |= stages.train_vae(vae, predictor)
    encoder = make_encoder(torch.Size(vae.latent_shape).numel()).to(device)
    stages.train_encoder(encoder, vae)
    denoiser = make_denoiser(config, vae, encoder, 2 * tokens).to(device)
    scheduler = make_scheduler(config.prediction)
    stages.train_denoiser(denoiser, encoder, vae, scheduler)
    space = _filled(zoo, data, vae, stages.centres)
    return NetworkGenerationPipeline(vae, encoder, denoiser, scheduler, space, predictor), measured


@torch.no_grad()
def _filled(zoo: ModelZoo, data: NetworkBatches, vae: Latents, centres: Tensor) -> NetworkSpace:
    """The space with the latents of zoo members that were trained on."""
    rows = _kept(data, vae)
    latents = torch.cat([vae.encode(batch.vectors).mean.cpu() for batch in data.batches(rows)])
    items = data.items(rows)
    accuracy = [zoo.records[i].get("accuracy", float("nan")) for i in rows for _ in data.items([i])]
    space, config = data.space, dict(data.space.config)
    keys = ("architectures", "tasks", "tokens", "independent")
    filled = NetworkSpace(
        **{key: config[key] for key in keys}, latent_shape=tuple(vae.latent_shape), zoo_size=len(items)
    )
    filled.load_state_dict(
        {
            "centres": space.centres,
            "units": space.units,
            "latent_centres": centres.cpu(),
            "zoo_latents": latents,
            "zoo_members": items.float(),
            "zoo_accuracy": torch.tensor(accuracy),
        }
    )
    return filled


def _kept(data: NetworkBatches, vae: Latents) -> list[int]:
    """The records whose latents measure their spread, and stay in the bundle."""
    numbers = torch.Size(vae.latent_shape).numel() * max(data.space.pieces)
    return data.train[: max(1, min(ZOO_SAMPLE, ZOO_NUMBERS // numbers))].tolist()
