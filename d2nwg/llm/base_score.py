"""How the unchanged model answers the selection questions, reported as they are scored: a refinement's first result."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from d2nwg.llm.questions import Question
from d2nwg.llm.score import Scorer
from d2nwg.utils.progress import Progress

if TYPE_CHECKING:
    from d2nwg.llm.models import LanguageModel

STAGE = "Scoring the base"
TOGETHER = 8  # questions


def score_base(
    model: "LanguageModel",
    questions: Sequence[Question],
    normalise: bool,
    on_base: Callable[[int, int, int], None],
    progress: Progress,
) -> None:
    """Call ``on_base`` with how many questions are right, of how many answered so far, of how many there are."""
    right = done = 0
    for start in range(0, len(questions), TOGETHER):
        progress(STAGE, done, len(questions))
        part = questions[start : start + TOGETHER]
        right += int(Scorer(model, part).score().correct(normalise).sum())
        done += len(part)
        on_base(right, done, len(questions))
    progress(STAGE, done, len(questions))
