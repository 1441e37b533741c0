"""The specifications: every table and figure of the first paper, and the scenarios of the second."""

from benchmarks.papers.spec import Entry
from benchmarks.papers.tables import epochs, facts, few_shot, language, networks, retrieval, task_ids, transfer

FIRST, SECOND = "Diffusion-based neural network weights generation", "Reimagining parameter space exploration"
_PARTS = (epochs, facts, few_shot, language, networks, retrieval, transfer)


def _order(entry: Entry) -> tuple[bool, int]:
    """Tables before figures, by number."""
    return entry.id.startswith("figure"), int("".join(filter(str.isdigit, entry.id)))


PAPERS: dict[str, list[Entry]] = {
    FIRST: sorted((entry for part in _PARTS for entry in part.ENTRIES), key=_order),
    SECOND: list(task_ids.ENTRIES),
}
ENTRIES: dict[str, Entry] = {entry.id: entry for entries in PAPERS.values() for entry in entries}
