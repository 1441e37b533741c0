"""Searching the Explore tab's map, and the table of the heads that a search, or a drawn loop, has chosen."""

from collections.abc import Sequence
from functools import partial

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.explore import chosen
from d2nwg.ui.explore import service as own
from d2nwg.ui.explore.layout import Results
from d2nwg.ui.explore.state import ExploreState
from d2nwg.ui.frame import Frame
from d2nwg.ui.session import Session
from d2nwg.ui.work import call


def current(visit: Session | None) -> ExploreState | None:
    """What the tab keeps, once there is a result."""
    state = visit.state(ExploreState) if visit else None
    return state if state and state.made else None


def drawn(state: ExploreState, colour: str, method: str, brush: str):
    """The map as it is to be seen: what is picked ringed, and what a search does not match faint."""
    picked = [] if state.picked is None else [state.picked]
    return own.chart(state.made, colour, method, picked, state.matching, brush)


def listed(results: Results, visit: Session, state: ExploreState, points: Sequence[int], how: str) -> dict:
    """The update that shows the table of some heads; without any it is hidden. Their files follow, see `wire_files`.

    Args:
        how: ``"chosen"`` or ``"found"``.
    """
    state.listed = list(points)
    if not points:
        return {results.many: gr.update(visible=False)}
    list_file = chosen.listing(state.made, points, visit.subfolder() / "selected.csv")
    return {
        results.many: gr.update(visible=True),
        results.table: chosen.table(state.made, points),
        results.count: views.title(f"{views.count(len(points), state.made.found.noun)} {how}"),
        results.listing: str(list_file),
        results.several: gr.update(visible=False),
    }


def outputs(results: Results) -> list:
    """The components that `listed` may change."""
    return [results.many, results.table, results.count, results.listing, results.several]


def wire_files(session: gr.State, results: Results, event) -> None:
    """After an event that lists heads, make the archive of their files: of many it takes a while."""

    async def pack(visit: Session | None):
        state = current(visit)
        if state is None or not state.listed or state.packed is state.listed:
            return gr.skip()
        state.packed = state.listed
        points, path = state.listed, visit.subfolder() / "selected.zip"
        archive = await call(partial(_take, state.made, points, path))
        return gr.update(value=str(archive), visible=True) if state.listed is points else gr.skip()

    event.then(pack, session, results.several, **COMPUTE, **PRIVATE)


def _take(made: own.Explored, points: Sequence[int], path, progress=None):
    return chosen.take(made, points, path)


def wire_finding(frame: Frame, results: Results) -> None:
    """Searching by words and kinds."""

    def find(visit: Session | None, text: str, kinds: list[str], colour: str, method: str, brush: str):
        state = current(visit)
        if state is None:
            return gr.skip()
        matching = chosen.find(state.made, text, kinds)
        if matching == state.matching:
            return gr.skip()
        state.matching = matching
        said = ""
        if matching == []:
            said = views.notice("Nothing on the map matches: try another word, or more kinds.", "note")
        return {
            results.plot["map"]: drawn(state, colour, method, brush),
            results.nothing: said,
            **listed(results, visit, state, matching or [], "found"),
        }

    event = gr.on(
        [results.search.submit, results.search.blur, results.kinds.input],
        find,
        [frame.session, results.search, results.kinds, results.colour, results.method, results.brush],
        [results.plot["map"], results.nothing, *outputs(results)],
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )
    wire_files(frame.session, results, event)
