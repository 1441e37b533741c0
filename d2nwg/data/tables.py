"""Tables: the task, accuracy and epoch of checkpoints, from CSV or JSONL; and CSV files for people to open."""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import is_utf8, shown

TABLES = (".csv", ".jsonl")
MAX_TABLE = 64 * 2**20  # bytes
# What can be known of a checkpoint, and its usual column names or keys in the order of preference.
FACTS = {
    "accuracy": ("accuracy", "acc", "test_acc", "val_acc", "best_acc", "best_acc1", "best_prec1", "prec1"),
    "epoch": ("epoch", "epochs"),
    "task": ("task", "dataset", "data"),
}


# What a spreadsheet would take for a formula, unless it is a number; behind any apostrophes, so that one more can be
# taken away again.
_FORMULA = re.compile(r"(?!'*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$)'*[=+\-@\t\r\n＝＋－＠]")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> Path:
    """A CSV file that can be opened in a spreadsheet: texts that it would take for a formula begin with an apostrophe,
    and unknown numbers are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([as_cell(value) for value in row] for row in rows)
    return path


def as_cell(value: object) -> object:
    """A value as `write_csv` writes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_cell(value: object) -> object:
    """The reverse of `as_cell`."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) else value


def read_tables(paths: Sequence[Path]) -> dict[str, dict]:
    """File name or relative path → its facts (see `FACTS`), those that are given.

    Raises:
        UserError: naming the line at fault.
    """
    table: dict[str, dict] = {}
    for path in paths:
        name = shown(path.name)
        if not path.is_file():  # a FIFO would block
            raise UserError(f"There is no table at {shown(path)}.")
        try:
            if path.stat().st_size > MAX_TABLE:
                raise UserError(f"{name} is larger than {MAX_TABLE // 2**20} MiB; is it a table?")
            rows = list(_rows(path))
        except (OSError, UnicodeDecodeError, csv.Error) as reason:
            raise UserError(f"The table {name} cannot be read: is it a CSV or JSONL in UTF-8?") from reason
        for line, row in rows:
            row = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
            file = next((row[key] for key in ("file", "name", "checkpoint", "path") if row.get(key)), None)
            if file is None:
                if path.suffix.lower() == ".csv":
                    raise UserError(f"The table {name} has no column named file.")
                raise UserError(f"Line {line} of {name} does not say which file it is about.")
            facts = {}
            for fact, keys in FACTS.items():
                value = next((row[key] for key in keys if row.get(key) not in (None, "")), None)
                if value is None:
                    continue
                facts[fact] = as_fact(fact, value)
                if facts[fact] is None:
                    raise UserError(
                        f"Line {line} of {name} gives {shown(value, 40)} as {fact}: write a number"
                        f"{' from 0 to 1, or a percentage' if fact == 'accuracy' else ''}."
                    )
            table[str(file).strip().replace("\\", "/").removeprefix("./")] = facts
    return table


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    if path.suffix.lower() == ".jsonl":
        for line, text in enumerate(path.read_text("utf-8").splitlines(), 1):
            if text.strip():
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    raise UserError(f"Line {line} of {shown(path.name)} is no JSON object.")
                yield line, row
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            yield from ((reader.line_num, {key: from_cell(value) for key, value in row.items()}) for row in reader)


def facts_of(table: dict[str, dict], relative: Path, used: set[str]) -> dict:
    """The row of a file, looked up by its path, its name, either without suffix, or its folder; the key that was found
    is added to `used`."""
    for key in (
        relative.as_posix(),
        relative.with_suffix("").as_posix(),
        relative.name,
        relative.stem,
        relative.parent.as_posix(),
    ):
        if key in table:
            used.add(key)
            return table[key]
    return {}


def as_fact(fact: str, value):
    """A value as a task (str), an epoch (int) or an accuracy (a fraction; above 1 it is read as a percentage), or None
    where it cannot be one."""
    if fact == "task":
        return str(value)[:200] if str(value) and is_utf8(str(value)) else None
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if fact == "epoch":
        return int(value) if abs(value) < 1e9 else None
    value = value / 100 if value > 1 else value
    return round(value, 6) if 0 <= value <= 1 else None
