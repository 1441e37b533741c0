"""The Interpolate tab's words and pieces of HTML, and the library calls behind its buttons. No gradio here."""

import shutil
from functools import lru_cache
from html import escape
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from d2nwg.bundles import list_bundles
from d2nwg.data.examples import EXAMPLES
from d2nwg.interpolation.methods import METHODS
from d2nwg.ui import html as views
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.settings import LIMITS, check_bundle, example_names, task_names, whole_numbers
from d2nwg.ui.uploads import named, own_file, read_images
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

SHOWN = 6  # pictures of each end
DEFAULTS = dict(
    a="digits-on-black",
    b="digits-on-white",
    c="none",
    points=21,
    seeds=3,
    shots=5,
    samples=16,
    seed=0,
    way="condition",
    alpha=0.5,
)
OWN_LIMITS = {**LIMITS, "points": ("Points", 3, 101), "seeds": ("Paths", 1, 10), "samples": ("Heads a point", 1, 50)}
PREFERRED = "heads-efficientnet-lite0"
MAPS = [("Conditions of the zoo's tasks", "conditions"), ("Weights of its heads, as in Explore", "weights")]
NONE, OWN = ("No third end", "none"), ("Your own images", "own")


def default_bundle() -> str | None:
    """The tab's own: a bundle in which every way can be gone. None when it is not shipped."""
    return PREFERRED if PREFERRED in list_bundles() else None


def choices(bundle: str | None) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """What an end can be with a bundle, as (title, key), and what each end is at first: examples and one's own images,
    or the tasks that the bundle is told by name."""
    tasks = [(name, f"task:{name}") for name in task_names(bundle)]
    if not tasks:
        return [*example_names(), OWN], {letter: DEFAULTS[letter] for letter in "abc"}
    return [*tasks, OWN], {"a": tasks[0][1], "b": tasks[min(1, len(tasks) - 1)][1], "c": NONE[1]}


def end_strip(kind: str) -> str:
    """An end that is an example or a named task, as HTML; nothing for the others."""
    name = kind.removeprefix("task:")
    if name in EXAMPLES:
        return example_strip(name)
    return views.hint("To score the heads on this task, drop images of it here.") if kind != name else ""


@lru_cache(8)
def example_strip(name: str) -> str:
    """An example's first pictures, as HTML."""
    return strip(read_images(example=name))


def strip(images) -> str:
    """What an end is: its size, and a picture of each of the first classes."""
    pictures = []
    for label, name in enumerate(images.classes[:SHOWN]):
        for index in np.flatnonzero(images.labels == label)[:3]:
            if picture := views.thumbnail(images.items[index]):
                pictures.append(f'<img src="{picture}" alt="{escape(name)}" title="{escape(name)}">')
                break
    return (
        f'<div class="end"><p class="summary">{views.count(len(images.classes), "class")} · '
        f'{views.count(len(images.items), "image")}</p><div class="pictures">{"".join(pictures)}</div></div>'
    )


def read_end(kind: str, files: list[str] | None, into: Path | None, progress: Progress = silent):
    """The `ImageSet`, the `Head` of a head file, or the `NamedTask`, that a dropdown and its drop zone stand for.

    Raises:
        UserError: nothing was dropped, or what the library refuses.
    """
    if kind.startswith("task:"):
        from d2nwg.interpolation.endpoints import NamedTask

        name = kind.removeprefix("task:")
        source = dict(files=files, into=into) if files else dict(example=name)
        seen = read_images(progress=progress, **source) if files or name in EXAMPLES else None
        return NamedTask(name, seen)
    if kind != "own":
        return read_images(example=kind, progress=progress)
    if not files:
        raise UserError("Drop your images in the box under “Your own images”, or choose an example.")
    if len(files) == 1 and files[0].endswith(".safetensors"):
        from d2nwg.heads import Head

        file = own_file(files[0])
        with named(file):
            return Head.load(file)
    return read_images(files=files, into=into, progress=progress)


def check(bundle: str | None, points, seeds, samples, shots, seed) -> dict:
    """The keyword arguments of `d2nwg.interpolation.path.interpolate`.

    Raises:
        UserError: a number out of its limits, or a bundle that is not here.
    """
    values = dict(points=points, seeds=seeds, samples=samples, shots=shots, seed=seed)
    checked = {"bundle": check_bundle(bundle), **whole_numbers(values, OWN_LIMITS)}
    return {"num_samples": checked.pop("samples"), **checked}


@on_gpu
def make_walk(ends: list[tuple[str, list[str] | None]], settings: dict, folder: Path, progress: Progress = silent):
    """Read the ends and interpolate: the `Interpolation`, the pictures that will be looked at, and the figures."""
    import_libraries()
    from d2nwg.interpolation.path import interpolate

    sources = [read_end(kind, files, folder, progress) for kind, files in ends]
    made = interpolate(sources, progress=progress, **settings)
    return SimpleNamespace(walk=made, pictures=_pictures(made), folder=folder, **vars(figures(made, None)))


def figures(walk, alpha: float | None, of: str = MAPS[0][1]) -> SimpleNamespace:
    """Every figure of the tab, a point marked in those that have one; the map is ``of`` conditions or weights, or of
    what there is."""
    from d2nwg.figures import interpolate as made

    curves = [made.curves_figure(walk, i, alpha) for i in range(min(2, len(walk.scored)))]
    kinds = {"conditions": made.map_figure, "weights": made.weights_map_figure}
    chart = kinds.pop(of)(walk, alpha) or next(iter(kinds.values()))(walk, alpha)
    return SimpleNamespace(
        curves=curves, barrier=made.barrier_figure(walk), distance=made.distance_figure(walk), map=chart
    )


def _pictures(walk) -> dict[int, tuple[list[int], list[str]]]:
    """For each end with images: numbers of `SHOWN` query images, of as many classes as can be, and thumbnails."""
    chosen = {}
    for number in walk.endpoints.scored:
        end = walk.endpoints.members[number]
        labels = end.labels.numpy()
        turn = np.array([int((labels[:i] == label).sum()) for i, label in enumerate(labels)])
        order = np.lexsort((labels, turn))[: 3 * SHOWN]
        found = [(int(i), picture) for i in order if (picture := views.thumbnail(end.items[i]))][:SHOWN]
        chosen[number] = ([i for i, _ in found], [picture for _, picture in found])
    return chosen


def looked(made: SimpleNamespace, state: dict) -> str:
    """The pictures of every end, with what a head says about each."""
    from d2nwg.interpolation.path import probabilities

    rows = []
    for number, (indices, pictures) in made.pictures.items():
        end, classes = made.walk.endpoints.members[number], made.walk.endpoints.classes
        chances = probabilities(state, end.query[indices])
        sure, said = chances.max(-1)
        cells = []
        for picture, truth, best, p in zip(
            pictures, end.labels[indices].tolist(), said.tolist(), sure.tolist(), strict=True
        ):
            right = best == truth
            name, true = escape(classes[best]), escape(classes[truth])
            cells.append(
                f'<figure class="{"right" if right else "wrong"}"><img src="{picture}" alt="{true}">'
                f'<figcaption><b title="{name}">{"✓" if right else "✗"} {name}</b>'
                f"<span>{100 * p:.0f}\u00a0%</span></figcaption></figure>"
            )
        rows.append(
            f'<div class="row"><p>From {"ABC"[number]}, <b>{escape(end.name)}</b></p>'
            f'<div class="looked">{"".join(cells)}</div></div>'
        )
    return "".join(rows)


def point(made: SimpleNamespace, way: str, number: int) -> str:
    """Where the slider stands: accuracies of the head there, and what it stands outside of."""
    walk = made.walk
    leg = walk.paths[way]
    where = " and ".join(
        f"<b>{views.percent(float(leg.accuracy[i, 0, number]))}</b> of {escape(name)}"
        for i, name in enumerate(walk.scored)
    )
    out = (
        ' <span class="out">Its condition is outside of what the bundle has seen.</span>'
        if leg.outside is not None and bool(leg.outside[number])
        else ""
    )
    return (
        f'<p class="seen">At {walk.alpha[number]:.2f} the head is right on {where} (path 1 of '
        f"{len(walk.settings['seeds'])}).{out}</p>"
    )


def mixed(made: SimpleNamespace, head, right: dict[str, float]) -> str:
    """Where a mix of all ends is right."""
    where = ", ".join(f"<b>{views.percent(value)}</b> of {escape(name)}" for name, value in right.items())
    return f'<p class="seen">{escape(head.info["data"])}: right on {where}.</p>'


def answer(made: SimpleNamespace) -> str:
    """The result card."""
    walk = made.walk
    first, *others = map(escape, walk.sentences())
    notes = [*walk.endpoints.notes, *walk.missing.values()]
    notes = "".join(f"<li>{escape(note)}</li>" for note in notes)
    names = [escape(end.name) for end in walk.endpoints.members]
    seen = (
        "task by name" if any(end.task for end in walk.endpoints.members) else f"{walk.settings['shots']} a class seen"
    )
    about = (
        f"{' → '.join(names[:2])}{f', and {names[2]}' if names[2:] else ''} · "
        f"{views.count(len(walk.endpoints.classes), 'class')} · {seen}"
    )
    return (
        f'<section class="result"><p class="about">{about}</p><p class="answer">{first}</p>'
        f'<p>{" ".join(others)}</p><p class="made">'
        f"{len(walk.settings['seeds'])} paths of {len(walk.alpha)} points, "
        f"each point the average of {views.count(walk.settings['num_samples'], 'head')} from the same noise. "
        f"{walk.seconds:.1f} s.</p>{f'<ul class=notes>{notes}</ul>' if notes else ''}</section>"
    )


def head_file(made: SimpleNamespace, way: str, number: int) -> Path:
    """The head at a point, as a file."""
    file = made.folder / f"head-{way}-{made.walk.alpha[number]:.2f}.safetensors"
    return file if file.exists() else made.walk.head(way, number).save(file)


def everything(made: SimpleNamespace) -> Path:
    """path.json, figures and all heads as one zip."""
    from d2nwg.figures.interpolate import save_figures

    folder = made.walk.save(made.folder / "path")
    save_figures(made.walk, folder)
    return Path(shutil.make_archive(str(made.folder / "path"), "zip", folder))


def nearest(made: SimpleNamespace, alpha: float) -> int:
    """The point nearest to a share of B."""
    return int((made.walk.alpha - float(alpha)).abs().argmin())


def from_link(query) -> dict:
    """The control values that a link's query asks for; what is not to be had is left out."""
    values = {}
    if query.get("with") in list_bundles():
        values["bundle"] = query["with"]
    can_be = {key for _, key in choices(values.get("bundle", default_bundle()))[0]} - {OWN[1]}
    for key, name in (("from", "a"), ("to", "b"), ("third", "c")):
        if query.get(key) in can_be:
            values[name] = query[key]
    if query.get("way") in METHODS:
        values["way"] = query["way"]
    try:
        alpha = float(query.get("alpha", "nan"))
        if 0 <= alpha <= 1:
            values["alpha"] = alpha
    except ValueError:
        pass
    return values


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
<p>Choose two data sets with the same classes and press <b>Walk</b>. Heads are made on the way from A to B by mixing
what the generator is told (the condition), what it draws (the latents), and the finished weights; every one is scored
on images of both ends that it never saw.</p>
<svg viewBox="0 0 200 84" aria-hidden="true">{hills}</svg></section>
<section class="place">{views.title("Pictures from both ends")}<p>Their predictions change as the slider moves.</p>
<svg viewBox="0 0 132 84" aria-hidden="true"><g class="cells">{cells}</g></svg></section>
<section class="place">{views.title("How deep is the valley?")}<p>The worst drop on each way.</p>
<svg viewBox="0 0 92 84" aria-hidden="true"><g class="bars">{bars}</g></svg></section></div>"""
