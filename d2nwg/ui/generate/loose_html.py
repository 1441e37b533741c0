"""Loose pictures and the classes that they are sorted into, as HTML. Whatever comes from a visitor is escaped here."""

from collections.abc import Mapping
from html import escape

from d2nwg.data.sorting import Picture, Sorting
from d2nwg.ui.html import count
from d2nwg.utils.text import shown, some

UNSORTED = "Not sorted yet"
SHOWN = 60  # pictures of a class; the others come into view as those are moved


def boxes(sorting: Sorting, thumbnails: Mapping[int, str], picked: str = "") -> str:
    """A box of pictures for each class, and one for those of none.

    Args:
        thumbnails: by a picture's number, as data URLs.
        picked: the class that new pictures go into.
    """
    with sorting.lock:
        parts = [_box(name, sorting.of(name), sorting.pictures, thumbnails, picked) for name in ("", *sorting.classes)]
    return f'<div class="boxes">{"".join(parts)}</div>'


def _box(
    label: str, keys: list[int], pictures: Mapping[int, Picture], thumbnails: Mapping[int, str], picked: str
) -> str:
    name, value = escape(label or UNSORTED), escape(label)
    tiles = "".join(
        f'<button type="button" class="tile" draggable="true" aria-pressed="false" data-picture="{key}" '
        f'aria-label="{escape(pictures[key].name)}, {name}"><img src="{thumbnails.get(key, "")}" alt=""></button>'
        for key in keys[:SHOWN]
    )
    more = f'<p class="hint">and {len(keys) - SHOWN:,} more</p>' if len(keys) > SHOWN else ""
    every = f'<button type="button" class="all" aria-label="Select all of {name}">All</button>' if keys else ""
    new = '<span class="new">new ones go here</span>' if label == picked else ""
    return (
        f'<section class="class-box" data-box="{value}" aria-label="{name}"><div class="head">'
        f'<button type="button" class="pick" aria-pressed="{"true" if label == picked else "false"}" '
        f'title="Put new pictures into {name}">{name} <span class="many">{len(keys):,}</span></button>{new}'
        f'<span class="acts"><button type="button" class="here" aria-label="Put the selected here, into {name}" hidden>'
        f"Put here</button>{every}</span></div>"
        f'<div class="tiles">{tiles}</div>{more}</section>'
    )


def added(new: int, into: str, there: list[str], broken: list[str], others: list[str]) -> str:
    """What became of files that were given, in sentences.

    Args:
        new: how many pictures were added, into which class.
        there: names of those that are there already.
        broken: names of those that cannot be read.
        others: names of those that are no images.
    """
    said = [f"{count(new, 'picture')} added to {shown(into)}." if into else f"{count(new, 'picture')} added."]
    if there:
        verb = "is" if len(there) == 1 else "are"
        said.append(f"{some(there)} {verb} here already, the same file, and not added again.")
    if broken:
        said.append(f"{some(broken)} cannot be read and {'was' if len(broken) == 1 else 'were'} left out.")
    if others:
        what = "is no image that can be read here" if len(others) == 1 else "are no images that can be read here"
        said.append(f"{some(others)} {what}.")
    return " ".join(said)
