"""What making a zoo of fine-tunes in the Language tab does, without gradio: library calls, and the job."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.jobs.job import Job
from d2nwg.jobs.owner import Viewer
from d2nwg.llm.questions import Question, load_questions
from d2nwg.ui.language.models import UPLOADED, located
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.settings import whole_numbers
from d2nwg.ui.uploads import named, own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, format_seconds, silent
from d2nwg.utils.text import number

if TYPE_CHECKING:
    from d2nwg.llm.adapter_zoo import LlmTuning

KIND = "finetunes"  # of the jobs
LIMITS = {
    "seeds": ("Fine-tunes", 1, 1000),
    "epochs": ("Epochs", 1, 1000),
    "rows": ("Most questions", 0, 1_000_000),
    "seed": ("Seed", 0, 2**31 - 1),
}
NO_QUESTIONS = "Drop a JSONL file of questions to train on first."
NO_UPLOAD = (
    "A zoo is found by the name of its model, and an uploaded file has none that lasts: take the default model, a Hub "
    "id (org/name), or a folder that the app was started with (python app.py --models DIR)."
)


def read(files: list[str] | None) -> list[list[Question]]:
    """The questions of each uploaded file. Raises UserError where there are none, or one cannot be read."""
    found = []
    for file in files or ():
        path = own_file(file)
        with named(path):
            found.append(load_questions(path))
    if not found:
        raise UserError(NO_QUESTIONS)
    return found


def tuning_of(
    model: str, files: list[str] | None, seeds, epochs, rows, seed, progress: Progress = silent
) -> "LlmTuning":
    """What a zoo is asked to be; no model is loaded for it.

    Args:
        model: as `d2nwg.ui.language.models.check_model` let it pass.
        rows: most questions to train on; 0 for all.
    Raises:
        UserError: the model is an upload, a number out of its limits, or the questions cannot be read or are too few.
    """
    if model.startswith(UPLOADED):
        raise UserError(NO_UPLOAD)
    numbers = whole_numbers(dict(seeds=seeds, epochs=epochs, rows=rows, seed=seed), LIMITS)
    sources = read(files)
    from d2nwg.llm.adapter_zoo import LlmTuning, LlmZooConfig

    plain, epochs = LlmZooConfig(), numbers.pop("epochs")
    tune = replace(plain.tune, epochs=epochs, keep=min(plain.tune.keep, epochs))
    shape = replace(plain.shape, base=located(model))
    return LlmTuning(sources, LlmZooConfig(shape, tune, **numbers), progress=progress)


def described(files: list[str] | None) -> str:
    """How many questions there are."""
    count = sum(map(len, read(files)))
    return f"{number(count, 'question')}: a fifth of them, at most 500, is kept aside to score every fine-tune."


def measure(model: str, files: list[str] | None, *numbers, progress: Progress = silent) -> str:
    """How long making the zoo takes here: a sentence."""
    import_libraries()
    tuning = tuning_of(model, files, *numbers, progress=progress)
    from d2nwg.llm.zoo_estimate import estimate

    seconds, config = estimate(tuning, progress=progress), tuning.config
    return (
        f"About {format_seconds(seconds)} on this machine, once the model is loaded: "
        f"{number(config.seeds, 'fine-tune')}, "
        f"{number(config.tune.epochs, 'epoch')} of {number(len(tuning.questions), 'question')} each, and "
        f"{number(len(tuning.select), 'other')} that score {number(config.seeds * config.tune.keep, 'checkpoint')}. "
        "Measured just now, a few steps."
    )


def submit(model: str, files: list[str] | None, name: str, *numbers, viewer: Viewer) -> Job:
    """Put the making of a zoo in the queue, with copies of the visitor's files: the `Job`, which is theirs.

    Raises:
        UserError: as `tuning_of` and `d2nwg.jobs.queue.submit`.
    """
    from d2nwg.jobs.queue import check_name, submit_finetunes

    name, tuning = check_name(name), tuning_of(model, files, *numbers)
    copies = {"data": [Path(own_file(file)) for file in files or ()]}
    return submit_finetunes(name, tuning.config, files=copies, owner=viewer.owner)
