"""The result that stands on the page at first, and the cards above it."""

import json
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from d2nwg.conditions.class_names import split_names
from d2nwg.data.examples import example_folder
from d2nwg.evaluation.accuracy import confusion_matrix
from d2nwg.heads import Head
from d2nwg.ui.generate import first
from d2nwg.ui.generate.cards import CARDS, FIRST, NUMBERS, PICTURED, read_and_generate, without_labels
from d2nwg.ui.generate.settings import DEFAULTS, NAMES, as_at_first, check_settings, from_link
from d2nwg.ui.session import new_folder
from d2nwg.ui.settings import default_bundle
from d2nwg.weights.networks import logits, pick


def test_it_is_what_the_default_bundle_gives(tmp_path):
    facts = json.loads((first.STORED / "first.json").read_text())
    assert facts["bundle"] == first.fingerprint(), "run python -m d2nwg.ui.generate.first: the bundle is a new one"
    made = first.write(tmp_path)
    new, old = (json.loads((folder / "report.json").read_text()) for folder in (tmp_path, first.STORED))
    one = 1.01 / new["num_query"]  # images are decoded, and float32 sums differ, a little from machine to machine
    for report in (new, old):
        del report["seconds"], report["device"]
        samples = [number for sample in report.pop("samples") for number in sample.values()]
        report["numbers"] = [*report.pop("query_accuracy").values(), *report.pop("novelty").values(), *samples]
    of_one_class, left_out = 1.01 / 7, 1.01 / new["num_support"]  # the smallest class has 7 query images
    for part, tolerance in (("numbers", one), ("per_class", of_one_class), ("cross_validation", left_out)):
        assert new.pop(part) == pytest.approx(old.pop(part), abs=tolerance)
    assert new == old
    again = json.loads((tmp_path / "first.json").read_text())
    assert again["query"] == facts["query"] and again["tried"]["item"] == facts["tried"]["item"]
    mean, others = (float(re.search(r"right on ([\d.]+)%", found["draws"])[1]) for found in (again, facts))
    assert "of 5 draws." in facts["draws"] and mean == pytest.approx(others, abs=100 * one)
    assert again["tried"]["likeliest"] == pytest.approx(facts["tried"]["likeliest"], abs=0.02)
    assert abs(torch.tensor(again["confusion"]) - torch.tensor(facts["confusion"])).sum() <= 4
    for name in ("head", "samples", *first.BASELINES):
        measured, stored = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, first.STORED))
        for key, tensor in stored.items():
            torch.testing.assert_close(measured[key], tensor, rtol=2e-3, atol=2e-3 * float(tensor.abs().max()))
    samples = {name: tensor.float() for name, tensor in load_file(tmp_path / "samples.safetensors").items()}
    for number, right in enumerate(made.sample_accuracy):  # half precision costs none of them anything
        half = (logits(pick(samples, number), made.data.query).argmax(-1) == made.data.query_labels).float().mean()
        assert float(half) == pytest.approx(float(right), abs=one)


def test_the_page_shows_it_without_torch():
    code = (
        "import sys; import d2nwg.ui.app; from d2nwg.ui.generate.first import first_result; made = first_result(); "
        "item, truth = made.draw(); made.table(), made.recommended, made.strip(3), made.about(None); "
        "made.seconds, made.scale; "
        "print(made.sentence(), made.snippet(made.files['head']), made.known[None, item], truth); "
        "print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    report = json.loads((first.STORED / "report.json").read_text())
    right = f"{100 * report['query_accuracy']['chosen']:.1f}\u00a0%"
    assert right in shown and "of 5 draws" in shown and first.BEFOREHAND in shown and shown.split()[-1] == "False"


def test_its_files_and_heads_are_real(tmp_path):
    made = first.first_result()
    assert Head.load(made.files["head"]).classes == tuple(made.generation.report.classes)
    assert json.loads(made.files["report"].read_text())["bundle"] == default_bundle()
    samples = load_file(made.files["samples"])
    assert len(samples["bias"]) == DEFAULTS["samples"]
    picked = Head.load(made.save(7, tmp_path)["head"])
    assert torch.equal(picked.state["weight"], samples["weight"][7].float())
    assert picked.info["selection"] == "sample 7"
    for name in first.BASELINES:
        right = getattr(made.generation.report.query_accuracy, name)
        assert made.generation.baseline_head(name).info["query_accuracy"] == pytest.approx(right, abs=0.02)
    truth, predicted = made.truth(), made.predicted(None)
    assert (
        abs(confusion_matrix(truth, predicted, len(made.generation.report.classes)) - made.generation.confusion).sum()
        <= 4
    )
    tried, _ = made.draw()
    assert (None, tried) in made.known and made.images.items.index(tried) in made.held_out()


def test_a_link_that_asks_for_something_else_does_not_show_it():
    for query in ({}, {"example": "clothes", "shots": "5", "seed": "0", "bundle": default_bundle()}):
        assert as_at_first(from_link(query)[0])
    for query in ({"example": "digits"}, {"shots": "4"}, {"names": "a, b"}, {"bundle": "networks-28px"}):
        assert not as_at_first(from_link(query)[0])


def test_the_card_of_few_labels_uses_the_other_images(tmp_path):
    archive = without_labels(tmp_path)
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.namelist()) == 218 and not any("/" in name for name in opened.namelist())
    values = FIRST | CARDS["unlabelled"][1] | {"samples": 4}
    settings = check_settings(None, *(values[name] for name in NUMBERS))
    (key, images, shown), made = read_and_generate(values, settings, tmp_path / "made", [str(_own(archive))])
    report = made.generation.report
    assert key == "clothes" and len(images.items) == 218 and "218 images" in shown
    assert (report.shots, report.num_support, report.seed) == (1, 10, 0) and 90 <= report.num_query <= 100
    assert report.num_unlabelled == 218 - report.num_support - report.num_query
    assert report.query_accuracy.without_unlabelled is not None


def _own(file):
    """A copy where a visitor's files lie."""
    return shutil.copy(file, new_folder("session"))


def test_the_card_of_names_asks_for_names_alone():
    assert CARDS["names"][1]["example"] == NAMES and len(split_names(CARDS["names"][1]["names"])) == 7
    assert all((example_folder("clothes") / name).is_dir() for name in PICTURED)
