"""Which columns of a table hold the texts, the labels and the split: by their names, or else by what is in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from d2nwg.data.labelled import TEST_NAMES, TRAIN_NAMES
from d2nwg.data.rows import NESTED, Table
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import folded, shown, some

# Usual names in the order of preference. Of two texts a row, the first, and the second beside it.
PAIRS = {
    "text1": "text2",
    "text_1": "text_2",
    "sentence1": "sentence2",
    "sentence_1": "sentence_2",
    "sentence_a": "sentence_b",
    "question1": "question2",
    "premise": "hypothesis",
    "text": "text2",
    "question": "sentence",
}
TEXTS = (
    *("text", "texts", "sentence", "review", "review_text", "content", "tweet", "comment", "message", "question"),
    *("query", "utterance", "headline", "title", "body", "document", "description", "post", "abstract", "summary"),
    *("premise", "sentence1", "text1", "question1", "input", "prompt"),
)
LABELS = (
    *("label_text", "label_name", "class_name", "label", "labels", "class", "category", "target", "intent"),
    *("sentiment", "emotion", "topic", "fine_label", "rating", "stars", "polarity", "gold_label", "tag", "type"),
)
SPLITS = ("split", "set", "fold", "partition", "subset")
TRAINS, TESTS = TRAIN_NAMES, (*TEST_NAMES, "dev")
LOOKED_AT = 1_000  # rows that tell what a column holds


@dataclass(frozen=True)
class Columns:
    """What a person chose: one column of texts, or two; the column of labels. What is not given is found."""

    texts: tuple[str, ...] = ()
    label: str | None = None

    def __bool__(self) -> bool:
        return bool(self.texts or self.label)


FOUND = Columns()  # none is chosen


def text_columns(table: Table, chosen: tuple[str, ...] = (), *, aside: Iterable[str] = ()) -> tuple[str, ...]:
    """The column of texts, or the two of pairs of texts.

    Args:
        chosen: by a person; one or two.
        aside: columns that are none.
    Raises:
        UserError: there is none, or not the chosen ones.
    """
    if list(table.columns) == [""] and len(chosen) < 2:  # a text a line, whatever the columns of tables beside it
        return ("",)
    if chosen:
        if len(chosen) > 2:
            raise UserError(f"{len(chosen)} text columns are given: a row has one text or two.")
        return tuple(_named(table, name) for name in chosen)
    own = {folded(name): name for name in table.columns if name not in set(aside) and _holds_texts(table, name)}
    for first, second in PAIRS.items():
        if first in own and second in own:
            return own[first], own[second]
    usual = [own[name] for name in TEXTS if name in own]
    longest = sorted(own.values(), key=lambda name: -_length(table, name))
    found = next(iter([*usual, *longest]), None)
    if found is None:
        raise UserError(f"{table.name} has no column of texts, only {_all(table)}; call one text.")
    return (found,)


def label_column(table: Table, chosen: str | None = None, *, aside: Iterable[str] = ()) -> str:
    """The column of labels.

    Args:
        chosen: by a person.
        aside: columns that are none.
    Raises:
        UserError: there is none, or not the chosen one.
    """
    if chosen:
        return _named(table, chosen)
    own = {folded(name): name for name in table.columns if name not in set(aside)}
    usual = [own[name] for name in LABELS if name in own and not _is_nested(table, own[name])]
    few = [name for name in own.values() if _repeats(table, name)]
    short = [name for name in few if not _holds_texts(table, name)] if len(few) > 1 else few
    found = next(iter(usual), None) or (short[0] if len(short) == 1 else None)
    if found is None:
        what = "has no column of labels" if not few else f"has several columns that could be labels ({some(few)})"
        raise UserError(f"{table.name} {what}; its columns are {_all(table)}: call one label, or choose it.")
    return found


def split_column(table: Table) -> str | None:
    """The column that says which rows are for training and which for testing; None where there is none."""
    for name in table.columns:
        if folded(name) in SPLITS:
            values = {folded(str(value).strip()) for value in table.columns[name] if value is not None}
            if values & set(TRAINS) and values & set(TESTS):
                return name
    return None


def labels_of(table: Table, column: str) -> list[str | None]:
    """The labels as class names; None where there is none.

    Raises:
        UserError: they are lists, or measurements such as 2.6, which are no classes.
    """
    values = table.columns[column]
    if _is_nested(table, column):
        raise UserError(f"The column {shown(column)} of {table.name} holds lists or objects: give one label a row.")
    numbers = [_number(value) for value in values]
    given = [value for value in numbers if value is not None]
    whole = all(value.is_integer() for value in given)
    if given and not whole and 2 * len(given) > sum(value is not None for value in values):
        example = next(value for value in given if not value.is_integer())
        raise UserError(
            f"The column {shown(column)} of {table.name} holds measurements such as {example:g}, and a head tells "
            "classes apart: give a column of class names or whole numbers."
        )
    return [_label(value, number if whole else None) for value, number in zip(values, numbers, strict=True)]


def _label(value: Any, number: float | None) -> str | None:
    if value is None or value is NESTED:
        return None
    if number is not None and number.is_integer() and abs(number) < 2**53:
        return str(int(number))  # 3 and 3.0 are one class
    return " ".join(str(value).split())[:200] or None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None or value is NESTED:
        return None
    if isinstance(value, str) and not value.strip().replace("-", "", 1).replace(".", "", 1).isdecimal():
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e300 else None  # neither infinite nor NaN


def _named(table: Table, name: str) -> str:
    if name in table.columns:
        return name
    own = {folded(column): column for column in table.columns}
    if folded(name.strip()) in own:
        return own[folded(name.strip())]
    raise UserError(f"{table.name} has no column {shown(name)}; its columns are {_all(table)}.")


def _all(table: Table) -> str:
    return some([name or "the line itself" for name in table.columns], 12)


def _few(table: Table, column: str) -> list[Any]:
    return [value for value in table.columns[column][:LOOKED_AT] if value not in (None, "")]


def _is_nested(table: Table, column: str) -> bool:
    few = _few(table, column)
    return 2 * sum(value is NESTED for value in few) > len(few)


def _holds_texts(table: Table, column: str) -> bool:
    """Whether most values are strings with a letter."""
    few = _few(table, column)
    return 2 * sum(isinstance(value, str) and any(map(str.isalpha, value)) for value in few) > len(few)


def _length(table: Table, column: str) -> float:
    few = _few(table, column)
    return sum(len(str(value)) for value in few) / max(1, len(few))


def _repeats(table: Table, column: str) -> bool:
    """Whether a column has few values, each several times, as labels have."""
    few = [value for value in _few(table, column) if value is not NESTED]
    several = len({str(value) for value in few})
    return bool(few) and not _is_nested(table, column) and 2 <= several <= len(few) / 2
