"""A case: what is run, and what is wrong with how it ended."""

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.forked import Ended, Limits
from tests.fuzz.room import SECRET, Room, walk

OUT_OF_MEMORY = "Memory ran out"  # the sentence for what no estimate foresaw
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
PARTIAL = re.compile(r"\.(.+\.)?partial-.+|.*\.part(\.npz)?|\..*-[a-z0-9_]{8}")


@dataclass
class Case:
    """One case.

    Attributes:
        argv: a command line; or
        call: a function that returns an exit code.
        stdin: what it reads there.
        writable: more places where it may write: outputs that it was asked for elsewhere.
        limits: of the process.
        leaves: names (patterns) of what may be there after a refusal: what a resumed run needs.
        check: more findings, from what it printed and left.
    """

    argv: Sequence[str] | None = None
    call: Callable[[], int] | None = None
    stdin: str = ""
    writable: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)
    leaves: str = "(?!)"
    check: Callable[[Ended], list[str]] = lambda ended: []

    def run(self) -> int:
        """Run it in this process."""
        if self.call is not None:
            return self.call()
        from d2nwg.cli import main

        return main(list(self.argv or ()))

    def words(self) -> str:
        """What it runs, for a person."""
        return (
            " ".join(map(ascii, self.argv)) if self.argv is not None else getattr(self.call, "words", repr(self.call))
        )


# Makes the case of a random generator, and its inputs in a room; the second argument is a `tests.fuzz.stock.Stock`.
Make = Callable[[Random, Room, "object"], Case]


def judge(case: Case, room: Room, ended: Ended, before: dict[str, str]) -> list[str]:
    """What is wrong with how a case ended; nothing where all is as promised."""
    found = list(ended.told)
    if ended.late:
        found.append(f"did not end within {case.limits.wall:g} s")
    elif ended.code in (-signal.SIGXCPU, -signal.SIGKILL):
        found.append(f"took more than {case.limits.cpu:g} s of a processor")
    elif ended.code not in (0, 2):
        found.append(f"exit code {ended.code}")
    if "Traceback (most recent call last)" in ended.err:
        found.append(f"traceback: {ended.err.strip().splitlines()[-1]}")
    if OUT_OF_MEMORY in ended.err:
        found.append("ran out of memory, and no estimate said so before")
    if ended.code == 2:
        said = ended.err.strip().splitlines()
        if not said or not said[-1].rstrip().endswith((".", "?")):
            found.append(f"no sentence: {said[-1] if said else ''}")
        left = [path.name for path in room.out.iterdir() if not re.fullmatch(case.leaves, path.name)]
        if left:
            found.append(f"left behind: {left[:5]}")
    if ended.code == 0 and (partial := [p.name for p in walk(room.out) if PARTIAL.fullmatch(p.name)]):
        found.append(f"left half-written: {partial[:5]}")
    if control := CONTROLS.search(ended.out + ended.err):
        found.append(f"printed the control character {control[0]!r}")
    if SECRET in ended.out + ended.err or any(_tells(path) for path in walk(room.out)):
        found.append("what nothing may read is in what was written")
    after = room.kept()
    if changed := [path for path in {*before, *after} if before.get(path) != after.get(path)]:
        found.append(f"changed {sorted(changed)[:5]}")
    return found + case.check(ended)


def _tells(path: Path) -> bool:
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size < 2**24
        and SECRET.encode() in path.read_bytes()
    )
