"""What a person would otherwise take instead of a generated network: starts made from the zoo or by training alone.

Every function returns networks as a batch, (M, …) a tensor, for the classes of the images that are shown.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from d2nwg.models.hypernetwork import HyperNetwork, ridge_rows
from d2nwg.models.network_space import SmallNetworkSpace
from d2nwg.weights.networks import State
from d2nwg.weights.populations import logits_of, stack_states, train_networks
from d2nwg.weights.small_networks import initial_state, small_network

BEST = 30  # members that a kernel density is fitted to (SKDE30 of Schürholt et al., 2022)
MEMBERS = 32  # of the zoo, that are looked at together
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of a closed-form head, as multiples of the features' mean variance


def module_for(space: SmallNetworkSpace, classes: int) -> torch.nn.Module:
    """The bundle's architecture for so many classes."""
    return small_network(space.config.network).build(space.config.channels, classes, space.config.size)


def random_networks(space: SmallNetworkSpace, classes: int, seeds: list[int]) -> State:
    """PyTorch's random weights."""
    config = space.config
    return stack_states([initial_state(config.network, config.channels, classes, config.size, s) for s in seeds])


def fit_rows(space: SmallNetworkSpace, rows: Tensor, classes: int) -> Tensor:
    """Head rows (M, C, h + 1) for ``classes`` classes: the first ones, filled up with the zoo's average row."""
    more = space.row_centre.expand(len(rows), max(0, classes - rows.shape[1]), -1)
    return torch.cat([rows[:, :classes], more], 1)


def average_network(space: SmallNetworkSpace, classes: int) -> State:
    """The zoo's average."""
    return space.network_state(space.average, fit_rows(space, space.average_rows.unsqueeze(0), classes))


def average_closed_form(space: SmallNetworkSpace, images: Tensor, labels: Tensor, penalty: float) -> State:
    """The average trunk with ridge regression on its features of the images, bytes (n, c, s, s)."""
    features = space.features(space.average, space.normalised(images).unsqueeze(0))
    targets = torch.eye(int(labels.max()) + 1)[labels].unsqueeze(0)
    rows = ridge_rows(features, targets, torch.tensor(penalty), torch.tensor(5.0))
    return space.network_state(space.average, rows)


def common_closed_form(model: HyperNetwork, space: SmallNetworkSpace, images: Tensor, labels: Tensor) -> State:
    """The generator without its condition: one trunk for all tasks, the mean of those that it makes, with its
    closed-form head on the images."""
    trunk = space.trunk_state(space.common.unsqueeze(0))
    targets = torch.eye(int(labels.max()) + 1)[labels].unsqueeze(0)
    features = space.features(trunk, space.normalised(images).unsqueeze(0))
    return space.network_state(trunk, model.closed_form_rows(features, targets))


def nearest_member(space: SmallNetworkSpace, images: Tensor, labels: Tensor) -> State | None:
    """The member of the zoo, its classes matched to these (Hungarian method on the mean log-probabilities), that is
    right on most of the images; None where the bundle keeps none."""
    if not len(space.zoo_trunks):
        return None
    classes, best, chosen = int(labels.max()) + 1, (-1.0, -np.inf), None
    module, given = module_for(space, space.config.classes), space.normalised(images).unsqueeze(0)
    members = zip(space.zoo_trunks.split(1), space.zoo_rows.split(1), _said(space, module, given), strict=True)
    for trunk, rows, said in members:
        means = torch.stack([said[labels == c].mean(0) for c in range(classes)])
        ours, theirs = linear_sum_assignment(means.numpy(), maximize=True)
        order = torch.full((classes,), -1)
        order[torch.from_numpy(ours)] = torch.from_numpy(theirs)
        matched = torch.where(order.unsqueeze(-1) >= 0, rows[0][order], space.row_centre)
        scores = torch.where(order >= 0, said[:, order], said.min())
        own = scores.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).mean()
        quality = float((scores.argmax(-1) == labels).float().mean()), float(own)
        if quality > best:
            best, chosen = quality, space.network_state(space.trunk_state(trunk), matched.unsqueeze(0))
    return chosen


def _said(space: SmallNetworkSpace, module: torch.nn.Module, given: Tensor) -> Iterator[Tensor]:
    """Log-probabilities (n, C) of images (1, n, c, s, s), member by member."""
    for trunks, rows in zip(space.zoo_trunks.split(MEMBERS), space.zoo_rows.split(MEMBERS), strict=True):
        yield from logits_of(module, space.network_state(space.trunk_state(trunks), rows), given).log_softmax(-1)


def with_noise(space: SmallNetworkSpace, state: State, distance: float, generator: torch.Generator) -> State:
    """Networks with Gaussian noise on the trunk, whose norm is ``distance`` in units of the space."""
    trunk, rows = space.split(state)
    noise = torch.randn(trunk.shape, generator=generator)
    noise *= distance / noise.norm(dim=1, keepdim=True)
    return space.network_state(space.trunk_state(space.standardised(trunk) + noise), rows)


def density_samples(space: SmallNetworkSpace, classes: int, count: int, generator: torch.Generator) -> State | None:
    """Samples of a kernel density (Gaussian, Silverman's bandwidth, each principal coordinate by itself) of the best
    members; None where the bundle keeps fewer than two."""
    best = space.zoo_accuracy.nan_to_num(0).argsort(descending=True, stable=True)[:BEST]
    if len(best) < 2:
        return None
    trunks, rows = space.zoo_trunks[best], space.zoo_rows[best]
    vectors = torch.cat([trunks, ((rows - space.row_centre) / space.row_unit).flatten(1)], 1)
    mean = vectors.mean(0)
    left, length, directions = torch.linalg.svd(vectors - mean, full_matrices=False)
    coordinates = left * length
    picked = torch.randint(len(best), (count, coordinates.shape[1]), generator=generator)
    width = 1.06 * coordinates.std(0) * len(best) ** -0.2
    drawn = coordinates.gather(0, picked) + width * torch.randn(picked.shape, generator=generator)
    made = mean + drawn @ directions
    trunk, head = made[:, : space.numel], made[:, space.numel :].reshape(count, *rows.shape[1:])
    head = fit_rows(space, head * space.row_unit + space.row_centre, classes)
    return space.network_state(space.trunk_state(trunk), head)


def gradient_steps(
    space: SmallNetworkSpace,
    images: Tensor,
    labels: Tensor,
    *,
    seconds: float = 0.0,
    steps: int = 0,
    lr: float = 3e-3,
    seed: int = 0,
) -> tuple[State, int]:
    """A random network trained on the shown images alone, for so many seconds or so many steps of Adam on all of them,
    and the number of steps that this made."""
    classes = int(labels.max()) + 1
    state, module = random_networks(space, classes, [seed]), module_for(space, classes)
    optimiser = torch.optim.Adam(module.parameters(), lr)
    module.load_state_dict({name: value[0] for name, value in state.items()})
    if steps:
        parts = space.normalised(images).unsqueeze(0), labels.unsqueeze(0)
        made = train_networks(module, state, *parts, steps=steps, batch_size=len(labels), lr=lr, seeds=[seed])
        return made, steps
    given, until, done = space.normalised(images), time.perf_counter() + seconds, 0
    module.train()
    while time.perf_counter() < until:
        loss = torch.nn.functional.cross_entropy(module(given), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done += 1
    return {name: value.detach().unsqueeze(0) for name, value in module.state_dict().items()}, done
