"""The components of the Explore tab."""

from functools import partial

import gradio as gr

from d2nwg.bundles import NO_ADAPTERS
from d2nwg.ui import html as views
from d2nwg.ui.events import Components
from d2nwg.ui.explore import by_task, html
from d2nwg.ui.explore.service import CHOICES, DEFAULTS
from d2nwg.ui.generate.settings import SAMPLER_CHOICES, STEPS_OF
from d2nwg.ui.parts import Upload, action
from d2nwg.ui.settings import adapter_bundles, example_names

FROM_GENERATE = ("The images chosen in Generate", "generate")
OWN = ("Your own images", "own")
BY = {"Heads and networks": "heads", "Class names": "names", "Tasks of texts": "tasks"}  # what is explored
QUESTIONS = {  # as in d2nwg.figures.explore, which is not imported before it is needed
    "map": (
        "Do samples fall where trained weights lie?",
        "A point for each head or network; similar ones are near each other. Click one to see which it is and what it "
        "gets right; draw around many.",
    ),
    "densities": (
        "Are weight values distributed alike?",
        "Layer by layer; of heads on the bundle's principal components.",
    ),
    "novelty": (
        "Do samples copy the zoo?",
        "Copies lie at the left. Baselines: heads made from the zoo without a generator, some at the same distance.",
    ),
    "accuracies": ("How good are zoo, samples and random weights?", "A dot for each one, a line for the median."),
    "similarity": ("Which ones are similar?", "Cosine of the angle between two, in the order of a clustering."),
}
KINDS = {"zoo": "zoo", "samples": "sample", "trained": "trained", "generated": "made"}  # as the library calls them


class Choices(Components):
    """What a person chooses.

    Attributes:
        of_heads, of_names, of_tasks: what is only there for heads, for class names, and for tasks of texts.
    """

    def __init__(self) -> None:
        with gr.Column(elem_classes="card"):
            self.by = gr.Radio(list(BY.items()), value="heads", label="Explore", elem_id="explore-by")
        self.of_heads: list[gr.Column] = []
        with gr.Column(elem_classes="card") as compared:
            self._compared()
        with gr.Column(elem_classes="card", visible=False) as self.of_names:
            gr.HTML(views.title("Your class names", "Each is placed among the rows that the bundle knows by name."))
            self.named = gr.Textbox(
                label="Class names",
                lines=3,
                max_lines=8,
                value="wolf, red fox, tabby cat, T-shirt",
                placeholder="wolf, red fox, pansy: a small garden flower",
                info="in English, separated by commas or one a line; a description may follow a colon",
                elem_id="explore-named",
            )
        with gr.Column(elem_classes="card", visible=False) as self.of_tasks:
            self._tasks()
        self.go, self.stop, self.status = action("Explore", "explore", variant="primary")
        with gr.Column(elem_classes="card") as seen:
            self._seen()
        self.of_heads = [compared, seen]

    def _tasks(self) -> None:
        names = adapter_bundles()
        gr.HTML(views.title("Your task of texts", "Adapters are generated for it, and set beside those of the zoo."))
        self.described = gr.Textbox(
            "Is this film review positive?",
            label="Description (optional)",
            lines=2,
            max_lines=6,
            info="in English; without one the map shows the zoo alone",
            elem_id="explore-described",
        )
        self.task_bundle = gr.Dropdown(
            names,
            value=names[0] if names else None,
            label="Bundle of adapters",
            visible=bool(names),
            elem_id="explore-task-bundle",
        )
        self.no_adapters = gr.HTML(views.hint(NO_ADAPTERS), visible=not names, elem_id="explore-no-adapters")
        with gr.Accordion("Settings", open=False), gr.Row(elem_classes="pair"):
            self.task_samples = gr.Number(
                by_task.SAMPLES, precision=0, min_width=110, label="Samples", info="adapters", elem_id="task-samples"
            )
            self.task_seed = gr.Number(
                0, precision=0, min_width=110, label="Seed", info="of noise and map", elem_id="task-seed"
            )

    def _compared(self) -> None:
        number = partial(gr.Number, precision=0, min_width=110)
        gr.HTML(views.title("What is compared", "Heads or networks generated for these images, with the bundle's zoo."))
        self.data = gr.Dropdown(
            [*example_names(), FROM_GENERATE, OWN], value=DEFAULTS["data"], label="Images", elem_id="explore-data"
        )
        self.files = Upload(
            label="Your own images",
            file_count="multiple",
            height=84,
            elem_id="explore-files",
            visible=False,
        )
        with gr.Row(elem_classes="pair"):
            self.tasks = number(
                DEFAULTS["tasks"], label="Tasks", info="1: all classes at once", elem_id="explore-tasks"
            )
            self.classes = number(
                DEFAULTS["classes"], label="Classes a task", info="drawn at random", elem_id="explore-classes"
            )
        self.explored = number(
            DEFAULTS["explored"], label="Samples", info="to generate in all", elem_id="explore-samples"
        )
        with gr.Accordion("Settings", open=False):
            with gr.Row(elem_classes="pair"):
                self.shots = number(
                    DEFAULTS["shots"], label="Images a class", info="the generator may see", elem_id="explore-shots"
                )
                self.trained = number(
                    DEFAULTS["trained"], label="Trained", info="on the same images", elem_id="explore-trained"
                )
            with gr.Row(elem_classes="pair"):
                self.seed = number(DEFAULTS["seed"], label="Seed", info="same seed, same heads", elem_id="explore-seed")
                self.steps = number(
                    STEPS_OF[DEFAULTS["sampler"]],
                    label="Steps",
                    info="denoising steps",
                    elem_id="explore-steps",
                )
            self.sampler = gr.Radio(
                list(SAMPLER_CHOICES.items()), value=DEFAULTS["sampler"], label="Sampler", elem_id="explore-sampler"
            )
            self.most = number(DEFAULTS["most"], label="Most images to measure on", elem_id="explore-most")

    def _seen(self) -> None:
        number = partial(gr.Number, precision=0, min_width=110)
        gr.HTML(views.title("How it is seen", "Changes at once; nothing is generated again."))
        self.where = gr.Radio(
            list(CHOICES["where"].items()),
            value=DEFAULTS["where"],
            label="Space",
            elem_id="explore-where",
            info="the numbers themselves, or their codes in the VAE",
        )
        self.no_latent = gr.HTML(
            views.hint("This bundle's generator has no VAE, so there is no latent space to look at."),
            visible=False,
            elem_id="explore-no-latent",
        )
        self.part = gr.Dropdown(
            [("whole heads", "all")],
            value="all",
            label="Part",
            elem_id="explore-part",
            info="one layer, or one class's row",
        )
        with gr.Row(elem_classes="pair"):
            self.perplexity = number(
                DEFAULTS["perplexity"], label="Perplexity", info="of t-SNE", elem_id="explore-perplexity"
            )
            self.map_seed = number(
                DEFAULTS["map_seed"], label="Seed of the map", info="of t-SNE", elem_id="explore-map-seed"
            )
        self.all_counts = gr.Checkbox(
            False,
            label="Zoo heads of other class counts too",
            elem_id="explore-all-counts",
            info="padded with zeros: the map then shows mostly how many classes each has",
        )


def plot_with_saves(name: str, question: str) -> tuple[gr.Plot, gr.DownloadButton]:
    """A figure, with a button for a picture of it and one for a page."""
    plot = gr.Plot(show_label=False, container=False, elem_id=f"explore-{name}")
    with gr.Row(elem_classes="saves"):
        gr.HTML(html.tools(f"explore-{name}", question))
        page_id = f"explore-{name.removesuffix('-map')}-html"
        page = gr.DownloadButton("HTML", size="sm", elem_id=page_id, min_width=60)
    return plot, page


class Results(Components):
    """What a person gets.

    Attributes:
        plot: the figures, by name.
        page: the buttons for each figure's page.
    """

    def __init__(self) -> None:
        self.plot: dict[str, gr.Plot] = {}
        self.page: dict[str, gr.DownloadButton] = {}
        self.places = gr.HTML(html.places(), elem_id="explore-places")
        with gr.Column(visible=False, elem_id="explore-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="explore-sentence")
            with gr.Column(elem_classes="card"):
                with gr.Row(elem_classes="pair", elem_id="explore-map-controls"):
                    self.colour = gr.Radio(
                        list(CHOICES["colour"].items()),
                        value=DEFAULTS["colour"],
                        label="Colour",
                        elem_id="explore-colour",
                    )
                    self.method = gr.Radio(
                        list(CHOICES["method"].items()), value=DEFAULTS["method"], label="Map", elem_id="explore-method"
                    )
                    self.dimensions = gr.Radio(
                        list(CHOICES["dimensions"].items()),
                        value=DEFAULTS["dimensions"],
                        label="Dimensions",
                        elem_id="explore-dimensions",
                    )
                with gr.Row():
                    self.search = gr.Textbox(
                        label="Search",
                        placeholder="a task's, class's or head's name",
                        max_lines=1,
                        info="press Enter; others fade",
                        elem_id="explore-find",
                        min_width=220,
                    )
                    self.kinds = gr.CheckboxGroup(
                        list(KINDS.items()),
                        value=list(KINDS.values()),
                        label="Kinds",
                        elem_id="explore-kinds",
                        min_width=220,
                    )
                    self.brush = gr.Radio(
                        list(CHOICES["brush"].items()),
                        value=DEFAULTS["brush"],
                        label="Draw around with",
                        elem_id="explore-brush",
                        min_width=180,
                    )
                self.nothing = gr.HTML(elem_id="explore-nothing")
                self._figure("map", inside=False)
                self.events = gr.HTML(js_on_load=html.PICK, elem_id="explore-events", visible="hidden")
            with gr.Column(elem_classes="card", elem_id="explore-picked"):
                gr.HTML(views.title("Which one is it?"))
                self.chosen = gr.Dropdown([], label="Head or network", elem_id="explore-head", filterable=True)
                self.about = gr.HTML(html.nothing_picked(), elem_id="explore-about")
                self.right = gr.HTML(elem_id="explore-right")
                with gr.Row(elem_classes="downloads", visible=False) as self.offers:
                    self.send = gr.Button("Try a picture in Generate", elem_id="explore-send", visible=False)
                    self.endpoint = gr.Button("Use as an endpoint", elem_id="explore-endpoint", visible=False)
                    self.head = gr.DownloadButton("Download it", elem_id="explore-download-head")
                with gr.Accordion("Evaluate on my images", open=False, visible=False) as self.judge:
                    self.judged = Upload(
                        label="Labelled images with the same class names",
                        file_count="multiple",
                        height=84,
                        elem_id="explore-judge",
                    )
                    self.score = gr.HTML(
                        views.hint("A zip of class folders named as the head's classes."), elem_id="explore-score"
                    )
            with gr.Column(elem_classes="card", visible=False, elem_id="explore-brushed") as self.many:
                self.count = gr.HTML(elem_id="explore-count")
                self.table = gr.Dataframe(
                    headers=["head", "task", "right, %", "distance, lengths"],
                    datatype=["str", "str", "number", "number"],
                    type="array",
                    interactive=False,
                    show_label=False,
                    max_height=240,
                    buttons=[],
                    elem_id="explore-table",
                )
                with gr.Row(elem_classes="downloads"):
                    self.listing = gr.DownloadButton("List (CSV)", elem_id="explore-download-list")
                    self.several = gr.DownloadButton("Their files (zip)", elem_id="explore-download-selected")
            self._figure("novelty")
            with gr.Row(elem_classes="two"):
                self._figure("densities")
                self._figure("accuracies")
            self._figure("similarity")
            with gr.Column(elem_classes="card"):
                gr.HTML(
                    views.title(
                        "Take it away",
                        "Figures as pages that need no network, numbers as CSV and JSON, and "
                        "files for the TensorBoard Embedding Projector.",
                    )
                )
                with gr.Row(elem_classes="downloads"):
                    self.figures = gr.DownloadButton("All figures", elem_id="explore-download-figures")
                    self.tables = gr.DownloadButton("Data (zip of CSV)", elem_id="explore-download-data")
                    self.projector = gr.DownloadButton("Projector files", elem_id="explore-download-projector")

    def _figure(self, name: str, inside: bool = True) -> None:
        """A figure under its question, with a button for a picture of it and one for a page."""
        with gr.Column(elem_classes="card" if inside else ""):
            gr.HTML(views.title(*QUESTIONS[name]))
            self.plot[name], self.page[name] = plot_with_saves(name, QUESTIONS[name][0])
