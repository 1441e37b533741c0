"""The components of the Language tab, a class or two for each of its three steps."""

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.access import on_a_space
from d2nwg.ui.events import Components
from d2nwg.ui.explore.html import tools
from d2nwg.ui.language import html, refining
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
FIGURE = ("Which layers got better?", "The score on the selection questions, layer by layer, as candidates are tried.")
REPORTED = (
    "Is it better where nothing was chosen?",
    "Right on the report questions; bars are 95 % intervals. Noise: the same budget spent on random changes of "
    "the same size.",
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
                elem_classes="drop",
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


class Refining(Components):
    """The second step.

    Attributes:
        questions: the choice of the ``select`` and of the ``report`` questions.
        question_file: the drop zones for one's own.
    """

    def __init__(self) -> None:
        self.questions: dict[str, gr.Dropdown] = {}
        self.question_file: dict[str, Upload] = {}
        closed = on_a_space()
        with gr.Row(elem_classes="tab", elem_id="language-refine"):
            with gr.Column(elem_classes="choose", min_width=320):
                with gr.Column(elem_classes="card"):
                    gr.HTML(views.title("2 · Refine", "Layer by layer; a candidate stays only if it answers better."))
                    for key, label, half in (
                        ("select", "Selection questions", "selection"),
                        ("report", "Report questions", "report"),
                    ):
                        choices = refining.question_sets(half)
                        self.questions[key] = gr.Dropdown(
                            choices,
                            value=choices[0][1],
                            label=label,
                            elem_id=f"language-{key}",
                            allow_custom_value=refining.has_harness() and not closed,
                            info="candidates are chosen by them" if key == "select" else "never chosen by: they judge",
                        )
                        self.question_file[key] = Upload(
                            label=f"{label} (JSONL)",
                            height=84,
                            visible=False,
                            elem_id=f"language-{key}-file",
                            elem_classes="drop",
                            file_types=[".jsonl", ".gz", ".json"],
                        )
                    self.preset = gr.Dropdown(
                        refining.presets(),
                        value=refining.DEFAULTS["preset"],
                        label="Preset",
                        elem_id="language-preset",
                        info="how long the generator learns",
                    )
                    first = refining.start_of(refining.DEFAULTS["preset"])
                    with gr.Row(elem_classes="pair"):
                        self.layers = gr.Number(
                            first["layers"],
                            precision=0,
                            label="Matrices",
                            info="the best first; 0: all",
                            min_width=100,
                            elem_id="language-layers-count",
                        )
                        self.candidates = gr.Number(
                            first["candidates"],
                            precision=0,
                            label="Candidates",
                            info="for each matrix",
                            min_width=100,
                            elem_id="language-candidates",
                        )
                    self.criterion = gr.Radio(
                        list(refining.CRITERIA),
                        value="accuracy",
                        label="Better in",
                        elem_id="language-criterion",
                        info="right answers, as in the paper, or how sure they are",
                    )
                    self.seed = gr.Number(0, precision=0, label="Seed", elem_id="language-seed")
                with gr.Row(elem_classes="do"):
                    self.go = gr.Button("Refine", variant="primary", elem_id="language-go", interactive=not closed)
                    self.stop = gr.Button("Cancel", elem_id="language-cancel", visible=False, min_width=100)
                    self.resume = gr.Button("Go on", elem_id="language-resume", visible=False, min_width=100)
                self.status = gr.HTML(
                    views.notice(refining.CLOSED, "note") if closed else "", elem_id="language-status"
                )
            with gr.Column(elem_classes="get", min_width=320):
                self._results()

    def _results(self) -> None:
        self.places = gr.HTML(html.refining_places(), elem_id="language-refine-places")
        with gr.Column(visible=False, elem_id="language-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="language-answer")
            with gr.Column(elem_classes="card", visible=False) as self.reported:
                gr.HTML(views.title(*REPORTED))
                self.rows = gr.Plot(show_label=False, container=False, elem_id="language-rows")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title(*FIGURE))
                self.figure = gr.Plot(show_label=False, container=False, elem_id="language-figure")
                self.log = gr.HTML(elem_id="language-log")
            with gr.Column(elem_classes="card", visible=False) as self.files:
                gr.HTML(
                    views.title(
                        "Take it away",
                        "A folder for transformers and mergekit, or only what changed: "
                        "“d2nwg llm apply” puts that on the base.",
                    )
                )
                with gr.Row(elem_classes="downloads"):
                    self.pack = gr.DownloadButton("Pack the model", elem_id="language-download-model")
                    self.delta = gr.DownloadButton("Delta", elem_id="language-download-delta")
                    self.json = gr.DownloadButton("Report (JSON)", elem_id="language-download-report")


class Chat(Components):
    """The third step."""

    def __init__(self) -> None:
        with gr.Column(elem_classes="card", elem_id="language-chat"):
            gr.HTML(views.title("3 · Compare", "One message, both models answer; the words that differ are marked."))
            with gr.Row(elem_classes="panes"):
                self.panes = [
                    gr.HTML(html.pane(None, side, False, True), elem_id=f"language-pane-{name}", autoscroll=True)
                    for side, name in enumerate(("left", "right"))
                ]
            with gr.Row(elem_classes="votes", visible=False, elem_id="language-votes") as self.ballot:
                self.votes = [
                    gr.Button(words, elem_id=f"language-vote-{key}", min_width=90)
                    for key, words in (
                        ("left", "← Left is better"),
                        ("same", "The same"),
                        ("right", "Right is better →"),
                    )
                ]
            self.tally = gr.HTML(elem_id="language-tally")
            self.status = gr.HTML(elem_id="language-chat-status")
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
            self._settings()
            with gr.Row(elem_classes="downloads", visible=False) as self.files:
                self.as_json = gr.DownloadButton("Conversation (JSON)", elem_id="language-talk-json")
                self.as_text = gr.DownloadButton("Conversation (Markdown)", elem_id="language-talk-md")

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
                elem_classes="drop",
                file_types=[".safetensors"],
            )
            gr.HTML(views.hint("Drop a delta.safetensors saved earlier to talk with that refinement of the model."))
