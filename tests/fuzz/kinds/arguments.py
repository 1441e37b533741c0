"""Command lines of every verb with hostile numbers, names and paths in the places of good ones."""

import argparse
from itertools import pairwise
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.hostile import NUMBERS, TEXTS
from tests.fuzz.room import Room
from tests.fuzz.stock import FEW, Stock


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A good command line in which some arguments are replaced, dropped or added."""
    verb, line = rng.choice(_lines(rng, room, stock))
    line = [*map(str, line), "--device", "cpu"] if verb[0] != "jobs" else [*map(str, line)]
    options = _options(verb)
    for _ in range(rng.choice((1, 1, 2))):
        what = rng.randrange(8)
        if what < 4 and options:
            name, kind = rng.choice(options)
            value = _out(rng, room) if name in ("--out", "--save") else _value(kind, name, rng, room)
            line += [name] if value is None else [name, value]
        elif what < 7 and line:
            place = rng.randrange(len(line))
            if place and line[place - 1] in ("--out", "--save"):
                line[place] = _out(rng, room)
            elif line[place] not in ("--bundle", "--device", "--out", "--save"):
                numeric = line[place].lstrip("-").isdigit()
                line[place] = rng.choice(NUMBERS) if numeric and rng.random() < 0.8 else _text(rng, room)
        elif line:
            del line[rng.randrange(len(line))]
    outs = [room.work / text for name, text in pairwise(line) if name in ("--out", "--save") and "\0" not in text]
    return Case(
        [*verb, *line], stdin="hello\n", leaves=r".*\.(training|refining)", writable=[*outs, *(p.parent for p in outs)]
    )


def _lines(rng: Random, room: Room, stock: Stock) -> list[tuple[list[str], list]]:
    """Every verb with good arguments."""
    out, few = room.out / "x", ["--shots", 2, "--num-samples", 3]
    bundle = rng.choice([stock.unet, stock.dual])
    sets = ["--select", stock.questions / "select.jsonl", "--report", stock.questions / "report.jsonl"]
    settings = [part for text in FEW for part in ("--set", text)]
    return [
        (["generate"], [stock.images, "--bundle", bundle, *few, "--out", out]),
        (
            ["generate"],
            [
                "example:digits",
                "--bundle",
                stock.dual,
                "--shots",
                1,
                "--num-samples",
                2,
                "--max-query",
                20,
                "--out",
                out,
            ],
        ),
        (["explore"], ["--data", stock.images, "--bundle", bundle, *few, "--num-trained", 2, "--out", out]),
        (
            ["explore"],
            [
                "--data",
                stock.patterns,
                "--bundle",
                bundle,
                *few,
                "--num-trained",
                2,
                "--tasks",
                2,
                "--classes",
                3,
                "--out",
                out,
            ],
        ),
        (
            ["interpolate"],
            [stock.images, stock.images, "--bundle", bundle, "--points", 3, "--seeds", 1, *few, "--out", out],
        ),
        (["explore"], ["--names", "cat, dog", "--search", "do", "--bundle", bundle, "--perplexity", 3, "--out", out]),
        (["interpolate"], [stock.images, "--names", "cat, dog", "--bundle", bundle, "--points", 3, "--out", out]),
        (
            ["explore"],
            ["--describe", "spam?", "--bundle", stock.adapters, "--num-samples", 2, "--steps", 2, "--out", out],
        ),
        (
            ["interpolate"],
            [*("--describe", "spam?", "good?"), "--bundle", stock.adapters, "--points", 2, *few, "--out", out],
        ),
        (["evaluate"], [stock.generated / "head.safetensors", stock.images]),
        (["predict"], [stock.generated / "head.safetensors", stock.images / "a" / "00.png"]),
        (["sample"], [stock.networks, "--task", "x", "--num-samples", 2, "--steps", 2, "--out", out]),
        (["train"], ["--zoo", stock.heads_zoo, "--generator", "unet", "--preset", "tiny", *settings, "--out", out]),
        (["train"], ["--zoo", stock.networks_zoo, "--preset", "tiny", *settings, "--out", out]),
        (
            ["train"],
            [
                "--zoo",
                stock.heads_zoo,
                "--preset",
                "tiny",
                "--set",
                "steps=2",
                "--set",
                "tasks=2",
                "--set",
                "width=8",
                "--out",
                out,
            ],
        ),
        (
            ["zoo", "build"],
            [stock.images, "--encoder", "pixels/4", "--subsets", 4, "--classes", "2-3", "--images", 2, "--out", out],
        ),
        (["zoo", "info"], [stock.heads_zoo]),
        (["zoo", "import"], [stock.checkpoints, "--out", out]),
        (["zoo", "export"], [stock.networks_zoo, "--out", out]),
        (["llm", "spectrum"], [stock.llm, "--out", out]),
        (["llm", "evaluate"], [stock.llm, stock.questions / "select.jsonl"]),
        (["llm", "chat"], [stock.llm, "--max-tokens", 2]),
        (["llm", "apply"], [stock.delta, stock.llm, "--out", out]),
        (["llm", "refine"], [stock.llm, *sets, "--preset", "tiny", "--layers", 1, "--candidates", 1, "--out", out]),
        (["jobs", rng.choice(["list", "show", "stop", "resume", "pause", "delete"])], ["x"]),
    ]


def _options(verb: list[str]) -> list[tuple[str, argparse.Action]]:
    """The options of a verb."""
    from d2nwg.cli import build_parser

    parser: argparse.ArgumentParser = build_parser()
    for word in verb:
        inner = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = inner.choices[word]
    return [
        (action.option_strings[-1], action)
        for action in parser._actions
        if action.option_strings
        and not {"--help", "--push-to-hub", "--push-to-space", "--device", "--job"} & set(action.option_strings)
    ]


def _value(action: argparse.Action, name: str, rng: Random, room: Room) -> str | None:
    if action.nargs == 0:
        return None
    if name == "--preset":  # another one than tiny takes hours, as it should
        return rng.choice(["tiny", "", "x", "TINY"])
    if name == "--set":
        return _setting(rng)
    if name == "--classes":
        return rng.choice(
            [
                "2-1000000",
                "2-3",
                "1-3",
                "3-2",
                "2-",
                "-2",
                "2-3-4",
                "x",
                "",
                "2-99999999999999999999",
                "1000000000-1000000000",
                *NUMBERS,
            ]
        )
    if action.type is not None and rng.random() < 0.85:
        return rng.choice(NUMBERS)
    if action.choices and rng.random() < 0.7:
        return str(rng.choice(list(action.choices)))
    return _text(rng, room)


def _setting(rng: Random) -> str:
    """A setting of some generator's training, with a hostile value."""
    from dataclasses import fields

    from d2nwg.generators import GENERATORS

    names = sorted({field.name for one in GENERATORS.values() for field in fields(one.config_class)})
    value = rng.choice(
        [
            *NUMBERS,
            "3",
            "7",
            "16",
            "1,2",
            "64,64",
            "0,0",
            "3,5,7",
            "1000000000,1000000000,1000000000",
            "x",
            "yes",
            "no",
            "sample",
            ",",
            "[1]",
            "()",
        ]
    )
    name = rng.choice(names)
    if name.endswith("steps") and value.isdigit() and 5 < int(value[:10]) < 10**9:
        value = "3"
    return rng.choice([f"{name}={value}"] * 9 + [f"{name}", f"={value}", f"{name}=={value}", f"{name.upper()}={value}"])


def _out(rng: Random, room: Room) -> str:
    """A hostile place to write to: names that can be made, below where it may write, and such as must be refused."""
    name = _text(rng, room).lstrip("/")
    odd = [
        "",
        "\0",
        " ",
        "/",
        ".",
        "..",
        "/dev/null",
        "/etc/passwd",
        str(room.work),
        str(room.work / "notes.txt"),
        "/proc/x",
    ]
    odd += [
        str(room.canary),
        str(room.out),
        str(room.work / "notes.txt" / "x"),
        str(room.out / ("y" * 300)),
        "~nobody-at-all/x",
    ]
    inside = [part for part in name.split("/") if part not in ("..", ".")]
    return rng.choice(odd) if rng.random() < 0.5 else str(room.out / ("/".join(inside) or "x"))


def _text(rng: Random, room: Room) -> str:
    """A hostile name. What it names is given, and may be read: nothing that must not be."""
    odd = room.given / "odd.safetensors"
    odd.write_bytes(b"\x08\0\0\0\0\0\0\0{        odd")
    places = [
        str(odd),
        str(room.given),
        str(room.work),
        "gone/x",
        str(room.given / ("y" * 300)),
        str(room.given / "a\0b"),
    ]
    text = rng.choice([*(text for text in TEXTS if text != "/etc/passwd"), *places])
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
