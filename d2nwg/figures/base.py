"""What all plotly figures share: the template, the colours, and labels.

The template "d2nwg" has no background. Text in `INK` and `STRONG` is readable on white; the app's style sheet maps
exactly these two colours to those of the theme, so that the same figure is readable on dark. Names that come from the
user are escaped, because plotly interprets some HTML in labels.
"""

import html
import textwrap
from pathlib import Path

import plotly.graph_objects as go
import plotly.io as pio

ACCENT = "#009e73"  # samples; Okabe-Ito bluish green
ZOO = "#6f86a6"  # trained heads
BASELINE = "#8a7f73"  # what samples are compared with
INK = "#757575"  # labels and ticks
STRONG = "#767676"  # outlines of what is chosen, and its label
LENGTHS = "lengths of a zoo head"  # the unit of distances in weight space (d2nwg.evaluation.zoo_distance)
GRID = "rgba(128,128,128,0.22)"

pio.templates["d2nwg"] = go.layout.Template(
    layout=dict(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=[ACCENT, "#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9"],
        font=dict(family="IBM Plex Sans, system-ui, sans-serif", size=13, color=INK),
        margin=dict(l=8, r=12, t=8, b=8),
        showlegend=False,
        dragmode=False,
        hoverlabel=dict(bgcolor="#1d2521", bordercolor="#1d2521", font=dict(color="#ffffff", size=13), align="left"),
        xaxis=dict(
            gridcolor=GRID,
            zeroline=False,
            automargin=True,
            ticks="",
            fixedrange=True,
            title=dict(standoff=10, font=dict(size=13)),
        ),
        yaxis=dict(
            gridcolor=GRID,
            zeroline=False,
            automargin=True,
            ticks="",
            ticklabelstandoff=6,
            fixedrange=True,
            title=dict(standoff=8, font=dict(size=13)),
        ),
    )
)


def label(text: str, width: int | None = None) -> str:
    """A name escaped for plotly, which knows no entity for quotes, shortened in the middle to `width` characters. It
    may stand in any text but a template, where ``%{`` has a meaning: there ``%{meta}`` and the like bring it in."""
    if width and len(text) > width:
        text = f"{text[: width - width // 3 - 1]}…{text[-(width // 3) :]}"
    return html.escape(text, quote=False)


def in_lines(text: str, width: int = 34) -> str:
    """An axis title in lines of so many characters, which fit on a phone: plotly cuts off what does not."""
    return "<br>".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def percent(fraction: float) -> str:
    """``0.8823`` → ``"88.2 %"``, with a space that does not break."""
    return f"{100 * fraction:.1f}\u00a0%"


def titled(figure: go.Figure, question: str, under: str = "") -> go.Figure:
    """A copy with its question as the title, for use outside of the page."""
    figure = go.Figure(figure)
    lines = [label(line) for line in textwrap.wrap(under, 130, max_lines=3, placeholder=" …")]
    text = "<br>".join([question, *(f"<span style='font-size:12px'>{line}</span>" for line in lines)])
    place = dict(x=0.01, y=1, yref="container", yanchor="top", pad=dict(t=14))
    figure.update_layout(title=dict(text=text, font=dict(size=17, color=STRONG), **place))
    figure.update_layout(margin=dict(t=76 + 18 * len(lines), l=16, r=16, b=16), paper_bgcolor="#ffffff")
    return figure


def write_page(figure: go.Figure, path: Path, question: str, under: str = "", script: bool | str = True) -> Path:
    """One figure as a page of its own, which needs no network; its tool bar saves a PNG. Plotly's script goes into the
    page, or, with ``script="directory"``, beside it, where several pages share it."""
    titled(figure, question, under).write_html(
        path,
        include_plotlyjs=script,
        config={
            "displaylogo": False,
            "toImageButtonOptions": {"format": "png", "filename": Path(path).stem, "scale": 2},
        },
    )
    return path
