"""The harness of hostile inputs finds faults that are planted, and only those (`tests.fuzz`)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Run in a process of its own, which has one thread: it forks.
JUDGED = """
import os, sys, threading, time
from pathlib import Path
from d2nwg import cli
from d2nwg.utils.errors import UserError
from tests.fuzz.case import Case, judge
from tests.fuzz.forked import Limits, run_forked
from tests.fuzz.room import Room

room = Room.make(Path(sys.argv[1]))
(room.given / "mine.txt").write_text("mine")

def run(args):
    {fault}

cli.predict.run = run
case = Case(["predict", "h", "i"], limits=Limits(wall=12, cpu=1, memory=2**29))
before = room.kept()
ended = run_forked(case.run, room, case.limits)
for found in judge(case, room, ended, before):
    print("FOUND", found)
print("CODE", ended.code)
"""
KILLED = """
import os, sys, time
from pathlib import Path
from tests.fuzz import kills

def main(line):
    out = Path(line[-3])
    {writer}
    return 0

kills.main = main
kills.WRITERS["planted"] = kills.Writer(lambda stock, out: ["--out", out])
class Stock:
    folder = Path(sys.argv[1])
for number in range(6):
    words, ended, found = kills.kill_writer("planted", str(number), Stock.folder / "room", Stock())
    print("FOUND" if found else "NOTHING", *found)
"""


def ran(script: str, folder: Path) -> str:
    """What the script prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, text=True, capture_output=True, timeout=300
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("return", ""),
        ("raise UserError('The file x is damaged: save it again.')", ""),
        ("print(open(room.given / 'mine.txt').read()); (room.out / 'x').write_text('made')", ""),
        ("raise KeyError('x')", "traceback: KeyError: 'x'"),
        ("raise KeyError('x')", "exit code 1"),
        ("sys.exit(7)", "exit code 7"),
        ("raise UserError('bad')", "no sentence: bad"),
        ("open('/tmp/d2nwg-planted', 'w')", "wrote /tmp/d2nwg-planted"),
        ("os.remove(room.given / 'mine.txt')", "changed ['given/mine.txt']"),
        ("(room.work / 'notes.txt').write_text('yours')", "changed ['work/notes.txt']"),
        ("os.mkdir(room.root / 'more')", "mkdir of "),
        ("os.rename(room.given / 'mine.txt', room.out / 'x')", "changed ['given/mine.txt']"),
        ("open(room.canary / 'secret.txt')", "opened "),
        ("open('/etc/passwd')", "opened /etc/passwd"),
        ("os.symlink(room.canary / 'secret.txt', room.out / 'x'); open(room.out / 'x')", "opened "),
        ("os.system('true')", "started "),
        ("import socket; socket.socket().connect_ex(('192.0.2.1', 9))", "connected to 192.0.2.1"),
        ("os.write(1, bytes([27]))", "printed the control character"),
        ("(room.out / 'x').write_text('half'); raise UserError('It is damaged.')", "left behind: ['x']"),
        ("(room.out / '.x.partial-a1b2c3d4').mkdir()", "left half-written"),
        ("time.sleep(60)", "did not end within 12 s"),
        ("while True: pass", "of a processor"),
        ("held = bytearray(2**30)", "ran out of memory, and no estimate said so before"),
    ],
)
def test_a_planted_fault_is_found(fault, found, tmp_path):
    said = ran(JUDGED.format(fault=fault), tmp_path / "room")
    assert ("FOUND" in said) == bool(found) and found in said, said


def test_what_was_read_is_found_in_what_was_written(tmp_path):
    fault = "import ctypes; from tests.fuzz.room import SECRET; (room.out / 'x').write_text(SECRET)"
    assert "what nothing may read" in ran(JUDGED.format(fault=fault), tmp_path / "room")


@pytest.mark.parametrize(
    ("writer", "fault"),
    [
        (
            "part = out.with_name('.x.partial-1.file'); part.write_text('a'); time.sleep(0.01); part.replace(out)",
            False,
        ),
        ("file = out.open('w'); [(file.write('a'), file.flush(), time.sleep(0.004)) for _ in range(99)]", True),
        (
            "out.write_text(out.read_text() + 'a' if out.exists() else 'a'); (out.parent / 'x').mkdir()",
            True,
        ),
    ],
)
def test_a_writer_that_does_not_survive_a_kill_is_found(writer, fault, tmp_path):
    said = ran(KILLED.format(writer=writer), tmp_path)
    assert ("FOUND" in said) == fault, said


def test_a_case_is_the_same_whenever_it_is_repeated():
    script = """
import random, sys, tempfile
from pathlib import Path
from tests.fuzz.hostile import damaged_bytes, damaged_json, damaged_text
for _ in range(2):
    rng = random.Random("zoos:7-3")
    made = damaged_json({"a": [1, {"b": "c"}], "d": 2.5}, rng), damaged_text("abc", rng), damaged_bytes(bytes(99), rng)
    print(repr(made))
"""
    first, second = ran(script, Path("/")).splitlines()
    assert first == second


def test_nothing_is_collected_from_the_harness():
    assert not list((ROOT / "tests" / "fuzz").rglob("test_*.py"))
