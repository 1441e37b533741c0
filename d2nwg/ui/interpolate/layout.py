"""The components of the Interpolate tab."""

from functools import partial

import gradio as gr

from d2nwg.bundles import NO_ADAPTERS
from d2nwg.interpolation.methods import CONDITION, LABELS, METHODS, WEIGHTS
from d2nwg.ui import html as views
from d2nwg.ui.events import Components
from d2nwg.ui.interpolate import html
from d2nwg.ui.interpolate.settings import (
    BY,
    DEFAULTS,
    LETTERS,
    MAPS,
    NO_IMAGES,
    NONE,
    OWN,
    PREFERRED,
    choices,
    default_bundle,
    naming_bundles,
)
from d2nwg.ui.parts import Upload, action
from d2nwg.ui.settings import adapter_bundles, bundle_choices, example_names

SCORES_UNDER = "With the head that was made for {}; dotted: the same head without an adapter."
OWN_LABEL = "Your own images, or a saved head"
THE_ONE = "The {} at this point"


class Choices(Components):
    """What a person chooses.

    Attributes:
        choose: by an endpoint's letter, what it is.
        drop: by letter, the drop zone for one's own.
        strip: by letter, what is shown of it.
        of_tasks, of_names, of_descriptions: what is only there for tasks, for names, and for descriptions.
        task, texts, labels: by letter a or b, its description, drop zone of texts, and class names.
    """

    def __init__(self) -> None:
        self.choose: dict[str, gr.Dropdown] = {}
        self.drop: dict[str, Upload] = {}
        self.strip: dict[str, gr.HTML] = {}
        self.of_tasks: list[gr.Column] = []
        with gr.Column(elem_classes="card"):
            self.by = gr.Radio(list(BY.items()), value="tasks", label="Between", elem_id="path-by")
        self._tasks()
        with gr.Column(elem_classes="card", visible=False) as self.of_names:
            self._names()
        self.of_descriptions: list[gr.Column] = []
        self.task: dict[str, gr.Textbox] = {}
        self.texts: dict[str, Upload] = {}
        self.labels: dict[str, gr.Textbox] = {}
        self._descriptions()
        self.go, self.stop, self.status = action("Interpolate", "interpolate", variant="primary")

    def _tasks(self) -> None:
        number = partial(gr.Number, precision=0, min_width=110)
        for letter, title in zip("ab", ("From A", "To B"), strict=True):
            with gr.Column(elem_classes="card") as card:
                gr.HTML(views.title(title))
                self._endpoint(letter, title)
            self.of_tasks.append(card)
        with gr.Column(elem_classes="card") as card:
            gr.HTML(
                views.hint(
                    "Both endpoints need the same classes, named alike. Your own: a zip of class folders, or a head "
                    "file from Generate for one of the two."
                )
            )
            self.bundle = gr.Dropdown(
                bundle_choices(),
                value=default_bundle(),
                label="Bundle of the path",
                elem_id="path-bundle",
                info=f"of its own: {PREFERRED} has conditions and latents to mix; one without a VAE, such as "
                "heads-dual, may be right more often, but only its weights can be mixed. With tasks-…, the endpoints "
                "are tasks that the bundle knows by name; networks-… makes whole networks between data sets",
            )
            with gr.Accordion("Add a third endpoint", open=False):
                self._endpoint("c", "A third endpoint, C")
            with gr.Accordion("Settings", open=False):
                with gr.Row(elem_classes="pair"):
                    self.points = number(DEFAULTS["points"], label="Points", info="of the path", elem_id="points")
                    self.seeds = number(
                        DEFAULTS["seeds"], label="Paths", info="each from its own noise", elem_id="paths"
                    )
                with gr.Row(elem_classes="pair"):
                    self.samples = number(
                        DEFAULTS["samples"], label="Heads a point", info="averaged", elem_id="path-samples"
                    )
                    self.shots = number(
                        DEFAULTS["shots"], label="Images a class", info="it may see", elem_id="path-shots"
                    )
                self.seed = number(DEFAULTS["seed"], label="Seed", info="same seed, same path", elem_id="path-seed")
        self.of_tasks.append(card)

    def _names(self) -> None:
        gr.HTML(views.title("From one name to another", "Any two class names, in English; no image is needed."))
        with gr.Row(elem_classes="pair"):
            self.first = gr.Textbox(DEFAULTS["first"], label="From A", max_lines=1, elem_id="path-first")
            self.last = gr.Textbox(DEFAULTS["last"], label="To B", max_lines=1, elem_id="path-last")
        self.liked = gr.Dropdown(
            [NO_IMAGES, *example_names(), OWN],
            value=DEFAULTS["liked"],
            label="Images",
            info="each point picks those that it likes best",
            elem_id="path-liked",
        )
        self.liked_files = Upload(
            label="Your own images",
            file_count="multiple",
            height=84,
            visible=False,
            elem_id="path-liked-files",
        )
        with gr.Accordion("Settings", open=False):
            self.name_points = gr.Number(
                DEFAULTS["name_points"], precision=0, label="Points", info="of the path", elem_id="name-points"
            )
            self.name_bundle = gr.Dropdown(
                naming_bundles(),
                value=next(iter(naming_bundles()), None),
                label="Bundle",
                info="those that know names",
                elem_id="path-name-bundle",
            )

    def _descriptions(self) -> None:
        for letter, title in zip("ab", ("From task A", "To task B"), strict=True):
            with gr.Column(elem_classes="card", visible=False) as card:
                gr.HTML(views.title(title))
                self.task[letter] = gr.Textbox(
                    DEFAULTS[f"task_{letter}"],
                    label="Description",
                    lines=2,
                    max_lines=6,
                    info="of a task of texts, in English",
                    elem_id=f"path-task-{letter}",
                )
                gr.HTML(views.hint("Texts with labels to score on (optional): a CSV or JSONL file."))
                self.texts[letter] = Upload(
                    label="Texts with labels",
                    file_count="multiple",
                    height=84,
                    elem_id=f"path-texts-{letter}",
                )
                self.labels[letter] = gr.Textbox(
                    label="Class names (optional)",
                    max_lines=2,
                    info="where the task is new, or the table has other labels",
                    elem_id=f"path-labels-{letter}",
                )
            self.of_descriptions.append(card)
        names = adapter_bundles()
        with gr.Column(elem_classes="card", visible=False) as card:
            self.no_adapters = gr.HTML(views.hint(NO_ADAPTERS), visible=not names, elem_id="path-no-adapters")
            self.adapters = gr.Dropdown(
                names,
                value=names[0] if names else None,
                label="Bundle of adapters",
                visible=bool(names),
                elem_id="path-adapters",
            )
            with gr.Accordion("Settings", open=False), gr.Row(elem_classes="pair"):
                self.task_numbers = [
                    gr.Number(DEFAULTS[key], precision=0, min_width=90, label=label, elem_id=f"described-{key}")
                    for key, label in (("task_points", "Points"), ("task_samples", "Samples"), ("seed", "Seed"))
                ]
        self.of_descriptions.append(card)

    def _endpoint(self, letter: str, title: str) -> None:
        names, _ = choices(default_bundle())
        self.choose[letter] = gr.Dropdown(
            [NONE, *names] if letter == "c" else names,
            value=DEFAULTS[letter],
            label=title,
            show_label=letter == "c",
            elem_id=f"endpoint-{letter}",
        )
        self.drop[letter] = Upload(
            label=OWN_LABEL,
            file_count="multiple",
            height=84,
            visible=False,
            elem_id=f"files-{letter}",
        )
        self.strip[letter] = gr.HTML(elem_id=f"strip-{letter}")


class Results(Components):
    """What a person gets.

    Attributes:
        curves: the figures of accuracy along the path, on the images of A and of B.
        curve_cards: the cards that they stand in.
        share: by an endpoint's letter, its share in a mix of three.
    """

    def __init__(self) -> None:
        self.places = gr.HTML(html.places(), elem_id="interpolate-places")
        with gr.Column(visible=False, elem_id="interpolate-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="interpolate-sentence")
            self._point()
            with gr.Row(elem_classes="two"):
                self._curves()
            with gr.Row(elem_classes="two"):
                _, self.barrier = _figure(
                    "barrier",
                    "How deep is the valley?",
                    "The worst drop under the straight line between the endpoints. Lower is better.",
                )
                self.distance_card, self.distance = _figure(
                    "distance",
                    "Is the path outside of what was seen?",
                    "Distance of each mixed condition to the nearest task of the zoo.",
                )
            with gr.Column(elem_classes="card") as self.map_card:
                gr.HTML(views.title("Where does the path run?", "A dot for each of the zoo; principal components."))
                self.map_of = gr.Radio(MAPS, value=MAPS[0][1], show_label=False, container=False, elem_id="map-of")
                self.map = gr.Plot(show_label=False, container=False, elem_id="path-map")
            self._mix()

    def _point(self) -> None:
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("Move along the path", "Every stop of the slider was measured."))
            self.method = gr.Radio(
                [(LABELS[key].capitalize(), key) for key in METHODS], label="Mixed", elem_id="interpolate-method"
            )
            self.alpha = gr.Slider(0, 1, DEFAULTS["alpha"], step=0.05, label="Share of B", elem_id="alpha", buttons=[])
            self.where = gr.HTML(elem_id="where")
            self.pictures = gr.HTML(elem_id="looked")
            with gr.Row(elem_classes="downloads"):
                self.head = gr.DownloadButton(THE_ONE.format("head"), variant="primary", elem_id="download-point")
                self.everything = gr.DownloadButton("Path and figures, with all of them", elem_id="download-path")

    def _curves(self) -> None:
        self.curve_cards: list[gr.Column] = []
        self.curves: list[gr.Plot] = []
        for letter in "AB":
            card, plot = _figure(
                f"curve-{letter.lower()}",
                f"What happens between? On the images of {letter}",
                "A line a method, a band of one standard deviation over paths. Shaded: the condition is outside of "
                "what was seen.",
            )
            self.curve_cards.append(card)
            self.curves.append(plot)

    def _mix(self) -> None:
        with gr.Column(elem_classes="card", visible=False, elem_id="mix-card") as self.mix_card:
            gr.HTML(views.title("Mix all three", "For any shares of the three endpoints, made as you ask."))
            with gr.Row():
                self.share = {
                    letter: gr.Slider(
                        0, 1, 1, step=0.05, label=f"Share of {letter.upper()}", buttons=[], elem_id=f"share-{letter}"
                    )
                    for letter in LETTERS
                }
            self.mixed = gr.HTML(elem_id="mixed")
            self.mixed_pictures = gr.HTML(elem_id="mixed-looked")
            self.mixed_head = gr.DownloadButton("This mix", elem_id="download-mix")


def _figure(elem_id: str, question: str, under: str) -> tuple[gr.Column, gr.Plot]:
    """A card with a figure under its question."""
    with gr.Column(elem_classes="card") as card:
        gr.HTML(views.title(question, under))
        plot = gr.Plot(show_label=False, container=False, elem_id=elem_id)
    return card, plot


class NameResults(Components):
    """What a person gets of a path between two names."""

    def __init__(self) -> None:
        self.places = gr.HTML(html.name_places(), elem_id="names-places", visible=False)
        with gr.Column(visible=False, elem_id="names-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="names-sentence")
            self.nearest_card, self.nearest = _figure(
                "names-nearest",
                "What lies between the two names?",
                "Cosine of each point's direction with rows that the bundle knows by name.",
            )
            with gr.Column(elem_classes="card"):
                self.strip_title = gr.HTML()
                self.strip = gr.HTML(elem_id="names-strip")
            self.classes_card, self.classes = _figure(
                "names-classes",
                "Which classes does each point like?",
                "The mean score of the images of each class; those that come nearest to the top are in colour.",
            )
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Take it away", "A head with a row a point; and all numbers, figures and rows."))
                with gr.Row(elem_classes="downloads"):
                    self.head = gr.DownloadButton("Rows of the points", elem_id="names-head")
                    self.everything = gr.DownloadButton("Path and figures", elem_id="names-everything")


class DescriptionResults(Components):
    """What a person gets of a path between two descriptions.

    Attributes:
        plot, cards: the figures, and the cards that they stand in, as `d2nwg.figures.description_path` names them.
    """

    def __init__(self) -> None:
        self.plot: dict[str, gr.Plot] = {}
        self.cards: dict[str, gr.Column] = {}
        self.places = gr.HTML(html.description_places(), elem_id="descriptions-places", visible=False)
        with gr.Column(visible=False, elem_id="descriptions-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="descriptions-sentence")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Move along the path", "Every stop of the slider is an adapter."))
                methods = [(LABELS[key].capitalize(), key) for key in (CONDITION, WEIGHTS)]
                self.method = gr.Radio(methods, value=CONDITION, label="Mixed", elem_id="descriptions-method")
                self.alpha = gr.Slider(
                    0, 1, DEFAULTS["alpha"], step=0.1, label="Share of B", elem_id="descriptions-alpha", buttons=[]
                )
                self.where = gr.HTML(elem_id="descriptions-where")
                with gr.Row(elem_classes="downloads"):
                    self.adapter = gr.DownloadButton(
                        "The adapter at this point", variant="primary", elem_id="download-adapter"
                    )
                    self.everything = gr.DownloadButton("Path, figures and all adapters", elem_id="download-described")
            with gr.Row(elem_classes="two"):
                for letter in "AB":
                    question = f"What happens between? On the texts of {letter}"
                    self._figure(f"scores-{letter.lower()}", question, SCORES_UNDER.format(letter))
            with gr.Row(elem_classes="two"):
                under = "Length of the difference of what they add to the weights; dashed: mixed by weights."
                self._figure("distance", "How far is each point from A, B and the zoo?", under)
                under = "Mean angle between the vectors of sentences with and without it; near 0 it does nothing."
                self._figure("degrees", "How far does each adapter turn sentences?", under)

    def _figure(self, name: str, question: str, under: str) -> None:
        self.cards[name], self.plot[name] = _figure(f"descriptions-{name}", question, under)
