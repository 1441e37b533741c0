"""The Interpolate tab's paths between two names: the result, and the address."""

import gradio as gr

from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.interpolate import by_name, html
from d2nwg.ui.interpolate.by_name import NamedPath
from d2nwg.ui.interpolate.layout import Choices, NameResults
from d2nwg.ui.interpolate.settings import names_from_link, naming_bundles
from d2nwg.ui.link import keep_in_address
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


def wire_names(frame: Frame, left: Choices) -> None:
    """Choosing images, and the address."""
    linked = {"between": left.by, "first": left.first, "last": left.last, "liked": left.liked}

    def preset(request: gr.Request, token) -> dict:
        values = names_from_link(dict(request.query_params))
        update = {linked[key]: value for key, value in values.items()}
        return {**update, left.name_bundle: gr.update(choices=naming_bundles(visitor(request, token)))}

    def choose(liked: str) -> dict:
        return gr.update(visible=liked == "own")

    frame.demo.load(preset, frame.token, [*linked.values(), left.name_bundle], **PRIVATE)
    left.liked.change(choose, left.liked, left.liked_files, queue=False, **PRIVATE)
    keep_in_address(linked, shown_in="#interpolate")
