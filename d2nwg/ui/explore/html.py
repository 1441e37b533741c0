"""The Explore tab's words and pieces of HTML. Whatever comes from a visitor is escaped here."""

from html import escape

import numpy as np

from d2nwg.ui.html import count, hint, percent, title

MOST_BESIDE = 100  # names in the list

KINDS = {
    "zoo": "kept in the bundle, trained for a task of its own",
    "sample": "generated, drawn by diffusion",
    "trained": "trained on the images that the generator saw",
    "made": "generated for these images, without drawing: what the bundle hands out",
}

# Tells the server which points of the map were clicked, or drawn around. Plotly's handlers stay with its element, which
# gradio may replace.
PICK = """
const hook = () => {
    const plot = document.querySelector('#explore-map .js-plotly-plot');
    if (!plot || !plot.on || plot.dataset.hooked) return;
    plot.dataset.hooked = '1';
    const numbers = event => (event && event.points || []).map(p => p.customdata).filter(n => n !== undefined);
    plot.on('plotly_click', event => trigger('click', {kind: 'one', points: numbers(event).slice(0, 1)}));
    plot.on('plotly_selected', event => event && trigger('click', {kind: 'many', points: numbers(event)}));
    plot.on('plotly_deselect', () => trigger('click', {kind: 'many', points: []}));
};
setInterval(hook, 300);
"""


def answer(words: list[str]) -> str:
    """The result card: the answer, its numbers, and what was compared."""
    first, *rest = map(escape, words)
    return (
        f'<section class="result"><p class="answer">{first}</p>'
        + "".join(f'<p class="{"made" if i >= len(rest) - 2 else ""}">{text}</p>' for i, text in enumerate(rest))
        + "</section>"
    )


def point(about: dict) -> str:
    """The head behind a point of the map."""
    right = percent(about["accuracy"]) if np.isfinite(about["accuracy"]) else "unknown"
    whose = "of its own task" if about["origin"] == "zoo" else "of this task"
    rows = [
        ("Origin", KINDS[about["origin"]]),
        ("Task", about["task"]),
        ("Classes", str(about["classes"])),
        ("Right", f"{right} of the held-out images {whose}"),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    near = "".join(
        f'<li><span class="name">{escape(name)}</span><span class="many">{far:.2f}</span>'
        f'<span class="many">{percent(right)}</span></li>'
        for name, far, right in about["neighbours"]
    )
    near = (
        f'<p class="hint">Nearest zoo {about["noun"]}s{" with as many classes" if about["noun"] == "head" else ""}: '
        f'distance in {about["unit"]}, and accuracy on their own tasks.</p><ol class="near">{near}</ol>'
        if near
        else ""
    )
    return f'<div class="point"><h4>{escape(about["head"].capitalize())}</h4><dl>{listed}</dl>{near}</div>'


def nothing_picked() -> str:
    """How to see which head a point is."""
    return hint("Click a point of the map, or choose one from the list. To choose many, draw around them, or search.")


def recognised(found, pictures: dict) -> str:
    """What a head gets right, and what wrong: a `d2nwg.exploration.seen.Seen`, with a picture by an image's number."""
    blocks = []
    for which, rows in (("right", found.right), ("wrong", found.wrong)):
        figures = []
        for number, true, *other in rows:
            said = f"{true} → {other[0]}" if other else true
            alt = f"{true}, taken for {other[0]}" if other else f"{true}, recognised"
            if pictures.get(number):
                figures.append(
                    f'<figure class="{which}" title="{escape(alt)}"><img src="{pictures[number]}" alt="{escape(alt)}">'
                    f"<figcaption><b>{'✗' if other else '✓'} {escape(said)}</b></figcaption></figure>"
                )
        if figures:
            many = found.correct if which == "right" else found.of - found.correct
            lead = f"{which.capitalize()} on {many:,} of {count(found.of, 'held-out image')} of {found.task}"
            more = f", {len(figures)} of them" if len(figures) < many else ""
            blocks.append(
                f'<p class="seen">{escape(lead + more)}:</p><div class="looked small">{"".join(figures)}</div>'
            )
    return "".join(blocks)


def tools(name: str, question: str) -> str:
    """A button that saves the figure with this element id as a PNG, with its question as the title."""
    script = (
        f"const p = document.querySelector('#{name} .js-plotly-plot'); p && Plotly.downloadImage("
        "{data: p.data, layout: {...p.layout, paper_bgcolor: '#ffffff', autosize: false, width: 1100, "
        "height: Math.max(600, p.layout.height || 0), margin: {t: 96, l: 16, r: 24, b: 16}, "
        f"title: {{text: '{question}', x: 0.02, y: 0.97, yanchor: 'top', "
        "font: {size: 19, color: '#333333'}}}}, "
        f"{{format: 'png', width: 1100, height: Math.max(600, p.layout.height || 0), scale: 2, filename: '{name}'}})"
    )
    return (
        f'<button type="button" class="save" id="{name}-png" title="Save this figure as a picture" '
        f'onclick="{escape(script)}">PNG</button>'
    )


def beside(made) -> str:
    """The known rows beside each of a visitor's names, of a `d2nwg.ui.explore.by_name.Mapped`."""
    from d2nwg.conditions.class_names import class_of
    from d2nwg.exploration.names_words import far_names

    found, rows = made.found, []
    far = set(far_names(found))
    for name, near in zip(found.names[:MOST_BESIDE], found.nearest, strict=False):
        own = class_of(name)
        note = ' <span class="out">far from all that is known</span>' if own in far else ""
        rows.append(f"<dt>{escape(own)}</dt><dd>{_cosines(found.known, near)}{note}</dd>")
    more = len(found.names) - MOST_BESIDE
    return f'<dl class="beside">{"".join(rows)}</dl>' + (
        hint(f"{more:,} more are in the download.") if more > 0 else ""
    )


def found_names(made) -> str:
    """What a search found, in words; nothing where nothing was searched for."""
    from d2nwg.exploration.names_words import search_sentences

    found = made.found
    if found.found is None:
        return ""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in search_sentences(found.known, found.found))
    return f'<div class="found" role="status">{said}</div>'


def _cosines(known, near) -> str:
    return ", ".join(f"{escape(known[n].name)} <span>{cosine:.2f}</span>" for n, cosine in near)


def places() -> str:
    """The page before there is a result: what will be shown where."""
    cloud = _cloud()
    axis = '<path d="M12 6v72h110" class="baselines"/>'
    bump = "M" + "L".join(f"{14 + 4 * i} {76 - 62 * np.exp(-(((i - 13) / 5) ** 2)):.1f}" for i in range(27))
    return f"""<div class="places">
<section class="place wide">{title("Do samples fall where trained weights lie?")}
<p>Press <b>Explore</b>. The generator makes heads for a few tasks; they are compared with the trained heads that the
bundle keeps, and with heads trained on the same images. On the map each is a point; similar heads are near.</p>
<svg viewBox="0 0 420 90" aria-hidden="true"><g class="zoo">{cloud(130, 45, 40, 15)}</g>
<g class="dots">{cloud(210, 40, 24, 7)}{cloud(300, 52, 24, 7)}</g></svg></section>
<section class="place">{title("Are weight values distributed alike?")}<p>Densities, layer by layer.</p>
<svg viewBox="0 0 130 84" aria-hidden="true">{axis}<path d="{bump}" class="chosen"/></svg></section>
<section class="place">{title("Do samples copy the zoo?")}<p>Accuracy against the distance to the nearest zoo head.</p>
<svg viewBox="0 0 130 84" aria-hidden="true">{axis}<g class="dots">{cloud(85, 26, 18, 6)}</g>
<g class="zoo">{cloud(40, 62, 14, 5)}</g></svg></section></div>"""


def name_places() -> str:
    """The page before there is a map of names."""
    cloud = _cloud()
    return f"""<div class="places">
<section class="place wide">{title("Where do your names lie among the known ones?")}
<p>Type class names and press <b>Explore</b>. The bundle knows some classes by name: those of its encoder's own
classifier and those of its training sets, each with a row of a head. Any other name gets a place among them, by what it
means. No image is needed.</p>
<svg viewBox="0 0 420 90" aria-hidden="true"><g class="zoo">{cloud(110, 45, 36, 14)}{cloud(260, 50, 44, 16)}</g>
<g class="dots">{cloud(130, 40, 2, 9)}{cloud(250, 52, 3, 12)}</g></svg></section></div>"""


def known_tasks(made) -> str:
    """The tasks of a `d2nwg.ui.explore.by_task.MappedTasks`: the nearest by description first, with the cosine, the
    metric and how many adapters there are."""
    found = made.found
    order = found.nearest or [(n, None) for n in range(len(found.tasks))]
    rows = []
    for n, cosine in order[:MOST_BESIDE]:
        task, many = found.tasks[n], int((found.owners == n).sum())
        near = "" if cosine is None else f"<b>{cosine:.2f}</b> · "
        said = escape(task.descriptions[0]) if task.descriptions else ""
        classes = ", ".join(map(escape, task.classes[:6])) + (", …" if len(task.classes) > 6 else "")
        about = f"{classes or 'a value'} · {escape(task.metric)} · {count(many, 'adapter')}"
        rows.append(f"<dt>{escape(task.name)}</dt><dd>{near}{said}<br><span>{about}</span></dd>")
    return f'<dl class="beside">{"".join(rows)}</dl>'


def task_places() -> str:
    """The page before there is a map of tasks."""
    cloud = _cloud()
    return f"""<div class="places">
<section class="place wide">{title("Where do adapters lie, task by task?")}
<p>Describe a task of texts and press <b>Explore</b>. A bundle of adapters keeps some that were trained, of a few tasks;
those that it generates for your description are set among them, with the known tasks that lie nearest to it. Without a
description the map shows the trained ones alone.</p>
<svg viewBox="0 0 420 90" aria-hidden="true"><g class="zoo">{cloud(110, 45, 16, 9)}{cloud(290, 50, 16, 9)}</g>
<g class="dots">{cloud(190, 40, 5, 7)}</g></svg></section></div>"""


def _cloud():
    """``cloud(x, y, n, wide)``: n dots about a place, as a part of a drawing."""
    random = np.random.default_rng(5)

    def cloud(x: float, y: float, n: int, wide: float) -> str:
        dots = random.normal((x, y), (2.2 * wide, wide), (n, 2))
        return "".join(f'<circle cx="{a:.0f}" cy="{b:.0f}" r="3"/>' for a, b in dots)

    return cloud
