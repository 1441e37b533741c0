"""The process of a job: its work, and the reports of its progress."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.jobs.job import Job, jobs_lock
from d2nwg.jobs.process import identity
from d2nwg.jobs.queue import start_next
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.paths import cache_dir, shipped, whole_folder, write_whole
from d2nwg.utils.progress import Progress, TerminalProgress, TimeLeft, format_seconds

if TYPE_CHECKING:
    from d2nwg.data.image_set import ImageSet

EVERY = 0.5  # seconds between two writings of the state
RESULT = ("report.json", "log.jsonl", "delta.safetensors", "run.json", "noise", "noised", "noised-start.safetensors")
PAUSED = 10.0  # seconds between two calls that mean a pause, which must not count in the estimate of the time left


class JobProgress:
    """The progress callback of a job: writes the state, and raises `Cancelled` once `asked` is set."""

    def __init__(self, job: Job):
        self.job, self.asked, self._last = job, False, 0.0
        self._left, self._log = TimeLeft(), TerminalProgress()
        self._stage: str | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.asked:
            raise Cancelled
        now = time.monotonic()
        if self._last and now - self._last > PAUSED:
            self._left = TimeLeft()
        left = self._left(stage, done, total)
        self._log(stage, done, total)
        if now - self._last < EVERY and stage == self._stage:
            return
        if stage != self._stage:
            print(f"{stage} …", flush=True)
        self._last, self._stage = now, stage
        self.job.write(stage=stage, done=done, total=total, left=None if left is None else round(left, 1))


def run_job(job: Job) -> int:
    """Do a job's work in this process.

    Returns:
        The exit code: 0 finished, 1 failed or stopped, 3 another process is doing it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(job.folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return 3
    progress, started = JobProgress(job), time.monotonic()

    def ask(*_) -> None:
        progress.asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    with jobs_lock():  # held by who starts this, who then writes the state: a quick job would have ended by then
        job.write(state="running", pid=os.getpid(), identity=identity(os.getpid()))
    ended, code = {"state": "failed", "message": "Something went wrong here; the log says what."}, 1
    try:
        spec = job.spec
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {job.id} begins.", flush=True)
        WORK[spec["kind"]](job, spec["parameters"], progress)
        ended, code = {"state": "finished", "message": f"Finished in {format_seconds(time.monotonic() - started)}."}, 0
    except Cancelled:
        ended = {
            "state": "stopped",
            "message": f"Stopped; {job.after_resuming}.",
        }
    except UserError as reason:
        ended["message"] = _without_folders(job, str(reason))
    except OSError as reason:
        traceback.print_exc()
        if reason.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(job.folder).free / 2**20
            ended["message"] = f"The disk is full ({free:.0f} MB free): make room and resume; {job.after_resuming}."
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            print(ended["message"], flush=True)
        job.write(**ended, left=None, pid=None, ended=time.time())
        lock.release()
        start_next()
    return code


def _without_folders(job: Job, words: str) -> str:
    """A sentence that names no folder of this machine, where it is for an owner."""
    for folder in (job.folder / "data", cache_dir(), shipped("pretrained")) if job.spec.get("owner") else ():
        for path in (folder, folder.resolve()):
            words = words.replace(f"{path}{os.sep}", "")
    return words


def _train(job: Job, parameters: dict, progress: Progress) -> None:
    """Train a bundle, from the start or from its last checkpoint."""
    from d2nwg.generators import get_generator
    from d2nwg.training.loop import clear_checkpoints
    from d2nwg.training.run import train_bundle
    from d2nwg.training.settings import as_text
    from d2nwg.weights.open import open_zoo

    out = Path(parameters["out"])
    if (out / "model_index.json").is_file() and job.work.is_dir():  # killed after the bundle was complete
        clear_checkpoints(job.work)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    generator = get_generator(parameters["generator"])
    config = generator.config_class.from_config(parameters["config"])
    # The model card shows the command that makes the bundle.
    default = type(config)().to_config()
    settings = [
        f"--set {name}={as_text(value).replace(' ', '')}"
        for name, value in config.to_config().items()
        if value != default[name]
    ]
    zoos = shlex.join(Path(zoo).name for zoo in parameters["zoos"])
    command = f"python -m d2nwg train --zoo {zoos} --generator {generator.name}"
    train_bundle(
        [open_zoo(zoo) for zoo in parameters["zoos"]],
        config,
        out,
        resume=(job.work / "config.json").is_file(),
        device=parameters.get("device"),
        command=" ".join([command, *settings, f"--out {out.name}"]),
        progress=progress,
    )


def _zoo(job: Job, parameters: dict, progress: Progress) -> None:
    """Build a zoo of heads. An interrupted build begins again, with the features in the cache."""
    from d2nwg.encoders.images import load_encoder
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig

    out = Path(parameters["out"])
    own = job.folder / "data"
    if (out / "zoo.json").is_file():  # killed after the zoo was complete
        shutil.rmtree(own, ignore_errors=True)
        return
    sources = _images(job, parameters, progress)
    encoder = load_encoder(parameters["encoder"], parameters.get("device"))
    zoo = build_zoo(sources, encoder, ZooConfig(**parameters["config"]), out, progress=progress)
    print(json.dumps(zoo.summary(), indent=1), flush=True)
    shutil.rmtree(own, ignore_errors=True)  # the zoo holds their features


def _networks(job: Job, parameters: dict, progress: Progress) -> None:
    """Build a zoo of small networks, from the start or after the last group that was finished."""
    from d2nwg.data.arrays import load_arrays
    from d2nwg.weights.build_networks import NetworkZooConfig, build_networks

    config = NetworkZooConfig(**{**parameters["config"], "variants": tuple(parameters["config"]["variants"])})

    def make(out: Path, resume: bool) -> None:
        sets = [
            load_arrays(images, size=config.size, seed=config.seed, progress=progress)
            for images in _images(job, parameters, progress)
        ]
        build_networks(sets, config, out, resume=resume, device=parameters.get("device"), progress=progress)

    _checkpoints(job, make)


def _finetunes(job: Job, parameters: dict, progress: Progress) -> None:
    """Fine-tune adapters of a language model, from the start or after the last one that was finished."""
    from d2nwg.llm.adapter_zoo import LlmZooConfig, build_llm_adapters
    from d2nwg.llm.questions import load_questions
    from d2nwg.llm.refinement import questions_of

    config = LlmZooConfig.from_json(parameters["config"])

    def make(out: Path, resume: bool) -> None:
        build_llm_adapters(
            [load_questions(source) for source in parameters["data"]],
            config,
            out,
            select=questions_of(parameters.get("select", ())),
            resume=resume,
            device=parameters.get("device"),
            progress=progress,
        )

    _checkpoints(job, make)


def _checkpoints(job: Job, make: Callable[[Path, bool], None]) -> None:
    """Have a zoo of checkpoints made in the job's own folder and put it in its place; what made it is removed.

    Args:
        make: writes the zoo to a folder, from the start or (True) where it was interrupted.
    """
    from d2nwg.weights.model_zoo import ModelZoo

    made = job.work / "zoo"
    if not (job.out / "zoo.json").is_file():
        if not (made / "zoo.json").is_file():  # else killed before it was copied
            make(made, (job.building / "building.json").is_file())
        with whole_folder(job.out) as part:
            shutil.copytree(made, part, dirs_exist_ok=True)
    print(json.dumps(ModelZoo(job.out).summary(), indent=1), flush=True)
    for left in (job.work, job.folder / "data"):  # the zoo needs neither
        shutil.rmtree(left, ignore_errors=True)


def _images(job: Job, parameters: dict, progress: Progress) -> "list[ImageSet]":
    """The data sets of a zoo; those that are the job's own are unpacked in its folder."""
    from d2nwg.data.images import load_images

    own = job.folder / "data"
    return [
        load_images(source, into=own / "unpacked" if Path(source).is_relative_to(own) else None, progress=progress)
        for source in parameters["data"]
    ]


def _refine(job: Job, parameters: dict, progress: Progress) -> None:
    """Refine a language model, from the start or after its last decision."""
    from d2nwg.llm.presets import RefineConfig
    from d2nwg.llm.refinement import both_sets, decision_words, read_refined, refine_by

    config = RefineConfig.from_config(parameters["config"])

    def on_base(right: int, done: int, total: int) -> None:
        write_whole(job.folder / "base.json", json.dumps([right, done, total]))

    known = job.base()
    with contextlib.suppress(UserError):
        if not read_refined(job.out).cancelled:  # killed after it was complete
            return _only_result(job.out)
    made = refine_by(
        job.model,
        *both_sets(parameters["select"], parameters["report"], parameters.get("shots", 0), config.seed),
        config,
        zoo=parameters.get("zoo"),
        folder=job.out,
        resume=True,
        device=parameters.get("device"),
        progress=progress,
        on_event=lambda line: print(decision_words(line, config.criterion), flush=True),
        on_base=None if known and known[1] == known[2] else on_base,
    )
    if made.cancelled:
        raise Cancelled
    _only_result(job.out)


def _only_result(folder: Path) -> None:
    """Remove what only resuming a refinement needs: all but its report and log, and what it and the same search with
    noise have changed."""
    for path in folder.iterdir():
        if path.name in RESULT:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


WORK = {"train": _train, "zoo": _zoo, "networks": _networks, "finetunes": _finetunes, "refine": _refine}
