"""What the Language tab does and says, without a browser."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from d2nwg.llm.chat import Answer, ChatSettings
from d2nwg.llm.conversation import SAME, Conversation, Turn
from d2nwg.ui.language import html as views
from d2nwg.ui.language import refining
from d2nwg.ui.language import service as own
from d2nwg.utils.errors import Cancelled, UserError
from tests.tiny_llm import make_tiny_llm

BRIEF = ChatSettings(max_tokens=8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny"))


def test_links_name_no_models():
    assert own.from_link({"mode": "spectrum", "percent": "40", "model": "/etc"}) == {"mode": "spectrum", "percent": 40}
    assert own.from_link({"mode": "x", "percent": "200"}) == own.from_link({"percent": "much"}) == {}


def test_looking(tiny):
    looked = own.look(tiny, "paper", 25)
    assert own.load(tiny) is own.load(tiny)  # one a process
    assert looked.size == own.load(tiny).model.num_parameters()
    assert "7 of the 21 matrices of 3 layers" in views.looked_words(looked)
    first = own.find(looked, own.first_pick(looked))
    assert first.chosen and "chosen" in views.matrix_name(first) and "above ε" in views.matrix_words(first)
    assert own.again(looked, "spectrum", 100).mode == "spectrum"
    assert all(row.chosen or row.snr is None for row in own.again(looked, "paper", 100).ranked)
    assert own.spectrum_chart(looked, first.matrix.name).layout.xaxis.title.text.startswith("singular value")
    with pytest.raises(UserError, match="no matrix nothing"):
        own.spectrum_chart(looked, "nothing")
    for wrong in ((None, 25), ("paper", 0), ("paper", 101), ("paper", "25"), ("paper", float("nan"))):
        with pytest.raises(UserError):
            own.check_look(*wrong)


def test_talking_stopping_and_finishing(tiny):
    talk = own.new_talk(tiny, ("base",))
    turn = own.answer(talk, "is it hot?", BRIEF, None)
    assert talk.writing == "is it hot?" and talk.answers == turn.answers and turn.answers[0].tokens == 8
    own.finish(talk, turn, False)
    assert talk.writing is None and len(talk.kept.turns) == 1

    calls = []

    def stop_soon(stage, done, total):
        calls.append(stage)
        if calls.count("Writing") > 4:
            raise Cancelled

    turn = own.answer(talk, "more?", BRIEF, None, progress=stop_soon)
    assert turn.answers[0].ended == "stopped" and 0 < turn.answers[0].tokens < 8
    own.finish(talk, None, False)
    assert len(talk.kept.turns) == 1
    for wrong in ("", "  ", None, "x" * 20_001):
        with pytest.raises(UserError):
            own.check_message(wrong)
    with pytest.raises(UserError, match="whole numbers"):
        own.chat_settings("", 0, 1, None, 5)


def test_a_variant_answers_beside_its_base(tiny):
    model = own.load(tiny).model
    name = "model.layers.1.mlp.up_proj.weight"
    was = model.state_dict()[name].clone()
    talk = own.new_talk(tiny, ("base", "refined"))
    turn = own.answer(talk, "is it hot?", BRIEF, {name: 3 * was})
    assert turn.answers[0].text != turn.answers[1].text
    assert turn.answers[0].text == own.answer(own.new_talk(tiny, ("base",)), "is it hot?", BRIEF, None).answers[0].text
    assert (model.state_dict()[name] == was).all()


def test_panes_escape_mark_and_hide():
    talk = own.new_talk("m", ("base", "refined"))
    talk.swapped = True
    said = [Answer("<b>hot</b> water", 3, 1.0, "end"), Answer("<b>cold</b> water", 3, 1.0, "length")]
    talk.kept.turns = [Turn("<script>x</script>", said, BRIEF, vote=1)]
    left, right = (views.pane(talk, side, False, True) for side in (0, 1))
    assert "<h4>base</h4>" in left and "<mark>&lt;b&gt;hot&lt;/b&gt;</mark> water" in left and "✓ better" in right
    assert "&lt;script&gt;" in left and "<script>" not in left and "cut at the longest answer" in right
    assert "<mark>" not in views.pane(talk, 0, False, False)
    blind = views.pane(talk, 0, True, False)  # swapped: the refined one stands left
    assert "<h4>A</h4>" in blind and "cold" in blind and "base" not in blind and "refined" not in blind
    assert views.voted(talk.kept.turns[0], talk.kept.names, True, True) == "Noted: A is better."
    assert views.voted(talk.kept.turns[0], talk.kept.names, False, True) == "Noted: refined is better."
    assert "Votes so far: 1" in views.votes(talk, True) and "refined 1" in views.votes(talk, False)
    assert "Refine the model" in views.pane(own.new_talk("m", ("base",)), 1, False, True)
    again = own.new_talk("m", ("base", "refined"), talk)  # a new conversation keeps the votes
    assert not again.kept.turns and len(again.votes.turns) == 1
    assert not own.new_talk("other", ("base", "refined"), talk).votes.turns


def test_files_of_a_conversation(tmp_path):
    talk = own.new_talk("m", ("base", "refined"))
    talk.kept = Conversation(talk.kept.names, [Turn("so?", [Answer("a", 1), Answer("b", 1)], BRIEF, vote=SAME)])
    as_json, as_text = own.write_talk(talk, tmp_path)
    assert json.loads(as_json.read_text())["votes"]["same"] == 1 and "> b" in as_text.read_text()


def test_what_a_refinement_may_be_asked():
    ranking = own.check_look("paper", 25)
    sets = {"select": ("built-in:selection", None), "report": ("built-in:report", None)}
    asked = refining.check("m", ranking, sets, "tiny", 4, 3, 0)
    assert (len(asked.selection), len(asked.report), asked.layers) == (80, 80, 4)
    for changed, numbers, words in (
        ({"select": ("own", None)}, ("tiny", 4, 3, 0), "Drop a JSONL file with the selection questions"),
        *(
            ({"select": (path, None)}, ("tiny", 4, 3, 0), "Choose the built-in questions")
            for path in ("/etc/passwd", "built-in/../x.jsonl", "built-in.jsonl", "lm-eval:/etc/x.yaml", "lm-eval:../x")
        ),
        ({"select": ("built-in:report", None)}, ("tiny", 4, 3, 0), "80 questions in common"),
        ({}, ("vast", 4, 3, 0), "one of the presets"),
        ({}, ("tiny", 4, 0, 0), "Candidates should be a whole number"),
        ({}, ("tiny", 1.5, 3, 0), "Matrices should be a whole number"),
        ({}, ("tiny", 4, 3, None), "Seed should be a whole number"),
    ):
        with pytest.raises(UserError, match=words):
            refining.check("m", ranking, sets | changed, *numbers)
    assert refining.start_of("tiny") == {"layers": 4, "candidates": 3}
    assert [key for _, key in refining.presets()] == ["tiny", "quick", "standard", "paper"]


LINE = {
    "arm": "refined",
    "number": 0,
    "name": "n",
    "layer": 3,
    "type": "q",
    "before": 0.5,
    "best": 1,
    "accepted": True,
    "candidates": [{"score": 0.4}, {"score": 0.55}],
    "after": 0.55,
    "seconds": 1.25,
}


def test_the_same_refinement_goes_on_where_it_was(tiny, tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    seen = []

    def note(model, selection, report, config, *, folder, resume, progress, on_event):
        assert resume and config.layers == 4 and (model, selection, report) == (asked.model, [1], [2])
        seen.append(folder)
        return folder

    monkeypatch.setattr("d2nwg.llm.refine.refine", note)
    asked = refining.Asked(tiny, {"mode": "paper", "percent": 25.0}, [1], [2], ("a", "b"), "tiny", 4, 3, 0)
    spare = tmp_path / "spare"
    first = refining.make(asked, spare, [])
    (first / "log.jsonl").write_text("{}")
    assert refining.make(asked, spare, []) == first != refining.make(replace(asked, seed=1), spare, [])
    with FileLock(f"{first}.lock"):
        assert refining.make(asked, spare, []) == spare, "somebody else is at it"
    weights = next(Path(tiny).glob("*.safetensors"))
    os.utime(weights, (1, 1))
    assert refining.make(asked, spare, []) not in (first, spare), "other weights"
    held = seen[1]
    for seed in range(2, 12):
        with FileLock(f"{held}.lock"):
            made = refining.make(replace(asked, seed=seed), spare, [])
        os.utime(made, (seed, seed))
    assert made.is_dir() and held.is_dir() and not seen[-10].is_dir()
    assert sum(path.is_dir() for path in made.parent.iterdir()) <= refining.KEPT + 1


def test_the_criterion_is_not_guessed_from_the_scores():
    """A model that is certain of every answer has a mean log-probability of 0."""
    log = [{**LINE, "before": 0.0, "candidates": [{"score": 0.0, "tie": 1.0, "distance": 0.1}]}]
    assert views.log_table(log, "confidence").count("<td>0.0000</td>") == 2
    assert "%" not in views.log_table(log, "confidence") and "0.0\u00a0%" in views.log_table(log, "accuracy")
    assert "log-probability" in refining.live_figure(log, "confidence").layout.yaxis.title.text
    assert "right, %" in refining.live_figure(log, "accuracy").layout.yaxis.title.text


def test_the_log_and_its_figure():
    log = [
        LINE,
        {**LINE, "number": 1, "type": "down", "accepted": False, "before": 0.55},
        {**LINE, "arm": "noise", "accepted": False, "after": 0.5},
    ]
    table = views.log_table(log, "accuracy")
    assert table.count("✓ kept") == 1 and "noise · layer 3 · query" in table and "55.0" in table
    figure = refining.live_figure(log, "accuracy")
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert [[round(y, 6) for y in trace.y] for trace in dots] == [[40, 55], [40, 55, 40, 55]]
    assert [list(trace.marker.line.width) for trace in dots] == [[0, 0], [0, 2.5, 0, 0]]
    assert figure.layout.xaxis.ticktext == ("3 q", "3 down")
    rows = {name: {"accuracy": 0.5, "interval": [0.4, 0.6]} for name in ("base", "refined", "noise")}
    made = SimpleNamespace(report={"rows": rows, "report_questions": 80})
    assert len(refining.rows_figure(made).data) == 3 and refining.rows_figure(SimpleNamespace(report={})) is None
