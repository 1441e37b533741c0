"""The rows of a table of texts: CSV with any usual separator and encoding, JSONL, or one text a line; packed with gzip
or not. Files of strangers are read within bounds: as a stream, and never what is no regular file.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from d2nwg.data.tables import from_cell
from d2nwg.data.text_set import TABLES
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import number, shown, utf8

MAX_BYTES = 512 * 2**20  # of a file, unpacked
MAX_LINE = 32 * 2**20  # characters
MAX_ROWS, MAX_COLUMNS, MAX_CELLS = 1_000_000, 200, 20_000_000
NESTED: Any = ...  # stands for a list or an object in a cell
LONGEST = 20_000  # characters of a cell that are kept: more than any text encoder reads
SAMPLE = 64 * 2**10  # bytes that tell encoding and separator
FEW = 40  # rows that do
# Separators in the order of preference, and whether quotes enclose cells.
_FORMS = ((",", True), (";", True), ("\t", True), ("|", True), ("\t", False))
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass
class Table:
    """Rows of a file, column by column.

    Attributes:
        name: of the file, for sentences.
        columns: name → its n values: a string, a number, a bool, None, or `NESTED` for a list or an object. The only
            column of a list of texts is called ``""``.
        notes: sentences for the user.
    """

    name: str
    columns: dict[str, list[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    length: int = 0

    def __len__(self) -> int:
        return self.length

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; columns that it lacks, or that are new, are filled with None.

        Raises:
            UserError: there are too many.
        """
        for key in row:
            if key not in self.columns:
                self.columns[key] = [None] * self.length
        for key, values in self.columns.items():
            values.append(_kept(row.get(key)))
        self.length += 1
        if self.length > MAX_ROWS:
            raise UserError(f"{self.name} has more than {MAX_ROWS:,} rows, which is the limit.")
        if len(self.columns) > MAX_COLUMNS or self.length * len(self.columns) > MAX_CELLS:
            raise UserError(f"{self.name} has too many columns: keep the texts and their labels.")


def is_table(path: Path) -> bool:
    """Whether a file is named like a table (`TABLES`, packed or not)."""
    return suffix_of(path) in TABLES


def suffix_of(path: Path) -> str:
    """``.csv`` of ``reviews.CSV.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def stem_of(path: Path) -> str:
    """``reviews`` of ``reviews.csv.gz``."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def read_table(path: Path) -> Table:
    """The rows of a file.

    Raises:
        UserError: it is no regular file, damaged, too large, no text, or has no rows.
    """
    name = shown(path.name)
    if not path.is_file():  # a FIFO would block, a device has no end
        raise UserError(f"There is no table at {shown(path)}." if not path.exists() else f"{name} is no regular file.")
    try:
        encoding, notes = _encoding(path, name)
        with _opened(path, name, encoding) as file:
            kind = suffix_of(path)
            table = (_json if kind in (".jsonl", ".ndjson") else _list if kind == ".txt" else _csv)(_lines(file), name)
    except _DAMAGE as reason:
        raise UserError(f"{name} is damaged or incomplete: pack or download it again.") from reason
    except (UnicodeError, csv.Error) as reason:
        raise UserError(f"{name} cannot be read as a table of texts: save it as CSV in UTF-8.") from reason
    except OSError as reason:
        why = (reason.strerror or "it cannot be opened").lower()
        raise UserError(f"{name} cannot be read: {why}.") from reason
    if not len(table):
        raise UserError(f"{name} holds no rows: it should have one text a row.")
    table.notes = [*notes, *table.notes]
    return table


class _Bounded(io.RawIOBase):
    """A stream of at most `MAX_BYTES`, without NUL bytes unless its encoding has them."""

    def __init__(self, file: IO[bytes], name: str, wide: bool):
        self.file, self.name, self.wide, self.left = file, name, wide, MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.file.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise UserError(f"{self.name} is larger than {MAX_BYTES >> 20} MiB, which is the limit.")
        if not self.wide and b"\0" in data:
            raise UserError(f"{self.name} holds NUL bytes: it is no text, or damaged. Save it as UTF-8.")
        buffer[: len(data)] = data
        return len(data)


def _raw(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _opened(path: Path, name: str, encoding: str) -> io.TextIOWrapper:
    bounded = io.BufferedReader(_Bounded(_raw(path), name, "16" in encoding or "32" in encoding), 2**16)
    errors = "replace" if encoding == "cp1252" else "strict"  # five of its bytes mean nothing
    return io.TextIOWrapper(bounded, encoding=encoding, errors=errors, newline="")


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise csv.Error("a line without end")
        yield line


def decoded(path: Path) -> str | None:
    """The text that a file is; None for what is no text or cannot be read. Of a long one the beginning."""
    try:
        encoding, _ = _encoding(path, path.name)
        with _opened(path, path.name, encoding) as file:
            return file.read(LONGEST).strip()
    except (OSError, UnicodeError, UserError, *_DAMAGE):
        return None


def _encoding(path: Path, name: str) -> tuple[str, list[str]]:
    """The encoding of a file, and a sentence where it had to be guessed."""
    with _raw(path) as file:
        head = file.read(SAMPLE)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, []
    if len(head) > 3 and b"\0" in head:  # UTF-16 without a mark: every other byte of a European text is 0
        for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if head[place::2].count(0) > 0.4 * len(head) / 2 > 4 * head[1 - place :: 2].count(0):
                return encoding, []
    odd = sum(byte < 32 and byte not in b"\t\n\r\f\v\x1a\x1b" for byte in head)
    if odd > len(head) / 100:
        raise UserError(f"{name} does not look like text: give a CSV, a JSONL or a text file.")
    try:
        with _opened(path, name, "utf-8") as text:
            while text.read(2**20):
                pass
        return "utf-8", []
    except UnicodeDecodeError:
        note = f"{name} is not UTF-8 and was read as Western European (Windows-1252); save it as UTF-8 if letters look"
        return "cp1252", [f"{note} wrong."]


def _json(lines: Iterable[str], name: str) -> Table:
    table, broken = Table(name), []
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            table.add({str(key).strip()[:200]: value for key, value in row.items()})
            continue
        if not len(table) and text.lstrip().startswith("["):
            raise UserError(f"{name} is one JSON array: write one JSON object a line (JSONL).")
        broken.append(line)
        if len(broken) > 3 and len(broken) > len(table):
            break
    if broken and len(broken) >= len(table):
        raise UserError(f"Line {broken[0]} of {name} is no JSON object: write one JSON object a line.")
    if broken:
        where = ", ".join(f"{line:,}" for line in broken[:3]) + (" …" if len(broken) > 3 else "")
        table.notes.append(f"Left out, because no JSON object: {number(len(broken), 'line')} of {name} ({where}).")
    return table


def _list(lines: Iterable[str], name: str) -> Table:
    table = Table(name)
    for text in lines:
        if text.strip():
            table.add({"": text.strip()})
    return table


def _csv(lines: Iterator[str], name: str) -> Table:
    csv.field_size_limit(MAX_LINE)
    sample, size = [], 0
    for line in lines:
        sample.append(line)
        if (size := size + len(line)) > SAMPLE:
            break
    separator, quoted = _form(sample)
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    table, wrong = Table(name), 0
    header: list[str] = []
    for cells in csv.reader(chain(sample, lines), delimiter=separator, quoting=quoting):
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            if not _is_data(cells):
                header = _header(cells)
                continue
            header = [f"column {place}" for place in range(1, len(cells) + 1)]
            table.notes.append(f"{name} has no row of column names: its columns are called column 1, column 2 ….")
        if len(cells) != len(header):
            wrong += 1
            continue
        table.add({key: from_cell(cell) for key, cell in zip(header, cells, strict=True)})
    if wrong > len(table):
        raise UserError(f"Most rows of {name} have another number of columns than its first row: save it as CSV.")
    if wrong:
        what = number(wrong, "row")
        table.notes.append(f"Left out: {what} of {name} with another number of columns than its first row.")
    return table


def _header(cells: list[str]) -> list[str]:
    """Names of columns, each once."""
    names: list[str] = []
    for place, cell in enumerate(cells, 1):
        name = cell.strip()[:200] or f"column {place}"
        names.append(name if name not in names else f"{name} ({place})")
    return names


def _is_data(cells: list[str]) -> bool:
    """Whether the first row holds no names of columns but a text, or a number, as AG News' does."""
    return any(len(cell) > 60 or cell.strip().lstrip("-").replace(".", "", 1).isdigit() for cell in cells)


def _form(lines: list[str]) -> tuple[str, bool]:
    """The separator, and whether quotes enclose cells: those with which the most rows have as many columns as the first
    one, and more than one."""
    best, found = (0.0, 0), _FORMS[0]
    for separator, quoted in _FORMS:
        quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        try:
            rows = csv.reader(lines, delimiter=separator, quoting=quoting)
            widths = [len(cells) for cells, _ in zip(rows, range(FEW), strict=False) if cells]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        same = widths.count(widths[0])
        score = (round(same / len(widths), 2), same)
        if score > best:
            best, found = score, (separator, quoted)
    return found


def _kept(value: Any) -> Any:
    """A value, cut where no encoder reads on."""
    if isinstance(value, str):
        return utf8(value[:LONGEST]).replace("\0", " ")
    return value if value is None or isinstance(value, int | float) else NESTED
