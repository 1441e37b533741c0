"""Files and images that a visitor gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2nwg.ui.session import private_root
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown


def own_file(path: str) -> Path:
    """An uploaded file; whatever lies elsewhere is refused.

    Raises:
        UserError: it is not one, or is gone.
    """
    try:
        file = Path(path).resolve()
        if file.is_relative_to(private_root()) and file.is_file():
            return file
    except (OSError, ValueError, RuntimeError, TypeError):  # no path at all
        pass
    raise UserError(f"The uploaded file {shown(Path(str(path)).name)} is no longer here; please choose it again.")


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Lets sentences name an uploaded file as its owner knows it, without the server's folders."""
    try:
        yield
    except UserError as reason:
        raise UserError(str(reason).replace(str(file), file.name)) from reason


def read_images(
    *, example: str | None = None, files: list[str] | None = None, into: Path | None = None, progress: Progress = silent
):
    """The `ImageSet` of a named example, or of uploaded files (archives are unpacked into `into`).

    Raises:
        UserError: no or both sources given, or what `load_files` refuses.
    """
    from d2nwg.data.images import load_files

    return _read(load_files, example, files, into, progress)


def read_data(
    *, example: str | None = None, files: list[str] | None = None, into: Path | None = None, progress: Progress = silent
):
    """`read_images`, or the `TextSet` of an uploaded table or archive of texts.

    Raises:
        UserError: no or both sources given, or what `load_data_files` refuses.
    """
    from d2nwg.data.sources import load_data_files

    return _read(load_data_files, example, files, into, progress)


def _read(load, example: str | None, files: list[str] | None, into: Path | None, progress: Progress):
    from d2nwg.data.examples import EXAMPLES
    from d2nwg.data.images import load_images

    if files:
        paths = [own_file(file) for file in files]
        return load(paths, name=paths[0].stem if len(paths) == 1 else "your images", into=into, progress=progress)
    if example not in EXAMPLES:
        raise UserError(f"Give image files, or one of the examples: {', '.join(EXAMPLES)}.")
    return load_images(f"example:{example}", progress=progress)


def zoo_name(files: list[str] | None) -> str:
    """A zoo's name made of that of the first file, and of how many others there are."""
    stem = Path(files[0]).stem if files else ""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem).strip("-._")[:48]
    return f"{name or 'zoo'}-and-{len(files) - 1}-more" if files and len(files) > 1 else name
