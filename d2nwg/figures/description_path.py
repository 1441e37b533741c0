"""Figures of a path between two descriptions (`d2nwg.interpolation.descriptions`)."""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from torch import Tensor

from d2nwg.figures.base import INK, STRONG, ZOO, label, write_page
from d2nwg.figures.explore_map import LEGEND, OKABE_ITO
from d2nwg.interpolation.description_result import UNIT, DescriptionPath
from d2nwg.interpolation.methods import CONDITION, LABELS, WEIGHTS

LOOKS = {  # of a method: colour, symbol and dash; the baseline is grey, as everywhere
    CONDITION: (OKABE_ITO[0], "circle", "solid"),
    WEIGHTS: ("#8a7f73", "square", "dash"),
}
PLACES = ("to A's adapter", "to B's adapter", "to the nearest of the zoo")
QUESTIONS = {
    "scores-a": "What happens between? On the texts of A",
    "scores-b": "What happens between? On the texts of B",
    "distance": "How far is each point from A, B and the zoo?",
    "degrees": "How far does each adapter turn sentences?",
}


def score_figure(made: DescriptionPath, end: int, share: float | None = None) -> go.Figure | None:
    """The score of each point on the texts of an end, with that end's head; None without texts."""
    if end not in made.scored:
        return None
    accuracy = made.ends[end].metric == "accuracy"
    scale = 100 if accuracy else 1
    lines = [
        (LABELS[method], scale * stretch.scores[end], *LOOKS[method]) for method, stretch in made.stretches.items()
    ]
    title = "right, %" if accuracy else made.ends[end].metric
    figure = _lines(made, lines, title, share)
    plain = scale * float(made.plain[end])
    figure.add_scatter(
        x=[0, 1],
        y=[plain, plain],
        mode="lines",
        name="no adapter",
        line=dict(color=ZOO, width=1.5, dash="dot"),
        hovertemplate="no adapter<br>%{y:.2f}<extra></extra>",
    )
    return figure


def distance_figure(made: DescriptionPath, share: float | None = None) -> go.Figure:
    """Distances of the path by the condition to A's, B's and the nearest zoo adapter; by weights thin and dashed."""
    lines = []
    for method, stretch in made.stretches.items():
        _, symbol, dash = LOOKS[method]
        for name, values, colour in zip(PLACES, stretch.far, (OKABE_ITO[0], OKABE_ITO[1], ZOO), strict=True):
            shown = name if method == CONDITION else f"{name}, {LABELS[method]}"
            lines.append((shown, values, colour, symbol, dash))
    figure = _lines(made, lines, UNIT, share)
    for trace in figure.data:
        trace.showlegend = trace.line.dash == "solid"
    return figure


def degrees_figure(made: DescriptionPath, share: float | None = None) -> go.Figure:
    """By how many degrees the vectors of sentences are turned at each point."""
    lines = [(LABELS[method], stretch.degrees, *LOOKS[method]) for method, stretch in made.stretches.items()]
    return _lines(made, lines, "degrees, mean", share)


def _lines(
    made: DescriptionPath, lines: Sequence[tuple[str, Tensor, str, str, str]], title: str, share: float | None
) -> go.Figure:
    """A line each of (name, values (P,), colour, symbol, dash), and where the point is."""
    figure, x = go.Figure(), made.share.numpy()
    for name, values, colour, symbol, dash in lines:
        figure.add_scatter(
            x=x,
            y=values.numpy(),
            mode="lines+markers",
            name=label(name),
            marker=dict(size=6 if dash == "solid" else 5, symbol=symbol),
            line=dict(color=colour, width=2.5 if dash == "solid" else 1.5, dash=dash),
            meta=label(name),
            hovertemplate="%{meta}, %{x:.2f}<br>%{y:.2f}<extra></extra>",
        )
    if share is not None:
        figure.add_vline(x=share, line=dict(color=STRONG, width=1.5, dash="dot"))
    figure.update_layout(
        template="d2nwg",
        height=320,
        showlegend=True,
        legend=LEGEND,
        xaxis=dict(
            title=dict(text="from A to B", font=dict(color=INK)),
            range=[-0.03, 1.03],
            tickvals=[0, 0.25, 0.5, 0.75, 1],
            ticktext=["A", "¼", "½", "¾", "B"],
        ),
        yaxis=dict(title=title, rangemode="tozero"),
    )
    return figure


def all_figures(made: DescriptionPath, share: float | None = None) -> dict[str, go.Figure | None]:
    """Every figure by the key of its question; None where there is nothing to show."""
    return {
        "scores-a": score_figure(made, 0, share),
        "scores-b": score_figure(made, 1, share),
        "distance": distance_figure(made, share),
        "degrees": degrees_figure(made, share),
    }


def save_figures(made: DescriptionPath, folder: str | Path) -> list[Path]:
    """Write a page a figure, which need ``plotly.min.js`` beside them; returns the paths."""
    folder, said = Path(folder), " ".join(made.sentences())
    return [
        write_page(figure, folder / f"{name}.html", QUESTIONS[name], said, script="directory")
        for name, figure in all_figures(made).items()
        if figure is not None
    ]
