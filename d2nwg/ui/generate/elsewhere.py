"""The download "For other programs": the head in use as files that do without this project, made when asked for."""

import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gradio as gr
from gradio.blocks import Block

from d2nwg.ui import html as views
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate.finetune import GONE
from d2nwg.ui.generate.made import Picked, Result
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.parts import action
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

KEY = "elsewhere"
HINT = {
    "image": "For other programs, a zip: encoder and head as ONNX, a scikit-learn estimator, a predict.py, which "
    "needs none of this project, and a page (app.py): unpacked, it is a Hugging Face Space.",
    "text": "For other programs, a zip: a scikit-learn estimator, a predict.py that needs none of this project, and a "
    "page (app.py): unpacked, it is a Hugging Face Space.",
}


class Exported(NamedTuple):
    """A zip of the files of a head."""

    result: Result  # whose head it is
    picked: Picked  # which one of it
    file: Path


def controls() -> dict[str, Block]:
    """The components."""
    parts: dict[str, Block] = {}
    with gr.Column(visible=False, elem_id="elsewhere") as parts["card"]:
        parts["hint"] = gr.HTML()
        parts["go"], parts["stop"], parts["status"] = action("Make it for other programs", "elsewhere", size="sm")
        parts["file"] = gr.DownloadButton("Download the zip", size="sm", visible=False, elem_id="download-elsewhere")
    return parts


def of(parts: dict[str, Block], result: Result) -> dict:
    """The update for what is in use now: nothing is made of it yet. Networks have an ONNX file anyway."""
    return {
        parts["card"]: gr.update(visible=result.kind == "head"),
        parts["hint"]: views.hint(HINT["image" if result.noun == "image" else "text"]),
        parts["status"]: "",
        parts["file"]: gr.update(visible=False),
    }


def wire(frame: Frame, parts: dict[str, Block]) -> None:
    """Making the zip, and offering it."""
    run = Run(frame.session, KEY, parts["go"], parts["stop"], parts["status"])

    def ask(visit: Session):
        state = visit.state(GenerateState)
        if state.result is None:
            raise UserError(GONE)
        return partial(make, state.result, state.picked, visit.subfolder())

    def show(visit: Session, made: Exported) -> dict:
        state = visit.state(GenerateState)
        if (state.result, state.picked) != (made.result, made.picked):  # another one is in use by now
            return {}
        size = f"{made.file.name}, {made.file.stat().st_size / 2**20:.1f} MB"
        return {parts["file"]: gr.update(value=str(made.file), visible=True, label=f"Download {size}")}

    run.on(parts["go"].click, ask, [], show, [parts["file"]])


def make(result: Result, picked: Picked, folder: Path, progress: Progress = silent) -> Exported:
    """The files of `export_head` as one zip in a folder.

    Raises:
        UserError: see `export_head`.
    """
    import_libraries()
    from d2nwg.exports import export_head

    progress("Writing the files", 0, 1)
    name = f"{result.stem(picked)}-for-other-programs"
    (folder / name).mkdir()
    export_head(result.head(picked), folder / name)
    file = Path(shutil.make_archive(str(folder / name), "zip", folder, name))
    shutil.rmtree(folder / name)
    progress("Writing the files", 1, 1)
    return Exported(result, picked, file)
