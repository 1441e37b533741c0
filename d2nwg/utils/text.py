"""Names of files and classes: compared, and shown in sentences."""

import unicodedata
from collections.abc import Sequence


def is_utf8(text: str) -> bool:
    """False for a name from disk or an archive whose bytes were not UTF-8 (Python keeps those as surrogates)."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def folded(name: str) -> str:
    """Equal for names that differ only by capitals or by how their accents are stored."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def shown(text: object, limit: int = 120) -> str:
    """A name as it may stand in a sentence: printable, UTF-8 and not too long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def some(names: Sequence[object], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    text = ", ".join(shown(name) for name in names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def number(count: int, noun: str, plural: str | None = None) -> str:
    """``1 image``, ``1,200 images``; `plural` is the noun and an ``s`` where it is not given."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
