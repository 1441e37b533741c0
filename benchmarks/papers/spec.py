"""What a table or figure of a paper is here: the paper's numbers, ours, what was substituted, and what holds."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.papers.run import Run

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
OUT_OF_REACH, NOT_MEASURED, FACT = "out of reach", "not measured yet", "no result to reproduce"
STATUSES = {  # id → what it means
    REPRODUCED: "what the paper claims holds here, in its protocol, on what was substituted",
    PARTLY: "some of it holds, or the protocol differs: the row says what",
    NOT: "measured here, and it does not hold",
    OUT_OF_REACH: "its data are not at hand, or its models too large",
    NOT_MEASURED: "can be measured here, and has not been",
    FACT: "a drawing, a list or settings: ours stand beside them",
}
Cell = float | str | tuple[float, float] | None  # a number, words, or a number ± another


@dataclass(frozen=True)
class Grid:
    """A table of numbers.

    Attributes:
        title: what it is of, in words.
        columns: headings of the columns after the first.
        rows: (label, cells) each, as many cells as columns.
        note: a sentence below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""

    def __getitem__(self, place: tuple[str, str | int]) -> float:
        """The number in a row (by its label) and a column (by heading or place). Raises KeyError where there "
        "is none."""
        label, column = place
        number = (
            column
            if isinstance(column, int)
            else dict(zip(self.columns, range(len(self.columns)), strict=True))[column]
        )
        cell = dict(self.rows)[label][number]
        if isinstance(cell, str):
            found = re.match(r"[+−-]?[\d.,]+", cell)
            cell = float(found[0].replace("−", "-").replace(",", "")) if found else None
        if cell is None:
            raise KeyError(place)
        return float(cell[0] if isinstance(cell, tuple) else cell)

    def __contains__(self, label: str) -> bool:
        return label in dict(self.rows)

    def to_json(self) -> dict:
        """`from_json` reads it back."""
        return {"title": self.title, "columns": self.columns, "rows": self.rows, "note": self.note}

    @classmethod
    def from_json(cls, found: dict) -> "Grid":
        """See `to_json`."""
        rows = tuple(
            (label, tuple(tuple(c) if isinstance(c, list) else c for c in cells)) for label, cells in found["rows"]
        )
        return cls(found["title"], tuple(found["columns"]), rows, found.get("note", ""))


def grid(title: str, columns: str | Sequence[str], rows: dict[str, Sequence[Cell]], note: str = "") -> Grid:
    """A `Grid`; columns may be given in one text, separated by bars."""
    heads = tuple(c.strip() for c in columns.split("|")) if isinstance(columns, str) else tuple(columns)
    return Grid(title, heads, tuple((label, tuple(cells)) for label, cells in rows.items()), note)


@dataclass(frozen=True)
class Published:
    """Numbers that another benchmark measured: a table of its page.

    Attributes:
        page: Markdown file, from the root of the repository.
        heading: of the section, without the number signs; empty for the one that the command stands in.
        command: how the command begins that wrote the table; it stands in the section.
        table: number of the table in the section, or the heading of its first column.
        keep: whether a row belongs here, from its cells.
        label: numbers of the columns that name a row.
        columns: headings of the columns to keep; all where there are none.
        title: what the numbers are of, in words.
    """

    heading: str
    command: str
    page: str = "benchmarks/README.md"
    table: int | str = 0
    keep: Callable[[list[str]], bool] = lambda cells: True
    label: tuple[int, ...] = (0,)
    columns: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Call:
    """A benchmark that measures a table.

    Attributes:
        module: that has a ``main(arguments)``.
        arguments: what it is called with, from the run.
        read: the run → grids, from the file that it wrote.
    """

    module: str
    arguments: Callable[["Run"], list[str]]
    read: Callable[["Run"], list[Grid]]


@dataclass(frozen=True)
class Verdict:
    """What holds.

    Attributes:
        status: an id of `STATUSES`.
        ours: our numbers in a few words.
        why: what differs, or why it is out of reach.
    """

    status: str
    ours: str = "–"
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """A table or figure.

    Attributes:
        id: ``table4``, ``figure2``, ``scenario1``.
        title: in words.
        claim: what the paper says with it, and its numbers in a few words.
        paper: the paper's numbers.
        substituted: data and backbone that stand for the paper's, and why.
        verdict: what holds, from the grids that were found: those of a measurement under ``measured-0``, …, published
            ones under ``published-0``, …
        measure: the run → our numbers.
        call: or the benchmark that measures them.
        published: or where they stand already.
        needs: data sets that ``measure`` or ``call`` reads, below ``--data``: all of them, or ``any_of`` them.
        any_of: the table is of those that are there.
        repeats: whether it is measured for several seeds (``--seeds``); else for the seed 0.
        example: whether ``--quick`` runs on the example of handwritten digits where those are missing.
    """

    id: str
    title: str
    claim: str
    verdict: Callable[[dict[str, Grid]], Verdict]
    paper: tuple[Grid, ...] = ()
    substituted: str = "–"
    measure: "Callable[[Run], list[Grid]] | None" = None
    call: Call | None = None
    published: tuple[Published, ...] = field(default=())
    needs: tuple[str, ...] = ()
    any_of: bool = False
    repeats: bool = False
    example: bool = True

    @property
    def can_run(self) -> bool:
        """Whether there is something to measure, beside what is published."""
        return self.measure is not None or self.call is not None


def always(status: str, ours: str = "–", why: str = "") -> Callable[[dict[str, Grid]], Verdict]:
    """A verdict that no number changes."""
    return lambda found: Verdict(status, ours, why)


def waits(benchmark: str, what: str, key: str, column: str = "mean") -> Callable[[dict[str, Grid]], Verdict]:
    """Not measured until a benchmark's table stands in its page (under ``key``); then its column is shown, and what
    differs from the paper."""

    def verdict(found: dict[str, Grid]) -> Verdict:
        if key not in found:
            return Verdict(NOT_MEASURED, why=f"`{benchmark}` measures it")
        place = found[key].columns.index(column)
        cells = [f"{label}: {row[place]}" for label, row in found[key].rows if row[place]]
        return Verdict(PARTLY, "; ".join(cells), what)

    return verdict
