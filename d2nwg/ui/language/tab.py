"""The Language tab: look at a language model's layers, refine some of them, and talk with both side by side."""

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.language import service as own
from d2nwg.ui.language.api import add_endpoints
from d2nwg.ui.language.chat import wire_chat
from d2nwg.ui.language.layout import Chat, LookChoices, LookResults
from d2nwg.ui.language.look import wire_look
from d2nwg.ui.language.models import model_choices, model_hint
from d2nwg.ui.language.refine import wire_refine
from d2nwg.ui.language.refine_layout import Refining
from d2nwg.ui.link import keep_in_address

KEY, LABEL = "language", "Language"


def build_tab(frame: Frame) -> None:
    """Lay out the tab and wire it."""
    with gr.Column(elem_id="language"):
        with gr.Row(elem_classes="tab"):
            with gr.Column(elem_classes="choose", min_width=320):
                choices = LookChoices()
            with gr.Column(elem_classes="get", min_width=320):
                results = LookResults()
        refining = Refining()
        chat = Chat()
    _wire_link(frame, choices)
    wire_look(frame, choices, results)
    wire_refine(frame, choices, refining, chat)
    wire_chat(frame, choices, chat)
    add_endpoints()


def _wire_link(frame: Frame, choices: LookChoices) -> None:
    """The address holds how layers are ranked, and presets it."""
    controls = {"mode": choices.mode, "percent": choices.percent}

    def preset(request: gr.Request):
        values = own.from_link(dict(request.query_params))
        return {controls[key]: value for key, value in values.items()} or gr.skip()

    frame.demo.load(preset, None, list(controls.values()), **PRIVATE)
    keep_in_address(controls)
    # Whether the model has to be fetched is looked up when the page opens, not when the app was built.
    frame.demo.load(
        lambda: (gr.update(choices=model_choices()), views.hint(model_hint())),
        None,
        [choices.model, choices.hint],
        **PRIVATE,
    )
