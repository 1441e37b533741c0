"""Heads trained further, many at once: all starts, seeds and learning rates that are tried are one batch.

Axes of a batch: S seeds, then K members (a start with a learning rate), then those of a head. A seed says the order of
the images, which is the same for all members, so that they are compared on the same batches. Features are centred and
scaled by one number (`Standard`): the learning rates that are tried then suit every encoder.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import whole_file
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State

BATCH = 64  # images a step
LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # that are tried
BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam
KEEP_EVERY = 20.0  # seconds between two states on disk, beside those at the checkpoints
TUNING, TRAINING = "Tuning learning rates", "Fine-tuning"  # stages of progress


class Items(NamedTuple):
    """Features (n, d) float32, or images, and labels (n,) int64."""

    features: Tensor
    labels: Tensor

    def at(self, which: Tensor) -> "Items":
        """Those of a mask or of these numbers."""
        return Items(self.features[which], self.labels[which])

    def to(self, device: str) -> "Items":
        """On a device."""
        return Items(self.features.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Standard:
    """Features centred, and scaled to a mean square of 1 a number; heads are taken there and back without a change of
    their logits.

    Attributes:
        mean: (d,)
        scale: what they are multiplied by.
    """

    mean: Tensor
    scale: float

    @classmethod
    def of(cls, features: Tensor) -> "Standard":
        """Of training images (n, d)."""
        mean = features.mean(0)
        return cls(mean, float((features - mean).square().mean().clamp_min(1e-12).rsqrt()))

    def place(self, items: Items) -> Items:
        """The same images in these units."""
        return Items((items.features - self.mean) * self.scale, items.labels)

    def take(self, state: State) -> State:
        """Heads on features → heads on the placed ones."""
        weight, bias = _first(state)
        moved = state[bias] + state[weight] @ self.mean
        return {**state, weight: state[weight] / self.scale, bias: moved}

    def give_back(self, state: State) -> State:
        """The reverse of `take`."""
        weight, bias = _first(state)
        scaled = state[weight] * self.scale
        return {**state, weight: scaled, bias: state[bias] - scaled @ self.mean}


def _first(state: State) -> tuple[str, str]:
    """The names of the tensors of the first layer."""
    return ("weight", "bias") if "weight" in state else ("0.weight", "0.bias")


@dataclass
class Training:
    """S × K heads after so many epochs.

    Attributes:
        state: tensors (S, K, …).
        first, second: Adam's moments of the gradient, likewise.
        steps: taken so far.
        accuracy, loss: after each epoch from 0 on, (K, S) on the held-out images: fractions, and mean cross-entropies.
    """

    state: State
    first: State
    second: State
    steps: int = 0
    accuracy: list[list[list[float]]] = field(default_factory=list)
    loss: list[list[list[float]]] = field(default_factory=list)

    @classmethod
    def begin(cls, starts: Sequence[State]) -> "Training":
        """From K starts, each of S heads."""
        state = {name: torch.stack([start[name] for start in starts], 1).float() for name in starts[0]}
        first, second = ({name: torch.zeros_like(tensor) for name, tensor in state.items()} for _ in range(2))
        return cls(state, first, second)

    def save(self, path: Path) -> None:
        """To a safetensors file, whole or not at all."""
        parts = {"state": self.state, "first": self.first, "second": self.second}
        tensors = {f"{part}/{name}": t.contiguous() for part, kept in parts.items() for name, t in kept.items()}
        numbers = {"steps": self.steps, "accuracy": self.accuracy, "loss": self.loss}
        with whole_file(path) as file:
            save_file(tensors, file, {"numbers": json.dumps(numbers)})

    def to(self, device: str) -> None:
        """Move the tensors."""
        for part in (self.state, self.first, self.second):
            part.update({name: tensor.to(device) for name, tensor in part.items()})

    def load(self, path: Path) -> bool:
        """Go on from what `save` wrote for the same starts; False where there is nothing.

        Raises:
            UserError: it is damaged, or of something else.
        """
        if not path.exists():
            return False
        try:
            with safetensors.safe_open(path, "pt") as file:
                numbers = json.loads(file.metadata()["numbers"])
                for part, kept in (("state", self.state), ("first", self.first), ("second", self.second)):
                    for name, tensor in kept.items():
                        tensor.copy_(file.get_tensor(f"{part}/{name}"))
            self.steps, self.accuracy, self.loss = int(numbers["steps"]), numbers["accuracy"], numbers["loss"]
        except Exception as reason:  # a damaged file can fail in any way
            raise UserError(f"{path} is damaged, or of other settings: remove it to begin that part again.") from reason
        return True


def outputs(state: State, features: Tensor) -> Tensor:
    """Logits (S, K, b, C) of heads (S, K, …) for images of each seed, (S, b, d)."""
    weight, bias = _first(state)
    rows = features @ state[weight].flatten(1, 2).mT  # one product a seed for all of its members
    found = rows.unflatten(-1, state[weight].shape[1:3]).movedim(2, 1) + state[bias].unsqueeze(-2)
    if weight == "weight":
        return found
    return found.relu() @ state["2.weight"].mT + state["2.bias"].unsqueeze(-2)


def train_heads(
    starts: Sequence[State],
    lrs: Sequence[float],
    train: Items,
    held: Items,
    *,
    epochs: int,
    seeds: Sequence[int],
    batch_size: int = BATCH,
    device: str = "cpu",
    keep: Path | None = None,
    checkpoints: Sequence[int] = (),
    progress: Progress = silent,
    stage: str = TRAINING,
) -> Training:
    """Train K starts of S heads each with Adam and minibatches.

    Args:
        starts: of one architecture; tensors (S, …), on the features of ``train``.
        lrs: a learning rate a start.
        train: what they are trained on.
        held: what scores them after each epoch.
        epochs: passes over ``train``.
        seeds: S numbers, of the order of the images.
        keep: a file that holds the state at the checkpoints and every `KEEP_EVERY` seconds; where it is there, training
            goes on from it and ends with the same numbers as an undisturbed one.
        progress: ``stage``, in epochs. It may raise ``Cancelled``.
    Returns:
        The training at its end, on the CPU.
    Raises:
        UserError: a state that cannot be gone on from.
    """
    training = Training.begin(starts)
    begun = keep is not None and training.load(keep)
    training.to(device)
    (x, y), held = train.to(device), held.to(device)
    if not begun:
        _measure(training, held)
    rates, written = torch.tensor(lrs, dtype=torch.float32, device=device), time.monotonic()
    for epoch in range(len(training.accuracy), epochs + 1):
        progress(stage, epoch - 1, epochs)
        order = torch.from_numpy(np.stack([np.random.default_rng([seed, epoch]).permutation(len(y)) for seed in seeds]))
        for part in order.to(device).split(batch_size, 1):
            _step(training, rates, x[part], y[part])
        _measure(training, held)
        if keep and (epoch in checkpoints or epoch == epochs or time.monotonic() - written > KEEP_EVERY):
            training.save(keep)
            written = time.monotonic()
    progress(stage, epochs, epochs)
    training.to("cpu")
    return training


def _step(training: Training, lrs: Tensor, x: Tensor, y: Tensor) -> None:
    """A step of Adam (Kingma & Ba, 2015) for all heads, as `torch.optim.Adam` does it for one; there, all would have
    one learning rate."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in training.state.items()}
    said = outputs(leaves, x)
    wanted = y[:, None].expand(said.shape[:-1])
    loss = cross_entropy(said.flatten(0, 2), wanted.flatten(), reduction="sum") / y.shape[1]
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    training.steps += 1
    one, two = (1 - beta**training.steps for beta in BETAS)
    for (name, tensor), gradient in zip(training.state.items(), gradients, strict=True):
        first = training.first[name].lerp_(gradient, 1 - BETAS[0])
        second = training.second[name].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        rate = (lrs / one).view(1, -1, *[1] * (tensor.dim() - 2))
        tensor.sub_(rate * first / (second.sqrt() / two**0.5 + EPS))


@torch.no_grad()
def _measure(training: Training, held: Items) -> None:
    """Note how good the heads are now."""
    right, losses = [], []
    for seed in range(len(next(iter(training.state.values())))):
        own = {name: tensor[seed : seed + 1] for name, tensor in training.state.items()}
        said = outputs(own, held.features[None])[0]  # (K, m, C)
        right.append((said.argmax(-1) == held.labels).float().mean(-1))
        truth = held.labels.expand(len(said), -1)[..., None]
        losses.append(-said.log_softmax(-1).gather(-1, truth).mean((-1, -2)))
    training.accuracy.append(torch.stack(right, 1).tolist())
    training.loss.append(torch.stack(losses, 1).tolist())


def choose_lrs(
    starts: Mapping[str, State],
    train: Callable[[list[State], list[float]], Training],
    checkpoints: Sequence[int],
    lrs: Sequence[float] = LRS,
) -> dict[str, float]:
    """The learning rate of each start: that of the highest accuracy on a validation part, on average over seeds and the
    checkpoints after 0; among equals that of the lowest loss.

    Args:
        starts: of one architecture.
        train: trains starts with learning rates, scored on the validation part.
        checkpoints: epochs.
    """
    tried = [(name, lr) for name in starts for lr in lrs]
    done = train([starts[name] for name, _ in tried], [lr for _, lr in tried])
    epochs = [epoch for epoch in checkpoints if epoch] or [len(done.accuracy) - 1]
    right = np.array(done.accuracy)[epochs].mean((0, 2))
    loss = np.nan_to_num(np.array(done.loss)[epochs].mean((0, 2)), nan=np.inf)
    best: dict[str, tuple[float, float, float]] = {}
    for (name, lr), score, missed in zip(tried, right.tolist(), loss.tolist(), strict=True):
        if name not in best or (score, -missed) > best[name][:2]:
            best[name] = (score, -missed, lr)
    return {name: found[2] for name, found in best.items()}
