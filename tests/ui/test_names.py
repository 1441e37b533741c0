"""The Generate tab with class names that somebody types: alone, and beside images."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from d2nwg.data.images import load_images
from d2nwg.heads import Head
from d2nwg.ui import session as sessions
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import html, tab
from d2nwg.ui.generate.layout import Choices, Results
from d2nwg.ui.generate.result import ResultView
from d2nwg.ui.generate.settings import DEFAULTS, NAMES, from_link
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.link import LONGEST
from d2nwg.ui.run import Run
from tests.helpers.images import make_image_folder
from tests.helpers.reports import make_named, make_report
from tests.ui.test_run import REQUEST, Trigger, updates

PETS = "tabby cat, golden retriever, red fox"


# ------------------------------------------------------------------------------------------------------ words


def test_what_to_expect_is_one_sentence():
    answer, how = html.named_sentences(make_named(["cat", "dog"]))
    assert answer.startswith("A head from such names is right on about 81% of images (give or take 10%")
    assert how.startswith("Made from the names of 2 classes alone: the average of 4 samples. 0.2 s. Without images")
    assert "<b>81%</b>" in html.named_result(make_named(["cat", "dog"]))


def test_far_names_are_warned_of():
    far = make_named(["cat", "dog"], variance=0.99)
    assert "far from all that the zoo knows" in html.named_sentences(far)[1]
    card = html.named_result(far)
    assert 'class="notice note"' in card and "<b>" not in card, "no number in bold that is little worth"
    assert "was not measured with this bundle" in html.named_sentences(make_named(["cat", "dog"], None))[0]


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (0.56, "The class names added 6.0 points: without them it reaches 56.0\u00a0%."),
        (0.65, "The class names cost 3.0 points: without them it reaches 65.0\u00a0%."),
        (0.62, "The class names changed nothing"),
        (None, ""),
    ],
)
def test_what_names_are_worth_stands_in_the_answer(without, words):
    answer = html.result_sentences(make_report(accuracy={"without_names": without}))[0]
    assert words in answer and ("class names" in answer) == (without is not None)


def test_a_link_presets_the_names():
    assert from_link({"names": PETS}) == ({"names": PETS, "example": NAMES}, ""), "no example, no images"
    assert from_link({"names": "0=zero", "example": "digits"}) == ({"names": "0=zero", "example": "digits"}, "")
    assert from_link({"example": NAMES}) == ({"example": NAMES}, "") and from_link({"names": " "}) == ({}, "")
    assert from_link({"names": "x" * LONGEST})[0]
    for names in ("x" * (LONGEST + 1), "\ud800, a"):
        values, missing = from_link({"names": names})
        assert values == {} and "class names" in missing


# ------------------------------------------------------------------------------------------------- the button


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The tab's controls and a visit without images; ``press(typed, ...)`` gives the update in the end."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    sessions.private_root.cache_clear()
    with gr.Blocks() as demo:
        frame = Frame(demo, gr.State(), gr.BrowserState(), gr.Dropdown(), None)
        choices, results = Choices(), Results()
        choices.go.click = trigger = Trigger()
        run = Run(frame.session, "generate", choices.go, choices.stop, choices.status)
        view = ResultView(frame, results)
        tab._wire_generate(frame, choices, view, run)
    visit = sessions.Session()

    def press(typed, example=NAMES, free=None, bundle=None, task=None, samples=4, shots=1):
        numbers = [shots, samples, 0, 5, 1000, task, DEFAULTS["sampler"]]
        begun = trigger.start(REQUEST, visit, example, typed, free, bundle, *numbers)
        return (updates(trigger.run, visit) or [begun])[-1] if visit.works else begun

    yield SimpleNamespace(choices=choices, results=results, view=view, visit=visit, press=press)
    visit.close()
    sessions.private_root.cache_clear()


def test_names_alone_make_a_head_to_try_and_to_take_away(page, image_folder):
    update, results = page.press(PETS), page.results
    assert 'class="notice good"' in update[page.choices.status]
    assert "A head from such names is right on about" in update[results.sentence]
    for part in (results.strip_card, results.confusion_card, results.table_card, results.another):
        assert update[part]["visible"] is False
    assert update[results.strip] is None and update[results.confusion] is None and update[results.made]["visible"]
    assert "will stand here" in update[results.seen] and update[results.picture]["value"] is None
    head = Head.load(update[results.head]["value"])
    assert head.classes == ("tabby cat", "golden retriever", "red fox") and update[results.head]["label"] == "Head"
    seen = page.view._try_upload(page.visit, str(image_folder / "blue" / "00.png"))[results.seen]
    assert "The head predicts" in seen and seen.count("<li>") == 3
    again = page.press("tabby cat, red fox")
    assert again[results.seen].count("<li>") == 2, "the picture is looked at by the next head"
    event = SimpleNamespace(row_value=["sample 1"])
    for update in (page.view._pick(page.visit, event), page.view._try_another(page.visit)):
        assert results.seen not in update, "there is no sample to pick, and no picture was held out"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "No class is named"),
        (" , \n", "No class is named"),
        ("cat", "cat is the only name"),
        ("cat, dog, Cat", "The name Cat is given twice"),
        (", ".join(f"class {i}" for i in range(10_000)), "10,000 names are too many"),
        ("🐱, 🐶", "The names 🐱 and 🐶 read the same"),
        ("/etc/hosts", "/etc/hosts is the only name"),
        ("x" * 500 + ", y", "has 500 characters"),
    ],
)
def test_bad_names_are_a_sentence_and_the_result_stays(page, typed, words):
    page.press(PETS)
    before = page.visit.state(GenerateState).result
    update = page.press(typed)
    assert 'class="notice bad"' in update[page.choices.status] and words in update[page.choices.status]
    assert "The result you had is still here." in update[page.choices.status]
    assert page.results.sentence not in update and page.visit.state(GenerateState).result is before


def test_what_names_alone_cannot_use(page, image_folder):
    told = page.press(PETS, bundle="heads-efficientnet-lite0")[page.choices.status]
    assert "heads-efficientnet-lite0 was trained without class names" in told
    free = page.press(PETS, free=[str(image_folder / "blue" / "00.png")])[page.choices.status]
    assert "Images without labels need labelled images" in free
    assert "choose the data again" in page.press(PETS, example="digits")[page.choices.status]


def test_the_box_renames_the_classes_of_images(page, tmp_path):
    state = page.visit.state(GenerateState)
    state.images = load_images(make_image_folder(tmp_path / "data", ("0", "1", "2"), 12))
    told = page.press("red, green", example="own")[page.choices.status]
    assert "2 names are given for 3 classes" in told and "choose “No images”" in told
    assert "There is no class x to rename" in page.press("x=red", example="own")[page.choices.status]
    update = page.press("0=crimson: a deep red, 2 = navy blue", example="own")
    assert state.result.generation.head.classes == ("crimson", "1", "navy blue")
    assert "The class names " in update[page.results.sentence]
    assert update[page.results.strip_card]["visible"] and update[page.results.another]["visible"]
    assert state.result.draw()[1] in state.result.generation.head.classes
    assert re.search(r"(✓ right|it is <b>(crimson|1|navy blue)</b>)", update[page.results.seen])
    page.press("one, two, three", example="own")
    assert state.result.generation.report.classes == ["one", "two", "three"]


# -------------------------------------------------------------------------------------------------- endpoint


def ask(served, *data):
    return served.client().post("/gradio_api/run/generate", json={"data": list(data)}).json()


def test_the_endpoint_takes_names_last(served):
    inputs = served.endpoints()["generate"].inputs
    values = [part.value for part in inputs]
    values[[part.label for part in inputs].index("Heads to generate")] = 4
    assert "Names of the classes" in inputs[-1].label
    words, report, head, *_ = ask(served, *values[:-1], "cat, dog: a tame wolf")["data"]
    assert words.startswith("A head from such names") and report["classes"] == ["cat", "dog"]
    assert report["num_samples"] == 4 and Head.load(head["path"]).classes == ("cat", "dog")
    assert "is given twice" in json.dumps(ask(served, *values[:-1], "cat, cat"))
    assert "Give image files" in json.dumps(ask(served, *values[:-1])), "it may be left out"


def test_a_report_without_names_says_nothing_of_them():
    report = make_report()
    assert "names" not in html.result(replace(report, data="pets"))
