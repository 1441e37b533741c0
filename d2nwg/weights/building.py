"""Building a zoo of checkpoints that are trained here (`Building`): by one process or by several (``accelerate launch …
-m d2nwg zoo build …``), and gone on with after an interruption.

What is trained is numbered; each number is a run, which leaves its checkpoints in ``models/`` and then a file that says
that they are whole.
"""

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from d2nwg.utils.devices import leave_group_at_exit, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import claimed, explained, resolved
from d2nwg.utils.paths import is_partial, read_json, whole_folder, write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.info import CHECKPOINTS, write_info
from d2nwg.weights.model_zoo import ModelZoo

FORMAT = 1  # of unfinished zoos


class Building(ABC):
    """What a zoo is built of.

    Attributes:
        folders: of the finished zoo, which grow in the unfinished one.
    """

    folders: tuple[str, ...] = ("models",)

    @property
    @abstractmethod
    def about(self) -> dict[str, Any]:
        """JSON that is equal for builds of one zoo, so that one goes on with another."""

    @property
    @abstractmethod
    def runs(self) -> int:
        """How many there are."""

    @abstractmethod
    def open(self, device: str) -> Any:
        """What `train` needs; checks what can be checked, before a folder is made."""

    def prepare(self, work: Path) -> None:  # noqa: B027  # most have nothing to share
        """Write what all runs share, where it is not there yet; in the first process only."""

    @abstractmethod
    def train(self, opened: Any, work: Path, runs: Sequence[int], progress: Progress) -> None:
        """Make those of these runs that have no `run_file` yet, and write it for each."""

    @abstractmethod
    def content(self, work: Path) -> dict[str, Any]:
        """What ``zoo.json`` says, once all runs are there."""


def build(
    job: Building, out: str | Path, *, resume: bool = False, device: str | None = None, progress: Progress = silent
) -> ModelZoo:
    """Make all runs and write the zoo to ``out``.

    Until it is finished everything lies in ``out`` + ``.building``; ``resume=True`` goes on after the last run that was
    finished, and ends with the same zoo as an undisturbed build. With ``WORLD_SIZE`` processes (as `accelerate launch`
    starts them) each makes its share.

    Raises:
        UserError: ``out`` exists or is being written, or an unfinished zoo lies there and ``resume`` is False, or the
            reverse; no such device; what the job refuses; a full disk.
    """
    out, device = resolved(out), resolve_device(device)
    world, runs = int(os.environ.get("WORLD_SIZE", "1")), range(job.runs)
    if world == 1:
        opened = job.open(device)  # before a folder is made
        with ExitStack() as held:
            work = _open_work(held, job, out, resume)
            job.train(opened, work, runs, progress)
            _finish(job, work, out)
        return ModelZoo(out)
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=device == "cpu")
    leave_group_at_exit()
    opened = job.open("cpu" if device == "cpu" else str(state.device))
    answer: list = [None]
    with ExitStack() as held:
        if state.is_main_process:
            try:
                answer = [_open_work(held, job, out, resume)]
            except UserError as reason:
                answer = [reason]
        answer = broadcast_object_list(answer)
        if isinstance(answer[0], UserError):
            raise answer[0]
        mine = runs[state.process_index :: world]
        job.train(opened, answer[0], mine, progress if state.is_main_process else silent)
        state.wait_for_everyone()
        if state.is_main_process:
            _finish(job, answer[0], out)
        state.wait_for_everyone()
    return ModelZoo(out)


def run_file(work: Path, run: int) -> Path:
    """The JSON that a finished run leaves."""
    return work / f"run-{run:05d}.json"


def shifted(progress: Progress, before: int, total: int) -> Progress:
    """Progress of a part, as progress of the whole."""
    return lambda stage, done, total_of_part: progress(stage, before + done, total)


def _open_work(held: ExitStack, job: Building, out: Path, resume: bool) -> Path:
    """The folder in which the zoo grows, held until the end."""
    held.enter_context(claimed(out))
    work = out.with_name(out.name + ".building")
    held.enter_context(explained(out, "make room and go on with --resume"))
    file, about = work / "building.json", json.loads(json.dumps({"format": FORMAT, **job.about}))
    if file.exists():
        if not resume:
            raise UserError(f"An unfinished zoo lies in {work}: go on with --resume, or remove that folder.")
        if read_json(file) != about:
            raise UserError(f"The zoo in {work} was begun with other tasks or settings: give those, or remove it.")
    else:
        if resume:
            raise UserError(f"There is no unfinished zoo in {work} to resume: leave out --resume to start one.")
        # A build may have been killed while it wrote the first file.
        there = [path for path in work.rglob("*") if path.is_file() and not is_partial(path)]
        if work.exists() and (there or not work.is_dir()):
            raise UserError(f"{work} is there and no unfinished zoo: choose another name, or remove it.")
        for folder in job.folders:
            (work / folder).mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(about, indent=1))
    job.prepare(work)
    return work


def _finish(job: Building, work: Path, out: Path) -> None:
    """The zoo from what the runs have left, which stays there until the zoo is whole."""
    content = job.content(work)
    with whole_folder(out, keep=True) as part:
        for folder in job.folders:
            shutil.copytree(work / folder, part / folder, copy_function=_link_or_copy)
        write_info(part, CHECKPOINTS, content)
        part.chmod(0o755)
    shutil.rmtree(work, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    """Another name of the same file, where the file system can give it one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
