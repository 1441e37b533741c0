"""The components of the Language tab's second step."""

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.access import on_a_space
from d2nwg.ui.events import Components
from d2nwg.ui.jobs import JobLog, JobsList
from d2nwg.ui.language import refine_html as html
from d2nwg.ui.language import refining
from d2nwg.ui.language.make_zoo import MakeZoo
from d2nwg.ui.language.models import DEFAULT
from d2nwg.ui.parts import Upload

FIGURE = (
    "Which layers got better?",
    "The score on the selection questions, layer by layer, as candidates are tried; faint: dropped on the way.",
)
LAYERS = {  # what the first number is, without and with a zoo
    False: dict(label="Matrices", info="the best first; 0: all"),
    True: dict(label="Groups of layers", info="0: each layer alone"),
}
EMPTY = "Each is a process of its own: it goes on when this page is closed."


class Refining(Components):
    """The second step.

    Attributes:
        questions: the choice of the ``select`` and of the ``report`` questions.
        question_file: the drop zones for one's own.
        make: a zoo to refine from.
        jobs: the list of refinements.
        seen: what the page showed at the last look, by its name.
    """

    def __init__(self) -> None:
        self.questions: dict[str, gr.Dropdown] = {}
        self.question_file: dict[str, Upload] = {}
        self.closed = on_a_space()
        self.zoos = refining.zoo_choices(DEFAULT)
        self.zoo = self.zoos[0][1] != refining.ALONE  # whether there is one for the model that is chosen at first
        with gr.Row(elem_classes="tab", elem_id="language-refine"):
            with gr.Column(elem_classes="choose", min_width=320):
                with gr.Column(elem_classes="card"):
                    gr.HTML(views.title("2 · Refine", "Layer by layer; a candidate stays only if it answers better."))
                    self._choices()
                with gr.Row(elem_classes="do"):
                    self.go = gr.Button("Refine", variant="primary", elem_id="language-go", interactive=not self.closed)
                    self.sample = gr.Button("Sample", elem_id="language-sample", min_width=100, visible=self.zoo)
                    self.stop = gr.Button("Cancel", elem_id="language-cancel", visible=False, min_width=100)
                self.status = gr.HTML(
                    views.notice(refining.CLOSED, "note") if self.closed else "", elem_id="language-status"
                )
                with gr.Column(elem_classes="card", visible=False, elem_id="language-refinements") as self.listed:
                    gr.HTML(views.title("Refinements and zoos", EMPTY))
                    self.jobs = JobsList("language-", EMPTY)
            with gr.Column(elem_classes="get", min_width=320):
                self._results()
        self.seen = gr.State({})

    def _choices(self) -> None:
        self.source = gr.Radio(
            self.zoos,
            value=self.zoos[0][1],
            label="From what?",
            elem_id="language-source",
            info="what candidates are sampled from",
            visible=self.zoo,
        )
        self.make = MakeZoo(visible=not self.closed)
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
                allow_custom_value=refining.has_harness() and not self.closed,
                info="candidates are chosen by them" if key == "select" else "never chosen by: they judge",
            )
            self.question_file[key] = Upload(
                label=f"{label} (JSONL)",
                height=84,
                visible=False,
                elem_id=f"language-{key}-file",
                file_types=[".jsonl", ".gz", ".json"],
            )
        self.preset = gr.Dropdown(
            refining.presets(self.zoo),
            value=refining.DEFAULTS["preset"],
            label="Preset",
            elem_id="language-preset",
        )
        first = refining.start_of(refining.DEFAULTS["preset"], self.zoo)
        with gr.Row(elem_classes="pair"):
            self.layers = gr.Number(
                first["layers"],
                precision=0,
                **LAYERS[self.zoo],
                min_width=100,
                elem_id="language-layers-count",
            )
            self.candidates = gr.Number(
                first["candidates"],
                precision=0,
                label="Candidates",
                info="for each of them",
                min_width=100,
                elem_id="language-candidates",
            )
        self.criterion = gr.Radio(
            list(refining.CRITERIA),
            value="confidence" if self.zoo else "accuracy",
            label="Better in",
            elem_id="language-criterion",
            info="right answers, as in the paper, or how sure they are",
        )
        with gr.Row(elem_classes="pair"):
            self.shots = gr.Number(
                0,
                precision=0,
                label="Examples",
                info="before each question",
                min_width=100,
                elem_id="language-shots",
            )
            self.seed = gr.Number(
                0, precision=0, label="Seed", info="of all that is drawn", min_width=100, elem_id="language-seed"
            )

    def _results(self) -> None:
        self.places = gr.HTML(html.refining_places(), elem_id="language-refine-places")
        with gr.Column(visible=False, elem_id="language-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="language-answer")
            with gr.Column(elem_classes="card", visible=False) as self.reported:
                self.about = gr.HTML(html.reported_title(False))
                self.rows = gr.Plot(show_label=False, container=False, elem_id="language-rows")
            with gr.Column(elem_classes="card", visible=False) as self.search:
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
        self.output = JobLog("language-")

    @property
    def results(self) -> list:
        """What changes with the refinement that is shown."""
        shown = [self.places, self.made, self.sentence, self.reported, self.about, self.rows, self.search, self.figure]
        return [*shown, self.log, self.files, self.pack, self.delta, self.json, self.output.card, self.output.text]
