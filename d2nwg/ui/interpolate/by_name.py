"""What the Interpolate tab does between two names, without gradio: library calls, and the files they leave."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import read_images
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

if TYPE_CHECKING:
    from d2nwg.interpolation.name_result import NamePath


class NamedPath(NamedTuple):
    """What one press of the button has made."""

    found: "NamePath"
    folder: Path


@on_gpu
def make(
    names: Sequence[str | None],
    liked: str,
    files: list[str] | None,
    settings: dict,
    folder: Path,
    progress: Progress = silent,
) -> NamedPath:
    """Go from one name to another, and score images.

    Args:
        names: the two, as somebody typed them.
        liked: where the images come from: an example, ``own`` (``files``), or ``none``.
        settings: see `d2nwg.ui.interpolate.settings.check_names`.
    Raises:
        UserError: a name is missing, or what the library refuses.
    """
    import_libraries()
    from d2nwg.interpolation.names import name_path

    typed = [(name or "").strip() for name in names]
    if not all(typed):
        raise UserError("A path between names needs two of them: type both.")
    images = None
    if liked == "own":
        if not files:
            raise UserError("Drop your images in the box under “Images”, or choose an example or none.")
        images = read_images(files=files, into=folder, progress=progress)
    elif liked and liked != "none":
        images = read_images(example=liked, progress=progress)
    return NamedPath(name_path(typed, images, progress=progress, **settings), folder)


def figures(made: NamedPath) -> tuple[Any, Any]:
    """What lies between the names, and which classes of images the points like; None where there is none of it."""
    from d2nwg.figures.name_path import classes_figure, nearest_figure

    return nearest_figure(made.found), classes_figure(made.found)


def strip(made: NamedPath) -> str:
    """The points with the images that they like best, as HTML."""
    from d2nwg.figures.name_path import strip as drawn

    return drawn(made.found)


def head_file(made: NamedPath) -> Path:
    """A head with a row a point, as a file."""
    return made.found.head.save(made.folder / "rows.safetensors")


def everything(made: NamedPath) -> Path:
    """All numbers, figures and rows as one zip."""
    from d2nwg.figures.name_path import save_figures

    folder = made.found.save(made.folder / "path")
    save_figures(made.found, folder)
    return Path(shutil.make_archive(str(made.folder / "path"), "zip", folder))
