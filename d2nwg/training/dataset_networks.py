"""Training a generator of small networks: the loss of tasks through the networks that it makes for them, and diffusion
of the trunks of a zoo."""

import math
import time
from statistics import mean

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional

from d2nwg.evaluation import network_baselines as baselines
from d2nwg.models.hypernetwork import HyperNetwork
from d2nwg.models.network_space import SmallNetworkSpace
from d2nwg.models.schedulers import make_noiser, make_scheduler
from d2nwg.pipelines.dataset_networks import DatasetNetworkPipeline
from d2nwg.training.config import DatasetNetworksConfig
from d2nwg.training.loop import Run, run_stage, step_rng
from d2nwg.training.network_episodes import NetworkEpisode, TaskPool, choose_held_out
from d2nwg.training.trial import ADVICE, COPIES, unreal, weights
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.network_tasks import NetworkTasks
from d2nwg.weights.populations import accuracy_of

KEPT = 2**22  # numbers of zoo members that a bundle keeps
SEEN = 2000  # images that principal components are measured on
SHOTS = 5  # support images a class of the tasks that measure
MEASURED = 8  # of these tasks, at most
SAMPLES = 5  # networks drawn for each


def train(
    zoos: list[ModelZoo], config: DatasetNetworksConfig, run: Run
) -> tuple[DatasetNetworkPipeline, dict[str, float]]:
    """Train on a zoo of small networks with the images that they were trained on.

    Returns:
        The pipeline, and the accuracies of what it makes and of the baselines on tasks that took no part in training.
    Raises:
        UserError: the zoo does not keep images, or the networks do not fit into the memory.
    """
    zoo, device = zoos[0], run.accelerator.device
    tasks = NetworkTasks(zoo)
    held_out = choose_held_out(tasks, config.held_out)
    pool = TaskPool(tasks, held_out)
    space, members = network_space(zoo, tasks, config, held_out)
    with unreal("These settings make no generator"):
        sizes = space.num_described, space.numel, space.num_features + 1, config.coordinates
        model = HyperNetwork(*sizes, config.width, config.depth)
    images = config.tasks * 2 * (min(config.shots) + config.query)
    needed = 4 * (COPIES * weights(model) + images // config.accumulate * (space.num_described + 4 * config.width))
    check_memory(needed, f"Training a generator of {weights(model):,} weights", ADVICE, device)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = HyperNetwork(*sizes, config.width, config.depth).to(device)
    scheduler = make_scheduler("sample")
    train_hypernetwork(model, space.to(device), pool, members, config, scheduler, run)
    pipe = DatasetNetworkPipeline(model.cpu(), scheduler, space.cpu())
    measured = measure(pipe, pool, held_out or sorted(tasks.tasks))
    better = max(("closed-form", "generated"), key=lambda head: measured[f"made_{head.replace('-', '_')}"])
    model.register_to_config(head=better, average_penalty=measured.pop("penalty"))
    return pipe, measured | {"held_out": len(held_out), "tasks": len(tasks.tasks), "members": len(members.names)}


class Members:
    """The zoo's networks as targets of the diffusion.

    Args:
        names: the task of each.
        coordinates: (M, k) of its trunk.
    """

    def __init__(self, names: list[str], coordinates: Tensor):
        self.names, self.coordinates = names, coordinates

    def draw(self, pool: TaskPool, count: int, shots: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Support images (M, C, n, c, s, s) of some members' tasks, and the members' coordinates (M, k)."""
        chosen = rng.integers(len(self.names), size=count)
        images = torch.cat([pool.of_task(self.names[i], shots, 0, rng).support for i in chosen])
        return images, self.coordinates[torch.from_numpy(chosen)]


def network_space(
    zoo: ModelZoo, tasks: NetworkTasks, config: DatasetNetworksConfig, held_out: list[str]
) -> tuple[SmallNetworkSpace, Members]:
    """The space of a zoo's networks without those of tasks that are held out, and its members."""
    about, rng = tasks.networks, np.random.default_rng(0)
    chosen = [n for n, record in enumerate(zoo.records) if record.get("task") in set(tasks.tasks) - set(held_out)]
    if not chosen:
        raise UserError(f"The zoo {zoo.path} has no network of a task that it keeps images of: build it again.")
    space = SmallNetworkSpace(
        network=about.network,
        channels=about.channels,
        size=about.size,
        classes=about.classes,
        coordinates=config.coordinates,
        components=config.components,
        mean=tuple(about.mean),
        std=tuple(about.std),
    )
    check_memory(16 * len(chosen) * space.numel, f"Learning {len(chosen):,} networks", "train on fewer of them")
    names = list(dict.fromkeys(zoo.records[n]["task"] for n in chosen))
    each = max(1, SEEN // len(names))
    some = []
    for name in names:
        images = tasks.images(name)[0]
        some.append(images[rng.permutation(len(images))[:each]])
    trunks, rows = space.fit((zoo.plain_state(n) for n in chosen), space.normalised(torch.cat(some)))
    accuracy = torch.tensor([zoo.records[n].get("accuracy", math.nan) for n in chosen])
    most = max(1, KEPT // (space.numel + rows[0].numel()))
    # The last checkpoint of each task first: earlier ones are less accurate.
    order = sorted(range(len(chosen)), key=lambda i: -zoo.records[chosen[i]].get("epoch", 0))[:most]
    space.keep(trunks[order], rows[order], accuracy[order])
    return space, Members([zoo.records[n]["task"] for n in chosen], space.coordinates(trunks))


class Loss(nn.Module):
    """The losses of a batch: of tasks, through the networks made for them with both kinds of head, and of denoising the
    zoo's trunks, half of it from pure noise, as sampling begins."""

    def __init__(self, model: HyperNetwork, space: SmallNetworkSpace, noiser: DDPMScheduler, denoising: float):
        super().__init__()
        self.model, self.noiser, self.denoising = model, noiser, denoising
        self.last = noiser.config.num_train_timesteps - 1
        self.space = [space]  # not a part that is trained

    def forward(
        self, episode: NetworkEpisode, shown: Tensor, coordinates: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss to minimise, and its parts for the log.

        Args:
            shown: support images (M, C, n, c, s, s) of the tasks of zoo members, and ``coordinates`` (M, k) of those.
        """
        space, model = self.space[0], self.model
        by_slot, by_ridge = self.logits(episode)
        labels = episode.labels.expand(len(by_slot), -1).to(by_slot.device)
        made, solved = (functional.cross_entropy(scores.mT, labels) for scores in (by_slot, by_ridge))
        task = (made + solved) / math.log(by_slot.shape[-1])  # tasks of few and of many classes weigh alike
        slots = model.encode(self.described(shown))
        coordinates = coordinates.to(space.centre)
        step = torch.randint(self.last + 1, (len(coordinates),), generator=generator)
        step[::2] = self.last
        step = step.to(coordinates.device)
        noise = torch.randn(coordinates.shape, generator=generator).to(coordinates)
        clean = model(self.noiser.add_noise(coordinates, noise, step), step, slots)
        denoising = (clean - coordinates).square().mean()
        return task + self.denoising * denoising, {
            "task": round(made.item(), 4),
            "closed_form": round(solved.item(), 4),
            "denoising": round(denoising.item(), 4),
            "query_accuracy": round((by_ridge.argmax(-1) == labels).float().mean().item(), 4),
        }

    def described(self, support: Tensor) -> Tensor:
        """Bytes (B, C, n, c, s, s) → what the generator sees of them, (B, C, n, f)."""
        space = self.space[0]
        flat = space.normalised(support.to(space.centre.device).flatten(0, 2))
        with torch.no_grad():
            return space.describe(flat).reshape(*support.shape[:3], -1)

    def logits(self, episode: NetworkEpisode) -> tuple[Tensor, Tensor]:
        """Of the query images by networks with generated heads, and by the same trunks with closed-form ones: each
        (B, C × q, C)."""
        space, model = self.space[0], self.model
        slots = model.encode(self.described(episode.support))
        trunk = space.trunk_state(model.trunks(slots, space.basis))
        classes, shots = episode.support.shape[1:3]
        support = episode.support.flatten(1, 2)
        images = space.normalised(torch.cat([support, episode.query], 1).to(space.centre.device))
        features = space.features(trunk, images)
        targets = torch.eye(classes, device=features.device).repeat_interleave(shots, 0).unsqueeze(0)
        seen, asked = features.split([classes * shots, episode.query.shape[1]], 1)
        heads = model.head_rows(slots, space), model.closed_form_rows(seen, targets)
        made, solved = (asked @ rows[..., :-1].mT + rows[..., -1].unsqueeze(1) for rows in heads)
        return made, solved


def train_hypernetwork(
    model: HyperNetwork,
    space: SmallNetworkSpace,
    pool: TaskPool,
    members: Members,
    config: DatasetNetworksConfig,
    scheduler,
    run: Run,
) -> None:
    """The only stage, going on from a checkpoint if there is one; ends with the moving average."""
    accelerator = run.accelerator
    ema = EMAModel(model.parameters(), decay=config.ema, use_ema_warmup=True, power=0.75)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    loss = Loss(model, space, make_noiser(scheduler), config.denoising)
    trained, optimiser = accelerator.prepare(loss, optimiser)
    most = min(config.max_classes, pool.most)

    def step(number: int, part: int) -> tuple[Tensor, dict[str, float]]:
        place = accelerator.process_index + part * accelerator.num_processes
        rng, generator = step_rng(config.seed, "generator", number, place)
        classes = min(space.config.classes, most)
        if rng.random() < 0.5:  # as many classes as the zoo's tasks have, or any number
            classes = round(math.exp(rng.uniform(math.log(2), math.log(most))))
        shots = int(rng.choice(config.shots))
        episode = pool.draw(config.tasks, classes, shots, config.query, rng)
        shown, coordinates = members.draw(pool, config.members, min(shots, SHOTS), rng)
        with accelerator.autocast():
            return trained(episode, shown, coordinates, generator)

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
    ema.copy_to(model.parameters())
    model.eval().requires_grad_(False)
    space.common.data = mean_trunk(loss, pool)


def measure(pipe: DatasetNetworkPipeline, pool: TaskPool, names: list[str]) -> dict[str, float]:
    """Mean accuracies, without a step of fine-tuning, of what the pipeline makes and of the baselines, on some of these
    tasks: `SHOTS` images a class are shown, images of their test parts score."""
    rng, space = np.random.default_rng(0), pipe.weight_space
    chosen = [names[i] for i in rng.permutation(len(names))[:MEASURED]]
    episodes = [pool.of_task(name, SHOTS, 20, rng) for name in chosen]
    found: dict[str, list[float]] = {}
    penalty = best_penalty(space, pool)
    for number, episode in enumerate(episodes):
        classes = episode.support.shape[1]
        images = episode.support[0].flatten(0, 1)
        labels = torch.arange(classes).repeat_interleave(SHOTS)
        module = baselines.module_for(space, classes)

        def note(name: str, state, module=module, episode=episode) -> None:
            if state is not None:
                right = accuracy_of(module, state, space.normalised(episode.query), episode.labels.unsqueeze(0))
                found.setdefault(name, []).append(float(right.mean()))

        note("random", baselines.random_networks(space, classes, [0, 1, 2]))
        note("zoo_average", baselines.average_network(space, classes))
        note("nearest_member", baselines.nearest_member(space, images, labels))
        note("average_closed_form", baselines.average_closed_form(space, images, labels, penalty))
        began = time.perf_counter()
        made = pipe(images, labels, head="closed-form").state
        seconds = time.perf_counter() - began
        note("made_closed_form", made)
        generator = torch.Generator().manual_seed(number)
        drawn = pipe(images, labels, SAMPLES, generator, head="closed-form").state
        note("sample_closed_form", {name: value[1:] for name, value in drawn.items()})
        drawn = pipe(images, labels, SAMPLES, generator, head="generated").state
        note("made_generated", {name: value[:1] for name, value in drawn.items()})
        note("sample_generated", {name: value[1:] for name, value in drawn.items()})
        note("common_closed_form", baselines.common_closed_form(pipe.hypernetwork, space, images, labels))
        trained, steps = baselines.gradient_steps(space, images, labels, seconds=seconds)
        note("gradient_steps", trained)
        note("gradient_50", baselines.gradient_steps(space, images, labels, steps=50)[0])
        found.setdefault("steps", []).append(steps)
    return {name: round(mean(values), 4) for name, values in found.items()} | {"penalty": penalty}


@torch.no_grad()
def mean_trunk(loss: Loss, pool: TaskPool, count: int = 64) -> Tensor:
    """The mean (N,) of the trunks that the generator makes for random tasks."""
    rng, space = np.random.default_rng(2), loss.space[0]
    found = []
    for _ in range(count // 8):
        episode = pool.draw(8, min(space.config.classes, pool.most), SHOTS, 1, rng)
        found.append(loss.model.trunks(loss.model.encode(loss.described(episode.support)), space.basis))
    return torch.cat(found).mean(0)


def best_penalty(space: SmallNetworkSpace, pool: TaskPool, tasks: int = 12) -> float:
    """The penalty that is best for a closed-form head on the average trunk, on random training tasks."""
    rng, scores = np.random.default_rng(1), dict.fromkeys(baselines.PENALTIES, 0.0)
    classes = min(space.config.classes, pool.most)
    module = baselines.module_for(space, classes)
    episode = pool.draw(tasks, classes, SHOTS, 10, rng)
    labels = torch.arange(classes).repeat_interleave(SHOTS)
    for penalty in scores:
        for number in range(tasks):
            state = baselines.average_closed_form(space, episode.support[number].flatten(0, 1), labels, penalty)
            query = space.normalised(episode.query[number : number + 1])
            scores[penalty] += float(accuracy_of(module, state, query, episode.labels.unsqueeze(0)))
    return max(scores, key=lambda penalty: scores[penalty])
