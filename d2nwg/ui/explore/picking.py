"""The Explore tab's points: what a click or a drawn loop chooses, and where a chosen head can go."""

from functools import partial

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.explore import chosen as heads
from d2nwg.ui.explore import html
from d2nwg.ui.explore import service as own
from d2nwg.ui.explore.finding import current, drawn, listed, outputs, wire_files
from d2nwg.ui.explore.layout import Results
from d2nwg.ui.explore.state import ExploreState
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import Session
from d2nwg.ui.work import call
from d2nwg.utils.errors import UserError

# Scrolls to the card that a sent head stands in, once its tab is there.
SHOW = """() => {
    const show = frames => {
        const card = document.querySelector("%s")?.closest(".card");
        if (card?.offsetParent) card.scrollIntoView({block: "start"});
        else if (frames) requestAnimationFrame(() => show(frames - 1));
    };
    show(600);
}"""


def wire_picking(frame: Frame, results: Results) -> None:
    """Choosing one head or many, on the map or from the list."""
    session = frame.session

    def pick(state: ExploreState, point: int, colour: str, method: str, brush: str) -> dict:
        try:
            about = own.details(state.made, point)
        except UserError as reason:
            return {results.about: views.notice(str(reason))}
        state.picked = point
        update = {
            results.about: html.point(about),
            results.chosen: point,
            results.plot["map"]: drawn(state, colour, method, brush),
            results.plot["novelty"]: own.novelty(state.made, [point]),
            results.score: views.hint("A zip of class folders named as the head's classes."),
            results.judged: None,
        }
        try:
            head = heads.save_head(state.made, point)
            seen = heads.seen(state.made, point)
        except UserError as reason:
            return {
                **update,
                results.right: "",
                results.offers: gr.update(visible=False),
                results.judge: gr.update(visible=False),
                results.about: html.point(about) + views.notice(str(reason), "note"),
            }
        return {
            **update,
            results.offers: gr.update(visible=True),
            results.judge: gr.update(visible=True),
            results.head: str(head),
            results.right: html.recognised(*seen) if seen else "",
            results.send: gr.update(visible="generate" in frame.receivers and heads.can_send(state.made, point)),
            results.endpoint: gr.update(visible="interpolate" in frame.receivers and state.made.found.noun == "head"),
        }

    def on_map(visit: Session | None, colour: str, method: str, brush: str, event: gr.EventData):
        state = current(visit)
        data = event._data if isinstance(event._data, dict) else {}
        given = data.get("points")
        points = [p for p in given if isinstance(p, int)] if isinstance(given, list) else []
        if state is None or (data.get("kind") == "one" and not points):
            return gr.skip()
        if data.get("kind") == "one":
            return pick(state, points[0], colour, method, brush)
        on_it = set(state.made.view.rows.tolist())
        return listed(results, visit, state, sorted(on_it & set(points)), "chosen")

    def from_list(visit: Session | None, point: int | None, *looks: str):
        state = current(visit)
        return gr.skip() if state is None or point is None else pick(state, int(point), *looks)

    async def judge(visit: Session | None, files: list[str] | None):
        state = current(visit)
        if state is None or state.picked is None or not files:
            return gr.skip()
        visit.uploaded(files)
        try:
            said = await call(partial(own.score, state.made, state.picked, files, visit.subfolder()))
            return {results.score: views.notice(said, "good")}
        except UserError as reason:
            return {results.score: views.notice(str(reason)), results.judged: None}

    picked = [
        results.about,
        results.right,
        results.send,
        results.endpoint,
        results.chosen,
        results.plot["map"],
        results.plot["novelty"],
        results.offers,
        results.judge,
        results.head,
        results.score,
        results.judged,
    ]
    how = [results.colour, results.method, results.brush]
    event = results.events.click(on_map, [session, *how], [*picked, *outputs(results)], queue=False, **PRIVATE)
    wire_files(session, results, event)
    results.chosen.input(from_list, [session, results.chosen, *how], picked, queue=False, **PRIVATE)
    results.judged.upload(judge, [session, results.judged], [results.score, results.judged], **COMPUTE, **PRIVATE)


def wire_sending(frame: Frame, results: Results) -> None:
    """The buttons that send a head to other tabs, where those receive one: Generate's receiver takes the visitor's
    `Session`, Interpolate's also a head file."""
    session = frame.session

    def send(visit: Session | None):
        state = current(visit)
        if state is None or state.picked is None:
            return gr.skip()
        try:
            kept = visit.state(GenerateState)
            kept.result, kept.picked = heads.for_generate(state.made, state.picked, visit.subfolder())
        except UserError as reason:
            return {results.score: views.notice(str(reason))}
        return {frame.tabs: gr.Tabs(selected="generate"), **frame.receivers["generate"].show(visit)}

    def use_as_endpoint(visit: Session | None):
        state = current(visit)
        if state is None or state.picked is None:
            return gr.skip()
        try:
            file = heads.save_head(state.made, state.picked)
        except UserError as reason:
            return {results.score: views.notice(str(reason))}
        return {frame.tabs: gr.Tabs(selected="interpolate"), **frame.receivers["interpolate"].show(visit, file)}

    for key, button, does, place in (
        ("generate", results.send, send, "#seen"),
        ("interpolate", results.endpoint, use_as_endpoint, "#endpoint-a"),
    ):
        if key in frame.receivers:
            button.visible = True
            outputs = [frame.tabs, results.score, *frame.receivers[key].outputs]
            sent = button.click(does, session, outputs, **COMPUTE, **PRIVATE)
            sent.then(None, js=SHOW % place, api_visibility="private")
