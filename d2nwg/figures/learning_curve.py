"""The figure of a learning curve (`d2nwg.learning_curve`): accuracy over the number of labelled items a class."""

import math

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from d2nwg.figures.base import ACCENT, label, percent
from d2nwg.learning_curve import ARMS, GENERATED, LearningCurve

STYLES = {  # colour, dash: they differ by both
    GENERATED: (ACCENT, "solid"),
    "class_mean": ("#0072b2", "dash"),
    "ridge": ("#d55e00", "dashdot"),
    "logistic_regression": ("#cc79a7", "dot"),
}


def learning_curve_figure(curve: LearningCurve) -> go.Figure:
    """How good with how many labelled items? A line for the generated head and for each baseline: the mean over the
    draws, with bars of a standard deviation either side. The axis of items is logarithmic."""
    figure = go.Figure()
    means = [100 * curve.at(arm, place)[0] for arm in ARMS for place in range(len(curve.shots))]
    room = max(1.0, 0.06 * (max(means) - min(means)))
    for turn, arm in enumerate(reversed(ARMS)):  # the generated head is drawn last, over the others
        _draw(figure, curve, arm, turn)
    ends = [math.log10(curve.shots[0]) - 0.08, math.log10(curve.shots[-1]) + 0.08]
    figure.update_layout(
        template="d2nwg",
        height=320,
        showlegend=True,
        legend=dict(orientation="h", y=-0.22, yanchor="top", x=0, traceorder="reversed", itemclick=False),
        xaxis=dict(
            title=f"labelled {curve.noun}s a class",
            type="log",
            range=ends,
            tickvals=curve.shots,
            ticktext=[f"{count:,}" for count in curve.shots],
        ),
        yaxis=dict(
            title=f"right on other {curve.noun}s",
            ticksuffix=" %",
            range=[max(0.0, min(means) - room), min(100.0, max(means) + room)],
            nticks=6,
        ),
    )
    return figure


def _draw(figure: go.Figure, curve: LearningCurve, arm: str, turn: int) -> None:
    colour, dash = STYLES[arm]
    found = [curve.at(arm, place) for place in range(len(curve.shots))]
    r, g, b = hex_to_rgb(colour)
    draws = len(curve.seeds)
    figure.add_scatter(
        x=[count * 1.012 ** (turn - 1.5) for count in curve.shots],  # a little apart, or the bars hide each other
        y=[100 * mean for mean, _ in found],
        error_y=dict(
            array=[100 * spread for _, spread in found], visible=draws > 1, color=f"rgba({r},{g},{b},0.55)", width=3
        ),
        name=ARMS[arm],
        mode="lines+markers",
        line=dict(color=colour, width=3 if arm == GENERATED else 2, dash=dash),
        hovertext=[
            f"{label(ARMS[arm])}<br>with {count:,} a class {percent(mean)}"
            + (f" ± {100 * spread:.1f}" if spread else "")
            for count, (mean, spread) in zip(curve.shots, found, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
