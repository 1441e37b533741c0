"""Figures of language models: signal-to-noise ratios by layer, the spectrum of a matrix, and of a refinement the search
and the accuracies on the report set."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from d2nwg.figures.base import ACCENT, BASELINE, INK, STRONG, ZOO, in_lines, label
from d2nwg.llm.architectures import TITLES, TYPES
from d2nwg.llm.report import NAMES

if TYPE_CHECKING:
    from d2nwg.llm.spectrum import Matrix, Ranked

GREENS = [[0, "rgba(0,158,115,0.06)"], [0.5, "rgba(0,143,104,0.5)"], [1, "rgba(0,103,76,1)"]]


def layers_figure(ranked: "Sequence[Ranked]", mode: str) -> go.Figure:
    """Layers × types: the signal-to-noise ratio of each matrix, coloured within its type; the chosen are ringed.

    Each cell's ``customdata`` is the matrix's name, for a click on it.
    """
    types = [kind for kind in TYPES if any(row.matrix.type == kind for row in ranked)]
    layers = sorted({row.matrix.layer for row in ranked})
    cells = {(row.matrix.layer, row.matrix.type): row for row in ranked}
    shade = np.full((len(types), len(layers)), np.nan)
    text = [["" for _ in layers] for _ in types]
    names = [["" for _ in layers] for _ in types]
    for i, kind in enumerate(types):
        ratios = [row.snr for row in ranked if row.matrix.type == kind and row.snr is not None]
        # One ratio may be a hundred times the others: the darkest shade begins where a tenth of them lies above.
        low, high = np.quantile(ratios, [0, 0.9]).tolist() if ratios else (0.0, 0.0)
        for j, layer in enumerate(layers):
            row = cells.get((layer, kind))
            if row is None:
                continue
            names[i][j] = row.matrix.name
            rows, columns = row.matrix.shape
            said = "no noise to compare with" if row.snr is None else f"signal to noise {row.snr:.3g}"
            place = f"<br>{row.rank} of {len(ratios)} of its type" + (", chosen" if row.chosen else "")
            text[i][j] = f"layer {layer}, {TITLES[kind]} ({rows} × {columns})<br>{said}" + (place if row.rank else "")
            if row.snr is not None:
                shade[i, j] = min(1.0, (row.snr - low) / (high - low)) if high > low else 0.5
    figure = go.Figure(
        go.Heatmap(
            z=shade,
            x=layers,
            y=[TITLES[kind] for kind in types],
            zmin=0,
            zmax=1,
            colorscale=GREENS,
            showscale=False,
            xgap=2,
            ygap=2,
            customdata=names,
            hovertext=text,
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    chosen = [row for row in ranked if row.chosen]
    figure.add_scatter(
        x=[row.matrix.layer for row in chosen],
        y=[TITLES[row.matrix.type] for row in chosen],
        customdata=[row.matrix.name for row in chosen],
        mode="markers",
        marker=dict(symbol="circle-open", size=11, color="#e69f00", line=dict(width=2.5)),
        hovertext=[text[types.index(row.matrix.type)][layers.index(row.matrix.layer)] for row in chosen],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.update_layout(
        template="d2nwg",
        height=110 + 34 * len(types),
        xaxis=dict(
            title=in_lines(f"layer · ratio: {label(mode)}"),
            showgrid=False,
            dtick=1 if len(layers) <= 12 else 5,
            range=[layers[0] - 0.5, layers[-1] + 0.5] if layers else None,  # no tick beyond the last one
        ),
        yaxis=dict(autorange="reversed", showgrid=False),
    )
    return figure


def spectrum_figure(matrix: "Matrix", mode: str) -> go.Figure:
    """One matrix's singular values as a histogram, the Marchenko-Pastur density of a random matrix of the same shape
    and noise, and the bound ε above which a value counts as signal."""
    from d2nwg.llm.spectrum import density, threshold

    values = np.asarray(matrix.values, np.float64)
    bound = threshold(values, matrix.shape, matrix.std, mode)
    x, law = density(matrix, mode)
    # The largest values may lie far out; the axis ends where all but a few are seen.
    end = max(float(np.quantile(values, 0.99)) * 1.1, 1.25 * bound, 1e-6)
    width = end / 60
    counts, edges = np.histogram(values[values <= end], bins=60, range=(0, end))
    figure = go.Figure()
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts / max(1, len(values)) / width,
        width=width * 0.92,
        marker=dict(color=[ACCENT if edge > bound else ZOO for edge in (edges[:-1] + edges[1:]) / 2], line_width=0),
        customdata=counts,
        hovertemplate="%{customdata} singular values near %{x:.3g}<extra></extra>",
    )
    if len(x):
        figure.add_scatter(
            x=x, y=law, mode="lines", line=dict(color="#d55e00", width=2), hoverinfo="skip", name="random matrix"
        )
    figure.add_shape(type="line", x0=bound, x1=bound, y0=0, y1=1, yref="paper", line=dict(color=STRONG, dash="dot"))
    figure.add_annotation(
        x=bound, y=1, yref="paper", text="ε", showarrow=False, xanchor="left", xshift=4, font=dict(color=INK)
    )
    beyond = int((values > end).sum())
    tail = f" ({beyond} larger, up to {values.max():.3g}, not shown)" if beyond else ""
    peak = max(float((counts / max(1, len(values)) / width).max()), float(law[1:-1].max()) if len(law) else 0.0)
    figure.update_layout(
        template="d2nwg",
        height=300,
        bargap=0,
        xaxis=dict(title=in_lines(f"singular value{tail}"), range=[0, end], showgrid=False),
        yaxis=dict(title="density", range=[0, 1.08 * peak]),
    )
    return figure


COLOURS = {
    "base": ZOO,
    "refined": ACCENT,
    "noise": BASELINE,
    "rank": "#cc79a7",
    "rebuilt": "#0072b2",
    "single": "#cc79a7",
    "soup": "#0072b2",
    "noised": BASELINE,
}
SYMBOLS = {
    "refined": "circle",
    "noise": "diamond",
    "rank": "square",
    "rebuilt": "triangle-up",
    "single": "square",
    "noised": "diamond",
}
SERIES = {  # name → arms, one after the other, and where its dots stand beside a layer's tick
    "rebuilt": (("rebuilt",), -0.24),
    "rank": (("rank",), -0.08),
    "single": (("single",), -0.24),
    "noise": (("noise",), 0.08),
    "noised": (("noised_whole", "noised"), 0.0),
    "refined": (("whole", "refined"), 0.24),
}


def search_figure(lines: Sequence[Mapping], criterion: str) -> go.Figure:
    """Which layers got better? A dot for each candidate, ringed where it was kept, faint where it was dropped before it
    was scored on all questions, and a line for the current score.

    Args:
        lines: of the log (see `d2nwg.llm.refine.refine`), of all arms.
        criterion: of the refinement (`RefineConfig.criterion`): scores are accuracies (fractions, shown in percent)
            or mean log-probabilities of the right choice.
    """
    figure = go.Figure()
    scale, unit = 100, "selection questions right, %"
    if criterion != "accuracy":
        scale, unit = 1, "mean log-probability of the right choice"
    most = max((tried.get("questions", 0) for line in lines for tried in line["candidates"]), default=0)
    named = {_place(line): _tick(line) for line in lines}
    for name, (arms, shift) in SERIES.items():
        mine = [line for line in lines if line["arm"] in arms]
        if not mine:
            continue
        dots = [
            (_place(line) + shift, scale * tried["score"], line["accepted"] and i == line["best"])
            for line in mine
            for i, tried in enumerate(line["candidates"])
        ]
        asked = [tried.get("questions", most) for line in mine for tried in line["candidates"]]
        figure.add_scatter(
            x=[x for x, _, _ in dots],
            y=[y for _, y, _ in dots],
            mode="markers",
            name=NAMES[name],
            showlegend=True,
            customdata=asked,
            hovertemplate="%{y:.2f}, of %{customdata} questions<extra></extra>" if most else "%{y:.2f}<extra></extra>",
            marker=dict(
                color=COLOURS[name],
                size=8,
                opacity=[0.75 if count == most else 0.25 for count in asked],
                symbol=SYMBOLS[name],
                line=dict(color=STRONG, width=[2.5 if kept else 0 for _, _, kept in dots]),
            ),
        )
        steps = [_place(mine[0]) - 0.5, *(_place(line) + 0.5 for line in mine)]
        figure.add_scatter(
            x=steps,
            y=[scale * mine[0]["before"], *(scale * line["after"] for line in mine)],
            mode="lines",
            line=dict(color=COLOURS[name], width=2, shape="vh", dash="solid" if name == "refined" else "dot"),
            hoverinfo="skip",
            showlegend=False,
        )
    numbers = sorted(named)
    figure.update_layout(
        template="d2nwg",
        height=320,
        showlegend=True,
        legend=dict(orientation="h", x=0, y=1.02, yanchor="bottom", traceorder="reversed"),
        xaxis=dict(
            title=in_lines("layer, from the bottom of the model to its top"),
            showgrid=False,
            tickvals=numbers,
            ticktext=[named[number] for number in numbers],
        ),
        yaxis=dict(title=in_lines(unit)),
    )
    return figure


def _place(line: Mapping) -> int:
    """Where a decision stands: what is decided for all layers at once comes before the first."""
    return -1 if line["type"] == "all" else line["number"]


def _tick(line: Mapping) -> str:
    if line["type"] == "all":
        return "all"
    return label(f"{line['layer']}" if line["type"] in ("layer", "layers") else f"{line['layer']} {line['type']}")


def report_figure(rows: Mapping[str, Mapping], questions: int) -> go.Figure:
    """Is it better where nothing was chosen? Accuracies of the base and all arms with their 95 % intervals.

    Args:
        rows: as in the report of `d2nwg.llm.refine.refine`; fractions.
        questions: how many are in the report set.
    """
    shown = [name for name in NAMES if name in rows]
    figure = go.Figure()
    for name in shown:
        value, (low, high) = rows[name]["accuracy"], rows[name]["interval"]
        figure.add_scatter(
            x=[100 * value],
            y=[NAMES[name]],
            mode="markers+text",
            text=[f"{100 * value:.1f} %"],
            textposition="top center",
            textfont=dict(color=STRONG),
            marker=dict(color=COLOURS[name], size=13),
            error_x=dict(
                type="data",
                symmetric=False,
                array=[100 * (high - value)],
                arrayminus=[100 * (value - low)],
                color=COLOURS[name],
                thickness=2,
                width=7,
            ),
            hovertemplate=f"%{{x:.1f}} %, 95 % interval {100 * low:.1f} to {100 * high:.1f}<extra></extra>",
        )
    figure.add_shape(
        type="line",
        x0=100 * rows["base"]["accuracy"],
        x1=100 * rows["base"]["accuracy"],
        y0=0,
        y1=1,
        yref="paper",
        line=dict(color=STRONG, dash="dot", width=1),
    )
    figure.update_layout(
        template="d2nwg",
        height=90 + 56 * len(shown),
        xaxis=dict(title=in_lines(f"right on {questions:,} report questions, %")),
        yaxis=dict(range=[len(shown) - 0.5, -0.75], showgrid=False),
    )
    return figure
