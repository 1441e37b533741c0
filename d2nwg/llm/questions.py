"""Multiple-choice questions: read from a file, from lm-evaluation-harness, or the set that comes with the program.

A JSONL file holds one object a line, of one of two kinds:

* ``{"question": …, "choices": […], "answer": 2}`` is asked as the harness asks ARC: the model reads
  ``Question: …\\nAnswer:`` and the likelihood of each choice after it, with a space between, is what counts. Every set
  of this kind is asked so, HellaSwag and PIQA as well.
* ``{"contexts": […], "continuation": …, "answer": 0}`` is asked as the harness asks WinoGrande: one and the same
  continuation, with a space before it, after each of the contexts.

``answer`` is an index from 0. A file whose name ends in ``.gz`` is unpacked while it is read. Solved questions can
stand before each (`d2nwg.llm.shots`).
"""

import functools
import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import shipped
from d2nwg.utils.text import is_utf8, number, shown

BUILT_IN = "built-in"
HARNESS = "lm-eval:"
HARNESS_SEED = 1234  # of the harness's own examples, as `lm_eval --num_fewshot` draws them
MAX_BYTES = 256 * 2**20  # of a file, unpacked
MAX_QUESTIONS = 100_000
MAX_CHOICES = 64


@dataclass(frozen=True)
class Question:
    """One question, as the texts that a model scores.

    Attributes:
        contexts: the text before each continuation, one a choice (all alike where only the continuations differ).
        continuations: the text that is scored, one a choice; it begins with the space that parts it from its context.
        answer: the index of the right choice.
        examples: solved questions before each context, each with the blank line that ends it; the foremost are left
            out where a model cannot read them all.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    answer: int
    examples: tuple[str, ...] = ()

    @property
    def key(self) -> tuple:
        """Equal for questions that differ only by capitals, spaces, the order of their choices, or their examples."""
        pairs = zip(self.contexts, self.continuations, strict=True)
        return tuple(sorted(" ".join((context + continuation).casefold().split()) for context, continuation in pairs))


def ask(question: str, choices: Sequence[str], answer: int) -> Question:
    """A question and its choices in the harness's words for ARC."""
    return Question(
        (f"Question: {question.strip()}\nAnswer:",) * len(choices),
        tuple(f" {choice.strip()}" for choice in choices),
        answer,
    )


def complete(contexts: Sequence[str], continuation: str, answer: int) -> Question:
    """Which context does the continuation follow? As the harness asks WinoGrande."""
    return Question(
        tuple(context.rstrip() for context in contexts), (f" {continuation.strip()}",) * len(contexts), answer
    )


def load_questions(source: str | Path, shots: int = 0) -> list[Question]:
    """The questions of a file, of ``built-in`` (and its halves ``built-in:selection`` and ``built-in:report``), or
    of ``lm-eval:TASK``.

    Args:
        shots: examples before each question of a task of the harness, its own; others get theirs from
            `d2nwg.llm.shots.with_shots`.
    Raises:
        UserError: there is no such set, or something in it is wrong (see `read_questions`).
    """
    name = str(source)
    if name == BUILT_IN:
        return built_in()
    if name.startswith(f"{BUILT_IN}:"):
        halves = dict(zip(("selection", "report"), halve(built_in()), strict=True))
        if (half := name.partition(":")[2]) not in halves:
            raise UserError(f"The built-in questions have the halves selection and report, not {shown(half)}.")
        return halves[half]
    if name.startswith(HARNESS):
        task = name.removeprefix(HARNESS)
        return from_harness(harness_task(task), shown(task), shots=shots)
    return read_questions(Path(source))


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a JSONL file.

    Raises:
        UserError: the file cannot be read, or a line (named by its number) is no question of either kind.
    """
    path = Path(path)
    name, found = shown(path.name), []
    if path.exists() and not path.is_file():  # a FIFO would block, a device has no end
        raise UserError(f"{name} is no regular file: give a JSONL file with one question a line.")
    try:
        for line, text in enumerate(_lines(path, name), 1):
            if text.strip():
                found.append(parse_question(text, f"Line {line} of {name}"))
            if len(found) > MAX_QUESTIONS:
                raise UserError(f"{name} has more than {MAX_QUESTIONS:,} questions, which is the limit.")
    except (EOFError, zlib.error, gzip.BadGzipFile) as reason:
        raise UserError(f"{name} is damaged or incomplete: pack or download it again.") from reason
    except OSError as reason:
        why = (reason.strerror or "it cannot be opened").lower()
        raise UserError(f"{name} cannot be read: {why}; give a JSONL file with one question a line.") from reason
    if not found:
        raise UserError(f"{name} holds no questions: write one JSON object a line.")
    return found


def _lines(path: Path, name: str) -> Iterator[str]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        left, number_of_line = MAX_BYTES, 0
        while data := file.readline(left + 1):
            number_of_line += 1
            left -= len(data)
            if left < 0:
                raise UserError(f"{name} is larger than {MAX_BYTES >> 20} MiB, which is the limit.")
            try:
                yield data.decode("utf-8-sig" if number_of_line == 1 else "utf-8")
            except UnicodeDecodeError as reason:
                raise UserError(f"Line {number_of_line} of {name} is not UTF-8: save the file as UTF-8.") from reason


def parse_question(text: str, where: str) -> Question:
    """The question of a line of a JSONL file; ``where`` begins the sentence that says what is wrong with it."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as reason:
        why = f" ({reason.msg.lower()} at column {reason.colno})" if isinstance(reason, json.JSONDecodeError) else ""
        raise UserError(f"{where} is not JSON{why}: write one JSON object a line.") from reason
    if not isinstance(row, dict):
        raise UserError(f"{where} is no JSON object: write question, choices and answer in braces.")
    which = "choices" if "choices" in row else "contexts"
    if which not in row:
        raise UserError(f"{where} has neither choices nor contexts: write question, choices and answer.")
    options = row[which]
    text_key = "question" if which == "choices" else "continuation"
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise UserError(f"{where}: {which} should be a list of texts.")
    if not 2 <= len(options) <= MAX_CHOICES:
        raise UserError(f"{where} has {len(options)} {which}; there should be 2 to {MAX_CHOICES}.")
    if not all(option.strip() for option in options):
        raise UserError(f"{where} has an empty text among its {which}.")
    if not isinstance(row.get(text_key), str) or not row[text_key].strip():
        raise UserError(f"{where}: {text_key} should be a text.")
    if not all(map(is_utf8, (row[text_key], *options))):
        raise UserError(f"{where} holds half a character (a lone surrogate): write it out in full.")
    answer = row.get("answer")
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise UserError(f"{where}: answer should be the index of the right one of its {which}, counted from 0.")
    if not 0 <= answer < len(options):
        raise UserError(f"{where}: answer {answer} is out of range; its {which} are 0 to {len(options) - 1}.")
    plain = [" ".join(option.split()) for option in options]
    if plain.count(plain[answer]) > 1:  # two wrong ones alike do no harm, and occur in published sets
        raise UserError(f"{where} has its right answer twice among its {which}.")
    make = ask if which == "choices" else complete
    return make(row["question"], options, answer) if which == "choices" else make(options, row["continuation"], answer)


def built_in() -> list[Question]:
    """The questions that come with the program: common knowledge and arithmetic, four choices each, written for it."""
    return read_questions(shipped("assets") / "questions.jsonl")


def halve(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """A set as two disjoint ones: its even lines (from 0) to select on, its odd ones to report.

    Raises:
        UserError: a question of one half is in the other as well.
    """
    selection, report = list(questions[::2]), list(questions[1::2])
    check_disjoint(selection, report)
    return selection, report


def check_disjoint(
    selection: Iterable[Question],
    report: Iterable[Question],
    what: str = "The selection and the report set",
    why: str = "a report on questions that chose the weights would flatter them",
) -> None:
    """Check that two sets share no question; ``what`` begins the sentence that refuses it, ``why`` ends it.

    Raises:
        UserError: they have questions in common.
    """
    seen = {question.key for question in selection}
    common = [question for question in report if question.key in seen]
    if common:
        first = shown(common[0].contexts[0].removeprefix("Question: ").removesuffix("\nAnswer:"), 80)
        raise UserError(f"{what} have {number(len(common), 'question')} in common, such as “{first}”: {why}.")


def harness_task(task: str):
    """The task object of this name of lm-evaluation-harness.

    Raises:
        UserError: the harness is not installed, has no such task, or cannot fetch it.
    """
    try:
        from lm_eval.tasks import get_task_dict
    except ImportError as reason:
        raise UserError(
            "lm-evaluation-harness is not installed: `pip install lm_eval`, or give a JSONL file."
        ) from reason
    try:
        found = get_task_dict([task], task_manager())
    except Exception as reason:  # the harness and `datasets` raise all kinds
        raise UserError(
            f"lm-evaluation-harness has no task {shown(task)}, or cannot fetch its data: see `lm_eval ls tasks`."
        ) from reason
    loaded = found.get(task)
    if not hasattr(loaded, "construct_requests"):
        raise UserError(f"{shown(task)} is a group of tasks: give one of them.")
    return loaded


@functools.cache
def task_manager():
    """The harness's index of its tasks, which takes it seconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def set_shots(task, name: str, shots: int) -> None:
    """Have a task object of the harness draw so many examples, from the start of its seed.

    Raises:
        UserError: the task takes none.
    """
    if shots and task.config.num_fewshot == 0:  # the harness would silently show none
        raise UserError(f"The task {name} takes no examples: ask for none of them.")
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(HARNESS_SEED)


def from_harness(task, name: str, limit: int = MAX_QUESTIONS, shots: int = 0) -> list[Question]:
    """The items of a task object of lm-evaluation-harness, asked as it asks them with so many examples before.

    Raises:
        UserError: it does not ask for one of several choices, or has too few examples.
    """
    if getattr(task, "OUTPUT_TYPE", None) != "multiple_choice":
        raise UserError(f"The task {name} does not ask for one of several choices: give one such as arc_easy.")
    if shots:
        set_shots(task, name, shots)
    found = []
    for _, doc in zip(range(limit), task.eval_docs, strict=False):
        several = bool(getattr(task, "multiple_input", 0))
        choices = len(task.doc_to_choice(doc))
        contexts, continuations = _asked(task, doc, 0, choices)
        answer = task.doc_to_text(doc) if several else task.doc_to_target(doc)
        if not isinstance(answer, int) or not 0 <= answer < choices:
            raise UserError(f"The task {name} has an item without exactly one right choice: give another task.")
        examples: tuple[str, ...] = ()
        if shots:
            try:
                whole, _ = _asked(task, doc, shots, choices)
            except Exception as reason:  # its sampler raises several kinds
                raise UserError(f"The task {name} has no {number(shots, 'example')} to show: give fewer.") from reason
            ends = zip(reversed(whole[0]), reversed(contexts[0]), strict=False)
            alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
            before = whole[0][: len(whole[0]) - alike]  # a description of the task, if it has one, and the examples
            contexts = tuple(text[len(before) :] for text in whole)
            examples = _cut(before, task.config.fewshot_delimiter, shots)
        found.append(Question(contexts, continuations, answer, examples))
    if not found:
        raise UserError(f"The task {name} holds no questions: give another one.")
    return found


def _asked(task, doc, shots: int, choices: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The contexts and continuations that the harness scores for an item."""
    context = task.fewshot_context(doc, num_fewshot=shots)
    requests = task.construct_requests(doc=doc, ctx=context)[:choices]  # mutual information asks for more
    contexts, continuations = zip(*(request.args[:2] for request in requests), strict=True)
    return contexts, continuations


def _cut(text: str, delimiter: str, count: int) -> tuple[str, ...]:
    """A text cut behind its last ``count`` - 1 delimiters but the one that ends it."""
    pieces = text.split(delimiter) if delimiter else [text]
    pieces = [piece + delimiter for piece in pieces[:-1]] + [piece for piece in pieces[-1:] if piece]
    first = max(1, len(pieces) - count + 1)
    return ("".join(pieces[:first]), *pieces[first:])
