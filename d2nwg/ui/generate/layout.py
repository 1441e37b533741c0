"""The components of the Generate tab."""

from functools import partial

import gradio as gr
from gradio.blocks import Block

from d2nwg.data.rows import LONGEST
from d2nwg.ui import html as views
from d2nwg.ui.events import Components
from d2nwg.ui.generate import cells, curve, elsewhere, finetune, history, html, kept, loose, many
from d2nwg.ui.generate.settings import DEFAULTS, NAMES, SAMPLER_CHOICES, SORTED, STEPS_OF
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.parts import Folder, Picture, Upload, python_code
from d2nwg.ui.settings import example_names

OWN, ALONE = ("Your own images or texts", "own"), ("No images, class names alone", NAMES)
LOOSE = ("Your own photographs, sorted here", SORTED)


def _title(card: str) -> gr.HTML:
    return gr.HTML(views.title(*html.TITLES["head"][card]))


class Choices(Components):
    """What a person chooses."""

    def __init__(self) -> None:
        number = partial(gr.Number, precision=0, min_width=120)
        with gr.Column(elem_classes="card images-card"):
            gr.HTML(views.title("Images or texts"))
            self.example = gr.Dropdown(
                [*example_names(), OWN, LOOSE, ALONE], value=DEFAULTS["example"], label="Example", elem_id="example"
            )
            with gr.Column() as self.own_part:
                self._own()
            self.loose = loose.controls()
            self.shown = gr.HTML(elem_id="images")
            self.names = gr.Textbox(
                label="Type class names",
                lines=2,
                max_lines=8,
                placeholder="tabby cat, red fox, pansy: a small garden flower",
                elem_id="names",
            )
            self.names_hint = gr.HTML(
                views.hint(
                    "In English, separated by commas or one a line; a description may follow a colon. Beside images "
                    "they are new names of the classes: all in order, or some as old=new. With “No images” as the "
                    "example, the head is made from them alone."
                )
            )
        with gr.Column(elem_classes="card"):
            with gr.Row(elem_classes="pair"):
                self.shots = number(
                    DEFAULTS["shots"],
                    label="Images per class",
                    info="or texts; the generator may see them",
                    elem_id="shots",
                )
                self.samples = number(DEFAULTS["samples"], label="Samples", info="heads to generate", elem_id="samples")
            self.task = gr.Dropdown(
                [],
                value=None,
                label="Task",
                elem_id="task",
                allow_custom_value=True,
                visible=False,
                info="its name, or a mix: 0.5 digits + 0.5 digits-negative; empty: the name of the images",
            )
            with gr.Accordion("Settings", open=False):
                with gr.Row(elem_classes="pair"):
                    self.seed = number(DEFAULTS["seed"], label="Seed", info="same seed, same heads", elem_id="seed")
                    self.steps = number(
                        STEPS_OF[DEFAULTS["sampler"]], label="Steps", info="denoising steps", elem_id="steps"
                    )
                self.sampler = gr.Radio(
                    list(SAMPLER_CHOICES.items()), value=DEFAULTS["sampler"], label="Sampler", elem_id="sampler"
                )
                self.most = number(
                    DEFAULTS["max_query"],
                    label="Most images to measure on",
                    elem_id="most",
                    info="or texts; the others are left out, in equal parts from each class",
                )
            with gr.Accordion(
                "Unlabelled images or texts (optional)", open=False, elem_id="free-part"
            ) as self.free_part:
                self.free = Upload(
                    label="Images or texts without labels", file_count="multiple", height=84, elem_id="free"
                )
                gr.HTML(
                    views.hint(
                        "More of the same classes, unsorted: a zip or loose pictures, or a table or a list of texts. "
                        "The generator learns from them how your data lie; they help most where few are labelled."
                    )
                )
        with gr.Column(elem_classes="action"):
            with gr.Row(elem_classes="do"):
                self.go = gr.Button("Generate", variant="primary", elem_id="go", interactive=False)
                self.stop = gr.Button("Cancel", elem_id="stop", visible=False, min_width=100)
            self.status = gr.HTML(elem_id="status")

    def _own(self) -> None:
        """What is given as it is."""
        with gr.Row(elem_classes="pair zones"):
            self.files = Upload(label="Your own images or texts", file_count="multiple", height=84, elem_id="files")
            self.folder = Folder(
                label="A folder",
                file_count="directory",
                height=84,
                elem_id="folder",
                elem_classes="folder",
            )
        self.files_said = gr.HTML(elem_id="files-said")
        self.sort = gr.Button("Sort photographs by hand", size="sm", elem_id="sort")
        gr.HTML(
            views.hint(
                "Images: a folder, zip or tar with one folder a class, pictures named by class (cat_1.jpg, "
                "dog_1.jpg …), or an array file (npz, IDX). Texts: a CSV or JSONL with a column of texts and one of "
                "labels, or a zip of text files by class."
            )
        )

    @property
    def of_bundle(self) -> list[Block]:
        """What is there for some bundles or data alone."""
        names = [self.names, self.names_hint]
        places = [self.own_part, self.loose["part"]]
        return [self.shots, self.steps, self.sampler, self.most, self.free_part, self.samples, *names, *places]

    def show_data(self, state: GenerateState, read: tuple, networks: bool) -> dict:
        """Keep what was read (`service.read_choice`) for the visitor; the update that shows it. ``networks`` is as in
        `fitting`."""
        state.example, state.images, shown = read
        return {
            self.shown: shown,
            self.example: state.example,
            **({} if state.example == "own" else {self.files: None}),
            self.folder: None,
            **self.fitting(state.example, networks),
        }

    def fitting(self, example: str, networks: bool) -> dict:
        """The update that leaves what there is a use for.

        Args:
            networks: whether the bundle makes whole networks, from images alone.
        """
        with_images, heads = gr.update(visible=example != NAMES), gr.update(visible=not networks)
        what = "networks to draw beside it" if networks else "heads to generate"
        return {
            **dict.fromkeys([self.shots, self.steps, self.most], with_images),
            self.free_part: gr.update(visible=example != NAMES and not networks),
            self.sampler: gr.update(visible=False, value=DEFAULTS["sampler"]) if networks else with_images,
            **dict.fromkeys([self.names, self.names_hint], heads),
            self.samples: gr.update(info=what),
            self.own_part: gr.update(visible=example != SORTED),
            **loose.fitting(self.loose, example),
        }

    def examples(self, example: str, networks: bool) -> dict:
        """The update of the examples: without images there is nothing for a bundle of networks."""
        alone = [] if networks and example != NAMES else [ALONE]
        return {self.example: gr.update(choices=[*example_names(), OWN, LOOSE, *alone])}


class Results(Components):
    """What a person gets."""

    def __init__(self) -> None:
        self.places = gr.HTML(html.places(), elem_id="places")
        with gr.Column(visible=False, elem_id="result") as self.made:
            self.sentence = gr.HTML(elem_id="sentence")
            self.take = gr.Button(visible=False, elem_id="take")
            with gr.Column(elem_classes="card") as self.strip_card:
                self.titles = {"strip": _title("strip")}
                self.strip = gr.Plot(show_label=False, container=False, elem_id="strip")
            with gr.Row(elem_classes="two"):
                with gr.Column(elem_classes="card") as self.confusion_card:
                    self.titles["confusion"] = _title("confusion")
                    self.confusion = gr.Plot(show_label=False, container=False, elem_id="confusion")
                    self.cells = cells.controls()
                with gr.Column(elem_classes="card"):
                    self._try_it()
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title(*many.TITLE))
                self.many = many.controls()
            with gr.Column(elem_classes="card") as self.table_card:
                self.titles["table"] = _title("table")
                self.table = gr.Dataframe(
                    datatype=["str", "number", "number"],
                    type="array",
                    interactive=False,
                    show_label=False,
                    max_height=270,
                    buttons=[],
                    elem_id="table",
                )
                self.picked = gr.HTML(elem_id="picked")
            with gr.Column(elem_classes="card"):
                self._downloads()
            with gr.Column(elem_classes="card") as self.finetune_card:
                self.titles["finetune"] = _title("finetune")
                self.finetune = finetune.controls()
            with gr.Column(elem_classes="card") as self.curve_card:
                gr.HTML(views.title(*curve.TITLE))
                self.curve = curve.controls()
            self.history = history.controls()

    def _try_it(self) -> None:
        gr.HTML(views.title("Try it"))
        self.picture = Picture(
            show_label=False,
            sources=["upload", "webcam", "clipboard"],
            height=240,
            buttons=[],
            alt_text="the picture to try",
            elem_id="picture",
            placeholder="Drop a picture here, or click to choose one",
        )
        self.text = gr.Textbox(label="A text", lines=3, max_lines=8, max_length=LONGEST, visible=False, elem_id="text")
        self.second = gr.Textbox(
            label="The other text", lines=3, max_lines=8, max_length=LONGEST, visible=False, elem_id="second"
        )
        self.try_text = gr.Button("Try this text", size="sm", visible=False, elem_id="try-text")
        self.another = gr.Button("Show a held-out one", size="sm", elem_id="another")
        self.seen = gr.HTML(elem_id="seen")

    def _downloads(self) -> None:
        gr.HTML(views.title("Take it away"))
        with gr.Row(elem_classes="downloads"):
            self.head = gr.DownloadButton("Chosen head", variant="primary", elem_id="download-head")
            self.onnx = gr.DownloadButton("ONNX", elem_id="download-onnx", visible=False)
            self.everything = gr.DownloadButton("All samples", elem_id="download-samples")
            self.report = gr.DownloadButton("Report", elem_id="download-report")
        self.elsewhere = elsewhere.controls()
        self.keep = kept.controls()
        self.snippet = python_code("snippet")
