"""The card "How many are enough?": a learning curve of a visitor's images or texts."""

from functools import partial
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import Block

from d2nwg.ui.events import MINUTES
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import html
from d2nwg.ui.generate.finetune import GONE
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.parts import action
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.settings import whole_numbers
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

KEY = "curve"
DRAWS = 5
LIMITS = {"draws": ("Draws", 1, 20)}
TITLE = (
    "How many are enough?",
    "Heads from 1, 2, 5, 10 and 20 labelled images or texts a class, and the baselines from the same ones, each over "
    "several draws of them: what more labels would bring, and how much luck there is in those that you have.",
)


class Drawn(NamedTuple):
    """What one press of the button has made."""

    result: Any  # the `Result` of whose data it is
    curve: Any  # the `LearningCurve`
    figure: Any


def controls() -> dict[str, Block]:
    """The components of the card."""
    parts: dict[str, Block] = {}
    parts["draws"] = gr.Number(
        DRAWS, precision=0, label="Draws", info="of the labelled ones, each with its own seed", elem_id="curve-draws"
    )
    parts["go"], parts["stop"], parts["status"] = action("Draw the curve", "curve", size="sm")
    with gr.Column(visible=False, elem_id="curve") as parts["made"]:
        parts["sentence"] = gr.HTML(elem_id="curve-sentence")
        parts["figure"] = gr.Plot(show_label=False, container=False, elem_id="curve-figure")
    return parts


def nothing_yet(parts: dict[str, Block]) -> dict:
    """The update for a new result, of whose data nothing was drawn."""
    return {parts["made"]: gr.update(visible=False), parts["status"]: ""}


def wire(frame: Frame, parts: dict[str, Block]) -> None:
    """Measuring a curve, and showing it."""
    run = Run(frame.session, KEY, parts["go"], parts["stop"], parts["status"])

    def ask(visit: Session, draws):
        state = visit.state(GenerateState)
        if state.result is None or state.result.images is None:
            raise UserError(GONE)
        return partial(make, state.result, whole_numbers({"draws": draws}, LIMITS)["draws"])

    def show(visit: Session, drawn: Drawn) -> dict:
        if visit.state(GenerateState).result is not drawn.result:  # of another one that is shown by now
            return {}
        return {
            parts["made"]: gr.update(visible=True),
            parts["sentence"]: html.learning(drawn.curve),
            parts["figure"]: drawn.figure,
            parts["status"]: "",
        }

    shown = [parts[name] for name in ("made", "sentence", "figure")]
    run.on(parts["go"].click, ask, [parts["draws"]], show, shown, slot=MINUTES)


def make(result, draws: int, progress: Progress = silent) -> Drawn:
    """`measure` for a visitor, with the bundle, samples and seed of their result, and what the page shows of it."""
    curve = measure(result.images, {**settings_of(result), "draws": draws}, progress=progress)
    from d2nwg.figures.learning_curve import learning_curve_figure

    return Drawn(result, curve, learning_curve_figure(curve))


def settings_of(result) -> dict[str, Any]:
    """The bundle, samples, seed and names of a result, as `learning_curve` takes them."""
    report = result.generation.report
    names = [] if list(report.classes) == list(result.images.classes) else report.classes
    return {"bundle": report.bundle, "num_samples": report.num_samples, "seed": report.seed, "names": names}


@on_gpu
def measure(data, settings: dict, progress: Progress = silent):
    """`learning_curve` of labelled images or texts; ``settings`` are its keyword arguments."""
    import_libraries()
    from d2nwg.learning_curve import learning_curve

    return learning_curve(data, progress=progress, **settings)
