"""Plotly figures of a `d2nwg.interpolation.path.Walk`; template and colours are those of `d2nwg.figures.base`."""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch

from d2nwg.figures.base import ACCENT, INK, RIVAL, STRONG, ZOO, label, percent
from d2nwg.interpolation.mixer import WAYS
from d2nwg.interpolation.path import Walk

COLOURS = {"condition": ACCENT, "condition-spherical": "#0072b2", "latent": "#cc79a7", "weights": RIVAL}
DASHES = {"condition": "solid", "condition-spherical": "dash", "latent": "dashdot", "weights": "dot"}
LEGEND = dict(orientation="h", x=0, y=1.03, yanchor="bottom", font=dict(size=12))  # above: nothing there to cover
UNSEEN = "rgba(213,94,0,0.13)"


def curves_figure(walk: Walk, end: int, alpha: float | None = None) -> go.Figure:
    """What happens between? Accuracy on one end's images along the path: a line a way, a band of one standard
    deviation over seeds, shaded where the condition is outside of what was seen. ``alpha`` marks a point."""
    figure, x = go.Figure(), walk.alpha.numpy()
    for low, high in _unseen(walk):
        figure.add_vrect(x0=low, x1=high, fillcolor=UNSEEN, line_width=0, layer="below")
    for way, leg in walk.legs.items():
        values = 100 * leg.accuracy[end].numpy()
        mean, spread = values.mean(0), values.std(0)
        band = np.concatenate([mean + spread, (mean - spread)[::-1]])
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=band.clip(0, 100),
            fill="toself",
            fillcolor=_faint(COLOURS[way]),
            line_width=0,
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=x,
            y=mean,
            mode="lines",
            name=WAYS[way],
            line=dict(color=COLOURS[way], width=2.5, dash=DASHES[way]),
            customdata=spread,
            hovertemplate=f"{WAYS[way]}, %{{x:.2f}}<br>%{{y:.1f}} ± %{{customdata:.1f}} %<extra></extra>",
        )
    if alpha is not None:
        figure.add_vline(x=alpha, line=dict(color=STRONG, width=2))
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        xaxis=_path_axis(walk),
        yaxis=dict(ticksuffix=" %", title="right on held-out images", rangemode="normal"),
    )
    return figure


def barrier_figure(walk: Walk) -> go.Figure:
    """How deep is the valley? The worst drop under the straight line between the ends, a bar a way, on each end's
    images and on the average of both; whiskers are one standard deviation over seeds."""
    names = [f"on {label(name, 22)}" for name in walk.scored[:2]]
    rows = list(range(len(names)))
    if len(rows) > 1:
        names, rows = [*names, "on both"], [*rows, -1]
    figure = go.Figure()
    for way, leg in walk.legs.items():
        bars = 100 * leg.barrier[rows].numpy()
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
            name=WAYS[way],
            marker_color=COLOURS[way],
            hovertemplate=f"{WAYS[way]}, %{{x}}<br>%{{y:.1f}} points<extra></extra>",
        )
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        bargap=0.3,
        yaxis=dict(title="points under the straight line", rangemode="tozero"),
    )
    if max(float(leg.barrier.max()) for leg in walk.legs.values()) < 0.001:
        figure.update_yaxes(range=[0, 5])
        figure.add_annotation(text="no drop on any way", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def distance_figure(walk: Walk) -> go.Figure | None:
    """Is the way outside of what was seen? Distance of each mixed condition to the nearest condition of the zoo; the
    line is where 95 % of the zoo's own conditions lie. None where the bundle knows none."""
    legs = {way: leg for way, leg in walk.legs.items() if leg.distance is not None}
    if not legs:
        return None
    figure, x = go.Figure(), walk.alpha.numpy()
    top = 1.15 * max(walk.radius, *(float(leg.distance.max()) for leg in legs.values()))
    figure.add_hrect(y0=walk.radius, y1=top, fillcolor=UNSEEN, line_width=0, layer="below")
    figure.add_hline(y=walk.radius, line=dict(color=ZOO, width=1.5, dash="dot"))
    figure.add_annotation(
        x=1, y=walk.radius, xanchor="right", yanchor="bottom", showarrow=False, text="95 % of the tasks seen lie below"
    )
    for way, leg in legs.items():
        figure.add_scatter(
            x=x,
            y=leg.distance.numpy(),
            mode="lines+markers",
            name=WAYS[way],
            marker=dict(size=7, symbol=["x" if out else "circle" for out in leg.outside.tolist()]),
            line=dict(color=COLOURS[way], width=2, dash=DASHES[way]),
            hovertemplate=f"{WAYS[way]}, %{{x:.2f}}<br>%{{y:.2f}}<extra></extra>",
        )
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        xaxis=_path_axis(walk),
        yaxis=dict(title="distance to the nearest task seen", range=[0, top]),
    )
    return figure


def map_figure(walk: Walk, alpha: float | None = None) -> go.Figure | None:
    """Where does the path run? The conditions of the zoo's tasks and of the path, on the first two principal
    components of the zoo's. None where the bundle knows none."""
    seen = walk.mixer.pipe.weight_space.zoo_conditions
    paths = {way: leg.condition for way, leg in walk.legs.items() if leg.condition is not None}
    return None if seen is None or not paths else _map(walk, seen.detach().cpu(), paths, "task", "conditions", alpha)


def weights_map_figure(walk: Walk, alpha: float | None = None) -> go.Figure | None:
    """The same of the weights: zoo heads with as many classes, as Explore's map shows them, and each way's heads."""
    found = walk.in_weights()
    return None if found is None else _map(walk, *found, "head", "weights", alpha)


def _map(walk: Walk, seen, paths: dict, dot: str, of: str, alpha: float | None) -> go.Figure:
    """``seen`` (Z, n) and each path (P, n) on the first two principal components of the former."""
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
    for way, points in paths.items():
        path = ((points - centre) @ axes.T).numpy()
        figure.add_scatter(
            x=path[:, 0],
            y=path[:, 1],
            mode="lines",
            name=WAYS[way],
            line=dict(color=COLOURS[way], width=2.5, dash=DASHES[way]),
            customdata=walk.alpha.numpy(),
            hovertemplate=f"{WAYS[way]}, %{{customdata:.2f}}<extra></extra>",
        )
        if alpha is not None:
            point = path[int((walk.alpha - alpha).abs().argmin())]
            figure.add_scatter(
                x=[point[0]],
                y=[point[1]],
                mode="markers",
                showlegend=False,
                hoverinfo="skip",
                marker=dict(size=12, color=COLOURS[way], line=dict(color=STRONG, width=2)),
            )
    first = ((next(iter(paths.values()))[[0, -1]] - centre) @ axes.T).numpy()
    figure.add_scatter(
        x=first[:, 0],
        y=first[:, 1],
        mode="markers+text",
        text=["A", "B"],
        textposition="top center",
        showlegend=False,
        textfont=dict(color=STRONG, size=15),
        marker=dict(size=10, color=STRONG),
        hovertext=[label(end.name, 40) for end in walk.ends.members[:2]],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.update_layout(
        template="d2nwg",
        height=330,
        showlegend=True,
        legend=LEGEND,
        xaxis=dict(title=f"first principal component of the {of}", showticklabels=False),
        yaxis=dict(title="second", showticklabels=False),
    )
    return figure


def walk_figures(walk: Walk) -> dict[str, go.Figure]:
    """File name → figure, of all there are."""
    names = {f"right-on-{chr(97 + i)}": curves_figure(walk, row) for row, i in enumerate(walk.ends.scored)}
    others = {"barrier": barrier_figure(walk), "distance": distance_figure(walk), "map": map_figure(walk)}
    others["map-of-weights"] = weights_map_figure(walk)
    return names | {name: figure for name, figure in others.items() if figure is not None}


def save_figures(walk: Walk, folder: str | Path) -> list[Path]:
    """Each as an HTML file that needs nothing but itself and ``plotly.min.js`` beside it."""
    paths = []
    for name, figure in walk_figures(walk).items():
        path = Path(folder) / f"{name}.html"
        figure.write_html(path, include_plotlyjs="directory", config={"displayModeBar": True})
        paths.append(path)
    return paths


def answer(walk: Walk, point: int, way: str, seed: int = 0) -> str:
    """``right on 81.0 % of photos and 64.5 % of sketches`` for the head at a point."""
    leg = walk.legs[way]
    parts = [f"{percent(float(leg.accuracy[i, seed, point]))} of {name}" for i, name in enumerate(walk.scored)]
    return f"right on {' and '.join(parts)}"


def _path_axis(walk: Walk) -> dict:
    a, b = (label(end.name, 24) for end in walk.ends.members[:2])
    return dict(
        title=f"from A ({a}) to B ({b})",
        range=[-0.02, 1.02],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
        ticktext=["A", "¼", "½", "¾", "B"],
    )


def _unseen(walk: Walk) -> list[tuple[float, float]]:
    """Intervals of alpha where every mixed condition is outside of what was seen."""
    outside = [leg.outside for leg in walk.legs.values() if leg.outside is not None]
    if not outside:
        return []
    flags, half = torch.stack(outside).all(0).tolist(), 0.5 / (len(walk.alpha) - 1)
    found: list[tuple[float, float]] = []
    for alpha, flag in zip(walk.alpha.tolist(), flags, strict=True):
        low, high = max(0.0, alpha - half), min(1.0, alpha + half)
        if flag and found and abs(found[-1][1] - low) < 1e-6:
            found[-1] = (found[-1][0], high)
        elif flag:
            found.append((low, high))
    return found


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.13)"
