"""The Explore tab's class names: the map of names, and search."""

from typing import Any

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.explore import by_name as own
from d2nwg.ui.explore import html
from d2nwg.ui.explore.by_name import Mapped
from d2nwg.ui.explore.layout import BY, Choices
from d2nwg.ui.explore.layout_by import NameResults
from d2nwg.ui.explore.state import ExploreState
from d2nwg.ui.frame import Frame
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.session import Session
from d2nwg.ui.settings import knows_names
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError


def show_names(results: NameResults, made: Mapped, method: str) -> dict:
    """The update that shows a map of names."""
    return {
        results.places: gr.update(visible=False),
        results.sentence: html.answer(own.words(made, with_search=False)),
        results.beside: html.beside(made),
        results.beside_card: gr.update(visible=bool(made.found.names)),
        **_drawn(results, made, method),
        results.data: str(own.data(made)),
    }


def _drawn(results: NameResults, made: Mapped, method: str) -> dict:
    return {
        results.found: html.found_names(made),
        results.plot: own.chart(made, method),
        results.page: str(own.page(made, method)),
    }


def wire_names(frame: Frame, choices: Choices, names: NameResults) -> None:
    """Whether the bundle knows names, searching, drawing the map anew, and the address."""
    linked = {"by": choices.by, "named": choices.named, "search": names.search, "described": choices.described}

    def preset(request: gr.Request):
        values = own.from_link(dict(request.query_params))
        return {linked[key]: value for key, value in values.items()} or gr.skip()

    def offer(request: gr.Request, token, bundle: str | None, by: str) -> dict:
        known = knows_names(bundle, visitor(request, token))
        offered = [(title, key) for title, key in BY.items() if known or key != "names"]
        return gr.update(choices=offered, value=by if known or by != "names" else "heads")

    def search(visit: Session | None, text: str, method: str):
        state = visit.state(ExploreState) if visit else None
        if state is None or state.mapped is None:
            return gr.skip()
        try:
            state.mapped = own.searched(state.mapped, text)
        except UserError as reason:
            return {names.found: views.notice(str(reason))}
        return {**_drawn(names, state.mapped, method), names.data: str(own.data(state.mapped))}

    latest: dict[str, Any] = dict(trigger_mode="always_last", **PRIVATE)
    gr.on(
        [names.search.submit, names.method.input],
        search,
        [frame.session, names.search, names.method],
        [names.found, names.plot, names.page, names.data],
        **COMPUTE,
        **latest,
    )
    frame.demo.load(preset, None, list(linked.values()), **PRIVATE)
    frame.bundle.change(offer, [frame.token, frame.bundle, choices.by], choices.by, **PRIVATE)
    keep_in_address(linked, shown_in="#explore")
