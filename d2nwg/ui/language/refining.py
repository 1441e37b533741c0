"""What the Language tab's second step does, without gradio: jobs, library calls, and the files they leave."""

import importlib.util
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2nwg.jobs.job import Job
from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.llm.presets import CRITERIA
from d2nwg.llm.questions import BUILT_IN, HARNESS, check_disjoint
from d2nwg.llm.refinement import both_sets, read_log, read_refined, refine_by
from d2nwg.llm.shots import MOST as MOST_SHOTS
from d2nwg.llm.zoos import base_of, list_language_zoos
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.language import making
from d2nwg.ui.language.models import UPLOADED, located, named
from d2nwg.ui.language.service import fetch, load
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.settings import whole_numbers
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, format_seconds, silent
from d2nwg.utils.text import number

KIND = "refine"  # of its jobs
KINDS = (KIND, making.KIND)  # that the tab shows
OWN = "own"
ALONE = ""  # instead of the name of a zoo
SOURCE = re.compile(rf"{BUILT_IN}(:\w{{1,40}})?|{HARNESS}\w[\w.-]{{0,100}}", re.ASCII)  # no paths: they are opened
DEFAULTS: dict[str, Any] = dict(preset="quick")
WORDS = {
    "tiny": "minutes on two cores",
    "quick": "a quarter of an hour on two cores",
    "standard": "hours, or a GPU",
    "paper": "chunks of 2,097,152; a large GPU",
}
LIMITS = {
    "layers": ("Matrices or groups", 0, 1000),
    "candidates": ("Candidates", 1, 1000),
    "seed": ("Seed", 0, 2**31 - 1),
    "shots": ("Examples before each question", 0, MOST_SHOTS),
}
CLOSED = (
    "Refining takes longer than this shared machine allows. Run the app on your own machine for it; looking and "
    "talking work here."
)


@dataclass(frozen=True)
class Asked:
    """What a refinement is asked to do.

    Attributes:
        model: as `d2nwg.ui.language.models.check_model` let it pass.
        ranking: mode, percent.
        sets: the sources of the ``select`` and of the ``report`` questions: a name, or a visitor's own file.
        zoo: the folder of fine-tunes to sample from, or None.
        shots: solved selection questions before each question.
    """

    model: str
    ranking: dict
    sets: dict[str, str | Path]
    preset: str
    layers: int
    candidates: int
    seed: int
    criterion: str = "accuracy"
    zoo: Path | None = None
    shots: int = 0

    @property
    def config(self):
        """The `d2nwg.llm.presets.RefineConfig`."""
        from d2nwg.llm.presets import RefineConfig

        numbers = dict(layers=self.layers, candidates=self.candidates, seed=self.seed)
        how = {"zoo": True} if self.zoo else self.ranking
        return RefineConfig.of(self.preset, criterion=self.criterion, **numbers, **how)


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


def zoos_of(model: str, viewer: Viewer = STRANGER) -> dict[str, Path]:
    """Name → folder of the zoos of fine-tunes of a model that a viewer may use."""
    from d2nwg.llm.models import HUB

    found = {}
    for name, path in list_language_zoos().items():
        base = (base_of(path) or "").removeprefix(HUB)
        if viewer.sees(path) and base and (base == model or Path(base).expanduser() == Path(model)):
            found[name] = path
    return found


def zoo_choices(model: str, viewer: Viewer = STRANGER) -> list[tuple[str, str]]:
    """What a model can be refined from, as (words, key); the first one is the default."""
    return [
        *((f"a zoo of fine-tunes: {name}", name) for name in zoos_of(model, viewer)),
        ("this model alone", ALONE),
    ]


def check_zoo(name: object, model: str, viewer: Viewer) -> Path | None:
    """The folder of a zoo that was chosen, or None for the model alone. Raises UserError where it is not to be had."""
    if name in (ALONE, None):
        return None
    if not isinstance(name, str) or name not in (known := zoos_of(model, viewer)):
        raise UserError("That zoo is not one of this model's here: choose one from the list, or the model alone.")
    return known[name]


def check(
    model: str, ranking: dict, sets: dict, preset, layers, candidates, seed, criterion="accuracy", shots=0, zoo=None
) -> Asked:
    """What is asked for; `sets` are (name, own file) by ``select`` and ``report``.

    Raises:
        UserError: a number out of its limits, questions that cannot be read or are in both sets, or too few of them to
            take so many examples from.
    """
    numbers = whole_numbers(dict(layers=layers, candidates=candidates, seed=seed, shots=shots), LIMITS)
    sources: dict[str, str | Path] = {}
    for key, (source, file) in sets.items():
        if source == OWN:
            if not file:
                raise UserError(
                    f"Drop a JSONL file with the {'selection' if key == 'select' else 'report'} questions, "
                    "or choose the built-in ones."
                )
            sources[key] = own_file(file)
        else:
            sources[key] = str(source or "").strip()
            if not SOURCE.fullmatch(str(sources[key])):
                raise UserError("Choose the built-in questions, a file, or a task such as lm-eval:arc_easy.")
    check_disjoint(*both_sets([sources["select"]], [sources["report"]], numbers["shots"], numbers["seed"]))
    if preset not in [key for _, key in presets()]:
        raise UserError("Choose one of the presets.")
    if criterion not in CRITERIA:
        raise UserError("A candidate can be better in accuracy or in confidence.")
    return Asked(model, ranking, sources, preset, criterion=criterion, zoo=zoo, **numbers)


def presets(zoo: bool = False) -> list[tuple[str, str]]:
    """The presets as (words, key): how long they take where a model is refined alone, what they try with a zoo."""
    from d2nwg.llm.presets import PRESETS, RefineConfig

    if not zoo:
        return [(f"{key}: {WORDS[key]}" if key in WORDS else key, key) for key in PRESETS]
    found = []
    for key in PRESETS:
        config = RefineConfig.of(key, zoo=True)
        asked = number(config.select_questions, "question") if config.select_questions else "all questions"
        found.append((f"{key}: {config.candidates} candidates, {asked}", key))
    return found


def start_of(preset: str, zoo: bool = False) -> dict:
    """The numbers that a preset begins with, for a model alone or with a zoo."""
    from d2nwg.llm.presets import RefineConfig

    config = RefineConfig.of(preset, zoo=zoo)
    return {"layers": config.layers, "candidates": config.candidates}


def submit(asked: Asked, viewer: Viewer) -> Job:
    """Put a refinement in the queue, with copies of the visitor's own files.

    Raises:
        UserError: the upload is gone, or what `d2nwg.jobs.queue.submit` refuses.
    """
    from d2nwg.jobs import queue

    uploaded = asked.model.startswith(UPLOADED)
    place = located(asked.model)
    own = {key: [source] for key, source in asked.sets.items() if isinstance(source, Path)}
    parameters = {key: [source] for key, source in asked.sets.items() if key not in own} | {
        "model": "" if uploaded else place,
        "asked": asked.model,
        "zoo": str(asked.zoo) if asked.zoo else None,
        "shots": asked.shots,
        "config": asked.config.to_config(),
        "device": None,
    }
    files = own | ({"own_model": [Path(place)]} if uploaded else {})
    name = f"{_stem(asked.model)}-{time.strftime('%m%d-%H%M%S')}"
    return queue.submit(KIND, name, parameters, files, owner=viewer.owner)


def _stem(model: str) -> str:
    """What names files after a model."""
    from d2nwg.llm.models import DEFAULT
    from d2nwg.llm.starter import NAME

    name = NAME if model == DEFAULT else Path(model.removeprefix(UPLOADED)).name
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip("-._")[:40] or "model"


def make(asked: Asked, folder: Path, progress: Progress = silent):
    """Refine here and now, in a new folder: the `d2nwg.llm.refine.Refined`."""
    import_libraries()
    place = located(asked.model, progress)
    select, report = both_sets([asked.sets["select"]], [asked.sets["report"]], asked.shots, asked.seed)
    with named(asked.model, place):
        return refine_by(place, select, report, asked.config, zoo=asked.zoo, folder=folder, progress=progress)


def sample(model: str, zoo: Path, seed, progress: Progress = silent) -> dict:
    """One sample of all layers of a zoo's fine-tunes: the tensors that change. Nothing is scored.

    Raises:
        UserError: the seed is none, or as `d2nwg.llm.zoo_sample.sample_from_zoo`.
    """
    seed = whole_numbers({"seed": seed}, LIMITS)["seed"]
    fetch(model, progress)
    return _sampled(model, zoo, seed, progress=progress)


@on_gpu
def _sampled(model: str, zoo: Path, seed: int, progress: Progress = silent) -> dict:
    own = load(model, progress)
    from d2nwg.llm.zoo_sample import sample_from_zoo
    from d2nwg.weights.model_zoo import ModelZoo

    return sample_from_zoo(own, ModelZoo(zoo), seed=seed, progress=progress)


def sampled_words(zoo: Path) -> str:
    """What is known of a sample."""
    return (
        f"One sample of all layers, from the fine-tunes in {zoo.name}, answers below as the refined model. It was not "
        "scored: nothing here says that it is better than the base. “Refine” searches and measures."
    )


def log_of(job: Job) -> list[dict]:
    """The decisions of a refinement so far, or the checkpoints of a zoo."""
    return job.checkpoints()[1] if job.spec["kind"] == making.KIND else read_log(job.out)


def outcome(job: Job):
    """The `d2nwg.llm.refine.Refined` of a job that has ended; None where it has come to none."""
    with suppress(UserError):  # a zoo is no refinement
        return read_refined(job.out)
    return None


def files_of(made, folder: Path) -> tuple[Path | None, Path]:
    """What changed, if anything did, and the report, as files of the visitor's own."""
    delta, report = (shutil.copy(path, folder) if path else None for path in (made.delta, made.report_file))
    return Path(delta) if delta else None, Path(report)


def done_words(made) -> str:
    """What to say when it is over."""
    if made.cancelled:
        return "Stopped. What was accepted is kept: talk with it below, take it away, or resume."
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


def pack(job: Job, folder: Path) -> Path:
    """The refined model's folder as a zip, stored without compression: weights do not compress.

    Raises:
        UserError: the refinement has changed nothing, the model is gone, or the disk is full.
    """
    import zipfile

    from d2nwg.llm.refine import save_refined

    made = read_refined(job.out)
    out = save_refined(made, folder / f"{_stem(made.name)}-refined", model=job.model)
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
