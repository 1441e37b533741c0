"""Tasks, zoos and bundles of adapters, and adapters, from strangers; and descriptions and labels of any shape."""

import json
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.forked import Limits
from tests.fuzz.hostile import TEXTS, damage_file, damaged_json, damaged_text, json_of, plain
from tests.fuzz.room import Room
from tests.fuzz.stock import FEW_ADAPTERS, Stock

LIMITS = Limits(cpu=60)
LABELS = [
    None,
    "yes, no",
    "no",
    "no, no",
    ", ".join(map(str, range(3000))),
    "x" * 600 + ", y",
    "😀, 😐",
    "a\nb",
    "=1, +2",
]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """One of them with something wrong, and a verb that reads it."""
    makers = [_task, _zoo, _language_model_zoo, _bundle, _bundle, _described, _adapter]
    return rng.choice(makers)(rng, room, stock)


def _task(rng: Random, room: Room, stock: Stock) -> Case:
    task = stock.copy(stock.text_task, room.given)
    about = room.given / "about.json"
    content = {"tone": {"descriptions": ["Good?"], "aside": ["Fine?"], "labels": ["no", "yes"], "metric": "matthews"}}
    about.write_text(json.dumps(damaged_json(content, rng) if rng.random() < 0.5 else content))
    for _ in range(rng.choice((0, 1, 1, 2))):
        files = [path for path in sorted(task.iterdir()) if plain(path)]
        if files and rng.random() < 0.5:
            damage_file(rng.choice(files), rng)
        elif plain(task / "task.json"):
            known = json.loads((stock.text_task / "task.json").read_text())
            (task / "task.json").write_bytes(damaged_text(json.dumps(damaged_json(known, rng)), rng))
    line = ["zoo", "build", task, "--adapter", "lora", "--base", stock.text_encoder, "--epochs", 1, "--rows", 16]
    line += ["--seeds", 1, "--keep", 1, "--rank", rng.choice([1, 2, 10**9]), *rng.choice([[], ["--about", about]])]
    line += rng.choice([[], [], ["--targets", "query"], ["--targets", rng.choice(TEXTS) or "x"], ["--resume"]])
    return _case([*line, "--out", room.out / "x"], leaves="x.building")


def _zoo(rng: Random, room: Room, stock: Stock) -> Case:
    zoo = stock.copy(stock.adapters_zoo, room.given)
    damage(zoo, rng)
    settings = [part for text in FEW_ADAPTERS for part in ("--set", text)]
    out = ["--out", room.out / "x"]
    lines = [
        ["zoo", "info", zoo],
        ["zoo", "export", zoo, *out],
        ["train", "--zoo", zoo, "--preset", "tiny", *settings, *out],
        ["train", "--zoo", zoo, "--preset", "tiny", "--held-out", rng.choice(TEXTS) or "x", *settings, *out],
    ]
    return _case(rng.choice(lines), leaves="x.training")


def _language_model_zoo(rng: Random, room: Room, stock: Stock) -> Case:
    zoo = stock.copy(stock.llm_zoo, room.given)
    damage(zoo, rng)
    sets = ["--select", stock.questions / "select.jsonl", "--report", stock.questions / "report.jsonl"]
    few = ["--preset", "tiny", "--candidates", 2, "--out", room.out / "x"]
    return _case(["llm", "refine", stock.llm, "--zoo", zoo, *sets, *few], leaves="x.refining")


def _bundle(rng: Random, room: Room, stock: Stock) -> Case:
    bundle = stock.copy(stock.adapters, room.given)
    damage(bundle, rng)
    line = ["generate", "--describe", "Is it good?", "--bundle", bundle, "--num-samples", 2, "--out", room.out / "x"]
    return _case(line)


def _described(rng: Random, room: Room, stock: Stock) -> Case:
    labels = rng.choice(LABELS)
    text = rng.choice([*TEXTS, "Is it good? " * rng.choice([1, 400, 5000])]).replace("\0", " ")
    line = ["generate", "--describe", text, "--bundle", stock.adapters, "--out", room.out / "x"]
    line += [] if labels is None else ["--labels", labels]
    return _case([*line, "--num-samples", rng.choice([1, 2, 10**9]), "--steps", rng.choice([1, 3, 10**6])])


def _adapter(rng: Random, room: Room, stock: Stock) -> Case:
    adapter = stock.copy(stock.adapter, room.given)
    damage(adapter, rng)
    lines = [["predict", adapter, "--text", rng.choice(TEXTS).replace("\0", " ") or "x", "good"]]
    lines += [["evaluate", adapter, stock.text_task / "test.jsonl"]]
    return _case(rng.choice(lines))


def damage(folder: Path, rng: Random) -> None:
    """Damage a file or two of a folder, most often a value in its JSON."""
    for _ in range(rng.choice((1, 1, 2))):
        files = [path for path in sorted(folder.rglob("*")) if plain(path)]
        inside = [path for path in files if path.suffix == ".json"] if rng.random() < 0.8 else files
        if not inside:
            return
        path = rng.choice(inside)
        known = json_of(path) if path.suffix == ".json" and rng.random() < 0.8 else None
        if known is None:
            damage_file(path, rng)
        else:
            path.write_text(json.dumps(damaged_json(known, rng)))


def _case(line: list, leaves: str = "(?!)") -> Case:
    return Case([*map(str, line), "--device", "cpu"], limits=LIMITS, leaves=leaves)
