"""The components of the Describe tab."""

from functools import partial

import gradio as gr

from d2nwg.data.rows import LONGEST as LONGEST_TEXT
from d2nwg.pipelines import LONGEST_DESCRIPTION
from d2nwg.ui import html as views
from d2nwg.ui.describe import html
from d2nwg.ui.describe.settings import DEFAULTS, known_tasks
from d2nwg.ui.events import Components
from d2nwg.ui.parts import Upload, action, python_code
from d2nwg.ui.settings import adapter_bundles


class Choices(Components):
    """What a person chooses."""

    def __init__(self) -> None:
        number = partial(gr.Number, min_width=120)
        names = adapter_bundles()
        tasks = known_tasks(None)
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("A task of texts"))
            self.missing = gr.HTML(html.no_bundle(), visible=not names)
            self.known = gr.Dropdown(
                list(tasks),
                value=next(iter(tasks), None),
                label="A task that it knows",
                visible=bool(tasks),
                elem_id="known",
            )
            self.description = gr.Textbox(
                next(iter(tasks.values()), ""),
                label="Describe the task",
                lines=3,
                max_lines=8,
                max_length=LONGEST_DESCRIPTION,
                placeholder="Is this sentence grammatical?",
                elem_id="description",
            )
            self.labels = gr.Textbox(
                label="Labels",
                placeholder="no, yes",
                info="names of the classes, in English: they help to recognise a task; new ones need them",
                elem_id="labels",
            )
            with gr.Accordion("Settings", open=False):
                with gr.Row(elem_classes="pair"):
                    self.seed = number(
                        DEFAULTS["seed"], precision=0, label="Seed", info="same seed, same adapter", elem_id="d-seed"
                    )
                    self.samples = number(
                        DEFAULTS["samples"],
                        precision=0,
                        label="Samples",
                        info="the middle one is taken",
                        elem_id="d-samples",
                    )
                with gr.Row(elem_classes="pair"):
                    self.steps = number(
                        DEFAULTS["steps"], precision=0, label="Steps", info="denoising steps", elem_id="d-steps"
                    )
                    self.guidance = number(
                        DEFAULTS["guidance"],
                        label="Guidance",
                        info="1: as learnt; more: the description exaggerated",
                        elem_id="d-guidance",
                    )
                self.bundle = gr.Dropdown(
                    names,
                    value=next(iter(names), None),
                    label="Bundle of adapters",
                    visible=len(names) > 1,
                    elem_id="d-bundle",
                )
        self.go, self.stop, self.status = action("Generate", "d", variant="primary")


class Results(Components):
    """What a person gets."""

    def __init__(self) -> None:
        self.places = gr.HTML(html.places(), elem_id="d-places")
        with gr.Column(visible=False, elem_id="d-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="d-sentence")
            with gr.Row(elem_classes="two"):
                with gr.Column(elem_classes="card"):
                    gr.HTML(
                        views.title(
                            "Which known tasks are near?", "Cosine of the descriptions; 1 is the same sentence."
                        )
                    )
                    self.near = gr.HTML(elem_id="d-near")
                with gr.Column(elem_classes="card"):
                    gr.HTML(
                        views.title(
                            "Does it do anything?",
                            "By how many degrees the adapter turns the vectors of sentences; 0 is no adapter at all.",
                        )
                    )
                    self.effect = gr.HTML(elem_id="d-effect")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Try it on a text", "Beside the encoder without the adapter."))
                text = partial(gr.Textbox, lines=2, max_lines=8, max_length=LONGEST_TEXT)
                self.text = text(label="A text", elem_id="d-text")
                self.second = text(label="The other text", visible=False, elem_id="d-second")
                self.try_text = gr.Button("Try this text", size="sm", elem_id="d-try")
                self.said = gr.HTML(elem_id="d-said")
            with gr.Column(elem_classes="card"):
                gr.HTML(
                    views.title(
                        "How often is it right?",
                        "On a table of your texts and labels, beside what you would have without it.",
                    )
                )
                self.table = Upload(label="A CSV or JSONL of texts and labels", height=84, elem_id="d-table")
                with gr.Row(elem_classes="do"):
                    self.score = gr.Button("Score it", elem_id="d-score")
                    self.stop_score = gr.Button("Cancel", elem_id="d-stop-score", visible=False, min_width=100)
                self.score_status = gr.HTML(elem_id="d-score-status")
                self.scores = gr.HTML(elem_id="d-scores")
                self.confusion = gr.Plot(show_label=False, container=False, visible=False, elem_id="d-confusion")
                self.predictions = gr.DownloadButton(
                    "What it says of each text", size="sm", visible=False, elem_id="d-predictions"
                )
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Take it away", "A folder that peft loads, with the head and a card."))
                with gr.Row(elem_classes="downloads"):
                    self.adapter = gr.DownloadButton("Adapter", variant="primary", elem_id="d-adapter")
                    self.report = gr.DownloadButton("Report", elem_id="d-report")
                self.snippet = python_code("d-snippet")
