"""The card "Train it further": a visitor's head trained on the images or texts that it was made from."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import Block

from d2nwg.ui import html as views
from d2nwg.ui.events import MINUTES
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import html, networks
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.parts import action
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.settings import whole_numbers
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

KEY = "finetune"
LIMITS = {"epochs": ("Epochs", 1, 500), "seeds": ("Runs", 1, 10), "seed": ("Seed", 0, 2**31 - 1)}
EPOCHS, SEEDS = 25, 3
MAX_IMAGES = 2000  # to train and score on
BASELINE = "A baseline is in use: pick a generated head in the table; baselines are trained beside it anyway."
GONE = "The result is no longer here: generate it again."


class Tuned(NamedTuple):
    """What one press of the button has made."""

    result: Any  # the `Result` whose head it was
    report: Any  # the `FineTuneReport`
    file: Path
    figure: Any


def controls() -> dict[str, Block]:
    """The components of the card."""
    parts: dict[str, Block] = {}
    with gr.Row(elem_classes="pair"):
        number = partial(gr.Number, precision=0, min_width=120)
        parts["epochs"] = number(EPOCHS, label="Epochs", info="passes over what trains", elem_id="tune-epochs")
        parts["seeds"] = number(SEEDS, label="Runs", info="of each start", elem_id="tune-seeds")
    parts["go"], parts["stop"], parts["status"] = action("Train it further", "tune", size="sm")
    with gr.Column(visible=False, elem_id="tuned") as parts["made"]:
        parts["sentence"] = gr.HTML(elem_id="tuned-sentence")
        parts["figure"] = gr.Plot(show_label=False, container=False, elem_id="tuned-figure")
        parts["head"] = gr.DownloadButton("Download the result", size="sm", elem_id="download-tuned")
    return parts


def nothing_yet(parts: dict[str, Block]) -> dict:
    """The update for a new result, which was not trained further."""
    return {parts["made"]: gr.update(visible=False), parts["status"]: ""}


def wire(frame: Frame, parts: dict[str, Block]) -> None:
    """Training further, and showing what came of it."""
    run = Run(frame.session, KEY, parts["go"], parts["stop"], parts["status"])

    def ask(visit: Session, epochs, seeds):
        state = visit.state(GenerateState)
        if state.result is None or state.result.images is None:
            raise UserError(GONE)
        if isinstance(state.picked, str):
            raise UserError(BASELINE)
        settings = whole_numbers({"epochs": epochs, "seeds": seeds}, LIMITS)
        head = state.result.head(state.picked)
        return partial(make, state.result, head, settings, visit.subfolder(), networks.bundle_of(head, visit.viewer))

    def show(visit: Session, tuned: Tuned) -> dict:
        if visit.state(GenerateState).result is not tuned.result:  # of another one that is shown by now
            return {}
        return {
            parts["made"]: gr.update(visible=True),
            parts["sentence"]: html.finetuned(tuned.report),
            parts["figure"]: tuned.figure,
            parts["head"]: str(tuned.file),
            parts["status"]: views.notice(f"Done in {tuned.report.seconds:.1f} s.", "good"),
        }

    shown = [parts[name] for name in ("made", "sentence", "figure", "head")]
    run.on(parts["go"].click, ask, [parts["epochs"], parts["seeds"]], show, shown, slot=MINUTES)


def make(result, head, settings: dict, folder: Path, bundle: Path | None = None, progress: Progress = silent) -> Tuned:
    """`finetune` for a visitor, with what the page shows of it."""
    report, file = finetune(head, result.images, settings, folder, bundle, progress=progress)
    from d2nwg.figures.finetune import finetune_figure

    return Tuned(result, report, file, finetune_figure(report))


@on_gpu
def finetune(
    head, data, settings: dict, folder: Path, bundle: Path | None = None, progress: Progress = silent
) -> tuple[Any, Path]:
    """Train a head or a network further: the `FineTuneReport`, and the file of the result in `folder`.

    Args:
        bundle: of a network: the one that made it.
    """
    import_libraries()
    if head.kind == "network":
        return networks.finetune(head, data, settings, bundle, folder / "network-finetuned.safetensors", progress)
    from d2nwg.finetuning.heads import finetune_head

    made = finetune_head(head, data, max_images=MAX_IMAGES, progress=progress, **settings)
    return made.report, made.head.save(folder / "head-finetuned.safetensors")
