"""The card "Your results": those of a visit, to look at again, and two of them side by side."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from gradio.blocks import Block

from d2nwg.ui import html as views
from d2nwg.ui.generate.made import Result
from d2nwg.ui.html import percent, score_table
from d2nwg.utils.text import number

MOST = 8  # results that are kept; the oldest goes first
TITLE = (
    "Your results",
    "Those of this visit: choose one to see it again, and another one to see both side by side.",
)
NOTHING = "–"


def controls() -> dict[str, Block]:
    """The card and its components."""
    with gr.Column(elem_classes="card", visible=False, elem_id="history-card") as card:
        gr.HTML(views.title(*TITLE))
        again = gr.Dropdown([], value=None, label="Shown", elem_id="history")
        beside = gr.Dropdown([], value=None, label="Beside it", elem_id="history-beside")
        said = gr.HTML(elem_id="compared", elem_classes="tuned")
    return {"card": card, "again": again, "beside": beside, "said": said}


def keep(history: list[Result], result: Result) -> None:
    """Put a result at the end of those that are kept, unless it is there."""
    if result not in history:
        history.append(result)
        del history[:-MOST]


def choices(history: Sequence[Result]) -> list[tuple[str, int]]:
    """(words, what stands for it) of each result, the newest first."""
    return [(title(result), id(result)) for result in reversed(history)]


def of(parts: dict[str, Block], history: Sequence[Result], result: Result) -> dict:
    """The update where `result` is the one that is shown."""
    others = [choice for choice in choices(history) if choice[1] != id(result)]
    return {
        parts["card"]: gr.update(visible=len(history) > 1),
        parts["again"]: gr.update(choices=choices(history), value=id(result)),
        parts["beside"]: gr.update(choices=others, value=None),
        parts["said"]: "",
    }


def found(history: Sequence[Result], key: Any) -> Result | None:
    """The result that a choice stands for; None if it is gone."""
    return next((result for result in history if id(result) == key), None)


def title(result: Result) -> str:
    """A result in a few words."""
    facts, scores = settings(result), measured(result)
    right = next(iter(scores.values()), None)
    shots = facts["Labelled items a class"]
    parts = [
        facts["Bundle"],
        facts["Data"],
        *([f"{shots} a class"] if shots != NOTHING else []),
        f"seed {facts['Seed']}",
    ]
    return " · ".join(parts) + (f" · {percent(right)}" if right is not None else "")


def settings(result: Result) -> dict[str, str]:
    """What a result was made from, in words."""
    if result.images is None:
        info = result.generation.head.info
        facts = {"Data": "class names alone", "Bundle": str(info.get("bundle", NOTHING))}
        seed, samples = str(info.get("seed", NOTHING)), str(len(result.generation.samples["bias"]))
        return facts | {
            "Labelled items a class": NOTHING,
            "Unlabelled items": NOTHING,
            "Samples": samples,
            "Seed": seed,
        }
    report = result.generation.report
    named = getattr(report.query_accuracy, "without_names", None) is not None
    return {
        "Data": report.data,
        "Bundle": report.bundle,
        "Labelled items a class": NOTHING if getattr(report, "task", None) else f"{report.shots:,}",
        "Unlabelled items": f"{getattr(report, 'num_unlabelled', 0):,}",
        "Names of the classes count": "yes" if named else "no",
        "Samples": f"{report.num_samples:,}",
        "Seed": str(report.seed),
    }


def measured(result: Result) -> dict[str, float | None]:
    """The accuracies of a result on what was held out: what is handed out first; none without images."""
    if result.images is None:
        return {}
    accuracy = result.generation.report.query_accuracy
    if result.kind == "network":
        return {"Network": accuracy.network, "Samples, their mean": accuracy.samples}
    return {
        "Chosen head": accuracy.chosen,
        "Samples, their mean": accuracy.mean,
        "Without the names": accuracy.without_names,
        "Without the unlabelled": accuracy.without_unlabelled,
        "Class mean": accuracy.class_mean,
        "Ridge": accuracy.ridge,
        "Logistic regression": accuracy.logistic_regression,
    }


def compare(one: Result, other: Result) -> str:
    """Two results side by side as HTML: what they were made from, how good they are, and, where both were measured on
    the same items, on how many of them only one is right."""
    rows: list[tuple[str, Sequence[str]]] = []
    pairs = [settings(result) for result in (one, other)]
    scores = [measured(result) for result in (one, other)]
    for name in dict.fromkeys([*pairs[0], *pairs[1]]):
        rows.append((name, [facts.get(name, NOTHING) for facts in pairs]))
    for name in dict.fromkeys([*scores[0], *scores[1]]):
        values = [found.get(name) for found in scores]
        if any(value is not None for value in values):
            rows.append((name, [NOTHING if value is None else percent(value) for value in values]))
    table = score_table("two results side by side", ["", "shown", "beside it"], _marked(rows))
    return f"<p>{escape(against(one, other))}</p>{table}"


def _marked(rows: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[bool, list[str]]]:
    """The rows of a table; those in which the two differ are marked."""
    return [(cells[0] != cells[1], [name, *cells]) for name, cells in rows]


def against(one: Result, other: Result) -> str:
    """Which of two is better on the items that both were measured on, and whether that is more than chance."""
    from d2nwg.evaluation.accuracy import mcnemar  # brings torch, and the page is up before that

    if one.images is None or other.images is None:
        return "Only one of them was measured, or neither: what is made from names alone has no images to measure on."
    same = one.images is other.images or one.images.items == other.images.items
    shared = np.intersect1d(one.held_out(), other.held_out(), return_indices=True) if same else None
    if shared is None or not len(shared[0]):
        return "They were measured on other items, so the accuracies do not compare closely."
    right = [
        (result.predicted(None) == result.truth())[index]
        for result, index in zip((one, other), shared[1:], strict=True)
    ]
    first, second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    items = number(len(shared[0]), one.noun)
    if first == second:
        return f"Of {items} that both were measured on, each is right on {first:,} that the other gets wrong."
    p = mcnemar(first, second)
    better = "shown" if first > second else "beside it"
    chance = "more than chance explains" if p < 0.05 else "which chance explains"
    return (
        f"Of {items} that both were measured on, the one shown is right on {first:,} that the other gets wrong, and "
        f"wrong on {second:,} that it gets right: the one {better} is ahead, {chance} (McNemar p = {p:.2g})."
    )
