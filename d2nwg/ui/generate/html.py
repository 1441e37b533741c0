"""The Generate tab's words and pieces of HTML. Whatever comes from a visitor is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from d2nwg.evaluation.finetune_report import GENERATED, FineTuneReport, cell, measured_on, sentences
from d2nwg.evaluation.finetune_report import table as report_table
from d2nwg.evaluation.report import Report, SampleScore, advice
from d2nwg.ui.html import count, hint, percent, score_table, title
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.from_names import NamedGeneration
    from d2nwg.learning_curve import LearningCurve

UNMEASURED = (
    "Without images nothing was measured, so there is no picture of the samples and none of where the head errs: give "
    "a few images of each class to see them."
)
HEAD_COLUMNS = ["head", "right, %", "distance, lengths"]  # as Explore's table
BASELINE = " (baseline)"
# The titles of the cards, and what to know to read them, by what was made.
TITLES = {
    "head": {
        "strip": (
            "How good are the samples?",
            "A dot for each sample. Lines: the chosen head, and baselines fitted to the same data.",
        ),
        "confusion": (
            "Where does it err?",
            "The head in use on what was held out; more is darker. Click a cell to see what is in it.",
        ),
        "table": (
            "Pick a head",
            "Click a row: “Try it”, “Try many”, the figure above and the first download then use that head. "
            "Baselines are linear layers on the features here, with the accuracy of that form. Distances are to the "
            "nearest zoo head, in lengths of one.",
        ),
        "finetune": (
            "Train it further",
            "The head in use, and other starts beside it on the same batches: how soon is each how good? What the "
            "generator saw trains, with two thirds of the rest; one third scores, or the test split if there is one.",
        ),
    },
    "network": {
        "strip": (
            "How good are the samples?",
            "A dot for each network drawn by diffusion. Lines: the network that is handed out, and baselines on the "
            "same images: as many gradient steps as generation takes, and 50; a closed-form head on the mean of the "
            "trunks that are generated, and on the zoo's average one; the zoo's nearest network, its classes matched.",
        ),
        "confusion": (
            "Where does it err?",
            "The network in use on what was held out; more is darker. Click a cell to see what is in it.",
        ),
        "table": (
            "Pick a network",
            "Click a row: “Try it”, “Try many”, the figure above and the downloads of one network then use that one. "
            "Distances are to the nearest zoo network; 1 is that of neighbours in the zoo.",
        ),
        "finetune": (
            "Train it further",
            "The network in use, all of its layers, and other starts beside it on the same batches: how soon is each "
            "how good? One image in five scores, or the test split if there is one; the others train.",
        ),
    },
}

# why baselines change with the bundle, as `d2nwg.generate` fits them
CENTRED = (
    "The baselines' features are centred on the mean that the bundle keeps, or with another encoder than the bundle's "
    "on that of the support: with another bundle they may come out a little differently."
)


def result_sentences(report: Report, when: str = "") -> tuple[str, str, str]:
    """The result in plain words: the answer, the baselines, and how the head was made. ``when`` is a sentence in the
    place of the seconds that it took, where those were another machine's."""
    accuracy, seconds = report.query_accuracy, report.seconds
    best, name = max(
        (accuracy.class_mean, "the class mean"),
        (accuracy.ridge, "ridge"),
        (accuracy.logistic_regression, "logistic regression"),
    )
    gap = 100 * (accuracy.chosen - best)
    stand = (
        f"level with {name}, the best of the three"
        if abs(gap) < 0.05
        else f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'} {name}, the best of the three"
    )
    free = ""
    if accuracy.without_unlabelled is not None:
        used = count(report.num_unlabelled, f"unlabelled {report.noun}")
        free = f" {used} took part; without them it reaches {percent(accuracy.without_unlabelled)}."
    if accuracy.without_names is not None:
        free += f" {_worth_of_names(accuracy.chosen, accuracy.without_names)}"
    made = "Made from the task's name only. " if report.task else ""
    took = f"{seconds.total:.1f} s, of which {seconds.features:.1f} s reading {report.noun}s."
    return (
        f"The generated head is right on {percent(accuracy.chosen)} of {count(report.num_query, report.noun)} it never "
        f"saw.{free}",
        f"Fitted to the same {count(report.num_support, report.noun)}, the class mean reaches "
        f"{percent(accuracy.class_mean)}, ridge {percent(accuracy.ridge)} and logistic regression "
        f"{percent(accuracy.logistic_regression)}: the generated head is {stand}. A random head reaches "
        f"{percent(accuracy.random)}.",
        f"{made}Chosen: {report.selection}. {CENTRED} {when or took}",
    )


def _worth_of_names(chosen: float, without: float) -> str:
    gain = 100 * (chosen - without)
    if abs(gain) < 0.05:
        return "The class names changed nothing: it reaches as much without them."
    return (
        f"The class names {'added' if gain > 0 else 'cost'} {abs(gain):.1f} points: without them it reaches "
        f"{percent(without)}."
    )


def named_sentences(made: "NamedGeneration") -> tuple[str, ...]:
    """The result of class names alone in plain words: how accurate to expect it to be, what that rests on, perhaps a
    warning, and how the head was made."""
    notes = list(made.notes)
    if made.expectation.accuracy is None:
        notes.insert(0, "How accurate a head from such names is was not measured with this bundle.")
    samples = count(len(made.samples["bias"]), "sample")
    return (
        *notes,
        f"Made from the names of {count(len(made.head.classes), 'class')} alone: the average of {samples}. "
        f"{made.seconds:.1f} s. {UNMEASURED}",
    )


def named_result(made: "NamedGeneration") -> str:
    """The result card of class names alone."""
    answer, *warnings, how = map(escape, named_sentences(made))
    if (expected := made.expectation.accuracy) is not None and not made.expectation.far:
        answer = answer.replace(f"{expected:.0%}", f"<b>{expected:.0%}</b>", 1)
    names = shown(", ".join(made.head.classes), 300)
    told = "".join(f'<div class="notice note" role="status">{warning}</div>' for warning in warnings)
    return (
        f'<section class="result"><p class="about">class names alone · {escape(names)}</p>'
        f'<p class="answer">{answer}</p>{told}<p class="made">{how}</p></section>'
    )


def result(report: Report, when: str = "", draws: str | None = None) -> str:
    """The result card; ``when`` is as in `result_sentences`, ``draws`` a sentence on several draws of the support."""
    answer, baselines, made = map(escape, result_sentences(report, when))
    number = percent(report.query_accuracy.chosen)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    given = f"task “{escape(report.task)}”" if report.task else f"{report.shots} {report.noun}s a class seen"
    data = f"{escape(report.data)} · {count(len(report.classes), 'class')} · {given}"
    better = f'<div class="notice note" role="status">{escape(said)}</div>' if (said := advice(report)) else ""
    return (
        f'<section class="result"><p class="about">{data}</p>'
        f'<p class="answer">{answer.replace(number, f"<b>{number}</b>", 1)}</p><p>{baselines}</p>'
        f"{f'<p>{escape(draws)}</p>' if draws else ''}{better}"
        f'<p class="made">{made}</p>{notes}</section>'
    )


def finetuned(report: FineTuneReport) -> str:
    """What training a head further came to: epochs saved, the table, and what trained and scored."""
    answer, *more = sentences(report)
    rows = [
        (
            row["arm"] == GENERATED,
            [row["label"], *(cell(found, len(report.seeds)) for found in row["checkpoints"]), f"{row['lr']:g}"],
        )
        for row in report_table(report)
    ]
    heads = ["% right after epoch", *(f"{epoch:,}" for epoch in report.checkpoints), "learning rate"]
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return (
        f'<div class="tuned"><p>{escape(answer)}</p>{"".join(f"<p>{escape(line)}</p>" for line in more)}'
        f"{score_table('accuracy of each start over epochs', heads, rows)}"
        f'<p class="made">{escape(measured_on(report))}</p>'
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</div>"
    )


def learning(curve: "LearningCurve") -> str:
    """What a learning curve says: sentences, and the table that the figure shows."""
    from d2nwg.learning_curve import rows, sentences

    heads, own, *others = rows(curve)
    marked = [(True, own), *((False, row) for row in others)]
    notes = "".join(f"<li>{escape(note)}</li>" for note in curve.notes)
    return (
        f'<div class="tuned">{"".join(f"<p>{escape(line)}</p>" for line in sentences(curve))}'
        + score_table("accuracy over the number of labelled items", heads, marked)
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</div>"
    )


def no_images() -> str:
    """What stands in the place of thumbnails where there are none."""
    return hint("No images: the head is made from class names alone.")


def kept(images=None, result=None) -> str:
    """What a failure has left as it was."""
    if images is not None:
        return f"{images.name} is still chosen."
    return "The result you had is still here." if result is not None else ""


def seen(which: str, chances: dict[str, float], truth: str | None, noun: str = "picture") -> str:
    """A head's prediction for a picture or a text, and whether it is right, where the class is known."""
    best = max(chances, key=chances.get)
    said = f"{escape(which)} predicts <b>{escape(best)}</b>{':' if truth else ''}"
    if truth is not None:
        verdict = "✓ right" if best == truth else f"✗ it is <b>{escape(truth)}</b>"
        said = f"{said} {verdict}. <span>The generator has not seen this {noun}</span>"
    return f'<p class="seen">{said}.</p>{likeliest(chances)}'


def likeliest(chances: dict[str, float]) -> str:
    """The likeliest classes as labelled bars, best first."""
    rows = "".join(
        f'<li><span class="name" title="{escape(name)}">{escape(name)}</span><span class="track">'
        f'<i style="width:{100 * p:.1f}%"></i></span><span class="many">{percent(p)}</span></li>'
        for name, p in sorted(chances.items(), key=lambda pair: -pair[1])
    )
    return f'<ol class="likeliest">{rows}</ol>'


def baseline(name: str) -> str:
    """What a baseline is called where it can be picked."""
    return f"{name.replace('_', ' ')}{BASELINE}"


def picked_by(row: str) -> int | str | None:
    """What a row of the table stands for: the number of a sample, the name of a baseline, None for the first one."""
    if row.endswith(BASELINE):
        return row.removesuffix(BASELINE).replace(" ", "_")
    return int(row.split()[-1]) if row.startswith("sample ") else None


def table(
    first: str,
    right: float,
    samples: Sequence[SampleScore],
    headers: list[str],
    far: float | None = None,
    baselines: Mapping[str, float] | None = None,
) -> dict:
    """The rows of the table to pick from: the first one with its accuracy and distance, the baselines with theirs, then
    the samples."""
    rows: list[tuple[str, float, float | None]] = [(first, 100 * right, far)]
    rows += [(baseline(name), 100 * accuracy, None) for name, accuracy in (baselines or {}).items()]
    for i, sample in enumerate(samples):
        rows.append((f"sample {i}", 100 * sample.accuracy, sample.nearest_zoo_distance))
    shown = [[name, f"{right:.1f}", "" if far is None else f"{far:.3f}"] for name, right, far in rows]
    columns = 2 if all(far is None for *_, far in rows) else 3  # on another encoder than the zoo's there is no distance
    return {
        "headers": headers[:columns],
        "data": [list(row[:columns]) for row in rows],
        "metadata": {"display_value": [row[:columns] for row in shown]},
    }


WORDS = {
    "head": "the last layer of a classifier: it says which class an image or a text is, from the features of a fixed "
    "encoder",
    "zoo": "many trained heads or networks, whose weights a generator learns from",
    "bundle": "a trained generator with all that it needs, in one folder; choose one above",
}


def words() -> str:
    """What the page's own words mean, folded."""
    meant = "".join(f"<dt>{word}</dt><dd>{meaning}</dd>" for word, meaning in WORDS.items())
    return f'<details class="words"><summary>What are a head, a zoo and a bundle?</summary><dl>{meant}</dl></details>'


MAKES = {
    "head": "Choose images or texts and press <b>Generate</b>. From a few of each class, or from names alone, the "
    "generator makes classifier heads, without training. The others are held out, to measure how often the heads are "
    "right.",
    "network": "Choose images and press <b>Generate</b>. From a few of each class the generator makes whole small "
    "networks, without training. Others are held out, to measure how often the networks are right.",
}


def places(kind: str = "head") -> str:
    """The page before there is a result: what will be shown where; `kind` is a key of `TITLES`."""
    random = np.random.default_rng(3)
    dots = "".join(
        f'<circle cx="{275 + 36 * x:.0f}" cy="{12 + 60 * y:.0f}" r="4"/>'
        for x, y in zip(random.normal(size=40).clip(-2.6, 2.6), random.random(40), strict=True)
    )
    likely = {(1, 3): 0.3, (4, 2): 0.3, **{(i, i): 0.85 for i in range(5)}}
    cells = "".join(
        f'<rect x="{17 * j}" y="{17 * i}" width="15" height="15" opacity="{likely.get((i, j), 0.08)}"/>'
        for i in range(5)
        for j in range(5)
    )
    bars = "".join(
        f'<rect width="{width}" height="10" y="{6 + 16 * i}"/>' for i, width in enumerate((70, 38, 20, 11, 6))
    )
    return f"""<div class="places">
<section class="place wide">{title("Your result will be here")}
<p>{MAKES[kind]}</p>
<svg viewBox="150 0 250 84" aria-hidden="true"><path d="M262 8v68M236 8v68M212 8v68" class="baselines"/>
<g class="dots">{dots}</g><path d="M289 8v68" class="chosen"/></svg></section>
<section class="place">{title("Where does it err?")}<p>True classes against predicted ones.</p>
<svg viewBox="0 0 84 84" aria-hidden="true"><g class="cells">{cells}</g></svg></section>
<section class="place">{title("Try it")}
<p>Give a picture{" or a text" if kind == "head" else ""} and see the five likeliest classes.</p>
<svg viewBox="0 0 84 84" aria-hidden="true"><g class="bars">{bars}</g></svg></section></div>"""
