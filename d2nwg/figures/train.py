"""Plotly figures of a training as it goes, and of imported weights."""

from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from d2nwg.figures.base import ACCENT, BASELINE, INK, ZOO, label, percent

SHORT = {"vae": "VAE", "condition": "condition", "denoiser": "denoiser", "generator": "generator"}  # titles

SMOOTH = 12  # points from which on a line is smoothed
MOST = 400  # points a line; a long run is thinned to that
ACCURACIES = {
    "reconstructed_accuracy": ("reconstructions", "#0072b2", "circle"),
    "sampled_accuracy": ("samples", ACCENT, "diamond"),
    "held_out_accuracy": ("heads for data sets held out", ACCENT, "diamond"),
    "query_accuracy": ("heads in training", ZOO, "circle"),
}


def losses_figure(metrics: Sequence[dict]) -> go.Figure:
    """Is it still learning? The loss of each stage against its steps; `metrics` are the lines of metrics.jsonl."""
    stages: dict[str, list[tuple[int, float]]] = {}
    for line in metrics:
        if line.get("loss") is not None and "step" in line:
            stages.setdefault(line["stage"], []).append((line["step"], line["loss"]))
    figure = make_subplots(
        1, max(1, len(stages)), subplot_titles=[SHORT.get(name) or label(name) for name in stages] or None
    )
    for column, points in enumerate(stages.values(), 1):
        points = points[:: -(-len(points) // MOST)]
        steps, losses = zip(*points, strict=True)
        mean, smooth = losses[0], []
        for value in losses:
            mean = 0.8 * mean + 0.2 * value
            smooth.append(mean)
        line = dict(x=steps, mode="lines", hovertemplate="step %{x}<br>loss %{y:.4g}<extra></extra>")
        if len(losses) >= SMOOTH:
            figure.add_scatter(y=losses, line=dict(color=ZOO, width=1), opacity=0.5, row=1, col=column, **line)
        smooth = smooth if len(losses) >= SMOOTH else losses
        figure.add_scatter(y=smooth, line=dict(color=ACCENT, width=2), row=1, col=column, **line)
        logarithmic = min(losses) > 0 and max(losses) > 10 * min(losses)
        figure.update_yaxes(type="log" if logarithmic else "linear", nticks=5, row=1, col=column)
        figure.update_xaxes(title="step", nticks=4, row=1, col=column)
    figure.update_annotations(font=dict(size=13, color=INK))
    figure.update_yaxes(title="loss", row=1, col=1)
    figure.update_layout(template="d2nwg", height=230, margin=dict(t=28))
    return figure


def accuracies_figure(metrics: Sequence[dict]) -> go.Figure:
    """How good are the heads? Accuracy on images outside their support, beside that of the zoo's own heads."""
    figure, before, place = go.Figure(), 0, {}
    rows: dict[str, list[tuple[int, float]]] = {}
    level = None
    for line in metrics:  # stages follow one another on one axis
        stage = line.get("stage")
        if stage not in place and "steps" in line:
            place[stage] = before
            before += line["steps"]
        level = line.get("zoo_accuracy", level) if stage != "finished" else level
        for key in ACCURACIES:
            if key in line and stage != "finished":
                step = place.get(stage, 0) + line.get("step", before - place.get(stage, 0))
                rows.setdefault(key, []).append((step, 100 * line[key]))
    if "held_out_accuracy" in rows:
        rows.pop("query_accuracy", None)
    for key, points in rows.items():
        name, colour, symbol = ACCURACIES[key]
        points = points[:: -(-len(points) // MOST)]
        steps, values = zip(*points, strict=True)
        figure.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers+text",
            line=dict(color=colour, width=2),
            marker=dict(size=8, symbol=symbol),
            textposition="top left",
            text=[""] * (len(values) - 1) + [f"{name} {percent(values[-1] / 100)}"],
            textfont=dict(color=INK),
            cliponaxis=False,
            hovertemplate=f"{name}<br>step %{{x}}<br>%{{y:.1f}} %<extra></extra>",
        )
    if level is not None:
        figure.add_hline(
            100 * level,
            line=dict(color=BASELINE, dash="dot", width=1.5),
            annotation=dict(text=f"zoo heads {percent(level)}", font=dict(color=INK)),
            annotation_position="bottom right",
        )
    figure.update_layout(
        template="d2nwg",
        height=230,
        margin=dict(t=16),
        xaxis=dict(title="step, all stages", rangemode="tozero", nticks=6),
        yaxis=dict(title="right on held-aside images", ticksuffix=" %", nticks=5),
    )
    return figure


def weights_figure(groups: Sequence[dict]) -> go.Figure:
    """Are weight values distributed alike? A line an architecture; `groups` are of `d2nwg.weights.preview.preview`."""
    figure = go.Figure()
    for number, group in enumerate(groups[:6], 1):
        edges = group["histogram"]["edges"]
        centres = [(a + b) / 2 for a, b in pairwise(edges)]
        figure.add_scatter(
            x=centres,
            y=[100 * share for share in group["histogram"]["share"]],
            mode="lines",
            line=dict(width=2),
            name=f"architecture {number}",
            hovertemplate=f"architecture {number}<br>%{{x:.3f}}: %{{y:.2f}} %<extra></extra>",
        )
    figure.update_layout(
        template="d2nwg",
        height=200,
        showlegend=len(groups) > 1,
        legend=dict(orientation="h", x=0, y=1.03, yanchor="bottom", font=dict(size=12)),
        xaxis=dict(title="weight (the ends hold all beyond)"),
        yaxis=dict(title="share of weights", ticksuffix=" %", nticks=5),
    )
    return figure
