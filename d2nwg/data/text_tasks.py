"""A task of texts as an adapter learns it: texts with classes or values, three parts, a metric, and descriptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from d2nwg.data.columns import label_column, labels_of, text_columns
from d2nwg.data.labelled import TEST_NAMES, TRAIN_NAMES
from d2nwg.data.rows import is_table, read_table, stem_of
from d2nwg.data.text_set import Text
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import leads_out, read_json
from d2nwg.utils.text import folded, number, shown

TRAIN, DEV, TEST = range(3)
PARTS = {TRAIN: TRAIN_NAMES, DEV: ("dev", *TEST_NAMES[2:]), TEST: TEST_NAMES[:2]}  # names of files
SHARES = (0.7, 0.1, 0.2)  # of the parts, where they are cut here
METRICS = ("accuracy", "matthews", "pearson")
Metric = Literal["accuracy", "matthews", "pearson"]
MOST_DESCRIPTIONS, LONGEST = 100, 5_000  # number, and characters of one


class About(BaseModel):
    """What is said of a task beside its texts: by its ``task.json``, or in a file about several tasks.

    Attributes:
        description, descriptions: in words.
        aside: further descriptions, which no generator learns from: they test it.
        labels: names of the classes 0, 1, …, where the tables hold numbers.
        metric: by default accuracy, and Pearson's correlation for values.
    """

    description: str | None = None
    descriptions: Annotated[list[str], Field(max_length=MOST_DESCRIPTIONS)] = []
    aside: Annotated[list[str], Field(max_length=MOST_DESCRIPTIONS)] = []
    labels: list[str] | None = None
    metric: Metric | None = None


@dataclass(frozen=True, eq=False)
class TextTask:
    """n texts of a task.

    Attributes:
        name: for sentences and files.
        texts: n texts, or pairs of texts.
        targets: (n,) int64 class numbers, or float32 values.
        classes: names of the C classes; none for values.
        part: (n,) of `TRAIN`, `DEV` (chooses) and `TEST` (scores).
        descriptions: of the task, in words.
        aside: further ones, which test a generator.
        metric: one of `METRICS`.
        cut: in words, how the parts were made.
    """

    name: str
    texts: Sequence[Text]
    targets: np.ndarray
    classes: tuple[str, ...]
    part: np.ndarray
    descriptions: tuple[str, ...]
    metric: Metric
    cut: str = ""
    aside: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def numbers(self, part: int, most: int | None = None, seed: int = 0) -> np.ndarray:
        """Numbers of the texts of a part, at most so many, drawn by the seed; in order of their numbers."""
        found = np.flatnonzero(self.part == part)
        if most is not None and len(found) > most:
            found = np.sort(np.random.default_rng(seed).permutation(found)[:most])
        return found


def read_about(file: str | Path) -> dict[str, About]:
    """What a JSON file says of several tasks: their names → `About`.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    content = read_json(Path(file))
    if content is None:
        raise UserError(f"{shown(file)} cannot be read: give a JSON file with the descriptions of each task.")
    return _checked(TypeAdapter(dict[str, About]), content, f"The file {shown(file)}")


def load_text_task(path: str | Path, *, seed: int = 0, said: Mapping[str, About] | None = None) -> TextTask:
    """Read a task: a folder with tables of texts (``train.csv``, ``dev.jsonl.gz`` …) and perhaps a ``task.json``
    (`About`), or one table.

    Without a part for testing or training, all is cut 70 : 10 : 20; with both but none to choose by, an eighth of
    the training part is kept for that.

    Args:
        seed: of the cut.
        said: by the names of tasks; what it says goes before ``task.json``.
    Raises:
        UserError: there is no such table, it holds no usable labels, or too few texts.
    """
    path = Path(path)
    files = _tables(path)
    name = stem_of(path) if path.is_file() else path.resolve().name
    about = _about(path / "task.json", name) if path.is_dir() else About()
    if said and name in said:
        about = about.model_copy(update=said[name].model_dump(exclude_unset=True))
    texts: list[Text] = []
    raw: list[float | str] = []
    parts: list[int] = []
    for file, part in files:
        found = _read(file)
        texts += [text for text, _ in found]
        raw += [label for _, label in found]
        parts += [part] * len(found)
    pairs = {isinstance(text, tuple) for text in texts}
    if len(pairs) > 1:
        raise UserError(f"Some tables of {shown(name)} hold pairs of texts and some single ones: they should be alike.")
    targets, classes = _targets(raw, about, name)
    metric: Metric = about.metric or ("accuracy" if classes else "pearson")
    if (metric == "pearson") == bool(classes):
        kind = "classes" if classes else "values"
        raise UserError(f"The task {shown(name)} has {kind}, which cannot be measured by {metric}.")
    part, cut = _cut(np.array(parts), seed)
    descriptions = tuple(dict.fromkeys(text for text in (about.description, *about.descriptions) if text))
    return TextTask(name, texts, targets, classes, part, descriptions or (name,), metric, cut, tuple(about.aside))


def _tables(path: Path) -> list[tuple[Path, int]]:
    """The tables of a task and the part of each; all are for training where they are not called otherwise."""
    if path.is_file():
        return [(path, TRAIN)]
    if not path.is_dir():
        raise UserError(f"There is no task of texts at {shown(path)}: give a folder with tables, or a table.")
    named = {folded(one): part for part, names in PARTS.items() for one in names}
    found = sorted(file for file in path.iterdir() if is_table(file))
    if links := [file for file in found if leads_out(file)]:
        name = shown(links[0].name)
        raise UserError(
            f"The folder {shown(path)} holds {name}, a link that leads elsewhere: put the file itself there."
        )
    known = [(file, named[folded(stem_of(file))]) for file in found if folded(stem_of(file)) in named]
    if not known and len(found) != 1:
        what = f"{len(found)} tables, none of them called train" if found else "no table of texts"
        raise UserError(f"The folder {shown(path)} holds {what}: call one train.csv, another test.csv.")
    return known or [(found[0], TRAIN)]


def _about(file: Path, name: str) -> About:
    return (
        _checked(TypeAdapter(About), read_json(file), f"The task.json of {shown(name)}") if file.exists() else About()
    )


def _checked(kind: TypeAdapter, content, what: str):
    try:
        return kind.validate_python(content)
    except ValidationError as reason:
        where = shown(".".join(map(str, reason.errors(include_input=False)[0]["loc"])) or "its beginning")
        raise UserError(f"{what} is damaged at {where}.") from reason


def _read(file: Path) -> list[tuple[Text, float | str]]:
    """Texts and labels of a table, without rows that lack either. Labels that are all numbers with a part after the
    point among them stay numbers."""
    table = read_table(file)
    columns = text_columns(table)
    label = label_column(table, aside=columns)
    values = table.columns[label]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    measured = len(numbers) and any(float(value) % 1 for value in numbers)
    labels = values if measured else labels_of(table, label)
    rows = []
    for number_, one in enumerate(labels):
        cells = [table.columns[column][number_] for column in columns]
        if not all(isinstance(cell, str) and cell.strip() for cell in cells) or one is None:
            continue
        if measured and (isinstance(one, bool) or not isinstance(one, int | float)):
            continue
        rows.append((cells[0] if len(cells) == 1 else (cells[0], cells[1]), float(one) if measured else one))
    if not rows:
        raise UserError(f"{shown(file.name)} holds no text with a label.")
    return rows


def _targets(raw: list, about: About, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if any(isinstance(value, float) for value in raw):
        try:
            return np.array([float(value) for value in raw], np.float32), ()
        except ValueError as reason:
            raise UserError(f"The labels of {shown(name)} are numbers in one table and words in another.") from reason
    if about.labels is not None:
        if not all(value.isdigit() and int(value) < len(about.labels) for value in raw):
            raise UserError(f"A label of {shown(name)} is none of the {len(about.labels)} that its task.json names.")
        return np.array([int(value) for value in raw], np.int64), tuple(about.labels)
    classes, targets = np.unique(np.array(raw, object).astype(str), return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"{shown(name)} has only one class, {shown(classes[0])}: a task needs at least two.")
    return targets.astype(np.int64), tuple(map(str, classes))


def _cut(parts: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """The part of each text, and in words how that was decided."""
    has = [bool((parts == part).any()) for part in (TRAIN, DEV, TEST)]
    rng = np.random.default_rng(seed)
    if all(has):
        return parts, "as given"
    parts = parts.copy()
    if has[TRAIN] and has[TEST]:
        train = rng.permutation(np.flatnonzero(parts == TRAIN))
        parts[train[: len(train) // 8]] = DEV
        return parts, f"an eighth of the training part chooses, cut by seed {seed}"
    order = rng.permutation(len(parts))
    ends = [round(sum(SHARES[: i + 1]) * len(parts)) for i in range(3)]
    if min(np.diff([0, *ends])) < 2:
        raise UserError(f"{number(len(parts), 'labelled text')} are too few for a task: give at least 20.")
    for part, (first, last) in enumerate(zip([0, *ends], ends, strict=False)):
        parts[order[first:last]] = part
    return parts, f"70 : 10 : 20, cut by seed {seed}"
