"""The map of an exploration, and how heads of each origin look in its figures.

Zoo heads are grey-blue squares, samples accent-coloured circles, heads trained on the same images warm diamonds, the
network that is handed out for a task an orange star; the shapes alone are enough to read them.
"""

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go

from d2nwg.analysis.populations import MADE, SAMPLE, TRAINED, ZOO
from d2nwg.analysis.projections import Projection
from d2nwg.exploration.look import View
from d2nwg.exploration.result import Exploration
from d2nwg.exploration.words import table
from d2nwg.figures.base import ACCENT, BASELINE, GRID, INK, STRONG, in_lines, label, percent
from d2nwg.figures.base import ZOO as ZOO_COLOUR

COLOURS = {ZOO: ZOO_COLOUR, SAMPLE: ACCENT, TRAINED: BASELINE, MADE: "#d55e00"}
SYMBOLS = {ZOO: "square", SAMPLE: "circle", TRAINED: "diamond", MADE: "star"}
OKABE_ITO = ("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#009e73", "#8a7f73")
TASK_SYMBOLS = ("circle", "triangle-up", "diamond", "cross", "star", "triangle-down", "hexagon")
COLOUR_BY = ("origin", "task", "accuracy", "distance")
NO_COLOUR = "#8f8f8f"
IN_SPACE = {  # plotly has fewer symbols in three dimensions
    "triangle-up": "square",
    "star": "x",
    "triangle-down": "diamond",
    "hexagon": "circle",
    "triangle-up-open": "square-open",
    "triangle-down-open": "diamond-open",
}
OPEN_IN_SPACE = ("circle-open", "square-open", "diamond-open")
FAINT = 0.12  # opacity of what does not match
ORDER = (ZOO, TRAINED, SAMPLE, MADE)  # in which they are drawn
MANY = 2000  # points, from which on they are drawn by the graphics card
LEGEND = dict(orientation="h", x=0, y=1.02, yanchor="bottom", font=dict(size=12, color=INK), itemsizing="constant")


def names(found: Exploration) -> dict[str, str]:
    """What the points of each origin are called."""
    return {
        ZOO: f"zoo {found.noun}s",
        SAMPLE: "samples",
        TRAINED: "trained on the same images",
        MADE: f"generated {found.noun}",
    }


def map_figure(
    found: Exploration,
    view: View,
    method: str = "tsne",
    colour: str = "origin",
    picked: Sequence[int] = (),
    matching: Collection[int] | None = None,
) -> go.Figure:
    """Do samples fall where trained weights lie? A point for each head, on a plane, or in space where the view has
    three dimensions.

    Args:
        method: ``"tsne"`` or ``"pca"``.
        colour: one of `COLOUR_BY`.
        picked: heads to ring.
        matching: heads that a search has found; the others are faint. None: there was no search.
    """
    columns = table(found, view)
    places = view.projection.tsne if method == "tsne" else view.projection.pca
    figure, solid = go.Figure(), view.projection.dimensions == 3
    hover = _hover(found, columns)
    size = (9 if len(view.rows) <= 600 else 6) // (3 if solid else 1)
    origin = np.array(columns["origin"])
    values = {
        "accuracy": 100 * np.array(columns["accuracy"], float),
        "distance": np.array(columns[f"distance_to_nearest_zoo_{found.noun}"], float),
    }.get(colour)
    called = names(found)
    groups = (
        _task_groups(found, view)
        if colour == "task"
        else [(called[name], origin == name, COLOURS[name], SYMBOLS[name]) for name in ORDER]
    )
    found_here = None if matching is None else np.isin(view.rows, list(matching))
    for name, where, paint, symbol in groups:
        for there, opacity in (
            ((where, 0.8),)
            if found_here is None
            else (
                (where & ~found_here, FAINT),
                (where & found_here, 0.9),
            )
        ):
            if not there.any():
                continue
            marker = dict(size=size, symbol=_symbol(symbol, solid), color=paint, opacity=opacity, line=dict(width=0))
            if values is not None:
                marker |= dict(color=values[there], coloraxis="coloraxis")
            look = dict(
                mode="markers",
                name=name,
                legendgroup=name,
                marker=marker,
                customdata=view.rows[there],
                showlegend=values is None and (opacity != FAINT or not (where & found_here).any()),
                hovertext=[hover[i] for i in np.flatnonzero(there)],
                hovertemplate="%{hovertext}<extra></extra>",
            )
            figure.add_trace(_points(places[there], look, solid, len(view.rows) > MANY))
        if values is not None and where.any():  # the legend explains the shapes; their colours are those of the scale
            marker = dict(size=size, symbol=_symbol(symbol, solid), color=NO_COLOUR)
            look = dict(mode="markers", name=name, hoverinfo="skip", marker=marker)
            figure.add_trace(_points(np.full((1, places.shape[1]), None), look, solid, False))
    ringed = np.flatnonzero(np.isin(view.rows, list(picked)))
    if len(ringed):
        ring = dict(color="rgba(0,0,0,0)", symbol="circle", line=dict(color=STRONG, width=2.5))
        ring = dict(color=STRONG, symbol="circle-open", line=dict(width=2.5)) if solid else ring
        look = dict(mode="markers", hoverinfo="skip", showlegend=False, marker=dict(size=size + 7, **ring))
        figure.add_trace(_points(places[ringed], look, solid, False))
    lay_out(figure, view.projection, method, height=460)
    figure.update_layout(dragmode="lasso", uirevision=f"{method} {view.where} {view.part} {places.shape[1]}")
    if values is not None:
        title = "right, %" if colour == "accuracy" else in_lines(f"distance, in {found.unit_words}", 14)
        figure.update_layout(
            coloraxis=dict(
                colorscale="Viridis",
                colorbar=dict(
                    title=dict(text=f"{title}<br> ", font=dict(size=12, color=INK)),
                    thickness=12,
                    outlinewidth=0,
                    tickfont=dict(size=11, color=INK),
                ),
            )
        )
    return figure


def _points(places: np.ndarray, look: dict, solid: bool, many: bool):
    """A trace of points (n, 2) or (n, 3)."""
    if solid:
        return go.Scatter3d(x=places[:, 0], y=places[:, 1], z=places[:, 2], **look)
    # what is not brushed stays in sight
    brushed = dict(selected=dict(marker=dict(opacity=1)), unselected=dict(marker=dict(opacity=0.25)))
    return (go.Scattergl if many else go.Scatter)(
        x=places[:, 0], y=places[:, 1], **look, **(brushed if "customdata" in look else {})
    )


def _symbol(symbol: str, solid: bool) -> str:
    """The nearest symbol that there is."""
    symbol = IN_SPACE.get(symbol, symbol) if solid else symbol
    return symbol.removesuffix("-open") if solid and symbol not in OPEN_IN_SPACE else symbol


def lay_out(figure: go.Figure, projection: Projection, method: str, height: int) -> go.Figure:
    """What every map has: its axes, a legend, and a plane that can be moved or a space that can be turned. Returns the
    figure.

    Args:
        method: ``"tsne"`` or ``"pca"``.
        height: pixels.
    """
    axes = [f"t-SNE {i + 1} (no unit)" for i in range(projection.dimensions)]
    if method == "pca":
        shares = [*projection.explained[:3], 0.0, 0.0, 0.0]
        axes = [f"component {i + 1} ({percent(shares[i])} of the variance)" for i in range(projection.dimensions)]
    axis = dict(fixedrange=False, showticklabels=method == "pca")
    if projection.dimensions == 3:
        axis = dict(
            showbackground=False,
            showline=True,
            linecolor=INK,
            gridcolor=GRID,
            zeroline=False,
            showspikes=False,
            color=INK,
        )
        axis |= dict(showticklabels=method == "pca", tickfont=dict(size=10), nticks=4)
        named = {
            f"{letter}axis": dict(title=dict(text=name.replace(" of the variance", ""), font=dict(size=11)), **axis)
            for letter, name in zip("xyz", axes, strict=True)
        }
        figure.update_layout(
            scene=dict(
                dragmode="turntable",
                aspectmode="cube",
                camera=dict(eye=dict(x=1.45, y=1.45, z=1.1)),  # far enough for the titles on a phone
                **named,
            )
        )
        return figure.update_layout(
            template="d2nwg", height=height, showlegend=True, legend=LEGEND, hovermode="closest", uirevision=method
        )
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


def _hover(found: Exploration, columns: dict[str, list]) -> list[str]:
    texts = []
    far_from = columns[f"distance_to_nearest_zoo_{found.noun}"]
    for head, task, right, far in zip(columns[found.noun], columns["task"], columns["accuracy"], far_from, strict=True):
        lines = [f"<b>{label(head)}</b>", label(task, 48)]
        if np.isfinite(right):
            lines.append(f"right on {percent(right)}")
        if np.isfinite(far):
            lines.append(f"{far:.2f} {found.unit_words} from the nearest zoo {found.noun}")
        texts.append("<br>".join(lines))
    return texts


def _task_groups(found: Exploration, view: View) -> list[tuple]:
    heads = found.heads.select(view.rows)
    groups = [(f"zoo {found.noun}s (other tasks)", heads.origin == ZOO, ZOO_COLOUR, "square")]
    for i, task in enumerate(found.tasks):
        paint, symbol = OKABE_ITO[i % len(OKABE_ITO)], TASK_SYMBOLS[i % len(TASK_SYMBOLS)]
        name = label(task.name, 24)
        groups.append((name, (heads.task == i) & (heads.origin == SAMPLE), paint, symbol))
        groups.append((f"{name}, trained", (heads.task == i) & (heads.origin == TRAINED), paint, f"{symbol}-open"))
        made = (heads.task == i) & (heads.origin == MADE)
        if made.any():
            groups.append((f"{name}, generated {found.noun}", made, STRONG, "star"))
    return groups
