"""Figures of a refinement: the search as it goes, and what it is worth on the report set."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from d2nwg.figures import ACCENT, INK, RIVAL, STRONG, ZOO

COLOURS = {"base": ZOO, "refined": ACCENT, "noise": RIVAL}
NAMES = {"base": "base", "refined": "refined", "noise": "noise, chosen alike"}


def search_figure(lines: Sequence[Mapping], criterion: str = "accuracy") -> go.Figure:
    """Which layers got better? A dot a candidate, a ring round those kept, a line for the model as it then is.

    `lines` are those of the log (see `d2nwg.llm.refine.refine`), of both arms.
    """
    figure = go.Figure()
    scale, unit = 100, "selection questions right, %"
    if criterion != "accuracy":
        scale, unit = 1, "mean log-probability of the right choice"
    named = {line["number"]: f"{line['layer']} {line['type']}" for line in lines}
    for arm in ("noise", "refined"):
        mine = [line for line in lines if line["arm"] == arm]
        if not mine:
            continue
        shift = 0.16 if arm == "refined" else -0.16
        dots = [(line["number"] + shift, scale * tried["score"], line["accepted"] and i == line["best"])
                for line in mine for i, tried in enumerate(line["candidates"])]
        figure.add_scatter(
            x=[x for x, _, _ in dots], y=[y for _, y, _ in dots], mode="markers",
            hovertemplate="%{y:.2f}<extra></extra>",
            marker=dict(color=COLOURS[arm], size=8, opacity=0.75, symbol="circle" if arm == "refined" else "diamond",
                        line=dict(color=STRONG, width=[2.5 if kept else 0 for _, _, kept in dots])))
        steps = [mine[0]["number"] - 0.5, *(line["number"] + 0.5 for line in mine)]
        figure.add_scatter(
            x=steps, y=[scale * mine[0]["before"], *(scale * line["after"] for line in mine)], mode="lines",
            line=dict(color=COLOURS[arm], width=2, shape="vh", dash="solid" if arm == "refined" else "dot"),
            hoverinfo="skip")
        figure.add_annotation(x=steps[-1], y=scale * mine[-1]["after"], text=NAMES[arm], showarrow=False,
                              xanchor="right", yanchor="bottom" if arm == "refined" else "top",
                              font=dict(color=INK))
    numbers = sorted(named)
    figure.update_layout(
        template="d2nwg", height=300,
        xaxis=dict(title="layer and type, from the bottom of the model to its top", showgrid=False,
                   tickvals=numbers, ticktext=[named[number] for number in numbers]),
        yaxis=dict(title=unit))
    return figure


def report_figure(rows: Mapping[str, Mapping], questions: int) -> go.Figure:
    """Is it better where nothing was chosen? Accuracies (fractions) of base, refined model and noise with their 95 %
    intervals; `rows` as in the report of `d2nwg.llm.refine.refine`."""
    shown = [name for name in ("base", "refined", "noise") if name in rows]
    figure = go.Figure()
    for name in shown:
        value, (low, high) = rows[name]["accuracy"], rows[name]["interval"]
        figure.add_scatter(
            x=[100 * value], y=[NAMES[name]], mode="markers+text", text=[f"{100 * value:.1f} %"],
            textposition="top center", textfont=dict(color=STRONG), marker=dict(color=COLOURS[name], size=13),
            error_x=dict(type="data", symmetric=False, array=[100 * (high - value)], arrayminus=[100 * (value - low)],
                         color=COLOURS[name], thickness=2, width=7),
            hovertemplate=f"%{{x:.1f}} %, 95 % interval {100 * low:.1f} to {100 * high:.1f}<extra></extra>")
    figure.add_shape(type="line", x0=100 * rows["base"]["accuracy"], x1=100 * rows["base"]["accuracy"], y0=0, y1=1,
                     yref="paper", line=dict(color=STRONG, dash="dot", width=1))
    figure.update_layout(
        template="d2nwg", height=90 + 56 * len(shown),
        xaxis=dict(title=f"right on {questions:,} report questions, %"),
        yaxis=dict(range=[len(shown) - 0.5, -0.75], showgrid=False))
    return figure
