"""Many images or texts with what a head says of each, as HTML. Whatever comes from a visitor is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from d2nwg.ui.html import count, percent
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.predictions import Predictions

MOST_PICTURES, MOST_ROWS = 24, 100
LETTERS = 200  # of a text


def predictions(which: str, found: "Predictions", noun: str, pictures: Mapping[int, str]) -> str:
    """What a head says of many: in a sentence, as pictures, and as a table in the order of `Predictions.order`.

    Args:
        which: what the head is called.
        noun: what an item is called.
        pictures: by an item's number, in that order, as data URLs.
    """
    chances, known = found.probabilities.max(1), bool((found.truth >= 0).any())
    figures = "".join(
        _figure(
            picture,
            found.names[i],
            found.classes[found.predicted[i]],
            float(chances[i]),
            found.classes[found.truth[i]] if found.truth[i] >= 0 else None,
        )
        for i, picture in pictures.items()
    )
    rows = []
    for i in found.order()[:MOST_ROWS]:
        name = escape(shown(found.names[i], LETTERS))
        true = escape(found.classes[found.truth[i]]) if found.truth[i] >= 0 else ""
        right = f"<td>{true}</td><td>{('✗' if found.wrong[i] else '✓') if true else ''}</td>" if known else ""
        best = escape(found.classes[found.predicted[i]])
        rows.append(f"<tr><td>{name}</td><td>{best}</td><td>{percent(float(chances[i]))}</td>{right}</tr>")
    heads = "<th>true</th><th>right</th>" if known else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    return (
        f"<p>{escape(_said(which, found, noun))}</p>"
        + (f'<div class="looked">{figures}</div>' if figures else "")
        + '<div class="scores scroll predictions" tabindex="0" role="group" aria-label="predictions"><table><thead><tr>'
        f"<th>{escape(noun)}</th><th>predicted</th><th>probability</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>" + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _said(which: str, found: "Predictions", noun: str) -> str:
    many, known = len(found.names), int((found.truth >= 0).sum())
    order = "Wrong ones come first, then the least sure" if known else "The least sure come first"
    if many > MOST_ROWS:
        order += f"; these are {MOST_ROWS}, and all are in the CSV file"
    if not known:
        where = f": no {noun} lies in a folder named as a class" if noun == "image" else ""
        said = f"{which} has labelled {count(many, noun)}; how many are right is not known{where}."
    else:
        right = f"{known - int(found.wrong.sum()):,} of {count(known, noun)}"
        said = f"{which} is right on {right} in folders named as a class ({percent(found.accuracy or 0.0)})."
        if known < many:
            said += f" Of {many - known:,} more the class is not known."
    return f"{said} {order}."


def cell(noun: str, true: str, predicted: str, some: int, of: int, items: Sequence[tuple[str, str]]) -> str:
    """What lies in a cell of the confusion matrix.

    Args:
        noun: what an item is called.
        true, predicted: the classes.
        some, of: how many lie there, and how many of the true class there are.
        items: some of them: for images ``("image", data URL)``, for texts ``("text", the text)``.
    """
    verb = "is" if some < 2 else "are"
    many = f"{some:,} of {count(of, noun)}" if some else f"None of {count(of, noun)}"
    what = f"{verb} recognised" if true == predicted else f"{verb} taken for <b>{escape(predicted)}</b>"
    first = f"; {len(items)} of them" if len(items) < some else ""
    said = f'<p class="seen">{many} of <b>{escape(true)}</b> {what}{first}.</p>'
    if items and items[0][0] == "image":
        figures = "".join(_figure(picture, true, predicted, None, true) for _, picture in items)
        return f'{said}<div class="looked small">{figures}</div>'
    rows = "".join(f"<li>{escape(shown(text, LETTERS))}</li>" for _, text in items)
    return said + (f'<ul class="notes">{rows}</ul>' if rows else "")


def _figure(picture: str, name: str, predicted: str, chance: float | None, true: str | None) -> str:
    """A picture, framed by whether the prediction is right."""
    kind = "unknown" if true is None else "right" if true == predicted else "wrong"
    mark = {"unknown": "", "right": "✓ ", "wrong": "✗ "}[kind]
    beside = "" if chance is None else f"<span>{100 * chance:.0f}\u00a0%</span>"
    if kind == "wrong":
        said = f"<b>{escape(str(true))} → {escape(predicted)}</b>"
    else:
        said = f"<b>{mark}{escape(predicted)}</b>"
    title = escape(f"{name}: {predicted}" if true is None else f"{name}: {predicted}, in truth {true}")
    return (
        f'<figure class="{kind}" title="{title}"><img src="{picture}" alt="{escape(name)}">'
        f"<figcaption>{said}{beside}</figcaption></figure>"
    )
