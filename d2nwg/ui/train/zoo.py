"""The Train tab's first card: a zoo is built from images, imported from checkpoints, or chosen."""

from functools import partial

import gradio as gr

from d2nwg.jobs.owner import STRANGER
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, Components
from d2nwg.ui.frame import Frame
from d2nwg.ui.jobs import job_choices, may_submit, newest
from d2nwg.ui.parts import Upload
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.train import html, service
from d2nwg.ui.train.jobs import submitted
from d2nwg.ui.uploads import zoo_name
from d2nwg.ui.visitor import visitor

BUILD, NETWORKS, IMPORT = "build", "networks", "import"
SOURCES = [("Heads from images", BUILD), ("Networks from images", NETWORKS), ("Import checkpoints", IMPORT)]
HINTS = {
    BUILD: "One zip or npz file a data set, with one folder a class. Thousands of heads are trained on random classes.",
    NETWORKS: "One zip or npz file a data set, with one folder a class. Whole small networks are trained on random "
    "classes in random order, of 28 × 28 pixels.",
    IMPORT: "A zip of .safetensors, .pt, .pth or .th files, or save_pretrained folders; with a CSV of file, "
    "task, accuracy, epoch if you have one. Pickles that need code are refused.",
}
BUTTONS = {BUILD: "Build the zoo", NETWORKS: "Build the zoo", IMPORT: "Import them"}
# (label, id): the ids of `d2nwg.weights.small_networks.NETWORKS`, which imports torch
ARCHITECTURES = [("Small CNN", "cnn"), ("Wider CNN", "cnn-wide"), ("MLP", "mlp"), ("Small ResNet", "resnet")]


class ZooCard(Components):
    """Where the weights come from, and the zoo to train on."""

    def __init__(self) -> None:
        number = partial(gr.Number, precision=0, min_width=110)
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("1 · Zoo", "Trained weights to learn from."))
            self.source = gr.Radio(SOURCES, value=BUILD, show_label=False, container=False, elem_id="zoo-source")
            self.files = Upload(label="Your files", file_count="multiple", height=130, elem_id="zoo-files")
            self.hint = gr.HTML(views.hint(HINTS[BUILD]))
            self.status = gr.HTML(elem_id="zoo-status")
            self.found = gr.HTML(elem_id="zoo-found")
            self.figure = gr.Plot(show_label=False, container=False, visible=False, elem_id="zoo-figure")
            self.name = gr.Textbox(label="Name of the zoo", max_lines=1, elem_id="zoo-name")
            self.append = gr.Checkbox(
                False, label="Add to it, if there is a zoo of this name", visible=False, elem_id="zoo-append"
            )
            with gr.Accordion("Settings", open=False) as self.settings:
                with gr.Row(elem_classes="pair"):
                    subsets = number(2000, label="Heads", info="each on random classes", elem_id="zoo-subsets")
                    images = number(20, label="Images per class", info="a head is trained on", elem_id="zoo-images")
                with gr.Row(elem_classes="pair"):
                    low = number(2, label="Fewest classes", elem_id="zoo-low")
                    high = number(10, label="Most classes", elem_id="zoo-high")
                seed = number(0, label="Seed", elem_id="zoo-seed")
            self.numbers = [subsets, low, high, images, seed]
            with gr.Accordion("Settings of networks", open=False, visible=False) as self.network_settings:
                network = gr.Dropdown(ARCHITECTURES, value="cnn", label="Network", elem_id="zoo-network")
                with gr.Row(elem_classes="pair"):
                    many = number(100, label="Networks", info="each on random classes", elem_id="zoo-networks")
                    classes = number(0, label="Classes", info="of each; 0: all there are", elem_id="zoo-classes")
                with gr.Row(elem_classes="pair"):
                    updates = number(400, label="Steps", info="of training, 64 images each", elem_id="zoo-updates")
                    first = number(0, label="Seed", elem_id="zoo-network-seed")
            self.network_numbers = [network, many, classes, updates, first]
            with gr.Row(elem_classes="do"):
                self.go = gr.Button(BUTTONS[BUILD], elem_id="zoo-go")
                self.stop = gr.Button("Cancel", elem_id="zoo-stop", visible=False, min_width=100)
            self.chosen = gr.Dropdown(
                [],
                value=None,
                label="Zoo to train on",
                info="one of these, or one in a folder that the app was started with",
                allow_custom_value=True,
                elem_id="zoo-chosen",
            )
            self.about = gr.HTML(html.describe_zoo(None, STRANGER), elem_id="zoo-about")


def wire_zoo(frame: Frame, zoo: ZooCard, job: gr.Dropdown) -> None:
    """Looking at files, and making a zoo of them; `job` is the choice of a job, which then shows the new one."""
    run = Run(frame.session, "train-zoo", zoo.go, zoo.stop, zoo.status)
    _wire_files(run, zoo)

    def ask(visit: Session, source: str, files: list[str] | None, name: str, append: bool, *numbers):
        may_submit(visit.viewer)
        if source == BUILD:
            return partial(service.submit_zoo, files, name, *numbers[: len(zoo.numbers)], viewer=visit.viewer)
        if source == NETWORKS:
            return partial(service.submit_networks, files, name, *numbers[len(zoo.numbers) :], viewer=visit.viewer)
        return partial(service.import_zoo, files, name, visit.subfolder(), append, visit.viewer)

    def show(visit: Session, made, source: str) -> dict:
        if source == IMPORT:
            chosen = gr.update(choices=service.zoo_names(visit.viewer), value=made.name)
            return {zoo.status: html.imported(made), zoo.chosen: chosen}
        return {
            zoo.status: submitted(made),
            job: gr.update(choices=job_choices(newest(visit.viewer, service.KINDS)), value=made.id),
        }

    def describe(request: gr.Request, token, name: str | None) -> str:
        return html.describe_zoo(name, visitor(request, token))

    inputs = [zoo.source, zoo.files, zoo.name, zoo.append, *zoo.numbers, *zoo.network_numbers]
    made = run.on(zoo.go.click, ask, inputs, show, [job, zoo.chosen], looks=[zoo.source], slot={})
    made.then(describe, [frame.token, zoo.chosen], zoo.about, **PRIVATE)
    zoo.chosen.change(describe, [frame.token, zoo.chosen], zoo.about, **PRIVATE)


def _wire_files(run: Run, zoo: ZooCard) -> None:
    """Looking at uploaded files before anything is made of them."""

    def turn(source: str) -> dict:
        return {
            zoo.hint: views.hint(HINTS[source]),
            zoo.settings: gr.update(visible=source == BUILD),
            zoo.network_settings: gr.update(visible=source == NETWORKS),
            zoo.found: "",
            zoo.status: "",
            zoo.append: gr.update(visible=source == IMPORT),
            zoo.figure: gr.update(visible=False),
            zoo.files: None,
            zoo.go: BUTTONS[source],
        }

    def ask(visit: Session, source: str, files: list[str] | None):
        visit.uploaded(files)
        look = service.look_at_checkpoints if source == IMPORT else service.describe_sets
        return partial(look, files, visit.subfolder())

    def show(visit: Session, found, source: str, files: list[str] | None, name: str) -> dict:
        named = {zoo.name: name or zoo_name(files)}
        if source != IMPORT:
            return {zoo.found: found, **named}
        from d2nwg.figures.train import weights_figure

        figure = gr.update(value=weights_figure(found.architectures), visible=True)
        return {zoo.found: html.checkpoints(found), zoo.figure: figure, **named}

    zoo.source.change(
        turn,
        zoo.source,
        [
            zoo.hint,
            zoo.settings,
            zoo.network_settings,
            zoo.append,
            zoo.found,
            zoo.status,
            zoo.figure,
            zoo.files,
            zoo.go,
        ],
        **PRIVATE,
    )
    run.on(
        zoo.files.upload,
        ask,
        [zoo.source, zoo.files],
        show,
        [zoo.found, zoo.figure, zoo.name],
        looks=[zoo.source, zoo.files, zoo.name],
        slot={},
        takes_over=True,
    )
    zoo.files.clear(lambda: ("", "", gr.update(visible=False)), None, [zoo.found, zoo.status, zoo.figure], **PRIVATE)
