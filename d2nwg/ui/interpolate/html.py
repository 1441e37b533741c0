"""The Interpolate tab's words and pieces of HTML. Whatever comes from a visitor is escaped here."""

from functools import lru_cache
from html import escape

import numpy as np

from d2nwg.data.examples import EXAMPLES
from d2nwg.figures.thumbnails import thumbnail
from d2nwg.ui import html as views
from d2nwg.ui.interpolate.by_description import DescribedPath
from d2nwg.ui.interpolate.by_name import NamedPath
from d2nwg.ui.interpolate.service import SHOWN, Interpolated
from d2nwg.ui.uploads import read_images
from d2nwg.utils.text import shown


def endpoint_strip(kind: str) -> str:
    """An endpoint that is an example or a named task, as HTML; nothing for the others."""
    name = kind.removeprefix("task:")
    if name in EXAMPLES:
        return example_strip(name)
    return views.hint("To score the heads on this task, drop images of it here.") if kind != name else ""


@lru_cache(8)
def example_strip(name: str) -> str:
    """An example's first pictures, as HTML."""
    return strip(read_images(example=name))


def strip(images) -> str:
    """What an endpoint is: its size, and a picture of each of the first classes."""
    pictures, scale = [], images.pixels.scale()
    for label, name in enumerate(images.classes[:SHOWN]):
        for index in np.flatnonzero(images.labels == label)[:3]:
            if picture := thumbnail(images.items[index], scale):
                pictures.append(f'<img src="{picture}" alt="{escape(name)}" title="{escape(name)}">')
                break
    return (
        f'<div class="endpoint"><p class="summary">{views.count(len(images.classes), "class")} · '
        f'{views.count(len(images.items), "image")}</p><div class="pictures">{"".join(pictures)}</div></div>'
    )


def looked(made: Interpolated, state: dict) -> str:
    """The pictures of every endpoint, with what a head says about each."""
    rows = []
    for number, (indices, pictures) in made.pictures.items():
        endpoint, classes = made.found.endpoints.members[number], made.found.endpoints.classes
        chances = made.found.mixer.probabilities(state, endpoint.query[indices])
        sure, said = chances.max(-1)
        cells = []
        for picture, truth, best, p in zip(
            pictures, endpoint.labels[indices].tolist(), said.tolist(), sure.tolist(), strict=True
        ):
            right = best == truth
            name, true = escape(classes[best]), escape(classes[truth])
            cells.append(
                f'<figure class="{"right" if right else "wrong"}"><img src="{picture}" alt="{true}">'
                f'<figcaption><b title="{name}">{"✓" if right else "✗"} {name}</b>'
                f"<span>{100 * p:.0f}\u00a0%</span></figcaption></figure>"
            )
        rows.append(
            f'<div class="row"><p>From {"ABC"[number]}, <b>{escape(endpoint.name)}</b></p>'
            f'<div class="looked">{"".join(cells)}</div></div>'
        )
    return "".join(rows)


def point(made: Interpolated, method: str, number: int) -> str:
    """Where the slider stands: accuracies of the head there, and what it stands outside of."""
    found = made.found
    paths = found.paths[method]
    where = " and ".join(
        f"<b>{views.percent(float(paths.accuracy[i, 0, number]))}</b> of {escape(name)}"
        for i, name in enumerate(found.scored)
    )
    out = (
        ' <span class="out">Its condition is outside of what the bundle has seen.</span>'
        if paths.outside is not None and bool(paths.outside[number])
        else ""
    )
    return (
        f'<p class="seen">At {found.alpha[number]:.2f} the {found.mixer.noun} is right on {where} (path 1 of '
        f"{len(found.settings['seeds'])}).{out}</p>"
    )


def mixed(made: Interpolated, head, right: dict[str, float]) -> str:
    """Where a mix of all endpoints is right."""
    where = ", ".join(f"<b>{views.percent(value)}</b> of {escape(name)}" for name, value in right.items())
    return f'<p class="seen">{escape(head.info["data"])}: right on {where}.</p>'


def answer(made: Interpolated) -> str:
    """The result card."""
    found = made.found
    first, *others = map(escape, found.sentences())
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*found.endpoints.notes, *found.missing.values()))
    names = [escape(endpoint.name) for endpoint in found.endpoints.members]
    seen = (
        "task by name"
        if any(endpoint.task for endpoint in found.endpoints.members)
        else f"{found.settings['shots']} a class seen"
    )
    about = (
        f"{' → '.join(names[:2])}{f', and {names[2]}' if names[2:] else ''} · "
        f"{views.count(len(found.endpoints.classes), 'class')} · {seen}"
    )
    if found.mixer.noun == "network":
        made_of = f"{len(found.alpha)} points, each a whole network, nothing of it drawn"
    else:
        made_of = (
            f"{len(found.settings['seeds'])} paths of {len(found.alpha)} points, each point the average of "
            f"{views.count(found.settings['num_samples'], 'head')} from the same noise"
        )
    return (
        f'<section class="result"><p class="about">{about}</p><p class="answer">{first}</p>'
        f'<p>{" ".join(others)}</p><p class="made">{made_of}, made by {escape(found.bundle)}. '
        f"{found.seconds:.1f} s.</p>{f'<ul class=notes>{notes}</ul>' if notes else ''}</section>"
    )


def name_answer(made: NamedPath) -> str:
    """The result card of a path between names."""
    found = made.found
    first, *others = map(escape, found.sentences())
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    about = " → ".join(map(escape, found.ends))
    return (
        f'<section class="result"><p class="about">{about}</p><p class="answer">{first}</p>'
        f'<p>{" ".join(others)}</p><p class="made">{views.count(len(found.share), "point")}, made from the two names '
        f"alone by {escape(found.bundle)}. {found.seconds:.1f} s.</p>"
        f"{f'<ul class=notes>{notes}</ul>' if notes else ''}</section>"
    )


def strip_title(made: NamedPath) -> str:
    """The heading over the points of a path between names."""
    point = "Each point is a row of a head, made from a text that far between the names."
    if made.found.images is None:
        return views.title("What lies near each point?", f"{point} Beside it: the nearest known rows, with cosines.")
    under = f"{point} Below its place: the nearest known rows. Under an image: its class and the row's score."
    return views.title("Which images does each point like best?", under)


def description_answer(made: DescribedPath) -> str:
    """The result card of a path between descriptions."""
    found = made.found
    first, *others = map(escape, found.sentences())
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    about = " → ".join(escape(shown(end.description, 90)) for end in found.ends)
    return (
        f'<section class="result"><p class="about">{about}</p><p class="answer">{first}</p>'
        f'<p>{" ".join(others)}</p><p class="made">{views.count(len(found.share), "point")} by each of two methods, '
        f"made by {escape(found.bundle)}; each task keeps the head that was made for it. {found.seconds:.1f} s.</p>"
        f"<ul class=notes>{notes}</ul></section>"
    )


def description_point(made: DescribedPath, method: str, share: float) -> str:
    """Where the slider stands: scores of the adapter there, and what it is near to."""
    found = made.found
    number, stretch = found.nearest_point(share), found.stretches[method]
    right = [
        f"<b>{escape(found.scored_as(i, method, number))}</b> on {found.ends[i].letter}'s texts" for i in found.scored
    ]
    scores = f"{' and '.join(right)}. " if right else ""
    a, b, zoo = (float(value) for value in stretch.far[:, number])
    near = (
        f", and <b>{zoo:.2f}</b> from the nearest of the zoo ({escape(stretch.owners[number])})" if zoo == zoo else ""
    )
    return (
        f'<p class="seen">At {float(found.share[number]):.2f}: {scores}Its distance is <b>{a:.2f}</b> from A\'s, '
        f"<b>{b:.2f}</b> from B's{near}; it turns sentences by <b>{float(stretch.degrees[number]):.1f}°</b>. The "
        f"download has the head of {'B' if found.share[number] > 0.5 else 'A'}, and the other one beside it.</p>"
    )


def description_places() -> str:
    """What will stand where, before there is a path between descriptions."""
    lines = "".join(
        f'<path d="M10 {a} C 70 {a}, 130 {b}, 190 {b}" class="{kind}"/>'
        for a, b, kind in ((16, 64, "chosen"), (60, 18, "chosen"), (22, 70, "baselines"), (66, 26, "baselines"))
    )
    return f"""<div class="places">
<section class="place wide">{views.title("What lies between two tasks of texts?")}
<p>Describe two tasks and press <b>Interpolate</b>. Adapters of a text encoder are made for each point between them, by
mixing the descriptions and, as the baseline, by mixing the two finished adapters. With labelled texts each is scored
on both tasks, with the head that was made for it.</p>
<svg viewBox="0 0 200 84" aria-hidden="true">{lines}</svg></section></div>"""


def name_places() -> str:
    """What will stand where, before there is a path between names."""
    lines = "".join(
        f'<path d="M10 {a} C 70 {a}, 130 {b}, 190 {b}" class="{kind}"/>'
        for a, b, kind in ((16, 66, "chosen"), (66, 18, "baselines"), (50, 40, "baselines"))
    )
    cells = "".join(
        f'<rect x="{22 * j}" y="{22 * i}" width="19" height="19" rx="3" opacity="{0.25 + 0.1 * i}"/>'
        for i in range(3)
        for j in range(6)
    )
    return f"""<div class="places">
<section class="place wide">{views.title("What lies between the two names?")}
<p>Type two class names and press <b>Interpolate</b>. A row of a head is made for each point between them, from the
names alone; it is set beside the rows that the bundle knows by name.</p>
<svg viewBox="0 0 200 84" aria-hidden="true">{lines}</svg></section>
<section class="place">{views.title("Which images does each point like best?")}<p>Of an example's images or yours.</p>
<svg viewBox="0 0 132 84" aria-hidden="true"><g class="cells">{cells}</g></svg></section></div>"""


def places() -> str:
    """What will stand where, before there is a result."""
    hills = "".join(
        f'<path d="M10 {20 + 12 * i} C 60 {16 + 12 * i}, 90 {44 + 9 * i}, 190 {58 + 6 * i}" '
        f'class="{"chosen" if i == 0 else "baselines"}"/>'
        for i in range(4)
    )
    cells = "".join(
        f'<rect x="{22 * j}" y="{22 * i}" width="19" height="19" rx="3" opacity="{0.25 + 0.1 * j}"/>'
        for i in range(2)
        for j in range(6)
    )
    bars = "".join(f'<rect x="{24 * i}" y="{70 - h}" width="16" height="{h}"/>' for i, h in enumerate((18, 26, 12, 44)))
    return f"""<div class="places">
<section class="place wide">{views.title("What lies between two tasks?")}
<p>Choose two data sets with the same classes and press <b>Interpolate</b>. Heads or whole networks between A and B are
made by mixing their conditions, the latents that the generator samples, or the finished weights; every one is scored on
images of both endpoints that generation never saw.</p>
<svg viewBox="0 0 200 84" aria-hidden="true">{hills}</svg></section>
<section class="place">{views.title("Pictures from both endpoints")}<p>Their predictions change as the slider moves.</p>
<svg viewBox="0 0 132 84" aria-hidden="true"><g class="cells">{cells}</g></svg></section>
<section class="place">{views.title("How deep is the valley?")}<p>The worst drop of each method.</p>
<svg viewBox="0 0 92 84" aria-hidden="true"><g class="bars">{bars}</g></svg></section></div>"""
