"""Figures of a generation (`d2nwg.evaluation.report`, `d2nwg.evaluation.network_report`): its samples beside the
baselines, and its confusions."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from d2nwg.evaluation.network_report import NetworkReport
from d2nwg.evaluation.report import BASELINES, Report, SampleScore
from d2nwg.figures.base import ACCENT, BASELINE, INK, LENGTHS, STRONG, label, percent


def samples_figure(report: Report, picked: int | None = None) -> go.Figure:
    """How good are the samples? A dot for each sample, a line for the chosen head and for each baseline.

    Args:
        picked: the number of a sample to ring.
    """
    accuracy = report.query_accuracy
    average_of = f"average of {len(report.samples)}"
    rows = [("chosen", accuracy.chosen)]
    if not np.isclose(accuracy.chosen, accuracy.average):
        rows.append((average_of, accuracy.average))
    elif "average" in report.selection:
        rows = [(f"chosen: {average_of}", accuracy.chosen)]
    baselines = [(name, getattr(accuracy, key)) for key, name in BASELINES.items()]
    far = f"{LENGTHS} from the nearest zoo head"
    on = f"{report.num_query:,} held-out {report.noun}s"
    least = min(value for _, value in rows + baselines[:-1])  # all but a random head
    return _strip(rows, baselines, report.samples, least, far, on, picked)


def network_samples_figure(report: NetworkReport, picked: int | None = None) -> go.Figure:
    """`samples_figure` of generated networks: a line for the one that is handed out, for the same with its head made in
    the other way, and for each baseline."""
    right = report.query_accuracy
    if report.head == "closed-form":
        other = ("with a generated head", right.generated_head)
    else:
        other = ("with a closed-form head", right.closed_form_head)
    rows = [("generated network", right.network), other]
    far = "distances of zoo neighbours from the nearest zoo network"
    on = f"{report.num_query:,} held-out images"
    return _strip(rows, list(report.baselines().items()), report.samples, right.network - 0.3, far, on, picked)


def _strip(
    rows: list[tuple[str, float]],
    baselines: list[tuple[str, float]],
    samples: Sequence[SampleScore],
    least: float,
    far: str,
    on: str,
    picked: int | None,
) -> go.Figure:
    """Dots of samples above lines of what is ours, the first of which is handed out, and of baselines, the last of
    which is random. Lines below ``least`` may lie at the edge; ``far`` is what distances are in and from, ``on`` what
    all were scored on."""
    ours, random = len(rows), baselines[-1][1]
    values = np.array([sample.accuracy for sample in samples])
    rows = rows + baselines
    # The axis is for comparing samples with baselines: those far to the left are named at the edge.
    shown = np.concatenate([values, [value for _, value in rows if value >= least]])
    room = 0.08 * np.ptp(shown) if np.ptp(shown) > 0.01 else 0.01
    low, high = max(0.0, shown.min() - room), min(1.0, shown.max() + room)
    low = low if low - random > 0.15 else max(0.0, random - room)

    figure = go.Figure()
    for i, (name, value) in enumerate(rows):
        y, off = -i, value < low
        if not off:
            figure.add_shape(
                type="line",
                x0=100 * value,
                x1=100 * value,
                y0=y,
                y1=2.9,
                layer="below",
                line=dict(
                    color=ACCENT if i < ours else BASELINE,
                    width=1.5 if i < ours else 1,
                    dash="solid" if i < ours else "dot",
                ),
            )
        figure.add_scatter(
            x=[100 * max(value, low + 0.015 * (high - low))],
            y=[y],
            mode="markers+text",
            cliponaxis=False,
            text=[f"<b>{percent(value)}</b>" if i == 0 else percent(value)],
            textposition="middle right" if value < high - 0.25 * (high - low) else "middle left",
            textfont=dict(color=STRONG if i == 0 else INK),
            marker=dict(
                size=13 if i < ours else 9,
                color=ACCENT if i < ours else BASELINE,
                symbol=("triangle-left" if off else "diamond" if i == 0 else "circle" if i < ours else "square"),
                line=dict(color=STRONG, width=2 if i == 0 else 0),
            ),
            hovertemplate=f"{name}<br>{percent(value)}<extra></extra>",
        )

    jitter = np.random.default_rng(0).permutation(len(values)) / max(1, len(values) - 1) * 1.5 + 1.15
    distances = [sample.nearest_zoo_distance for sample in samples]
    figure.add_scatter(
        x=100 * values,
        y=jitter,
        mode="markers",
        cliponaxis=False,
        marker=dict(
            size=9,
            color=ACCENT,
            opacity=0.65,
            line=dict(color=STRONG, width=[2.5 if i == picked else 0 for i in range(len(values))]),
        ),
        hovertext=[
            f"sample {i}<br>{percent(v)}" + (f"<br>{d:.2f} {far}" if d is not None else "")
            for i, (v, d) in enumerate(zip(values, distances, strict=True))
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    names = [f"{len(values)} samples" if len(values) > 1 else "1 sample", *(name for name, _ in rows)]
    figure.update_layout(
        template="d2nwg",
        height=150 + 30 * len(rows),
        xaxis=dict(
            range=[100 * low, 100 * high],
            ticksuffix=" %",
            title=f"right on {on}",
        ),
        yaxis=dict(
            range=[0.6 - len(rows), 3], tickvals=[1.9, *(-i for i in range(len(rows)))], ticktext=names, showgrid=False
        ),
    )
    return figure


def confusion_figure(confusion: np.ndarray, classes: Sequence[str], width: int = 16) -> go.Figure:
    """Which classes does the head confuse? `confusion` (C, C) are counts, rows = true class, columns = predicted."""
    counts = np.asarray(confusion)
    n = len(classes)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    full, step = [label(name, 60) for name in classes], max(1, -(-n // 25))
    ticks = dict(
        tickvals=list(range(0, n, step)), ticktext=[label(name, width) for name in classes[::step]], showgrid=False
    )
    figure = go.Figure(
        go.Heatmap(
            z=share,
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(0,158,115,0)"], [0.5, "rgba(0,143,104,0.55)"], [1, "rgba(0,103,76,1)"]],
            showscale=False,
            xgap=1,
            ygap=1,
            hovertext=[
                [
                    f"{full[i]} taken for {full[j]}<br>{counts[i, j]} of {counts[i].sum()}"
                    if i != j
                    else f"{full[i]} recognised<br>{counts[i, i]} of {counts[i].sum()}"
                    for j in range(n)
                ]
                for i in range(n)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    if n <= 12:
        for dark, colour in ((True, "#ffffff"), (False, STRONG)):
            i, j = np.nonzero((counts > 0) & ((share > 0.62) == dark))
            figure.add_scatter(
                x=j,
                y=i,
                text=[str(c) for c in counts[i, j]],
                mode="text",
                hoverinfo="skip",
                textfont=dict(color=colour, size=12),
            )
    long = n > 6 and max(map(len, classes)) > 3
    small = dict(tickfont=dict(size=11)) if n > 12 else {}
    figure.update_layout(
        template="d2nwg",
        height=int(np.clip(130 + 28 * n, 300, 560)),
        xaxis=dict(
            title="predicted",
            range=[-0.5, n - 0.5],
            tickangle=0 if not long else -90 if small else -45,
            **ticks,
            **small,
        ),
        yaxis=dict(title="true", range=[n - 0.5, -0.5], **ticks, **small),
    )
    return figure
