"""The result side of the Generate tab: which head is in use, and what follows it."""

import csv
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d2nwg.data.images import load_images
from d2nwg.encoders.sentences import TEXTS
from d2nwg.encoders.split import read_split
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER
from d2nwg.evaluation.baselines import fit_baselines
from d2nwg.generate import Generation
from d2nwg.heads import Head
from d2nwg.ui.generate import cells, curve, elsewhere, finetune, html, items_html, luck, many
from d2nwg.ui.generate.made import Result
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import private_root
from d2nwg.utils.errors import UserError
from tests.helpers.reports import make_curve, make_named, make_report
from tests.ui.test_names import page  # noqa: F401 (a fixture)

CLASSES = ("blue", "green", "red")
BETTER = {"generated": 0.5, "class_mean": 0.6, "ridge": 0.9, "logistic_regression": 0.8}


@pytest.fixture
def result(page, monkeypatch, cheap_encoder, image_folder):  # noqa: F811
    """Shown on the page: a head that says red to everything, two samples, of which the second says blue, and baselines
    fitted to two images a class, of which ridge is recommended."""
    monkeypatch.setattr("d2nwg.encoders.open.load_encoder", lambda name, device=None: cheap_encoder)
    images = load_images(image_folder)
    data = read_split(images, cheap_encoder, 2, 0, None)
    bias = torch.tensor([[0.0, 0, 1], [1.0, 0, 0]])
    samples = {"weight": torch.zeros(2, 3, cheap_encoder.num_features), "bias": bias}
    info = {"selection": "sample 0", "num_query": len(data.query)}
    state = {name: tensor[0] for name, tensor in samples.items()}
    head = Head(state, cheap_encoder.name, CLASSES, cheap_encoder.preprocessing, info)
    report = make_report((0.33, 0.33), classes=list(CLASSES), recommended="ridge", cross_validation=BETTER)
    right, baselines = np.full(2, 1 / 3), fit_baselines(data.support, data.labels).linear()
    made = Generation(head, samples, report, np.zeros((3, 3), int), right, data, baselines)
    files = {name: made.head.save(page.visit.folder / f"{name}.safetensors") for name in ("head", "samples", "report")}
    page.visit.state(GenerateState).result = Result(images, made, files, (None, None))
    return page.visit.state(GenerateState).result


def upload(file: Path) -> str:
    """As if a visitor had chosen it."""
    folder = private_root() / f"upload-{file.stem}"
    folder.mkdir(exist_ok=True)
    return str(shutil.copy(file, folder / file.name))


def counts(figure) -> np.ndarray:
    """How many lie in each cell of a confusion figure."""
    return np.array([[int(text.split("<br>")[1].split(" of ")[0]) for text in row] for row in figure.data[0].hovertext])


def test_a_recommended_baseline_is_said_and_taken(page, result):  # noqa: F811
    results, state = page.results, page.visit.state(GenerateState)
    update = page.view.show(page.visit)
    assert "Take ridge instead: where images that generation may see are left out" in update[results.sentence]
    assert update[results.take]["visible"] and update[results.take]["value"] == "Take ridge instead"
    taken = page.view._take(page.visit)
    assert state.picked == "ridge" and taken[results.take]["visible"] is False
    saved = Head.load(taken[results.head]["value"])
    assert Path(taken[results.head]["value"]).name == "head-ridge.safetensors"
    assert torch.equal(saved.state["weight"], result.generation.baselines["ridge"]["weight"])
    assert "Ridge (baseline) predicts" in taken[results.seen]
    right = saved.info["query_accuracy"]
    assert f"In use: ridge (baseline), right on {100 * right:.1f}" in taken[results.picked]
    counted = counts(taken[results.confusion])
    assert counted.trace() / counted.sum() == pytest.approx(right), "the figure follows"
    with pytest.raises(UserError, match="A baseline is in use"):
        ask_finetune(page)
    back = page.view._pick(page.visit, SimpleNamespace(row_value=["chosen"]))
    assert state.picked is None and back[results.take]["visible"]
    assert counts(back[results.confusion])[:, 2].sum() == len(result.held_out()), "it says red to all"


def ask_finetune(page):  # noqa: F811
    from tests.ui.test_run import Trigger

    trigger = Trigger()
    parts = {**page.results.finetune, "go": SimpleNamespace(click=trigger)}
    with pytest.MonkeyPatch.context() as patch:
        asked = []
        patch.setattr(
            finetune, "Run", lambda *args: SimpleNamespace(on=lambda _, ask, *rest, **options: asked.append(ask))
        )
        finetune.wire(SimpleNamespace(session=None), parts)
    return asked[0](page.visit, 1, 1)


def test_without_a_recommendation_there_is_nothing_to_take(page, result):  # noqa: F811
    for recommended in (None, "generated"):
        result.generation.report = make_report((0.3, 0.3), classes=list(CLASSES), recommended=recommended)
        update = page.view.show(page.visit)
        assert "instead" not in update[page.results.sentence] and update[page.results.take]["visible"] is False
        assert "below ridge, the best of the three" in update[page.results.sentence]


def test_baselines_are_rows_to_pick(page, result):  # noqa: F811
    rows = result.table()["data"]
    assert [row[0] for row in rows] == [
        "chosen",
        "class mean (baseline)",
        "ridge (baseline)",
        "logistic regression (baseline)",
        "sample 0",
        "sample 1",
    ]
    for name, right, *_ in rows[1:4]:
        picked = html.picked_by(name)
        assert right == pytest.approx(100 * result.generation.baseline_head(picked).info["query_accuracy"])
        page.view._pick(page.visit, SimpleNamespace(row_value=[name]))
        assert page.visit.state(GenerateState).picked == picked and result.name(picked) == name
    assert html.picked_by("sample 12") == 12 and html.picked_by("chosen") is None


def test_many_follow_the_head_that_predicted(page, result, image_folder, tmp_path):  # noqa: F811
    parts, state = page.results.many, page.visit.state(GenerateState)
    archive = upload(Path(shutil.make_archive(str(tmp_path / "all"), "zip", image_folder)))
    loose = tmp_path / "<b>loose.png"
    shutil.copy(image_folder / "red" / "00.png", loose)
    made = many.make(result, None, [archive, upload(loose)], page.visit.subfolder())
    assert "The chosen head is right on 8 of 24 images in folders named as a class (33.3\u00a0%)." in made.said
    assert "Of 1 more the class is not known." in made.said and "<td>red</td>" in made.said
    assert made.said.count("<img") == items_html.MOST_PICTURES and made.said.count('class="wrong"') == 16
    assert made.said.index('class="wrong"') < made.said.index('class="right"'), "wrong ones come first"
    assert "<b>loose" not in made.said and "upload-" not in made.said
    table = list(csv.reader(made.file.open(newline="")))
    assert table[0][:5] == ["item", "predicted", "probability", "true", "right"] and len(table) == 26
    assert table[-1][0] == "<b>loose.png"

    state.predicted = made.result, made.picked
    assert many.follow(parts, state)[parts["stale"]] == ""
    picked = page.view._pick(page.visit, SimpleNamespace(row_value=["sample 1"]))
    assert "These are predictions of the chosen head, and sample 1 is in use now" in picked[parts["stale"]]
    again = many.make(result, 1, [archive], page.visit.subfolder())
    assert again.said.startswith("<p>Sample 1 is right on 8 of 24 images") and "<td>blue</td>" in again.said
    state.predicted = again.result, again.picked
    assert many.follow(parts, state)[parts["stale"]] == ""
    update = page.view.show(page.visit)
    assert update[parts["made"]]["visible"] is False and state.predicted is None


def test_what_cannot_be_predicted_is_a_sentence(page, result, tmp_path):  # noqa: F811
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for file in (tmp_path / "broken.png", Path(__file__)):
        with pytest.raises(UserError) as said:
            many.make(result, None, [upload(file)], page.visit.subfolder())
        assert "upload-" not in str(said.value) and str(private_root()) not in str(said.value)
        assert file.name in str(said.value)
    with pytest.raises(UserError, match="no longer here"):
        many.predict(result.head(None), ["/etc/passwd"], tmp_path)


def test_a_cell_shows_what_lies_in_it(page, result):  # noqa: F811
    images = result.truth() == 0
    said = cells.cell(result, None, 0, 2)
    assert f"{images.sum()} of {images.sum()} images of <b>blue</b> are taken for <b>red</b>." in said
    assert said.count("<img") == images.sum() == said.count("blue → red")
    assert "None of 6 images of <b>blue</b> is recognised" in cells.cell(result, None, 0, 0)
    assert "6 of 6 images of <b>blue</b> are recognised" in cells.cell(result, 1, 0, 0), "of the sample in use"


def test_a_zip_for_other_programs(page):  # noqa: F811
    d = 384
    state = {"weight": torch.randn(2, d), "bias": torch.zeros(2)}
    named = make_named(["cat", "dog"])
    named.head = Head(state, f"{TEXTS}{DEFAULT_TEXT_ENCODER}", ("cat", "dog"), {}, {"selection": "average"})
    result = Result(None, named, {}, (None, None))
    made = elsewhere.make(result, None, page.visit.subfolder())
    with zipfile.ZipFile(made.file) as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert {"classifier.skops", "predict.py", "README.md"} <= names
    assert made.file.name == "head-for-other-programs.zip"
    assert elsewhere.of(page.results.elsewhere, result)[page.results.elsewhere["card"]]["visible"]


def test_a_learning_curve_of_what_was_given(page, result, image_folder, monkeypatch):  # noqa: F811
    """With the result's bundle, samples, seed and new names; the update of another result leaves it away."""
    asked = {}
    monkeypatch.setattr(curve, "measure", lambda data, settings, progress: asked.update(settings) or make_curve())
    result.generation.report = make_report((0.3, 0.3), classes=[*CLASSES[:-1], "new"], bundle="tiny", seed=3)
    drawn = curve.make(result, 4)
    assert asked["draws"] == 4 and (asked["bundle"], asked["seed"]) == ("tiny", 3) and asked["names"][-1] == "new"
    assert len(drawn.figure.data) == 4 and drawn.result is result
    update = page.view.show(page.visit)
    assert update[page.results.curve_card]["visible"] and not update[page.results.curve["made"]]["visible"]
    result.generation.report = make_report((0.3, 0.3), classes=list(CLASSES), task="digits")
    assert not page.view.show(page.visit)[page.results.curve_card]["visible"], "more images would change nothing"


def test_how_much_luck_is_in_a_result(page, result, monkeypatch):  # noqa: F811
    """Other labelled images of those that were read, as many; not where that would say nothing, or take long."""
    asked = []
    monkeypatch.setattr(curve, "measure", lambda *given: asked.append(given) or make_curve(noun="<b>image"))
    report = result.generation.report = make_report((0.3, 0.3), classes=list(CLASSES), shots=2, seed=3)
    result.generation.data.query_index.sort()
    result.generation.data = replace(result.generation.data, query_index=result.generation.data.query_index[:6])
    assert result.draws is None and luck.repeats(result)
    drawn = luck.draw(result)
    (pool, settings, _), read = asked[0], result.generation.data
    assert settings["shots"] == [2] and settings["draws"] == 5 and settings["seed"] == 3
    numbers = sorted([*read.support_index, *read.query_index])
    assert len(pool) == 12 and pool.items == [result.images.items[number] for number in numbers]
    assert (pool.labels == result.images.labels[numbers]).all()
    assert " draws." in drawn.draws and "&lt;b&gt;image" in drawn.sentence() and "<b>image" not in drawn.sentence()
    for other in (
        {"num_unlabelled": 3},
        {"task": "digits"},
        {"num_support": luck.MOST + 1},
    ):
        result.generation.report = replace(report, **other)
        assert not luck.repeats(result)
    result.generation.report = report
    result.images = replace(result.images, is_test=result.images.labels == 0)
    assert not luck.repeats(result)
