"""The figure of a map of named rows (`d2nwg.exploration.names`)."""

import numpy as np
import plotly.graph_objects as go

from d2nwg.conditions.class_names import class_of
from d2nwg.exploration.names import Found, NamedRowsMap
from d2nwg.figures.base import ACCENT, STRONG, ZOO, label
from d2nwg.figures.explore_map import MANY, lay_out
from d2nwg.pipelines.names import Near

WRITTEN = 40  # names at most that stand beside their points
PIXELS = np.array([700, 400])  # of the map, about
SIDES = {"top center": (0, 1), "bottom center": (0, -1), "middle right": (1, 0), "middle left": (-1, 0)}
WIDEST = 28  # characters of a name on the map


def question(made: NamedRowsMap) -> str:
    """What the map answers."""
    return "Where do your names lie among the known ones?" if made.names else "Which names does the zoo know?"


def name_map_figure(made: NamedRowsMap, method: str = "tsne", found: Found | None = None) -> go.Figure:
    """A point for each known row, and for each name of one's own; what was found is ringed.

    Args:
        method: ``"tsne"`` or ``"pca"``.
        found: what was searched for, in place of ``made.found``.
    """
    found = found or made.found
    known = made.projection.tsne if method == "tsne" else made.projection.pca
    own = made.tsne if method == "tsne" else made.pca
    figure, draw = go.Figure(), go.Scattergl if len(known) > MANY else go.Scatter
    of_set = np.array([bool(name.source) for name in made.known])
    hover = [f"<b>{label(name.name, 48)}</b><br>{label(name.source or name.label, 64)}" for name in made.known]
    for where, name, symbol in (
        (~of_set, "classifier's classes", "circle"),
        (of_set, "training sets' classes", "square"),
    ):
        if where.any():
            figure.add_trace(
                draw(
                    x=known[where, 0],
                    y=known[where, 1],
                    mode="markers",
                    name=name,
                    marker=dict(size=6, symbol=symbol, color=ZOO, opacity=0.7),
                    hovertext=[hover[i] for i in np.flatnonzero(where)],
                    hovertemplate="%{hovertext}<extra></extra>",
                )
            )
    labels = _Labels(np.concatenate([known, own]))
    if len(own):
        labels.add(own, [label(class_of(name), WIDEST) for name in made.names])
    if found:
        _add_found(figure, made, found, known, hover, labels)
    if len(own):
        figure.add_scatter(
            x=own[:, 0],
            y=own[:, 1],
            mode="markers",
            name="your names",
            marker=dict(size=12, symbol="diamond", color=ACCENT, line=dict(color="#ffffff", width=1)),
            hovertext=[
                f"<b>{label(class_of(name), 48)}</b><br>nearest: {_beside(made, near)}"
                for name, near in zip(made.names, made.nearest, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    labels.draw(figure)
    return lay_out(figure, made.projection, method, height=520)


def _add_found(
    figure: go.Figure, made: NamedRowsMap, found: Found, known: np.ndarray, hover: list[str], labels: "_Labels"
) -> None:
    spelled = dict(found.spelled)
    meant = {near.number: made.known[near.number].name for near in found.meant if near.number not in spelled}
    for group, name, symbol in ((spelled, "spelled so", "circle-open"), (meant, "near in meaning", "square-open")):
        if not group:
            continue
        numbers = list(group)
        labels.add(known[numbers], [label(lemma, WIDEST) for lemma in group.values()])
        figure.add_scatter(
            x=known[numbers, 0],
            y=known[numbers, 1],
            mode="markers",
            name=name,
            marker=dict(size=12, symbol=symbol, color=STRONG, line=dict(width=2)),
            hovertext=[hover[number] for number in numbers],
            hovertemplate="%{hovertext}<extra></extra>",
        )


class _Labels:
    """Texts beside points of a map, as many as do not cover each other; the first ones come first.

    Args:
        points: (n, 2) all points, whose bounds are the map's.
    """

    def __init__(self, points: np.ndarray):
        self._unit = np.maximum(np.ptp(points, axis=0), 1e-9) / PIXELS  # of the map, to a pixel
        self._boxes = np.zeros((0, 2, 2))  # lower left and upper right corners that are taken, in pixels
        self._texts: list[tuple[np.ndarray, str, str]] = []

    def add(self, points: np.ndarray, texts: list[str]) -> None:
        """Texts for points, each above or below, right or left of its own; left out where it would cover another."""
        middles = (points / self._unit)[:, None]
        self._boxes = np.concatenate([self._boxes, middles + np.array([[-5, -5], [5, 5]])])
        for point, text in zip(points, texts, strict=True):
            if len(self._texts) == WRITTEN:
                return
            half = np.array([3.6 * len(text), 8])
            for side, (x, y) in SIDES.items():
                middle = point / self._unit + np.array([x * (half[0] + 9), y * 16])
                low, high = middle - half, middle + half
                if not ((low < self._boxes[:, 1]) & (high > self._boxes[:, 0])).all(1).any():
                    self._boxes = np.concatenate([self._boxes, [[low, high]]])
                    self._texts.append((point, text, side))
                    break

    def draw(self, figure: go.Figure) -> None:
        """Write the texts."""
        if self._texts:
            points, texts, sides = zip(*self._texts, strict=True)
            figure.add_scatter(
                x=[point[0] for point in points],
                y=[point[1] for point in points],
                mode="markers+text",
                marker=dict(size=12, color="rgba(0,0,0,0)"),  # the texts keep away from the points
                text=texts,
                textposition=sides,
                textfont=dict(color=STRONG, size=13),
                hoverinfo="skip",
                showlegend=False,
            )


def _beside(made: NamedRowsMap, near: list[Near]) -> str:
    return ", ".join(f"{label(made.known[one.number].name, 32)} {one.cosine:.2f}" for one in near[:3])
