"""Pieces of HTML that every tab uses. Whatever comes from a visitor is escaped here."""

from collections.abc import Sequence
from html import escape

import numpy as np

from d2nwg.data.text_set import in_words
from d2nwg.figures.thumbnails import thumbnail
from d2nwg.utils.progress import Progress, format_seconds, silent
from d2nwg.utils.text import shown

SHOWN_CLASSES, SHOWN_IMAGES = 24, 6
IN_ONE_ROW = 10  # classes
SHOWN_LETTERS = 90  # of a text


def percent(fraction: float) -> str:
    """``0.8823`` → ``"88.2 %"``, with a space that does not break."""
    return f"{100 * fraction:.1f}\u00a0%"


def count(number: int, noun: str) -> str:
    """``count(1200, "image")`` → ``"1,200 images"``."""
    plural = noun if number == 1 else noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {plural}"


def title(question: str, under: str = "") -> str:
    """The heading of a card: a question, and what to know to read the answer."""
    under = f"<p>{escape(under)}</p>" if under else ""
    return f'<div class="title"><h3>{escape(question)}</h3>{under}</div>'


def notice(text: str, kind: str = "bad") -> str:
    """A sentence that has to be seen: ``bad`` (it did not work), ``note`` or ``good``."""
    role = "alert" if kind == "bad" else "status"
    return f'<div class="notice {kind}" role="{role}">{escape(text.strip())}</div>'


def hint(text: str) -> str:
    """A sentence in small type."""
    return f'<p class="hint">{escape(text)}</p>'


def progress(stage) -> str:
    """A `d2nwg.ui.work.Stage` as words and a bar."""
    width = 100 * stage.done / stage.total if stage.total else 0
    numbers = f"{stage.done:,} of {stage.total:,}" if stage.total else ""
    left = f"{format_seconds(stage.left)} left" if stage.left is not None and stage.left >= 1 else ""
    return (
        f'<div class="working" role="status"><div class="words"><b>{escape(stage.name)}</b>'
        f"<span>{' · '.join(filter(None, (numbers, left)))}</span></div>"
        f'<div class="bar{"" if stage.total else " unknown"}"><i style="width:{width:.1f}%"></i></div></div>'
    )


def score_table(label: str, heads: Sequence[str], rows: Sequence[tuple[bool, Sequence[str]]]) -> str:
    """A table of accuracies that scrolls sideways on a phone, and says what it is as `label`.

    Args:
        rows: whether each is marked, and its cells, of which the first names it.
    """
    top = "".join(f"<th>{escape(words)}</th>" for words in heads)
    body = ""
    for marked, (name, *cells) in rows:
        own = ' class="own"' if marked else ""
        body += f"<tr{own}><th>{escape(name)}</th>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>"
    return (
        f'<div class="scores" tabindex="0" role="group" aria-label="{escape(label)}"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def thumbnails(images, progress: Progress = silent) -> str:
    """What is in an `ImageSet`: classes and images counted, and a small picture of each class; opened, a row of them a
    class."""
    rows, strip, first, scale = [], [], images.classes[:SHOWN_CLASSES], images.scale(progress)
    counts = np.bincount(images.labels, minlength=len(images.classes))
    for number, name in enumerate(first):
        progress("Making thumbnails", number, len(first))
        pictures: list[str] = []
        for index in np.flatnonzero(images.labels == number)[: 2 * SHOWN_IMAGES]:
            if len(pictures) < SHOWN_IMAGES and (picture := thumbnail(images.items[index], scale)):
                pictures.append(f'<img src="{picture}" alt="">')
        strip += pictures[:1]
        rows.append(
            f'<div class="row"><span class="name" title="{escape(name)}">{escape(name)}</span>'
            f'<span class="pictures">{"".join(pictures)}</span>'
            f'<span class="many">{counts[number]:,}</span></div>'
        )
    return _listed(
        images, rows, "some images of each class", f'<span class="strip">{"".join(strip[:IN_ONE_ROW])}</span>'
    )


def _listed(data, rows: list[str], what: str, strip: str = "") -> str:
    """The rows of the first classes of a labelled set, below its size and above its notes. Where there is a strip to
    stand for them, they are folded under it."""
    if len(rows) < len(data.classes):
        rows = [*rows, f'<div class="row more">and {count(len(data.classes) - len(rows), "more class")}</div>']
    notes = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
    size = f"<b>{count(len(data.classes), 'class')} · {count(len(data.items), data.noun)}</b>"
    listed = f'<div class="rows" tabindex="0" role="group" aria-label="{what}">{"".join(rows)}</div>'
    shown = f'<p class="summary">{size}</p>{listed}'
    if strip:
        shown = f'<details><summary><span class="summary">{size}</span>{strip}</summary>{listed}</details>'
    return f'<div class="images">{shown}' + (f'<ul class="notes">{notes}</ul>' if notes else "") + "</div>"


def examples(data, progress: Progress = silent) -> str:
    """What is in a labelled set: `thumbnails` of images; of texts, classes and texts counted, then a text a class."""
    if data.noun == "image":
        return thumbnails(data, progress)
    counts, rows = np.bincount(data.labels, minlength=len(data.classes)), []
    for number, name in enumerate(data.classes[:SHOWN_CLASSES]):
        item = data.items[int(np.flatnonzero(data.labels == number)[0])]
        text = shown(in_words(item), SHOWN_LETTERS)
        rows.append(
            f'<div class="row"><span class="name" title="{escape(name)}">{escape(name)}</span>'
            f'<span class="text">{escape(text)}</span><span class="many">{counts[number]:,}</span></div>'
        )
    return _listed(data, rows, f"a {data.noun} of each class")
