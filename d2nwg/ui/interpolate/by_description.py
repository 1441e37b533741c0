"""What the Interpolate tab does between two descriptions, without gradio: library calls, and the files they leave."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from d2nwg.interpolation.methods import CONDITION
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import read_data
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

if TYPE_CHECKING:
    from d2nwg.interpolation.description_result import DescriptionPath


class DescribedPath(NamedTuple):
    """What one press of the button has made."""

    found: "DescriptionPath"
    folder: Path


@on_gpu
def make(
    descriptions: Sequence[str | None],
    files: Sequence[list[str] | None],
    labels: Sequence[str | None],
    settings: dict,
    folder: Path,
    progress: Progress = silent,
) -> DescribedPath:
    """Go from one description to another, and score adapters on texts.

    Args:
        descriptions, files, labels: of A and of B: as somebody typed them, uploaded tables, and class names.
        settings: see `d2nwg.ui.interpolate.settings.check_descriptions`.
    Raises:
        UserError: a description is missing, or what the library refuses.
    """
    import_libraries()
    from d2nwg.conditions.class_names import split_names
    from d2nwg.interpolation.description_ends import texts_of
    from d2nwg.interpolation.descriptions import description_path

    typed = [(text or "").strip() for text in descriptions]
    if not all(typed):
        raise UserError("A path between descriptions needs two of them: describe both tasks.")
    data = [
        texts_of(read_data(files=given, into=folder / letter, progress=progress)) if given else None
        for letter, given in zip("ab", files, strict=True)
    ]
    names = [split_names(text) if (text or "").strip() else [] for text in labels]
    return DescribedPath(description_path(typed, data, names, progress=progress, **settings), folder)


def figures(made: DescribedPath, share: float | None = None) -> dict[str, Any]:
    """Every figure, with the point at a share of B marked; None where there is nothing to show."""
    from d2nwg.figures.description_path import all_figures

    number = None if share is None else made.found.nearest_point(share)
    return all_figures(made.found, None if number is None else float(made.found.share[number]))


def adapter_file(made: DescribedPath, method: str, share: float) -> Path:
    """The adapter at the point nearest to a share of B, as a zip of a folder that peft reads."""
    found = made.found
    method = method if method in found.stretches else CONDITION
    number = found.nearest_point(share)
    name = f"adapter-{method}-{float(found.share[number]):.2f}"
    file = made.folder / f"{name}.zip"
    if not file.exists():
        if not (made.folder / name).exists():
            found.write_adapter(method, number, made.folder / name)
        shutil.make_archive(str(made.folder / name), "zip", made.folder, name)
    return file


def everything(made: DescribedPath) -> Path:
    """All numbers, figures and adapters as one zip."""
    from d2nwg.figures.description_path import save_figures

    folder = made.found.save(made.folder / "path")
    save_figures(made.found, folder)
    return Path(shutil.make_archive(str(made.folder / "path"), "zip", folder))
