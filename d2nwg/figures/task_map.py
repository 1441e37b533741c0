"""The figure of a map of tasks (`d2nwg.exploration.task_map`)."""

import numpy as np
import plotly.graph_objects as go

from d2nwg.exploration.task_map import TaskMap
from d2nwg.figures.base import ACCENT, STRONG, label
from d2nwg.figures.explore_map import NO_COLOUR, OKABE_ITO, TASK_SYMBOLS, lay_out

PALETTE = [colour for colour in OKABE_ITO if colour != ACCENT]  # that of samples


def question(made: TaskMap) -> str:
    """What the map answers."""
    return "Where do samples for your description lie?" if made.description else "Which tasks does the bundle know?"


def task_map_figure(made: TaskMap, method: str = "tsne") -> go.Figure:
    """A point for each adapter of the zoo, coloured by task, and one for each sample.

    Args:
        method: ``"tsne"`` or ``"pca"``.
    """
    plane = made.projection.tsne if method == "tsne" else made.projection.pca
    zoo, figure = len(made.vectors), go.Figure()
    for n, task in enumerate(made.tasks):
        where = np.flatnonzero(made.owners == n)
        if not len(where):
            continue
        turn, symbol = divmod(n, len(PALETTE))
        said = label(task.descriptions[0] if task.descriptions else "", 90)
        hover = f"<b>{label(task.name, 48)}</b><br>{said}<br>{label(task.metric)}"
        figure.add_scatter(
            x=plane[where, 0],
            y=plane[where, 1],
            mode="markers",
            name=label(task.name, 24),
            marker=dict(
                size=9,
                opacity=0.9,
                symbol=TASK_SYMBOLS[(turn + symbol) % len(TASK_SYMBOLS)],
                color=PALETTE[symbol] if turn < len(TASK_SYMBOLS) else NO_COLOUR,
            ),
            meta=hover,
            hovertemplate="%{meta}<extra></extra>",
        )
    if len(made.samples):
        beside = [label(made.tasks[made.owners[i]].name, 48) for i in made.beside]
        figure.add_scatter(
            x=plane[zoo:, 0],
            y=plane[zoo:, 1],
            mode="markers",
            name="samples",
            marker=dict(size=12, symbol="diamond", color=ACCENT, line=dict(color=STRONG, width=1)),
            hovertext=[
                f"<b>sample {i + 1}</b><br>{label(made.description, 90)}<br>nearest: {name}, at {far:.2f}"
                for i, (name, far) in enumerate(zip(beside, made.distance, strict=True))
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return lay_out(figure, made.projection, method, height=500)
