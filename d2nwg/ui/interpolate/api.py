"""The Interpolate tab's actions as named endpoints, for programs. They need no session."""

from functools import partial

import gradio as gr

from d2nwg.interpolation.methods import NAME_POINTS
from d2nwg.ui.api import PROGRESS, refusals, reports_to
from d2nwg.ui.events import MINUTES
from d2nwg.ui.interpolate import by_description, by_name, service
from d2nwg.ui.interpolate.settings import (
    DEFAULTS,
    check,
    check_descriptions,
    check_names,
    default_bundle,
    naming_bundles,
)
from d2nwg.ui.parts import Upload
from d2nwg.ui.session import call_folder
from d2nwg.ui.settings import adapter_bundles, bundle_choices, example_names
from d2nwg.ui.visitor import visitor
from d2nwg.ui.work import call


async def interpolate(
    request: gr.Request,
    files_a: list[str] | None = None,
    files_b: list[str] | None = None,
    example_a: str | None = None,
    example_b: str | None = None,
    bundle: str | None = None,
    points: int = 21,
    seeds: int = 3,
    shots: int = 5,
    num_samples: int = 16,
    seed: int = 0,
    progress=PROGRESS,
) -> tuple[str, dict, str]:
    folder = call_folder()
    with refusals():
        settings = check(bundle, points, seeds, num_samples, shots, seed, visitor(request))
        endpoints = [
            ("own" if files and not (example or "").startswith("task:") else example or "", files)
            for files, example in ((files_a, example_a), (files_b, example_b))
        ]
        made = await call(partial(service.interpolate, endpoints, settings, folder), reports_to(progress))
        return " ".join(made.found.sentences()), made.found.report(), str(service.everything(made))


async def interpolate_names(
    request: gr.Request,
    first: str | None = None,
    last: str | None = None,
    files: list[str] | None = None,
    example: str | None = None,
    bundle: str | None = None,
    points: int = NAME_POINTS,
    progress=PROGRESS,
) -> tuple[str, dict, str]:
    folder = call_folder()
    with refusals():
        settings = check_names(bundle, points, visitor(request))
        liked = "own" if files else example or "none"
        make = partial(by_name.make, [first, last], liked, files, settings, folder)
        made = await call(make, reports_to(progress))
        everything = await call(partial(_everything, made))
        return " ".join(made.found.sentences()), made.found.report(), everything


async def interpolate_descriptions(
    request: gr.Request,
    first: str | None = None,
    last: str | None = None,
    files_a: list[str] | None = None,
    files_b: list[str] | None = None,
    labels_a: str | None = None,
    labels_b: str | None = None,
    bundle: str | None = None,
    points: int = NAME_POINTS,
    num_samples: int = 8,
    seed: int = 0,
    progress=PROGRESS,
) -> tuple[str, dict, str]:
    folder = call_folder()
    with refusals():
        settings = check_descriptions(bundle, points, num_samples, seed, visitor(request))
        given = [first, last], [files_a, files_b], [labels_a, labels_b]
        made = await call(partial(by_description.make, *given, settings, folder), reports_to(progress))
        everything = await call(partial(_all_adapters, made))
        return " ".join([*made.found.sentences(), *made.found.notes]), made.found.report(), everything


def _all_adapters(made: by_description.DescribedPath, progress=None) -> str:
    return str(by_description.everything(made))


def _everything(made: by_name.NamedPath, progress=None) -> str:
    return str(by_name.everything(made))


def add_endpoints() -> None:
    """Declare the endpoints. Their components are never shown: they give names, types and defaults."""
    with gr.Column(visible=False):
        files = [
            Upload(
                label=f"Endpoint {letter}: an archive with one folder a class, or a head file", file_count="multiple"
            )
            for letter in "AB"
        ]
        examples = [
            gr.Dropdown(
                example_names(),
                value=None,
                allow_custom_value=True,
                label=f"An example for endpoint {letter}, or task:NAME of a task that the bundle knows by name",
            )
            for letter in "AB"
        ]
        bundle = gr.Dropdown(bundle_choices(), value=default_bundle(), label="Bundle", allow_custom_value=True)
        numbers = [
            gr.Number(DEFAULTS[key], precision=0, label=label)
            for key, label in (
                ("points", "Points of the path"),
                ("seeds", "Paths"),
                ("shots", "Images per class the generator may see"),
                ("samples", "Heads averaged at a point"),
                ("seed", "Seed"),
            )
        ]
        words, report = gr.Textbox(label="Result in words"), gr.JSON(label="What path.json holds")
        made = gr.File(label="path.json, figures and heads, as a zip")
        names = [gr.Textbox(label=f"Class name {letter}, perhaps with a description after a colon") for letter in "AB"]
        liked = Upload(label="Images to score: an archive with one folder a class (optional)", file_count="multiple")
        example = gr.Dropdown(example_names(), value=None, label="An example to score, where no files are given")
        naming = gr.Dropdown(
            naming_bundles(),
            value=next(iter(naming_bundles()), None),
            label="Bundle that knows names",
            allow_custom_value=True,
        )
        name_points = gr.Number(NAME_POINTS, precision=0, label="Points of the path")
        tasks = [gr.Textbox(label=f"Description of task {letter}") for letter in "AB"]
        texts = [
            Upload(label=f"Texts of task {letter} with labels: a CSV or JSONL (optional)", file_count="multiple")
            for letter in "AB"
        ]
        classes = [gr.Textbox(label=f"Class names of task {letter} (optional)") for letter in "AB"]
        adapters = gr.Dropdown(
            adapter_bundles(), value=None, label="Bundle of adapters; None: the first", allow_custom_value=True
        )
        task_numbers = [
            gr.Number(DEFAULTS[key], precision=0, label=label)
            for key, label in (("task_points", "Points of the path"), ("task_samples", "Samples"), ("seed", "Seed"))
        ]
        run = gr.Button()
    run.click(
        interpolate,
        [*files, *examples, bundle, *numbers],
        [words, report, made],
        api_name="interpolate",
        **MINUTES,
        api_description=(
            "Interpolate between two labelled data sets with the same classes, each given as files or as the name of "
            "an example: heads are made by mixing conditions, latents and weights, and scored on both. Returns the "
            "result in words, the report, and a zip with path.json, the figures and all heads."
        ),
    )
    run.click(
        interpolate_names,
        [*names, liked, example, naming, name_points],
        [words, report, made],
        api_name="interpolate_names",
        **MINUTES,
        api_description=(
            "Go from one class name to another: a row of a head is made for each point between them, from the names "
            "alone. Returns in words, as a report, and as a zip with figures and rows which known rows lie near each "
            "point and which of the images, where some are given, it likes best."
        ),
    )
    run.click(
        interpolate_descriptions,
        [*tasks, *texts, *classes, adapters, *task_numbers],
        [words, report, made],
        api_name="interpolate_descriptions",
        **MINUTES,
        api_description=(
            "Go from one description of a task of texts to another: adapters of a text encoder for each point between "
            "them, by the condition and by the weights, each scored on the texts of both tasks, where some are given, "
            "with the heads made for the two. Returns the result in words, the report, and a zip with path.json, "
            "points.csv, the figures and all adapters as folders that peft reads."
        ),
    )
