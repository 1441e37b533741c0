"""The Generate tab's actions as named endpoints, for programs. None of them needs a session."""

import asyncio
from functools import partial

import gradio as gr

from d2nwg.evaluation.finetune_report import sentences
from d2nwg.evaluation.report import advice
from d2nwg.pipelines import DEFAULT, SAMPLERS
from d2nwg.ui.api import PROGRESS, refusals, reports_to
from d2nwg.ui.events import COMPUTE, MINUTES
from d2nwg.ui.generate import curve as curves
from d2nwg.ui.generate import finetune as tuning
from d2nwg.ui.generate import html, many, network_html, networks, service
from d2nwg.ui.generate.settings import DEFAULTS, check_settings
from d2nwg.ui.parts import Picture, Upload
from d2nwg.ui.session import call_folder
from d2nwg.ui.settings import bundle_choices, default_bundle, example_names, whole_numbers
from d2nwg.ui.uploads import read_data
from d2nwg.ui.visitor import visitor
from d2nwg.ui.work import call
from d2nwg.utils.errors import UserError


async def load_images(files: list[str] | None = None, example: str | None = None) -> dict:
    with refusals():
        images = await call(partial(read_data, files=files, example=example, into=call_folder()))
    counts = dict.fromkeys(images.classes, 0)
    for index in images.labels:
        counts[images.classes[index]] += 1
    number = {f"num_{images.noun}s": len(images.items)}
    return {"name": images.name, **number, "classes": counts, "notes": list(images.notes)}


async def generate(
    request: gr.Request,
    files: list[str] | None = None,
    example: str | None = None,
    bundle: str | None = None,
    shots: int = 5,
    num_samples: int = 50,
    seed: int = 0,
    steps: int | None = None,
    max_query: int = 1000,
    unlabelled: list[str] | None = None,
    task: str = "",
    sampler: str = "default",
    names: str | None = None,
    progress=PROGRESS,
) -> tuple[str, dict, str, str, str]:
    folder = call_folder()
    with refusals():
        settings = check_settings(bundle, shots, num_samples, seed, steps, max_query, task, sampler, visitor(request))
        images = None
        if files or example or not (names or "").strip():
            read = partial(read_data, files=files, example=example, into=folder)
            images = await call(read, reports_to(progress))
        make = partial(service.generate, images, settings, folder / "result", unlabelled, names)
        generation, made = await call(make, reports_to(progress))
    if images is None:
        words, report = html.named_sentences(generation), generation.to_json()
    else:
        network, found = bool(made.get("onnx")), generation.report
        words = network_html.sentences(found) if network else (*html.result_sentences(found), advice(found) or "")
        report = found.to_json()
    return " ".join(filter(None, words)), report, str(made["head"]), str(made["samples"]), str(made["report"])


async def predict(
    head: str | None = None, image: str | None = None, text: str | None = None, second: str | None = None
) -> dict[str, float]:
    with refusals():
        return await asyncio.to_thread(service.predict, head, image, text, second)


async def predict_many(head: str | None = None, files: list[str] | None = None, progress=PROGRESS) -> str:
    folder = call_folder()
    with refusals():
        if not head or not files:
            raise UserError("Give a head file, and images or texts.")
        loaded = await asyncio.to_thread(service.open_made, head)
        found = await call(partial(many.predict, loaded, files, folder), reports_to(progress))
        return str(await asyncio.to_thread(found.save, folder / "predictions.csv"))


async def sample(head: str | None = None, samples: str | None = None, number: int = 0) -> str:
    with refusals():
        return str(await asyncio.to_thread(service.take_sample, head, samples, number, call_folder()))


async def finetune(
    request: gr.Request,
    head: str | None = None,
    files: list[str] | None = None,
    example: str | None = None,
    epochs: int = tuning.EPOCHS,
    seeds: int = tuning.SEEDS,
    seed: int = 0,
    progress=PROGRESS,
) -> tuple[str, dict, str]:
    folder = call_folder()
    with refusals():
        settings = whole_numbers({"epochs": epochs, "seeds": seeds, "seed": seed}, tuning.LIMITS)
        if not head:
            raise UserError("Give a head file, such as /generate returns.")
        start = await asyncio.to_thread(service.open_made, head)
        data = await call(partial(read_data, files=files, example=example, into=folder), reports_to(progress))
        made = partial(tuning.finetune, start, data, settings, folder, networks.bundle_of(start, visitor(request)))
        report, file = await call(made, reports_to(progress))
    return " ".join(sentences(report)), report.to_json(), str(file)


async def learning_curve(
    request: gr.Request,
    files: list[str] | None = None,
    example: str | None = None,
    bundle: str | None = None,
    draws: int = curves.DRAWS,
    num_samples: int = 50,
    seed: int = 0,
    progress=PROGRESS,
) -> tuple[str, dict]:
    folder = call_folder()
    with refusals():
        counts = whole_numbers({"draws": draws}, curves.LIMITS)
        settings = check_settings(bundle, 1, num_samples, seed, None, 1000, viewer=visitor(request))
        run = {key: settings[key] for key in ("bundle", "num_samples", "seed")}
        data = await call(partial(read_data, files=files, example=example, into=folder), reports_to(progress))
        found = await call(partial(curves.measure, data, {**run, **counts}), reports_to(progress))
        from d2nwg.learning_curve import sentences

        return " ".join(sentences(found)), found.to_json()


def add_endpoints() -> None:
    """Declare the endpoints. Their components are never shown: they give names, types and defaults."""
    with gr.Column(visible=False):
        files = Upload(
            label="An archive with one folder a class, or pictures named by class, or a table of texts and labels",
            file_count="multiple",
        )
        example = gr.Dropdown(example_names(), value=None, label="An example, where no files are given")
        bundle = gr.Dropdown(bundle_choices(), value=default_bundle(), label="Bundle", allow_custom_value=True)
        numbers = [
            gr.Number(DEFAULTS[key], precision=0, label=label)
            for key, label in (
                ("shots", "Images per class the generator may see"),
                ("samples", "Heads to generate"),
                ("seed", "Seed"),
                ("steps", "Denoising steps; None: the sampler's own number"),
                ("max_query", "Most images to measure on"),
            )
        ]
        unlabelled = Upload(
            label="Images or texts of the same classes without labels, or archives of them (optional)",
            file_count="multiple",
        )
        task = gr.Textbox(
            "", label="The task, for a task-conditioned bundle: its name, or a mix such as 0.7 one + 0.3 other"
        )
        sampler = gr.Radio(list(SAMPLERS), value=DEFAULT, label="Sampler: the bundle's own, or the paper's")
        names = gr.Textbox(
            label=(
                "Names of the classes, separated by commas or lines, each with a description after a colon where there "
                "is one. Without files and example the head is made from them alone; beside them they rename the "
                "classes: all in order, or some as old=new"
            )
        )
        head = Upload(label="A head file, such as /generate returns")
        image = Picture(label="A picture, for a head of images")
        text = gr.Textbox(label="A text, for a head of texts")
        second = gr.Textbox(label="The other text, for a head of pairs of texts")
        several = Upload(
            label="Images, folders of them as archives, or a table of texts, for a head of texts", file_count="multiple"
        )
        predictions = gr.File(label="Predictions (CSV)")
        samples_file = Upload(label="All samples, as /generate returns them")
        number = gr.Number(0, precision=0, label="Number of the sample, from 0")
        words, report = gr.Textbox(label="Result in words"), gr.JSON(label="Report")
        made = [gr.File(label=label) for label in ("Chosen head", "All samples", "Report file")]
        found, taken = gr.JSON(label="Images"), gr.File(label="Head file")
        label = gr.Label(label="Likeliest classes", num_top_classes=service.TOP)
        epochs, runs, first = (
            gr.Number(value, precision=0, label=label)
            for value, label in (
                (tuning.EPOCHS, "Passes over what trains"),
                (tuning.SEEDS, "Runs of each start"),
                (0, "Seed of the first"),
            )
        )
        starts, tuned = gr.JSON(label="Curves of every start"), gr.File(label="Fine-tuned head")
        draws = gr.Number(curves.DRAWS, precision=0, label="Draws of the labelled images or texts")
        curve = gr.JSON(label="Accuracy over the number of labelled images or texts")
        run = gr.Button()
    run.click(
        load_images,
        [files, example],
        found,
        api_name="load_images",
        api_description=(
            "Read labelled images or texts, given as files or as the name of an example, and say what is in them: "
            "name, number of images (num_images; num_texts or num_pairs), number of each class, notes."
        ),
    )
    run.click(
        generate,
        [files, example, bundle, *numbers, unlabelled, task, sampler, names],
        [words, report, *made],
        api_name="generate",
        **COMPUTE,
        api_description=(
            "Generate classifier heads for labelled images or texts, given as files or as the name of an example, or "
            "for class names alone; with a bundle of networks, whole networks for images. Returns the result in words, "
            "the report, and three files: the chosen head or the network, all samples, and the report. Reports "
            "progress; cancelling the job stops the work."
        ),
    )
    run.click(
        predict,
        [head, image, text, second],
        label,
        api_name="predict",
        **COMPUTE,
        api_description=(
            "The likeliest classes of a picture or a text by a head or network file from /generate or /sample."
        ),
    )
    run.click(
        predict_many,
        [head, several],
        predictions,
        api_name="predict_many",
        **COMPUTE,
        api_description=(
            "What a head or network file from /generate or /sample says of many images or texts: a CSV file with the "
            "predicted class of each, the probability of every class, and, of images in folders named as a class, "
            "whether it is right."
        ),
    )
    run.click(
        finetune,
        [head, files, example, epochs, runs, first],
        [words, starts, tuned],
        api_name="finetune",
        **MINUTES,
        api_description=(
            "Train a head or network file from /generate or /sample further on the data that it was made from, beside "
            "random and other starts on the same batches. Returns how many epochs it saves, in words; accuracy of "
            "every start over epochs; and the trained head or network. Images that generation saw score nothing."
        ),
    )
    run.click(
        learning_curve,
        [files, example, bundle, draws, numbers[1], numbers[2]],
        [words, curve],
        api_name="learning_curve",
        **MINUTES,
        api_description=(
            "Generate heads from 1, 2, 5, 10 and 20 labelled images or texts a class, several times from other ones, "
            "and fit the baselines to the same. Returns what that says, in words, and the accuracy of each for every "
            "number and draw, on those that were left out."
        ),
    )
    run.click(
        sample,
        [head, samples_file, number],
        taken,
        api_name="sample",
        **COMPUTE,
        api_description=("Take one sample out of all, as a head or network file, given the two files of /generate."),
    )
