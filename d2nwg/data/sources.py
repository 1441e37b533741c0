"""Labelled data of either kind, images or texts, from whatever a person names."""

from collections.abc import Sequence
from pathlib import Path

from d2nwg.data.archives import NothingInside
from d2nwg.data.columns import FOUND, Columns
from d2nwg.data.hf_datasets import is_datasets_folder, is_hub_name, load_hub, load_local
from d2nwg.data.image_set import SUFFIXES, ImageSet
from d2nwg.data.images import load_files, load_images, load_unlabelled
from d2nwg.data.listing import walk
from d2nwg.data.text_set import Text, TextSet
from d2nwg.data.texts import is_text_file, load_free_texts, load_texts
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

Data = ImageSet | TextSet


def load_data(
    source: str | Path, *, columns: Columns = FOUND, into: Path | None = None, progress: Progress = silent
) -> Data:
    """Images as `d2nwg.data.images.load_images` takes them, or texts as `d2nwg.data.texts.load_texts` does; a
    `datasets` folder or a data set on the Hub can hold either.

    This function opens any path that it is given; see `load_images`.

    Args:
        columns: of a table of texts.
    Raises:
        UserError: naming the file, column or class at fault.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if is_datasets_folder(path):
            return load_local(path, columns=columns, progress=progress)
        if columns or _holds_texts(path):
            return load_texts(path, columns=columns, into=into, progress=progress)
    elif path.is_file() and path.suffix.lower() not in SUFFIXES:
        if columns or is_text_file(path):
            return load_texts(path, columns=columns, into=into, progress=progress)
        return _from_archive(path, into, progress)
    elif isinstance(source, str) and not path.exists() and not source.startswith("example:") and is_hub_name(source):
        return load_hub(source, columns=columns, progress=progress)
    return load_images(source, into=into, progress=progress)


def load_data_files(
    files: Sequence[Path], *, name: str = "images", into: Path | None = None, progress: Progress = silent
) -> Data:
    """Uploaded files: a table of texts, or what `d2nwg.data.images.load_files` takes, where an archive can hold texts.

    Raises:
        UserError: naming the file, column or class at fault.
    """
    paths = [Path(file) for file in files]
    if len(paths) == 1 and is_text_file(paths[0]):
        return load_texts(paths[0], into=into, progress=progress)
    if len(paths) == 1 and paths[0].suffix.lower() not in SUFFIXES:
        return load_data(paths[0], into=into, progress=progress)
    if any(map(is_text_file, paths)):
        raise UserError("Several files of texts cannot be combined: give one table, or put them into one zip.")
    return load_files(paths, name=name, into=into, progress=progress)


def load_free(
    files: Sequence[Path],
    like: Data,
    *,
    columns: Columns = FOUND,
    into: Path | None = None,
    progress: Progress = silent,
) -> list[Path] | list[Text]:
    """Items without labels, of the kind of a labelled set.

    Raises:
        UserError: there are none.
    """
    if isinstance(like, TextSet):
        return load_free_texts(files, pairs=like.pairs, columns=columns, into=into, progress=progress)
    return load_unlabelled(files, into=into, progress=progress)


def _from_archive(path: Path, into: Path | None, progress: Progress) -> Data:
    try:
        return load_images(path, into=into, progress=progress)
    except NothingInside as no_images:
        try:
            return load_texts(path, into=into, progress=progress)
        except NothingInside:
            raise no_images from None


def _holds_texts(folder: Path) -> bool:
    """Whether a folder holds files of texts, and no images."""
    found = False
    for listing in walk(folder, folder):
        for name in map(Path, listing.files):
            if name.suffix.lower() in SUFFIXES:
                return False
            found = found or is_text_file(name)
    return found
