"""The Explore tab's class names: the switch between heads and names, the map of names, and search."""

from typing import Any

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.explore import by_name as own
from d2nwg.ui.explore import html
from d2nwg.ui.explore.by_name import Mapped
from d2nwg.ui.explore.layout import Choices, NameResults, Results
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


def wire_names(frame: Frame, choices: Choices, heads: Results, names: NameResults) -> None:
    """Switching, searching, drawing the map anew, and the address."""
    _wire_switch(frame, choices, heads, names)

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


def _wire_switch(frame: Frame, choices: Choices, heads: Results, names: NameResults) -> None:
    linked = {"by": choices.by, "named": choices.named, "search": names.search}

    def preset(request: gr.Request):
        values = own.from_link(dict(request.query_params))
        return {linked[key]: value for key, value in values.items()} or gr.skip()

    def switch(visit: Session | None, by: str) -> dict:
        state = visit.state(ExploreState) if visit else ExploreState()
        of_names = by == "names"
        return {
            **{part: gr.update(visible=not of_names) for part in choices.of_heads},
            choices.of_names: gr.update(visible=of_names),
            heads.places: gr.update(visible=not of_names and state.made is None),
            heads.made: gr.update(visible=not of_names and state.made is not None),
            names.places: gr.update(visible=of_names and state.mapped is None),
            names.made: gr.update(visible=of_names and state.mapped is not None),
            choices.status: "",
        }

    def offer(request: gr.Request, token, bundle: str | None, by: str) -> dict:
        known = knows_names(bundle, visitor(request, token))
        return {choices.switch: gr.update(visible=known), choices.by: by if known else "heads"}

    parts = [*choices.of_heads, choices.of_names, heads.places, heads.made, names.places, names.made]
    frame.demo.load(preset, None, list(linked.values()), **PRIVATE)
    choices.by.change(switch, [frame.session, choices.by], [*parts, choices.status], queue=False, **PRIVATE)
    frame.bundle.change(offer, [frame.token, frame.bundle, choices.by], [choices.switch, choices.by], **PRIVATE)
    keep_in_address(linked, shown_in="#explore")
