"""Training on a zoo of adapters: the paper's stages, conditioned on descriptions of the tasks."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.conditions.description import DescriptionEncoder
from d2nwg.encoders.texts import load_text_encoder
from d2nwg.models.adapter_space import HEAD, AdapterSpace, KnownTask, layers_of
from d2nwg.models.schedulers import make_scheduler
from d2nwg.pipelines.adapters import AdapterGenerationPipeline
from d2nwg.pipelines.denoise import denoise
from d2nwg.training.config import AdaptersConfig
from d2nwg.training.loop import Run, step_rng
from d2nwg.training.stages import Stages, make_denoiser, make_vae
from d2nwg.training.trial import check_stages
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.text import some
from d2nwg.weights.model_zoo import ModelZoo

SPREAD = 0.5  # of the shares of a task's descriptions in a mean of them: often nearly one alone
STEPS = 20  # denoising steps of the samples that are looked at in training


@dataclass
class AdapterBatch:
    """B adapters.

    Attributes:
        vectors: (B, T k) coordinates.
        mask: (B, T k) bool, all True.
        tasks: (B,) numbers.
    """

    vectors: Tensor
    mask: Tensor
    tasks: Tensor


class AdapterBatches:
    """Draws training batches: every task as often as the others."""

    def __init__(self, vectors: Tensor, tasks: Tensor, space: AdapterSpace, device: torch.device):
        self.vectors, self.tasks, self.device = vectors.to(device), tasks, device
        self.part = slice(None)
        self.texts = space.texts.to(device)
        self.members = [torch.nonzero(tasks == n)[:, 0].numpy() for n in range(len(space.tasks))]
        self.rows = [torch.nonzero(space.description_tasks == n)[:, 0].numpy() for n in range(len(space.tasks))]

    def draw(self, size: int, rng: np.random.Generator) -> AdapterBatch:
        """A random batch; of several processes each reads its part of the same `size` members."""
        tasks = rng.integers(len(self.members), size=size)
        rows = np.array([rng.choice(self.members[task]) for task in tasks])[self.part]
        vectors = self.vectors[rows]
        mask = torch.ones_like(vectors, dtype=torch.bool)
        return AdapterBatch(vectors, mask, torch.from_numpy(tasks[self.part]).to(self.device))

    def described(self, batch: AdapterBatch, rng: np.random.Generator) -> Tensor:
        """A random mean of the vectors of the descriptions of each member's task, (B, width)."""
        found = []
        for task in batch.tasks:
            rows = self.rows[int(task)]
            shares = torch.from_numpy(rng.dirichlet(np.full(len(rows), SPREAD))).to(self.texts)
            found.append(shares @ self.texts[rows])
        return torch.nn.functional.normalize(torch.stack(found), dim=-1)


class AdapterStages(Stages):
    """The stages on adapters. Without running them, what can be measured is the error of their coordinates, and whether
    a sample lies by the adapters of its own task."""

    @torch.no_grad()
    def _latent_scale(self, vae) -> float:
        return 1.0 / max(float(vae.encode(self.data.vectors).mean.std()), 1e-6)

    @torch.no_grad()
    def _reconstruction(self, vae) -> dict[str, float]:
        """Share of the coordinates' variance that reconstruction loses."""
        vectors = self.data.vectors
        error = (vae.decode(vae.encode(vectors).mean) - vectors).square().mean()
        return {"lost": round(float(error / (vectors - vectors.mean(0)).square().mean()), 6)}

    @torch.no_grad()
    def _sampled(self, denoiser, encoder, vae, scheduler, ema, most: int = 64) -> dict:
        """Share of samples, one a description, whose nearest member of the zoo is one of their own task."""
        rng, generator = step_rng(self.config.seed, "samples", 0)
        owners = np.repeat(np.arange(len(self.data.rows)), [len(rows) for rows in self.data.rows])
        chosen = rng.permutation(len(owners))[:most]
        noise = torch.randn(len(chosen), *vae.latent_shape, generator=generator).to(self.data.device)
        scheduler = type(scheduler).from_config(scheduler.config)
        with self.averaged(ema):
            beside = denoiser.lay_out(encoder(self.data.texts[chosen]))
            latents = denoise(scheduler, lambda given, time: denoiser.denoise(given, time, beside), noise, STEPS)
        vectors = vae.decode(latents / vae.config.latent_scale)
        near = self.data.tasks[torch.cdist(vectors, self.data.vectors).argmin(1).cpu()]
        return {"own_task": round(float((near.numpy() == owners[chosen]).mean()), 4)}


def adapter_space(zoo: ModelZoo, config: AdaptersConfig) -> tuple[AdapterSpace, Tensor, Tensor]:
    """The space of a zoo's adapters without the tasks that are held out, the coordinates (Z, T k) of its members and
    their tasks (Z,).

    Raises:
        UserError: it is no zoo of adapters, a task to hold out is not in it, or fewer than two are left.
    """
    about = zoo.adapters
    if about is None:
        raise UserError(f"{zoo.path} is no zoo of adapters: make one with `zoo build --adapter lora`.")
    names = [task.name for task in about.tasks]
    if unknown := [name for name in config.held_out if name not in names]:
        raise UserError(f"The zoo {zoo.path} has no task {some(unknown)} to hold out: it has {some(names, 30)}.")
    kept = [task for task in about.tasks if task.name not in config.held_out]
    if len(kept) < 2:
        raise UserError("A generator of adapters learns from two tasks or more.")
    tasks = [_known(zoo, one) for one in kept]
    place = {task.name: number for number, task in enumerate(tasks)}
    chosen = [number for number, record in enumerate(zoo.records) if record.get("task") in place]
    first = zoo.plain_state(chosen[0])
    tensors = [[name, list(tensor.shape)] for name, tensor in first.items() if name not in HEAD]
    texts = load_text_encoder(config.text_encoder).encode([text for task in tasks for text in task.descriptions])
    space = AdapterSpace(
        shape=about.shape,
        encoder_key=about.encoder_key,
        tensors=tensors,
        num_features=first[HEAD[0]].shape[1],
        tasks=[asdict(task) for task in tasks],
        parts=1 if config.layout == "whole" else len(layers_of([name for name in first if name not in HEAD])) + 1,
        coordinates=config.coordinates,
        text_size=tuple(texts.shape),
        zoo_size=len(chosen),
    )
    check_memory(3 * 4 * len(chosen) * space.size, f"Learning {len(chosen):,} adapters", "train on fewer of them")
    owners = [place[zoo.records[number]["task"]] for number in chosen]
    vectors = space.fit((zoo.plain_state(number), owner) for number, owner in zip(chosen, owners, strict=True))
    space.texts.data.copy_(texts)
    space.zoo_vectors.data.copy_(vectors)
    space.zoo_tasks.data.copy_(torch.tensor(owners))
    return space, vectors, torch.tensor(owners)


def _known(zoo: ModelZoo, task) -> KnownTask:
    """What a bundle remembers of a task: its last adapters, of each seed one, are what it can do."""
    last = {
        record["name"].rpartition("/")[0]: record.get("score")
        for record in zoo.records
        if record.get("task") == task.name
    }
    scores = [value for value in last.values() if value is not None]
    trained = round(sum(scores) / len(scores), 4) if scores else None
    own = (task.name, task.descriptions, task.classes, task.metric, task.pairs)
    return KnownTask(*own, task.frozen.get("test"), trained)


def train(zoos: list[ModelZoo], config: AdaptersConfig, run: Run) -> tuple[AdapterGenerationPipeline, dict[str, float]]:
    """Train on a zoo of adapters: principal coordinates, their VAE, descriptions aligned with its latents, denoiser.

    Returns:
        The pipeline, and the share of the coordinates' variance that the VAE loses.
    Raises:
        UserError: see `adapter_space`.
    """
    device = run.accelerator.device
    space, vectors, tasks = adapter_space(zoos[0], config)
    data, tokens = AdapterBatches(vectors, tasks, space, device), space.config.parts

    def make_encoder(latent: int) -> DescriptionEncoder:
        return DescriptionEncoder(config.text_encoder, space.texts.shape[1], config.encoder_width, tokens, latent)

    check_stages(config, space.length, tokens, make_encoder, tokens, device)
    vae = make_vae(config, space.length, tokens).to(device)
    stages = AdapterStages(config, data, run)
    measured = stages.train_vae(vae)
    encoder = make_encoder(torch.Size(vae.latent_shape).numel()).to(device)
    stages.train_encoder(encoder, vae)
    denoiser = make_denoiser(config, vae, encoder, tokens).to(device)
    scheduler = make_scheduler(config.prediction)
    stages.train_denoiser(denoiser, encoder, vae, scheduler)
    return AdapterGenerationPipeline(vae, encoder, denoiser, scheduler, space), measured
