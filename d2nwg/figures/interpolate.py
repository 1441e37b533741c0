"""Plotly figures of a `d2nwg.interpolation.result.Interpolation`, with the template and colours of `base`."""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch

from d2nwg.figures.base import ACCENT, BASELINE, INK, STRONG, ZOO, in_lines, label
from d2nwg.interpolation.methods import CONDITION, CONDITION_SPHERICAL, LABELS, LATENT, WEIGHTS
from d2nwg.interpolation.result import Interpolation

COLOURS = {CONDITION: ACCENT, CONDITION_SPHERICAL: "#0072b2", LATENT: "#cc79a7", WEIGHTS: BASELINE}
DASHES = {CONDITION: "solid", CONDITION_SPHERICAL: "dash", LATENT: "dashdot", WEIGHTS: "dot"}
LEGEND = dict(orientation="h", x=0, y=1.03, yanchor="bottom", font=dict(size=12))  # above: nothing there to cover
UNSEEN = "rgba(213,94,0,0.13)"


def curves_figure(made: Interpolation, endpoint: int, alpha: float | None = None) -> go.Figure:
    """What happens between? Accuracy along the path on one endpoint's images.

    A line for each method, with a band of one standard deviation over seeds; shaded where every interpolated condition
    is outside of what was seen.

    Args:
        endpoint: which of those with images.
        alpha: a point to mark.
    """
    figure, x = go.Figure(), made.alpha.numpy()
    for low, high in _unseen(made):
        figure.add_vrect(x0=low, x1=high, fillcolor=UNSEEN, line_width=0, layer="below")
    for method, paths in made.paths.items():
        values = 100 * paths.accuracy[endpoint].numpy()
        mean, spread = values.mean(0), values.std(0)
        band = np.concatenate([mean + spread, (mean - spread)[::-1]])
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=band.clip(0, 100),
            mode="lines",  # plotly marks the corners of a short one
            fill="toself",
            fillcolor=_faint(COLOURS[method]),
            line_width=0,
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=x,
            y=mean,
            mode="lines",
            name=LABELS[method],
            line=dict(color=COLOURS[method], width=2.5, dash=DASHES[method]),
            customdata=spread,
            hovertemplate=f"{LABELS[method]}, %{{x:.2f}}<br>%{{y:.1f}} ± %{{customdata:.1f}} %<extra></extra>",
        )
    if alpha is not None:
        figure.add_vline(x=alpha, line=dict(color=STRONG, width=2))
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        xaxis=_path_axis(made),
        yaxis=dict(ticksuffix=" %", title="right on held-out images", rangemode="normal"),
    )
    return figure


def barrier_figure(made: Interpolation) -> go.Figure:
    """How deep is the valley? The barrier of each method, in points of accuracy, on the images of each of the first
    two endpoints and for the mean of both; whiskers are one standard deviation over seeds."""
    names = [f"on {label(name, 22)}" for name in made.scored[:2]]
    rows = list(range(len(names)))
    if len(rows) > 1:
        names, rows = [*names, "on both"], [*rows, -1]
    figure = go.Figure()
    for method, paths in made.paths.items():
        bars = 100 * paths.barrier[rows].numpy()
        figure.add_bar(
            x=names,
            y=bars.mean(1),
            error_y=dict(
                type="data",
                symmetric=False,
                array=bars.std(1),
                arrayminus=np.minimum(bars.std(1), bars.mean(1)),
                color=INK,
                thickness=1.2,
                width=3,
            ),
            name=LABELS[method],
            marker_color=COLOURS[method],
            hovertemplate=f"{LABELS[method]}, %{{x}}<br>%{{y:.1f}} points<extra></extra>",
        )
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        bargap=0.3,
        yaxis=dict(title="points under the straight line", rangemode="tozero"),
    )
    if max(float(paths.barrier.max()) for paths in made.paths.values()) < 0.001:
        figure.update_yaxes(range=[0, 5])
        figure.add_annotation(text="no method has a drop", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def distance_figure(made: Interpolation) -> go.Figure | None:
    """Is the path outside of what was seen? Distance of each interpolated condition to the nearest one of the zoo.

    95 % of the zoo's conditions are nearer to another one than the dotted line. None where the bundle keeps none.
    """
    known = {method: paths for method, paths in made.paths.items() if paths.distance is not None}
    if not known:
        return None
    figure, x = go.Figure(), made.alpha.numpy()
    top = 1.15 * max(made.radius, *(float(paths.distance.max()) for paths in known.values()))
    figure.add_hrect(y0=made.radius, y1=top, fillcolor=UNSEEN, line_width=0, layer="below")
    figure.add_hline(y=made.radius, line=dict(color=ZOO, width=1.5, dash="dot"))
    figure.add_annotation(
        x=1, y=made.radius, xanchor="right", yanchor="bottom", showarrow=False, text="95 % of the tasks seen lie below"
    )
    for method, paths in known.items():
        figure.add_scatter(
            x=x,
            y=paths.distance.numpy(),
            mode="lines+markers",
            name=LABELS[method],
            marker=dict(size=7, symbol=["x" if out else "circle" for out in paths.outside.tolist()]),
            line=dict(color=COLOURS[method], width=2, dash=DASHES[method]),
            hovertemplate=f"{LABELS[method]}, %{{x:.2f}}<br>%{{y:.2f}}<extra></extra>",
        )
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        xaxis=_path_axis(made),
        yaxis=dict(title="distance to the nearest task seen", range=[0, top]),
    )
    return figure


def map_figure(made: Interpolation, alpha: float | None = None) -> go.Figure | None:
    """Where does the path run? The conditions of the zoo's tasks and of the paths, on the first two principal
    components of the zoo's. None where the bundle keeps none."""
    seen = made.mixer.zoo_conditions
    lines = {method: paths.condition for method, paths in made.paths.items() if paths.condition is not None}
    return None if seen is None or not lines else _map(made, seen.detach().cpu(), lines, "task", "conditions", alpha)


def weights_map_figure(made: Interpolation, alpha: float | None = None) -> go.Figure | None:
    """The same for weights: the zoo's heads with as many classes, or networks, in the space of Explore's map, and the
    paths'."""
    found = made.in_weights()
    return None if found is None else _map(made, *found, made.mixer.noun, "weights", alpha)


def _map(made: Interpolation, seen, lines: dict, dot: str, of: str, alpha: float | None) -> go.Figure:
    """``seen`` (Z, n) and each path of ``lines`` (P, n) on the first two principal components of the former."""
    centre = seen.mean(0)
    axes = torch.linalg.svd(seen - centre, full_matrices=False)[2][:2]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # a sign that does not flip
    dots = ((seen - centre) @ axes.T).numpy()
    figure = go.Figure()
    figure.add_scattergl(
        x=dots[:, 0],
        y=dots[:, 1],
        mode="markers",
        name=f"{dot}s of the zoo",
        marker=dict(size=5, color=ZOO, opacity=0.45),
        hovertemplate=f"a {dot} of the zoo<extra></extra>",
    )
    for method, points in lines.items():
        path = ((points - centre) @ axes.T).numpy()
        figure.add_scatter(
            x=path[:, 0],
            y=path[:, 1],
            mode="lines",
            name=LABELS[method],
            line=dict(color=COLOURS[method], width=2.5, dash=DASHES[method]),
            customdata=made.alpha.numpy(),
            hovertemplate=f"{LABELS[method]}, %{{customdata:.2f}}<extra></extra>",
        )
        if alpha is not None:
            point = path[int((made.alpha - alpha).abs().argmin())]
            figure.add_scatter(
                x=[point[0]],
                y=[point[1]],
                mode="markers",
                showlegend=False,
                hoverinfo="skip",
                marker=dict(size=12, color=COLOURS[method], line=dict(color=STRONG, width=2)),
            )
    first = ((next(iter(lines.values()))[[0, -1]] - centre) @ axes.T).numpy()
    figure.add_scatter(
        x=first[:, 0],
        y=first[:, 1],
        mode="markers+text",
        text=["A", "B"],
        textposition="top center",
        cliponaxis=False,
        showlegend=False,
        textfont=dict(color=STRONG, size=15),
        marker=dict(size=10, color=STRONG),
        hovertext=[label(endpoint.name, 40) for endpoint in made.endpoints.members[:2]],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        xaxis=dict(title=in_lines(f"first principal component of the {of}"), showticklabels=False),
        yaxis=dict(title="second", showticklabels=False),
    )
    return figure


def path_figures(made: Interpolation) -> dict[str, go.Figure]:
    """File name → figure, of all there are."""
    names = {f"right-on-{chr(97 + i)}": curves_figure(made, row) for row, i in enumerate(made.endpoints.scored)}
    others = {"barrier": barrier_figure(made), "distance": distance_figure(made), "map": map_figure(made)}
    others["map-of-weights"] = weights_map_figure(made)
    return names | {name: figure for name, figure in others.items() if figure is not None}


def save_figures(made: Interpolation, folder: str | Path) -> list[Path]:
    """Write each as an HTML file that needs ``plotly.min.js`` beside it and nothing else; returns the paths."""
    paths = []
    for name, figure in path_figures(made).items():
        path = Path(folder) / f"{name}.html"
        figure.write_html(path, include_plotlyjs="directory", config={"displayModeBar": True})
        paths.append(path)
    return paths


def _path_axis(made: Interpolation) -> dict:
    a, b = (label(endpoint.name, 24) for endpoint in made.endpoints.members[:2])
    return dict(
        title=in_lines(f"from A ({a}) to B ({b})"),
        range=[-0.02, 1.02],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
        ticktext=["A", "¼", "½", "¾", "B"],
    )


def _unseen(made: Interpolation) -> list[tuple[float, float]]:
    """Intervals of alpha where every interpolated condition is outside of what was seen."""
    outside = [paths.outside for paths in made.paths.values() if paths.outside is not None]
    if not outside:
        return []
    flags, half = torch.stack(outside).all(0).tolist(), 0.5 / (len(made.alpha) - 1)
    found: list[tuple[float, float]] = []
    for alpha, flag in zip(made.alpha.tolist(), flags, strict=True):
        low, high = max(0.0, alpha - half), min(1.0, alpha + half)
        if flag and found and abs(found[-1][1] - low) < 1e-6:
            found[-1] = (found[-1][0], high)
        elif flag:
            found.append((low, high))
    return found


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.13)"
