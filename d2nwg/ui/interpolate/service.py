"""What the Interpolate tab does, without gradio: library calls, and the files they leave."""

import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from d2nwg.data.examples import EXAMPLES
from d2nwg.figures.thumbnails import thumbnail
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.interpolate.settings import MAPS
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import named, own_file, read_images
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

if TYPE_CHECKING:
    from d2nwg.interpolation.result import Interpolation

SHOWN, MOST_SHOWN = 6, 24  # pictures of each endpoint: at least, where there are so many, and at most


class Figures(NamedTuple):
    """The figures of a path; None where the bundle or the endpoints allow none."""

    curves: list  # of the first two endpoints with images
    barrier: Any
    distance: Any
    map: Any


@dataclass
class Interpolated:
    """What one press of the button has made.

    Attributes:
        found: what was computed.
        pictures: for each endpoint with images, the numbers of the query images that are shown, and their thumbnails.
        figures: with no point marked.
        folder: for files made of it.
    """

    found: "Interpolation"
    pictures: dict[int, tuple[list[int], list[str]]]
    figures: Figures
    folder: Path


def read_endpoint(kind: str, files: list[str] | None, into: Path | None, progress: Progress = silent):
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


@on_gpu
def interpolate(
    endpoints: list[tuple[str, list[str] | None]], settings: dict, folder: Path, progress: Progress = silent
) -> Interpolated:
    """Read the endpoints, and make and score the heads between them."""
    import_libraries()
    from d2nwg.interpolation.path import interpolate as make_paths

    sources = [read_endpoint(kind, files, folder, progress) for kind, files in endpoints]
    found = make_paths(sources, progress=progress, **settings)
    return Interpolated(found, _pictures(found), figures(found, None), folder)


def figures(found: "Interpolation", alpha: float | None, of: str = MAPS[0][1]) -> Figures:
    """Every figure, with the point at a share `alpha` of B marked in those that have one. The map is of the
    ``conditions`` or the ``weights``, whatever `of` says, or of the other where there is none of it."""
    from d2nwg.figures import interpolate as made

    kinds = {"conditions": made.map_figure, "weights": made.weights_map_figure}
    chart = kinds.pop(of)(found, alpha) or next(iter(kinds.values()))(found, alpha)
    curves = [made.curves_figure(found, i, alpha) for i in range(min(2, len(found.scored)))]
    return Figures(curves, made.barrier_figure(found), made.distance_figure(found), chart)


def _pictures(found: "Interpolation") -> dict[int, tuple[list[int], list[str]]]:
    """For each endpoint with images: numbers of query images, one of each class and no fewer than `SHOWN`, as far as
    there are, and thumbnails."""
    many, chosen = min(max(SHOWN, len(found.endpoints.classes)), MOST_SHOWN), {}
    for number in found.endpoints.scored:
        endpoint = found.endpoints.members[number]
        labels = endpoint.labels.numpy()
        turn = np.array([int((labels[:i] == label).sum()) for i, label in enumerate(labels)])
        order = np.lexsort((labels, turn))
        readable = (
            (int(i), picture) for i in order if (picture := thumbnail(endpoint.items[i], found.endpoints.scale))
        )
        shown = list(islice(readable, many))
        chosen[number] = ([i for i, _ in shown], [picture for _, picture in shown])
    return chosen


def head_file(made: Interpolated, method: str, number: int) -> Path:
    """The head or network at a point, as a file."""
    file = made.folder / f"{made.found.mixer.noun}-{method}-{made.found.alpha[number]:.2f}.safetensors"
    return file if file.exists() else made.found.head(method, number).save(file)


def everything(made: Interpolated) -> Path:
    """path.json, figures and all heads or networks as one zip."""
    from d2nwg.figures.interpolate import save_figures

    folder = made.found.save(made.folder / "path")
    save_figures(made.found, folder)
    return Path(shutil.make_archive(str(made.folder / "path"), "zip", folder))


def nearest(made: Interpolated, alpha: float) -> int:
    """The point nearest to a share of B."""
    return int((made.found.alpha - float(alpha)).abs().argmin())
