"""The Generate tab with a bundle of whole networks: what it makes, offers and refuses."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from safetensors.torch import load_file

from d2nwg.data.images import load_images
from d2nwg.evaluation.accuracy import confusion_matrix
from d2nwg.jobs.owner import STRANGER
from d2nwg.ui.generate import cells, many, network_html, networks, service
from d2nwg.ui.generate import settings as settings_of
from d2nwg.ui.generate.layout import ALONE, Choices
from d2nwg.ui.generate.settings import NAMES, SORTED, from_link
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import private_root
from d2nwg.ui.settings import bundle_choices, check_bundle, network_bundles
from d2nwg.ui.uploads import read_data
from d2nwg.utils.errors import UserError
from d2nwg.weights.network_files import read_network
from tests.helpers.reports import make_network_report
from tests.helpers.small_zoo import pictures
from tests.helpers.texts import write_topics
from tests.ui.test_names import page  # noqa: F401 (a fixture)

BUNDLE = "networks-28px"


@pytest.fixture
def digits(tmp_path):
    """An array file of three classes of 12 pictures."""
    images, labels = pictures(12, 0, 3)
    np.savez(tmp_path / "mine.npz", x=images.numpy()[:, 0], y=labels.numpy(), class_names=np.array(["a", "b", "c"]))
    return tmp_path / "mine.npz"


def test_the_words_of_a_result():
    answer, beside, made = network_html.sentences(make_network_report())
    assert answer.startswith("The generated network is right on 64.0\u00a0% of 1,200 images it never saw, without")
    assert beside.startswith("From the same 10 images, 50 gradient steps reach 60.0\u00a0%, the zoo's average trunk")
    assert "and a random network 10.0\u00a0%" in beside and "2 samples drawn by diffusion reach 55.0\u00a0%" in beside
    assert "the generated network is 4.0 points above the best of the baselines (50 gradient steps)." in beside
    assert "grey images of 8 × 8 pixels, made in 0.03 s, a time for 2 gradient steps." in made
    assert "it is 0.8 times as far as neighbours there are" in made


def test_the_bundle_is_offered_where_it_can_be_used():
    assert BUNDLE in bundle_choices() and bundle_choices()[0] == "heads-dual"
    assert list(network_bundles()) == [BUNDLE]
    assert from_link({"bundle": BUNDLE}) == ({"bundle": BUNDLE}, "")
    with pytest.raises(UserError, match="makes whole networks in Generate"):
        check_bundle(BUNDLE)
    kept = settings_of.check_settings(BUNDLE, 5, 5, 0, 5, 100)
    assert kept["bundle"] == BUNDLE and kept["num_samples"] == 5


def test_controls_without_a_use_are_hidden(page):  # noqa: F811
    choices: Choices = page.choices
    for networks_, example, hidden in (
        (True, "digits", {choices.names, choices.names_hint, choices.sampler, choices.free_part}),
        (False, "digits", set()),
        (False, SORTED, set()),
        (False, NAMES, {choices.shots, choices.steps, choices.most, choices.sampler, choices.free_part}),
    ):
        update = choices.fitting(example, networks_)
        hidden.add(choices.own_part if example == SORTED else choices.loose["part"])
        assert {part for part, change in update.items() if change.get("visible") is False} == hidden
        assert set(update) == set(choices.of_bundle)
        assert (ALONE in choices.examples(example, networks_)[choices.example]["choices"]) is not networks_


def test_images_make_a_network_to_try_and_take_away(page, digits, tmp_path):  # noqa: F811
    state, results = page.visit.state(GenerateState), page.results
    state.images = load_images(digits)
    update = page.press("typed before", example="own", bundle=BUNDLE, shots=3)
    assert 'class="notice good"' in update[page.choices.status], update[page.choices.status]
    report = state.result.generation.report
    assert f"<b>{100 * report.query_accuracy.network:.1f}" in update[results.sentence] and report.num_query == 6
    assert len(update[results.table]["data"]) == 5 and update[results.table]["data"][0][0] == "generated"
    assert update[results.onnx]["visible"] and "Pick a network" in update[results.titles["table"]]
    assert "The network predicts" in update[results.seen] and update[results.picture]["value"]
    network = read_network(results_file(update, results.head))
    assert network.classes == ("a", "b", "c") and network.bundle == BUNDLE
    truth = {bytes(state.images.items[i]): "abc"[state.images.labels[i]] for i in state.result.held_out()}
    assert len(truth) == 6 and truth[state.picture[0]] == state.picture[1]
    made = state.result
    confused = confusion_matrix(made.truth(), made.predicted(None), 3)
    assert (confused == made.generation.confusion).all() and made.recommended is None
    assert update[results.elsewhere["card"]]["visible"] is False and update[results.take]["visible"] is False
    cell = cells.cell(made, None, 0, 0)
    assert cell.count("<img") == confused[0, 0] and f"of <b>a</b> {'is' if confused[0, 0] < 2 else 'are'} recog" in cell
    picture = upload(write(tmp_path / "many.png", state.picture[0]))
    table = many.make(made, 2, [picture], tmp_path)
    assert table.said.startswith("<p>Sample 2 has labelled 1 image; how many are right is not known")

    picked = page.view._pick(page.visit, SimpleNamespace(row_value=["sample 2"]))
    assert "Sample 2 predicts" in picked[results.seen] and "In use: sample 2, right on" in picked[results.picked]
    assert "network-sample-2.safetensors" in picked[results.snippet]
    sample = read_network(results_file(picked, results.head))
    assert not np.allclose(sample.state["head.weight"], network.state["head.weight"])
    pixels = sample.read(state.picture[0], sample.scale)[None]
    session = onnxruntime.InferenceSession(results_file(picked, results.onnx))
    (said,) = session.run(None, {"images": pixels.numpy()})
    assert np.allclose(said, sample.logits(pixels).softmax(1), atol=1e-5)

    chosen, samples = (upload(results_file(update, part)) for part in (results.head, results.everything))
    one = read_network(service.take_sample(chosen, samples, 2, tmp_path))
    assert all((one.state[name] == sample.state[name]).all() for name in one.state)
    picture = upload(write(tmp_path / "x.png", state.picture[0]))
    assert set(service.predict(chosen, image=picture)) == {"a", "b", "c"}
    with pytest.raises(UserError, match="This network takes a picture, not a text"):
        service.predict(chosen, text="a")


def test_training_it_further(page, digits, tmp_path):  # noqa: F811
    from d2nwg.ui.generate import finetune

    state = page.visit.state(GenerateState)
    state.images = load_images(digits)
    page.press("", example="own", bundle=BUNDLE, shots=3, samples=1)
    start = state.result.head(None)
    bundle = networks.bundle_of(start, STRANGER)
    assert bundle.name == BUNDLE
    report, file = finetune.finetune(start, state.images, {"epochs": 1, "seeds": 1}, tmp_path, bundle)
    assert report.kind == "network" and report.num_shown == 9 and report.curve("nearest") is not None
    assert report.curve("generated").at(0)[0] == pytest.approx(start.info["query_accuracy"])
    assert set(load_file(file)) == set(start.state) and read_network(file).info["finetuned"]["epochs"] == 1


def test_what_networks_are_not_made_from(page, digits, tmp_path):  # noqa: F811
    said = page.press("cat, dog", bundle=BUNDLE)[page.choices.status]
    assert "makes whole networks from images, some of each class, and not from class names alone" in said
    page.visit.state(GenerateState).images = read_data(files=[upload(write_topics(tmp_path / "topics.csv"))])
    assert "and not from texts" in page.press("", example="own", bundle=BUNDLE)[page.choices.status]
    page.visit.state(GenerateState).images = load_images(digits)
    assert (
        "training images but 11 are needed"
        in page.press("", example="own", bundle=BUNDLE, shots=11)[page.choices.status]
    )
    many = replace(load_images(digits), classes=tuple(map(str, range(1001))))
    page.visit.state(GenerateState).images = many
    said = page.press("", example="own", bundle=BUNDLE)[page.choices.status]
    assert "mine has 1,001 classes, and a small network tells at most 1,000 apart" in said
    given = settings_of.check_settings(BUNDLE, 3, 2, 0, 5, 100)
    for more, words in (((None, "x"), "Class names"), ((["x"], ""), "Images without labels")):
        with pytest.raises(UserError, match=f"{words} cannot be used by the bundle {BUNDLE}"):
            service.generate(load_images(digits), given, tmp_path / "made", *more)


def results_file(update: dict, part) -> str:
    return str(update[part]["value"] if isinstance(update[part], dict) else update[part])


def upload(file) -> str:
    """As if a visitor had chosen it."""
    target = private_root() / f"upload-{Path(file).name}"
    shutil.copy(file, target)
    return str(target)


def write(path, content: bytes):
    path.write_bytes(content)
    return path
