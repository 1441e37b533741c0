"""The Explore tab's tasks of texts: the map of the adapters that a bundle knows."""

import gradio as gr

from d2nwg.ui.events import PRIVATE
from d2nwg.ui.explore import by_task as own
from d2nwg.ui.explore import html
from d2nwg.ui.explore.by_task import MappedTasks
from d2nwg.ui.explore.layout import Choices
from d2nwg.ui.explore.layout_by import TaskResults
from d2nwg.ui.explore.state import ExploreState
from d2nwg.ui.frame import Frame
from d2nwg.ui.session import Session
from d2nwg.ui.settings import adapter_bundles
from d2nwg.ui.visitor import visitor


def show_tasks(results: TaskResults, made: MappedTasks, method: str) -> dict:
    """The update that shows a map of tasks."""
    return {
        results.places: gr.update(visible=False),
        results.sentence: html.answer(own.words(made)),
        results.known: html.known_tasks(made),
        **_drawn(results, made, method),
        results.data: str(own.data(made)),
    }


def _drawn(results: TaskResults, made: MappedTasks, method: str) -> dict:
    return {results.plot: own.chart(made, method), results.page: str(own.page(made, method))}


def wire_tasks(frame: Frame, choices: Choices, tasks: TaskResults) -> None:
    """The bundles that there are, and drawing the map anew."""

    def offer(request: gr.Request, token) -> dict:
        names = adapter_bundles(visitor(request, token))
        return {
            choices.task_bundle: gr.update(choices=names, value=names[0] if names else None, visible=bool(names)),
            choices.no_adapters: gr.update(visible=not names),
        }

    def redraw(visit: Session | None, method: str):
        state = visit.state(ExploreState) if visit else None
        return gr.skip() if state is None or state.tasks is None else _drawn(tasks, state.tasks, method)

    frame.demo.load(offer, frame.token, [choices.task_bundle, choices.no_adapters], **PRIVATE)
    tasks.method.input(
        redraw,
        [frame.session, tasks.method],
        [tasks.plot, tasks.page],
        queue=False,
        trigger_mode="always_last",
        **PRIVATE,
    )
