"""What the Explore tab does with tasks of texts, without gradio: library calls, and the files they leave."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.settings import LIMITS, check_adapters, whole_numbers
from d2nwg.utils.progress import Progress, silent

if TYPE_CHECKING:
    from d2nwg.exploration.task_map import TaskMap

SAMPLES = 30  # as in d2nwg.exploration.task_map, which is not imported before it is needed


class MappedTasks(NamedTuple):
    """What one press of the button has made."""

    found: "TaskMap"
    folder: Path


def check(bundle: str | None, samples, seed, viewer: Viewer = STRANGER) -> dict:
    """The keyword arguments of `d2nwg.exploration.task_map.map_tasks` beside the description.

    Raises:
        UserError: a number out of its limits, or a bundle that is not here.
    """
    numbers = whole_numbers({"samples": samples, "seed": seed}, LIMITS)
    return {"bundle": check_adapters(bundle, viewer), "num_samples": numbers["samples"], "seed": numbers["seed"]}


@on_gpu
def make(description: str | None, settings: dict, folder: Path, progress: Progress = silent) -> MappedTasks:
    """Map the adapters that a bundle knows, with samples for a description among them, if there is one.

    Raises:
        UserError: what the library refuses.
    """
    import_libraries()
    from d2nwg.exploration.task_map import map_tasks

    folder.mkdir(parents=True, exist_ok=True)
    return MappedTasks(map_tasks(description or "", progress=progress, **settings), folder)


def chart(made: MappedTasks, method: str) -> Any:
    """The map."""
    from d2nwg.figures.task_map import task_map_figure

    return task_map_figure(made.found, method)


def words(made: MappedTasks) -> list[str]:
    """The result in sentences, and how the map was made."""
    from d2nwg.exploration.task_words import sentences

    return [*sentences(made.found), f"The map: {made.found.projection.words}"]


def page(made: MappedTasks, method: str) -> Path:
    """The map as a page of its own."""
    from d2nwg.figures.base import write_page
    from d2nwg.figures.task_map import question

    said = " ".join(words(made)[:-1])
    return write_page(chart(made, method), made.folder / "tasks.html", question(made.found), said)


def data(made: MappedTasks) -> Path:
    """An archive of tasks.csv, tasks.json and the files for the TensorBoard Embedding Projector."""
    from d2nwg.exploration.task_words import save
    from d2nwg.ui.explore.service import pack

    saved = save(made.found, made.folder / "data")
    return pack(made.folder / "tasks.zip", [*saved["data"], *saved["projector"]])


def summary(made: MappedTasks) -> dict:
    """The numbers, as JSON."""
    from d2nwg.exploration.task_words import summary as numbers

    return numbers(made.found)
