"""Jobs: trainings and zoo builds as processes of their own, which outlive whoever started them.

A job is a folder ``jobs/KIND-NAME`` in the cache:

- ``job.json``: what to do, written once: ``kind`` (``"train"`` or ``"zoo"``), ``name``, ``created``, ``parameters``.
- ``state.json``: how far it is, written whole by whoever has the say: the job's process while there is one.
- ``log.txt``: what the process says.
- ``data/``: uploaded files of its own.

One job runs at a time (``D2NWG_JOBS_AT_ONCE``), the others wait in line; a job that ends starts the next one, and so
does whoever looks. A process is known by its number and its start: after a kill or a restart of the machine the job is
found interrupted, and resuming it goes on from the last checkpoint.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, write_whole
from d2nwg.utils.text import shown

KINDS = ("zoo", "train")
UNFINISHED = ("queued", "running", "paused")
RESUMABLE = ("paused", "stopped", "interrupted", "failed")
PATIENCE = 30.0  # seconds a process gets to stop by itself


@dataclass(frozen=True)
class Job:
    """A job on disk. Everything is read anew on each call: another process writes it."""

    folder: Path

    @property
    def id(self) -> str:
        """``KIND-NAME``."""
        return self.folder.name

    @property
    def spec(self) -> dict:
        """What ``job.json`` says."""
        try:
            return json.loads((self.folder / "job.json").read_text())
        except (OSError, ValueError) as reason:
            raise UserError(f"The job {self.id} is incomplete: delete it.") from reason

    @property
    def out(self) -> Path:
        """The bundle or the zoo it makes."""
        return Path(self.spec["parameters"]["out"])

    @property
    def work(self) -> Path:
        """Where an unfinished training keeps its checkpoints and ``metrics.jsonl``."""
        return self.out.with_name(self.out.name + ".training")

    @property
    def log(self) -> Path:
        """The file with what its process says."""
        return self.folder / "log.txt"

    @property
    def after_resuming(self) -> str:
        """What resuming it does, for a sentence."""
        return f"resuming {'goes on from the last checkpoint' if self.id.startswith('train-') else 'begins again'}"

    def state(self) -> dict:
        """``state``: queued, running, paused, stopped, interrupted, failed or finished; ``stage``, ``done``,
        ``total`` and ``left`` (seconds) of the work; ``message``, a sentence on why it ended; ``pid``; and ``started``,
        ``updated`` and ``ended`` (seconds since 1970) as far as they are known."""
        state = self._read()
        if state["state"] == "running":
            found = process_state(state.get("pid"), state.get("identity"))
            if found == "gone" and (after := self._read()) != state:
                return after  # it ended well while we looked
            if found == "gone":
                state |= {
                    "state": "interrupted",
                    "message": f"Its process is gone; {self.after_resuming}.",
                }
            elif found == "suspended":
                state["state"] = "paused"
        return state

    def _read(self) -> dict:
        try:
            return json.loads((self.folder / "state.json").read_text())
        except (OSError, ValueError):  # torn by a full disk
            return {"state": "interrupted"}

    def metrics(self) -> list[dict]:
        """The lines of a training's ``metrics.jsonl``; a torn last line is left out."""
        lines = []
        for path in (self.out / "metrics.jsonl", self.work / "metrics.jsonl"):
            with contextlib.suppress(OSError):
                for line in path.read_text().splitlines():
                    with contextlib.suppress(ValueError):
                        lines.append(json.loads(line))
                break
        return lines

    def write(self, **values) -> None:
        """Change values of the state; on a full disk in place, so that it is told at all."""
        try:
            known = json.loads((self.folder / "state.json").read_text())
        except (OSError, ValueError):
            known = {}
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


def list_jobs() -> list[Job]:
    """All jobs, the oldest first."""
    found = []
    for path in jobs_dir().glob("*/job.json"):
        with contextlib.suppress(UserError):
            job = Job(path.parent)
            found.append((job.spec.get("created", 0), job.id, job))
    return [job for *_, job in sorted(found, key=lambda item: item[:2])]


def get_job(name: str) -> Job:
    """A job by its id, or by its name where only one job has it.

    Raises:
        UserError: there is none, or more than one.
    """
    jobs = list_jobs()
    found = [job for job in jobs if job.id == name] or [job for job in jobs if job.spec["name"] == name]
    if len(found) != 1:
        known = ", ".join(job.id for job in jobs) or "none"
        many = "is more than one job" if found else "is no job"
        raise UserError(f"There {many} {shown(name)}; the jobs: {known}.")
    return found[0]


def check_name(name: str) -> str:
    """A name that can be a folder's.

    Raises:
        UserError: it cannot.
    """
    name = (name or "").strip()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", name) or name.endswith(".training"):
        raise UserError("Give a name of letters, digits, dots and dashes, at most 60 of them.")
    return name


def submit(kind: str, name: str, parameters: dict, files: Sequence[Path] = ()) -> Job:
    """Put a job in line, and start it if nothing else runs.

    Args:
        parameters: of `d2nwg.jobs.worker`: for ``"train"`` ``zoos``, ``generator``, ``config`` and ``device``, for
            ``"zoo"`` ``data``, ``encoder``, ``config`` and ``device``; ``out`` where the result goes (the cache).
        files: copied to the job's own ``data`` folder, and added to ``data``.
    Raises:
        UserError: the name is taken or cannot be one, or the disk is full.
    """
    name = check_name(name)
    folder = jobs_dir() / f"{kind}-{name}"
    place = cache_dir() / {"train": "bundles", "zoo": "zoos"}[kind]
    out = Path(parameters.get("out") or place / name).expanduser().resolve()
    jobs_dir().mkdir(parents=True, exist_ok=True)
    with _lock():
        if out.exists():
            raise UserError(f"{out} exists already: choose another name, or remove it.")
        if folder.exists():
            raise UserError(f"There is a job {folder.name} already: choose another name, or delete that job.")
        part = folder.with_name(f".{folder.name}-{os.getpid()}")
        try:
            (part / "data").mkdir(parents=True)
            own = [_keep(Path(file), part / "data", folder / "data") for file in files]
            parameters = {**parameters, "out": str(out)}
            if own or "data" in parameters:
                parameters["data"] = [*parameters.get("data", []), *own]
            spec = {"kind": kind, "name": name, "created": time.time(), "parameters": parameters}
            (part / "job.json").write_text(json.dumps(spec, indent=1))
            (part / "state.json").write_text(json.dumps({"state": "queued"}))
            part.rename(folder)
        except OSError as reason:
            raise UserError(f"The job could not be written: {(reason.strerror or str(reason)).lower()}.") from reason
        finally:
            shutil.rmtree(part, ignore_errors=True)
    tend()
    return Job(folder)


def submit_training(
    name: str, zoos: Sequence[str | Path], config, out: str | Path | None = None, device: str | None = None
) -> Job:
    """`submit` a training of a `TrainConfig`, a `DualConfig` or a `ModelsConfig` on zoos.

    Raises:
        UserError: a zoo is none, or what `submit` refuses.
    """
    from d2nwg.training.config import generator_of
    from d2nwg.weights.open import open_zoo

    paths = [str(open_zoo(path).path.resolve()) for path in zoos]
    parameters = {"zoos": paths, "generator": generator_of(config), "config": config.to_config(), "device": device}
    return submit("train", name, {**parameters, "out": str(out)} if out else parameters)


def _keep(file: Path, part: Path, final: Path) -> str:
    """Copy a file, under its own name or one beside it; returns the path it will have."""
    target, number = part / file.name, 1
    while target.exists():
        number += 1
        target = part / f"{file.stem}-{number}{file.suffix}"
    shutil.copyfile(file, target)
    return str(final / target.name)


def tend() -> None:
    """Note which jobs have lost their process, and start the next in line if there is room."""
    if not jobs_dir().is_dir():
        return
    with _lock():
        jobs = [(job, job.state()) for job in list_jobs()]
        for job, state in jobs:
            if state["state"] == "interrupted" and state.get("pid"):
                job.write(state="interrupted", message=state.get("message", ""), pid=None, ended=time.time())
        free = int(os.environ.get("D2NWG_JOBS_AT_ONCE", "1"))
        free -= sum(state["state"] in ("running", "paused") for _, state in jobs)
        waiting = sorted((state.get("queued", 0), i) for i, (_, state) in enumerate(jobs) if state["state"] == "queued")
        for _, number in waiting[: max(0, free)]:
            _start(jobs[number][0])


def runner(job: Job) -> list[str]:
    """The command of a job's process, as a list: no shell reads it."""
    return [sys.executable, "-m", "d2nwg", "jobs", "run", job.id]


def _start(job: Job) -> None:
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "D2NWG_CACHE": str(cache_dir().resolve())}
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            runner(job),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=job.folder,
            env=env,
            start_new_session=True,
        )
    job.write(
        state="running",
        pid=process.pid,
        identity=identity(process.pid),
        started=time.time(),
        message="",
        ended=None,
        left=None,
    )
    threading.Thread(target=process.wait, daemon=True).start()  # so that it does not stay as a zombie


def pause(job: Job) -> None:
    """Halt a running job where it is. It keeps its memory and its place in line.

    Raises:
        UserError: it is not running, or this system cannot do that.
    """
    state = job.state()
    if state["state"] != "running":
        raise UserError(f"The job {job.id} is {state['state']}: only a running one can be paused.")
    _signal(state, getattr(signal, "SIGSTOP", None), until="suspended")


def resume(job: Job) -> None:
    """Let a paused job go on, or put a stopped, interrupted or failed one in line again: a training goes on from its
    last checkpoint.

    Raises:
        UserError: it is in line, running or finished.
    """
    state = job.state()
    if state["state"] not in RESUMABLE:
        raise UserError(f"The job {job.id} is {state['state']}: there is nothing to resume.")
    if state["state"] == "paused":
        _signal(state, getattr(signal, "SIGCONT", None), until="alive")
        return
    with _lock():
        job.write(state="queued", queued=time.time(), pid=None, message="", left=None)
    tend()


def stop(job: Job) -> None:
    """Stop a job; a training keeps its last checkpoint. Returns when its process has ended.

    Raises:
        UserError: it is neither in line nor running.
    """
    with _lock():
        state = job.state()
        if state["state"] not in UNFINISHED:
            raise UserError(f"The job {job.id} is {state['state']} already.")
        if state["state"] == "queued":
            job.write(state="stopped", message="Stopped before it began.", ended=time.time())
            return
    with contextlib.suppress(UserError):  # it may end meanwhile
        _signal(state, signal.SIGTERM)
        if hasattr(signal, "SIGCONT"):  # always: a pause may not show yet
            _signal(state, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE
        while process_state(state["pid"], state["identity"]) != "gone":
            if time.monotonic() > deadline:
                _signal(state, getattr(signal, "SIGKILL", signal.SIGTERM))
            time.sleep(0.05)
    if job.state()["state"] in ("running", "interrupted"):  # it had no time to say so
        job.write(state="stopped", message="Stopped.", pid=None, ended=time.time())
    tend()


def delete(job: Job) -> None:
    """Stop a job if need be and remove its folder and its checkpoints. What it has finished stays."""
    with contextlib.suppress(UserError):
        stop(job)
    with contextlib.suppress(UserError):
        if job.spec["kind"] == "train" and job.state()["state"] != "finished":
            shutil.rmtree(job.work, ignore_errors=True)
        remove_partial(job.out)
    shutil.rmtree(job.folder, ignore_errors=True)
    tend()


def remove_partial(out: Path) -> None:
    """Remove what a killed process had half written beside its goal."""
    if out.parent.is_dir():
        for path in out.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(out.name)}-[a-z0-9_]{{8}}", path.name):
                shutil.rmtree(path, ignore_errors=True)


# ---------------------------------------- processes


def identity(pid: int) -> str:
    """What tells this process from a later one of the same number: when it started and, on Linux, in which boot."""
    import psutil

    try:
        if sys.platform == "linux":
            start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{start}"
        return str(psutil.Process(pid).create_time())
    except (OSError, psutil.Error, IndexError):
        return ""


def process_state(pid: int | None, known: str | None) -> str:
    """``"alive"``, ``"suspended"`` or ``"gone"`` for a process of that number and `identity`."""
    import psutil

    if not pid or not known or identity(pid) != known:
        return "gone"
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return "gone"
    return {psutil.STATUS_ZOMBIE: "gone", psutil.STATUS_DEAD: "gone", psutil.STATUS_STOPPED: "suspended"}.get(
        status, "alive"
    )


def _signal(state: dict, number: int | None, until: str | None = None) -> None:
    """Send a signal to a job's process and its children: they have a session of their own. The system may take a
    moment to act on it: `until` is the `process_state` to wait for."""
    if number is None:
        raise UserError("This system cannot pause a process: stop the job and resume it later.")
    if process_state(state.get("pid"), state.get("identity")) == "gone":
        raise UserError("The process of this job is gone.")
    try:
        os.killpg(state["pid"], number) if hasattr(os, "killpg") else os.kill(state["pid"], number)
    except ProcessLookupError:
        raise UserError("The process of this job is gone.") from None
    deadline = time.monotonic() + PATIENCE
    while until and process_state(state["pid"], state["identity"]) not in (until, "gone"):
        if time.monotonic() > deadline:
            raise UserError("The process of this job does not answer: stop the job and resume it later.")
        time.sleep(0.02)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One process at a time decides who starts."""
    from filelock import FileLock

    with FileLock(jobs_dir() / ".lock"):
        yield
