"""Figures of a path between two names (`d2nwg.interpolation.names`), and the images that its points like best as HTML.

Names come from a visitor and from files: they are escaped here.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
import torch

from d2nwg.figures.base import INK, ZOO, label, write_page
from d2nwg.figures.explore_map import LEGEND, OKABE_ITO
from d2nwg.figures.thumbnails import thumbnail
from d2nwg.interpolation.name_result import NamePath

LINES = len(OKABE_ITO)  # one more would share a colour
OTHERS = 60  # other lines, in grey
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "star")
QUESTIONS = {
    "nearest": "What lies between the two names?",
    "classes": "Which classes does each point like?",
    "images": "Which images does each point like best?",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 24px; color: #222; max-width: 900px }}
.stop {{ display: grid; grid-template-columns: 170px 1fr; gap: 14px; padding: 8px 0; border-top: 1px solid #ddd }}
.stop p {{ margin: 0; font-size: 13px; color: #555 }} .stop b {{ color: #111 }}
.liked {{ display: flex; flex-wrap: wrap; gap: 8px }} figure {{ margin: 0; width: 84px; font-size: 12px }}
img {{ width: 84px; height: 84px; object-fit: cover; border-radius: 6px; display: block }}
figcaption {{ display: flex; justify-content: space-between; gap: 4px; color: #555 }}
figcaption b {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: 500 }}
</style><h1>{title}</h1><p>{under}</p>{strip}</html>
"""


def nearest_figure(made: NamePath) -> go.Figure | None:
    """What lies between the two names? Cosines of the path with known rows: the nearest to each end, and those that
    are nearer to it in between. None where the bundle knows no row."""
    if not made.known:
        return None
    near = made.nearest(2)
    chosen = [one.number for i in (0, len(near) - 1) for one in near[i]]
    chosen += [one.number for one in made.between()[: LINES - 4]]
    chosen += [one.number for row in near for one in row]
    numbers = list(dict.fromkeys(chosen))[:LINES]
    return _lines(
        made, made.cosines[:, numbers], [made.known[number].name for number in numbers], "cosine with the row"
    )


def classes_figure(made: NamePath) -> go.Figure | None:
    """Which classes does each point like? The mean score of the images of each class; classes that lead nowhere are
    grey. None without images."""
    if made.images is None:
        return None
    means = made.of_class
    scored = (~means[0].isnan()).nonzero().flatten()
    means = means[:, scored]
    names = [made.images.classes[c] for c in scored.tolist()]
    # In the order of how close a class comes to the lead: a class that leads somewhere comes before all that do not.
    order = (means - means.amax(1, keepdim=True)).amax(0).argsort(descending=True, stable=True).tolist()
    order = order[: LINES + OTHERS]
    return _lines(made, means[:, order], [names[i] for i in order], "mean score")


def _lines(made: NamePath, values: torch.Tensor, names: Sequence[str], title: str) -> go.Figure:
    """A line for each column of ``values`` (P, n): the first `LINES` in colours, the others grey."""
    figure, share = go.Figure(), made.share.numpy()
    for i in reversed(range(len(names))):
        bright = i < LINES
        figure.add_scatter(
            x=share,
            y=values[:, i].numpy(),
            mode="lines+markers" if bright else "lines",
            name=label(names[i], 22),
            showlegend=bright,
            legendrank=i,
            marker=dict(size=7, symbol=SYMBOLS[i % len(SYMBOLS)]),
            line=dict(color=OKABE_ITO[i] if bright else ZOO, width=2.5 if bright else 1),
            opacity=1 if bright else 0.35,
            meta=label(names[i], 48),
            hovertemplate="%{meta}, %{x:.2f}<br>%{y:.3f}<extra></extra>",
        )
    first, last = (label(name, 24) for name in made.ends)
    figure.update_layout(
        template="d2nwg",
        height=380,
        showlegend=True,
        legend=LEGEND,
        xaxis=dict(
            title=dict(text=f"from A ({first}) to B ({last})", font=dict(color=INK)),
            range=[-0.03, 1.03],
            tickvals=[0, 0.25, 0.5, 0.75, 1],
            ticktext=["A", "¼", "½", "¾", "B"],
        ),
        yaxis=dict(title=title),
    )
    return figure


def strip(made: NamePath) -> str:
    """A row a point: its place, the known rows nearest to it, and the images that it likes best."""
    seen: dict[int, str | None] = {}
    rows, scale = [], made.images.pixels.scale() if made.images else None
    for i, (share, near) in enumerate(zip(made.share.tolist(), made.nearest(3), strict=True)):
        end = {0: made.ends[0], len(made.share) - 1: made.ends[1]}.get(i)
        where = f"{share:.2f}" + (f" · {escape(end)}" if end else "")
        beside = ", ".join(f"{escape(made.known[n].name)} {cosine:.2f}" for n, cosine in near)
        cells = []
        for number, name, score in made.likes(i):
            if number not in seen:
                seen[number] = thumbnail(made.images.items[number], scale)  # type: ignore[union-attr]
            name = escape(name)
            picture = f'<img src="{seen[number]}" alt="{name}">' if seen[number] else ""
            caption = f'<figcaption><b title="{name}">{name}</b><span>{score:.2f}</span></figcaption>'
            cells.append(f"<figure>{picture}{caption}</figure>")
        if cells:
            liked = f'<div class="liked">{"".join(cells)}</div>'
            rows.append(f'<div class="stop"><p><b>{where}</b><br>{beside}</p>{liked}</div>')
        else:
            rows.append(f'<div class="stop"><p><b>{where}</b></p><p>{beside}</p></div>')
    return f'<div class="stops">{"".join(rows)}</div>'


def save_figures(made: NamePath, folder: str | Path) -> list[Path]:
    """Write ``nearest.html`` and ``classes.html``, which need ``plotly.min.js`` beside them, and ``images.html``, as
    far as there is something to show; returns the paths."""
    folder, said = Path(folder), made.sentences()
    drawn = {"nearest": (nearest_figure(made), said[0]), "classes": (classes_figure(made), said[-2:][0])}
    pages = [
        write_page(figure, folder / f"{name}.html", QUESTIONS[name], under, script="directory")
        for name, (figure, under) in drawn.items()
        if figure is not None
    ]
    if made.images is not None:
        page = folder / "images.html"
        under = escape(" ".join(said))
        page.write_text(PAGE.format(title=QUESTIONS["images"], under=under, strip=strip(made)), encoding="utf-8")
        pages.append(page)
    return pages
