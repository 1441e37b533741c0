"""The Generate tab with texts: what is shown of them, the words of a result, trying texts, and the endpoints."""

import shutil

import pytest

from d2nwg.data.sources import load_data
from d2nwg.heads import Head
from d2nwg.ui import html as views
from d2nwg.ui.generate import html, service
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import private_root
from d2nwg.ui.uploads import read_data, read_images
from d2nwg.utils.errors import UserError
from tests.helpers.reports import make_report
from tests.helpers.texts import topic_rows, write_pairs, write_topics
from tests.ui.test_names import page  # noqa: F401 (a fixture)


def upload(file):
    """As if a visitor had chosen it."""
    target = private_root() / file.name
    shutil.copy(file, target)
    return str(target)


def test_some_texts_of_each_class_are_shown(tmp_path):
    shown = views.examples(load_data(write_topics(tmp_path / "topics.csv")))
    assert "3 classes · 36 texts" in shown and shown.count('class="row"') == 3
    assert "The soup needs more salt." in shown and "Columns used: text and label." in shown
    shown = views.examples(load_data(write_pairs(tmp_path / "pairs.csv")))
    assert "2 classes · 20 pairs" in shown and " | " in shown


def test_the_words_of_a_result_are_about_texts():
    words = " ".join(html.result_sentences(make_report(noun="text")))
    assert "texts it never saw" in words and "Fitted to the same" in words and "image" not in words
    assert "texts a class seen" in html.result(make_report(noun="text"))


def test_texts_make_a_head_to_try(page, tmp_path):  # noqa: F811
    state, results = page.visit.state(GenerateState), page.results
    state.images = read_data(files=[upload(write_topics(tmp_path / "topics.csv"))])
    free = tmp_path / "more.txt"
    free.write_text("\n".join(text for text, _ in topic_rows(16)))
    update = page.press("", example="own", free=[upload(free)], samples=4, shots=2)
    assert 'class="notice good"' in update[page.choices.status], update
    assert "12 unlabelled texts took part" in update[results.sentence]
    assert update[results.text]["visible"] and update[results.text]["value"] and not update[results.picture]["visible"]
    assert not update[results.second]["visible"] and update[results.try_text]["visible"]
    assert "The generator has not seen this text" in update[results.seen]
    assert '["A text."]' in update[results.snippet] and Head.load(update[results.head]["value"]).noun == "text"
    seen = page.view._try_text(page.visit, "Bake the bread.", "")[results.seen]
    assert "predicts <b>cooking</b>" in seen
    assert "nothing to read" in page.view._try_text(page.visit, "", "")[results.seen]
    other = page.view._try_another(page.visit)
    assert other[results.text]["value"] in dict(topic_rows(16)) and "right" in other[results.seen] + "right"


def test_pairs_show_two_boxes(page, tmp_path):  # noqa: F811
    page.visit.state(GenerateState).images = read_data(files=[upload(write_pairs(tmp_path / "pairs.csv"))])
    update = page.press("", example="own", samples=2, shots=2)
    results = page.results
    assert update[results.second]["visible"] and update[results.second]["value"] and update[results.text]["value"]
    assert "predicts" in page.view._try_text(page.visit, "One soup.", "A goal.")[results.seen]
    assert "Write both texts." in page.view._try_text(page.visit, "One soup.", "")[results.seen]


def test_a_head_of_texts_is_asked_by_programs(page, tmp_path):  # noqa: F811
    page.visit.state(GenerateState).images = read_data(files=[upload(write_topics(tmp_path / "topics.csv"))])
    page.press("", example="own", samples=2, shots=2)
    made = page.visit.state(GenerateState).result.generation
    head = upload(made.head.save(tmp_path / "head.safetensors"))
    found = service.predict(head, text="The keeper let the ball in.")
    assert max(found, key=found.get) == "football"
    with pytest.raises(UserError, match="takes a text, not two texts"):
        service.predict(head, text="a", second="b")
    with pytest.raises(UserError, match="takes a text, not a picture"):
        service.predict(head, image="x.png")
    with pytest.raises(UserError, match="a picture or a text"):
        service.predict(head)
    made.head.encoder = "texts/somebody/else"
    with pytest.raises(UserError, match="can be tried here"):
        service.predict(upload(made.head.save(tmp_path / "other.safetensors")), text="a")


def test_other_tabs_take_images_alone(page, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match=r"pack the files as a zip"):
        read_images(files=[upload(write_topics(tmp_path / "topics.csv"))])
