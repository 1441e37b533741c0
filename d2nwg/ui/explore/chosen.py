"""The heads that are chosen on the Explore tab's map, without gradio: their table, their files, what they see."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from d2nwg.ui.explore.service import Explored
from d2nwg.ui.generate import service as generate
from d2nwg.utils.errors import UserError

MOST_TAKEN = 200  # heads in one archive


def find(made: Explored, text: str | None, origins: Sequence[str] | None) -> list[int] | None:
    """Numbers of the heads on the map that a search finds; None where nothing is searched for.

    Args:
        text: a part of the name of a head, a task or a class.
        origins: of `d2nwg.analysis.populations.ORIGINS`; none or all for any.
    """
    from d2nwg.analysis.populations import ORIGINS
    from d2nwg.exploration.seen import search

    rows = made.view.rows.tolist()
    wanted = set(origins or ORIGINS)
    if not (text or "").strip() and wanted >= set(made.found.heads.origin[rows].tolist()):
        return None
    return search(made.found, rows, text or "", wanted)


def table(made: Explored, points: Sequence[int]) -> dict:
    """The table of chosen heads: name, task, right in percent, distance."""
    from d2nwg.exploration.words import table as columns

    every, noun = columns(made.found, made.view), made.found.noun
    wanted = set(points)
    names = ("point", noun, "task", "accuracy", f"distance_to_nearest_zoo_{noun}")
    rows = [
        [head, task, None if right != right else round(100 * right, 1), None if far != far else round(far, 3)]
        for point, head, task, right, far in zip(*(every[name] for name in names), strict=True)
        if point in wanted
    ]
    unit = "lengths" if noun == "head" else "× neighbours"
    return {"headers": [noun, "task", "right, %", f"distance, {unit}"], "data": rows}


def listing(made: Explored, points: Sequence[int], path: Path) -> Path:
    """Write the chosen heads as a CSV file: all that ``projection.csv`` says of them."""
    from d2nwg.exploration.words import table as columns
    from d2nwg.exploration.words import write_csv

    every, wanted = columns(made.found, made.view), set(points)
    chosen = [i for i, point in enumerate(every["point"]) if point in wanted]
    return write_csv(path, {name: [values[i] for i in chosen] for name, values in every.items()})


def take(made: Explored, points: Sequence[int], path: Path) -> Path:
    """The chosen heads as an archive: their `listing`, named after what they are, and a file each (the first
    `MOST_TAKEN`)."""
    noun = made.found.noun
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(listing(made, points, path.with_suffix(".csv")), f"{noun}s.csv")
        for point in list(points)[:MOST_TAKEN]:
            try:
                head = made.found.head(point)
            except UserError:  # a zoo head of as many classes as no task has
                continue
            data = head.save(path.with_suffix(".safetensors")).read_bytes()
            archive.writestr(f"{made.found.name(point).replace(' ', '-')}-{point}.safetensors", data)
    return path


def save_head(made: Explored, point: int) -> Path:
    """One head as a file.

    Raises:
        UserError: see `Exploration.head`.
    """
    name = made.found.name(point).replace(" ", "-")
    (made.folder / f"point-{point}").mkdir(exist_ok=True)
    return made.found.head(point).save(made.folder / f"point-{point}" / f"{made.found.noun}-{name}.safetensors")


def seen(made: Explored, point: int) -> tuple | None:
    """What a head predicts of held-out images: a `d2nwg.exploration.seen.Seen`, and a small picture of each of its
    images by the image's number; None where no task here fits the head."""
    from d2nwg.exploration.seen import seen as look
    from d2nwg.figures.thumbnails import thumbnail

    found = look(made.found, point)
    if found is None:
        return None
    images = made.found.scored_by(point).images
    scale = images.scale()
    numbers = [number for number, *_ in (*found.right, *found.wrong)]
    return found, {number: thumbnail(images.items[number], scale) for number in numbers}


def can_send(made: Explored, point: int) -> bool:
    """Whether `for_generate` has something to show: of networks, only of those that were generated."""
    return made.found.noun == "head" or made.found.heads.origin[point] in ("sample", "made")


def for_generate(made: Explored, point: int, folder: Path) -> tuple[generate.Result, int | None]:
    """What the Generate tab shows for a head's task, and the number of the sample to use there: None where the head is
    no sample and takes the place of the chosen one.

    Raises:
        UserError: see `Exploration.head`.
    """
    from d2nwg.analysis.populations import SAMPLE
    from d2nwg.figures.generate import confusion_figure

    found = made.found
    picked = int(found.heads.number[point]) if found.heads.origin[point] == SAMPLE else None
    if found.noun == "network":
        return _network_for_generate(made, point, folder), picked
    head, task = found.head(point), found.scored_by(point)
    generation = task.generation if picked is not None else task.with_chosen(head)
    saved = generation.save(folder)
    kept = {
        "head": saved / "head.safetensors",
        "samples": saved / "samples.safetensors",
        "report": saved / "report.json",
    }
    result = generate.Result(task.images, generation, kept, (None, None))
    result.figures = result.strip(picked), confusion_figure(generation.confusion, head.classes)
    return result, picked


def _network_for_generate(made: Explored, point: int, folder: Path) -> generate.Result:
    from d2nwg.figures.generate import confusion_figure
    from d2nwg.ui.generate.networks import NetworkResult, written

    if not can_send(made, point):
        raise UserError("Generate shows generated networks and samples: pick one of those.")
    task = made.found.scored_by(point)
    generation = task.generation
    result = NetworkResult(task.images, generation, written(generation, folder), (None, None))
    result.figures = result.strip(), confusion_figure(generation.confusion, generation.network.classes)
    return result
