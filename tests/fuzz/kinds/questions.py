"""Questions and tables of any shape."""

import gzip
import json
import os
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.hostile import damaged_bytes, damaged_json, damaged_text, special
from tests.fuzz.room import Room
from tests.fuzz.stock import TOPICS, Stock

ODD = [
    {"question": "x" * 10**5, "choices": ["a", "b"], "answer": 0},
    {"question": "\x1b[31m", "choices": ["\x1b[0m", "=1"], "answer": 1},
    {"question": "?", "choices": [f"c{n}" for n in range(64)], "answer": 63},
    {"question": "?", "choices": ["a", "a", "b"], "answer": 2},
    {"question": "?", "choices": ["\u200b", "b"], "answer": 0},
    {"question": "\0", "choices": ["\0", "b"], "answer": 0},
    {"question": "?", "choices": [" ", "b"], "answer": 0},
    {"contexts": ["a", "b"], "continuation": "c", "answer": 0},
    {"contexts": ["", "  "], "continuation": "c", "answer": 1},
    {"contexts": ["\n", "x"], "continuation": " ", "answer": 0},
    {"question": "?", "choices": ["a", "b"], "contexts": ["a", "b"], "answer": 0},
    {"question": "?", "choices": ["y" * 10**4, "b"], "answer": 1},
    {"question": "<|im_end|>", "choices": ["<|im_start|>", "<|endoftext|>"], "answer": 1},
    {"question": "👾" * 300, "choices": ["é", "e\u0301"], "answer": 0},
    5,
    [],
    None,
    "x",
]


PARTS = ["train=2", "report", "train=1", "x=0", "a=999999999", "a=1000000000", "../x", "a=-1", "=", "é=1", "A", "a"]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A file of questions with something wrong, to score a model on."""
    path = _file(rng, room)
    line = ["llm", "evaluate", stock.llm, path, *rng.choice([[], ["--out", room.out / "x.json"]])]
    if rng.random() < 0.15:
        line = [
            "llm",
            "refine",
            stock.llm,
            "--select",
            path,
            "--report",
            stock.questions / "report.jsonl",
            "--preset",
            "tiny",
            "--layers",
            1,
            "--candidates",
            1,
            "--out",
            room.out / "x",
        ]
    line += rng.choice([[], ["--shots", rng.choice([1, 2, 100])], ["--shots", 1, "--shots-from", _file(rng, room)]])
    return Case([*map(str, line), "--device", "cpu"], leaves=r"x\.refining")


def make_split(rng: Random, room: Room, stock: Stock) -> Case:
    """Such a file to be cut into parts, or for adapters to learn from."""
    path, other = _file(rng, room), stock.questions / "select.jsonl"
    line = ["llm", "split", path, *rng.choice([[], [other], [other, other]])]
    line += rng.choice([[], [], ["--parts", "b", "a=1"], ["--parts", *rng.choices(PARTS, k=rng.randrange(1, 4))]])
    if rng.random() < 0.3:
        line = ["zoo", "build", path, "--llm", stock.llm, "--epochs", 1, "--seeds", 1, "--keep", 1, "--rows", 8]
        line += rng.choice([[], ["--select", other], ["--select", path], ["--max-tokens", 1], ["--lr", 1e30]])
        line += ["--rank", rng.choice([1, 2, 10**9])]
    return Case([*map(str, line), "--out", str(room.out / "x"), "--device", "cpu"], leaves=r"x\.building")


def _file(rng: Random, room: Room) -> Path:
    """A file of questions with something wrong."""
    rows: list = [
        {"question": f"Is it {topic}", "choices": ["yes", "no", topic], "answer": number % 3}
        for number, topic in enumerate(TOPICS[: rng.choice((1, 3, 10))])
    ]
    for _ in range(rng.randrange(3)):
        rows.insert(rng.randrange(len(rows) + 1), rng.choice(ODD))
    if rng.random() < 0.5:
        place = rng.randrange(len(rows))
        rows[place] = damaged_json(rows[place], rng)
    text = rng.choice(["\n", "\r\n", "\n\n", "\r"] if rng.random() < 0.2 else ["\n"]).join(map(json.dumps, rows)) + "\n"
    data = damaged_text(text, rng) if rng.random() < 0.25 else text.encode()
    path = room.given / rng.choice(
        ["q.jsonl", "q.jsonl", "q.jsonl.gz", "q.csv", "q", os.fsdecode(b"\xff.jsonl"), "\x1b[31m.jsonl"]
    )
    if path.suffix == ".gz" and rng.random() < 0.8:
        packed = gzip.compress(data if rng.random() < 0.8 else bytes(3 * 10**8))
        data = damaged_bytes(packed, rng) if rng.random() < 0.3 else packed
    path.write_bytes(data)
    if rng.random() < 0.08:
        special(path, rng, links=False)
    return path
