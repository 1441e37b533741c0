"""The Interpolate tab's paths between two names: the switch, the result, and the address."""

import gradio as gr

from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.interpolate import by_name, html
from d2nwg.ui.interpolate.by_name import NamedPath
from d2nwg.ui.interpolate.layout import Choices, NameResults, Results
from d2nwg.ui.interpolate.settings import names_from_link, naming_bundles
from d2nwg.ui.interpolate.state import InterpolateState
from d2nwg.ui.link import keep_in_address
from d2nwg.ui.session import Session
from d2nwg.ui.visitor import visitor


def show_names(results: NameResults, made: NamedPath) -> dict:
    """The update that shows a path between names."""
    nearest, classes = by_name.figures(made)
    return {
        results.places: gr.update(visible=False),
        results.sentence: html.name_answer(made),
        results.nearest: nearest,
        results.nearest_card: gr.update(visible=nearest is not None),
        results.strip_title: html.strip_title(made),
        results.strip: by_name.strip(made),
        results.classes: classes,
        results.classes_card: gr.update(visible=classes is not None),
        results.head: str(by_name.head_file(made)),
        results.everything: str(by_name.everything(made)),
    }


def wire_names(frame: Frame, left: Choices, tasks: Results, names: NameResults) -> None:
    """Switching between tasks and names, choosing images, and the address."""
    linked = {"between": left.by, "first": left.first, "last": left.last, "liked": left.liked}

    def preset(request: gr.Request, token) -> dict:
        values = names_from_link(dict(request.query_params))
        update = {linked[key]: value for key, value in values.items()}
        return {**update, left.name_bundle: gr.update(choices=naming_bundles(visitor(request, token)))}

    def switch(visit: Session | None, by: str) -> dict:
        state = visit.state(InterpolateState) if visit else InterpolateState()
        of_names = by == "names"
        return {
            **{part: gr.update(visible=not of_names) for part in left.of_tasks},
            left.of_names: gr.update(visible=of_names),
            tasks.places: gr.update(visible=not of_names and state.made is None),
            tasks.made: gr.update(visible=not of_names and state.made is not None),
            names.places: gr.update(visible=of_names and state.named is None),
            names.made: gr.update(visible=of_names and state.named is not None),
            left.status: "",
        }

    def choose(liked: str) -> dict:
        return gr.update(visible=liked == "own")

    parts = [*left.of_tasks, left.of_names, tasks.places, tasks.made, names.places, names.made]
    frame.demo.load(preset, frame.token, [*linked.values(), left.name_bundle], **PRIVATE)
    left.by.change(switch, [frame.session, left.by], [*parts, left.status], queue=False, **PRIVATE)
    left.liked.change(choose, left.liked, left.liked_files, queue=False, **PRIVATE)
    keep_in_address(linked, shown_in="#interpolate")
