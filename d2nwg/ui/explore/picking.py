"""The Explore tab's points: what a click or a drawn loop chooses, and where a chosen head can go."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.explore import html
from d2nwg.ui.explore import service as own
from d2nwg.ui.parts import COMPUTE, PRIVATE
from d2nwg.ui.session import Session
from d2nwg.ui.work import call
from d2nwg.utils.errors import UserError

KEY = "explore"


def current(visit: Session | None) -> SimpleNamespace | None:
    """What the tab keeps, once there is a result."""
    tab = visit.tab(KEY, made=None) if visit else None
    return tab if tab and tab.made else None


def wire_picking(frame: SimpleNamespace, left: SimpleNamespace, right: SimpleNamespace) -> None:
    """Choosing one head or many, on the map or from the list."""
    session = frame.session

    def pick(tab: SimpleNamespace, point: int, colour: str, method: str) -> dict:
        try:
            about = own.details(tab.made, point)
        except UserError as reason:
            return {right.about: views.notice(str(reason))}
        tab.picked = point
        update = {
            right.about: html.point(about),
            right.chosen: point,
            right.plot_map: own.chart(tab.made, colour, method, [point]),
            right.plot_novelty: own.novelty(tab.made, [point]),
            right.score: views.hint("A zip of class folders named as the head's classes."),
            right.judged: None,
        }
        try:
            head = own.save_head(tab.made, point)
        except UserError as reason:
            return {
                **update,
                right.offers: gr.update(visible=False),
                right.judge: gr.update(visible=False),
                right.about: html.point(about) + views.notice(str(reason), "note"),
            }
        return {
            **update,
            right.offers: gr.update(visible=True),
            right.judge: gr.update(visible=True),
            right.head: str(head),
        }

    def brush(tab: SimpleNamespace, points: list[int], folder: Path) -> dict:
        if not points:
            return {right.many: gr.update(visible=False)}
        archive = own.take(tab.made, points, folder / "selected-heads.zip")
        return {
            right.many: gr.update(visible=True),
            right.table: own.table(tab.made, points),
            right.count: views.title(f"{views.count(len(points), 'head')} chosen"),
            right.several: str(archive),
        }

    def on_map(visit: Session | None, colour: str, method: str, event: gr.EventData):
        tab = current(visit)
        data = event._data if isinstance(event._data, dict) else {}
        points = [int(p) for p in data.get("points", ()) if isinstance(p, (int, float))]
        if tab is None or (data.get("kind") == "one" and not points):
            return gr.skip()
        if data.get("kind") == "one":
            return pick(tab, points[0], colour, method)
        return brush(tab, sorted(set(points)), visit.subfolder())

    def from_list(visit: Session | None, point: int | None, colour: str, method: str):
        tab = current(visit)
        return gr.skip() if tab is None or point is None else pick(tab, int(point), colour, method)

    async def judge(visit: Session | None, files: list[str] | None):
        tab = current(visit)
        if tab is None or tab.picked is None or not files:
            return gr.skip()
        visit.uploads.update(map(Path, files))
        try:
            said = await call(partial(own.score, tab.made, tab.picked, files, visit.subfolder()))
            return {right.score: views.notice(said, "good")}
        except UserError as reason:
            return {right.score: views.notice(str(reason)), right.judged: None}

    picked = [
        right.about,
        right.chosen,
        right.plot_map,
        right.plot_novelty,
        right.offers,
        right.judge,
        right.head,
        right.score,
        right.judged,
    ]
    many = [right.many, right.table, right.count, right.several]
    how = [right.colour, right.method]
    right.events.click(on_map, [session, *how], [*picked, *many], queue=False, **PRIVATE)
    right.chosen.input(from_list, [session, right.chosen, *how], picked, queue=False, **PRIVATE)
    right.judged.upload(judge, [session, right.judged], [right.score, right.judged], **COMPUTE, **PRIVATE)


def wire_sending(frame: SimpleNamespace, right: SimpleNamespace) -> None:
    """Buttons that send a head to other tabs. A tab that takes heads has put (function, outputs) into
    ``frame.receivers``: Generate's shows the visitor's result; Interpolate's takes (visit, head file)."""
    session = frame.session

    def send(visit: Session | None):
        tab = current(visit)
        if tab is None or tab.picked is None:
            return gr.skip()
        try:
            visit.result, visit.picked = own.for_generate(tab.made, tab.picked, visit.subfolder())
        except UserError as reason:
            return {right.score: views.notice(str(reason))}
        return {frame.tabs: gr.Tabs(selected="generate"), **frame.receivers["generate"][0](visit)}

    def end(visit: Session | None):
        tab = current(visit)
        if tab is None or tab.picked is None:
            return gr.skip()
        try:
            file = own.save_head(tab.made, tab.picked)
        except UserError as reason:
            return {right.score: views.notice(str(reason))}
        return {frame.tabs: gr.Tabs(selected="interpolate"), **frame.receivers["interpolate"][0](visit, file)}

    for key, button, does in (("generate", right.send, send), ("interpolate", right.end, end)):
        if key in frame.receivers and frame.tabs is not None:
            button.visible = True
            button.click(does, session, [frame.tabs, right.score, *frame.receivers[key][1]], **COMPUTE, **PRIVATE)
