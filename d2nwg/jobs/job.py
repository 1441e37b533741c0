"""A job on disk: a folder ``jobs/KIND-NAME`` in the cache.

- ``job.json``: the work, written once: ``format``, ``kind`` (of `d2nwg.jobs.kinds`), ``name``, ``created``,
  ``parameters``, and ``owner`` (see `d2nwg.jobs.owner`) where it has one.
- ``state.json``: its progress, rewritten by the job's process while there is one, otherwise by `d2nwg.jobs.queue`.
- ``log.txt``: the output of the process.
- ``data/``: the job's own copies of uploaded files.
- ``base.json``: of a refinement, how the unchanged model answers, as far as it is known.
- ``result/``: what a refinement makes; what others make lies elsewhere in the cache.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BaseModel, FiniteFloat, ValidationError

from d2nwg.jobs.kinds import KINDS
from d2nwg.jobs.process import process_state
from d2nwg.utils.errors import UserError
from d2nwg.utils.formats import check_format
from d2nwg.utils.paths import cache_dir, read_json, read_lines, write_whole
from d2nwg.utils.text import shown
from d2nwg.weights.info import place_of

FORMAT = 1  # of job.json and state.json


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(kind)
    return kind


class _Parameters(BaseModel):
    out: Annotated[str, MinLen(1)]
    zoos: list[str] = []
    data: list[str] = []
    generator: str = ""
    encoder: str = ""
    model: str = ""
    own_model: list[str] = []
    zoo: str | None = None
    select: list[str] = []
    report: list[str] = []
    shots: Annotated[int, Ge(0)] = 0
    config: dict = {}
    device: str | None = None


class _Spec(BaseModel):
    kind: Annotated[str, AfterValidator(_known)]
    name: str
    created: float = 0.0
    parameters: _Parameters


class _State(BaseModel):
    state: Literal["queued", "running", "paused", "stopped", "interrupted", "failed", "finished"]
    stage: str | None = None
    message: str = ""
    pid: Annotated[int, Ge(1), Le(2**31 - 1)] | None = None
    identity: str | None = None
    done: float | None = None
    total: float | None = None
    left: FiniteFloat | None = None
    queued: float | None = None
    started: float | None = None
    updated: float | None = None
    ended: float | None = None


@dataclass(frozen=True)
class Job:
    """A job on disk. Every property reads the files anew: another process writes them."""

    folder: Path

    @property
    def id(self) -> str:
        """``KIND-NAME``."""
        return self.folder.name

    @property
    def spec(self) -> dict:
        """The content of ``job.json``.

        Raises:
            UserError: it is damaged, or in a format that this version does not read.
        """
        spec = read_json(self.folder / "job.json")
        if not isinstance(spec, dict):
            raise UserError(f"The job {self.id} is incomplete: delete it.")
        check_format(spec.get("format"), (FORMAT,), f"The job {self.id}", "delete it and submit it again")
        try:
            _Spec.model_validate(spec)
        except ValidationError as reason:
            raise UserError(f"The job {self.id} is damaged at {place_of(reason)}: delete it.") from reason
        return spec

    @property
    def owner(self) -> str | None:
        """Whose it is, or None for nobody's, such as one that the command line submitted."""
        owner = self.spec.get("owner")
        return owner if isinstance(owner, str) else None

    @property
    def out(self) -> Path:
        """The bundle, the zoo, or the folder of the refinement that it makes."""
        return Path(self.spec["parameters"]["out"])

    @property
    def model(self) -> str:
        """Of a refinement: its model, as `d2nwg.llm.models.load_language_model` takes it."""
        parameters = self.spec["parameters"]
        return [*parameters.get("own_model", []), parameters.get("model", "")][0]

    @property
    def work(self) -> Path:
        """The folder of the checkpoints and ``metrics.jsonl`` of an unfinished training."""
        return self.out.with_name(self.out.name + ".training")

    @property
    def building(self) -> Path:
        """The folder in which a zoo of networks or of fine-tunes grows (`d2nwg.weights.building`)."""
        return self.work / "zoo.building"

    @property
    def log(self) -> Path:
        """The file with the output of its process."""
        return self.folder / "log.txt"

    @property
    def after_resuming(self) -> str:
        """What resuming it does, as the end of a sentence."""
        return f"resuming {KINDS[self.id.partition('-')[0]].resuming}"

    def state(self) -> dict:
        """``state``: queued, running, paused, stopped, interrupted, failed or finished; ``stage``, ``done``,
        ``total`` and ``left`` (seconds) of the work; ``message``, a sentence on why it ended; ``pid``; and ``started``,
        ``updated`` and ``ended`` (seconds since 1970) as far as they are known."""
        state = self._read()
        if state["state"] == "running":
            found = process_state(state.get("pid"), state.get("identity"))
            if found == "gone" and (after := self._read()) != state:
                return after  # it ended between the two readings
            if found == "gone":
                state |= {
                    "state": "interrupted",
                    "message": f"Its process is gone; {self.after_resuming}.",
                }
            elif found == "suspended":
                state["state"] = "paused"
        return state

    def _read(self) -> dict:
        state = read_json(self.folder / "state.json")
        try:
            _State.model_validate(state)
            return state
        except ValidationError:  # cut short on a full disk
            return {"state": "interrupted"}

    def metrics(self) -> list[dict]:
        """The lines of a training's ``metrics.jsonl``, without an incomplete last one."""
        files = (self.out / "metrics.jsonl", self.work / "metrics.jsonl")
        return next((read_lines(path) for path in files if path.is_file()), [])

    def base(self) -> tuple[int, int, int] | None:
        """Of a refinement: how many of how many selection questions the unchanged model has right so far, and how many
        there are; None where that is not known yet."""
        found = read_json(self.folder / "base.json")
        if isinstance(found, list) and len(found) == 3 and all(type(number) is int for number in found):
            return found[0], found[1], found[2]
        return None

    def checkpoints(self) -> tuple[float | None, list[dict]]:
        """Of a zoo of fine-tunes, also while it grows: the fraction of the questions kept aside that the unchanged
        model has right, None where that is not known yet; and of each checkpoint ``name``, ``epoch`` and
        ``accuracy``."""
        zoo = read_json(self.out / "zoo.json")
        runs = [read_json(path) for path in sorted(self.building.glob("run-*.json"))]
        base = read_json(self.building / "frozen-00000.json")
        try:
            if zoo is not None:
                runs, base = [zoo], zoo["adapters"]["tasks"][0]["frozen"]
            known = None if base is None else float(base["accuracy"])
            keys = {"name": str, "epoch": int, "accuracy": float}
            return known, [
                {key: kind(record[key]) for key, kind in keys.items()} for run in runs for record in run["records"]
            ]
        except (TypeError, KeyError, IndexError, ValueError):  # something else lies there
            return None, []

    def write(self, **values) -> None:
        """Change values of ``state.json``; on a full disk in place, where a new file has no room."""
        known = read_json(self.folder / "state.json")
        known = known if isinstance(known, dict) else {}
        text = json.dumps({**known, **values, "updated": round(time.time(), 3)})
        try:
            write_whole(self.folder / "state.json", text)
        except OSError:
            with contextlib.suppress(OSError), (self.folder / "state.json").open("r+") as file:
                file.write(text)
                file.truncate()


def jobs_dir() -> Path:
    """The folder of all jobs; it need not exist yet."""
    return cache_dir() / "jobs"


@contextlib.contextmanager
def jobs_lock() -> Iterator[None]:
    """Held by the one process that changes the queue, or whose a result is."""
    from filelock import FileLock

    jobs_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(jobs_dir() / ".lock"):
        yield


def list_jobs() -> list[Job]:
    """All jobs that can be read, the oldest first."""
    found = []
    for job in _folders():
        with contextlib.suppress(UserError):
            found.append((job.spec.get("created", 0), job.id, job))
    return [job for *_, job in sorted(found, key=lambda item: item[:2])]


def unreadable_jobs() -> dict[str, str]:
    """Id → a sentence on why it cannot be read, for the jobs that `list_jobs` leaves out."""
    reasons = {}
    for job in _folders():
        try:
            _ = job.spec
        except UserError as reason:
            reasons[job.id] = str(reason)
    return reasons


def get_job(name: str) -> Job:
    """A job by its id, also one that cannot be read, or by its name where only one job has it.

    Raises:
        UserError: there is none, or more than one.
    """
    jobs = list_jobs()
    found = [job for job in _folders() if job.id == name] or [job for job in jobs if job.spec["name"] == name]
    if len(found) != 1:
        known = ", ".join(job.id for job in jobs) or "none"
        many = "is more than one job" if found else "is no job"
        raise UserError(f"There {many} {shown(name)}; the jobs: {known}.")
    return found[0]


def _folders() -> list[Job]:
    return [Job(path.parent) for path in sorted(jobs_dir().glob("[!.]*/job.json"))]
