"""The Language tab's words and pieces of HTML. Whatever comes from a visitor or a model is escaped here."""

from html import escape

import numpy as np

from d2nwg.llm.chat import Answer
from d2nwg.llm.conversation import SAME, differing, tally_words
from d2nwg.ui.html import hint, percent, title
from d2nwg.ui.language.service import Looked, Talk

TYPES = {"q": "query", "k": "key", "v": "value", "o": "output", "up": "up", "gate": "gate", "down": "down"}
ENDS = {"length": "cut at the longest answer", "stopped": "stopped"}
BLIND = ("A", "B")


def looked_words(looked: Looked) -> str:
    """What a look has found: the answer, then where the model comes from."""
    rows = looked.ranked
    chosen = [row for row in rows if row.chosen]
    layers = 1 + max(row.matrix.layer for row in rows)
    best = max((row for row in rows if row.snr is not None), key=lambda row: row.snr, default=None)
    most = (
        f" The highest ratio, {best.snr:.3g}, has the {TYPES[best.matrix.type]} matrix of layer {best.matrix.layer}."
        if best
        else ""
    )
    without = sum(row.snr is None for row in rows)
    none = f" {without} have nothing below the bound: no ratio, and they are not chosen." if without else ""
    answer = (
        f"{len(chosen)} of the {len(rows)} matrices of {layers} layers are chosen: those that stand out most "
        "from chance, within each type."
    )
    many = f"{looked.size / 1e6:,.0f} million" if looked.size >= 1e7 else f"{looked.size:,}"
    about = f"{looked.model} · {many} weights · from {looked.source}"
    return (
        f'<section class="result"><p class="about">{escape(about)}</p>'
        f'<p class="answer">{escape(answer)}</p><p>{escape((most + none).strip())}</p></section>'
    )


def matrix_words(row) -> str:
    """One matrix, in a sentence."""
    rows, columns = row.matrix.shape
    values = np.asarray(row.matrix.values)
    above = int((values > row.threshold).sum())
    ratio = (
        "nothing lies below ε, so it has no ratio"
        if row.snr is None
        else f"signal to noise {row.snr:.3g}, rank {row.rank} of its type"
    )
    return hint(
        f"Layer {row.matrix.layer}, {TYPES[row.matrix.type]}, {rows:,} × {columns:,}: {above:,} of "
        f"{len(values):,} singular values lie above ε; {ratio}{', chosen' if row.chosen else ''}."
    )


def matrix_name(row) -> str:
    """A matrix in the list."""
    return f"layer {row.matrix.layer} · {TYPES[row.matrix.type]}{' · chosen' if row.chosen else ''}"


def pane(talk: Talk | None, side: int, blind: bool, marked: bool) -> str:
    """One side of the conversation; `side` is 0 for left. Differing words of finished answers are marked."""
    two = talk is not None and len(talk.kept.names) == 2
    if side and not two:
        return _empty("Refine the model, or drop a delta under Settings: the refined model answers here.")
    if talk is None:
        return _empty("Write a message below: the model answers here.")
    model = 1 - side if two and talk.swapped and blind else side
    name = BLIND[side] if blind and two else talk.kept.names[model]
    said = []
    for turn in talk.kept.turns:
        said.append(f'<div class="me">{escape(turn.message)}</div>')
        text = escape(turn.answers[model].text)
        if marked and two:
            text = _marked(turn.answers, model)
        best = ' <b class="best">✓ better</b>' if turn.vote == model else ""
        said.append(_said(turn.answers[model], text, best))
    if talk.writing is not None:
        said.append(f'<div class="me">{escape(talk.writing)}</div>')
        now = talk.answers[model]
        said.append(_said(now, f'{escape(now.text)}<i class="caret" aria-hidden="true"></i>', ""))
    inside = "".join(said) or '<p class="hint">Nothing said yet.</p>'
    return (
        f'<div class="pane"><h4>{escape(name)}</h4><div class="said" role="log" tabindex="0" '
        f'aria-label="{escape(name)}">{inside}</div></div>'
    )


def _empty(words: str) -> str:
    return f'<div class="pane empty">{hint(words)}</div>'


def _said(answer: Answer, text: str, best: str) -> str:
    about = []
    if answer.tokens:
        about.append(f"{answer.tokens} tokens")
    if answer.speed:
        about.append(f"{answer.speed:.1f} a second")
    if answer.ended in ENDS:
        about.append(ENDS[answer.ended])
    notice = f'<p class="hint">{escape(answer.notice)}</p>' if answer.notice else ""
    return (
        f'<div class="it">{notice}<div class="text">{text}</div>'
        f'<div class="about">{" · ".join(about)}{best}</div></div>'
    )


def _marked(answers: list[Answer], model: int) -> str:
    pieces = differing(answers[0].text, answers[1].text)[model]
    return "".join(f"<mark>{escape(text)}</mark>" if other and text.strip() else escape(text) for text, other in pieces)


def votes(talk: Talk | None, blind: bool) -> str:
    """The tally; while it is blind, only how many there are."""
    if talk is None or len(talk.kept.names) < 2:
        return ""
    counted = sum(turn.vote is not None for turn in talk.votes.turns)
    if blind:
        words = "Which answer is better? Left and right were drawn; untick “Blind” to see which is which."
        return hint(f"{words} Votes so far: {counted}.")
    return hint(f"Votes: {tally_words(talk.votes)}") if counted else hint("Which answer is better?")


def voted(turn, names: tuple[str, ...], blind: bool, swapped: bool) -> str:
    """What a vote said, in words."""
    if turn.vote == SAME:
        return "Noted: the same."
    if not blind:
        return f"Noted: {names[turn.vote]} is better."
    return f"Noted: {BLIND[turn.vote ^ swapped]} is better."


def looking_places() -> str:
    """What will stand where, before a model is loaded."""
    random = np.random.default_rng(4)
    cells = "".join(
        f'<rect x="{13 * j}" y="{12 * i}" width="11" height="10" opacity="{0.12 + 0.85 * u**2:.2f}"/>'
        for i in range(7)
        for j, u in enumerate(random.random(30))
    )
    arc = ((14 + 3 * i, 76 - 60 * np.sqrt(max(0, 1 - ((i - 12) / 11) ** 2))) for i in range(25))
    bulk = "M" + "L".join(f"{x} {y:.1f}" for x, y in arc)
    spikes = "".join(f'<circle cx="{x}" cy="73" r="3"/>' for x in (92, 101, 116))
    return f"""<div class="places">
<section class="place wide">{title("Which layers carry the most?")}
<p>Press <b>Look</b>. The model is loaded, and every weight matrix is compared with a random one of its size: the more
of its singular values stand out, the more it has learnt. The ones that stand out most are refined in step 2.</p>
<svg viewBox="0 0 390 84" aria-hidden="true"><g class="cells">{cells}</g></svg></section>
<section class="place wide">{title("How much of it is noise?")}<p>The spectrum of one matrix, and what chance alone
would give.</p>
<svg viewBox="0 0 130 84" aria-hidden="true"><path d="{bulk}" class="baselines"/><g class="dots">{spikes}</g></svg>
</section></div>"""


def refining_places() -> str:
    """What will stand where, before a model is refined."""
    steps = "M8 70" + "".join(f"h26v-{rise}" for rise in (0, 6, 0, 0, 9, 0, 5, 0, 0, 4)) + "h26"
    return f"""<div class="places">
<section class="place wide">{title("Is the refined model better?")}
<p>Press <b>Refine</b>. For one layer after another, candidates are generated from what the layer's own weights look
like; one is kept only if it answers the selection questions better. At the end base, refined model and noise answer
questions that nothing was chosen by.</p>
<svg viewBox="0 0 300 84" aria-hidden="true"><path d="{steps}" class="chosen"/></svg></section></div>"""


def log_table(log: list[dict], criterion: str) -> str:
    """What was decided, matrix by matrix; `criterion` is that of the refinement, which the scores are in."""
    rows = []
    for line in log:
        best = max(tried["score"] for tried in line["candidates"])
        kept = "✓ kept" if line["accepted"] else "as it was"
        arm = "noise · " if line["arm"] == "noise" else ""
        place = f"{arm}layer {line['layer']} · {TYPES.get(line['type'], line['type'])}"
        rows.append(
            f'<tr class="{"kept" if line["accepted"] else ""}"><td>{escape(place)}</td>'
            f"<td>{_score(line['before'], criterion)}</td><td>{_score(best, criterion)}</td><td>{kept}</td>"
            f"<td>{line['seconds']:.1f} s</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("matrix", "before", "best candidate", "", "took"))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="what was decided, matrix by matrix">'
        f'<table class="log"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _score(value: float, criterion: str) -> str:
    """An accuracy in percent, or a mean log-probability as it is."""
    return percent(value) if criterion == "accuracy" else f"{value:.4f}"


def refined_words(made) -> str:
    """The result card: the answer, what to make of it, and how it was made."""
    report, rest = made.report, list(made.report["words"])
    first, others = rest[0], rest[1:]
    facts = [
        f"{report['accepted']} of {report['tried']} matrices replaced",
        f"seed {report['config']['seed']}",
        f"{report['config']['candidates']} candidates each",
        f"chosen by {report['select_questions']} questions, judged by {report['report_questions']} others",
    ]
    if "reconstruction" in report:
        rebuilt = report["reconstruction"]
        facts.append(
            "with the matrices as the VAE gives them back, before refining: "
            f"{percent(rebuilt['selection_accuracy'])} of the selection questions instead of "
            f"{percent(rebuilt['base_selection_accuracy'])}"
        )
    paragraphs = "".join(f"<p>{escape(words)}</p>" for words in others)
    return (
        f'<section class="result"><p class="about">{escape(made.name)}</p><p class="answer">{escape(first)}</p>'
        f"{paragraphs}"
        f'<p class="made">{escape(" · ".join(facts))}.</p></section>'
    )
