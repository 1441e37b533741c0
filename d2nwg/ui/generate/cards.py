"""The cards above the Generate tab: each sets the controls and generates, with photographs that are shipped."""

import zipfile
from functools import partial
from pathlib import Path
from random import choice
from typing import Any

import gradio as gr

from d2nwg.data.examples import example_folder
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import html, service
from d2nwg.ui.generate.layout import Choices
from d2nwg.ui.generate.result import ResultView
from d2nwg.ui.generate.settings import DEFAULTS, NAMES, STEPS_OF, check_settings
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.run import Run, Update
from d2nwg.ui.session import Session
from d2nwg.ui.settings import default_bundle
from d2nwg.utils.progress import Progress, silent

EXAMPLE = DEFAULTS["example"]
NUMBERS = ("shots", "samples", "seed", "steps", "max_query")
FIRST = {**DEFAULTS, "steps": STEPS_OF[DEFAULTS["sampler"]], "names": ""}  # the controls as they stand at first
# What a card is called, and the controls that it sets otherwise.
CARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "clothes": ("Clothes: 10 kinds, photographs", {}),
    "names": (
        "Only names: type classes, try a picture",
        {"example": NAMES, "names": "shoes, hat, jeans, cat, dog, car, flower"},
    ),
    # Half of the photographs score, so that the others can take part without labels.
    "unlabelled": ("One labelled image and many unlabelled", {"shots": 1, "max_query": 100}),
}
PICTURED = ("shoes", "hat", "pants")  # classes of the example that the card of names names


def build_cards() -> dict[str, gr.Button]:
    """The cards, side by side, by their keys."""
    with gr.Row(elem_classes="cards"):
        return {key: gr.Button(label, elem_id=f"card-{key}", min_width=120) for key, (label, _) in CARDS.items()}


def wire(frame: Frame, cards: dict[str, gr.Button], choices: Choices, view: ResultView, run: Run, scroll: str) -> None:
    """Have each card do what it says; ``scroll`` is the script that then shows the answer."""
    controls = {"example": choices.example, "names": choices.names, "shots": choices.shots, "samples": choices.samples}
    controls |= {"seed": choices.seed, "steps": choices.steps, "max_query": choices.most, "sampler": choices.sampler}
    data = [choices.files, choices.folder, choices.files_said, choices.shown, choices.free]
    shown = list(dict.fromkeys([frame.bundle, *controls.values(), *choices.of_bundle, *data, *view.results.components]))

    def wire_card(key: str) -> None:
        values = FIRST | CARDS[key][1]

        def free(visit: Session) -> list[str] | None:
            return [str(without_labels(visit.folder))] if key == "unlabelled" else None

        def ask(visit: Session):
            numbers = (values[name] for name in NUMBERS)
            settings = check_settings(default_bundle(), *numbers, sampler=values["sampler"], viewer=visit.viewer)
            return partial(read_and_generate, values, settings, visit.subfolder(), free(visit))

        def begun(visit: Session) -> Update:
            update = choices.fitting(values["example"], False)
            for name, control in controls.items():
                update[control] = {**update.get(control, gr.update()), "value": values[name]}
            update[choices.free_part] = {**update[choices.free_part], "open": key == "unlabelled"}
            given = {choices.files: None, choices.files_said: "", choices.free: free(visit)}
            return {frame.bundle: default_bundle(), **update, **given}

        def show(visit: Session, made: tuple) -> Update:
            read, result = made
            state = visit.state(GenerateState)
            if result.images is None:  # something to try it on
                known = [file for name in PICTURED for file in sorted((example_folder(EXAMPLE) / name).glob("*.jpg"))]
                state.picture = (choice(known), None)
            data, done = choices.show_data(state, read, False), views.notice(f"Done in {result.seconds:.1f} s.", "good")
            return {**data, **view.show_new(visit, result), choices.status: done}

        def failed(visit: Session, reason: Exception) -> Update:
            return {choices.example: visit.state(GenerateState).example}

        def kept(visit: Session) -> str:
            return html.kept(result=visit.state(GenerateState).result)

        ended = run.on(cards[key].click, ask, [], show, shown, begun=begun, failed=failed, kept=kept, takes_over=True)
        ended.then(None, None, None, js=scroll, **PRIVATE)

    for key in cards:
        wire_card(key)


def read_and_generate(
    values: dict, settings: dict, folder: Path, free: list[str] | None, progress: Progress = silent
) -> tuple[tuple, service.Result]:
    """What a card does: the data as `service.read_choice` gives them, and the result."""
    read = service.read_choice(values["example"], progress)
    return read, service.make_result(read[1], settings, folder, free, values["names"], progress=progress)


def without_labels(folder: Path) -> Path:
    """All photographs of the example as one archive in a folder, without their classes. Those that are also support or
    query images are left out where heads are generated."""
    file = folder / f"{EXAMPLE} without labels.zip"
    if not file.exists():
        with zipfile.ZipFile(file, "w") as archive:
            for number, photograph in enumerate(sorted(example_folder(EXAMPLE).rglob("*.jpg"))):
                archive.write(photograph, f"{number}.jpg")
    return file
