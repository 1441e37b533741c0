"""The figure of a fine-tuning (`d2nwg.evaluation.finetune_report`): accuracy of each start over epochs."""

import math

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from d2nwg.evaluation.finetune_report import GENERATED, RANDOM, Curve, FineTuneReport
from d2nwg.figures.base import ACCENT, BASELINE, label, percent

STYLES = {  # colour, dash: they differ by both
    GENERATED: (ACCENT, "solid"),
    RANDOM: (BASELINE, "dot"),
    "class_mean": ("#0072b2", "dash"),
    "ridge": ("#d55e00", "dashdot"),
    "ridge_all": ("#cc79a7", "longdash"),
    "average": ("#0072b2", "dash"),
    "nearest": ("#d55e00", "dashdot"),
    "noise": ("#e69f00", "dash"),
    "density": ("#cc79a7", "longdash"),
}
TICKS = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
MOST = 200  # points a line


def finetune_figure(report: FineTuneReport) -> go.Figure:
    """How soon is each start how good? A line a start, the mean over seeds, in a band of a standard deviation either
    side. The axis of epochs is that of log(1 + epoch): what a start is worth shows in the first ones."""
    figure = go.Figure()
    for curve in reversed(report.curves):  # the generated start is drawn last, over the others
        _draw(figure, report, curve)
    ends = [curve.at(0)[0] for curve in report.curves if curve.arm != RANDOM]
    ends += [curve.at(e)[0] for curve in report.curves for e in curve.epochs if e]
    room = max(0.01, 0.06 * (max(ends) - min(ends)))
    ticks = [tick for tick in TICKS if tick < 0.75 * report.epochs] + [report.epochs]
    figure.update_layout(
        template="d2nwg",
        height=340,
        showlegend=True,
        legend=dict(orientation="h", y=-0.2, yanchor="top", x=0, traceorder="reversed", itemclick=False),
        xaxis=dict(title="epochs", tickvals=[_place(tick) for tick in ticks], ticktext=[f"{tick:,}" for tick in ticks]),
        yaxis=dict(
            title=f"right on {report.num_test:,} test {report.noun}s",
            ticksuffix=" %",
            range=[100 * max(0.0, min(ends) - room), 100 * min(1.0, max(ends) + room)],
            nticks=6,
        ),
    )
    return figure


def _draw(figure: go.Figure, report: FineTuneReport, curve: Curve) -> None:
    colour, dash = STYLES.get(curve.arm, (BASELINE, "dot"))
    step = -(-len(curve.epochs) // MOST)
    epochs = sorted({*curve.epochs[::step], curve.epochs[-1]})
    found = [curve.at(epoch) for epoch in epochs]
    x, y = [_place(epoch) for epoch in epochs], [100 * mean for mean, _ in found]
    if len(report.seeds) > 1:
        low, high = ([100 * (mean + side * std) for mean, std in found] for side in (-1, 1))
        r, g, b = hex_to_rgb(colour)
        figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[*high, *reversed(low)],
            fill="toself",
            fillcolor=f"rgba({r},{g},{b},0.16)",
            mode="none",
            hoverinfo="skip",
            showlegend=False,
        )
    name = report.label(curve.arm)
    figure.add_scatter(
        x=x,
        y=y,
        name=label(name),
        mode="lines" if len(x) > 12 else "lines+markers",
        line=dict(color=colour, width=3 if curve.arm == GENERATED else 2, dash=dash),
        hovertext=[
            f"{label(name)}<br>after {epoch:,} epochs {percent(mean)}" + (f" ± {100 * std:.1f}" if std else "")
            for epoch, (mean, std) in zip(epochs, found, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _place(epoch: int) -> float:
    return math.log1p(epoch)
