"""What unfinished runs and jobs left on disk, damaged: taken up again, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.hostile import damage_file, damaged_json
from tests.fuzz.room import Room
from tests.fuzz.stock import FEW, Stock


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """An unfinished training or refinement, or a job, with something wrong."""
    return rng.choice([_training, _training, _refining, _job])(rng, room, stock)


def _training(rng: Random, room: Room, stock: Stock) -> Case:
    settings = [part for text in FEW for part in ("--set", text)]
    line = [
        "train",
        "--zoo",
        stock.heads_zoo,
        "--generator",
        "unet",
        "--preset",
        "tiny",
        *settings,
        "--out",
        room.out / "x",
        "--device",
        "cpu",
    ]
    work = room.out / "x.training"
    shutil.copytree(stock.unfinished_training, work)
    _damage(work, rng)
    return Case([*map(str, line), "--resume"], leaves=r"x\.training")


def _refining(rng: Random, room: Room, stock: Stock) -> Case:
    work = room.out / "x.refining"
    shutil.copytree(stock.unfinished_refinement, work)
    _damage(work, rng)
    line = [
        "llm",
        "refine",
        stock.llm,
        "--select",
        stock.questions / "select.jsonl",
        "--report",
        stock.questions / "report.jsonl",
        "--preset",
        "tiny",
        "--layers",
        1,
        "--candidates",
        1,
        "--device",
        "cpu",
        "--resume",
        "--out",
        room.out / "x",
    ]
    return Case([*map(str, line)], leaves=r"x\.refining")


def _job(rng: Random, room: Room, stock: Stock) -> Case:
    folder = room.cache / "jobs" / "train-mine"
    folder.mkdir(parents=True)
    parameters = {
        "zoos": [str(stock.heads_zoo)],
        "generator": "unet",
        "config": {},
        "device": "cpu",
        "out": str(room.out / "x"),
    }
    spec = {"format": 1, "kind": "train", "name": "mine", "created": 1.5, "parameters": parameters}
    state = {
        "state": rng.choice(["stopped", "finished", "failed", "interrupted", "running", "paused"]),
        "pid": rng.choice([None, 1, -1, 2**40]),
        "message": "m",
    }
    wrong: Callable = damaged_json if rng.random() < 0.8 else lambda value, _: value
    (folder / "job.json").write_text(json.dumps(wrong(spec, rng)))
    (folder / "state.json").write_text(json.dumps(damaged_json(state, rng)))
    (folder / "log.txt").write_text("\x1b[31mlog\n" if rng.random() < 0.3 else "log\n")
    if rng.random() < 0.3:
        damage_file(rng.choice([folder / "job.json", folder / "state.json"]), rng, links=False)
    action = rng.choice(
        [
            ["list"],
            ["show", "train-mine"],
            ["show", "mine"],
            ["stop", "train-mine"],
            ["delete", "train-mine"],
            ["pause", "mine"],
        ]
    )
    return Case(["jobs", *action])


def _damage(work: Path, rng: Random) -> None:
    files = [path for path in sorted(work.rglob("*")) if path.is_file()]
    for _ in range(rng.choice((0, 1, 1, 2))):
        path = rng.choice(files)
        if path.is_file():
            damage_file(path, rng, links=False)
