"""Reports of generations that never were."""

from dataclasses import replace

import torch

from d2nwg.evaluation.report import QueryAccuracy, Report, SampleScore, Seconds
from d2nwg.from_names import NamedGeneration, notes_on
from d2nwg.heads import Head
from d2nwg.pipelines.names import Expectation


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


def make_named(names, accuracy=0.81, variance=0.9, nearest=("cat", "dog")) -> NamedGeneration:
    """A head of these names that never was, with this expectation."""
    state = {"weight": torch.zeros(4, len(names), 3), "bias": torch.zeros(4, len(names))}
    expectation = Expectation(accuracy, 0.1, variance, nearest)
    head = Head({name: tensor[0] for name, tensor in state.items()}, "fake", tuple(names), {}, {})
    return NamedGeneration(head, state, expectation, notes_on(names, expectation), 0.2)
