"""What a head is trained from beside its generated weights: random weights, and the heads that a person would otherwise
fit to the same images in closed form."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from d2nwg.evaluation.baselines import class_mean_head, normalised, ridge_head
from d2nwg.evaluation.finetune import Items
from d2nwg.weights.networks import State, head_shapes, logits

GENERATED, RANDOM, CLASS_MEAN, RIDGE, RIDGE_ALL = "generated", "random", "class_mean", "ridge", "ridge_all"
ARMS = (GENERATED, RANDOM, CLASS_MEAN, RIDGE, RIDGE_ALL)
SCALES = (2 ** torch.arange(0, 8.1, 0.25)).tolist()  # that the logits of closed-form heads are multiplied by
SCALE = 10.0  # where no image is left to choose it by


def random_heads(probe: str, num_features: int, num_classes: int, hidden: int, seeds: Sequence[int]) -> State:
    """A head a seed (S, …), with the weights that torch gives a new linear layer: uniform in ± 1/√(its inputs)."""
    shapes = head_shapes(probe, num_features, num_classes, hidden)
    rows = []
    for seed in seeds:
        generator, row = torch.Generator().manual_seed(seed), {}
        for name, shape in shapes.items():
            width = hidden if name.startswith("2.") else num_features
            row[name] = torch.empty(shape).uniform_(-1, 1, generator=generator) / math.sqrt(width)
        rows.append(row)
    return {name: torch.stack([row[name] for row in rows]) for name in shapes}


def closed_form(arm: str, images: Items, num_classes: int, seed: int) -> State:
    """The class mean or ridge regression of images in the units of `Standard`, as a head there; its logits are those of
    features of unit length (`d2nwg.evaluation.baselines`), taken as if all were equally long."""
    x, y = images.features.numpy(), images.labels.numpy()
    unit = normalised(x, np.zeros(x.shape[1]))
    fitted = class_mean_head(unit, y, num_classes) if arm == CLASS_MEAN else ridge_head(unit, y, num_classes, seed=seed)
    weight, bias = (torch.from_numpy(np.asarray(part)).float() for part in fitted)
    return {"weight": weight / math.sqrt(x.shape[1]), "bias": bias}


def scaled(state: State, factor: float) -> State:
    """A linear head whose logits are a multiple."""
    return {name: tensor * factor for name, tensor in state.items()}


@torch.no_grad()
def likeliest_scale(state: State, held: Items) -> float:
    """What a linear head's logits are multiplied by to make held-out images likeliest: for one that is to be trained
    further their size matters, as for its accuracy it does not."""
    if not len(held.labels):
        return SCALE
    said = logits(state, held.features)
    own = said.gather(-1, held.labels[:, None]).squeeze(-1)
    surprise = [float(((said * scale).logsumexp(-1) - own * scale).mean()) for scale in SCALES]
    return SCALES[int(np.argmin(surprise))]


def validation_part(labels: Tensor, seen: Tensor, share: float, seed: int) -> Tensor:
    """A mask (n,) of the training images that learning rates are chosen on: a share of each class, of those that no
    start was made from; at least one of a class where it leaves one to train on.

    Args:
        labels: (n,)
        seen: (n,) bool: the generated head, and others, were made from these.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        own = labels == label
        fresh = torch.nonzero(own & ~seen).squeeze(1)
        fresh = fresh[torch.randperm(len(fresh), generator=generator)]
        most = len(fresh) if (own & seen).any() else len(fresh) - 1
        chosen[fresh[: max(0, min(most, max(1, round(share * int(own.sum())))))]] = True
    return chosen
