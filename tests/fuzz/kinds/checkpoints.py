"""Checkpoint files and folders of them: containers of any shape, headers that lie, shards, code, special files."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save as safetensors_bytes

from tests.fuzz.case import Case
from tests.fuzz.hostile import damage_file, damaged_json, damaged_text, plain, special
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock

NAMES = [
    "w",
    "module.w",
    "",
    "x" * 5000,
    "\ud800",
    "\x1b[31m",
    "a/b",
    "=1+1",
    "layer.0.weight",
    "running_var",
    "\0",
    "é",
    "e\u0301",
]
SUFFIXES = [".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors", ".PT"]


class Attack:
    """A pickle that runs code when it is opened as pickles are."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch '{self.target}'",)


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A folder of checkpoints, some hostile, to import."""
    folder = room.given / "checkpoints"
    shutil.copytree(stock.checkpoints, folder)
    for number in range(rng.choice((1, 1, 2, 4))):
        _hostile(folder, number, rng, room)
    if rng.random() < 0.3:
        damage_file(rng.choice([p for p in sorted(folder.rglob("*")) if plain(p)]), rng)
    line = ["zoo", "import", folder]
    if rng.random() < 0.2:
        line = ["zoo", "import", *rng.sample([path for path in sorted(folder.iterdir()) if not path.is_symlink()], 2)]
    if rng.random() < 0.2:
        table = room.given / rng.choice(["t.csv", "t.jsonl"])
        table.write_bytes(_table(rng, table.suffix))
        line += ["--table", table]
    line += rng.choice([["--preview"], ["--out", room.out / "x"]])
    return Case([*map(str, line)], check=lambda ended: _account(ended.out, ended.code))


def _account(out: str, code: int) -> list[str]:
    """The numbers of files in the closing sentence add up."""
    if code:
        return []
    import re

    said = re.search(r"^([\d,]+) files?: (.*)\.$", out, re.MULTILINE)
    if not said:
        return ["no account of the files"]
    parts = [re.match(r"([\d,]+) ", part) for part in re.sub(r"\(.*\)", "", said[2]).split(", ")]
    total = sum(int(part[1].replace(",", "")) for part in parts if part)
    return [] if total == int(said[1].replace(",", "")) else [f"the account does not add up: {said[0]}"]


def _hostile(folder: Path, number: int, rng: Random, room: Room) -> None:
    path = folder / f"hostile-{number}{rng.choice(SUFFIXES)}"
    what = rng.randrange(10)
    if what == 0:
        special(path, rng)
    elif what == 1:
        path.write_bytes(_pickle(Attack(room.canary / "PWNED"), rng))
    elif what == 2:
        path.write_bytes(_header(rng))
    elif what == 3:
        _shards(folder / f"sharded-{number}", rng)
    elif what == 4:
        (folder / "deep" / "er").mkdir(parents=True, exist_ok=True)
        path = folder / "deep" / "er" / path.name
        path.write_bytes(_saved(_content(rng), path.suffix))
    elif what == 5:
        text = rng.choice(
            [
                b"version https://git-lfs.github.com/spec/v1\n",
                b"PK\3\4",
                b"\x80\2",
                b"\x80\x8a\nl\xfc",
                b"",
                b"\0" * 512,
            ]
        )
        path.write_bytes(text)
    else:
        path.write_bytes(_saved(_content(rng), path.suffix))


def _tensor(rng: Random) -> torch.Tensor:
    kinds = [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
    ]
    kinds += [torch.float8_e4m3fn, torch.uint16, torch.float32, torch.float32]
    shape = rng.choice([(), (0,), (3,), (2, 3), (1,) * 20, (0, 2**31), (4, 0, 5), (1000,)])
    made = torch.zeros(shape).to(rng.choice(kinds))
    what = rng.randrange(9)
    if what == 0:
        made = torch.full((3,), rng.choice([float("nan"), float("inf"), 1e30]))
    elif what == 1:
        made = torch.zeros(1).expand(rng.choice([10, 10**9]))
    elif what == 2:
        made = torch.eye(3).to_sparse()
    elif what == 3:
        made = (
            torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
            if rng.random() < 0.5
            else torch.empty(3, device="meta")
        )
    elif what == 4:
        made = torch.nn.Parameter(torch.ones(2, 2).T)
    return made


def _content(rng: Random, depth: int = 0) -> object:
    """What a script could have saved."""
    what = rng.randrange(12)
    state = {rng.choice(NAMES) + str(i): _tensor(rng) for i in range(rng.randrange(4))}
    if what < 4 or depth > 3:
        return state
    if what == 4:
        return {
            "state_dict": _content(rng, depth + 1),
            "epoch": rng.choice([3, -1, 10**30, float("nan"), "x", None, torch.ones(1), torch.ones(2)]),
        }
    if what == 5:
        inner = {"w": torch.ones(2)}
        for _ in range(rng.choice((5, 40, 300))):
            inner = {"a": inner, "b": inner, "c": 1}
        return inner
    if what == 6:
        loop: dict = {"x": state}
        loop["state_dict"] = loop
        return loop
    if what == 7:
        return {
            "model": state,
            "ema": _content(rng, depth + 1),
            "accuracy": rng.choice([0.5, 55, -1, 10**400, float("nan"), "high", [1], torch.zeros(0)]),
        }
    if what == 8:
        return {rng.choice([0, None, 1.5, (1, 2), b"x", True]): _content(rng, depth + 1), **state}
    if what == 9:
        return rng.choice([None, 5, "text", [1, 2], torch.ones(3), [state, state], (state,), b"bytes", {1, 2}])
    if what == 10:
        return {"state": {0: {"step": 1, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]}
    return {"task": rng.choice(["x", "\x1b[31m", "\ud800", "x" * 10**5, 5, ["x"]]), "state_dict": state, "acc": True}


def _saved(content: object, suffix: str) -> bytes:
    if suffix == ".safetensors":
        flat = (
            {
                n.encode("utf-8", "replace").decode(): t
                for n, t in content.items()
                if isinstance(n, str) and isinstance(t, torch.Tensor)
            }
            if (isinstance(content, dict))
            else {}
        )
        try:
            return safetensors_bytes({name: tensor.contiguous().clone() for name, tensor in flat.items()}, {"x": "y"})
        except Exception:  # what the format cannot hold
            return safetensors_bytes({"w": torch.ones(2)})
    data = io.BytesIO()
    try:
        torch.save(content, data)
    except Exception:
        torch.save({"w": torch.ones(2)}, data)
    return data.getvalue()


def _pickle(attack: object, rng: Random) -> bytes:
    what = rng.randrange(3)
    if what == 0:
        return pickle.dumps({"state_dict": attack}, protocol=rng.choice([0, 2, 5]))
    data = io.BytesIO()
    torch.save({"w": torch.ones(2), "x": attack}, data, _use_new_zipfile_serialization=what == 1)
    return data.getvalue()


def _header(rng: Random) -> bytes:
    """A safetensors file whose header lies."""
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = {"w": one, "b": {"dtype": "F16", "shape": [1], "data_offsets": [8, 10]}, "__metadata__": {"format": "pt"}}
    lies = [
        {"shape": [2**62]},
        {"shape": [-1]},
        {"shape": [1] * 70},
        {"shape": [2**31, 2**31, 2**31]},
        {"dtype": "F8_E4M3", "shape": [8]},
        {"dtype": "F4", "shape": [16]},
        {"dtype": "C64", "shape": [1]},
        {"data_offsets": [0, 2**60]},
        {"data_offsets": [8, 0]},
        {"shape": [0, 2**62, 4], "data_offsets": [0, 0]},
    ]
    header["w"] = {**one, **rng.choice(lies)} if rng.random() < 0.6 else one
    text = json.dumps(damaged_json(header, rng) if rng.random() < 0.5 else header)
    raw = damaged_text(text, rng) if rng.random() < 0.2 else text.encode()
    length = len(raw) if rng.random() < 0.8 else rng.choice([0, 2**63, 2**40, len(raw) - 1, len(raw) + 100])
    return length.to_bytes(8, "little") + raw + bytes(rng.choice([10, 8, 0, 100]))


def _shards(folder: Path, rng: Random) -> None:
    """A folder as `save_pretrained` writes it, in shards, with something wrong."""
    if folder.exists():
        return
    folder.mkdir()
    suffix = rng.choice([".safetensors", ".bin"])
    stem = {".safetensors": "model", ".bin": "pytorch_model"}[suffix]
    index = {}
    for number in range(1, 4):
        name = f"{stem}-0000{number}-of-00003{suffix}"
        state = {f"layer.{number}.weight": torch.full((2,), float(number))}
        index |= dict.fromkeys(state, name)
        if rng.random() < 0.9:
            (folder / name).write_bytes(_saved(state, suffix))
    if rng.random() < 0.7:
        whole = {"metadata": {"total_size": 24}, "weight_map": index}
        if rng.random() < 0.3:
            whole["weight_map"]["extra"] = rng.choice(
                ["../x.bin", "/etc/passwd", "../../canary/secret.safetensors", "gone.bin", f"{stem}{suffix}.index.json"]
            )
        text = json.dumps(damaged_json(whole, rng) if rng.random() < 0.4 else whole)
        raw = damaged_text(text, rng) if rng.random() < 0.15 else text.encode()
        (folder / f"{stem}{suffix}.index.json").write_bytes(raw)
    if rng.random() < 0.7:
        (folder / "config.json").write_text(rng.choice(["{}", "", "[", '{"auto_map": {"AutoModel": "evil.X"}}']))
    if rng.random() < 0.3:
        (folder / "adapter_model.safetensors").write_bytes(_saved({"lora": torch.ones(2)}, ".safetensors"))
        (folder / "adapter_config.json").write_text("{}")


def _table(rng: Random, suffix: str) -> bytes:
    """A table of the checkpoints, with something wrong."""
    rows = [{"file": f"small-{n}.pt", "task": "x", "accuracy": 0.5, "epoch": n} for n in range(3)]
    rows = damaged_json(rows, rng)
    if suffix == ".jsonl":
        text = "\n".join(json.dumps(row) for row in rows) if isinstance(rows, list) else json.dumps(rows)
    else:
        rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        head = list(dict.fromkeys(key for row in rows for key in row))
        text = "\n".join(
            ",".join(map(str, line)) for line in [head, *([row.get(key, "") for key in head] for row in rows)]
        )
    return damaged_text(text, rng) if rng.random() < 0.3 else text.encode("utf-8", "surrogatepass")
