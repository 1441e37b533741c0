"""k-shot prompts: solved questions before each question, joined as lm-evaluation-harness joins them.

An example is a context and its right continuation, ended by a blank line (the harness's ``fewshot_delimiter``). Where a
model cannot read them all, the foremost are left out; the harness cuts the text, wherever that is.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from d2nwg.llm.questions import Question
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import whole
from d2nwg.utils.text import number

if TYPE_CHECKING:
    from d2nwg.llm.models import LanguageModel

MOST = 100  # examples before a question
DELIMITER = "\n\n"


def solved(question: Question) -> str:
    """A question with its right choice, as an example for others."""
    return question.contexts[question.answer] + question.continuations[question.answer] + DELIMITER


def with_shots(
    questions: Sequence[Question],
    pool: Sequence[Question],
    shots: int,
    *,
    seed: int = 0,
    advice: str = "a smaller --shots, or more questions with --shots-from",
) -> list[Question]:
    """Each question behind ``shots`` solved ones of the pool, drawn by the seed. Questions that have examples already,
    those of the harness, keep them.

    Args:
        pool: a question that is in it as well (`Question.key`) is never its own example.
        advice: what to give where there are too few.
    Raises:
        UserError: the number is out of its limits (0 to `MOST`), or the pool has too few other questions.
    """
    whole(shots, "The number of examples before a question", 0, MOST)
    if not shots:
        return list(questions)
    texts = {question.key: solved(question) for question in pool}
    keys, rng, found = list(texts), Random(seed), []
    for question in questions:
        if not question.examples:
            own = question.key
            if len(keys) - (own in texts) < shots:
                raise UserError(
                    f"{number(shots, 'example')} before each question cannot be drawn from "
                    f"{number(len(keys) - (own in texts), 'other question')}: give {advice}."
                )
            drawn = [key for key in rng.sample(keys, shots + (own in texts)) if key != own][:shots]
            question = replace(question, examples=tuple(texts[key] for key in drawn))
        found.append(question)
    return found


def shot_facts(model: "LanguageModel", **sets: Sequence[Question]) -> dict:
    """For a report: ``shots``, the most examples before a question, and ``fewer_shots``, of each set how many questions
    the model has no room for all examples of; nothing where there are no examples."""
    most = max(len(question.examples) for questions in sets.values() for question in questions)
    if not most:
        return {}
    from d2nwg.llm.pack import room  # torch takes seconds, and the page needs the number above

    fewer = {
        name: sum(room(model, question)[0] < len(question.examples) for question in questions)
        for name, questions in sets.items()
    }
    return {"shots": most, "fewer_shots": fewer}


def shot_words(facts: dict, asked: str) -> str:
    """What `shot_facts` says of one of its sets, as the end of a sentence."""
    fewer = facts["fewer_shots"][asked]
    words = f"{number(facts['shots'], 'example')} before each"
    return words + (f" (fewer before {number(fewer, 'question')}, which would be too long)" if fewer else "")
