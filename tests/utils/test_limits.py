"""Numbers within limits, and estimates against the memory and the disk that are free."""

import math

import numpy as np
import pytest

from d2nwg.utils import limits
from d2nwg.utils.limits import (
    MOST_SEED,
    check_memory,
    check_space,
    free_memory,
    out_of_memory,
    seed_number,
    size,
    whole,
)
from tests.helpers.refusals import refusal


@pytest.mark.parametrize(
    "value",
    [0, -1, 11, 10**30, 1.5, math.nan, math.inf, -math.inf, True, None, "5", "", [5], np.float64("nan"), b"5"],
)
def test_what_is_no_whole_number_from_1_to_10(value):
    assert refusal(whole, value, "Images per class", 1, 10) == "Images per class should be a whole number from 1 to 10."


@pytest.mark.parametrize("value", [1, 10, 5.0, np.int64(7), np.float64(3)])
def test_whole_numbers_come_back_as_such(value):
    found = whole(value, "It", 1, 10)
    assert found == value and type(found) is int


def test_seeds():
    assert seed_number(0) == 0 and seed_number(MOST_SEED) == 2**63 - 1
    for wrong in (-1, 2**63, 0.5, "0"):
        assert "The seed should be a whole number from 0" in refusal(seed_number, wrong)


def test_memory_is_asked_for_in_a_sentence(monkeypatch):
    monkeypatch.setattr(limits, "free_memory", lambda device: 6e9)
    check_memory(6e9, "This", "ask for less")
    said = refusal(check_memory, 8.7e9, "This", "ask for less")
    assert said == "This needs 8.7 GB of memory, and 6.0 GB are free: ask for less."
    assert "more than 1,000,000 GB of memory" in refusal(check_memory, 1e30, "This", "ask for less")
    assert size(3) == "1 MB" and size(3.5e8) == "350 MB" and size(2e13) == "20,000.0 GB"


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    check_space(1, tmp_path / "a" / "b", "This", "ask for less")
    said = refusal(check_space, 1e18, tmp_path / "a" / "b", "This", "ask for less")
    assert "This needs more than 1,000,000 GB on the disk, and " in said


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_less_memory_than_its_machine(version, tmp_path, monkeypatch):
    names = ("memory.max", "memory.current", "inactive_file")
    folder = tmp_path
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        folder = tmp_path / "memory"
        folder.mkdir()
    for name, value in zip(names[:2], (9_000_000, 5_000_000), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 3\n{names[2]} 2000000\n")
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    assert free_memory() == 6_000_000  # pages that only cache files can be had
    (folder / names[0]).write_text("max\n")
    assert free_memory() > 6_000_000


def test_a_limit_of_the_process_counts(monkeypatch):
    resource = pytest.importorskip("resource")
    import psutil

    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + 2**20, used + 2**20))
    assert free_memory() <= 2 * 2**20


def test_exceptions_that_say_that_memory_ran_out():
    assert out_of_memory(MemoryError()) and out_of_memory(OSError(12, "Cannot allocate memory"))
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not out_of_memory(RuntimeError("shapes differ")) and not out_of_memory(KeyError("out of memory"))


def test_the_command_line_says_it_where_no_estimate_did(monkeypatch, capsys):
    from d2nwg import cli

    def run(args):
        raise MemoryError

    monkeypatch.setattr(cli.predict, "run", run)
    assert cli.main(["predict", "head", "image"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Memory ran out, of which ") and said.endswith("ask for less at a time.\n")


def test_devices_that_are_none():
    from d2nwg.utils.devices import resolve_device

    for name in ("toaster", "cuda:x", "cuda:-1", "cpu:", "cuda:" + "9" * 50, "\x1b[31m"):
        assert "is no device: write cpu, cuda, cuda:N or mps" in refusal(resolve_device, name)
    assert resolve_device("cpu") == "cpu"
