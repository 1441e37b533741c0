"""What the Explore tab does, without gradio: library calls, and the files they leave."""

import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from d2nwg.data.examples import EXAMPLES
from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.pipelines import DEFAULT
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.settings import LIMITS, check_bundle, whole, whole_numbers
from d2nwg.ui.uploads import read_images
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

DEFAULTS: dict[str, Any] = dict(
    data="digits",
    tasks=4,
    classes=5,
    explored=200,
    trained=50,
    shots=5,
    seed=0,
    steps=None,
    sampler=DEFAULT,
    most=150,
    where="weights",
    part="all",
    perplexity=30,
    map_seed=0,
    method="tsne",
    dimensions=2,
    brush="lasso",
    colour="origin",
)
LINKED = ("data", "tasks", "classes", "explored", "method", "dimensions", "colour")  # what a link may hold
CHOICES = {
    "method": {"t-SNE": "tsne", "PCA": "pca"},
    "brush": {"a loop": "lasso", "a box": "select"},
    "dimensions": {"2-D": 2, "3-D": 3},
    "colour": {"origin": "origin", "task": "task", "accuracy": "accuracy", "distance": "distance"},
    "where": {"weight space": "weights", "latent space": "latent"},
}
OWN_LIMITS = {
    **LIMITS,
    "tasks": ("Tasks", 1, 50),
    "classes": ("Classes a task", 2, 1000),
    "explored": ("Samples", 2, 2000),
    "trained": ("Trained heads", 0, 1000),
    "map_seed": ("Seed of the map", 0, 2**31 - 1),
    "perplexity": ("Perplexity", 1, 500),
}


class Explored(NamedTuple):
    """What one press of the button has made."""

    found: Any  # the `Exploration`
    view: Any  # the `View` of it that is shown
    folder: Path


def check(
    bundle: str | None,
    tasks,
    classes,
    explored,
    trained,
    shots,
    seed,
    steps,
    most,
    sampler: str | None = None,
    viewer: Viewer = STRANGER,
) -> dict:
    """The keyword arguments of `d2nwg.exploration.explore.explore`. Without ``steps`` the sampler takes its own number.

    Raises:
        UserError: a number out of its limits, or a bundle that is not here.
    """
    check_bundle(bundle, viewer, networks=True)
    values = dict(
        tasks=tasks,
        classes=classes,
        explored=explored,
        trained=trained,
        shots=shots,
        seed=seed,
        max_query=most,
    )
    checked = whole_numbers(values if steps is None else {**values, "steps": steps}, OWN_LIMITS)
    chosen = {"bundle": bundle, "num_samples": checked.pop("explored"), "num_trained": checked.pop("trained")}
    return {**chosen, "sampler": sampler or DEFAULT, "steps": None, **checked}


def check_view(where, part, perplexity, map_seed, all_counts, dimensions=2) -> dict:
    """The keyword arguments of `d2nwg.exploration.look.look`. Raises UserError for a number out of its limits."""
    return {
        "where": where or "weights",
        "part": part or "all",
        "perplexity": whole(perplexity, *OWN_LIMITS["perplexity"]),
        "seed": whole(map_seed, *OWN_LIMITS["map_seed"]),
        "all_counts": bool(all_counts),
        "dimensions": 3 if dimensions == 3 else 2,
    }


def from_link(query: Mapping[str, str]) -> dict:
    """The control values that a link's query asks for; what is not to be had is left out."""
    values: dict = {}
    if query.get("data") in EXAMPLES:
        values["data"] = query["data"]
    for key in ("tasks", "classes", "explored"):
        try:
            values[key] = whole(int(query[key]), *OWN_LIMITS[key])
        except (UserError, ValueError, KeyError):
            continue
    if query.get("dimensions") in ("2", "3"):
        values["dimensions"] = int(query["dimensions"])
    for key in ("method", "colour"):
        if query.get(key) in CHOICES[key].values():
            values[key] = query[key]
    return values


@on_gpu
def make(
    source: dict, settings: dict, view: dict, folder: Path, exact: bool = False, progress: Progress = silent
) -> Explored:
    """Read the images, generate, map and compare.

    `source` holds the arguments of `read_images`, or ``images``. A space or part that the bundle does not have is
    replaced by the default, or refused if `exact`.
    """
    import_libraries()
    from d2nwg.exploration.explore import explore
    from d2nwg.exploration.look import look

    images = source.get("images") or read_images(progress=progress, **source)
    settings = {**settings, "classes": min(settings["classes"], len(images.classes))}
    found = explore(images, progress=progress, **settings)
    return Explored(found, look(found, progress=progress, **(view if exact else possible(found, view))), folder)


def again(
    made: Explored, view: dict, folder: Path, before: dict | None = None, progress: Progress = silent
) -> Explored:
    """The same heads in another view. ``before`` are the settings of the one that there is: where only the dimensions
    differ, nothing is compared again."""
    from d2nwg.exploration.look import look, turned

    if before and {**before, "dimensions": view["dimensions"]} == view:
        turn = {key: view[key] for key in ("dimensions", "perplexity", "seed")}
        return Explored(made.found, turned(made.view, **turn, progress=progress), folder)
    return Explored(made.found, look(made.found, progress=progress, **possible(made.found, view)), folder)


def possible(found, view: dict) -> dict:
    """A view's settings; a space or part that the bundle does not have is replaced by the default."""
    where = view["where"] if view["where"] in found.spaces else "weights"
    part = view["part"] if view["part"] in found.parts(where) else "all"
    return {**view, "where": where, "part": part}


def figures(made: Explored, colour: str, method: str, picked: Sequence[int] = ()) -> dict[str, Any]:
    """Every figure, by name."""
    from d2nwg.figures.explore import all_figures
    from d2nwg.figures.explore_map import map_figure

    drawn = all_figures(made.found, made.view, colour, method)
    return {**drawn, "map": map_figure(made.found, made.view, method, colour, picked)} if len(picked) else drawn


def chart(
    made: Explored,
    colour: str,
    method: str,
    picked: Sequence[int] = (),
    matching: Collection[int] | None = None,
    brush: str = "lasso",
):
    """The map alone; what a search does not match is faint. ``brush`` is plotly's mode of drawing around points."""
    from d2nwg.figures.explore_map import map_figure

    return map_figure(made.found, made.view, method, colour, picked, matching).update_layout(dragmode=brush)


def novelty(made: Explored, picked: Sequence[int] = ()):
    """The figure of accuracy against distance, with some heads ringed."""
    from d2nwg.figures.explore import novelty_figure

    return novelty_figure(made.found, picked)


def words(made: Explored) -> list[str]:
    """The result in sentences, and how the map was made."""
    from d2nwg.exploration.words import verdict

    return [*verdict(made.found, made.view), f"The map: {made.view.projection.words}"]


def details(made: Explored, point: int) -> dict:
    """The head behind a point of the map.

    Raises:
        UserError: it is not on the map.
    """
    from d2nwg.exploration.words import details as describe

    if point not in made.view.rows:
        raise UserError("That head is not on this map: pick another one.")
    return describe(made.found, made.view, point)


def files(made: Explored, drawn: dict[str, Any]) -> dict[str, Path]:
    """Write the downloads: the archives ``figures``, ``data``, ``projector``, and each figure's page by its name."""
    from d2nwg.exploration.words import save
    from d2nwg.figures.explore import write_html

    folder = made.folder
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    saved = save(made.found, made.view, folder / "data")
    said = words(made)[0]
    pages = {name: write_html(figure, folder / f"{name}.html", name, said) for name, figure in drawn.items()}
    for name, figure in drawn.items():  # several pages in one archive share plotly's script
        write_html(figure, folder / "figures" / f"{name}.html", name, said, script="directory")
    return {
        **pages,
        "figures": pack(folder / "figures.zip", sorted((folder / "figures").iterdir())),
        "data": pack(folder / "data.zip", [*saved["data"], *saved["summary"]]),
        "projector": pack(folder / "projector.zip", saved["projector"]),
    }


def page(made: Explored, figure, name: str) -> Path:
    """Write one figure's page again."""
    from d2nwg.figures.explore import write_html

    return write_html(figure, made.folder / f"{name}.html", name, words(made)[0])


def listed(made: Explored) -> list[tuple[str, int]]:
    """Every head on the map as (name and task, number), samples first."""
    from d2nwg.analysis.populations import SAMPLE

    found, rows = made.found, made.view.rows
    order = sorted(rows.tolist(), key=lambda i: (found.heads.origin[i] != SAMPLE, i))
    return [(f"{found.name(i)} · {found.task_name(i)}", i) for i in order]


def pack(path: Path, members: Sequence[Path]) -> Path:
    """An archive of some files, without their folders."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member in members:
            archive.write(member, member.name)
    return path


@on_gpu
def score(made: Explored, point: int, uploads: list[str], into: Path, progress: Progress = silent) -> str:
    """The accuracy of a head on uploaded images, in a sentence.

    Raises:
        UserError: see `Exploration.head`, `evaluate_head` and `read_images`.
    """
    from d2nwg.heads import evaluate_head

    images = read_images(files=uploads, into=into, progress=progress)
    scores = evaluate_head(made.found.head(point), images, progress=progress)
    return (
        f"{made.found.name(point).capitalize()} is right on {100 * scores['accuracy']:.1f} % of "
        f"{scores['num_images']:,} images of {images.name}."
    )


def summary(made: Explored) -> dict:
    """The numbers, as JSON."""
    from d2nwg.exploration.words import summary as numbers

    return numbers(made.found, made.view)
