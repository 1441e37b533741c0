"""Training many small networks of one architecture at once.

M networks are a `State` whose tensors have a leading axis M. On a CPU each is trained by a loop of its own, in memory
format ``channels_last`` and with a fused optimiser, one network a core; elsewhere all take each step together
(`torch.func.functional_call` under `torch.vmap`, with one optimiser over an (M, D) matrix of weights).
"""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from d2nwg.utils.devices import workers
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, pick

STAGE = "Training networks"  # of progress
MEAN = STD = 0.5  # of pixels of 8 bits in [0, 1], as small networks take them
SCORED = 1024  # images of a batch that is only looked at
BETAS, EPS = (0.9, 0.999), 1e-8

Optimiser = Literal["adam", "adamw"]


@dataclass(frozen=True)
class _Settings:
    batch_size: int
    optimiser: Optimiser
    weight_decay: float


def train_networks(
    module: nn.Module,
    states: State,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch_size: int,
    lr: float | Sequence[float],
    optimiser: Optimiser = "adam",
    weight_decay: float = 0.0,
    seeds: Sequence[int],
    counts: Sequence[int] | None = None,
    progress: Progress = silent,
    at: Sequence[int] = (),
    on_step: Callable[[int, State], None] | None = None,
    stacked: bool | None = None,
) -> State:
    """Train M networks by cross entropy, each from its own weights, on the device of ``states``.

    A network's images come in an order that depends on its seed alone (every epoch is a new permutation; a batch can
    reach into the next one), so a seed gives the same network whatever M is: bit for bit in the loop, up to rounding
    where all train together.

    Args:
        module: the architecture; its own weights are not used or changed.
        states: (M, …) weights to start from; BatchNorm statistics travel with them.
        images: (M or 1, n, c, h, w), float32 as the network takes it, or uint8 (see `as_input`); M or one set for all.
        labels: (M or 1, n) int64.
        steps: of the optimiser, of each network.
        batch_size: images a step.
        lr: learning rate, one for all or M; it is constant.
        seeds: M, of the order of the images.
        counts: M numbers of images, where some networks have fewer than n: the first ones.
        progress: stage `STAGE`, in steps of single networks.
        at: steps, counted from 1, after which ``on_step(step, states)`` is called with all M networks as they are then.
        stacked: whether all train together; by default where the device is no CPU.
    Returns:
        (M, …) the trained networks, in evaluation mode's terms: a diverged one holds NaN or infinities.
    """
    many, device = len(seeds), next(iter(states.values())).device
    settings = _Settings(batch_size, optimiser, weight_decay)
    images, labels = images.to(device), labels.to(device)
    rates = torch.as_tensor(lr, dtype=torch.float32).expand(many)
    stops = sorted({step for step in at if 0 < step < steps} | {steps})
    together = device.type != "cpu" if stacked is None else stacked
    kind = _Stacked if together else _Loop
    streams = [orders(seed, n, batch_size) for seed, n in zip(seeds, counts or [labels.shape[1]] * many, strict=True)]
    population = kind(module, states, images, labels, rates, streams, settings)
    done, trained = 0, states
    for stop in stops:
        trained = population.advance(stop - done, _shifted(progress, done * many, steps * many))
        done = stop
        if on_step and done in at:
            on_step(done, trained)
    return trained


def logits_of(module: nn.Module, states: State, images: Tensor) -> Tensor:
    """Outputs of M networks in evaluation mode.

    Args:
        images: (M or 1, n, c, h, w), float32 or uint8.
    Returns:
        (M, n, C)
    """
    device = next(iter(states.values())).device
    many, images = len(next(iter(states.values()))), images.to(device)
    network = copy.deepcopy(module).eval()
    with torch.no_grad():
        if device.type == "cpu":
            found = []
            for number in range(many):
                network.load_state_dict(pick(states, number))
                parts = images[number if len(images) > 1 else 0].split(SCORED)
                found.append(torch.cat([network(as_input(part)) for part in parts]))
            return torch.stack(found)
        network.to(device)
        rows = images.shape[1] if images.shape[1] * many <= 2**17 else max(1, 2**17 // many)
        call, axis = _calling(network), 0 if len(images) > 1 else None
        parts = [part if axis == 0 else part[0] for part in images.split(rows, 1)]
        return torch.cat([torch.vmap(call, (0, axis))(states, as_input(part)) for part in parts], 1)


def accuracy_of(module: nn.Module, states: State, images: Tensor, labels: Tensor) -> Tensor:
    """(M,) the fraction of images that each network is right on; arguments as of `logits_of`, labels (M or 1, n)."""
    said = logits_of(module, states, images).argmax(-1)
    return (said == labels.to(said.device)).float().mean(1)


def stack_states(states: Sequence[State]) -> State:
    """State dicts of single networks → one with a leading axis."""
    return {name: torch.stack([state[name].contiguous() for state in states]) for name in states[0]}


def as_input(images: Tensor) -> Tensor:
    """Pixels of 8 bits as float32 with mean `MEAN` and standard deviation `STD` taken out; others as they are."""
    return (images.float() / 255 - MEAN) / STD if images.dtype == torch.uint8 else images


def orders(seed: int, count: int, batch_size: int) -> Iterator[Tensor]:
    """(batch_size,) numbers of the images of each step, without end."""
    generator, left = torch.Generator().manual_seed(seed), torch.zeros(0, dtype=torch.int64)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(count, generator=generator)])
        yield left[:batch_size]
        left = left[batch_size:]


class _Loop:
    """Each network with a module and an optimiser of its own."""

    def __init__(self, module, states, images, labels, rates, batches, settings: _Settings):
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
        self.images, self.labels, self.device = images, labels, images.device
        self.networks, self.optimisers = [], []
        for number, rate in enumerate(rates.tolist()):
            network = copy.deepcopy(module).to(self.device)
            network.load_state_dict(pick(states, number))
            network = network.to(memory_format=torch.channels_last).train().requires_grad_()
            self.networks.append(network)
            decay = settings.weight_decay
            self.optimisers.append(
                kind(network.parameters(), lr=rate, weight_decay=decay, betas=BETAS, eps=EPS, fused=True)
            )
        self.batches = batches

    def advance(self, steps: int, progress: Progress) -> State:
        done, guard, stop = 0, threading.Lock(), threading.Event()

        def run(number: int) -> None:
            nonlocal done
            for _ in range(steps):
                if stop.is_set():
                    return
                self._step(number)
                with guard:
                    done += 1
                    progress(STAGE, done, 0)

        try:
            with workers(self.device.type) as pool:
                for _ in pool.map(run, range(len(self.networks))):
                    pass
        finally:
            stop.set()
        return stack_states([network.state_dict() for network in self.networks])

    def _step(self, number: int) -> None:
        batch, each = next(self.batches[number]).to(self.device), len(self.images) > 1
        x = as_input(self.images[number if each else 0][batch])
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        target = self.labels[number if len(self.labels) > 1 else 0][batch]
        loss = cross_entropy(self.networks[number](x), target)
        self.optimisers[number].zero_grad()
        loss.backward()
        self.optimisers[number].step()


class _Stacked:
    """All networks in one batch: the weights of each are a row of a matrix, which is what the optimiser changes."""

    def __init__(self, module, states, images, labels, rates, batches, settings: _Settings):
        self.images, self.labels, self.settings = images, labels, settings
        device, many = images.device, len(batches)
        self.network = copy.deepcopy(module).to(device).train()
        self.shapes = {name: weight.shape for name, weight in self.network.named_parameters()}
        self.names = list(states)
        self.buffers = {name: tensor.clone() for name, tensor in states.items() if name not in self.shapes}
        self.weights = torch.cat([states[name].reshape(many, -1) for name in self.shapes], 1)
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.rates, self.step = rates.to(self.weights)[:, None], 0
        self.batches = batches
        self.rows = torch.arange(many, device=device)[:, None]

    def advance(self, steps: int, progress: Progress) -> State:
        for done in range(steps):
            batch = torch.stack([next(batches) for batches in self.batches])
            self._descend(self._gradient(batch.to(self.weights.device, non_blocking=True)))
            progress(STAGE, (done + 1) * len(self.batches), 0)
        named = {**self._named(self.weights), **self.buffers}
        return {name: named[name].clone() for name in self.names}

    def _named(self, weights: Tensor) -> State:
        parts = weights.split([shape.numel() for shape in self.shapes.values()], 1)
        return {name: part.reshape(-1, *shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def _gradient(self, batch: Tensor) -> Tensor:
        x = as_input(self.images[self.rows if len(self.images) > 1 else 0, batch])
        target = self.labels[self.rows if len(self.labels) > 1 else 0, batch]

        def call(weights: State, buffers: State, x: Tensor) -> tuple[Tensor, State]:
            buffers = {name: tensor.clone() for name, tensor in buffers.items()}  # BatchNorm changes them in place
            return functional_call(self.network, {**weights, **buffers}, (x,)), buffers

        weights = self.weights.detach().requires_grad_()
        said, buffers = torch.vmap(call)(self._named(weights), self.buffers, x)
        self.buffers = {name: tensor.detach() for name, tensor in buffers.items()}
        loss = cross_entropy(said.flatten(0, 1), target.flatten(), reduction="sum") / batch.shape[1]
        return torch.autograd.grad(loss, weights)[0]

    def _descend(self, gradient: Tensor) -> None:
        """A step of Adam or AdamW (as of `torch.optim`) with a learning rate for each row."""
        decay, weights = self.settings.weight_decay, self.weights
        self.step += 1
        if decay and self.settings.optimiser == "adam":
            gradient = gradient + decay * weights
        elif decay:
            weights = weights * (1 - self.rates * decay)
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient.square(), 1 - BETAS[1])
        size = self.rates / (1 - BETAS[0] ** self.step)
        root = (self.second.sqrt() / (1 - BETAS[1] ** self.step) ** 0.5).add_(EPS)
        self.weights = weights - size * self.first / root


def _calling(network: nn.Module) -> Callable[[State, Tensor], Tensor]:
    return lambda state, x: functional_call(network, state, (x,))


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda stage, done, total_of_part: progress(stage, before + done, total)
