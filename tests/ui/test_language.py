"""What the Language tab does and says, without a browser."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from d2nwg.jobs import queue as jobs
from d2nwg.jobs.owner import EVERYTHING, STRANGER, Viewer, owner_of
from d2nwg.llm.chat import Answer, ChatSettings
from d2nwg.llm.conversation import Conversation, Turn
from d2nwg.llm.delta import save_delta
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.prompts import FIRST, PROMPTS
from d2nwg.llm.questions import load_questions
from d2nwg.llm.report import NAMES
from d2nwg.llm.tally import SAME, Tally
from d2nwg.ui import access
from d2nwg.ui.html import percent
from d2nwg.ui.language import api, making, models, refine_html, refining
from d2nwg.ui.language import html as views
from d2nwg.ui.language import service as own
from d2nwg.ui.parts import Refusal
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.llm_zoo import make_llm_zoo, random_questions, write_questions
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
    own.finish(talk, turn)
    assert talk.writing is None and len(talk.kept.turns) == 1

    calls = []

    def stop_soon(stage, done, total):
        calls.append(stage)
        if calls.count("Writing") > 4:
            raise Cancelled

    turn = own.answer(talk, "more?", BRIEF, None, progress=stop_soon)
    assert turn.answers[0].ended == "stopped" and 0 < turn.answers[0].tokens < 8
    own.finish(talk, None)
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


def test_three_answer_side_by_side(tiny, monkeypatch):
    model = own.load(tiny).model
    name = "model.layers.1.mlp.up_proj.weight"
    was = model.state_dict()[name].clone()
    talk = own.new_talk(tiny, ("base", "refined", "noise"))
    turn = own.answer(talk, "is it hot?", BRIEF, {name: 3 * was}, {name: -2 * was})
    alone = [
        own.answer(own.new_talk(tiny, ("base", "refined")), "is it hot?", BRIEF, {name: change * was}).answers[1].text
        for change in (3, -2)
    ]
    assert [answer.text for answer in turn.answers[1:]] == alone and len({a.text for a in turn.answers}) == 3
    assert (model.state_dict()[name] == was).all()
    monkeypatch.setattr("d2nwg.utils.limits.free_memory", lambda device: 1000.0)
    with pytest.raises(UserError, match="Another model to compare with needs 1 MB of memory"):
        own.answer(talk, "more?", BRIEF, {name: 3 * was}, {name: -2 * was})


def pair_talk(**said) -> own.Talk:
    """A conversation with two models, of one message."""
    talk = own.new_talk("m", ("base", "refined"))
    talk.pair, talk.lasting = "known", True
    answers = [Answer("<b>hot</b> water", 3, 1.0, "end"), Answer("<b>cold</b> water", 3, 1.0, "length")]
    talk.kept.turns = [Turn("<script>x</script>", answers, BRIEF, **said)]
    return talk


def test_panes_escape_and_mark():
    talk = pair_talk(vote=1)
    left, right = (views.pane(talk, side, False, True) for side in (0, 1))
    assert "<h4>base</h4>" in left and "<mark>&lt;b&gt;hot&lt;/b&gt;</mark> water" in left and "✓ better" in right
    assert "<mark>&lt;b&gt;cold&lt;/b&gt;</mark> water" in right and "3 tokens · 2.0 a second" in left
    assert "&lt;script&gt;" in left and "<script>" not in left and "cut at the longest answer" in right
    assert "<mark>" not in views.pane(talk, 0, False, False)
    assert "Refine the model" in views.pane(own.new_talk("m", ("base",)), 1, False, True)
    talk.kept = Conversation(("base", "refined", "noise"), talk.kept.turns)
    talk.kept.turns[0].answers.append(Answer("hot tea"))
    third = views.pane(talk, 2, True, True)
    assert (
        "<h4>noise</h4>" in third and "<mark>tea</mark>" in third and "<h4>base</h4>" in views.pane(talk, 0, True, True)
    )
    assert "Votes are between base and refined" in views.votes(talk, False)


def test_nothing_is_asked_before_there_is_an_answer():
    talk = pair_talk()
    talk.kept = Conversation(talk.kept.names, [])
    said = views.votes(talk, True)
    assert "Which answer" not in said and "Send a message: then say which answer is better." in said


def test_a_blind_conversation_hides_what_tells_the_models_apart():
    talk = pair_talk()
    talk.blind = talk.swapped = True
    for ticked in (True, False):  # the box may have been unticked while an answer was written
        left = views.pane(talk, 0, ticked, False)
        assert "<h4>A</h4>" in left and "cold" in left, "the refined model stands left"
        for word in ("base", "refined", "token", "second"):
            assert word not in left
        assert "Blind votes so far: 0" in views.votes(talk, ticked)
        assert views.votes(talk, ticked).startswith('<p class="hint">Which answer is better?')
    talk.writing, talk.answers = "more", [Answer("so", 2, 1.0), Answer("no", 1, 1.0)]
    assert "token" not in views.pane(talk, 0, True, False) and "second" not in views.pane(talk, 1, True, False)
    talk.writing, talk.blind = None, False  # after the vote all is shown, where it stood
    left = views.pane(talk, 0, True, False)
    assert "<h4>refined</h4>" in left and "cold" in left and "3 tokens" in left
    turn = replace(talk.kept.turns[0], vote=1, blind=True)
    said = views.voted(turn, talk.kept.names, True)
    assert said.startswith("Noted: A is better. A was refined, B was base.")
    assert views.voted(replace(turn, vote=0), talk.kept.names, False).startswith(
        "Noted: A is better. A was base, B was"
    )
    assert views.voted(replace(turn, vote=SAME), talk.kept.names, True).startswith("Noted: the same. A was refined")
    assert "It was not blind" in views.voted(replace(turn, blind=False), talk.kept.names, True)
    empty = own.new_talk("m", ("base", "refined"), talk)
    assert "<h4>A</h4>" in views.pane(empty, 0, True, False) and "<h4>base</h4>" in views.pane(empty, 0, False, False)


def test_a_blind_message_begins_a_new_conversation(monkeypatch):
    talk = pair_talk()
    talk.tally, talk.prompts = Tally(1, 2), [("so?", 0.1)]
    assert own.begin(talk, False) is talk and not talk.blind
    drawn = []
    monkeypatch.setattr(own.random, "random", lambda: drawn[-1])
    for draw in (0.1, 0.9):
        drawn.append(draw)
        fresh = own.begin(talk, True)
        assert fresh is not talk and fresh.blind and fresh.swapped == (draw < 0.5) and not fresh.kept.turns
        assert (fresh.pair, fresh.tally, fresh.prompts, fresh.lasting) == ("known", Tally(1, 2), [("so?", 0.1)], True)
        fresh.kept.turns = list(talk.kept.turns)
        drawn.append(1 - draw)
        assert own.begin(fresh, True) is fresh and fresh.swapped == (draw < 0.5), "it goes on, as it was drawn"
        fresh.blind = False  # as a vote does
        assert own.begin(fresh, True) is not fresh
        assert own.begin(fresh, False) is fresh and not fresh.blind
    one = own.new_talk("m", ("base",))
    assert own.begin(one, True) is one and not one.blind


def test_what_may_be_voted_for():
    talk = pair_talk()
    assert talk.open and not own.new_talk("m", ("base", "refined")).open
    talk.writing = "more"
    assert not talk.open
    talk.writing = None
    talk.kept.turns[0].vote = 1
    assert talk.open, "an open vote may be changed"
    talk.kept.turns[0].blind = True
    assert not talk.open, "a blind one has shown the names"
    same = pair_talk()
    same.kept.turns[0].answers[1] = Answer("<b>hot</b>  water")
    assert not same.open and "there is nothing to vote on" in views.votes(same, False)
    talk.tally = Tally(1, 8, 0, 2)
    said = views.votes(talk, False)
    assert (
        "Blind votes of all your conversations with these two: base 1, refined 8" in said and "2 pairs of equal" in said
    )
    assert "tick “Blind”" in said and "tick “Blind”" not in views.votes(talk, True)
    talk.lasting = False
    assert "of this visit" in views.votes(talk, False) and not views.votes(own.new_talk("m", ("base",)), False)


def test_where_votes_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path))
    monkeypatch.setattr(access.ACCESS, "shared_jobs", False)
    visitors = [Viewer(letter * 64) for letter in "ab"]
    assert (
        own.ballots_of(EVERYTHING).folder == own.ballots_of(Viewer("a" * 64, True)).folder == tmp_path / "votes" / "own"
    )
    assert {own.ballots_of(one).folder for one in visitors} == {tmp_path / "votes" / "visitors"}
    assert own.ballots_of(STRANGER).folder is None
    pairs = [own.known_pair("m", {}, viewer) for viewer in (EVERYTHING, Viewer("a" * 64, True), *visitors)]
    assert pairs[0] == pairs[1] and len(set(pairs)) == 3, "each visitor has their own, this machine's people one"
    monkeypatch.setattr(access.ACCESS, "shared_jobs", True)
    everybody = [Viewer(letter * 64, True) for letter in "ab"]
    assert len({own.known_pair("m", {}, viewer) for viewer in everybody}) == 2
    assert own.ballots_of(everybody[0]).folder == tmp_path / "votes" / "visitors"
    monkeypatch.setenv("SPACE_ID", "me/space")
    for viewer in (EVERYTHING, *visitors):
        ballots = own.ballots_of(viewer)
        assert ballots.add("pair", vote=1) == Tally(0, 1) and not list(tmp_path.iterdir())
    uploads = [own.known_pair(f"upload:/tmp/{folder}/mine.zip", {}, EVERYTHING) for folder in "ab"]
    assert uploads[0] == uploads[1], "where an upload lies is another place each time"


def test_prompts_that_tell_apart(tiny):
    model = own.load(tiny).model
    name = "model.layers.1.mlp.up_proj.weight"
    stages = []
    found = own.find_prompts(tiny, {name: 3 * model.state_dict()[name]}, 4, progress=lambda *s: stages.append(s))
    assert len(found) == 4 and abs(found[0][1]) >= abs(found[3][1]) > 0 and stages
    assert views.prompts(found) == [prompt for prompt, _ in found] and views.prompts([]) == list(FIRST)
    assert views.prompts([("so?", 1.0)]) == ["so?", *FIRST[:3]]
    assert views.telling_prompts([]) == ""
    said = views.telling_prompts([("a", 0.5), ("b", 0.125)])
    assert "less likely under the refined model, by 0.5 to 0.12 nats" in said and "nor which is better" in said
    assert "are likelier under" in views.telling_prompts([("a", -0.5)]) and "likelier or less" in views.telling_prompts(
        [("a", -1), ("b", 1)]
    )
    assert "No prompt of the list tells them apart" in views.telling_prompts([("a", 0.002)])


def test_the_endpoint_of_prompts_that_tell_apart(tiny, tmp_path, monkeypatch):
    state = own.load(tiny).model.state_dict()
    name = "model.layers.1.mlp.up_proj.weight"
    delta = save_delta(state, {name: 3 * state[name]}, tmp_path, name="tiny", facts={})
    monkeypatch.setattr(own, "own_file", Path)
    monkeypatch.setattr(api, "check_model", lambda name, file: name)

    def ask(*values):
        return asyncio.run(api.prompts(tiny, *values, progress=lambda *args, **kwargs: None))

    mine = ["is it hot?", "the water", "where?"]
    words, found = ask(str(delta), json.dumps(mine), 2)
    expected = own.find_prompts(tiny, {name: 3 * state[name]}, 2, mine)
    assert [(one["prompt"], one["difference"]) for one in found] == expected and len(found) == 2
    assert words == views.telling_words(expected) and "nats a token" in words
    assert {one["prompt"] for one in ask(str(delta), "", 3)[1]} < set(PROMPTS)
    for values, sentence in (
        ((None,), "Give the delta.safetensors of a refined model"),
        ((str(delta), "[", 4), "should be a JSON list of texts"),
        *(
            ((str(delta), text, 4), "should be a JSON list")
            for text in ("{}", "[1]", '[""]', '["\\ud800"]', "[" * 9**5)
        ),
        ((str(delta), json.dumps(["a"] * 201), 4), "Give at most 200 prompts; here are 201"),
        ((str(delta), "[]", 0), "The number of prompts should be a whole number from 1 to 200"),
    ):
        with pytest.raises(Refusal, match=sentence):
            ask(*values)


def test_files_of_a_conversation(tmp_path):
    talk = own.new_talk("m", ("base", "refined"))
    talk.kept = Conversation(talk.kept.names, [Turn("so?", [Answer("a", 1), Answer("b", 1)], BRIEF, vote=SAME)])
    as_json, as_text = own.write_talk(talk, tmp_path)
    assert json.loads(as_json.read_text())["votes"]["same"] == 1 and "> b" in as_text.read_text()


def test_what_a_refinement_may_be_asked():
    ranking = own.check_look("paper", 25)
    sets = {"select": ("built-in:selection", None), "report": ("built-in:report", None)}
    asked = refining.check("m", ranking, sets, "tiny", 4, 3, 0)
    assert asked.sets == {"select": "built-in:selection", "report": "built-in:report"} and asked.zoo is None
    assert (asked.config.layers, asked.config.candidates, asked.config.percent) == (4, 3, 25)
    for changed, numbers, words in (
        ({"select": ("own", None)}, ("tiny", 4, 3, 0), "Drop a JSONL file with the selection questions"),
        *(
            ({"select": (path, None)}, ("tiny", 4, 3, 0), "Choose the built-in questions")
            for path in ("/etc/passwd", "built-in/../x.jsonl", "built-in.jsonl", "lm-eval:/etc/x.yaml", "lm-eval:../x")
        ),
        ({"select": ("built-in:report", None)}, ("tiny", 4, 3, 0), "80 questions in common"),
        ({}, ("vast", 4, 3, 0), "one of the presets"),
        ({}, ("tiny", 4, 0, 0), "Candidates should be a whole number"),
        ({}, ("tiny", 1.5, 3, 0), "Matrices or groups should be a whole number"),
        ({}, ("tiny", 4, 3, None), "Seed should be a whole number"),
    ):
        with pytest.raises(UserError, match=words):
            refining.check("m", ranking, sets | changed, *numbers)
    with_examples = refining.check("m", ranking, sets, "tiny", 4, 3, 0, "accuracy", 79)
    assert (asked.shots, with_examples.shots) == (0, 79)
    for shots, words in (
        (80, "80 examples before each question cannot be drawn from 79 other questions: give a smaller number of"),
        (101, "Examples before each question should be a whole number from 0 to 100"),
        (None, "Examples before each question should be"),
    ):
        with pytest.raises(UserError, match=words):
            refining.check("m", ranking, sets, "tiny", 4, 3, 0, "accuracy", shots)
    assert refining.start_of("tiny") == {"layers": 4, "candidates": 3}
    assert refining.start_of("quick", True) == {"layers": 6, "candidates": 4} != refining.start_of("quick")
    assert [key for _, key in refining.presets()] == ["tiny", "quick", "standard", "paper"]


@pytest.fixture
def still(tmp_path, monkeypatch):
    """A cache of its own, any file counts as an upload, and no job begins."""
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    for module in (models, refining):
        monkeypatch.setattr(module, "own_file", Path)


def test_a_refinement_has_copies_of_what_was_uploaded(tiny, still, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "my model"), "zip", tiny)
    mine = write_questions(tmp_path / "mine.jsonl", random_questions(4, 1))
    sets = {"select": ("own", str(mine)), "report": ("built-in:report", None)}
    asked = refining.check(f"upload:{archive}", own.check_look("spectrum", 40), sets, "tiny", 2, 3, 5, "confidence", 2)
    owner = Viewer(owner_of("x" * 32))
    job = refining.submit(asked, owner)
    for path in (mine, Path(archive)):
        path.unlink()
    shutil.rmtree(models.private_root() / "models")
    parameters = job.spec["parameters"]
    assert job.owner == owner.owner and job.id.startswith("refine-my-model")
    assert (Path(job.model) / "config.json").is_file() and Path(job.model).parent == job.folder / "data"
    assert [Path(path).parent for path in parameters["select"]] == [job.folder / "data"]
    assert len(load_questions(parameters["select"][0])) == 4 and parameters["report"] == ["built-in:report"]
    assert parameters["shots"] == 2
    config = RefineConfig.from_config(parameters["config"])
    assert (config.mode, config.percent, config.layers, config.candidates) == ("spectrum", 40, 2, 3)
    assert (config.seed, config.criterion) == (5, "confidence")
    assert refining.submit(replace(asked, model="default", sets=dict.fromkeys(sets, "built-in")), owner).model


def test_which_zoos_there_are_for_a_model(tmp_path, monkeypatch):
    bases = {"default-one": "default", "hub": "hf:a/b", "plain": "a/b", "folder": f"{tmp_path}/x/../x", "secret": "a/b"}
    monkeypatch.setattr(refining, "list_language_zoos", lambda: {name: tmp_path / name for name in bases})
    monkeypatch.setattr(refining, "base_of", lambda path: bases[path.name])
    me, other = Viewer("me"), Viewer("other")
    (tmp_path / ".secret.owner").write_text("me")
    assert list(refining.zoos_of("a/b", me)) == ["hub", "plain", "secret"]
    assert list(refining.zoos_of("a/b", other)) == list(refining.zoos_of("a/b")) == ["hub", "plain"]
    assert refining.zoo_choices("default") == [
        ("a zoo of fine-tunes: default-one", "default-one"),
        ("this model alone", refining.ALONE),
    ]
    assert refining.zoo_choices("upload:/x/a.gguf") == [("this model alone", refining.ALONE)]
    assert refining.check_zoo("", "a/b", me) is refining.check_zoo(None, "a/b", me) is None
    assert refining.check_zoo("secret", "a/b", me) == tmp_path / "secret"
    for name in ("secret", "default-one", "/etc", 3, ["hub"]):
        with pytest.raises(UserError, match="not one of this model's here"):
            refining.check_zoo(name, "a/b", other)


def test_asking_for_a_zoo_of_fine_tunes(tiny, still, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "own_file", Path)
    mine = write_questions(tmp_path / "mine.jsonl", random_questions(20, 1))
    owner = Viewer(owner_of("x" * 32))
    assert making.described([mine]).startswith("20 questions: a fifth of them")
    job = making.submit(tiny, [mine], "mine", 3, 1, 10, 5, viewer=owner)
    parameters, config = job.spec["parameters"], job.spec["parameters"]["config"]
    assert job.owner == owner.owner and [Path(path).parent for path in parameters["data"]] == [job.folder / "data"]
    assert (config["seeds"], config["rows"], config["seed"], config["shape"]["base"]) == (3, 10, 5, tiny)
    assert (config["tune"]["epochs"], config["tune"]["keep"]) == (1, 1), "no more epochs are kept than there are"
    monkeypatch.setattr("d2nwg.llm.zoo_estimate.estimate", lambda tuning, progress: 90.0)
    said = making.measure("default", [mine], 3, 4, 0, 0)
    assert said.startswith("About 1 min 30 s on this machine, once the model is loaded: 3 fine-tunes, 4 epochs of 16 ")
    assert "and 4 others that score 6 checkpoints" in said
    for values, words in (
        ((tiny, [], "x", 1, 1, 0, 0), "Drop a JSONL file of questions"),
        (("upload:/x/m.gguf", [mine], "x", 1, 1, 0, 0), "an uploaded file has none that lasts"),
        ((tiny, [mine], "x", 0, 1, 0, 0), "Fine-tunes should be a whole number from 1"),
        ((tiny, [mine], "x", 1, None, 0, 0), "Epochs should be"),
        ((tiny, [mine], " ", 1, 1, 0, 0), "Give a name"),
        ((tiny, [mine], "mine", 1, 1, 0, 0), "The name mine is taken"),
        ((tiny, [write_questions(tmp_path / "one.jsonl", random_questions(1, 1))], "x", 1, 1, 0, 0), "are too few"),
    ):
        with pytest.raises(UserError, match=words):
            making.submit(*values, viewer=owner)


def test_a_zoo_is_offered_once_it_is_finished(tiny, still, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "own_file", Path)
    mine = write_questions(tmp_path / "mine.jsonl", random_questions(20, 1))
    owner, other = Viewer(owner_of("x" * 32)), Viewer(owner_of("y" * 32))
    job = making.submit(tiny, [mine], "mine", 1, 2, 0, 0, viewer=owner)
    assert list(refining.zoos_of(tiny, owner)) == []
    make_llm_zoo(tiny, job.out)
    assert list(refining.zoos_of(tiny, owner)) == ["mine"] and not refining.zoos_of(tiny, other)
    assert refining.outcome(job) is None and len(refining.log_of(job)) == 2
    base, made = job.checkpoints()
    said = refine_html.zoo_words("mine", base, made, True)
    best = max(one["accuracy"] for one in made)
    assert f"The best of 2 checkpoints is right on {percent(best)}, the base on {percent(base)}" in said
    assert said.count("<tr>") == 3 and "looks better than it is" in said
    assert "so far" in refine_html.zoo_words("mine", base, made, False)
    assert "unchanged model is right" in refine_html.zoo_words("mine", 0.5, [], False)
    assert refine_html.zoo_words("mine", None, [], False) == ""


def test_refining_and_sampling_here_and_now(tiny, tmp_path):
    sets = {
        key: ("own", write_questions(tmp_path / key, random_questions(6, 1 + (key == "report"))))
        for key in ("select", "report")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refining, "own_file", Path)
        asked = refining.check(tiny, own.check_look("paper", 25), sets, "tiny", 1, 1, 0)
    made = refining.make(asked, tmp_path / "work")
    assert set(made.report["rows"]) == {"base", "refined", "noise", "rank", "rebuilt"}
    delta, report = refining.files_of(made, tmp_path)
    assert (delta is None) == (not made.tensors) and json.loads(report.read_text())["select_questions"] == 6
    zoo = make_llm_zoo(tiny, tmp_path / "zoo").path
    sampled = refining.sample(tiny, zoo, 0)
    state = own.load(tiny).model.state_dict()
    assert sampled and all(not (value == state[name]).all() for name, value in sampled.items())
    with pytest.raises(UserError, match="Seed should be a whole number"):
        refining.sample(tiny, zoo, None)
    from_zoo = refining.make(replace(asked, zoo=zoo, criterion="confidence", shots=2), tmp_path / "other")
    assert (made.report.get("shots"), from_zoo.report["shots"]) == (None, 2)
    assert "the report questions with 2 examples before each" in refine_html.refined_words(from_zoo)
    assert from_zoo.report["zoo"]["name"] == "zoo" and refining.rows_figure(from_zoo) is not None


def test_what_is_said_before_there_is_a_report():
    assert refine_html.so_far(None, []) == ""
    assert "right on 37.5\u00a0% of 8 of 120 selection questions" in refine_html.so_far((3, 8, 120), [])
    said = refine_html.so_far((50, 120, 120), [LINE, {**LINE, "accepted": False}, {**LINE, "arm": "noise"}])
    assert "right on 41.7\u00a0% of all 120 selection" in said and "3 decisions so far; 1 of the refinement" in said
    assert "not scored" in refining.sampled_words(Path("z")) and "z" in refining.sampled_words(Path("z"))
    assert [key for _, key in refining.presets(True)] == [key for _, key in refining.presets()]
    assert not [words for words, _ in refining.presets(True) if "minutes" in words or "hour" in words]


def test_the_log_and_the_figures_of_a_zoo():
    tried = [{"score": -1.4, "tie": 0.5, "distance": 0.1}]
    whole = {**LINE, "type": "all", "layer": 0, "before": -1.5, "after": -1.4, "candidates": tried, "best": 0}
    log = [
        *({**whole, "arm": arm} for arm in ("single", "whole", "noised_whole")),
        *({**whole, "arm": arm, "type": "layer", "layer": 7} for arm in ("refined", "noised")),
    ]
    table = refine_html.log_table(log, "confidence")
    for words in (
        "best checkpoint<",
        "all layers<",
        "noise in all layers<",
        ">layer 7<",
        "checkpoint + noise · layer 7",
    ):
        assert words in table
    figure = refining.live_figure(log, "confidence")
    assert figure.layout.xaxis.ticktext == ("all", "7") and figure.layout.xaxis.tickvals == (-1, 0)
    names = ("base", "refined", "single", "soup", "noised")
    rows = {name: {"accuracy": 0.5, "interval": [0.4, 0.6]} for name in names}
    made = SimpleNamespace(report={"rows": rows, "report_questions": 80})
    assert [trace.y[0] for trace in refining.rows_figure(made).data] == [NAMES[name] for name in names]


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


def test_the_criterion_is_not_guessed_from_the_scores():
    """A model that is certain of every answer has a mean log-probability of 0."""
    log = [{**LINE, "before": 0.0, "best": 0, "candidates": [{"score": 0.0, "tie": 1.0, "distance": 0.1}]}]
    assert refine_html.log_table(log, "confidence").count("<td>0.0000</td>") == 2
    assert "%" not in refine_html.log_table(log, "confidence")
    assert "0.0\u00a0%" in refine_html.log_table(log, "accuracy")
    assert "log-probability" in refining.live_figure(log, "confidence").layout.yaxis.title.text
    assert "right, %" in refining.live_figure(log, "accuracy").layout.yaxis.title.text


def test_the_log_and_its_figure():
    log = [
        LINE,
        {**LINE, "number": 1, "type": "down", "accepted": False, "before": 0.55},
        {**LINE, "arm": "noise", "accepted": False, "after": 0.5},
    ]
    table = refine_html.log_table(log, "accuracy")
    assert table.count("✓ kept") == 1 and "noise · layer 3 · query" in table and "55.0" in table
    figure = refining.live_figure(log, "accuracy")
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert [[round(y, 6) for y in trace.y] for trace in dots] == [[40, 55], [40, 55, 40, 55]]
    assert [list(trace.marker.line.width) for trace in dots] == [[0, 0], [0, 2.5, 0, 0]]
    assert figure.layout.xaxis.ticktext == ("3 q", "3 down")
    rows = {name: {"accuracy": 0.5, "interval": [0.4, 0.6]} for name in ("base", "refined", "noise", "rank", "rebuilt")}
    made = SimpleNamespace(report={"rows": rows, "report_questions": 80})
    assert len(refining.rows_figure(made).data) == 5 and refining.rows_figure(SimpleNamespace(report={})) is None


def test_every_arm_is_a_row_of_the_result():
    names = ("base", "refined", "noise", "rank", "rebuilt")
    versus = {"difference": 0.01, "interval": [-0.02, 0.04]}
    rows = {name: {"accuracy": 0.5, "interval": [0.4, 0.6], "versus_base": versus} for name in names}
    del rows["base"]["versus_base"]
    rebuilt = dict(compression={"latents": 2.0}, error=0.5, selection_accuracy=0.3, base_selection_accuracy=0.4)
    report = dict(
        words=["So <much>.", "And more."], rows=rows, accepted=1, tried=2, config={"seed": 0, "candidates": 3},
        select_questions=4, report_questions=5, reconstruction=rebuilt,
    )  # fmt: skip
    page = refine_html.refined_words(SimpleNamespace(name="m", report=report))
    assert [page.index(f"<td>{name}</td>") > 0 for name in ("base", "refined", "noise", "rank cut", "rebuilt")]
    assert page.count("+1.0 points (-2.0 to +4.0)") == 4 and "2.0 numbers a latent" in page and "<much>" not in page
    assert "perfect generator draws its VAE" in refine_html.refining_places()
