"""What the Language tab's second step does, without gradio: a library call, and the files it leaves."""

import contextlib
import hashlib
import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2nwg.llm.presets import CRITERIA
from d2nwg.llm.questions import BUILT_IN, HARNESS, check_disjoint, load_questions, read_questions
from d2nwg.ui.language.models import located, named
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.settings import whole_numbers
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir
from d2nwg.utils.progress import Progress, format_seconds, silent

OWN = "own"
SOURCE = re.compile(rf"{BUILT_IN}(:\w{{1,40}})?|{HARNESS}\w[\w.-]{{0,100}}", re.ASCII)  # no paths: they are opened
KEPT = 8  # refinements whose state stays on the disk
DEFAULTS: dict[str, Any] = dict(preset="quick")
WORDS = {
    "tiny": "minutes on two cores",
    "quick": "a quarter of an hour on two cores",
    "standard": "hours, or a GPU",
    "paper": "chunks of 2,097,152; a large GPU",
}
LIMITS = {"layers": ("Matrices", 0, 1000), "candidates": ("Candidates", 1, 1000), "seed": ("Seed", 0, 2**31 - 1)}
CLOSED = (
    "Refining takes longer than this shared machine allows. Run the app on your own machine for it; looking and "
    "talking work here."
)


@dataclass(frozen=True)
class Asked:
    """What a refinement is asked to do."""

    model: str
    ranking: dict  # mode, percent
    selection: list  # of `Question`
    report: list
    names: tuple[str, str]  # of the two sets
    preset: str
    layers: int
    candidates: int
    seed: int
    criterion: str = "accuracy"


def has_harness() -> bool:
    """Whether lm-evaluation-harness is installed."""
    return importlib.util.find_spec("lm_eval") is not None


def question_sets(half: str) -> list[tuple[str, str]]:
    """The sets that a picker offers, as (words, key); `half` is ``selection`` or ``report``."""
    which = "even" if half == "selection" else "odd"
    harness = [("ARC, easy questions (lm-evaluation-harness)", f"{HARNESS}arc_easy")] if has_harness() else []
    return [
        (f"built-in: 80 easy questions ({which} ones)", f"{BUILT_IN}:{half}"),
        ("A JSONL file of mine", OWN),
        *harness,
    ]


def check(model: str, ranking: dict, sets: dict, preset, layers, candidates, seed, criterion="accuracy") -> Asked:
    """What is asked for, with its questions read.

    Raises:
        UserError: a number out of its limits, or questions that cannot be read or are in both sets.
    """
    questions, names = {}, {}
    for key, (source, file) in sets.items():
        if source == OWN:
            if not file:
                raise UserError(
                    f"Drop a JSONL file with the {'selection' if key == 'select' else 'report'} questions, "
                    "or choose the built-in ones."
                )
            path = own_file(file)
            questions[key], names[key] = read_questions(path), path.name
        else:
            source = str(source or "").strip()
            if not SOURCE.fullmatch(source):
                raise UserError("Choose the built-in questions, a file, or a task such as lm-eval:arc_easy.")
            questions[key], names[key] = load_questions(source), source
    check_disjoint(questions["select"], questions["report"])
    if preset not in [key for _, key in presets()]:
        raise UserError("Choose one of the presets.")
    if criterion not in CRITERIA:
        raise UserError("A candidate can be better in accuracy or in confidence.")
    return Asked(
        model,
        ranking,
        questions["select"],
        questions["report"],
        (names["select"], names["report"]),
        preset,
        criterion=criterion,
        **whole_numbers(dict(layers=layers, candidates=candidates, seed=seed), LIMITS),
    )


def presets() -> list[tuple[str, str]]:
    """The presets as (words, key)."""
    from d2nwg.llm.presets import PRESETS

    return [(f"{key}: {WORDS[key]}" if key in WORDS else key, key) for key in PRESETS]


def start_of(preset: str) -> dict:
    """The numbers that a preset begins with."""
    from d2nwg.llm.presets import RefineConfig

    config = RefineConfig.of(preset)
    return {"layers": config.layers, "candidates": config.candidates}


def make(asked: Asked, spare: Path, log: list, progress: Progress = silent):
    """Refine; each line of the log is added to `log` as it is decided. The `d2nwg.llm.refine.Refined`.

    The same model, questions and settings go on where they were, also after the page was closed or the app was killed.
    `spare` is a folder for the state where somebody else is just at the same.
    """
    import_libraries()
    from filelock import FileLock, Timeout

    from d2nwg.llm.models import locate_language_model
    from d2nwg.llm.presets import RefineConfig
    from d2nwg.llm.refine import FORMAT, refine

    config = RefineConfig.of(
        asked.preset,
        layers=asked.layers,
        candidates=asked.candidates,
        seed=asked.seed,
        criterion=asked.criterion,
        **asked.ranking,
    )
    place = located(asked.model, progress)
    source = locate_language_model(place, progress=progress)
    files = sorted(source.glob("*.safetensors"))
    weights = [(file.name, (facts := file.stat()).st_size, facts.st_mtime_ns) for file in files]
    run = repr((FORMAT, str(source), weights, asked.selection, asked.report, config)).encode()
    folder = cache_dir() / "refinements" / hashlib.sha256(run).hexdigest()[:24]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held, named(asked.model, place):
        try:
            held.enter_context(FileLock(f"{folder}.lock", timeout=0))
            folder.touch()
            _forget_old(folder.parent)
        except Timeout:
            folder = spare
        return refine(
            place,
            asked.selection,
            asked.report,
            config,
            folder=folder,
            resume=True,
            progress=progress,
            on_event=log.append,
        )


def _forget_old(place: Path) -> None:
    """Remove all but the newest states that nobody is at work on."""
    from filelock import FileLock, Timeout

    states = sorted((path for path in place.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in states[:-KEPT]:
        with contextlib.suppress(Timeout), FileLock(f"{old}.lock", timeout=0):
            shutil.rmtree(old, ignore_errors=True)


def files_of(made, folder: Path) -> tuple[Path | None, Path]:
    """What changed, if anything did, and the report, as files of the visitor's own."""
    delta, report = (shutil.copy(path, folder) if path else None for path in (made.delta, made.report_file))
    return Path(delta) if delta else None, Path(report)


def done_words(made) -> str:
    """What to say when it is over."""
    if made.cancelled:
        return "Stopped. What was accepted is kept: talk with it below, take it away, or go on."
    return f"Done in {format_seconds(made.report['seconds'])}."


def live_figure(log: list, criterion: str):
    """The search so far; `criterion` is that of the refinement, which the scores are in."""
    from d2nwg.figures.language import search_figure

    return search_figure(log, criterion)


def rows_figure(made):
    """What it is worth on the report questions; None where that was not reached."""
    from d2nwg.figures.language import report_figure

    rows = made.report.get("rows")
    return report_figure(rows, made.report["report_questions"]) if rows else None


def pack(made, model: str, folder: Path) -> Path:
    """The refined model's folder as a zip, stored without compression: weights do not compress.

    Raises:
        UserError: the disk is full.
    """
    import zipfile

    from d2nwg.llm.refine import save_refined

    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(made.name).name).strip("-.")
    out = save_refined(made, folder / f"{name or 'model'}-refined", model=located(model))
    target = out.parent / f"{out.name}.zip"
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(out.rglob("*")):
                if file.is_file():
                    archive.write(file, Path(out.name) / file.relative_to(out))
    except OSError as reason:
        target.unlink(missing_ok=True)
        raise UserError(f"The model could not be packed: {(reason.strerror or str(reason)).lower()}.") from reason
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return target
