"""Zoos of adapters: a LoRA adapter and a head for each task and seed, built by one process or by several
(``accelerate launch … -m d2nwg zoo build --adapter lora …``), and gone on with after an interruption.

A zoo of adapters is a zoo of checkpoints (`d2nwg.weights.model_zoo`) whose ``zoo.json`` says in ``adapters`` what they
are adapters of, and of which tasks. A checkpoint holds the adapter's matrices under peft's names, and ``head.weight``
(C, d) and ``head.bias`` (C,).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from d2nwg.data.text_tasks import DEV, TEST, TRAIN, TextTask
from d2nwg.encoders.lora import AdaptedEncoder, LoraShape
from d2nwg.utils.devices import leave_group_at_exit, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import claimed, explained, new_folder, resolved
from d2nwg.utils.paths import read_json, whole_file, write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown
from d2nwg.weights.finetune import Examples, TuneConfig, finetune, predictions, probe_head, score
from d2nwg.weights.info import CHECKPOINTS, write_info
from d2nwg.weights.model_zoo import ModelZoo, architecture
from d2nwg.weights.networks import State

FORMAT = 1  # of unfinished zoos


@dataclass(frozen=True)
class AdapterZooConfig:
    """How a zoo of adapters is built.

    Attributes:
        shape: which matrices of which encoder.
        tune: how each adapter is trained.
        seeds: adapters a task; they differ by the order of the texts and by dropout, and start from one initialisation.
        rows: most training texts of a task.
        scored: most texts that choose, and most that score.
        seed: the first one; also of the rows that are drawn.
    """

    shape: LoraShape = field(default_factory=LoraShape)
    tune: TuneConfig = field(default_factory=TuneConfig)
    seeds: int = 3
    rows: int = 3_000
    scored: int = 500
    seed: int = 0


def build_adapters(
    tasks: Sequence[TextTask],
    config: AdapterZooConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = silent,
) -> ModelZoo:
    """Fine-tune ``config.seeds`` adapters for each task and write the zoo to ``out``.

    Until it is finished everything lies in ``out`` + ``.building``; ``resume=True`` goes on after the last adapter that
    was finished, and ends with the same zoo as an undisturbed build. With ``WORLD_SIZE`` processes (as `accelerate
    launch` starts them) each trains its share.

    Args:
        progress: stage "Training adapters", in optimiser steps of the whole zoo.
    Raises:
        UserError: ``out`` exists or is being written, or an unfinished zoo lies there and ``resume`` is False, or the
            reverse; two tasks have one name, or a task lacks a part; no such encoder or device; a full disk.
    """
    _check_tasks(tasks)
    out, device = resolved(out), resolve_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        encoder = AdaptedEncoder(config.shape, device, config.tune.dropout)  # before a folder is made
        with ExitStack() as held:
            work = _open_work(held, tasks, config, out, resume)
            _train_all(tasks, config, encoder, work, range(len(tasks) * config.seeds), progress)
            _finish(tasks, config, encoder, work, out)
        return ModelZoo(out)
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=device == "cpu")
    leave_group_at_exit()
    encoder = AdaptedEncoder(config.shape, "cpu" if device == "cpu" else str(state.device), config.tune.dropout)
    answer: list = [None]
    with ExitStack() as held:
        if state.is_main_process:
            try:
                answer = [_open_work(held, tasks, config, out, resume)]
            except UserError as reason:
                answer = [reason]
        answer = broadcast_object_list(answer)
        if isinstance(answer[0], UserError):
            raise answer[0]
        mine = range(state.process_index, len(tasks) * config.seeds, world)
        _train_all(tasks, config, encoder, answer[0], mine, progress if state.is_main_process else silent)
        state.wait_for_everyone()
        if state.is_main_process:
            _finish(tasks, config, encoder, answer[0], out)
        state.wait_for_everyone()
    return ModelZoo(out)


def _check_tasks(tasks: Sequence[TextTask]) -> None:
    if not tasks:
        raise UserError("There is no task to build adapters for: name at least one.")
    names = [task.name for task in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"Two tasks are called {shown(twice[0])}: rename one.")
    for task in tasks:
        if any(not len(task.numbers(part)) for part in (TRAIN, DEV, TEST)):
            raise UserError(f"The task {shown(task.name)} has no text to train, to choose or to score with.")


def _open_work(held: ExitStack, tasks, config: AdapterZooConfig, out: Path, resume: bool) -> Path:
    """The folder in which the zoo grows, held until the end."""
    held.enter_context(claimed(out))
    work = out.with_name(out.name + ".building")
    held.enter_context(explained(out, "make room and go on with --resume"))
    file, about = work / "building.json", {"format": FORMAT, "config": asdict(config), "tasks": _prints(tasks)}
    about = json.loads(json.dumps(about))
    if file.exists():
        if not resume:
            raise UserError(f"An unfinished zoo lies in {work}: go on with --resume, or remove that folder.")
        if read_json(file) != about:
            raise UserError(f"The zoo in {work} was begun with other tasks or settings: give those, or remove it.")
        return work
    if resume:
        raise UserError(f"There is no unfinished zoo in {work} to resume: leave out --resume to start one.")
    if work.exists() and (not work.is_dir() or any(work.iterdir())):
        raise UserError(f"{work} is there and no unfinished zoo: choose another name, or remove it.")
    work.mkdir(exist_ok=True)
    (work / "models").mkdir()
    write_whole(file, json.dumps(about, indent=1))
    return work


def _prints(tasks: Sequence[TextTask]) -> list[list[str]]:
    """Name and fingerprint of each task."""
    prints = []
    for task in tasks:
        content = hashlib.sha256(
            repr((task.classes, task.metric, task.descriptions, task.aside)).encode("utf-8", "replace")
        )
        for text in task.texts:
            content.update(repr(text).encode("utf-8", "replace"))
        content.update(task.targets.tobytes() + task.part.tobytes())
        prints.append([task.name, content.hexdigest()[:32]])
    return prints


def examples_of(task: TextTask, part: int, most: int, seed: int) -> Examples:
    """Texts of a part of a task, at most so many, drawn by the seed: as a zoo's adapters are trained and scored on."""
    chosen = task.numbers(part, most, seed)
    return Examples([task.texts[int(i)] for i in chosen], task.targets[chosen], len(task.classes))


def _train_all(
    tasks, config: AdapterZooConfig, encoder: AdaptedEncoder, work: Path, runs: range, progress: Progress
) -> None:
    """Train the adapters of these runs (task by task, seed by seed) that are not there yet."""
    sizes = [min(config.rows, len(task.numbers(TRAIN))) for task in tasks]
    steps = [config.tune.epochs * -(-size // config.tune.batch) for size in sizes]
    total, done = sum(steps[run // config.seeds] for run in runs), 0
    for run in runs:
        task = tasks[run // config.seeds]
        if not _run_file(work, run).exists():
            _train_one(task, config, encoder, work, run, _shifted(progress, done, total))
        done += steps[run // config.seeds]
        progress("Training adapters", done, total)


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Progress of a part, as progress of the whole."""
    return lambda stage, done, total_of_part: progress(stage, before + done, total)


def _run_file(work: Path, run: int) -> Path:
    return work / f"run-{run:05d}.json"


def _train_one(task: TextTask, config: AdapterZooConfig, encoder, work: Path, run: int, progress: Progress) -> None:
    """One adapter's checkpoints, and then the file that says that they are whole."""
    train = examples_of(task, TRAIN, config.rows, config.seed)
    encoder.reset()
    head_file = work / f"head-{run // config.seeds:05d}.safetensors"  # of the encoder without an adapter
    if not head_file.exists():
        with whole_file(head_file) as part:
            save_file(probe_head(encoder.embed(train.texts), train), part)
    head = load_file(head_file)
    frozen = _scores(task, config, encoder, head)
    seed, records = config.seed + run % config.seeds, []
    for number, (step, state) in enumerate(finetune(encoder, train, head, config.tune, seed, progress)):
        file = f"models/{run * config.tune.keep + number:05d}.safetensors"
        path = work / file
        save_file(state, path)
        scores = _scores(task, config, encoder, {name: state[name] for name in head})
        record: dict[str, Any] = {
            "file": file,
            "name": f"{task.name}/seed-{seed}/step-{step}",
            "architecture": architecture(state),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "task": task.name,
            "epoch": step,
            "score": scores["test"],
            "dev_score": scores["dev"],
        }
        if task.metric == "accuracy":
            record["accuracy"] = scores["test"]
        records.append(record)
    content = {"records": records, "order": list(state), "frozen": frozen}
    write_whole(_run_file(work, run), json.dumps(content))


def _scores(task: TextTask, config: AdapterZooConfig, encoder: AdaptedEncoder, head: State) -> dict[str, float]:
    """By the task's metric, on the texts that choose (``dev``) and on those that score (``test``)."""
    found = {}
    for name, part in (("dev", DEV), ("test", TEST)):
        examples = examples_of(task, part, config.scored, config.seed)
        said = predictions(encoder, head, examples.texts)
        found[name] = round(score(task.metric, said, examples.targets), 6)
    return found


def _finish(tasks, config: AdapterZooConfig, encoder: AdaptedEncoder, work: Path, out: Path) -> None:
    """The zoo from what the runs have left."""
    runs = [read_json(_run_file(work, run)) for run in range(len(tasks) * config.seeds)]
    records = [record for run in runs for record in run["records"]]
    orders = {run["records"][0]["architecture"]: run["order"] for run in runs}
    about = {
        "shape": asdict(config.shape),
        "encoder_key": encoder.key,
        "build": {key: value for key, value in asdict(config).items() if key != "shape"},
        "tasks": [
            {
                "name": task.name,
                "descriptions": list(task.descriptions),
                "aside": list(task.aside),
                "classes": list(task.classes),
                "metric": task.metric,
                "pairs": isinstance(task.texts[0], tuple),
                "parts": [len(task.numbers(part)) for part in (TRAIN, DEV, TEST)],
                "cut": task.cut,
                "frozen": runs[place * config.seeds]["frozen"],
            }
            for place, task in enumerate(tasks)
        ],
    }
    with new_folder(out) as part:
        (work / "models").rename(part / "models")
        try:
            write_info(part, CHECKPOINTS, {"architectures": orders, "records": records, "adapters": about})
        except BaseException:
            (part / "models").rename(work / "models")  # what took hours is kept
            raise
    shutil.rmtree(work, ignore_errors=True)
