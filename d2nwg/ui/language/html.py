"""The Language tab's words and pieces of HTML. Whatever comes from a visitor or a model is escaped here."""

from html import escape

import numpy as np

from d2nwg.llm.architectures import TITLES
from d2nwg.llm.chat import Answer
from d2nwg.llm.conversation import differing
from d2nwg.llm.prompts import FIRST
from d2nwg.llm.tally import SAME
from d2nwg.ui.html import hint, title
from d2nwg.ui.language.service import Looked, Talk

ENDS = {"length": "cut at the longest answer", "stopped": "stopped"}
BLIND = ("A", "B")
SHOWN_PROMPTS = 4
TOLD = 0.01  # nats a token: what differs by less is called alike


def looked_words(looked: Looked) -> str:
    """What a look has found: the answer, then where the model comes from."""
    rows = looked.ranked
    chosen = [row for row in rows if row.chosen]
    layers = 1 + max(row.matrix.layer for row in rows)
    best = max((row for row in rows if row.snr is not None), key=lambda row: row.snr, default=None)
    most = (
        f" The highest ratio, {best.snr:.3g}, has the {TITLES[best.matrix.type]} matrix of layer {best.matrix.layer}."
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
        f"Layer {row.matrix.layer}, {TITLES[row.matrix.type]}, {rows:,} × {columns:,}: {above:,} of "
        f"{len(values):,} singular values lie above ε; {ratio}{', chosen' if row.chosen else ''}."
    )


def matrix_name(row) -> str:
    """A matrix in the list."""
    return f"layer {row.matrix.layer} · {TITLES[row.matrix.type]}{' · chosen' if row.chosen else ''}"


def hidden(talk: Talk | None, blind: bool) -> bool:
    """Whether it may not be seen which model is which: in a blind conversation, also before its first message."""
    if talk is None or len(talk.kept.names) != 2:
        return False
    return talk.blind or (blind and not talk.kept.turns and talk.writing is None)


def pane(talk: Talk | None, side: int, blind: bool, marked: bool) -> str:
    """One column of the conversation; `side` is 0 for left. Differing words of finished answers are marked. What could
    tell the models of a blind conversation apart is left out: names, counts and speeds."""
    several = talk is not None and len(talk.kept.names) > 1
    if side and not several:
        return _empty("Refine the model, or drop a delta under Settings: the refined model answers here.")
    if talk is None:
        return _empty("Write a message below: the model answers here.")
    unnamed = hidden(talk, blind)
    model = 1 - side if talk.swapped and len(talk.kept.names) == 2 else side
    name = BLIND[side] if unnamed else talk.kept.names[model]
    said = []
    for turn in talk.kept.turns:
        said.append(f'<div class="me">{escape(turn.message)}</div>')
        text = escape(turn.answers[model].text)
        if marked and several:
            text = _marked(turn.answers, model)
        best = ' <b class="best">✓ better</b>' if turn.vote == model else ""
        said.append(_said(turn.answers[model], text, best, unnamed))
    if talk.writing is not None:
        said.append(f'<div class="me">{escape(talk.writing)}</div>')
        now = talk.answers[model]
        said.append(_said(now, f'{escape(now.text)}<i class="caret" aria-hidden="true"></i>', "", unnamed))
    inside = "".join(said) or '<p class="hint">Nothing said yet.</p>'
    return (
        f'<div class="pane"><h4>{escape(name)}</h4><div class="said" role="log" tabindex="0" '
        f'aria-label="{escape(name)}">{inside}</div></div>'
    )


def _empty(words: str) -> str:
    return f'<div class="pane empty">{hint(words)}</div>'


def _said(answer: Answer, text: str, best: str, unnamed: bool) -> str:
    about = []
    if answer.tokens and not unnamed:
        about.append(f"{answer.tokens} tokens")
    if answer.speed and not unnamed:
        about.append(f"{answer.speed:.1f} a second")
    if answer.ended in ENDS:
        about.append(ENDS[answer.ended])
    notice = f'<p class="hint">{escape(answer.notice)}</p>' if answer.notice else ""
    return (
        f'<div class="it">{notice}<div class="text">{text}</div>'
        f'<div class="about">{" · ".join(about)}{best}</div></div>'
    )


def _marked(answers: list[Answer], model: int) -> str:
    """An answer with the words marked that differ from the base's, or the base's with those that the second lacks."""
    other = model or 1
    pieces = differing(answers[0].text, answers[other].text)[bool(model)]
    return "".join(f"<mark>{escape(text)}</mark>" if new and text.strip() else escape(text) for text, new in pieces)


def votes(talk: Talk | None, blind: bool) -> str:
    """What to vote on, and the tally of blind votes; while the models are hidden, only how many there are."""
    if talk is None or not talk.pair:
        return ""
    if len(talk.kept.names) == 3:
        return hint(
            "Votes are between base and refined: untick “Beside it”. Noise had as many tries and was chosen alike."
        )
    said, counted = [], talk.tally
    if talk.done and talk.kept.turns[-1].equal:
        said.append("Both answers are the same, word for word: there is nothing to vote on.")
    if hidden(talk, blind):
        asked = "Which answer is better?" if talk.kept.turns else "Send a message: then say which answer is better."
        said.append(
            f"{asked} Left and right were drawn for this conversation; your vote shows which is which. "
            f"Blind votes so far: {counted.votes}."
        )
    else:
        where = "all your conversations with these two" if talk.lasting else "this visit with these two"
        said.append(f"Blind votes of {where}: {counted.words(talk.kept.names)}")
        if not blind:
            said.append("Only blind votes count: tick “Blind”.")
    return hint(" ".join(said))


def voted(turn, names: tuple[str, ...], swapped: bool) -> str:
    """What a vote said, in words, and after a blind one which model was which."""
    if not turn.blind:
        what = "the same" if turn.vote == SAME else f"{names[turn.vote]} is better"
        return f"Noted: {what}. It was not blind: the tally leaves it out."
    what = "the same" if turn.vote == SAME else f"{BLIND[turn.vote ^ swapped]} is better"
    shown = ", ".join(f"{letter} was {names[side ^ swapped]}" for side, letter in enumerate(BLIND))
    return f"Noted: {what}. {shown}. The next message begins a new conversation."


def prompts(found: list[tuple[str, float]]) -> list[str]:
    """What the buttons say: the prompts that were found, or a few to begin with."""
    texts = [prompt for prompt, _ in found] or list(FIRST)
    return (texts + [text for text in FIRST if text not in texts])[:SHOWN_PROMPTS]


def telling_prompts(found: list[tuple[str, float]]) -> str:
    """How far the prompts on the buttons tell the two models apart."""
    return hint(telling_words(found)) if found else ""


def telling_words(found: list[tuple[str, float]]) -> str:
    """How far prompts tell the two models apart, and what that does not say."""
    if not found:
        return "The base answers none of these prompts."
    values = [abs(value) for _, value in found]
    if values[0] < TOLD:
        return (
            f"No prompt of the list tells them apart: the base's answers are as likely under both, to {values[0]:.2g} "
            "nats a token."
        )
    signs = {value > 0 for _, value in found}
    under = "less likely" if signs == {True} else "likelier" if signs == {False} else "likelier or less likely"
    return (
        f"The base's answers to these are {under} under the refined model, by {values[0]:.2g} to {values[-1]:.2g} nats "
        "a token, the most of the list. They show where the models differ, not how often, nor which is better."
    )


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
