"""Which head is handed out: the average of the samples, or the sample that is best on a selection split or, without
one, by the bundle's accuracy predictor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from d2nwg.evaluation.accuracy import accuracies
from d2nwg.weights.networks import State, pick

# Fewer support images than this a class are all needed by the generator; with more, a third can choose among samples.
ENOUGH_TO_SELECT = 10


def selection_split(labels: Tensor, shots: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bool masks (n,) of the support images that condition the generator, and of those that choose among samples: a
    third of each class from `ENOUGH_TO_SELECT` shots on, otherwise none."""
    kept = torch.zeros(len(labels), dtype=torch.bool)
    if shots >= ENOUGH_TO_SELECT:
        generator = torch.Generator().manual_seed(seed)
        for label in labels.unique():
            members = torch.nonzero(labels == label).squeeze(1)
            kept[members[torch.randperm(len(members), generator=generator)[: len(members) // 3]]] = True
    return ~kept, kept


@dataclass(frozen=True)
class Choice:
    """The head that is handed out.

    Attributes:
        head: the chosen one.
        average: of the samples.
        words: how it was chosen.
    """

    head: State
    average: State
    words: str


def choose(samples: State, features: Tensor, labels: Tensor, expected: Tensor | None = None) -> Choice:
    """Choose the average of the samples or one of them: whichever is best on images that generation did not see; where
    there are none, whichever an accuracy predictor expects most of; without a predictor the average.

    Args:
        samples: a batch of S heads.
        features, labels: (n, D) and (n,) of the selection split, without any query image.
        expected: (1 + S,) accuracies that a predictor expects of the average and of each sample, if there is one.
    """
    average = {name: tensor.mean(0) for name, tensor in samples.items()}
    count = len(next(iter(samples.values())))
    candidates = {name: torch.cat([average[name][None], tensor]) for name, tensor in samples.items()}
    if len(labels):
        scores = accuracies(candidates, features, labels)
        how = f"best on {len(labels)} support images that generation did not see"
    elif expected is not None:
        scores = expected
        how = f"of which the bundle's accuracy predictor expects most ({float(expected.max()):.0%} right)"
    else:
        return Choice(average, average, f"average of the {count} samples")
    best = int(scores.argmax())  # the first among equals, so the average wins a tie
    what = "the average of the samples" if best == 0 else f"sample {best - 1}"
    return Choice(pick(candidates, best), average, f"{what}, {how}")
