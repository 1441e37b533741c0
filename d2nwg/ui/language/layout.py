"""The components of the Language tab's first and third step; those of the second are in `refine_layout`."""

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.access import on_a_space
from d2nwg.ui.events import Components
from d2nwg.ui.explore.html import tools
from d2nwg.ui.language import html
from d2nwg.ui.language import service as own
from d2nwg.ui.language.models import DEFAULT, model_choices, model_hint
from d2nwg.ui.language.service import DEFAULTS, MODES
from d2nwg.ui.parts import Upload

MAP = (
    "Which layers carry the most?",
    "Signal against noise, shaded within each type; the chosen are ringed. Click a cell to see its spectrum.",
)
SPECTRUM = (
    "How much of this matrix is noise?",
    "Bars: its singular values. Curve: a random matrix of its size and noise. Beyond ε it counts as signal.",
)

# Tells the server which cell of the heat map was clicked. Plotly's handlers stay with its element, which gradio may
# replace.
PICK = """
const hook = () => {
    const plot = document.querySelector('#language-layers .js-plotly-plot');
    if (!plot || !plot.on || plot.dataset.hooked) return;
    plot.dataset.hooked = '1';
    plot.on('plotly_click', event => {
        const names = (event && event.points || []).map(p => p.customdata).filter(n => typeof n === 'string' && n);
        if (names.length) trigger('click', {name: names[0]});
    });
};
setInterval(hook, 300);
"""


class LookChoices(Components):
    """The model, and how its layers are ranked."""

    def __init__(self) -> None:
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("1 · Look", "Which of the model's layers have learnt the most?"))
            self.model = gr.Dropdown(
                model_choices(), value=DEFAULT, label="Model", elem_id="language-model", allow_custom_value=True
            )
            self.hint = gr.HTML(views.hint(model_hint()), elem_id="language-model-hint")
            self.file = Upload(
                label="A model of your own: a GGUF file, or a zip of a folder with config.json",
                height=84,
                elem_id="language-model-file",
                visible=not on_a_space(),
            )
            self.mode = gr.Radio(
                list(MODES.items()),
                value=DEFAULTS["mode"],
                label="Ratio",
                elem_id="language-mode",
                info="signal to noise, as the paper or as Spectrum takes it",
            )
            self.percent = gr.Number(
                DEFAULTS["percent"], label="Chosen of each type, %", elem_id="language-percent", minimum=1, maximum=100
            )
        with gr.Row(elem_classes="do"):
            self.go = gr.Button("Look", elem_id="language-look")
            self.stop = gr.Button("Cancel", elem_id="language-look-stop", visible=False, min_width=100)
        self.status = gr.HTML(elem_id="language-look-status")


class LookResults(Components):
    """What a look shows."""

    def __init__(self) -> None:
        self.places = gr.HTML(html.looking_places(), elem_id="language-places")
        with gr.Column(visible=False, elem_id="language-looked", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="language-sentence")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title(*MAP))
                self.layers = gr.Plot(show_label=False, container=False, elem_id="language-layers")
                self.events = gr.HTML(js_on_load=PICK, elem_id="language-events", visible="hidden")
                with gr.Row(elem_classes="saves"):
                    gr.HTML(tools("language-layers", MAP[0]))
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title(*SPECTRUM))
                self.chosen = gr.Dropdown([], label="Matrix", elem_id="language-matrix", filterable=True)
                self.about = gr.HTML(elem_id="language-about")
                self.spectrum = gr.Plot(show_label=False, container=False, elem_id="language-spectrum")
                with gr.Row(elem_classes="saves"):
                    gr.HTML(tools("language-spectrum", SPECTRUM[0]))


class Chat(Components):
    """The third step.

    Attributes:
        panes: left, right, and a third one.
        prompts: buttons that send what they say.
    """

    def __init__(self) -> None:
        with gr.Column(elem_classes="card", elem_id="language-chat"):
            gr.HTML(views.title("3 · Compare", "One message, both models answer; the words that differ are marked."))
            with gr.Row(elem_classes="panes"):
                self.panes = [
                    gr.HTML(html.pane(None, side, False, True), elem_id=f"language-pane-{name}", autoscroll=True)
                    for side, name in enumerate(("left", "right"))
                ]
                self.panes.append(gr.HTML(visible=False, elem_id="language-pane-third", autoscroll=True))
            with gr.Row(elem_classes="votes", visible=False, elem_id="language-votes") as self.ballot:
                self.votes = [
                    gr.Button(words, elem_id=f"language-vote-{key}", min_width=90)
                    for key, words in (
                        ("left", "← Left is better"),
                        ("same", "The same"),
                        ("right", "Right is better →"),
                    )
                ]
            with gr.Row(elem_classes="counted"):
                self.tally = gr.HTML(elem_id="language-tally")
                self.reset = gr.Button(
                    "Reset", elem_id="language-tally-reset", size="sm", min_width=80, scale=0, visible=False
                )
            self.status = gr.HTML(elem_id="language-chat-status")
            self._prompts()
            with gr.Row(elem_classes="write"):
                self.message = gr.Textbox(
                    label="Message",
                    lines=1,
                    max_lines=8,
                    elem_id="language-message",
                    scale=1,
                    placeholder="What is the capital of France?",
                    max_length=own.MOST_MESSAGE,
                )
            with gr.Row(elem_classes="do verbs"):
                self.send = gr.Button("Send", elem_id="language-send", min_width=80)
                self.stop = gr.Button("Stop", elem_id="language-stop", min_width=80, interactive=False)
                self.retry = gr.Button("Again", elem_id="language-again", min_width=80, interactive=False)
                self.new = gr.Button("New", elem_id="language-new", min_width=80)
            with gr.Row(elem_classes="ticks"):
                self.blind = gr.Checkbox(False, label="Blind: hide which is which", elem_id="language-blind")
                self.marked = gr.Checkbox(True, label="Mark differing words", elem_id="language-marked")
                self.beside = gr.Checkbox(
                    False, label="Beside it: the same search with noise", elem_id="language-beside", visible=False
                )
            self._settings()
            with gr.Row(elem_classes="downloads", visible=False) as self.files:
                self.as_json = gr.DownloadButton("Conversation (JSON)", elem_id="language-talk-json")
                self.as_text = gr.DownloadButton("Conversation (Markdown)", elem_id="language-talk-md")

    def _prompts(self) -> None:
        with gr.Row(elem_classes="prompts", elem_id="language-prompts"):
            self.prompts = [gr.Button(text, size="sm") for text in html.prompts([])]
        self.telling = gr.HTML(elem_id="language-telling")
        with gr.Row(elem_classes="do"):
            self.find = gr.Button(
                "Find prompts that tell them apart",
                elem_id="language-find",
                size="sm",
                min_width=250,
                scale=0,
                visible=False,
            )
            self.find_stop = gr.Button(
                "Cancel", elem_id="language-find-stop", size="sm", visible=False, min_width=80, scale=0
            )
        self.finding = gr.HTML(elem_id="language-finding")

    def _settings(self) -> None:
        with gr.Accordion("Settings", open=False, elem_id="language-chat-settings"):
            self.system = gr.Textbox(
                "",
                label="System prompt",
                lines=2,
                elem_id="language-system",
                info="stands before the conversation; empty: that of the model's template",
            )
            with gr.Row(elem_classes="pair"):
                self.temperature = gr.Number(
                    DEFAULTS["temperature"],
                    label="Temperature",
                    step=0.1,
                    min_width=100,
                    info="0: always the likeliest",
                    elem_id="language-temperature",
                )
                self.top_p = gr.Number(
                    DEFAULTS["top_p"],
                    label="Top-p",
                    step=0.05,
                    min_width=100,
                    info="drawn from the likeliest",
                    elem_id="language-top-p",
                )
            with gr.Row(elem_classes="pair"):
                self.seed = gr.Number(
                    DEFAULTS["seed"],
                    label="Seed",
                    precision=0,
                    min_width=100,
                    info="the same for both",
                    elem_id="language-chat-seed",
                )
                self.longest = gr.Number(
                    DEFAULTS["longest"],
                    label="Longest answer",
                    precision=0,
                    min_width=100,
                    info="tokens",
                    elem_id="language-longest",
                )
            self.delta = Upload(
                label="A delta saved earlier",
                height=84,
                elem_id="language-delta",
                file_types=[".safetensors"],
            )
            gr.HTML(views.hint("Drop a delta.safetensors saved earlier to talk with that refinement of the model."))
