"""The Explore tab's action as a named endpoint, for programs."""

from functools import partial

import gradio as gr

from d2nwg.pipelines import DEFAULT, SAMPLERS
from d2nwg.ui.api import PROGRESS, refusals, reports_to
from d2nwg.ui.events import MINUTES
from d2nwg.ui.explore import by_name, by_task
from d2nwg.ui.explore import service as own
from d2nwg.ui.explore.service import CHOICES, DEFAULTS
from d2nwg.ui.parts import Upload
from d2nwg.ui.session import call_folder
from d2nwg.ui.settings import adapter_bundles, bundle_choices, check_bundle, default_bundle, example_names
from d2nwg.ui.uploads import read_images
from d2nwg.ui.visitor import visitor
from d2nwg.ui.work import call
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import whole


async def explore(
    request: gr.Request,
    files: list[str] | None = None,
    example: str | None = None,
    bundle: str | None = None,
    tasks: int = 1,
    classes: int = 5,
    num_samples: int = 200,
    num_trained: int = 50,
    shots: int = 5,
    seed: int = 0,
    steps: int | None = None,
    max_query: int = 150,
    space: str = "weights",
    part: str = "all",
    perplexity: int = 30,
    sampler: str = "default",
    dimensions: int = 2,
    progress=PROGRESS,
) -> tuple[str, dict, str, str, str]:
    folder = call_folder()
    with refusals():
        viewer = visitor(request)
        settings = own.check(
            bundle, tasks, classes, num_samples, num_trained, shots, seed, steps, max_query, sampler, viewer
        )
        dimensions = whole(dimensions, "The number of dimensions", 2, 3)
        view = own.check_view(space, part, perplexity, seed, False, dimensions)
        images = await call(partial(read_images, files=files, example=example, into=folder), reports_to(progress))
        make = partial(own.make, {"images": images}, settings, view, folder / "result", exact=True)
        made = await call(make, reports_to(progress))
        kept = await call(partial(_files, made))
    said = " ".join(own.words(made))
    return said, own.summary(made), str(kept["data"]), str(kept["figures"]), str(kept["projector"])


async def explore_names(
    request: gr.Request,
    names: str | None = None,
    search: str | None = None,
    bundle: str | None = None,
    progress=PROGRESS,
) -> tuple[str, dict, str, str]:
    folder = call_folder()
    with refusals():
        check_bundle(bundle, visitor(request))
        if not (names or "").strip() and not (search or "").strip():
            raise UserError("Give class names to map, or a text to search the known names for.")
        make = partial(by_name.make, bundle, names, search, folder / "result")
        made = await call(make, reports_to(progress))
        data, page = await call(partial(_name_files, made))
    return " ".join(by_name.words(made)), by_name.summary(made), data, page


async def explore_tasks(
    request: gr.Request,
    description: str | None = None,
    bundle: str | None = None,
    num_samples: int = by_task.SAMPLES,
    seed: int = 0,
    progress=PROGRESS,
) -> tuple[str, dict, str, str]:
    folder = call_folder()
    with refusals():
        settings = by_task.check(bundle, num_samples, seed, visitor(request))
        made = await call(partial(by_task.make, description, settings, folder / "result"), reports_to(progress))
        data, page = await call(partial(_task_files, made))
    return " ".join(by_task.words(made)), by_task.summary(made), data, page


def _task_files(made: by_task.MappedTasks, progress=None) -> tuple[str, str]:
    return str(by_task.data(made)), str(by_task.page(made, "tsne"))


def _name_files(made: by_name.Mapped, progress=None) -> tuple[str, str]:
    return str(by_name.data(made)), str(by_name.page(made, "tsne"))


def _files(made: own.Explored, progress=None) -> dict:
    made.folder.mkdir(parents=True, exist_ok=True)
    return own.files(made, own.figures(made, "origin", "tsne"))


def add_endpoints() -> None:
    """Declare the endpoints. Their components are never shown: they give names, types and defaults."""
    with gr.Column(visible=False):
        files = Upload(label="An archive with one folder a class, or pictures named by class", file_count="multiple")
        example = gr.Dropdown(example_names(), value=None, label="An example, where no files are given")
        bundle = gr.Dropdown(bundle_choices(), value=default_bundle(), label="Bundle", allow_custom_value=True)
        numbers = [
            gr.Number(value, precision=0, label=label)
            for value, label in (
                (1, "Tasks; 1 is all classes at once"),
                (DEFAULTS["classes"], "Classes a task, where there are several"),
                (DEFAULTS["explored"], "Heads or networks to generate"),
                (DEFAULTS["trained"], "Heads or networks to train on the same images"),
                (DEFAULTS["shots"], "Images per class the generator may see"),
                (DEFAULTS["seed"], "Seed"),
                (DEFAULTS["steps"], "Denoising steps; None: the sampler's own number"),
                (DEFAULTS["most"], "Most images to measure on"),
            )
        ]
        space = gr.Dropdown(list(CHOICES["where"].values()), value="weights", label="Space")
        part = gr.Textbox("all", label="Part: all, a tensor, or a class row such as row 1")
        perplexity = gr.Number(DEFAULTS["perplexity"], precision=0, label="Perplexity of t-SNE")
        sampler = gr.Radio(list(SAMPLERS), value=DEFAULT, label="Sampler: the bundle's own, or the paper's")
        dimensions = gr.Number(DEFAULTS["dimensions"], precision=0, label="Dimensions of the maps, 2 or 3")
        words, numbers_out = gr.Textbox(label="In words"), gr.JSON(label="Summary")
        made = [gr.File(label=label) for label in ("Data", "Figures", "Embedding Projector files")]
        named = gr.Textbox(
            label="Class names to place among the known ones, separated by commas or lines, each with a description "
            "after a colon where there is one (optional)"
        )
        search = gr.Textbox(label="A text to search the known names for, by spelling and by meaning (optional)")
        mapped = [gr.File(label="Names and numbers"), gr.File(label="The map as a page")]
        described = gr.Textbox(label="A description of a task of texts, to place samples for it (optional)")
        adapters = gr.Dropdown(
            adapter_bundles(), value=None, label="Bundle of adapters; None: the first", allow_custom_value=True
        )
        task_numbers = [
            gr.Number(by_task.SAMPLES, precision=0, label="Adapters to generate"),
            gr.Number(0, precision=0, label="Seed"),
        ]
        tasks = [gr.File(label=label) for label in ("Tasks and numbers", "The map as a page")]
        run = gr.Button()
    run.click(
        explore,
        [files, example, bundle, *numbers, space, part, perplexity, sampler, dimensions],
        [words, numbers_out, *made],
        api_name="explore",
        **MINUTES,
        api_description=(
            "Generate heads for labelled images and set them beside the zoo heads that a bundle keeps; with a bundle "
            "of whole networks that are made for images, the same of networks. Returns the comparison in words, its "
            "numbers, and three archives: tables, figures, and files for the TensorBoard Embedding Projector. "
            "Reports progress; cancelling the job stops the work."
        ),
    )
    run.click(
        explore_names,
        [named, search, bundle],
        [words, numbers_out, *mapped],
        api_name="explore_names",
        **MINUTES,
        api_description=(
            "Map the rows that a bundle knows by name, with other class names among them, and search them. Returns "
            "what lies near in words, its numbers, an archive with names.csv, names.json and files for the TensorBoard "
            "Embedding Projector, and the map as a page."
        ),
    )
    run.click(
        explore_tasks,
        [described, adapters, *task_numbers],
        [words, numbers_out, *tasks],
        api_name="explore_tasks",
        **MINUTES,
        api_description=(
            "Map the adapters that a bundle of adapters knows, by task, with samples for a description among them. "
            "Returns in words which known tasks are nearest and how far samples lie from the zoo, its numbers, an "
            "archive with tasks.csv, tasks.json and files for the TensorBoard Embedding Projector, and the map as a "
            "page."
        ),
    )
