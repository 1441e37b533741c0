"""Tables in Markdown: those that other benchmarks wrote, read; and ours, written."""

import re
from pathlib import Path

from benchmarks.papers.spec import Cell, Grid, Published

ROOT = Path(__file__).resolve().parents[2]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above. Empty where there is none."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    if not found:
        return ""
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def section_with(text: str, begins: str) -> tuple[str, str]:
    """The heading, and what stands below it, of the section in which a command stands. Empty where it does not."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        head, _, rest = part.partition("\n")
        if command(rest, begins):
            return head, rest
    return "", ""


def tables(text: str) -> list[list[list[str]]]:
    """Every table of a text: rows of cells, the headings first."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [[cell.strip().strip("*") for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        found.append([row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)])
    return found


def command(text: str, begins: str) -> str | None:
    """The first command of a text that begins so, in a block or in a line, in one line; parts that are divided by an
    ellipsis occur in it one by one."""
    begins, *others = begins.split(" … ")
    joined = re.sub(r" \\\n\s*", " ", text)
    found = re.findall(rf"(?:^|`)({re.escape(begins)}[^`\n]*)", joined, re.MULTILINE)
    return next((said.strip() for said in found if all(other in said for other in others)), None)


def read(source: Published) -> tuple[Grid, str, str] | None:
    """The numbers, the heading of their section, and the command that measured them; None where the page has no such
    section, table or command."""
    page, heading = (ROOT / source.page).read_text(encoding="utf-8"), source.heading
    heading, text = (heading, section(page, heading)) if heading else section_with(page, source.command)
    # Some sections leave their command to the list at the head of the page.
    said, every = command(text, source.command) or command(page, source.command), tables(text)
    if isinstance(source.table, str):
        every = [one for one in every if one[0][0] == source.table]
    place = 0 if isinstance(source.table, str) else source.table
    if said is None or len(every) <= place:
        return None
    heads, *rows = every[place]
    columns = source.columns or tuple(h for i, h in enumerate(heads) if i not in source.label)
    places = [heads.index(column) for column in columns]
    kept = tuple(
        (" ".join(filter(None, (row[i] for i in source.label))), tuple(row[i] or None for i in places))
        for row in rows
        if source.keep(row)
    )
    return Grid(source.title or heading, columns, kept), heading, said


def cell(value: Cell) -> str:
    """As it stands in a table."""
    if value is None:
        return "–"
    if isinstance(value, tuple):
        return f"{cell(value[0])} ± {cell(value[1])}"
    if isinstance(value, float):
        return f"{value:.1f}" if value == round(value, 1) else f"{value:.10g}"
    return f"{value:,}" if isinstance(value, int) else value


def markdown(found: Grid) -> str:
    """A grid as a table, its title before it and its note below."""
    lines = [f"| | {' | '.join(found.columns)} |", "|---" * (len(found.columns) + 1) + "|"]
    lines += [f"| {label} | {' | '.join(map(cell, cells))} |" for label, cells in found.rows]
    return "\n".join([f"*{found.title}*", "", *lines, *(["", found.note] if found.note else [])])
