"""Figures of an exploration (`d2nwg.exploration.explore`); each answers the question that is its title."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from d2nwg.analysis.populations import MADE, SAMPLE, TRAINED, ZOO
from d2nwg.evaluation.zoo_baselines import AVERAGE, NOISE, RANDOM
from d2nwg.exploration.look import View
from d2nwg.exploration.result import Exploration
from d2nwg.figures.base import ACCENT, BASELINE, INK, STRONG, in_lines, label, write_page
from d2nwg.figures.base import ZOO as ZOO_COLOUR
from d2nwg.figures.explore_map import COLOURS, LEGEND, ORDER, SYMBOLS, map_figure, names

BASELINE_SYMBOLS = {ZOO: "square", NOISE: "x", AVERAGE: "triangle-up", RANDOM: "cross"}
BASELINE_COLOURS = {ZOO: ZOO_COLOUR, NOISE: "#a6761d", AVERAGE: "#5e5348", RANDOM: "#b3a99c"}
MOST_ACROSS = 4  # panels in a row
DEEP = 0.2  # how far a row's dots lie from its middle, in rows
QUESTIONS = {
    "map": "Do samples fall where trained weights lie?",
    "densities": "Are weight values distributed alike?",
    "novelty": "Do samples copy the zoo?",
    "accuracies": "How good are zoo, samples and random weights?",
    "similarity": "Which ones are similar?",
}


def baseline_names(found: Exploration) -> dict[str, str]:
    """What the baselines are called."""
    head = found.noun
    if head == "network":
        return {
            ZOO: "zoo networks, last layer fitted",
            NOISE: "nearest zoo network + noise",
            AVERAGE: "average of three zoo networks",
            RANDOM: "random vectors",
        }
    return {
        ZOO: "zoo heads as they are",
        NOISE: "nearest zoo head + noise",
        AVERAGE: "average of three zoo heads",
        RANDOM: "random vectors",
    }


def density_figure(found: Exploration) -> go.Figure:
    """Are weight values distributed alike? A panel for each tensor, a line for each origin."""
    from plotly.subplots import make_subplots

    tensors, called = list(found.densities), names(found)
    across = len(tensors) if len(tensors) <= MOST_ACROSS else 2
    down = -(-len(tensors) // across)
    figure = make_subplots(
        rows=down,
        cols=across,
        horizontal_spacing=0.12 / max(1, across - 1),
        vertical_spacing=0.36 / max(3, down),
    )
    dashes = {ZOO: "solid", SAMPLE: "solid", TRAINED: "dot"}
    for number, tensor in enumerate(tensors):
        place = dict(row=number // across + 1, col=number % across + 1)
        edges, heights = found.densities[tensor]
        middle = (edges[1:] + edges[:-1]) / 2
        for origin, height in heights.items():
            figure.add_scatter(
                x=middle,
                y=height,
                mode="lines",
                name=called[origin],
                legendgroup=origin,
                showlegend=number == 0,
                line=dict(color=COLOURS[origin], width=2.5 if origin == SAMPLE else 2, dash=dashes[origin]),
                fill="tozeroy" if origin == ZOO else None,
                fillcolor="rgba(111,134,166,0.18)",
                **place,
                meta=label(tensor),
                hovertemplate=f"{called[origin]}<br>%{{meta}} = %{{x:.3f}}<br>density %{{y:.2f}}<extra></extra>",
            )
        figure.update_xaxes(title=f"value of {label(tensor)}", **place)
        if down > 1:  # narrow panels, one above the other: ticks that are turned would reach the next
            figure.update_xaxes(nticks=4, tickangle=0, **place)
    figure.update_yaxes(title="density", col=1)
    figure.update_layout(
        template="d2nwg",
        height=370 if down == 1 else 60 + 190 * down,
        showlegend=True,
        legend=LEGEND,
        hovermode="closest",
    )
    return figure


def novelty_figure(found: Exploration, picked: Sequence[int] = ()) -> go.Figure:
    """Do samples copy the zoo? Accuracy on the tasks against the distance to the nearest zoo head, for samples, heads
    trained on the same images and baselines made from the zoo.

    Args:
        picked: heads to ring.
    """
    heads, figure, called, others = found.heads, go.Figure(), names(found), baseline_names(found)
    for name in (ZOO, AVERAGE, NOISE):
        baseline = found.baselines[name]
        figure.add_scatter(
            x=baseline.distance,
            y=100 * baseline.accuracy,
            mode="markers",
            name=others[name],
            marker=dict(size=8, symbol=BASELINE_SYMBOLS[name], color=BASELINE_COLOURS[name], opacity=0.7),
            hovertemplate=f"{others[name]}<br>right on %{{y:.1f}} %<br>distance %{{x:.2f}}<extra></extra>",
        )
    for origin in (TRAINED, SAMPLE, MADE):
        rows = heads.of(origin)
        if not len(rows):
            continue
        figure.add_scatter(
            x=found.distance[rows],
            y=100 * heads.accuracy[rows],
            mode="markers",
            name=called[origin],
            customdata=rows,
            marker=dict(
                size=8 if origin != MADE else 11,
                symbol=SYMBOLS[origin],
                color=COLOURS[origin],
                opacity=0.75,
                line=dict(color=STRONG, width=[2.5 if row in picked else 0 for row in rows.tolist()]),
            ),
            hovertext=[f"<b>{label(found.name(i))}</b><br>{label(found.task_name(i), 48)}" for i in rows.tolist()],
            hovertemplate="%{hovertext}<br>right on %{y:.1f} %<br>distance %{x:.2f}<extra></extra>",
        )
    chance = float(np.mean([1 / task.count for task in found.tasks]))
    figure.add_hline(
        y=100 * chance,
        line=dict(color=BASELINE, width=1, dash="dot"),
        annotation=dict(text="chance", font=dict(color=INK, size=12)),
        annotation_position="bottom right",
    )
    images = sum(len(task.labels) for task in found.tasks)
    figure.update_layout(
        template="d2nwg",
        height=340,
        showlegend=True,
        legend=LEGEND,
        hovermode="closest",
        xaxis=dict(
            title=in_lines(f"distance to the nearest zoo {found.noun}, in {found.unit_words}"), rangemode="tozero"
        ),
        yaxis=dict(title=f"right on {images:,} held-out images", ticksuffix=" %"),
    )
    return figure


def accuracy_figure(found: Exploration) -> go.Figure:
    """How good are zoo, samples and random heads? A row of dots for each, the median as a line."""
    heads = found.heads
    own = heads.of(ZOO)[np.isin(heads.counts[heads.of(ZOO)], found.compared)]
    rows = [("samples", heads.accuracy[heads.of(SAMPLE)], ACCENT, "circle")]
    if len(made := heads.of(MADE)):
        rows.append((f"generated {found.noun}{'s' if len(made) > 1 else ''}", heads.accuracy[made], COLOURS[MADE], "x"))
    if len(trained := heads.of(TRAINED)):
        rows.append(("trained, same images", heads.accuracy[trained], BASELINE, "diamond"))
    rows += [
        ("zoo, their own tasks", heads.accuracy[own], ZOO_COLOUR, "square-open"),
        ("zoo, these tasks", found.baselines[ZOO].accuracy, ZOO_COLOUR, "square"),
        ("random vectors", found.baselines[RANDOM].accuracy, BASELINE_COLOURS[RANDOM], "cross"),
    ]
    figure, rng = go.Figure(), np.random.default_rng(0)
    for i, (name, values, paint, symbol) in enumerate(rows):
        values = np.asarray(values, float)
        values = 100 * values[np.isfinite(values)]
        if not len(values):  # a bundle may not record how good its zoo was
            continue
        middle = float(np.median(values))
        figure.add_scatter(
            x=values,
            y=-i + rng.uniform(-DEEP, DEEP, len(values)),
            mode="markers",
            name=name,
            cliponaxis=False,
            marker=dict(size=7, color=paint, symbol=symbol, opacity=0.55),
            hovertemplate=f"{name}<br>right on %{{x:.1f}} %<extra></extra>",
        )
        figure.add_shape(
            type="line",
            x0=middle,
            x1=middle,
            y0=-i - DEEP - 0.08,
            y1=-i + DEEP + 0.08,
            line=dict(color=STRONG, width=2.5),
        )
        figure.add_scatter(
            x=[middle],
            y=[-i + 0.46],  # above the dots: a row is 56 pixels, a dot 7, and this text 12 high
            mode="text",
            text=[f"median {middle:.1f}\u00a0%"],
            textposition="middle right" if middle < 60 else "middle left",
            cliponaxis=False,
            textfont=dict(color=INK, size=12),
            hoverinfo="skip",
        )
    figure.update_layout(
        template="d2nwg",
        height=90 + 56 * len(rows),
        xaxis=dict(title="right on held-out images", ticksuffix=" %", rangemode="tozero"),
        yaxis=dict(
            tickvals=[-i for i in range(len(rows))],
            ticktext=[row[0] for row in rows],
            showgrid=False,
            range=[0.4 - len(rows), 0.75],
        ),
    )
    return figure


def similarity_figure(found: Exploration, view: View) -> go.Figure:
    """Which heads are similar? Cosines between heads, in the order of a clustering."""
    values, rows = view.similarity
    n, called = len(rows), names(found)
    origin = found.heads.origin[rows]
    each = [f"{label(found.name(i))}, {label(found.task_name(i), 32)}" for i in rows.tolist()]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            zmin=-1,
            zmax=1,
            colorscale="PuOr_r",
            hoverongaps=False,
            text=[[f"{a}<br>{b}" for b in each] for a in each] if n <= 150 else None,
            hovertemplate="%{text}<br>cosine %{z:.2f}<extra></extra>",
            colorbar=dict(
                title=dict(text="cosine", font=dict(size=12, color=INK)),
                thickness=12,
                outlinewidth=0,
                tickfont=dict(size=11, color=INK),
            ),
        )
    )
    for name in ORDER:  # what each row is, along the left edge
        where = np.flatnonzero(origin == name)
        if len(where):
            figure.add_scatter(
                x=np.full(len(where), -1.8),
                y=where,
                mode="markers",
                name=called[name],
                cliponaxis=False,
                hovertext=[each[i] for i in where],
                hovertemplate="%{hovertext}<extra></extra>",
                marker=dict(size=6, symbol=SYMBOLS[name], color=COLOURS[name]),
            )
    axis = dict(showticklabels=False, showgrid=False)
    figure.update_layout(
        template="d2nwg",
        height=440,
        showlegend=True,
        legend=LEGEND,
        hovermode="closest",
        xaxis=dict(range=[-3.2, n - 0.5], title=in_lines(f"{n} {found.noun}s, in the order of a clustering"), **axis),
        yaxis=dict(range=[n - 0.5, -0.5], **axis),
    )
    return figure


def all_figures(found: Exploration, view: View, colour: str = "origin", method: str = "tsne") -> dict[str, go.Figure]:
    """Every figure by its name in `QUESTIONS`."""
    return {
        "map": map_figure(found, view, method, colour),
        "densities": density_figure(found),
        "novelty": novelty_figure(found),
        "accuracies": accuracy_figure(found),
        "similarity": similarity_figure(found, view),
    }


def write_html(figure: go.Figure, path: Path, name: str, under: str = "", script: bool | str = True) -> Path:
    """The figure of that name in `QUESTIONS` as a page of its own, see `d2nwg.figures.base.write_page`."""
    return write_page(figure, path, QUESTIONS[name], under, script)
