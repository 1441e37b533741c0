"""`benchmarks/PAPERS.md`, from the specifications, the results and the tables of the other benchmarks."""

from collections import Counter
from pathlib import Path

from benchmarks.papers.markdown import markdown, read
from benchmarks.papers.run import QUICK, load
from benchmarks.papers.spec import NOT_MEASURED, STATUSES, Entry, Grid, Verdict
from benchmarks.papers.tables import PAPERS

PAGE = Path(__file__).resolve().parents[1] / "PAPERS.md"


def found_for(entry: Entry, results: Path) -> tuple[dict[str, Grid], list[tuple[Grid, str]]]:
    """Grids by name, as verdicts take them; and each with a sentence on where it is from.

    Quick results show that a table can be measured, and are no measurement: they are left out.
    """
    named, said = {}, []
    measured = load(results, entry)
    if measured and measured[1]["size"] != QUICK:
        grids, how = measured
        at = f"commit {how['commit']}, " if how["commit"] else ""
        where = f"{at}{how['seconds'] / 60:.0f} min on {how['machine']['threads']} thread(s) of {how['machine']['cpu']}"
        for number, one in enumerate(grids):
            named[f"measured-{number}"] = one
            said.append((one, f"`{how['command']}` ({where})" if number == len(grids) - 1 else ""))
    for number, source in enumerate(entry.published):
        if made := read(source):
            one, heading, command = made
            named[f"published-{number}"] = one
            said.append((one, f"From [{heading}]({link(source.page, heading)}): `{command}`"))
    return named, said


def anchor(heading: str) -> str:
    """Of a heading, as GitHub makes it."""
    return "".join(c for c in heading.lower() if c.isalnum() or c in "-_ ").replace(" ", "-")


def link(page: str, heading: str) -> str:
    """To a heading of a page of the repository, from `PAGE`."""
    return f"{Path(page).name if page.startswith('benchmarks/') else f'../{page}'}#{anchor(heading)}"


def verdict_of(entry: Entry, found: dict[str, Grid]) -> Verdict:
    """What holds; without the numbers that it is read from, it is not measured yet."""
    try:
        return entry.verdict(found)
    except KeyError:
        return Verdict(NOT_MEASURED, why=f"`python -m benchmarks.papers {entry.id}` measures it.")


def row(entry: Entry, verdict: Verdict) -> str:
    """Of the first table."""
    cells = [f"[{name(entry)}](#{anchor(heading(entry))})", entry.title, entry.claim, verdict.ours, entry.substituted]
    return f"| {' | '.join(cells)} | **{verdict.status}**{f': {verdict.why}' if verdict.why else ''} |"


def name(entry: Entry) -> str:
    """``table4`` → ``Table 4``."""
    word = entry.id.rstrip("0123456789")
    return f"{word.capitalize()} {entry.id.removeprefix(word)}"


def heading(entry: Entry) -> str:
    """Of an entry's section."""
    return f"{name(entry)}: {entry.title}"


def part(entry: Entry, verdict: Verdict, said: list[tuple[Grid, str]], shown: dict[Grid, Entry]) -> str:
    """An entry's section: the paper's numbers, ours, where they are from. ``shown``: grids → the entry that has them
    already, which is named instead."""
    lines = [f"### {heading(entry)}", "", f"**{verdict.status}**{f': {verdict.why}' if verdict.why else '.'}"]
    for one in entry.paper:
        lines += ["", markdown(Grid(f"The paper: {one.title}", one.columns, one.rows, one.note))]
    for one, source in said:
        first = shown.setdefault(one, entry)
        if first is not entry:
            lines += ["", f"*Here: {one.title}*: see [{name(first)}](#{anchor(heading(first))})."]
            continue
        lines += ["", markdown(Grid(f"Here: {one.title}", one.columns, one.rows, one.note))]
        lines += ["", source] * bool(source)
    return "\n".join(lines)


def page(results: Path) -> str:
    """The whole page."""
    parts = [
        "# The papers, table by table",
        "Every table and figure of *Diffusion-based Neural Network Weights Generation* (Soro et al., ICLR "
        "2025), and the "
        "three scenarios of *Reimagining Parameter Space Exploration with Diffusion Models* (Zhang et al., arXiv "
        "2506.17807, by its abstract): the paper's numbers, ours, what was substituted, and what holds. This page is "
        "written by `python -m benchmarks.papers --write-page` from `benchmarks/papers/results/` and from the tables "
        "of the other benchmarks and model cards; a status follows from the numbers below it.",
        "\n".join(f"- *{status}*: {meaning}." for status, meaning in STATUSES.items()),
        "Percent right unless something else is said. The paper's best of fifty samples by the query images is called "
        "*oracle*; the other columns look at no query image.",
    ]
    rows, details, counts, shown = {}, [], Counter(), {}
    for paper, entries in PAPERS.items():
        rows[paper] = []
        for entry in entries:
            found, said = found_for(entry, results)
            verdict = verdict_of(entry, found)
            counts[verdict.status] += 1
            rows[paper].append(row(entry, verdict))
            if entry.paper or said:
                details.append(part(entry, verdict, said, shown))
    parts.append(f"{', '.join(f'{counts[status]} {status}' for status in STATUSES if counts[status])}.")
    for paper, lines in rows.items():
        head = "| | what | the paper | here | substituted, and why | status |\n|---|---|---|---|---|---|"
        parts += [f"## {paper}", "\n".join([head, *lines])]
    parts += ["## The numbers", *details]
    return "\n\n".join(parts) + "\n"
