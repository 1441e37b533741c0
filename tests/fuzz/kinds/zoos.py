"""Zoos from strangers: ``zoo.json`` of any shape, members that are missing, truncated, links or of other shapes."""

import json
import shutil
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.forked import Ended
from tests.fuzz.hostile import damage_file, damaged_json, json_of, plain
from tests.fuzz.room import Room
from tests.fuzz.stock import FEW, Stock

PATHS = [
    "/etc/passwd",
    "../../canary/secret.safetensors",
    "models/../../../canary/secret.safetensors",
    "models/00000.safetensors\n",
    "models/٠.safetensors",
    "",
    ".",
    "zoo.json",
    "models",
    "models/99999.safetensors",
    "x\0y",
    "\ud800",
    "\x1b[31m",
    "a" * 5000,
    "../" * 9 + "x",
    "a/b/c.pt",
    "A.pt",
    "a.pt",
    "con.pt",
    "zoo.csv",
    "x" * 250 + ".pt",
    "a/../../b.pt",
    " .pt",
    "C:\\x.pt",
]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A copy of a zoo with something wrong, and a verb that reads it."""
    networks = rng.random() < 0.6
    zoo = stock.copy(stock.networks_zoo if networks else stock.heads_zoo, room.given)
    for _ in range(rng.choice((1, 1, 2, 3))):
        what = rng.randrange(4)
        files = [path for path in sorted(zoo.rglob("*")) if plain(path)]
        if what == 0 and files:
            damage_file(rng.choice(files), rng)
        elif what == 1 and networks and plain(zoo / "zoo.json"):
            info = _info(zoo)
            if records := [record for record in info.get("records", []) if isinstance(record, dict)]:
                rng.choice(records)[rng.choice(["file", "name", "name", "task", "architecture"])] = rng.choice(PATHS)
                (zoo / "zoo.json").write_text(json.dumps(info))
        elif plain(zoo / "zoo.json"):
            (zoo / "zoo.json").write_text(json.dumps(damaged_json(_info(zoo), rng)))
    out = room.out / "x"
    settings = [part for text in (*FEW, "checkpoint_every=1") for part in ("--set", text)]
    lines = [
        ["zoo", "info", zoo],
        ["zoo", "export", zoo, "--out", out, "--format", rng.choice(["pt", "safetensors"])],
        [
            "train",
            "--zoo",
            zoo,
            "--preset",
            "tiny",
            "--generator",
            "networks" if networks else "unet",
            *settings,
            "--out",
            out,
        ],
        ["train", "--zoo", zoo, zoo, "--preset", "tiny", "--out", out],
    ]
    if networks and rng.random() < 0.2:
        target = room.out / "zoo"
        shutil.copytree(zoo, target, symlinks=True, ignore=_special)
        line = ["zoo", "import", stock.checkpoints, "--append", "--out", target]
        was = _info(target)
        return Case([*map(str, line)], leaves="zoo", check=lambda ended: _kept(ended, was, target))
    line = rng.choice(lines)
    return Case([*map(str, line), "--device", "cpu"], leaves=r"x\.training")


def _special(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not Path(folder, name).is_file() and not Path(folder, name).is_dir()]


def _kept(ended: Ended, was: dict, zoo: Path) -> list[str]:
    """A refused addition leaves the zoo as it was."""
    return ["a refused addition changed the zoo"] if ended.code == 2 and _info(zoo) != was else []


def _info(zoo) -> dict:
    info = json_of(zoo / "zoo.json")
    return info if isinstance(info, dict) else {}
