"""Outputs that appear whole, and one writer at a time."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import remove_partial, sole_writer, whole_folder

WRITER = """
import sys
from pathlib import Path
from d2nwg.utils.paths import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))


def test_one_writer_at_a_time_between_processes(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as other:
        assert other.stdout.readline() == "writing\n"
        words = "out is being written already: wait for that, or choose another name"
        with pytest.raises(UserError, match=words), sole_writer(out):
            pass
        with sole_writer(tmp_path / "other"):
            pass
        other.kill()
    with sole_writer(out):  # a killed process holds nothing
        pass
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"], "no lock stays beside the output"


def test_one_writer_at_a_time_between_threads(tmp_path):
    refused = []

    def write():
        try:
            with sole_writer(tmp_path / "out"):
                pass
        except UserError as reason:
            refused.append(reason)

    with sole_writer(tmp_path / "out"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / ".out.partial-a1b2c3d4"
    (left / "models").mkdir(parents=True)
    others = {".out-original", ".out.partial-two-a1b2c3d4", "out.partial-a1b2c3d4", ".another.partial-a1b2c3d4"}
    for other in others:
        (tmp_path / other).mkdir()
    with sole_writer(tmp_path / "out"):
        assert not left.exists()
        with whole_folder(tmp_path / "out") as part:
            assert part.parent == tmp_path and part.name.startswith(".out.partial-")
            (part / "file").write_text("x")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"cache", "out", *others}
    remove_partial(tmp_path / "nowhere" / "out")
