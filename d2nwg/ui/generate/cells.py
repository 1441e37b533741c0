"""The card "Where does it err?": a click on a cell of its figure shows the images or texts that lie there."""

from typing import Any

import gradio as gr
import numpy as np
from gradio.blocks import Block

from d2nwg.data.text_set import in_words
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import items_html
from d2nwg.ui.generate.made import Result
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import Session

# Tells the server which cell was clicked: (true, predicted). Plotly's handlers stay with its element, which gradio may
# replace.
PICK = """
const hook = () => {
    const plot = document.querySelector('#confusion .js-plotly-plot');
    if (!plot || !plot.on || plot.dataset.hooked) return;
    plot.dataset.hooked = '1';
    plot.on('plotly_click', event => {
        const points = event && event.points || [];
        if (points.length) trigger('click', {true: points[0].y, predicted: points[0].x});
    });
};
setInterval(hook, 300);
"""


def controls() -> dict[str, Block]:
    """The components of the card, below the figure."""
    return {
        "events": gr.HTML(js_on_load=PICK, elem_id="confusion-events", visible="hidden"),
        "cell": gr.HTML(elem_id="cell"),
    }


def nothing_yet(parts: dict[str, Block]) -> dict:
    """The update for a new figure, in which nothing was clicked."""
    return {parts["cell"]: ""}


def wire(frame: Frame, parts: dict[str, Any]) -> None:
    """Clicking in the figure."""

    def on_cell(visit: Session | None, event: gr.EventData):
        state = visit.state(GenerateState) if visit else None
        data = event._data if isinstance(event._data, dict) else {}
        where = [data.get(name) for name in ("true", "predicted")]
        if state is None or state.result is None or state.result.images is None:
            return gr.skip()
        if not all(isinstance(n, int) and 0 <= n < len(state.result.head(None).classes) for n in where):
            return gr.skip()
        return cell(state.result, state.picked, *where)

    parts["events"].click(on_cell, frame.session, parts["cell"], queue=False, **PRIVATE)


def cell(result: Result, picked, true: int, predicted: int) -> str:
    """The held-out images or texts of a true class that what is in use predicts a class for."""
    from d2nwg.figures.thumbnails import thumbnail

    head, truth = result.head(None), result.truth()
    rows = np.flatnonzero((truth == true) & (result.predicted(picked) == predicted))
    items: list[tuple[str, str]] = []
    for number in result.held_out()[rows[: items_html.MOST_PICTURES]]:
        item = result.images.items[number]
        if head.noun != "image":
            items.append(("text", in_words(item)))
        elif picture := thumbnail(item, head.scale):
            items.append(("image", picture))
    names = head.classes[true], head.classes[predicted]
    return items_html.cell(head.noun, *names, len(rows), int((truth == true).sum()), items)
