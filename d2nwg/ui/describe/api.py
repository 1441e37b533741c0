"""The Describe tab's actions as named endpoints, for programs. They need no session."""

from functools import partial
from pathlib import Path

import gradio as gr

from d2nwg.ui.api import PROGRESS, refusals, reports_to
from d2nwg.ui.describe import html, service
from d2nwg.ui.describe.settings import DEFAULTS, check
from d2nwg.ui.events import COMPUTE
from d2nwg.ui.parts import Upload
from d2nwg.ui.session import call_folder
from d2nwg.ui.settings import adapter_bundles
from d2nwg.ui.visitor import visitor
from d2nwg.ui.work import call


async def describe(
    request: gr.Request,
    description: str = "",
    labels: str | None = None,
    bundle: str | None = None,
    num_samples: int = DEFAULTS["samples"],
    seed: int = DEFAULTS["seed"],
    steps: int = DEFAULTS["steps"],
    guidance: float = DEFAULTS["guidance"],
    progress=PROGRESS,
) -> tuple[str, dict, str]:
    with refusals():
        numbers = (num_samples, seed, steps, guidance)
        result = await _describe(request, description, labels, bundle, numbers, call_folder(), progress)
    return " ".join([*result.made.notes, html.how(result.made)]), result.made.to_json(), str(result.files["adapter"])


async def describe_and_score(
    request: gr.Request,
    description: str = "",
    file: str | None = None,
    labels: str | None = None,
    bundle: str | None = None,
    num_samples: int = DEFAULTS["samples"],
    seed: int = DEFAULTS["seed"],
    progress=PROGRESS,
) -> tuple[str, dict, str]:
    from d2nwg.adapter_scores import words

    folder = call_folder()
    with refusals():
        numbers = (num_samples, seed, DEFAULTS["steps"], DEFAULTS["guidance"])
        result = await _describe(request, description, labels, bundle, numbers, folder, progress)
        scored = await call(partial(service.score, result.made, [file] if file else None, folder), reports_to(progress))
    return words(scored.found, result.made.nearest[0][0]), scored.found.to_json(), str(scored.file)


async def describe_and_predict(
    request: gr.Request,
    description: str = "",
    text: str = "",
    second: str | None = None,
    labels: str | None = None,
    bundle: str | None = None,
    num_samples: int = DEFAULTS["samples"],
    seed: int = DEFAULTS["seed"],
    progress=PROGRESS,
) -> dict:
    with refusals():
        numbers = (num_samples, seed, DEFAULTS["steps"], DEFAULTS["guidance"])
        result = await _describe(request, description, labels, bundle, numbers, call_folder(), progress)
        looked = await call(lambda progress: service.look(result.made, text, second))
    return {"adapter": looked.adapter, "without": looked.without}


async def _describe(request, description, labels, bundle, numbers: tuple, folder: Path, progress) -> service.Result:
    """The adapter for a call; ``numbers`` are samples, seed, steps and guidance."""
    settings = check(bundle, *numbers, viewer=visitor(request))
    return await call(partial(service.describe, description, labels, settings, folder), reports_to(progress))


def add_endpoints() -> None:
    """Declare the endpoints. Their components are never shown: they give names, types and defaults."""
    with gr.Column(visible=False):
        description = gr.Textbox(label="The task in words")
        labels = gr.Textbox(label="Names of its classes, separated by commas; needed for tasks that it does not know")
        bundle = gr.Dropdown(
            adapter_bundles(), value=None, label="Bundle of adapters; None: the shipped one", allow_custom_value=True
        )
        samples = gr.Number(DEFAULTS["samples"], precision=0, label="Samples; the middle one is taken")
        seed = gr.Number(DEFAULTS["seed"], precision=0, label="Seed")
        steps = gr.Number(DEFAULTS["steps"], precision=0, label="Denoising steps")
        guidance = gr.Number(DEFAULTS["guidance"], label="Scale of classifier-free guidance")
        file = Upload(label="A CSV or JSONL of texts and labels")
        text, second = gr.Textbox(label="A text"), gr.Textbox(label="The other text, for tasks about pairs")
        words, report = gr.Textbox(label="Result in words"), gr.JSON(label="Report")
        adapter, table = gr.File(label="The adapter's folder, zipped"), gr.File(label="What it says of each text")
    run = gr.Button(visible=False)
    run.click(
        describe,
        [description, labels, bundle, samples, seed, steps, guidance],
        [words, report, adapter],
        api_name="describe",
        **COMPUTE,
        api_description=(
            "Generate an adapter of a text encoder, with a head, for a task in words. Returns what it is in words, the "
            "report, and a zip of the folder that peft loads."
        ),
    )
    run.click(
        describe_and_score,
        [description, file, labels, bundle, samples, seed],
        [words, report, table],
        api_name="describe_and_score",
        **COMPUTE,
        api_description=(
            "Generate an adapter for a task in words and score it on a table of texts and labels, beside the nearest "
            "known task's adapter and the encoder without any. Returns the result in words, the numbers, and a table "
            "of what the adapter says of each text."
        ),
    )
    run.click(
        describe_and_predict,
        [description, text, second, labels, bundle, samples, seed],
        report,
        api_name="describe_and_predict",
        **COMPUTE,
        api_description=(
            "Generate an adapter for a task in words and ask it about a text, or a pair of texts: the likeliest labels "
            "with their probabilities (or a value) by the adapter, and by the encoder without it."
        ),
    )
