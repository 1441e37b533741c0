"""The Interpolate tab's action as a named endpoint, for programs. It needs no session."""

from functools import partial

import gradio as gr

from d2nwg.ui.api import PROGRESS, refusals, reports_to
from d2nwg.ui.events import COMPUTE
from d2nwg.ui.interpolate import service
from d2nwg.ui.interpolate.settings import DEFAULTS, check, default_bundle
from d2nwg.ui.parts import Upload
from d2nwg.ui.session import call_folder
from d2nwg.ui.settings import bundle_names, example_names
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


def add_endpoint() -> None:
    """Declare the endpoint. Its components are never shown: they give names, types and defaults."""
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
        bundle = gr.Dropdown(bundle_names(), value=default_bundle(), label="Bundle", allow_custom_value=True)
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
        run = gr.Button()
    run.click(
        interpolate,
        [*files, *examples, bundle, *numbers],
        [words, report, made],
        api_name="interpolate",
        **COMPUTE,
        api_description=(
            "Interpolate between two labelled data sets with the same classes, each given as files or as the name of "
            "an example: heads are made by mixing conditions, latents and weights, and scored on both. Returns the "
            "result in words, the report, and a zip with path.json, the figures and all heads."
        ),
    )
