"""The scores of generated heads on the query items, beside the baselines and the zoo."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.encoders.split import SplitFeatures
from d2nwg.evaluation.accuracy import accuracies, confusion_matrix
from d2nwg.evaluation.baselines import fit_baselines
from d2nwg.evaluation.report import Novelty, QueryAccuracy, SampleScore
from d2nwg.evaluation.selection import Choice
from d2nwg.evaluation.zoo_baselines import novelty
from d2nwg.evaluation.zoo_distance import zoo_distance
from d2nwg.models.spaces import WeightSpace
from d2nwg.pipelines.heads import HeadSamples
from d2nwg.weights.networks import State, logits


@dataclass(frozen=True)
class HeadScores:
    """What was measured on the query items.

    Attributes:
        accuracy: of the heads and the baselines.
        samples: each sample.
        sample_accuracy: (S,) the same, not rounded.
        novelty: of the average of the samples.
        confusion: (C, C) of the chosen head.
        baselines: each as a linear head (`FittedBaselines.linear`), by its name.
    """

    accuracy: QueryAccuracy
    samples: list[SampleScore]
    sample_accuracy: np.ndarray
    novelty: Novelty | None
    confusion: np.ndarray
    baselines: dict[str, State]


def score_heads(
    space: WeightSpace,
    on_own_encoder: bool,
    data: SplitFeatures,
    samples: HeadSamples,
    choice: Choice,
    beside: dict[str, HeadSamples],
    seed: int,
    generator: torch.Generator,
) -> HeadScores:
    """Score the samples, the chosen head and the baselines.

    Args:
        space: the bundle's.
        on_own_encoder: whether the heads sit on the same encoder as the zoo's: only then is there a distance to them.
        beside: samples without one of the conditions, by the name of their field of `QueryAccuracy`.
        seed: of the baselines.
        generator: of the noise that is added to the nearest zoo head.
    """
    query, labels = data.query, data.query_labels
    each = accuracies(samples.state, query, labels)
    predicted = logits(choice.head, query).argmax(-1)
    accuracy = {
        "chosen": float((predicted == labels).float().mean()),
        "average": _accuracy(choice.average, query, labels),
        "mean": float(each.mean()),
        "std": float(each.std(correction=0)),
        "oracle_top3": float(each.topk(min(3, len(each))).values.mean()),
    }
    mean = space.mean.cpu() if on_own_encoder else None
    fitted = fit_baselines(data.support, data.labels, mean=mean, seed=seed)
    accuracy |= fitted.scores(query, labels, seed=seed)
    for without, others in beside.items():
        average = {name: tensor.mean(0) for name, tensor in others.state.items()}
        accuracy[without] = _accuracy(average, query, labels)
    distance, found_novelty = [None] * len(each), None
    if samples.vectors is not None and samples.order is not None and on_own_encoder:
        found = zoo_distance(space, samples.vectors, len(samples.order)).tolist()
        distance = [None if np.isnan(value) else round(value, 4) for value in found]
        found_novelty = novelty(space, samples.vectors, samples.order, query, labels, generator)
    return HeadScores(
        accuracy=QueryAccuracy(**{name: round(value, 6) for name, value in accuracy.items()}),
        samples=[SampleScore(round(a, 6), d) for a, d in zip(each.tolist(), distance, strict=True)],
        sample_accuracy=each.numpy(),
        novelty=found_novelty,
        confusion=confusion_matrix(labels.numpy(), predicted.numpy(), len(data.labels.unique())),
        baselines=fitted.linear(),
    )


def _accuracy(head: State, features: Tensor, labels: Tensor) -> float:
    return float(accuracies({name: tensor[None] for name, tensor in head.items()}, features, labels)[0])
