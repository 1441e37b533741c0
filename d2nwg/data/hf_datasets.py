"""Data sets read with Hugging Face `datasets`: from the Hub, or from a folder that it wrote."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d2nwg.data.columns import FOUND, LOOKED_AT, Columns, label_column, labels_of, text_columns
from d2nwg.data.image_set import ImageSet
from d2nwg.data.labelled import TEST_NAMES, TRAIN_NAMES, labelled_set
from d2nwg.data.listing import skipped_note, walk
from d2nwg.data.rows import LONGEST, Table
from d2nwg.data.text_set import TEXT_SUFFIXES, Text, TextSet
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import is_utf8, number, shown, some

if TYPE_CHECKING:
    from datasets import Dataset

MAX_DOWNLOAD = 16 * 2**30  # bytes, where the data set's card gives its size
TIMEOUT = 5  # seconds
_SIMPLE = ("string", "large_string", "int", "uint", "bool")  # of columns that can be labels
_PLAIN = (*_SIMPLE, "float")
LABELS = ("label", "labels", "fine_label", "class", "category", "target")  # the preferred column names, in order

_HUB_NAME = re.compile(r"(?P<repo>\w[\w.\-]*(/\w[\w.\-]*)?)(@(?P<config>[\w.\-]+))?", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Whether a text can be ``name``, ``org/name`` or either with ``@config``."""
    file = text.lower().endswith((".zip", ".tar", ".gz", ".xz", ".bz2", ".tgz", *TEXT_SUFFIXES))
    return bool(_HUB_NAME.fullmatch(text)) and not file


def is_datasets_folder(folder: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``, or holds parquet files (at most one folder deep)."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return True
    return any(folder.glob("*.parquet")) or any(folder.glob("[!.]*/*.parquet"))


def load_local(folder: Path, *, columns: Columns = FOUND, progress: Progress = silent) -> ImageSet | TextSet:
    """Load a folder that `is_datasets_folder` recognises.

    Raises:
        UserError: it cannot be read, or has no column of labels, or neither of images nor of texts.
    """
    import datasets

    name = shown(folder.resolve().name)
    progress("Opening the data set", 0, 0)
    skipped = [entry for listing in walk(folder, folder) for entry in listing.skipped]
    if skipped:
        raise UserError(f"{name} cannot be read as a data set. {' '.join(skipped_note(skipped, folder))}")
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(str(folder.resolve()), cache_dir=str(cache_dir() / "datasets"))
    except Exception as error:
        raise UserError(f"{name} cannot be read as a data set; check that all its files are there.") from error
    return _from_datasets(name, loaded, [folder.resolve()], columns)


def load_hub(name: str, *, columns: Columns = FOUND, progress: Progress = silent) -> ImageSet | TextSet:
    """Load ``org/name`` or ``org/name@config`` from the Hub; with ``HF_HUB_OFFLINE=1``, from earlier downloads.

    Raises:
        UserError: there is no such data set, it is too large or has no column of labels, or neither of images nor
            of texts, or the Hub does not answer within `TIMEOUT` seconds.
    """
    found = _HUB_NAME.fullmatch(name)
    if not found:
        raise UserError(f"{shown(name)} is not the name of a data set on the Hub, such as ylecun/mnist.")
    repo, config = found["repo"], found["config"]
    if os.path.exists(repo):  # `datasets` would take it for a local folder
        raise UserError(f"There is a file or folder named {repo}; give ./{repo} to use that instead of the Hub.")
    progress("Asking the Hub", 0, 0)
    _check_hub(repo)

    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if repo in _PACKAGED_DATASETS_MODULES:  # "csv", "imagefolder" …: would read the current folder
        raise UserError(f"{repo} is not the name of a data set on the Hub; give it as org/name.")
    progress("Downloading the data set", 0, 0)
    try:
        size = datasets.load_dataset_builder(repo, config).info.download_size or 0
        if size > MAX_DOWNLOAD:
            raise UserError(f"{repo} has {size / 2**30:.0f} GiB to download; the limit is {MAX_DOWNLOAD >> 30}.")
        loaded = datasets.load_dataset(repo, config)
    except UserError:
        raise
    except ConnectionError as error:
        raise _unreachable(repo) from error
    except Exception as error:
        choices = re.search(r"(?:Config name is missing|BuilderConfig).*?\[(.*?)\]", str(error), re.DOTALL)
        if choices:
            parts = shown(choices[1])
            raise UserError(f"{repo} has several parts; give {repo}@PART with one of {parts}.") from error
        raise UserError(f"{repo} cannot be loaded from the Hub as a data set of images or texts.") from error
    import huggingface_hub

    cached = [datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE]
    return _from_datasets(name, loaded, [Path(folder).resolve() for folder in cached], columns)


def _check_hub(repo: str) -> None:
    """Request the data set once, with a short timeout: `datasets` retries an unreachable Hub for half a minute."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(repo, timeout=TIMEOUT)
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"There is no folder, archive or Hub data set named {repo} (or it is private).") from None
    except Exception as error:  # no connection, a timeout, an error of the server: types of several libraries
        raise _unreachable(repo) from error


def _unreachable(repo: str) -> UserError:
    return UserError(
        f"There is no folder or archive named {repo}, and the Hugging Face Hub cannot be reached to "
        "look there; check the name and the connection."
    )


class _Rows(Sequence):
    """A column of rows of data sets, concatenated; each is read when it is indexed."""

    def __init__(self, parts: "Sequence[tuple[Dataset, np.ndarray]]"):
        self.datasets = [dataset for dataset, _ in parts]
        self.part = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
        self.row = np.concatenate([rows for _, rows in parts])

    def __len__(self) -> int:
        return len(self.row)

    def read(self, index: int) -> dict[str, Any]:
        """The columns of a row."""
        return self.datasets[self.part[index]][int(self.row[index])]


class _Images(_Rows):
    """Encoded images; files elsewhere than in ``folders`` are not opened."""

    def __init__(self, parts, column: str, folders: Sequence[Path]):
        super().__init__(parts)
        self.column, self.folders = column, folders

    def __getitem__(self, index: int) -> Path | bytes:  # type: ignore[override]  # no slices
        """An image that is missing, or a path that leads outside the data set's own files, reads as b""."""
        image = self.read(index)[self.column] or {}
        if image.get("bytes"):
            return image["bytes"]
        path = Path(image.get("path") or "").resolve()
        return path if any(folder in path.parents for folder in self.folders) else b""


class _Texts(_Rows):
    """Texts, or pairs of texts; one that is missing reads as ``""``."""

    def __init__(self, parts, columns: Sequence[str]):
        super().__init__(parts)
        self.columns = columns

    def __getitem__(self, index: int) -> Text:  # type: ignore[override]  # no slices
        row = self.read(index)
        texts = tuple(str(row[column] or "")[:LONGEST] for column in self.columns)
        return texts if len(texts) == 2 else texts[0]


def _from_datasets(name: str, loaded, folders: Sequence[Path], columns: Columns) -> ImageSet | TextSet:
    """The set of a `Dataset` or `DatasetDict` with a label column, and one of images or else of texts.

    Args:
        folders: image files elsewhere are not opened.
    """
    import datasets

    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    splits = {split: dataset for split, dataset in splits.items() if len(dataset)}
    train = next((split for split in TRAIN_NAMES if split in splits), None)
    tests = [split for split in TEST_NAMES if split in splits and train]
    if not train:
        train = next(iter(splits), None)
    if not train:
        raise UserError(f"{name} holds no rows.")
    features = splits[train].features
    image = next((c for c, f in features.items() if isinstance(f, datasets.Image)), None) or next(
        (c for c, f in features.items() if isinstance(f, dict) and {"bytes", "path"} <= set(f)), None
    )
    if image and not columns:
        label, used = _label_column(features), [image]
        if label is None:
            raise UserError(f"{name} has no label column, only {shown(', '.join(features))}; call one label.")
    else:
        label, used = _text_columns(name, splits[train], columns)

    parts, labels, is_test = [], [], []
    notes = [f"Columns used: {some(used)} and {shown(label)}."]
    for split in (train, *tests):
        dataset = splits[split]
        if {*used, label} - set(dataset.column_names):
            continue
        values = _labels(name, dataset, label)
        rows = np.flatnonzero([value is not None for value in values])
        if len(rows) < len(dataset):
            notes.append(f"Left out: {number(len(dataset) - len(rows), 'row')} of {shown(split)} without a label.")
        if len(rows):
            part = dataset.select_columns(used)
            part = part.cast_column(image, datasets.Image(decode=False)) if used == [image] else part
            parts.append((part.with_format(None), rows))
            labels += [values[row] for row in rows]
            is_test += [split != train] * len(rows)
        if split != train and len(rows):
            break  # test, or else validation
    if not parts:
        raise UserError(f"{name} holds no labelled {'images' if used == [image] else 'texts'}.")
    unused = [shown(split) for split in splits if split not in (train, *tests)]
    if unused:
        notes.append(f"Only {train} was used for training; left out: {', '.join(unused)}.")
    if used == [image]:
        return labelled_set(ImageSet, name, _Images(parts, image, folders), labels, is_test, notes)
    return labelled_set(TextSet, name, _Texts(parts, used), labels, is_test, notes)


def _text_columns(name: str, dataset: "Dataset", columns: Columns) -> tuple[str, list[str]]:
    """The label column, and the columns of texts."""
    plain = [c for c, f in dataset.features.items() if getattr(f, "dtype", "").startswith(_PLAIN)]
    if not plain:
        raise UserError(f"{name} has neither images nor texts, only {shown(', '.join(dataset.features))}.")
    few = dataset.with_format(None).select_columns(plain).select(range(min(len(dataset), LOOKED_AT)))
    table = Table(shown(name), {column: list(values) for column, values in few[:].items()}, length=len(few))
    label = None if columns.label else _label_column(dataset.features)
    label = label or label_column(table, columns.label, aside=columns.texts)
    return label, list(text_columns(table, columns.texts, aside=[label]))


def _label_column(features) -> str | None:
    """The label column: a class column with a usual name, else any class column, else a column of strings or integers
    with a usual name."""
    import datasets

    classes = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    usual = [c for c in LABELS if c in features and getattr(features[c], "dtype", "").startswith(_SIMPLE)]
    return next(iter([c for c in usual if c in classes] + classes + usual), None)


def _labels(name: str, dataset: "Dataset", column: str) -> list[str | None]:
    """The rows' class names; None where there is no label (hidden test labels are -1)."""
    values = dataset.with_format(None).select_columns([column])[:][column]
    names = getattr(dataset.features[column], "names", None)
    if names:
        return [names[v] if v is not None and 0 <= v < len(names) else None for v in values]
    if dataset.features[column].dtype.startswith("float"):
        return labels_of(Table(shown(name), {column: list(values)}, length=len(values)), column)
    return [str(v) if v is not None and str(v).strip() and is_utf8(str(v)) else None for v in values]
