"""What the Explore tab does with class names, without gradio: library calls, and the files they leave."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import is_utf8

LONGEST_LINK = 2000  # characters of the names in a link


class Mapped(NamedTuple):
    """What one press of the button has made."""

    found: Any  # the `NamedRowsMap`
    folder: Path


def from_link(query: Mapping[str, str]) -> dict:
    """The control values that a link's query asks for; what is not to be had is left out."""
    values: dict = {}
    if query.get("by") in ("heads", "names", "tasks"):
        values["by"] = query["by"]
    for key in ("named", "search", "described"):
        text = query.get(key, "")
        if text.strip() and len(text) <= LONGEST_LINK and is_utf8(text):
            values[key] = text
    return values


@on_gpu
def make(
    bundle: str | None, typed: str | None, search: str | None, folder: Path, progress: Progress = silent
) -> Mapped:
    """Map the names that a bundle knows, with those that somebody typed among them, if any, and search them.

    Raises:
        UserError: names or a text that cannot be used, or a bundle that knows no names.
    """
    import_libraries()
    from d2nwg.conditions.class_names import split_names
    from d2nwg.exploration.names import map_names

    folder.mkdir(parents=True, exist_ok=True)
    names = split_names(typed) if (typed or "").strip() else []
    return Mapped(map_names(names, (search or "").strip(), bundle=bundle, progress=progress), folder)


def searched(made: Mapped, text: str | None) -> Mapped:
    """The same map, searched for another text, or for none.

    Raises:
        UserError: a text that cannot be searched for, or a bundle that is gone.
    """
    text = (text or "").strip()
    return made._replace(found=replace(made.found, found=_find(made.found.bundle, text) if text else None))


@on_gpu
def _find(bundle: str, text: str):
    from d2nwg.bundles import resolve_bundle
    from d2nwg.exploration.names import find, names_of

    return find(names_of(resolve_bundle(bundle)), text)


def chart(made: Mapped, method: str):
    """The map."""
    from d2nwg.figures.name_map import name_map_figure

    return name_map_figure(made.found, method)


def question(made: Mapped) -> str:
    """What the map answers."""
    from d2nwg.figures.name_map import question as asked

    return asked(made.found)


def words(made: Mapped, with_search: bool = True) -> list[str]:
    """The result in sentences, and how the map was made."""
    from d2nwg.exploration.names_words import sentences

    found = made.found if with_search else replace(made.found, found=None)
    return [*sentences(found), f"The map: {found.projection.words}"]


def page(made: Mapped, method: str) -> Path:
    """The map as a page of its own."""
    from d2nwg.figures.base import write_page

    return write_page(chart(made, method), made.folder / "names.html", question(made), words(made)[0])


def data(made: Mapped) -> Path:
    """An archive of names.csv, names.json and the files for the TensorBoard Embedding Projector."""
    from d2nwg.exploration.names_words import save
    from d2nwg.ui.explore.service import pack

    saved = save(made.found, made.folder / "data")
    return pack(made.folder / "names.zip", [*saved["data"], *saved["projector"]])


def summary(made: Mapped) -> dict:
    """The numbers, as JSON."""
    from d2nwg.exploration.names_words import summary as numbers

    return numbers(made.found)
