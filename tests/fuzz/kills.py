"""Writers killed at random moments: at one of their writes, shortly after it, or at any time.

After the kill nothing half-written may stand where the result belongs. The command is given again, with ``--resume``
where there is something to resume; what is there then must equal what an undisturbed run makes.
"""

import json
import os
import pickle
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from d2nwg.cli import main
from tests.fuzz.case import PARTIAL
from tests.fuzz.forked import GIB, Ended, Limits, run_forked
from tests.fuzz.room import Room, walk
from tests.fuzz.stock import FEW, Stock, settings
from tests.fuzz.watch import WRITES

LIMITS = Limits(wall=300, cpu=200, memory=8 * GIB)
CLOCKS = ("seconds", "time", "rivals", "opening", "features", "sampling", "total", "created", "updated")  # keys of JSON


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        line: its arguments, of the stock and the output.
        resumes: the suffix of the folder beside the output that an unfinished run lies in, if it can be taken up again.
        begun: the file in it from which on there is something to resume.
        prepare: makes what the output already holds; a killed run may leave that as it was.
    """

    line: Callable[[Stock, Path], Sequence[object]]
    resumes: str = ""
    begun: str = ""
    prepare: Callable[[Stock, Path], None] | None = None


def _train(zoo: str, generator: str, *chosen: str) -> Writer:
    def line(stock: Stock, out: Path) -> Sequence[object]:
        return [
            "train",
            "--zoo",
            getattr(stock, zoo),
            "--generator",
            generator,
            "--preset",
            "tiny",
            *settings(*chosen),
            "--out",
            out,
        ]

    return Writer(line, ".training", "config.json")


def _older(stock: Stock, out: Path) -> None:
    """A zoo that holds some of the checkpoints."""
    few = sorted(stock.checkpoints.glob("small-*.pt"))[:4]
    if code := main([*map(str, ["zoo", "import", *few, "--table", stock.checkpoints / "scores.csv", "--out", out])]):
        raise SystemExit(code)


def _questions(stock: Stock) -> list[object]:
    return ["--select", stock.questions / "select.jsonl", "--report", stock.questions / "report.jsonl"]


DUAL = ("steps=4", "width=8", "depth=1", "heads=2", "tasks=2", "max_images=16", "query=2", "validate_every=2")
WRITERS = {
    "zoo-build": Writer(
        lambda stock, out: [
            "zoo",
            "build",
            stock.patterns,
            "--encoder",
            "pixels/4",
            "--subsets",
            140,
            "--classes",
            "2-4",
            "--images",
            3,
            "--out",
            out,
        ]
    ),
    "zoo-networks": Writer(
        lambda stock, out: [
            *("zoo", "build", stock.patterns, "--network", "mlp", "--size", 8, "--classes", 2, "--subsets", 12),
            *("--updates", 5, "--keep", 2, "--out", out),
        ],
        ".building",
        "building.json",
    ),
    "zoo-import": Writer(lambda stock, out: ["zoo", "import", stock.checkpoints, "--out", out]),
    "zoo-append": Writer(
        lambda stock, out: ["zoo", "import", stock.checkpoints, "--append", "--out", out], prepare=_older
    ),
    "zoo-export": Writer(lambda stock, out: ["zoo", "export", stock.networks_zoo, "--format", "pt", "--out", out]),
    "train-unet": _train("heads_zoo", "unet", "vae_steps=4", *FEW[1:2], "diffusion_steps=4", *FEW[3:]),
    "train-dual": _train("heads_zoo", "dual", *DUAL, "checkpoint_every=1"),
    "train-networks": _train("networks_zoo", "networks", *FEW),
    "generate": Writer(
        lambda stock, out: [
            "generate",
            stock.images,
            "--bundle",
            stock.unet,
            "--shots",
            2,
            "--num-samples",
            3,
            "--out",
            out,
        ]
    ),
    "finetune": Writer(
        lambda stock, out: [
            *("finetune", stock.head, stock.images, "--epochs", 3, "--seeds", 2, "--batch-size", 4, "--out", out)
        ],
        ".finetuning",
        "run.json",
    ),
    "explore": Writer(
        lambda stock, out: [
            "explore",
            "--data",
            stock.images,
            "--bundle",
            stock.unet,
            "--shots",
            2,
            "--num-samples",
            4,
            "--num-trained",
            2,
            "--out",
            out,
        ]
    ),
    "interpolate": Writer(
        lambda stock, out: [
            "interpolate",
            stock.images,
            stock.images,
            "--bundle",
            stock.unet,
            "--points",
            3,
            "--seeds",
            1,
            "--shots",
            2,
            "--num-samples",
            2,
            "--out",
            out,
        ]
    ),
    "sample": Writer(
        lambda stock, out: ["sample", stock.networks, "--task", "x", "--num-samples", 3, "--steps", 2, "--out", out]
    ),
    "llm-refine": Writer(
        lambda stock, out: [
            "llm",
            "refine",
            stock.llm,
            *_questions(stock),
            "--preset",
            "tiny",
            "--layers",
            2,
            "--candidates",
            2,
            "--criterion",
            "confidence",
            "--out",
            out,
        ],
        ".refining",
        "run.json",
    ),
    "llm-refine-zoo": Writer(
        lambda stock, out: [
            "llm",
            "refine",
            stock.llm,
            "--zoo",
            stock.llm_zoo,
            *_questions(stock),
            "--preset",
            "tiny",
            "--candidates",
            2,
            "--out",
            out,
        ],
        ".refining",
        "run.json",
    ),
    "llm-split": Writer(
        lambda stock, out: ["llm", "split", *sorted(stock.questions.iterdir()), "--parts", "a=9", "b", "--out", out]
    ),
    "llm-zoo": Writer(
        lambda stock, out: [
            "zoo",
            "build",
            stock.questions / "select.jsonl",
            "--llm",
            stock.llm,
            "--select",
            stock.questions / "report.jsonl",
            *("--rank", 2, "--epochs", 2, "--seeds", 3, "--keep", 2),
            "--out",
            out,
        ],
        ".building",
        "building.json",
    ),
    "llm-apply": Writer(lambda stock, out: ["llm", "apply", stock.delta, stock.llm, "--out", out]),
    "llm-spectrum": Writer(lambda stock, out: ["llm", "spectrum", stock.llm, "--out", out]),
}


def kill_writer(name: str, seed: str, folder: Path, stock: Stock) -> tuple[str, Ended, list[str]]:
    """Kill a writer once, run it again, and compare.

    Returns:
        What was done in words, how the second run ended, and what is wrong.
    """
    writer, rng = WRITERS[name], Random(f"{name}:{seed}")
    wanted, events, seconds = _undisturbed(name, writer, folder, stock)
    how, words = _moment(rng, events, seconds)
    room, out = _ready(writer, folder, stock)
    was = result(out)
    line = [*map(str, [*writer.line(stock, out), "--device", "cpu"])]
    words = f"{words}: {' '.join(line)}"
    killed = run_forked(lambda: _disturbed(line, how, room), room, LIMITS, watched=False)
    found = (
        [] if killed.code in (0, -signal.SIGKILL) else [f"the first run ended with {killed.code}: {killed.err[-300:]}"]
    )
    there = result(out)
    if there not in (was, wanted):
        found.append(f"half-written after the kill: {_difference(was or wanted, there)}")
    again = list(line)
    if writer.resumes and (out.with_name(out.name + writer.resumes) / writer.begun).is_file() and not out.exists():
        again.append("--resume")
    ended = run_forked(lambda: main(again), room, LIMITS, watched=False)
    whole = there == wanted and ended.code == 2  # it says that the result is there
    if ended.code and not whole:
        found.append(f"the second run ended with {ended.code}: {ended.err[-300:]}")
    if "Traceback" in ended.err:
        found.append(f"traceback: {ended.err.strip().splitlines()[-1]}")
    if (made := result(out)) != wanted:
        found.append(f"another result: {_difference(wanted, made)}")
    if left := [path.name for path in walk(room.out) if PARTIAL.fullmatch(path.name)]:
        found.append(f"left over: {left[:4]}")
    return words, ended, found


def _undisturbed(name: str, writer: Writer, folder: Path, stock: Stock) -> tuple[dict | None, int, float]:
    """What the writer makes, in how many writes and seconds; worked out once."""
    kept = stock.folder / f"undisturbed-{name}"
    if not kept.exists():
        room, out = _ready(writer, folder, stock)
        line = [*map(str, [*writer.line(stock, out), "--device", "cpu"])]
        ended = run_forked(lambda: _disturbed(line, lambda count, left: None, room), room, LIMITS, watched=False)
        if ended.code:
            raise RuntimeError(f"{name} does not work: {ended.err}")
        kept.write_bytes(pickle.dumps((result(out), int((room.tmp / "events").read_text()), ended.seconds)))
        shutil.rmtree(folder)
    return pickle.loads(kept.read_bytes())


def _ready(writer: Writer, folder: Path, stock: Stock) -> tuple[Room, Path]:
    shutil.rmtree(folder, ignore_errors=True)
    room = Room.make(folder)
    out = room.out / "made"
    writer.line(stock, out)  # makes its part of the stock
    if prepare := writer.prepare:
        run_forked(lambda: prepare(stock, out) or 0, room, LIMITS, watched=False)
    return room, out


def _moment(rng: Random, events: int, seconds: float) -> tuple[Callable[[int, float], float | None], str]:
    """When to kill: a function of the number of writes so far and the seconds since the beginning gives the seconds to
    wait, or None for not yet."""
    what, number = rng.randrange(3), rng.randrange(1, events + 1)
    if what == 0:
        return (lambda count, since: 0.0 if count == number else None), f"killed at write {number} of {events}"
    if what == 1:
        wait = rng.expovariate(1 / 0.01)
        return (lambda count, since: wait if count == number else None), f"killed {wait:.4f} s after write {number}"
    wait = rng.uniform(0, seconds)
    return (lambda count, since: wait if not count else None), f"killed after {wait:.3f} s"


def _disturbed(line: list[str], how: Callable[[int, float], float | None], room: Room) -> int:
    """Run a command line, to be killed as `how` says; counts its writes."""
    count, began = 0, time.monotonic()

    def strike(wait: float | None) -> None:
        if wait is None:
            return
        if not wait:
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Thread(target=lambda: (time.sleep(wait), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        if event == "open":
            writes = isinstance(args[2], int) and args[2] & WRITES and not isinstance(args[0], int)
        else:
            writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if writes and str(room.out) in os.path.abspath(os.fsdecode(args[0])):
            count += 1
            strike(how(count, time.monotonic() - began))

    sys.addaudithook(hook)
    strike(how(0, 0.0))
    code = main(line)
    total = count
    (room.tmp / "events").write_text(str(total))
    return code


def result(out: Path) -> dict[str, object] | None:
    """What lies at an output, file by file, without what depends on the clock; None for nothing."""
    if out.is_file():
        return {"": _content(out)}
    if not out.is_dir():
        return None
    found = {str(path.relative_to(out)): path for path in walk(out) if path.is_file()}
    info = json.loads(found["zoo.json"].read_text()) if "zoo.json" in found else {}
    if records := info.get("records"):  # files that a zoo does not name are none of it
        found = {name: found[name] for name in ("zoo.json", *(record["file"] for record in records)) if name in found}
    return {name: _content(path) for name, path in found.items()}


def _content(path: Path) -> object:
    if path.suffix == ".html":  # plotly draws random names
        return path.stat().st_size > 0
    if path.suffix in (".safetensors", ".pt"):
        return _tensors(path)
    text = path.read_bytes()
    if path.suffix == ".jsonl":
        return sorted(json.dumps(_timeless(json.loads(one))) for one in text.splitlines())  # a resumed run's come later
    if path.suffix == ".json":
        return _timeless(json.loads(text))
    clock = rb"\d[\d.,]* ?(s|min|h)\b|\"seconds\": [\d.]+"
    return re.sub(clock, b"", text) if path.suffix == ".md" else text


def _tensors(path: Path) -> object:
    import torch
    from safetensors import safe_open

    if path.suffix == ".pt":
        held, about = torch.load(path, weights_only=True), {}
    else:
        with safe_open(path, "pt") as file:
            held, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    values = {
        name: (str(t.dtype), tuple(t.shape), t.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, t in held.items()
    }
    return values, {key: _timeless(text) for key, text in (about or {}).items()}


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in CLOCKS}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return value


def _difference(wanted: dict | None, made: dict | None) -> str:
    if wanted is None or made is None:
        return "there is nothing" if made is None else f"there is {sorted(made)[:5]}"
    missing, more = sorted(wanted.keys() - made.keys()), sorted(made.keys() - wanted.keys())
    other = sorted(key for key in wanted.keys() & made.keys() if wanted[key] != made[key])
    return f"without {missing[:4]}, with {more[:4]}, other in {other[:4]}"
