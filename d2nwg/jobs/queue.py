"""Jobs: trainings, zoo builds and refinements (`d2nwg.jobs.kinds`) in processes of their own, which go on when the
process that submitted them ends.

One job runs at a time (or ``D2NWG_JOBS_AT_ONCE``), the others are queued. The next one is started when a job ends, and
whenever `start_next` is called, as the command line and the app do. A job whose process was killed, or ended with the
machine, is *interrupted*; resuming it goes on from the last checkpoint.
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
from collections.abc import Mapping, Sequence
from pathlib import Path

from d2nwg.jobs.job import FORMAT, Job, jobs_dir, jobs_lock, list_jobs
from d2nwg.jobs.kinds import KINDS
from d2nwg.jobs.owner import claim, release, taken
from d2nwg.jobs.process import PATIENCE, identity, process_state, send_signal
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, sole_writer

UNFINISHED = ("queued", "running", "paused")
RESUMABLE = ("paused", "stopped", "interrupted", "failed")


def check_name(name: str) -> str:
    """The name without spaces around it.

    Raises:
        UserError: it cannot name a job's folder and its result.
    """
    name = (name or "").strip()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", name) or name.endswith(".training"):
        raise UserError("Give a name of letters, digits, dots and dashes, at most 60 of them.")
    return name


def submit(
    kind: str,
    name: str,
    parameters: dict,
    files: Mapping[str, Sequence[Path]] | None = None,
    owner: str | None = None,
) -> Job:
    """Queue a job, and start it if no other job runs.

    Args:
        kind: of `d2nwg.jobs.kinds.KINDS`.
        parameters: for `d2nwg.jobs.worker`. ``"train"``: ``zoos``, ``generator``, ``config``; ``"zoo"``: ``data``,
            ``encoder``, ``config``; ``"networks"``: ``data``, ``config``; ``"finetunes"``: as `submit_finetunes` writes
            them; ``"refine"``: ``model`` (or files of ``own_model``), ``zoo`` (or None), ``select``, ``report``,
            ``shots`` (0 if left out), ``config``; all: ``device``, and ``out``, the folder of the result (by default
            below the cache).
        files: parameter → files, or folders, that are copied to the job's own ``data`` folder and added to that list.
        owner: whose the job and its result are (`d2nwg.jobs.owner`); None for nobody's.
    Raises:
        UserError: the name is taken or no name, or the disk is full. A sentence for an owner names no folder.
    """
    name = check_name(name)
    folder, place = jobs_dir() / f"{kind}-{name}", KINDS[kind].place
    default = cache_dir() / place / name if place else folder / "result"
    out = Path(parameters.get("out") or default).expanduser().resolve()
    claimed = bool(place) and claim(out, owner)
    try:
        _write_job(folder, {"kind": kind, "name": name}, parameters, out, files or {}, owner)
    except BaseException:
        if claimed:
            release(out)
        raise
    start_next()
    return Job(folder)


def _write_job(
    folder: Path, spec: dict, parameters: dict, out: Path, files: Mapping[str, Sequence[Path]], owner: str | None
) -> None:
    """Write the folder of a queued job, whole or not at all."""
    with jobs_lock():
        if owner and (out.exists() or folder.exists()):
            raise taken(spec["name"])
        if out.exists():
            raise UserError(f"{out} exists already: choose another name, or remove it.")
        if folder.exists():
            raise UserError(f"There is a job {folder.name} already: choose another name, or delete that job.")
        part = folder.with_name(f".{folder.name}-{os.getpid()}")
        try:
            (part / "data").mkdir(parents=True)
            parameters = {**parameters, "out": str(out)}
            for key, given in files.items():
                own = [_keep(Path(file), part / "data", folder / "data") for file in given]
                parameters[key] = [*parameters.get(key, []), *own]
            spec = {"format": FORMAT, **spec, "created": time.time(), "parameters": parameters}
            spec |= {"owner": owner} if owner else {}
            (part / "job.json").write_text(json.dumps(spec, indent=1))
            (part / "state.json").write_text(json.dumps({"state": "queued"}))
            part.rename(folder)
        except OSError as reason:
            raise UserError(f"The job could not be written: {(reason.strerror or str(reason)).lower()}.") from reason
        finally:
            shutil.rmtree(part, ignore_errors=True)


def submit_training(
    name: str,
    zoos: Sequence[str | Path],
    config,
    out: str | Path | None = None,
    device: str | None = None,
    owner: str | None = None,
) -> Job:
    """`submit` a training of a generator's configuration on zoos.

    Raises:
        UserError: a zoo is none, or what `submit` refuses.
    """
    from d2nwg.generators import generator_of
    from d2nwg.weights.open import open_zoo

    paths = [str(open_zoo(path).path.resolve()) for path in zoos]
    parameters = {"zoos": paths, "generator": generator_of(config).name, "config": config.to_config(), "device": device}
    return submit("train", name, {**parameters, "out": str(out)} if out else parameters, owner=owner)


def submit_finetunes(
    name: str,
    config,
    data: Sequence[str] = (),
    select: Sequence[str] = (),
    files: Mapping[str, Sequence[Path]] | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    owner: str | None = None,
) -> Job:
    """`submit` a zoo of fine-tunes of a language model.

    Args:
        config: a `d2nwg.llm.adapter_zoo.LlmZooConfig`; its base is a path that is absolute, or no path.
        data, select: questions to train on and to score by, as `d2nwg.llm.questions.load_questions` takes them;
            relative paths are made absolute.
        files: further ones of both, which the job copies.
    Raises:
        UserError: as `submit`.
    """
    from dataclasses import asdict

    parameters = {
        "data": [absolute(source) for source in data],
        "select": [absolute(source) for source in select],
        "model": config.shape.base,
        "config": asdict(config),
        "device": device,
    }
    return submit("finetunes", name, {**parameters, "out": str(out)} if out else parameters, files, owner=owner)


def absolute(source: str) -> str:
    """A file by its absolute path, anything else as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def _keep(file: Path, part: Path, final: Path) -> str:
    """Copy a file or a folder to the folder `part`, with a number if its name is taken; returns its path once `part` is
    renamed to `final`."""
    target, number = part / file.name, 1
    while target.exists():
        number += 1
        target = part / f"{file.stem}-{number}{file.suffix}"
    (shutil.copytree if file.is_dir() else shutil.copyfile)(file, target)
    return str(final / target.name)


def start_next() -> None:
    """Record the jobs whose process is gone as interrupted, and start queued jobs while fewer run than may."""
    if not jobs_dir().is_dir():
        return
    with jobs_lock():
        jobs = [(job, job.state()) for job in list_jobs()]
        for job, state in jobs:
            if state["state"] == "interrupted" and state.get("pid"):
                job.write(state="interrupted", message=state.get("message", ""), pid=None, ended=time.time())
        free = int(os.environ.get("D2NWG_JOBS_AT_ONCE", "1"))
        free -= sum(state["state"] in ("running", "paused") for _, state in jobs)
        waiting = sorted((state.get("queued", 0), i) for i, (_, state) in enumerate(jobs) if state["state"] == "queued")
        for _, number in waiting[: max(0, free)]:
            _start(jobs[number][0])


def worker_command(job: Job) -> list[str]:
    """The command line of a job's process."""
    return [sys.executable, "-m", "d2nwg", "jobs", "run", job.id]


def _start(job: Job) -> None:
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "D2NWG_CACHE": str(cache_dir().resolve())}
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            worker_command(job),
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
    threading.Thread(target=process.wait, daemon=True).start()  # no zombie stays


def pause(job: Job) -> None:
    """Suspend the process of a running job. It keeps its memory, and counts as a running one.

    Raises:
        UserError: it is not running, or this system cannot do that.
    """
    state = job.state()
    if state["state"] != "running":
        raise UserError(f"The job {job.id} is {state['state']}: only a running one can be paused.")
    send_signal(state.get("pid"), state.get("identity"), getattr(signal, "SIGSTOP", None), until="suspended")


def resume(job: Job) -> None:
    """Continue a paused job, or queue a stopped, interrupted or failed one again (`Kind.resuming`).

    Raises:
        UserError: it is queued, running or finished.
    """
    state = job.state()
    if state["state"] not in RESUMABLE:
        raise UserError(f"The job {job.id} is {state['state']}: there is nothing to resume.")
    if state["state"] == "paused":
        send_signal(state.get("pid"), state.get("identity"), getattr(signal, "SIGCONT", None), until="alive")
        return
    with jobs_lock():
        job.write(state="queued", queued=time.time(), pid=None, message="", left=None)
    start_next()


def stop(job: Job) -> None:
    """Stop a job; what resuming it needs is kept. Returns when its process has ended.

    Raises:
        UserError: it is neither queued nor running.
    """
    with jobs_lock():
        state = job.state()
        if state["state"] not in UNFINISHED:
            raise UserError(f"The job {job.id} is {state['state']} already.")
        if state["state"] == "queued":
            job.write(state="stopped", message="Stopped before it began.", ended=time.time())
            return
    process = state.get("pid"), state.get("identity")
    with contextlib.suppress(UserError):  # it may end meanwhile
        send_signal(*process, signal.SIGTERM)
        if hasattr(signal, "SIGCONT"):  # always: a process that is being suspended may still read as alive
            send_signal(*process, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE
        while process_state(*process) != "gone":
            if time.monotonic() > deadline:
                send_signal(*process, getattr(signal, "SIGKILL", signal.SIGTERM))
            time.sleep(0.05)
    if job.state()["state"] in ("running", "interrupted"):  # killed before it recorded that
        job.write(state="stopped", message="Stopped.", pid=None, ended=time.time())
    start_next()


def delete(job: Job) -> None:
    """Stop a job if it runs, and remove its folder and its checkpoints, but not a finished bundle or zoo. What a
    refinement has made lies in its folder."""
    with contextlib.suppress(UserError):
        stop(job)
    with contextlib.suppress(UserError):
        if job.state()["state"] != "finished":
            shutil.rmtree(job.work, ignore_errors=True)
        with sole_writer(job.out):  # removes what is left of it, where nobody is writing it
            pass
        release(job.out)
    shutil.rmtree(job.folder, ignore_errors=True)
    start_next()
