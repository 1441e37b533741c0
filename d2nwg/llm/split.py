"""Sets of questions cut into disjoint parts by a seed: to train, to choose and to report on."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from d2nwg.llm.questions import Question, parse_question
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.paths import write_whole
from d2nwg.utils.text import folded, number, shown

PARTS = ("train", "select", "report")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def split(
    sources: Sequence[Sequence[Question]], parts: Mapping[str, int | None], *, seed: int = 0
) -> dict[str, list[Question]]:
    """Cut the questions of several sources into disjoint parts, each with every source in proportion.

    Questions that are equal (`Question.key`), of one source or of several, come into one part together.

    Args:
        parts: name → number of questions; those without a number share what the others leave.
        seed: of the draw.
    Returns:
        Name → its questions in random order, the sources mixed: the first n of a part are in proportion as well.
    Raises:
        UserError: there are fewer questions than that, or equal ones stand in the way of such numbers.
    """
    sizes = _sizes(parts, sum(map(len, sources)))
    waiting, found = _in_proportion(sources, np.random.default_rng(seed)), {}
    for name, size in sizes.items():
        chosen: list[Question] = []
        later = []
        for unit in waiting:
            if len(chosen) + len(unit) <= size:
                chosen += unit
            else:
                later.append(unit)
        if len(chosen) < size:
            raise UserError(
                f"No {number(size, 'question')} are left for {name}: some occur several times, and equal ones stay "
                "together; give a smaller number."
            )
        found[name], waiting = chosen, later
    return found


def _sizes(parts: Mapping[str, int | None], count: int) -> dict[str, int]:
    """The number of questions of each part."""
    open_parts = [name for name, size in parts.items() if size is None]
    left = count - sum(size or 0 for size in parts.values())
    if not parts or left < len(open_parts) or any(size is not None and size < 1 for size in parts.values()):
        wanted = " + ".join(f"{name} {size or 'the rest'}" for name, size in parts.items()) or "no part"
        raise UserError(f"{number(count, 'question')} cannot be cut into {wanted}: give smaller numbers.")
    shares = {name: left // len(open_parts) + (i < left % len(open_parts)) for i, name in enumerate(open_parts)}
    return {name: shares[name] if size is None else size for name, size in parts.items()}


def _in_proportion(sources: Sequence[Sequence[Question]], rng: np.random.Generator) -> list[list[Question]]:
    """Equal questions together, in an order in which every stretch holds the sources in proportion: the i-th of n
    questions of a source, in random order, stands at (i + u) / n with one random u of the source."""
    units: dict[tuple, list[Question]] = {}
    owned: list[list[tuple]] = [[] for _ in sources]
    for place, questions in enumerate(sources):
        for question in questions:
            if question.key not in units:
                units[question.key] = []
                owned[place].append(question.key)
            units[question.key].append(question)
    ranked = []
    for keys in owned:
        first = rng.random()
        for i, chosen in enumerate(rng.permutation(len(keys))):
            ranked.append(((i + first) / len(keys), rng.random(), keys[chosen]))
    return [units[key] for *_, key in sorted(ranked, key=lambda one: one[:2])]


def row(question: Question) -> dict:
    """A question as an object of a JSONL file, from which `d2nwg.llm.questions.read_questions` makes it again.

    Raises:
        UserError: it is asked in words that such a file does not hold.
    """
    context = question.contexts[0]
    if context.startswith("Question: ") and context.endswith("\nAnswer:") and len(set(question.contexts)) == 1:
        text = context.removeprefix("Question: ").removesuffix("\nAnswer:")
        made: dict = {"question": text, "choices": [choice[1:] for choice in question.continuations]}
    else:
        made = {"contexts": list(question.contexts), "continuation": question.continuations[0][1:]}
    made["answer"] = question.answer
    try:
        again = parse_question(json.dumps(made), "It")
    except UserError:
        again = None
    if again != question:
        raise UserError(
            f"The question “{shown(context, 80)}” is asked in words of its own, which a JSONL file does not hold: give "
            "files of questions."
        )
    return made


def parse_parts(texts: Sequence[str]) -> dict[str, int | None]:
    """``["train=1400", "report"]`` → name → number of questions, or None for a share of the rest.

    Raises:
        UserError: something else is written there, or two names are alike.
    """
    parts: dict[str, int | None] = {}
    for text in texts:
        name, equals, size = text.partition("=")
        if not NAME.fullmatch(name) or (equals and not re.fullmatch(r"[0-9]{1,9}", size)):
            raise UserError(f"{shown(text)} is no part such as train=1400: write a name of letters and a number.")
        if folded(name) in map(folded, parts):
            raise UserError(f"Two parts are called {name}: rename one.")
        parts[name] = int(size) if equals else None
    return parts


def write_parts(parts: Mapping[str, Sequence[Question]], out: str | Path) -> None:
    """Write each part as a JSONL file of the new folder ``out``.

    Raises:
        UserError: see `row` and `d2nwg.utils.outputs.new_folder`.
    """
    texts = {
        name: "".join(json.dumps(row(question), ensure_ascii=False) + "\n" for question in questions)
        for name, questions in parts.items()
    }
    with new_folder(out) as folder:
        for name, text in texts.items():
            write_whole(folder / f"{name}.jsonl", text)
