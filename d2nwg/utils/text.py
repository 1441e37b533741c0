"""Names of files and classes: compared, and shown in sentences."""

import re
import unicodedata
from collections.abc import Sequence

# Control characters but for line feed and tab; other ends of lines; embeddings, overrides and isolates of the direction
# of writing; halves of characters.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_utf8(text: str) -> bool:
    """False for a name from disk or an archive whose bytes were not UTF-8 (Python keeps those as surrogates)."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def utf8(text: str) -> str:
    """A text that can be written and tokenized: halves of characters become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def folded(name: str) -> str:
    """Equal for names that differ only by capitals or by how their accents are stored."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def shown(text: object, limit: int | None = 120) -> str:
    """A name as it may stand in a sentence: in one line, printable, UTF-8 and not too long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"


def printable(text: str) -> str:
    """A text of several lines as it may be printed on a terminal: what would move the cursor, colour, hide or reorder
    is written out, as JSON writes it (a JSON text stays the same value)."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Printable:
    """A text stream that writes what is `printable`."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        """Returns the number of characters of ``text``."""
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def markdown(name: object) -> str:
    """A name as it may stand in a Markdown page: neither Markdown nor HTML in it has a meaning."""
    return re.sub(r"([\\`*\[\]<>&|~])", r"\\\1", shown(name))


def some(names: Sequence[object], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    text = ", ".join(shown(name) for name in names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def number(count: int, noun: str, plural: str | None = None) -> str:
    """``1 image``, ``1,200 images``; `plural` is the noun and an ``s`` where it is not given."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in lines of plain text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
