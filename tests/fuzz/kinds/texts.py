"""Tables and folders of texts of any shape: encodings, separators, labels, columns, archives, special files."""

import csv
import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.forked import GIB, Limits
from tests.fuzz.hostile import TEXTS, damaged_bytes, damaged_json, damaged_text, special
from tests.fuzz.room import Room
from tests.fuzz.stock import TOPICS, Stock

LABELS = [0, 1, 2.5, -1, True, None, "", " ", "a", "A", "a\nb", [1], {"x": 1}, "x" * 5000, 10**30, "1e400", "nan", "é"]
HEADERS = [
    "text",
    "label",
    "Text ",
    "LABEL",
    "sentence1",
    "sentence2",
    "split",
    "id",
    "",
    "a,b",
    "\x1b[31m",
    "x" * 500,
    "=1",
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift-jis", "utf-7"]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A set of texts with something wrong, and a verb that reads it."""
    data = _folder(rng, room) if rng.random() < 0.3 else _table(rng, room.given / rng.choice(_names()))
    if rng.random() < 0.06 and not data.is_dir():
        special(data, rng, links=False)
    columns = rng.choice(
        [
            [],
            [],
            [],
            ["--text-column", rng.choice(["text", "x", "", "id"])],
            ["--label-column", rng.choice(["label", "y"])],
        ]
    )
    good = room.given / "good.csv"
    good.write_text("text,label\n" + "".join(f"{topic} again,{'ab'[n % 2]}\n" for n, topic in enumerate(TOPICS)))
    head = stock.generated / "head.safetensors"  # of images: what is read is refused before a network is loaded
    out = ["--shots", rng.choice([1, 1, 1, 2, 10**6]), "--num-samples", 2, "--out", room.out / "x"]
    line = rng.choice(
        [
            ["evaluate", head, data, *columns],
            ["evaluate", head, data, *columns],
            ["generate", data, "--bundle", stock.unet, *columns, *out],
            ["generate", data, "--bundle", stock.dual, *columns, *out],
            ["generate", good, "--bundle", stock.dual, "--unlabelled", data, *out],
        ]
    )
    # The sentence encoder needs the memory.
    return Case([*map(os.fspath, map(str, line)), "--device", "cpu"], limits=Limits(wall=180, cpu=60, memory=3 * GIB))


def _names() -> list[str]:
    odd = [os.fsdecode(b"\xff.csv"), "\x1b[31m.csv", "x" * 200 + ".csv", ".csv", "a.CSV.GZ"]
    return ["t.csv", "t.csv", "t.tsv", "t.jsonl", "t.jsonl.gz", "t.csv.gz", "t.txt", "t.ndjson", "train.csv", *odd]


def _rows(rng: Random) -> list[dict]:
    rows: list[dict] = [{"text": f"{topic} is number {n}", "label": "ab"[n % 2]} for n, topic in enumerate(TOPICS)]
    if rng.random() < 0.3:
        rows = [{**row, "text2": f"not {row['text']}"} for row in rows]
    if rng.random() < 0.3:
        rows = [{**row, "split": rng.choice(["train", "test", "dev", "x", None])} for row in rows]
    for _ in range(rng.choice((0, 0, 1, 4))):
        row = rng.choice(rows)
        key = rng.choice(list(row))
        row[key] = rng.choice([*LABELS, *TEXTS, "y" * 10**6])
    if rng.random() < 0.3:
        old, new = rng.choice(list(rows[0])), rng.choice(HEADERS)
        rows = [{new if key == old else key: value for key, value in row.items()} for row in rows]
    if rng.random() < 0.1:
        rows = [{**row, "label": f"c{n}"} for n in range(3000) for row in rows[:2]]
    return rows


def _table(rng: Random, path: Path) -> Path:
    rows = _rows(rng)
    if ".jsonl" in path.name or ".ndjson" in path.name:
        if rng.random() < 0.3:
            rows[rng.randrange(len(rows))] = damaged_json(rows[0], rng)
        text = rng.choice(["\n", "\n", "\r\n", "\r", ""]).join(map(json.dumps, rows)) + "\n"
    else:
        made = io.StringIO(newline="")
        quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
        table = csv.writer(made, delimiter=rng.choice(",,,;\t|:"), quoting=quoting)
        if rng.random() < 0.9:
            table.writerow(list(rows[0]))
        for row in rows:
            table.writerow(["" if value is None else value for value in row.values()])
        text = made.getvalue()
    data = text.encode(rng.choice(ENCODINGS) if rng.random() < 0.4 else "utf-8", "replace")
    if rng.random() < 0.2:
        data = damaged_text(text, rng) if rng.random() < 0.5 else damaged_bytes(data, rng)
    if path.name.lower().endswith(".gz") and rng.random() < 0.9:
        packed = gzip.compress(data if rng.random() < 0.8 else rng.choice([b" ", b"a,", b"\0"]) * 10**8)
        data = damaged_bytes(packed, rng) if rng.random() < 0.3 else packed
    path.write_bytes(data)
    return path


def _folder(rng: Random, room: Room) -> Path:
    """A folder, or a zip of one, of text files by class or of tables."""
    folder = room.given / "texts"
    for part in rng.choice([("",), ("train", "test"), ("train", "valid")]):
        for name in rng.sample(["a", "b", "é", "A", " c", "\x1b[31m", os.fsdecode(b"\xff")], 3):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(rng.choice((0, 2, 4))):
                content = rng.choice([f"the text {number} of {part}{name!a}", "", "\0", "x" * 10**6, "ü"])
                file = folder / part / name / f"{number}.txt"
                file.write_bytes(content.encode(rng.choice(["utf-8", "utf-16", "latin-1"]), "replace"))
        if rng.random() < 0.2:
            _table(rng, folder / part / rng.choice(["train.csv", "test.jsonl", "x.tsv", "a.txt"]))
        if rng.random() < 0.2:
            special(folder / part / rng.choice(["train.csv", "a.txt"]), rng)
    if rng.random() < 0.7:
        return folder
    packed = room.given / "texts.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.is_symlink():
                archive.writestr(str(file.relative_to(folder)).encode("utf-8", "replace").decode(), file.read_bytes())
    if rng.random() < 0.2:
        packed.write_bytes(damaged_bytes(packed.read_bytes(), rng))
    return packed
