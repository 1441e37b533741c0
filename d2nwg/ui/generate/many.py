"""The card "Try many": what the head in use says of a visitor's many images or texts."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import Block

from d2nwg.ui import html as views
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import items_html
from d2nwg.ui.generate.finetune import GONE
from d2nwg.ui.generate.made import Picked, Result
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.parts import Upload, action
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

KEY = "many"
TITLE = (
    "Try many",
    "A zip of folders, or loose pictures; for texts a table. Pictures in folders named as a class are counted as right "
    "or wrong.",
)


class Many(NamedTuple):
    """Predictions for many."""

    result: Result  # whose head predicted
    picked: Picked  # which one of it
    file: Path  # the table
    said: str  # HTML


def controls() -> dict[str, Block]:
    """The components of the card."""
    parts: dict[str, Block] = {
        "files": Upload(
            label="Many images or texts",
            file_count="multiple",
            height=84,
            elem_id="many-files",
        )
    }
    parts["go"], parts["stop"], parts["status"] = action("Predict", "many", size="sm")
    with gr.Column(visible=False, elem_id="many") as parts["made"]:
        parts["stale"] = gr.HTML(elem_id="many-stale")
        parts["said"] = gr.HTML(elem_id="many-said", elem_classes="tuned")
        parts["table"] = gr.DownloadButton("Predictions (CSV)", size="sm", elem_id="download-many")
    return parts


def nothing_yet(parts: dict[str, Block]) -> dict:
    """The update for a new result, of which nothing was predicted."""
    return {parts["made"]: gr.update(visible=False), parts["status"]: "", parts["said"]: ""}


def follow(parts: dict[str, Block], state: GenerateState) -> dict:
    """The update that says so where the predictions are not those of the head in use."""
    if state.predicted is None or state.predicted == (state.result, state.picked):
        return {parts["stale"]: ""}
    before, now = (state.result.name(picked) for picked in (state.predicted[1], state.picked))
    words = f"These are predictions of the {before}, and the {now} is in use now: press Predict for its own."
    return {parts["stale"]: views.notice(words.replace("the sample", "sample"), "note")}


def wire(frame: Frame, parts: dict[str, Any]) -> None:
    """Predicting, and showing what came of it."""
    run = Run(frame.session, KEY, parts["go"], parts["stop"], parts["status"])

    def ask(visit: Session, files: list[str] | None):
        state = visit.state(GenerateState)
        visit.uploaded(files)
        if state.result is None:
            raise UserError(GONE)
        if not files:
            raise UserError("Drop the files in the box above first.")
        return partial(make, state.result, state.picked, files, visit.subfolder())

    def show(visit: Session, many: Many) -> dict:
        state = visit.state(GenerateState)
        if state.result is not many.result:  # of another one that is shown by now
            return {}
        state.predicted = many.result, many.picked
        return {
            parts["made"]: gr.update(visible=True),
            parts["said"]: many.said,
            parts["table"]: str(many.file),
            **follow(parts, state),
        }

    shown = [parts[name] for name in ("made", "stale", "said", "table")]
    trigger = partial(gr.on, [parts["files"].upload, parts["go"].click])
    run.on(trigger, ask, [parts["files"]], show, shown, takes_over=True)


def make(result: Result, picked: Picked, files: list[str], folder: Path, progress: Progress = silent) -> Many:
    """`predict` for a visitor, with what the page shows of it."""
    from d2nwg.figures.thumbnails import thumbnail

    head = result.head(picked)
    found = predict(head, files, folder, progress=progress)
    pictures: dict[int, str] = {}
    if head.noun == "image":
        first = found.order()[: items_html.MOST_PICTURES].tolist()
        for done, number in enumerate(first):
            progress("Making thumbnails", done, len(first))
            if picture := thumbnail(found.items[number], found.scale):
                pictures[number] = picture
    name = result.name(picked)
    which = f"The {name}" if picked is None else name.capitalize()
    file = found.save(folder / "predictions.csv")
    return Many(result, picked, file, items_html.predictions(which, found, head.noun, pictures))


@on_gpu
def predict(head, files: list[str], folder: Path, progress: Progress = silent):
    """The `Predictions` of a head or a network for uploaded files; archives are unpacked below `folder`.

    Raises:
        UserError: there is nothing to read, or the head's encoder is not available.
    """
    import_libraries()
    from d2nwg.predictions import predict_many

    sources = [own_file(file) for file in files]
    try:
        found = predict_many(head, sources, into=folder, progress=progress)
    except UserError as reason:  # each upload lies in a folder whose name says nothing
        words = str(reason)
        for source in sources:
            words = words.replace(f"{source.parent}/", "").replace(f"{source.parent.name}/", "")
        raise UserError(words) from reason
    names = {source: source.name for source in sources}
    return replace(
        found, names=tuple(names.get(item, name) for item, name in zip(found.items, found.names, strict=True))
    )
