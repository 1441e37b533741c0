"""A refinement as one call, with a zoo of fine-tunes or without one, and a finished one read again from its folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.llm.questions import Question, load_questions
from d2nwg.llm.shots import with_shots
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import read_json, read_lines

if TYPE_CHECKING:
    from d2nwg.llm.presets import RefineConfig
    from d2nwg.llm.refine import Refined

WHAT = {  # candidates of a search
    "refined": "sample", "noise": "noise", "rank": "rank cut", "rebuilt": "reconstruction", "single": "checkpoint",
    "whole": "sample", "noised_whole": "noise", "noised": "noise",
}  # fmt: skip


def questions_of(sources: Iterable[str | Path], shots: int = 0) -> list[Question]:
    """The questions of several sources, one after another; tasks of the harness have so many examples of their own.
    Raises UserError as `d2nwg.llm.questions.load_questions`."""
    return [question for source in sources for question in load_questions(source, shots)]


def both_sets(
    select: Iterable[str | Path], report: Iterable[str | Path], shots: int = 0, seed: int = 0
) -> tuple[list[Question], list[Question]]:
    """The selection and the report questions, each question behind ``shots`` solved selection questions that the seed
    draws (`d2nwg.llm.shots`).

    Raises:
        UserError: as `d2nwg.llm.questions.load_questions`, or there are too few questions to draw from.
    """
    pool = questions_of(select, shots)
    advice = "a smaller number of examples, or more selection questions"
    first, second = (
        with_shots(asked, pool, shots, seed=seed, advice=advice) for asked in (pool, questions_of(report, shots))
    )
    return first, second


def refine_by(
    model: str | Path,
    selection: Sequence[Question],
    report: Sequence[Question],
    config: "RefineConfig",
    *,
    zoo: str | Path | None = None,
    **options,
) -> "Refined":
    """Refine a model alone, or from a zoo of its fine-tunes.

    Args:
        zoo: by its path or by the name of one at hand (`d2nwg.llm.zoos`); None for the model alone.
        options: ``folder``, ``resume``, ``device``, ``progress``, ``on_event`` and ``on_base`` of
            `d2nwg.llm.refine.refine`.
    Raises:
        UserError: there is no such zoo, or as `d2nwg.llm.refine.refine` and `d2nwg.llm.refine_zoo.refine_from_zoo`.
    """
    if zoo is None:
        from d2nwg.llm.refine import refine

        return refine(model, selection, report, config, **options)
    from d2nwg.llm.refine_zoo import refine_from_zoo
    from d2nwg.llm.zoos import find_language_zoo

    return refine_from_zoo(model, find_language_zoo(zoo), selection, report, config, **options)


def decision_words(line: dict, criterion: str) -> str:
    """A line of the log as a sentence."""
    best = line["candidates"][line["best"]]["score"]
    before, after = (f"{v:.1%}" if criterion == "accuracy" else f"{v:.4f}" for v in (line["before"], best))
    return (
        f"{line['name']}: {criterion} {before}, best {WHAT[line['arm']]} of {len(line['candidates'])} {after}: "
        f"{'accepted' if line['accepted'] else 'rejected'}, {line['seconds']:.0f} s"
    )


def read_log(folder: Path) -> list[dict]:
    """The decisions of a refinement so far, while it runs as well."""
    return read_lines(folder / "log.jsonl")


def read_refined(folder: Path) -> "Refined":
    """What `refine_by` has returned, from its folder.

    Raises:
        UserError: it is not there yet, or damaged.
    """
    from d2nwg.llm.delta import read_delta
    from d2nwg.llm.refine import Refined

    report = read_json(folder / "report.json")
    if not isinstance(report, dict) or not isinstance(report.get("base"), str) or "words" not in report:
        raise UserError("This refinement has no report yet, or a damaged one.")
    delta = folder / "delta.safetensors"
    tensors = read_delta(delta).tensors if delta.is_file() else {}
    found = delta if tensors else None
    return Refined(report["base"], tensors, report, folder, found, bool(report.get("cancelled")), read_log(folder))
