"""Questions for language models: files good and bad, the built-in set, tasks of lm-evaluation-harness."""

import gzip
import json
import re
from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import pytest

from d2nwg.llm.questions import (
    Question,
    ask,
    built_in,
    check_disjoint,
    complete,
    from_harness,
    halve,
    load_questions,
    read_questions,
)
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import shipped

GOOD = {"question": "What is ice? ", "choices": ["frozen water", "a stone"], "answer": 0}


def write(folder, *lines, name="set.jsonl"):
    path = folder / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_both_kinds_are_asked_as_the_harness_asks(tmp_path):
    second = {
        "contexts": ["The cup fell off the shelf", "The cup fell off the table "],
        "continuation": "and broke.",
        "answer": 1,
    }
    path = write(tmp_path, GOOD, "", second)
    first, other = read_questions(path)
    assert first == Question(("Question: What is ice?\nAnswer:",) * 2, (" frozen water", " a stone"), 0)
    assert other.contexts == ("The cup fell off the shelf", "The cup fell off the table")
    assert other.continuations == (" and broke.", " and broke.") and other.answer == 1
    packed = tmp_path / "set.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_questions(packed) == [first, other]
    alike = write(tmp_path, {**GOOD, "choices": ["a", "b", "a"], "answer": 1}, name="alike.jsonl")
    assert read_questions(alike)[0].continuations == (" a", " b", " a")  # published sets hold some
    marked = tmp_path / "marked.jsonl"  # as some editors save it
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_questions(marked) == [first, other]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"question": "x", "choices": ["a", "b"', "Line 2 of set.jsonl is not JSON"),
        ("[1, 2]", "Line 2 of set.jsonl is no JSON object"),
        ({**GOOD, "answer": 2}, "answer 2 is out of range; its choices are 0 to 1"),
        ({**GOOD, "answer": -1}, "answer -1 is out of range"),
        ({**GOOD, "answer": "0"}, "answer should be the index"),
        ({**GOOD, "answer": True}, "answer should be the index"),
        ({**GOOD, "choices": []}, "Line 2 of set.jsonl has 0 choices"),
        ({**GOOD, "choices": ["one"]}, "has 1 choices"),
        ({**GOOD, "choices": "ab"}, "choices should be a list of texts"),
        ({**GOOD, "choices": ["a", 3]}, "choices should be a list of texts"),
        ({**GOOD, "choices": ["a", " "]}, "an empty text among its choices"),
        ({**GOOD, "choices": ["a", "a "], "answer": 0}, "its right answer twice"),
        ({**GOOD, "question": 3}, "question should be a text"),
        ({**GOOD, "question": "\ud800"}, "half a character"),
        ({"question": "x", "answer": 0}, "neither choices nor contexts"),
        ({"contexts": ["a", "b"], "answer": 0}, "continuation should be a text"),
        ("[" * 100_000, "Line 2 of set.jsonl is not JSON"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, bad, words):
    with pytest.raises(UserError, match=re.escape(words)) as said:
        read_questions(write(tmp_path, GOOD, bad, GOOD))
    assert str(said.value).startswith("Line 2 of set.jsonl")


def test_files_that_are_none(tmp_path, monkeypatch):
    latin = json.dumps(GOOD).encode() + b"\n\xff\xfe"
    for data, words in ((b"", "holds no questions"), (latin, "Line 2 .* not UTF-8")):
        (tmp_path / "x.jsonl").write_bytes(data)
        with pytest.raises(UserError, match=words):
            read_questions(tmp_path / "x.jsonl")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 50)[:-12])
    with pytest.raises(UserError, match="damaged"):
        read_questions(cut)
    cut.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="damaged"):
        read_questions(cut)
    with pytest.raises(UserError, match=r"gone.jsonl cannot be read: no such file"):
        read_questions(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match="is no regular file"):
        read_questions(tmp_path)
    monkeypatch.setattr("d2nwg.llm.questions.MAX_BYTES", 100)
    with pytest.raises(UserError, match="larger than"):
        read_questions(write(tmp_path, GOOD, GOOD, GOOD))


def test_selection_and_report_never_overlap(tmp_path):
    one, two, three = ask("a?", ["x", "y"], 0), ask("b?", ["x", "y"], 1), complete(["c", "d"], "e", 0)
    assert halve([one, two, three]) == ([one, three], [two])
    again = ask(" A?", ["Y", "x "], 1)  # the same but for order, capitals and spaces
    check_disjoint([one], [two, three])
    with pytest.raises(UserError, match="1 question in common, such as “A\\?”"):
        check_disjoint([one, three], [two, again])
    with pytest.raises(UserError, match="in common"):
        halve([one, again])


def test_the_built_in_set():
    questions = built_in()
    assert len(questions) == 160 and all(len(question.continuations) == 4 for question in questions)
    for half in halve(questions):  # guessing one position gains nothing
        assert Counter(question.answer for question in half) == {0: 20, 1: 20, 2: 20, 3: 20}
    assert load_questions("built-in:selection") + load_questions("built-in:report") == questions[::2] + questions[1::2]
    with pytest.raises(UserError, match="halves selection and report"):
        load_questions("built-in:all")
    words = [frozenset(question.contexts[0].casefold().split()) for question in questions]
    alike = [(a, b) for a, b in combinations(words, 2) if len(a & b) / len(a | b) > 0.8]
    assert not alike


def test_the_built_in_arithmetic_is_right():
    lines = (shipped("assets") / "questions.jsonl").read_text("utf-8").splitlines()
    checked = 0
    for row in map(json.loads, lines):
        asked = row["question"].removeprefix("What is ").rstrip("?")
        asked = asked.replace(" times ", "*").replace(" divided by ", "/").replace(" ", "")
        if re.fullmatch(r"\d+([-+*/]\d+)+", asked):
            total, rest = int(re.match(r"\d+", asked)[0]), re.findall(r"([-+*/])(\d+)", asked)
            for sign, value in rest:
                total = {
                    "+": total + int(value),
                    "-": total - int(value),
                    "*": total * int(value),
                    "/": total / int(value),
                }[sign]
            assert float(row["choices"][row["answer"]].replace(",", "")) == total, row
            checked += 1
    assert checked >= 10


class Task:
    """What the harness's ConfigurableTask offers, of the size that is used."""

    OUTPUT_TYPE = "multiple_choice"
    multiple_input = 0
    eval_docs = [
        {"q": "Is fire hot?", "options": ["yes", "no"], "gold": 0},
        {"q": "Is ice hot?", "options": ["yes", "no"], "gold": 1},
    ]

    def doc_to_choice(self, doc):
        return doc["options"]

    def doc_to_text(self, doc):
        return doc["gold"] if self.multiple_input else f"Question: {doc['q']}\nAnswer:"

    def doc_to_target(self, doc):
        return "then." if self.multiple_input else doc["gold"]

    def fewshot_context(self, doc, num_fewshot):
        assert num_fewshot == 0
        return "" if self.multiple_input else self.doc_to_text(doc)

    def construct_requests(self, doc, ctx):
        pairs = [
            (ctx + choice, f" {self.doc_to_target(doc)}") if self.multiple_input else (ctx, f" {choice}")
            for choice in self.doc_to_choice(doc)
        ]
        return [SimpleNamespace(args=pair) for pair in [*pairs, *(("", pair[1]) for pair in pairs)]]


def test_tasks_of_the_harness():
    assert from_harness(Task(), "t") == [ask("Is fire hot?", ["yes", "no"], 0), ask("Is ice hot?", ["yes", "no"], 1)]
    several = Task()
    several.multiple_input = 2
    assert from_harness(several, "t", limit=1) == [complete(["yes", "no"], "then.", 0)]
    several.OUTPUT_TYPE = "generate_until"
    with pytest.raises(UserError, match="does not ask for one of several choices"):
        from_harness(several, "t")
    vague = Task()
    vague.doc_to_target = lambda doc: [0, 1]
    with pytest.raises(UserError, match="exactly one right choice"):
        from_harness(vague, "t")


def test_the_harness_may_be_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.tasks", None)
    with pytest.raises(UserError, match="pip install lm_eval"):
        load_questions("lm-eval:arc_easy")
