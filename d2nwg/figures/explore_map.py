"""The map of an exploration, and how heads of each origin look in its figures.

Zoo heads are grey-blue squares, samples accent-coloured circles, heads trained on the same images warm diamonds; the
shapes alone are enough to read them.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from d2nwg.analysis.populations import SAMPLE, TRAINED, ZOO
from d2nwg.analysis.projections import Projection
from d2nwg.exploration.explore import Exploration
from d2nwg.exploration.look import View
from d2nwg.exploration.words import table
from d2nwg.figures.base import ACCENT, BASELINE, INK, LENGTHS, STRONG, in_lines, label, percent
from d2nwg.figures.base import ZOO as ZOO_COLOUR

NAMES = {ZOO: "zoo heads", SAMPLE: "samples", TRAINED: "trained on the same images"}
COLOURS = {ZOO: ZOO_COLOUR, SAMPLE: ACCENT, TRAINED: BASELINE}
SYMBOLS = {ZOO: "square", SAMPLE: "circle", TRAINED: "diamond"}
OKABE_ITO = ("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#009e73", "#8a7f73")
TASK_SYMBOLS = ("circle", "triangle-up", "diamond", "cross", "star", "triangle-down", "hexagon")
COLOUR_BY = ("origin", "task", "accuracy", "distance")
NO_COLOUR = "#8f8f8f"
MANY = 2000  # points, from which on they are drawn by the graphics card
LEGEND = dict(orientation="h", x=0, y=1.02, yanchor="bottom", font=dict(size=12, color=INK), itemsizing="constant")


def map_figure(
    found: Exploration,
    view: View,
    method: str = "tsne",
    colour: str = "origin",
    picked: Sequence[int] = (),
) -> go.Figure:
    """Do samples fall where trained weights lie? A point for each head.

    Args:
        method: ``"tsne"`` or ``"pca"``.
        colour: one of `COLOUR_BY`.
        picked: heads to ring.
    """
    columns = table(found, view)
    plane = view.projection.tsne if method == "tsne" else view.projection.pca
    figure = go.Figure()
    draw = go.Scattergl if len(view.rows) > MANY else go.Scatter
    hover = _hover(columns)
    size = 9 if len(view.rows) <= 600 else 6
    origin = np.array(columns["origin"])
    values = {
        "accuracy": 100 * np.array(columns["accuracy"], float),
        "distance": np.array(columns["distance_to_nearest_zoo_head"], float),
    }.get(colour)
    groups = (
        _task_groups(found, view)
        if colour == "task"
        else [(NAMES[name], origin == name, COLOURS[name], SYMBOLS[name]) for name in (ZOO, TRAINED, SAMPLE)]
    )
    for name, where, paint, symbol in groups:
        if not where.any():
            continue
        marker = dict(size=size, symbol=symbol, color=paint, opacity=0.8, line=dict(width=0))
        if values is not None:
            marker |= dict(color=values[where], coloraxis="coloraxis")
        figure.add_trace(
            draw(
                x=plane[where, 0],
                y=plane[where, 1],
                mode="markers",
                name=name,
                marker=marker,
                customdata=view.rows[where],
                showlegend=values is None,
                hovertext=[hover[i] for i in np.flatnonzero(where)],
                hovertemplate="%{hovertext}<extra></extra>",
                # what is not brushed stays in sight
                selected=dict(marker=dict(opacity=1)),
                unselected=dict(marker=dict(opacity=0.25)),
            )
        )
        if values is not None:  # the legend explains the shapes; their colours are those of the scale
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="markers",
                name=name,
                hoverinfo="skip",
                marker=dict(size=size, symbol=symbol, color=NO_COLOUR),
            )
    ringed = np.flatnonzero(np.isin(view.rows, list(picked)))
    if len(ringed):
        figure.add_scatter(
            x=plane[ringed, 0],
            y=plane[ringed, 1],
            mode="markers",
            hoverinfo="skip",
            showlegend=False,
            marker=dict(size=size + 7, color="rgba(0,0,0,0)", symbol="circle", line=dict(color=STRONG, width=2.5)),
        )
    lay_out(figure, view.projection, method, height=460)
    figure.update_layout(dragmode="lasso", uirevision=f"{method} {view.where} {view.part}")
    if values is not None:
        title = ("right, %" if colour == "accuracy" else "distance,<br>lengths") + "<br> "
        figure.update_layout(
            coloraxis=dict(
                colorscale="Viridis",
                colorbar=dict(
                    title=dict(text=title, font=dict(size=12, color=INK)),
                    thickness=12,
                    outlinewidth=0,
                    tickfont=dict(size=11, color=INK),
                ),
            )
        )
    return figure


def lay_out(figure: go.Figure, projection: Projection, method: str, height: int) -> go.Figure:
    """What every map has: its axes, a legend, and a plane that can be moved. Returns the figure.

    Args:
        method: ``"tsne"`` or ``"pca"``.
        height: pixels.
    """
    axes = ["t-SNE 1 (no unit)", "t-SNE 2 (no unit)"]
    if method == "pca":
        shares = [*projection.explained[:2], 0.0, 0.0]
        axes = [f"component {i + 1} ({percent(shares[i])} of the variance)" for i in (0, 1)]
    axis = dict(fixedrange=False, showticklabels=method == "pca")
    return figure.update_layout(
        template="d2nwg",
        height=height,
        showlegend=True,
        legend=LEGEND,
        dragmode="pan",
        hovermode="closest",
        uirevision=method,
        xaxis=dict(title=in_lines(axes[0]), **axis),
        yaxis=dict(title=in_lines(axes[1]), **axis),
    )


def _hover(columns: dict[str, list]) -> list[str]:
    texts = []
    for head, task, right, far in zip(
        columns["head"], columns["task"], columns["accuracy"], columns["distance_to_nearest_zoo_head"], strict=True
    ):
        lines = [f"<b>{label(head)}</b>", label(task, 48)]
        if np.isfinite(right):
            lines.append(f"right on {percent(right)}")
        if np.isfinite(far):
            lines.append(f"{far:.2f} {LENGTHS} from the nearest zoo head")
        texts.append("<br>".join(lines))
    return texts


def _task_groups(found: Exploration, view: View) -> list[tuple]:
    heads = found.heads.select(view.rows)
    groups = [("zoo heads (other tasks)", heads.origin == ZOO, ZOO_COLOUR, "square")]
    for i, task in enumerate(found.tasks):
        paint, symbol = OKABE_ITO[i % len(OKABE_ITO)], TASK_SYMBOLS[i % len(TASK_SYMBOLS)]
        name = label(task.name, 24)
        groups.append((name, (heads.task == i) & (heads.origin == SAMPLE), paint, symbol))
        groups.append((f"{name}, trained", (heads.task == i) & (heads.origin == TRAINED), paint, f"{symbol}-open"))
    return groups
