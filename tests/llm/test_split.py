"""Questions cut into parts: disjoint, in proportion, by the seed, and read back as they were."""

import json
from collections import Counter

import pytest

from d2nwg.cli import main
from d2nwg.llm.questions import Question, ask, complete, load_questions
from d2nwg.llm.split import parse_parts, row, split, write_parts
from d2nwg.utils.errors import UserError


def questions(name: str, count: int) -> list[Question]:
    return [ask(f"{name} {n}?", ["yes", "no"], n % 2) for n in range(count)]


def test_parts_are_disjoint_and_in_proportion():
    sources = [questions("a", 60), questions("b", 30), [complete(["c", f"d {n}"], "e", 1) for n in range(10)]]
    parts = split(sources, {"train": 40, "select": 20, "report": 30}, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"train": 40, "select": 20, "report": 30}
    keys = [question.key for part in parts.values() for question in part]
    assert len(set(keys)) == 90
    owner = {question.key: number for number, source in enumerate(sources) for question in source}
    for part in parts.values():
        for stretch in (part, part[: len(part) // 2]):
            counts = Counter(owner[question.key] for question in stretch)
            assert all(abs(counts[n] - len(stretch) * share) <= 1.5 for n, share in enumerate((0.6, 0.3, 0.1)))
    assert split(sources, {"train": 40, "select": 20, "report": 30}, seed=3) == parts
    assert split(sources, {"train": 40, "select": 20, "report": 30}, seed=4) != parts


def test_without_sizes_the_parts_are_thirds():
    assert [len(part) for part in split([questions("a", 11)], parse_parts(["x", "y", "z"])).values()] == [4, 4, 3]
    assert [len(part) for part in split([questions("a", 11)], parse_parts(["x", "y=2"])).values()] == [9, 2]


def test_equal_questions_come_into_one_part():
    first = questions("a", 12)
    second = [ask(f"A  {n}? ", ["No", "yes"], 1 - n % 2) for n in range(12)]  # the same ones, written otherwise
    for seed in range(5):
        parts = split([first, second], {"train": 12, "select": 6, "report": 6}, seed=seed)
        keys = [{question.key for question in part} for part in parts.values()]
        assert [len(part) for part in parts.values()] == [12, 6, 6]
        assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    with pytest.raises(UserError, match="some occur several times"):
        split([first, second], {"train": 13, "report": 11})


def test_what_is_written_is_read_as_it_was(tmp_path):
    odd = [ask("Question: \u2028 what?\nAnswer:", [" é ", "b"], 1), complete(["a\n", "b"], "“c”", 0)]
    parts = split([questions("a", 7), odd], {"one": None, "two": None})
    write_parts(parts, tmp_path / "out")
    assert {path.stem: load_questions(path) for path in (tmp_path / "out").iterdir()} == parts
    with pytest.raises(UserError, match="asked in words of its own"):
        row(Question(("Was it?",) * 2, (" a", " b"), 0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "train=8", "report=3"], "10 questions cannot be cut into train 8 + report 3"),
        (["--parts", "train=10", "report"], "cannot be cut into train 10 + report the rest"),
        (["--parts", "train=0"], "cannot be cut into"),
        (["--parts", "../x=1"], "is no part such as train=1400"),
        (["--parts", "a=-1"], "is no part such as train=1400"),
        (["--parts", "a=1", "A=1"], "Two parts are called A"),
        (["--out", "."], "exists already"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_parts({"q": questions("a", 10)}, tmp_path / "given")
    (tmp_path / "bad.jsonl").write_text("{")
    assert main(["llm", "split", "given/q.jsonl", "--out", "out", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_named(tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text("{")
    assert main(["llm", "split", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "Line 1 of bad.jsonl is not JSON" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_on_the_command_line(tmp_path, capsys):
    write_parts({"a": questions("a", 12), "b": questions("b", 6)}, tmp_path / "given")
    line = ["llm", "split", *(str(tmp_path / "given" / f"{name}.jsonl") for name in "ab"), "--seed", "1", "--out"]
    assert main([*line, str(tmp_path / "one")]) == 0
    assert "train: 6 questions (4 of " in capsys.readouterr().out
    assert main([*line, str(tmp_path / "two")]) == 0
    for name in ("train", "select", "report"):
        text = (tmp_path / "one" / f"{name}.jsonl").read_text()
        assert text == (tmp_path / "two" / f"{name}.jsonl").read_text()
        assert all(set(json.loads(one)) == {"question", "choices", "answer"} for one in text.splitlines())
