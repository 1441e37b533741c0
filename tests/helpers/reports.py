"""Reports of generations, maps and paths that never were."""

from dataclasses import replace

import numpy as np
import torch

from d2nwg.analysis.projections import Projection
from d2nwg.evaluation.finetune_report import Curve, FineTuneReport
from d2nwg.evaluation.network_report import NetworkAccuracy, NetworkReport
from d2nwg.evaluation.report import QueryAccuracy, Report, SampleScore, Seconds
from d2nwg.exploration.names import Found, NamedRowsMap, Spelled
from d2nwg.from_names import NamedGeneration, notes_on
from d2nwg.heads import Head
from d2nwg.interpolation.name_result import NamePath
from d2nwg.learning_curve import ARMS, GENERATED, LearningCurve
from d2nwg.pipelines.names import Expectation, KnownName, Near


def make_report(samples=(0.5, 0.6, 0.7), distances=None, accuracy=None, **changes) -> Report:
    """A report of samples with these accuracies and distances (by default unknown).

    ``accuracy`` and ``changes`` replace fields of `QueryAccuracy` and `Report`.
    """
    known = QueryAccuracy(0.62, 0.62, 0.6, 0.1, 0.6, 0.6, 0.63, 0.61, 0.1)
    known = replace(known, **{"average": (accuracy or {}).get("chosen", known.chosen), **(accuracy or {})})
    made = Report(
        data="pets",
        classes=["cat", "dog"],
        bundle="tiny",
        task=None,
        encoder="fake/colours",
        shots=5,
        num_support=10,
        num_query=1200,
        num_unlabelled=0,
        unlabelled_trust=None,
        num_samples=len(samples),
        seed=0,
        selection=f"average of the {len(samples)} samples",
        query_accuracy=known,
        per_class={"cat": 0.6, "dog": 0.64},
        samples=[SampleScore(a, d) for a, d in zip(samples, distances or [None] * len(samples), strict=True)],
        novelty=None,
        seconds=Seconds(0.1, 1.1, 0.1, 0.14, 1.44),
        device="cpu",
        notes=[],
    )
    return replace(made, **changes)


def make_tuned(ours, random, other=None, checkpoints=(0, 1, 3), seeds=(0, 1)) -> FineTuneReport:
    """A fine-tuning of these means; the two seeds are a point apart."""
    curves = {"generated": ours, "random": random} | ({"ridge": other} if other else {})
    curves = [
        Curve(arm, 0.01, list(range(4)), [[v - 0.005, v + 0.005] if len(seeds) == 2 else [v] for v in values])
        for arm, values in curves.items()
    ]
    numbers = dict(num_train=40, num_validation=8, num_test=30, num_shown=10, seconds=1.0, device="cpu")
    about = dict(kind="head", data="d", classes=["a", "b"], encoder="e", epochs=3, batch_size=64, tuned=True)
    return FineTuneReport(**about, **numbers, checkpoints=list(checkpoints), seeds=list(seeds), curves=curves)


def make_named(names, accuracy=0.81, variance=0.9, nearest=("cat", "dog")) -> NamedGeneration:
    """A head of these names that never was, with this expectation."""
    state = {"weight": torch.zeros(4, len(names), 3), "bias": torch.zeros(4, len(names))}
    expectation = Expectation(accuracy, 0.1, variance, nearest)
    head = Head({name: tensor[0] for name, tensor in state.items()}, "fake", tuple(names), {}, {})
    return NamedGeneration(head, state, expectation, notes_on(names, expectation), 0.2)


def make_name_map(name: str = "wolf", names: int = 1) -> NamedRowsMap:
    """A map of four known rows in the plane, on which everything is called ``name``, with some names of one's own; it
    was searched for the name, which is spelled so twice and near once more in meaning."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], np.float32)
    projection = Projection(rows, 10 * rows, np.array([0.6, 0.4]), 1.0, "drawn")
    known = (KnownName(f"{name}, x", name), KnownName(f"a, {name}", "a"), KnownName(f"set/{name}", name, "set"))
    own = np.tile(rows[:1], (names, 1))
    near = [[Near(0, 1.0), Near(3, 0.5)]] * names
    found = Found(name, (Spelled(0, name), Spelled(1, name)), (Near(0, 0.9), Near(3, 0.4)))
    listed = (*known, KnownName("d", "d"))
    titles = tuple(f"{name}{i or ''}" for i in range(names))
    variance = np.full(names, 0.99)
    return NamedRowsMap(
        "tiny", "fake", listed, rows, projection, titles, own, variance, near, own, 10 * own, found, 0, 1.0
    )


def make_name_path(name: str = "wolf", images=None, points: int = 3) -> NamePath:
    """A path from ``name`` to ``dog`` past known rows of which the second lies between; image i scores i."""
    head = Head(
        {"weight": torch.zeros(points, 2), "bias": torch.zeros(points)}, "fake", tuple(map(str, range(points))), {}
    )
    share = torch.linspace(0, 1, points)
    cosines = torch.stack([1 - share, 0.9 - (share - 0.5).abs(), share], 1)
    known = (KnownName(name, name), KnownName(f"set/{name}", name, "set"), KnownName("dog", "dog"))
    index = np.arange(0 if images is None else len(images))
    scores = torch.arange(len(index)).float().expand(points, -1)
    best = scores.topk(min(2, len(index)), -1).indices
    return NamePath((name, "dog"), name, share, head, known, cosines, images, index, scores, best, (name,), 0.1)


def make_network_report(samples=(0.5, 0.6), distances=(0.4, None), **changes) -> NetworkReport:
    """A report of generated networks with these accuracies and distances; ``changes`` replace fields of it."""
    right = NetworkAccuracy(0.64, 0.32, 0.64, 0.55, 0.05, 0.1, 0.12, 0.39, 0.55, 0.59, 0.09, 2, 0.6)
    about = dict(data="pets", classes=["cat", "dog"], bundle="tiny", network="mlp", channels=1, size=8, shots=5, seed=0)
    made = NetworkReport(
        **about,
        num_support=10,
        num_query=1200,
        num_samples=len(samples),
        head="closed-form",
        query_accuracy=right,
        samples=[SampleScore(a, d) for a, d in zip(samples, distances, strict=True)],
        per_class={"cat": 0.6, "dog": 0.68},
        distance=0.75,
        seconds=Seconds(0.1, 1.1, 0.1, 0.14, 1.44),
        generating=0.03,
        notes=[],
    )
    return replace(made, **changes)


def make_curve(**changes) -> LearningCurve:
    """A learning curve of two draws with 1 and 5 images a class, where the generated head is ahead."""
    low, high = [[0.5, 0.6], [0.9, 0.9]], [[0.8, 0.6], [0.95, 0.91]]
    facts = dict(
        data="fresh",
        classes=["a", "b"],
        bundle="tiny",
        encoder="fake/colours",
        num_samples=4,
        max_query=1000,
        shots=[1, 5],
        seeds=[0, 1],
        accuracy={arm: high if arm == GENERATED else low for arm in ARMS},
        num_query=[60, 60],
        notes=[],
    )
    return LearningCurve(**facts | changes)
