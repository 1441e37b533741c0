"""The components of the Explore tab's results for class names and for tasks of texts."""

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.events import Components
from d2nwg.ui.explore import html
from d2nwg.ui.explore.layout import plot_with_saves
from d2nwg.ui.explore.service import CHOICES, DEFAULTS


class NameResults(Components):
    """What a person gets of class names."""

    def __init__(self) -> None:
        self.places = gr.HTML(html.name_places(), elem_id="explore-names-places", visible=False)
        with gr.Column(visible=False, elem_id="explore-names-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="explore-names-sentence")
            with gr.Column(elem_classes="card"):
                gr.HTML(
                    views.title(
                        "Where do your names lie among the known ones?",
                        "A point for each row that the bundle knows by name; similar rows are near each other.",
                    )
                )
                with gr.Row(elem_classes="pair"):
                    self.search = gr.Textbox(
                        label="Search the known names",
                        placeholder="husky",
                        max_lines=1,
                        info="press Enter: by spelling and by meaning",
                        elem_id="explore-search",
                    )
                    self.method = gr.Radio(
                        list(CHOICES["method"].items()),
                        value=DEFAULTS["method"],
                        label="Map",
                        elem_id="explore-names-method",
                    )
                self.found = gr.HTML(elem_id="explore-found")
                self.plot, self.page = plot_with_saves("names-map", "Where do the names lie?")
            with gr.Column(elem_classes="card") as self.beside_card:
                gr.HTML(
                    views.title(
                        "What lies nearest?", "The known rows beside each of your names, with the cosine of the angle."
                    )
                )
                self.beside = gr.HTML(elem_id="explore-beside")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Take it away", "All points and numbers as CSV and JSON, with projector files."))
                with gr.Row(elem_classes="downloads"):
                    self.data = gr.DownloadButton("Names and numbers", elem_id="explore-names-data")


class TaskResults(Components):
    """What a person gets of tasks of texts."""

    def __init__(self) -> None:
        self.places = gr.HTML(html.task_places(), elem_id="explore-tasks-places", visible=False)
        with gr.Column(visible=False, elem_id="explore-tasks-result", elem_classes="results") as self.made:
            self.sentence = gr.HTML(elem_id="explore-tasks-sentence")
            with gr.Column(elem_classes="card"):
                gr.HTML(
                    views.title(
                        "Where do adapters lie, task by task?",
                        "A point for each adapter that the bundle keeps; similar ones are near each other.",
                    )
                )
                self.method = gr.Radio(
                    list(CHOICES["method"].items()),
                    value=DEFAULTS["method"],
                    label="Map",
                    elem_id="explore-tasks-method",
                )
                self.plot, self.page = plot_with_saves("tasks-map", "Where do adapters lie, task by task?")
            with gr.Column(elem_classes="card"):
                gr.HTML(
                    views.title("Which tasks does the bundle know?", "Those whose description is nearest come first.")
                )
                self.known = gr.HTML(elem_id="explore-known-tasks")
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("Take it away", "All points and numbers as CSV and JSON, with projector files."))
                with gr.Row(elem_classes="downloads"):
                    self.data = gr.DownloadButton("Tasks and numbers", elem_id="explore-tasks-data")
