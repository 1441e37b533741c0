"""Class names as a condition: what a person writes, and the text vectors of names."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from d2nwg.encoders.imagenet import NamedRows, lemmas_of
from d2nwg.encoders.texts import TextEncoder
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import folded, is_utf8, shown

LONGEST = 400  # characters of a name; a description may be longer
MOST = 2_000  # names of one head
SAME = 1e-5  # two texts whose cosine is nearer to 1 are the same to a text encoder
MOST_BYTES = 2_000_000  # of a names file
OF_IMAGES, OF_TEXTS = "a photo of a {}", "This text is about {}."  # the forms in which a name is embedded


def read_names(source: str | Path) -> list[str]:
    """Class names as a person writes them: separated by commas or lines, or the path of a text file with one a line.

    In a file, and in a text of several lines, a comma belongs to a name. A description may stand beside a name after a
    colon.

    Raises:
        UserError: nothing is named, or the file cannot be read.
    """
    text = str(source)
    if "\n" not in text and len(text) < 4096 and text.strip() and _is_file(text):
        text = _read(Path(text).expanduser()) + "\n"
    return split_names(text)


def split_names(text: str) -> list[str]:
    """`read_names` of a text that is never the path of a file, as a stranger's must not be.

    Raises:
        UserError: nothing is named.
    """
    parts = text.splitlines() if "\n" in text else text.split(",")
    names = [name for part in parts if (name := part.strip().lstrip("\ufeff").strip())]
    if not names:
        raise UserError("No class is named: write names, separated by commas.")
    return names


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{shown(path)} is too large for a list of names: give a text file with one name a line.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise UserError(f"{shown(path)} is no text in UTF-8: save it so, one name a line.") from reason
    except OSError as reason:
        raise UserError(f"{shown(path)} cannot be read: {reason.strerror or reason}.") from reason


def check_names(names: Sequence[str], least: int = 2) -> list[str]:
    """The names, if a head can have them.

    Args:
        least: 1 where the names need not tell anything apart.
    Raises:
        UserError: fewer than ``least``, more than `MOST`, one that is empty or too long, or two that are the same.
    """
    if not names:
        raise UserError("No class is named: write at least two names, separated by commas.")
    if len(names) < least:
        raise UserError(f"A head tells at least two classes apart, and {shown(names[0])} is the only name.")
    if len(names) > MOST:
        raise UserError(f"{len(names):,} names are too many: give at most {MOST:,}.")
    seen: dict[str, str] = {}
    for name in names:
        label = class_of(name)
        if not label:
            raise UserError("One of the names is empty: write a name for every class.")
        if not is_utf8(label):
            raise UserError(f"The name {shown(label)} is not UTF-8: write it anew.")
        if len(label) > LONGEST:
            raise UserError(
                f"The name {shown(label, 40)} has {len(label)} characters: write at most {LONGEST}, and what describes "
                "the class after a colon."
            )
        if folded(label) in seen:
            raise UserError(f"The name {shown(label)} is given twice: classes need different names.")
        seen[folded(label)] = label
    return list(names)


def check_distinct(names: Sequence[str], texts: Tensor) -> None:
    """Refuse names that nothing but images can tell apart.

    Args:
        texts: (C, e) their text vectors (`embed_names`).
    Raises:
        UserError: two have the same, as pictographs do, which a text encoder need not know.
    """
    same = (texts @ texts.T).triu(1) > 1 - SAME
    if len(pairs := same.nonzero()):
        one, other = (shown(names[i], 60) for i in pairs[0].tolist())
        raise UserError(f"The names {one} and {other} read the same: describe both classes in words, after a colon.")


def class_of(name: str) -> str:
    """``"pansy: a small garden flower"`` → ``"pansy"``, the class; the rest describes it."""
    return name.partition(": ")[0].strip()


def rename(classes: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names of classes after renaming.

    Args:
        classes: as the folders call them.
        names: one for each class, in order; or some, each as ``"old = new"``.
    Raises:
        UserError: another number of names, or an unknown old one.
    """
    pairs = [name.partition("=") for name in names]
    if names and all(sign for _, sign, _ in pairs):
        new = {old.strip(): name.strip() for old, _, name in pairs}
        if unknown := [old for old in new if old not in classes]:
            raise UserError(f"There is no class {shown(unknown[0])} to rename: there are {', '.join(classes[:8])}.")
        return check_names([new.get(label, label) for label in classes])
    if len(names) != len(classes):
        raise UserError(
            f"{len(names)} names are given for {len(classes)} classes: name all of them in order "
            f"({', '.join(map(shown, classes[:3]))} …), or some as old=new."
        )
    return check_names(names)


def readable(name: str) -> str:
    """A class's name as a phrase: the lemmas of a synset id; without underscores, joined words apart."""
    if lemmas := lemmas_of(name.strip()):
        return lemmas
    phrase = re.sub(r"[_\-/]+", " ", name)
    phrase = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", phrase)
    return re.sub(r"\s+", " ", phrase).strip()


def embed_names(names: Sequence[str], encoder: TextEncoder, form: str = OF_IMAGES) -> Tensor:
    """(C, e) text vectors of unit length: the average of the name, of the name in a phrase of this ``form``, and of its
    description where there is one."""
    phrases = [readable(class_of(name)) for name in names]
    texts = [*phrases, *(form.format(phrase) for phrase in phrases)]
    described = [i for i, name in enumerate(names) if name.partition(": ")[2].strip()]
    texts += [f"{phrases[i]}: {names[i].partition(': ')[2].strip()}" for i in described]
    vectors = encoder.encode(texts)
    plain = normalize(vectors[: len(names)] + vectors[len(names) : 2 * len(names)], dim=-1)
    plain[described] = normalize(plain[described] + vectors[2 * len(names) :], dim=-1)
    return plain


def embed_rows(rows: NamedRows, encoder: TextEncoder) -> Tensor:
    """(N, e) text vectors of a classifier's classes: of all lemmas, of the first one, and of it with its definition."""
    firsts = [lemmas.split(",")[0] for lemmas in rows.names]
    defined = [f"{name}: {definition}" for name, definition in zip(firsts, rows.definitions, strict=True)]
    vectors = embed_names(rows.names, encoder) + embed_names(firsts, encoder) + encoder.encode(defined)
    return normalize(vectors, dim=-1)


@cache
def spellings(name: str) -> frozenset[str]:
    """A class's names in lower case, each lemma by itself: two classes that share one are the same to a person."""
    return frozenset(folded(part.strip()) for part in readable(name).split(","))


def without(names: Sequence[str], others: Sequence[str]) -> Tensor:
    """(N,) bool: which of ``names`` share no spelling with any of ``others``."""
    taken = frozenset().union(*map(spellings, others)) if others else frozenset()
    return torch.tensor([not (spellings(name) & taken) for name in names], dtype=torch.bool)
