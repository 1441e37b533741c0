"""Solved questions before each question: drawn, joined and scored as lm-evaluation-harness does; and its tasks in which
a model writes."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest

from d2nwg.cli import main
from d2nwg.llm import questions as sources
from d2nwg.llm.generative import judge_task, load_source
from d2nwg.llm.models import load_language_model
from d2nwg.llm.pack import pack, room
from d2nwg.llm.presets import PRESETS
from d2nwg.llm.questions import ask, complete, load_questions
from d2nwg.llm.score import score_questions
from d2nwg.llm.shots import shot_facts, solved, with_shots
from d2nwg.llm.split import row
from d2nwg.utils.errors import UserError
from tests.llm.test_refine import TINY
from tests.tiny_llm import WORDS, make_tiny_llm

POOL = [ask(f"{word}?", ["up", "down"], n % 2) for n, word in enumerate(WORDS.split()[:12])]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_language_model(make_tiny_llm(tmp_path_factory.mktemp("tiny") / "tiny", layers=2), device="cpu")


def test_examples_are_others_with_their_right_choices():
    first, other = POOL[0], complete(["Look up", "Look down"], "now.", 1)
    asked = with_shots([first, other], [*POOL, other], 3, seed=1)
    texts = {f"Question: {word}?\nAnswer: {('up', 'down')[n % 2]}\n\n" for n, word in enumerate(WORDS.split()[:12])}
    for question, plain in zip(asked, (first, other), strict=True):
        assert replace(question, examples=()) == plain and question.key == plain.key
        assert len(set(question.examples)) == 3 and set(question.examples) < texts | {"Look down now.\n\n"}
    assert with_shots(POOL, POOL, 11) != with_shots(POOL, POOL, 11, seed=1)
    assert with_shots(POOL, POOL, 11) == with_shots(POOL, POOL, 11)
    for question, plain in zip(with_shots(POOL, POOL, 11), POOL, strict=True):  # all but itself
        assert set(question.examples) == texts - {plain.contexts[0] + plain.continuations[plain.answer] + "\n\n"}
    assert with_shots([other], [other, *POOL], 13 - 1)[0].examples
    assert with_shots(POOL, [], 0) == POOL and with_shots(asked, [], 3) == asked
    for pool, shots, words in (
        (POOL, 12, "12 examples before each question cannot be drawn from 11 other questions"),
        (POOL[:1], 1, "1 example before each question cannot be drawn from 0 other questions"),
        (POOL, -1, "from 0 to 100"),
        (POOL, 101, "from 0 to 100"),
    ):
        with pytest.raises(UserError, match=words):
            with_shots(POOL, pool, shots)


def test_the_foremost_examples_are_left_out_and_never_the_question(model):
    plain = ask("word " * 20, ["down", "up there"], 1)
    examples = tuple(f"Question: {word * 20}?\nAnswer: up\n\n" for word in WORDS.split()[:12])
    question = replace(plain, examples=examples)
    kept = room(model, question)[0]
    assert 2 < kept < 12

    def text(count):
        return replace(plain, contexts=tuple("".join(examples[12 - count :]) + text for text in plain.contexts))

    longest = [max(len(a) + len(b) for a, b in room(model, text(count))[1]) for count in (kept, kept + 1)]
    assert longest[0] <= model.context + 1 < longest[1]
    assert pack(model, question) == pack(model, text(kept))
    assert pack(model, question, 30) == pack(model, plain, 30)  # no room even for the question
    assert room(model, replace(plain, examples=examples[:2]))[0] == 2
    assert shot_facts(model, a=[question, plain], b=[plain]) == {"shots": 12, "fewer_shots": {"a": 1, "b": 0}}
    assert shot_facts(model, a=[plain]) == {}


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Local tasks of the harness, and the folder of their data."""
    lm_tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rng, words = np.random.default_rng(0), WORDS.split()
    for part, count in (("train", 12), ("test", 8)):
        rows = [
            {
                "q": " ".join(rng.choice(words, 5)) + "?",
                "choices": [str(word) for word in rng.choice(words, 3, replace=False)],
                "gold": int(rng.integers(3)),
            }
            for _ in range(count)
        ]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {part: str(tmp_path / f"{part}.jsonl") for part in ("train", "test")}},
        "test_split": "test",
        "doc_to_text": "Question: {{q}}\nAnswer:",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "output_type": "multiple_choice",
    }
    several = {"doc_to_text": "gold", "doc_to_target": "now.", "doc_to_choice": "{{[q + ' up', q + ' down', q]}}"}
    writes = {
        "output_type": "generate_until", "doc_to_target": "{{choices[gold]}}", "doc_to_choice": None, "num_fewshot": 1,
        "fewshot_split": "train", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    for name, changes in {
        "local": {"fewshot_split": "train"},
        "local_itself": {"fewshot_split": "test"},
        "local_described": {"fewshot_split": "train", "description": "Say what is right.\n\n"},
        "local_several": {"fewshot_split": "train", **several},
        "local_none": {"fewshot_split": "train", "num_fewshot": 0},
        "local_writes": writes,
    }.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"task": name, **common, **changes}))
    manager = lm_tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(sources, "task_manager", lambda: manager)
    return manager


@pytest.mark.parametrize("name", ["local", "local_itself", "local_described", "local_several"])
@pytest.mark.parametrize("shots", [0, 2])
def test_scores_with_examples_equal_the_harness(model, tasks, tmp_path, name, shots):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    wrapped = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=1, max_length=model.context)
    made = simple_evaluate(wrapped, tasks=[name], num_fewshot=shots, task_manager=tasks, bootstrap_iters=0)
    samples = sorted(made["samples"][name], key=lambda sample: sample["doc_id"])
    theirs = [[float(value) for value, _ in sample["filtered_resps"]] for sample in samples]
    questions = load_questions(f"lm-eval:{name}", shots)
    scores = score_questions(model, questions)
    np.testing.assert_allclose(np.array(scores.choices), theirs, atol=1e-4)
    assert scores.accuracy() == made["results"][name]["acc,none"]
    assert [len(question.examples) for question in questions] == [shots] * 8
    plain = [question.key for question in load_questions(f"lm-eval:{name}")]
    assert name == "local_described" or [question.key for question in questions] == plain
    if name == "local" and shots:  # examples from a file are joined alike
        rows = map(json.loads, (tmp_path / "train.jsonl").read_text().splitlines())
        file = [ask(row["q"], row["choices"], row["gold"]) for row in rows]
        assert {text for q in questions for text in q.examples} <= {solved(question) for question in file}


def write(path, questions):
    path.write_text("".join(json.dumps(row(question)) + "\n" for question in questions))
    return str(path)


def test_a_refinement_with_examples_and_a_task_in_which_the_model_writes(model, tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", {**TINY, "layers": 1, "candidates": 1})
    select, report = (write(tmp_path / f"{n}.jsonl", POOL[n::2]) for n in (0, 1))
    out = tmp_path / "refined"
    line = ["llm", "refine", str(model.folder), "--select", select, "--preset", "tiny", "--out", str(out)]
    line += ["--shots", "2", "--select-questions", "4", "--device", "cpu"]
    assert main([*line, "--report", report, "--shots-from", report]) == 2
    said = capsys.readouterr().err
    assert "The examples of --shots-from and the questions have 6 questions in common" in said
    assert main([*line, "--report", report, "lm-eval:local_writes"]) == 0
    made, said = json.loads((out / "report.json").read_text()), capsys.readouterr().out
    assert made["shots"] == 2 and made["fewer_shots"] == {"selection": 0, "report": 0}
    assert "The report questions: 2 examples before each." in said
    found = made["generative"]["lm-eval:local_writes"]
    assert set(found) == {"base", "refined"} and all(part["shots"] == 2 for part in found.values())
    assert found["refined"] == judge_task(
        load_language_model(out, device="cpu"), load_source("lm-eval:local_writes", 2)
    )
    assert "lm-eval:local_writes, refined: exact_match" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shots", "-1"], "must be a whole number from 0 to 100, not -1"),
        (["--shots", "101"], "must be a whole number from 0 to 100, not 101"),
        (["--shots", "12"], "12 examples before each question cannot be drawn from 11 other questions"),
        (["--shots", "2", "--shots-from", "one.jsonl"], "cannot be drawn from 1 other question:"),
        (["--shots", "1", "--shots-from", "all.jsonl"], "have 12 questions in common"),
        (["--shots-from", "one.jsonl"], "Say with --shots K"),
        (["lm-eval:local", "--shots", "13"], "The task local has no 13 examples to show"),
        (["lm-eval:local_none", "--shots", "1"], "The task local_none takes no examples"),
        (["lm-eval:local_gone"], "has no task local_gone"),
    ],
)
def test_what_cannot_be(arguments, words, model, tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "all.jsonl", POOL)
    write(tmp_path / "one.jsonl", [ask("hot?", ["up", "down"], 0)])
    with contextlib.suppress(SystemExit):
        assert main(["llm", "evaluate", str(model.folder), "all.jsonl", *arguments, "--device", "cpu"]) == 2
    said = capsys.readouterr()
    *progress, last = said.err.splitlines()
    assert words in last and not said.out and all("examples/s" in line for line in progress if line)


def test_a_task_that_the_harness_cannot_run_is_said(model, tasks):
    task = load_source("lm-eval:local_writes")
    task.config.generation_kwargs["max_gen_toks"] = model.context
    with pytest.raises(UserError, match=r"cannot run local_writes \(AssertionError"):
        judge_task(model, task)
