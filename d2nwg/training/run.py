"""A zoo, or several, in; a bundle out."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from d2nwg.generators import Generator, for_zoo, generator_of, get_generator
from d2nwg.training.cards import model_card, networks_of
from d2nwg.training.config_base import Config
from d2nwg.training.loop import MetricsLog, Run, clear_checkpoints
from d2nwg.utils.devices import leave_group_at_exit, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import claimed, explained, new_folder, resolved
from d2nwg.utils.paths import read_json, write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown
from d2nwg.weights.info import HEADS, LANGUAGE_MODEL
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.zoo import Zoo

THERE = "exists already: choose another name for the bundle, or remove it"
FORMAT = 2  # of unfinished runs. 1: without a number, stages named by what a person read


def train_bundle(
    zoo: Zoo | ModelZoo | Sequence[Zoo | ModelZoo],
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    command: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Train a generator and write the bundle to ``out``.

    Until it is finished everything lies in ``out`` + ``.training``: the configuration, ``metrics.jsonl`` and a
    checkpoint a stage, from which ``resume=True`` goes on. A resumed run ends with the same bundle as an undisturbed
    one.

    Args:
        zoo: generators that learn from several take a list.
        config: its type says which generator (`d2nwg.generators`).
        command: the command line that makes this bundle, for its card.
    Raises:
        UserError: ``out`` exists or is being trained, or an unfinished run lies there and ``resume`` is False, or the
            reverse; the zoos do not suit the generator; there is no such device; or the disk is full.
    """
    zoos: list[Zoo | ModelZoo] = [zoo] if isinstance(zoo, (Zoo, ModelZoo)) else list(zoo)
    generator, device = generator_of(config), resolve_device(device)
    _check_zoos(zoos, generator)
    if ":" in device:  # accelerate takes the current one
        torch.cuda.set_device(device)
    named, out = Path(out), resolved(out)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.accumulate < 1 or getattr(config, "batch_size", 10**9) < config.accumulate * processes:
        raise UserError("A batch can be worked on in 1 part or more, of at least one record for each process.")
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=config.mixed_precision)
    leave_group_at_exit()
    with ExitStack() as held:
        work = out.with_name(out.name + ".training")
        config = _open_run(held, accelerator, out, work, zoos, config, resume)
        held.enter_context(explained(out, "make room and go on with --resume"))
        accelerator.gradient_accumulation_steps = config.accumulate  # a resumed run's own
        torch.manual_seed(config.seed)
        started = time.monotonic()
        log = MetricsLog(work / "metrics.jsonl", accelerator)
        try:
            pipe, measured = generator.part("trainer")(zoos, config, Run(work, accelerator, log, progress))
        except UserError:
            if accelerator.is_main_process and {path.name for path in work.iterdir()} <= {"config.json", log.path.name}:
                shutil.rmtree(work)  # refused before there was anything to go on with
            raise
        measured |= {"seconds": round(time.monotonic() - started)}
        log.rewind("finished", 0)  # of a run that was killed after it
        log(stage="finished", **measured)
        if accelerator.is_main_process:
            parts = networks_of(pipe)
            about = {
                "generator": generator.name,
                "config": config.to_config(),
                "zoos": [zoo.summary() for zoo in zoos],
                "measured": measured,
                "networks": parts,
            }
            card = model_card(out.name, generator, zoos, config, measured, parts, command)
            _write_bundle(pipe.to("cpu"), out, work, about, card)
        accelerator.wait_for_everyone()
    return named


def _check_zoos(zoos: list[Zoo | ModelZoo], generator: Generator) -> None:
    """Raises UserError if the generator cannot learn from these zoos."""
    for zoo in zoos:
        if isinstance(zoo, ModelZoo) and zoo.adapters and zoo.adapters.base == LANGUAGE_MODEL:
            raise UserError(
                f"{zoo.path} is a zoo of adapters of a language model, which no bundle is trained on: give one of "
                "`zoo build --adapter lora`."
            )
        if len(zoo) < (1 if generator.makes == "network" else 5):  # a fifth of the records scores what the others train
            raise UserError(f"The zoo {zoo.path} has only {len(zoo)} records: build one of thousands.")
        kind = zoo.kind if isinstance(zoo, ModelZoo) else HEADS
        if kind not in generator.zoo:
            others = " or ".join(other.name for other in for_zoo(kind))
            raise UserError(f"{zoo.path} is a zoo of {kind}: train on it with --generator {others}.")
    if len(zoos) > 1 and not generator.several_zoos:
        several = " or ".join(other.name for other in for_zoo("heads") if other.several_zoos)
        raise UserError(f"This generator is trained on one zoo: give one, or choose --generator {several}.")


def _open_run(held: ExitStack, accelerator: Accelerator, out, work, zoos, config, resume):
    """`_open_files` in the first of several processes, which holds the bundle from now on; all of them get its answer,
    or its refusal."""
    answer: list = [None]
    if accelerator.is_main_process:
        try:
            held.enter_context(claimed(out, there=THERE))
            answer = [_open_files(work, zoos, config, resume)]
        except UserError as reason:
            answer = [reason]
    if accelerator.num_processes > 1:
        answer = broadcast_object_list(answer)
    if isinstance(answer[0], UserError):
        raise answer[0]
    return answer[0]


def _open_files(work: Path, zoos: list, config: Config, resume: bool) -> Config:
    saved, paths = work / "config.json", [str(zoo.path.resolve()) for zoo in zoos]
    if saved.exists():
        if not resume:
            raise UserError(f"An unfinished run lies in {work}: go on with --resume, or remove that folder.")
        return _begun(read_json(saved), work, paths, type(config))
    if resume:
        raise UserError(f"There is no unfinished run in {work} to resume: leave out --resume to start one.")
    if work.exists() and not (work.is_dir() and all(path.name.startswith(".") for path in work.iterdir())):
        raise UserError(f"{work} is there and no unfinished run: choose another name for the bundle, or remove it.")
    work.mkdir(exist_ok=True)
    about = {"format": FORMAT, "zoos": paths, "generator": generator_of(config).name, "config": config.to_config()}
    try:
        write_whole(saved, json.dumps(about, indent=1))
    except OSError:
        with suppress(OSError):
            work.rmdir()
        raise
    return config


def _begun(run: Any, work: Path, paths: list[str], kind: type[Config]) -> Config:
    """The configuration that an unfinished run began with, from its ``config.json``."""
    anew = "remove that folder and train anew"
    if isinstance(run, dict) and run.get("format") != FORMAT:
        raise UserError(f"The unfinished run in {work} was begun by another version: {anew}.")
    zoos = run.get("zoos") if isinstance(run, dict) else None
    if not isinstance(zoos, list) or not all(isinstance(zoo, str) for zoo in zoos):
        raise UserError(f"The unfinished run in {work} is damaged at its config.json: {anew}.")
    if zoos != paths:
        raise UserError(f"The run in {work} was started on the zoo {shown(' '.join(zoos), 500)}: use that one.")
    generator = get_generator(run["generator"]) if isinstance(run.get("generator"), str) else None
    if generator is None or generator.config_class is not kind:
        raise UserError(f"The run in {work} is of another generator: continue it with that one, or {anew}.")
    return kind.from_config(run.get("config"))


def _write_bundle(pipe, out: Path, work: Path, about: dict, card: str) -> None:
    with new_folder(out) as part:
        pipe.save_pretrained(part)
        shutil.copy(work / "metrics.jsonl", part / "metrics.jsonl")
        (part / "training.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        (part / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
    clear_checkpoints(work)
