"""The Generate tab's words and pieces of HTML. Whatever comes from a visitor is escaped here."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from d2nwg.evaluation.report import Report
from d2nwg.ui.html import count, hint, percent, title
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.from_names import NamedGeneration

UNMEASURED = (
    "Without images nothing was measured, so there is no picture of the samples and none of where the head errs: give "
    "a few images of each class to see them."
)


def result_sentences(report: Report) -> tuple[str, str, str]:
    """The result in plain words: the answer, the baselines, and how the head was made."""
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
    return (
        f"The generated head is right on {percent(accuracy.chosen)} of {count(report.num_query, report.noun)} it never "
        f"saw.{free}",
        f"Fitted to the same {count(report.num_support, report.noun)}, the class mean reaches "
        f"{percent(accuracy.class_mean)}, ridge {percent(accuracy.ridge)} and logistic regression "
        f"{percent(accuracy.logistic_regression)}: the generated head is {stand}. A random head reaches "
        f"{percent(accuracy.random)}.",
        f"{made}Chosen: {report.selection}. {seconds.total:.1f} s, of which {seconds.features:.1f} s reading "
        f"{report.noun}s.",
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


def result(report: Report) -> str:
    """The result card."""
    answer, baselines, made = map(escape, result_sentences(report))
    number = percent(report.query_accuracy.chosen)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    given = f"task “{escape(report.task)}”" if report.task else f"{report.shots} {report.noun}s a class seen"
    data = f"{escape(report.data)} · {count(len(report.classes), 'class')} · {given}"
    return (
        f'<section class="result"><p class="about">{data}</p>'
        f'<p class="answer">{answer.replace(number, f"<b>{number}</b>", 1)}</p><p>{baselines}</p>'
        f'<p class="made">{made}</p>{notes}</section>'
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


def table(report: Report) -> dict:
    """The rows of the table of heads: the chosen one, then the samples."""
    rows: list[tuple[str, float, float | None]] = [("chosen", 100 * report.query_accuracy.chosen, None)]
    for i, sample in enumerate(report.samples):
        rows.append((f"sample {i}", 100 * sample.accuracy, sample.nearest_zoo_distance))
    headers = ["head", "right, %", "distance to the nearest zoo head, in lengths of a zoo head"]
    shown = [[name, f"{right:.1f}", "" if far is None else f"{far:.3f}"] for name, right, far in rows]
    columns = 2 if all(far is None for *_, far in rows) else 3  # on another encoder than the zoo's there is no distance
    return {
        "headers": headers[:columns],
        "data": [list(row[:columns]) for row in rows],
        "metadata": {"display_value": [row[:columns] for row in shown]},
    }


def places() -> str:
    """The page before there is a result: what will be shown where."""
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
<p>Choose images or texts and press <b>Generate</b>. From a few of each class, or from names alone, the generator makes
classifier heads, without training. The others are held out, to measure how often the heads are right.</p>
<svg viewBox="150 0 250 84" aria-hidden="true"><path d="M262 8v68M236 8v68M212 8v68" class="baselines"/>
<g class="dots">{dots}</g><path d="M289 8v68" class="chosen"/></svg></section>
<section class="place">{title("Where does it err?")}<p>True classes against predicted ones.</p>
<svg viewBox="0 0 84 84" aria-hidden="true"><g class="cells">{cells}</g></svg></section>
<section class="place">{title("Try it")}<p>Give a picture or a text and see the five likeliest classes.</p>
<svg viewBox="0 0 84 84" aria-hidden="true"><g class="bars">{bars}</g></svg></section></div>"""
