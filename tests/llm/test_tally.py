"""Votes kept in files: what is counted, and what becomes of files that are not ours."""

import json
import os
import threading

import pytest

from d2nwg.llm.tally import KEPT, MOST, SAME, Ballots, Tally, pair_of

NAMES = ("base", "refined")


def only_file(folder):
    (path,) = folder.glob("*.json")
    return path


def test_votes_last_over_sessions_and_are_reset(tmp_path):
    first = Ballots(tmp_path / "votes")
    assert first.read("pair") == Tally() and first.add("pair", vote=1) == Tally(0, 1)
    first.add("pair", vote=0)
    first.add("pair", vote=SAME)
    first.add("pair", equal=1)
    again = Ballots(tmp_path / "votes")
    assert again.read("pair") == Tally(1, 1, 1, 1) and again.read("other") == Tally()
    assert again.add("pair", vote=1).second == 2
    assert again.reset("pair") == first.read("pair") == Tally() and not list((tmp_path / "votes").glob("*.json"))


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ballots = Ballots()
    assert ballots.add("pair", vote=1) == ballots.read("pair") == Tally(0, 1) and ballots.read("other") == Tally()
    assert ballots.reset("pair") == ballots.read("pair") == Tally() and not list(tmp_path.iterdir())


GOOD = {"first": 3, "second": 4, "same": 0, "equal": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        json.dumps({**GOOD, "first": -1}),
        json.dumps({**GOOD, "first": True}),
        json.dumps({**GOOD, "first": 1.5}),
        json.dumps({**GOOD, "first": MOST + 1}),
        json.dumps({**GOOD, "more": 1}),
        json.dumps({"first": 3}),
        json.dumps(GOOD) + " " * 5000,
        "\udcff",
    ],
)
def test_damaged_foreign_and_oversized_files_are_begun_anew(tmp_path, text):
    ballots = Ballots(tmp_path)
    ballots.add("pair", vote=1)
    only_file(tmp_path).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert ballots.read("pair") == Tally() and ballots.add("pair", vote=0) == Tally(1)
    assert json.loads(only_file(tmp_path).read_text()) == {"first": 1, "second": 0, "same": 0, "equal": 0}


def test_a_link_is_not_followed(tmp_path):
    ballots = Ballots(tmp_path / "votes")
    ballots.add("pair", vote=1)
    path = only_file(tmp_path / "votes")
    (tmp_path / "other.json").write_text(json.dumps(GOOD))
    path.unlink()
    path.symlink_to(tmp_path / "other.json")
    assert ballots.read("pair") == Tally() and ballots.add("pair", vote=1) == Tally(0, 1)
    assert json.loads((tmp_path / "other.json").read_text()) == GOOD


def test_where_the_disk_refuses_the_visit_counts(tmp_path):
    (tmp_path / "file").write_text("")
    ballots = Ballots(tmp_path / "file" / "votes")
    ballots.add("pair", vote=1)
    assert ballots.add("pair", vote=1) == ballots.read("pair") == Tally(0, 2)


def test_files_are_bounded(tmp_path):
    for number in range(KEPT + 3):
        path = tmp_path / f"{number:032}.json"
        path.write_text("{}")
        os.utime(path, (number, number))
    ballots = Ballots(tmp_path)
    ballots.add("pair", vote=1)
    left = list(tmp_path.glob("*.json"))
    assert len(left) == KEPT and ballots.read("pair") == Tally(0, 1) and not (tmp_path / f"{0:032}.json").exists()


def test_several_count_at_once(tmp_path):
    threads = [threading.Thread(target=lambda: Ballots(tmp_path).add("pair", vote=1)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Ballots(tmp_path).read("pair") == Tally(0, 12)


def test_words():
    assert Tally().words(NAMES) == "No votes yet." and Tally().p is None
    said = Tally(1, 9, 2, 1).words(NAMES)
    assert said.startswith("base 1, refined 9, the same 2. refined is preferred: were both equally good")
    assert "p = 0.021 (exact binomial test" in said and said.endswith("1 pair of equal answers left out.")
    assert "That is within chance" in Tally(4, 6).words(NAMES) and Tally(4, 6).p == pytest.approx(0.7539, abs=1e-4)
    assert Tally(5, 5).p == 1 and Tally(0, 0, 3).words(NAMES) == "base 0, refined 0, the same 3."


def test_pairs_are_known_by_names_and_tensors():
    import torch

    one = {"a": torch.zeros(2), "b": torch.ones(2)}
    pairs = [
        pair_of("m", one),
        pair_of("n", one),
        pair_of("m", {"a": torch.zeros(2)}),
        pair_of("m", {**one, "b": torch.zeros(2)}),
        pair_of("m", {"b": torch.zeros(2), "a": torch.ones(2)}),
    ]
    assert len(set(pairs)) == 5 and pairs[0] == pair_of("m", dict(reversed(one.items())))
