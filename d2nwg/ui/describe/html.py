"""The Describe tab's words and pieces of HTML. Whatever comes from a visitor is escaped here."""

from html import escape

from d2nwg.bundles import NO_ADAPTERS
from d2nwg.ui.describe.service import Looked, Result, Scored
from d2nwg.ui.generate.html import likeliest
from d2nwg.ui.html import count, hint, percent, score_table, title
from d2nwg.utils.text import shown

RIGHT_ANGLE = 90.0  # degrees: vectors with nothing in common


def answer(result: Result) -> str:
    """The result card."""
    made = result.made
    first, *rest = map(escape, made.notes)
    name = made.nearest[0][0]
    if made.seen:
        first = first.replace(escape(name), f"<b>{escape(name)}</b>", 1)
    notices = "".join(f'<div class="notice note" role="status">{note}</div>' for note in rest)
    about = shown(str(made.adapter.info["description"]), 200)
    return (
        f'<section class="result"><p class="about">{escape(about)}</p><p class="answer">{first}</p>{notices}'
        f'<p class="made">{escape(how(made))}</p></section>'
    )


def how(made) -> str:
    """How an adapter was made, in words."""
    samples = count(len(made.samples), "sample")
    far = made.samples.distance[made.samples.distance == made.samples.distance]  # without NaN
    beside = ""
    if len(far):
        beside = (
            f" Samples lie {far.mean():.1f} times as far from the zoo's nearest adapter as adapters of one task lie "
            "from each other; 0 is a copy."
        )
    return f"The middle one of {samples}, made in {made.seconds:.1f} s.{beside}"


def nearest(made) -> str:
    """The known tasks whose descriptions are nearest, how near they are, and what the zoo's adapters of them can do."""
    rows = []
    for (name, cosine), task in zip(made.nearest, made.near_tasks, strict=True):
        can = "" if task.trained is None else f"The zoo's adapters: {_measure(task.metric, task.trained)}"
        if can and task.head_alone is not None:
            can += f"; the best head without one: {_measure(task.metric, task.head_alone)}"
        rows.append(
            f'<li><span class="name" title="{escape(name)}">{escape(name)}</span><span class="track">'
            f'<i style="width:{100 * max(0.0, cosine):.1f}%"></i></span><span class="many">{cosine:.2f}</span>'
            f'<span class="under">{escape(task.descriptions[0])}{f"<br>{escape(can)}." if can else ""}</span></li>'
        )
    return f'<ol class="likeliest with-notes">{"".join(rows)}</ol>'


def _measure(metric: str, value: float) -> str:
    if metric == "accuracy":
        return f"right on {percent(value)}"
    return f"{'Matthews’' if metric == 'matthews' else 'Pearson’s'} correlation {value:.2f}"


def effect(made) -> str:
    """By how many degrees the adapter turns vectors, beside the nearest task's adapter of the zoo."""
    rows = "".join(
        f'<li><span class="name" title="{escape(name)}">{escape(name)}</span><span class="track">'
        f'<i style="width:{100 * min(1.0, value / RIGHT_ANGLE):.1f}%"></i></span>'
        f'<span class="many">{value:.0f}°</span></li>'
        for name, value in (("generated", made.effect), (f"zoo: {made.nearest[0][0]}", made.look_up_effect))
    )
    return f'<ol class="likeliest">{rows}</ol>'


def said(looked: Looked) -> str:
    """What an adapter says of a text, beside the encoder without one."""
    if isinstance(looked.adapter, float):
        return f'<p class="seen">The adapter says <b>{looked.adapter:.2f}</b>.</p>'
    panes = [("With the adapter", looked.adapter), ("Without, by the labels’ names", looked.without or {})]
    return (
        '<div class="side">'
        + "".join(f'<div><p class="seen"><b>{escape(name)}</b></p>{likeliest(found)}</div>' for name, found in panes)
        + "</div>"
    )


def scores(scored: Scored, near: str) -> str:
    """An adapter and its baselines on a table."""
    from d2nwg.adapter_scores import NAMES, words

    found = scored.found
    rows = []
    for name, value in found.scores.items():
        if name in found.intervals:
            cells = [percent(value), " to ".join(map(percent, found.intervals[name]))]
        else:
            cells = [f"{value:.3f}"]
        rows.append((name == "generated", [NAMES[name], *cells]))
    heads = ["", *(["right", "95 % interval"] if found.intervals else ["Pearson"])]
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.targets.notes)
    return (
        f'<p class="seen">{escape(words(found, near))}</p>{score_table("the adapter and its baselines", heads, rows)}'
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def places() -> str:
    """The page before there is a result: what will be shown where."""
    bars = "".join(
        f'<rect width="{width}" height="10" y="{6 + 16 * i}"/>' for i, width in enumerate((70, 38, 20, 11, 6))
    )
    return f"""<div class="places">
<section class="place wide">{title("Your adapter will be here")}
<p>Describe a task of texts and press <b>Generate</b>. From the sentence alone the generator makes a small adapter
(LoRA) of a text encoder and a classifier head for it: for the tasks that it knows it recalls what training would give,
in whatever words; what it makes of new ones is shown as it is.</p>
<svg viewBox="0 0 420 90" aria-hidden="true"><g class="baselines"><path d="M40 45h120M260 45h120"/></g>
<g class="bars"><rect x="170" y="20" width="80" height="50" rx="8"/></g></svg></section>
<section class="place">{title("Which known tasks are near?")}<p>By what the sentences mean.</p>
<svg viewBox="0 0 84 84" aria-hidden="true"><g class="bars">{bars}</g></svg></section>
<section class="place">{title("Does it do anything?")}<p>By how much it turns the vectors of sentences.</p>
<svg viewBox="0 0 84 84" aria-hidden="true"><path d="M12 70h60M12 70l48-36" class="chosen"/></svg></section></div>"""


def no_bundle() -> str:
    """What stands there where no bundle of adapters is at hand."""
    return hint(NO_ADAPTERS)
