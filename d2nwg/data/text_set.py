"""A labelled set of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from d2nwg.data.labelled import LabelledSet

Text = str | tuple[str, str]  # one text, or a pair of them
# Of files with texts, in lower case; each also with .gz behind it.
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
TEXT_SUFFIXES = frozenset({*TABLES, ".txt"})


def in_words(item: Text) -> str:
    """A text, or the two of a pair, as one text for people to read."""
    return item if isinstance(item, str) else " | ".join(item)


@dataclass(frozen=True, eq=False)
class TextSet(LabelledSet):
    """A labelled data set of n texts, or of n pairs of texts.

    Attributes:
        items: (n,) texts, each a string or a pair of strings, all alike.
    """

    items: Sequence[Text]

    @property
    def pairs(self) -> bool:
        """Whether an item is a pair of texts."""
        return bool(len(self.items)) and isinstance(self.items[0], tuple)

    @property
    def noun(self) -> str:
        """See `LabelledSet`."""
        return "pair" if self.pairs else "text"
