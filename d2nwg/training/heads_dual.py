"""Training the dual-coordinate generator: denoising of projected zoo heads, and the task itself on held-out images."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from d2nwg.models.dual import COEFFICIENTS, DualCondition, DualDenoiser
from d2nwg.models.schedulers import make_noiser, make_scheduler
from d2nwg.pipelines.heads_dual import DualHeadPipeline
from d2nwg.training.config import DualConfig
from d2nwg.training.episodes import Episode, ZooEpisodes
from d2nwg.training.loop import Run, run_stage, step_rng
from d2nwg.training.names import ZooNames, fit_alone
from d2nwg.training.space import fit_layout, weight_space
from d2nwg.training.trial import ADVICE, COPIES, unreal, weights
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.paths import whole_file
from d2nwg.weights.zoo import Zoo

VALIDATION = [(ways, shots, unlabelled) for ways in (5, 10, 20) for shots in (1, 5) for unlabelled in (0, 15)]
VALIDATION_BATCHES = 4  # of each kind
SPREAD_BATCHES = 24  # that the spread of the corrections is measured on
# Strength of the pull towards no correction, as a share of the mean curvature of the fit to the zoo's head.
SHRINKAGE = 0.1


def train(zoos: list[Zoo], config: DualConfig, run: Run) -> tuple[DualHeadPipeline, dict[str, float]]:
    """Train on zoos of heads, of one encoder or several; the first one's encoder is the bundle's default.

    Returns:
        The pipeline with the model that was best on the held-out data sets (the last one where none are held out), and
        its accuracies there.
    """
    _check(zoos, config, run.accelerator.device)
    scheduler = make_scheduler("sample")
    space = weight_space(zoos[0], fit_layout(zoos[0]))
    names = zoo_names(zoos, config)
    episodes = ZooEpisodes(zoos, config, run.accelerator.device, names)
    model, measured = train_denoiser(config, episodes, scheduler, run)
    if not names or names[0] is None:
        return DualHeadPipeline(model, scheduler, space, None), measured
    return DualHeadPipeline(model, scheduler, space, names[0].space), measured | fit_alone(names[0], config.seed)


def zoo_names(zoos: list[Zoo], config: DualConfig) -> list[ZooNames | None]:
    """What class names say about each zoo's tasks; nothing where they are no condition, or the first zoo has none."""
    if not config.names:
        return []
    found: dict[tuple, ZooNames | None] = {}
    for zoo in zoos:
        if _images_of(zoo) not in found:
            found[_images_of(zoo)] = ZooNames.of(zoo, config.held_out)
    names = [found[_images_of(zoo)] for zoo in zoos]
    return names if names[0] is not None else []


def _images_of(zoo: Zoo) -> tuple:
    """Equal for zoos of the same images and encoder."""
    total = float(zoo.images["features"].float().sum())
    return zoo.encoder, tuple(zoo.class_names), zoo.num_images, total


def _check(zoos: list[Zoo], config: DualConfig, device: torch.device) -> None:
    """Raises UserError for a denoiser that cannot be built, or tasks that do not fit into the memory."""
    with unreal("These settings make no denoiser"):
        if config.width % config.heads:
            raise ValueError(f"a width of {config.width} does not divide into {config.heads} attention heads")
        model = DualDenoiser(config.width, config.depth, config.heads)
    images = 2 * min(min(config.shots), config.max_images)  # at least, of two classes
    a_task = images * (max(zoo.images["features"].shape[1] for zoo in zoos) + config.width * config.depth)
    what = f"Training a denoiser of {weights(model):,} weights on {config.tasks:,} tasks a step"
    check_memory(4 * (COPIES * weights(model) + config.tasks // config.accumulate * a_task), what, ADVICE, device)


def train_denoiser(
    config: DualConfig, episodes: ZooEpisodes, scheduler, run: Run
) -> tuple[DualDenoiser, dict[str, float]]:
    """Train on episodes, going on from a checkpoint if there is one; as `train`."""
    accelerator, log, best = run.accelerator, run.log, run.folder / "best.safetensors"
    named = episodes.names[0] is not None
    model = DualDenoiser(config.width, config.depth, config.heads, names=named).to(accelerator.device)
    noiser = make_noiser(scheduler)
    last = scheduler.config.num_train_timesteps - 1
    rng, _ = step_rng(config.seed, "spread", 0)
    model.spread.data = measure_spread(model, [episodes.draw(rng) for _ in range(SPREAD_BATCHES)])
    ema = EMAModel(model.parameters(), decay=config.ema, use_ema_warmup=True, power=0.75)
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=config.lr, weight_decay=config.weight_decay
    )
    trained, optimiser = accelerator.prepare(Loss(model, noiser, last, config.denoising), optimiser)
    model.train()

    def step(number: int, part: int) -> tuple[Tensor, dict[str, float]]:
        if not part and number and number % config.validate_every == 0 and accelerator.is_main_process:
            validate(number)
        place = accelerator.process_index + part * accelerator.num_processes
        rng, generator = step_rng(config.seed, "generator", number, place)
        with accelerator.autocast():
            return trained(episodes.draw(rng), generator)

    def validate(number: int) -> None:
        ema.store(model.parameters())
        ema.copy_to(model.parameters())
        measured = held_out_accuracy(model, episodes, last)
        if measured and measured["accuracy"] > _accuracy(best):
            with whole_file(best) as part:
                save_file(model.state_dict(), part, metadata={"measured": json.dumps(measured | {"step": number})})
        log(stage="generator", step=number, **{f"held_out_{k}": v for k, v in measured.items()})
        ema.restore(model.parameters())

    run_stage(
        "generator",
        step,
        modules={"model": trained},
        optimiser=optimiser,
        steps=config.steps,
        checkpoint_every=config.checkpoint_every,
        run=run,
        ema=ema,
    )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        validate(config.steps)
    ema.copy_to(model.parameters())
    model.eval().requires_grad_(False)
    measured = {}
    if best.exists():
        measured = _measured(best)
        model.load_state_dict(load_file(best))
    return model, measured


class Loss(torch.nn.Module):
    """The two losses of a batch of tasks. Half of them start from pure noise, as sampling does."""

    def __init__(self, model: DualDenoiser, noiser: DDPMScheduler, last: int, denoising: float):
        super().__init__()
        self.model, self.noiser, self.last, self.denoising = model, noiser, last, denoising

    def forward(self, episode: Episode, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss to minimise, and its parts for the log."""
        condition = self.model.encode(episode.support, episode.targets, episode.unlabelled, episode.directions)
        latents = zoo_corrections(condition, episode) / self.model.spread
        time = torch.randint(self.last + 1, (len(latents),), generator=generator)
        time[::2] = self.last
        time = time.to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        clean = self.model(self.noiser.add_noise(latents, noise, time), time, condition)
        scores = self.model.logits(clean, condition, episode.query).float()
        labels = episode.labels.expand(len(scores), -1)
        # Divided by a guesser's loss, so that tasks of two classes and of a hundred weigh alike.
        task = functional.cross_entropy(scores.mT, labels) / np.log(scores.shape[-1])
        denoising = (clean.float() - latents).square().mean()
        return task + self.denoising * denoising, {
            "task": round(task.item(), 4),
            "denoising": round(denoising.item(), 4),
            "query_accuracy": round((scores.argmax(-1) == labels).float().mean().item(), 4),
        }


@torch.no_grad()
def zoo_corrections(condition: DualCondition, episode: Episode) -> Tensor:
    """The corrections that bring the start nearest to the zoo's heads: (B, num_tokens, COEFFICIENTS).

    Least squares on the logits of all the episode's images, with a pull towards zero. Entry (p, c) of the logits is
    linear in the corrections z of image i: Σ_k z_ik K_k[p, i] D_k[i, c], with K_k the (filtered) inner products and D_k
    the image's share of the class; so the normal equations are a product entry by entry. The zoo's heads were trained
    on more images and are surer of themselves: their logits are first scaled to the start's.
    """
    images = torch.cat([episode.support, episode.unlabelled, episode.query], 1)
    found = []
    for branch in condition.branches:
        span, start = branch.span, branch.start
        seen = span.coordinates(images)
        own, zoo = (
            scores - scores.mean(-1, keepdim=True)
            for scores in (branch.scores(images, start.weight, start.bias), episode.zoo_logits)
        )
        scale = (own * zoo).sum((1, 2), keepdim=True) / zoo.square().sum((1, 2), keepdim=True)
        error = scale.clamp_min(0) * zoo - own
        plain, filtered = seen @ span.points.mT, (seen * start.ridge_filter) @ span.points.mT
        kernels = torch.cat([plain, filtered, torch.ones_like(plain)], -1)
        of_class = start.share / start.counts.unsqueeze(1)
        duals = torch.cat([start.mean_filter * of_class, start.trust.unsqueeze(-1) * start.share, of_class], 1)
        duals = duals - duals.mean(-1, keepdim=True)
        normal = (kernels.mT @ kernels) * (duals @ duals.mT)
        right = ((kernels.mT @ error) * duals).sum(-1, keepdim=True)
        pull = SHRINKAGE * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        normal = normal + pull * torch.eye(normal.shape[-1], device=normal.device)
        solved = torch.linalg.solve(normal, right).squeeze(-1)
        found.append(solved.unflatten(-1, (COEFFICIENTS, -1)).mT)
    return torch.cat(found, 1)


@torch.no_grad()
def measure_spread(model: DualDenoiser, batches: list[Episode]) -> Tensor:
    """(COEFFICIENTS,) root mean square of the corrections over tasks without unlabelled images."""
    squares = []
    for episode in batches:
        condition = model.encode(episode.support, episode.targets, None, episode.directions)
        alone = Episode(**{**vars(episode), "unlabelled": episode.unlabelled[:, :0]})
        shown, free = episode.support.shape[1], episode.unlabelled.shape[1]
        alone.zoo_logits = torch.cat([episode.zoo_logits[:, :shown], episode.zoo_logits[:, shown + free :]], 1)
        squares.append(zoo_corrections(condition, alone).square().mean((0, 1)))
    return torch.stack(squares).mean(0).sqrt().clamp_min(1e-3)


@torch.no_grad()
def held_out_accuracy(model: DualDenoiser, episodes: ZooEpisodes, last: int) -> dict[str, float]:
    """Accuracy of the one-step head on tasks of the held-out data sets, by kind and on average, and that of the start;
    empty without any. With names as a condition each kind is measured with true and with permuted ones."""
    result: dict[str, float] = {}
    start: list[float] = []
    rng = np.random.default_rng(0)
    model.eval()
    kinds = [(*kind, true) for kind in VALIDATION for true in ((True, False) if episodes.names[0] else (True,))]
    for ways, shots, unlabelled, true in kinds:
        right: list[float] = []
        for _ in range(VALIDATION_BATCHES // (2 if episodes.names[0] else 1)):
            episode = episodes.held_out(ways, shots, unlabelled, rng, true)
            if episode is None:
                break
            condition = model.encode(episode.support, episode.targets, episode.unlabelled, episode.directions)
            noise = torch.zeros(len(episode.support), condition.num_tokens, COEFFICIENTS, device=episode.support.device)
            for latents, hits in ((model(noise, last, condition), right), (noise, start)):
                scores = model.logits(latents, condition, episode.query)
                hits.append((scores.argmax(-1) == episode.labels).float().mean().item())
        if right:
            kind = f"{ways}_way_{shots}_shot" + "_unlabelled" * bool(unlabelled) + "_permuted_names" * (not true)
            result[kind] = round(float(np.mean(right)), 4)
    model.train()
    if result:
        result |= {
            "accuracy": round(float(np.mean(list(result.values()))), 5),
            "start": round(float(np.mean(start)), 5),
        }
    return result


def _measured(best: Path) -> dict[str, float]:
    from safetensors import safe_open

    try:
        with safe_open(best, "pt") as file:
            measured = json.loads(file.metadata()["measured"])
        float(measured["accuracy"])
        return measured
    except Exception as reason:  # a damaged file can fail in any way
        raise UserError(f"{best} is damaged: remove the folder it is in, and train anew.") from reason


def _accuracy(best: Path) -> float:
    return _measured(best)["accuracy"] if best.exists() else -1.0
