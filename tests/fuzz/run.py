"""Case after case, kind beside kind, until the time is up."""

import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.case import Case, judge
from tests.fuzz.forked import Ended, run_forked
from tests.fuzz.kinds import KINDS, get_kind
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock


@dataclass
class Tally:
    """What became of the cases of a kind."""

    ended: Counter = field(default_factory=Counter)
    found: int = 0
    seconds: float = 0.0


def load_all(app: bool) -> None:
    """Import what cases use, once: each is a fork of this process. The app only where it is asked for."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import sentence_transformers  # noqa: F401
    import sklearn.manifold  # noqa: F401
    import torch
    import transformers

    import d2nwg.cli
    import d2nwg.exploration.look
    import d2nwg.exploration.words
    import d2nwg.figures.explore
    import d2nwg.figures.interpolate
    import d2nwg.generators
    import d2nwg.interpolation.path
    import d2nwg.llm.adapter_zoo
    import d2nwg.llm.refine
    import d2nwg.training.run
    import d2nwg.weights.build
    import d2nwg.weights.preview

    if app:
        import fastapi  # noqa: F401
        import starlette.testclient  # noqa: F401

        import d2nwg.ui.app
    torch.set_num_threads(1)
    for name in ("AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM"):
        getattr(transformers, name)
    for generator in d2nwg.generators.GENERATORS.values():
        generator.part("trainer")
        generator.part("pipeline")


def run_case(name: str, seed: str, folder: Path, stock: Stock) -> tuple[Case, Room, Ended, list[str]]:
    """Make one case, run it, and judge it. Its room stays."""
    room = Room.make(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd inputs are meant
        case = get_kind(name)(Random(f"{name}:{seed}"), room, stock)
    (room.cache / "examples").symlink_to(stock.examples)
    before = room.kept()
    ended = run_forked(case.run, room, case.limits, stdin=case.stdin, writable=case.writable)
    return case, room, ended, judge(case, room, ended, before)


def run(folder: Path, kept: Path, minutes: float, kills: int, seed: str, only: Sequence[str] | None = None) -> int:
    """Run cases for some minutes and kill writers so many times each; prints what was found, and counts.

    Returns:
        How many cases or kills had a finding.
    """
    from tests.fuzz.kills import WRITERS, kill_writer

    kinds = [name for name in KINDS if not only or name in only]
    writers = [name for name in WRITERS if not only or name in only] if kills else []
    if unknown := set(only or ()) - {*KINDS, *WRITERS}:
        raise SystemExit(f"There is no kind {', '.join(sorted(unknown))}.")
    load_all("api" in kinds)
    stock, tallies = Stock(folder / "stock"), {name: Tally() for name in (*kinds, *writers)}
    until = time.monotonic() + 60 * minutes
    while kinds and time.monotonic() < until:
        name = min(kinds, key=lambda kind: tallies[kind].seconds)  # an equal share of the time for each
        tally = tallies[name]
        one = f"{seed}-{tally.ended.total()}"
        began = time.monotonic()
        room = folder / "case"
        case, _, ended, found = run_case(name, one, room, stock)
        tally.ended[ended.code] += 1
        if found:
            tally.found += 1
            report(f"{name}:{one}", case.words(), ended, found, room, kept)
        shutil.rmtree(room, ignore_errors=True)
        tally.seconds += time.monotonic() - began
    for name in writers:
        for number in range(kills):
            began = time.monotonic()
            room = folder / "kill"
            words, ended, found = kill_writer(name, f"{seed}-{number}", room, stock)
            tallies[name].ended[ended.code] += 1
            if found:
                tallies[name].found += 1
                report(f"{name}:{seed}-{number}", words, ended, found, room, kept)
            shutil.rmtree(room, ignore_errors=True)
            tallies[name].seconds += time.monotonic() - began
    print(f"{'kind':12} {'cases':>6} {'done':>6} {'refused':>8} {'found':>6} {'seconds':>8}")
    for name, tally in tallies.items():
        counts = tally.ended.total(), tally.ended[0], tally.ended[2], tally.found
        print("{:12} {:6} {:6} {:8} {:6} {:8.0f}".format(name, *counts, tally.seconds))
    return sum(tally.found for tally in tallies.values())


def report(name: str, words: str, ended: Ended, found: Sequence[str], room: Path, kept: Path) -> None:
    """Print what was found, and keep the case's folder."""
    print(f"FOUND {name}: {'; '.join(found)[:600]}\n  {words[:400]}\n  repeat it: python -m tests.fuzz --case {name}")
    sys.stdout.flush()
    target = kept / name.replace(":", "-")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(room, target, symlinks=True, ignore=_special)
    (target / "found.txt").write_text("\n".join([words, *found, "", ended.err]), "utf-8", "replace")


def _special(folder: str, names: list[str]) -> list[str]:
    """Names of what cannot be copied."""
    return [name for name in names if not (p := Path(folder, name)).is_symlink() and not p.is_file() and not p.is_dir()]


def repeat(name: str, folder: Path, kept: Path) -> int:
    """Run one case or kill again, say how it ended, and keep its folder."""
    from tests.fuzz.kills import WRITERS, kill_writer

    kind, _, seed = name.partition(":")
    load_all(kind == "api")
    room, stock = folder / "case", Stock(folder / "stock")
    if kind in WRITERS:
        words, ended, found = kill_writer(kind, seed, room, stock)
    else:
        case, _, ended, found = run_case(kind, seed, room, stock)
        words = case.words()
    report(name, words, ended, found or ["nothing"], room, kept)
    print(f"exit code {ended.code}, {ended.seconds:.1f} s, {ended.memory / 2**20:.0f} MB; kept in {kept}")
    print(ended.out[-2000:] + ended.err[-6000:])
    return 1 if found else 0
