"""A head for other programs, opened by each program's own runtime."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import skops.io
import torch
from PIL import Image

from d2nwg import cli
from d2nwg.encoders.images import load_encoder
from d2nwg.encoders.open import load_encoder as open_encoder
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER
from d2nwg.exports import export_head, scikit_learn
from d2nwg.heads import Head
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_pattern_folder

CLASSES = ("=a\"'cat", "dög", "fox")


def made(encoder, classes=CLASSES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(classes), encoder.num_features, generator=generator)
    state = {"weight": weight, "bias": torch.randn(len(classes), generator=generator)}
    info = {"query_accuracy": 0.75, "num_query": 40}
    return Head(state, encoder.name, classes, encoder.preprocessing, info)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A head on the default encoder, its files, and two pictures, one with transparency."""
    folder = tmp_path_factory.mktemp("exported")
    head = made(load_encoder())
    export_head(head, folder)
    pictures = sorted(make_pattern_folder(folder / "pictures", range(1), per_class=2).rglob("*.png"))[:2]
    Image.open(pictures[1]).convert("RGBA").resize((301, 203)).save(folder / "clear.png")
    return head, folder, [pictures[0], folder / "clear.png"]


def test_the_onnx_file_says_the_same(exported):
    head, folder, pictures = exported
    encoder = head.open_encoder()
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    pixels = np.stack([encoder.preprocess(picture) for picture in pictures]).transpose(0, 3, 1, 2)
    expected, _ = head.probabilities(pictures)
    for count in (1, 2):
        (found,) = session.run(None, {"images": pixels[:count]})
        np.testing.assert_allclose(found, expected[:count], atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)


def test_the_script_needs_nothing_of_this_project(exported):
    head, folder, pictures = exported
    run = [sys.executable, "-I", str(folder / "predict.py"), *map(str, pictures)]
    lines = subprocess.run(run, capture_output=True, text=True, check=True, cwd=folder).stdout.splitlines()
    expected, _ = head.probabilities(pictures)
    for line, picture, chances in zip(lines, pictures, expected, strict=True):
        path, name, chance = line.split("\t")
        assert path == str(picture) and name == CLASSES[chances.argmax()]
        assert float(chance) == pytest.approx(float(chances.max()), abs=2e-3)
    assert "d2nwg" not in (folder / "predict.py").read_text()
    assert "75.0% of 40 held-out images" in (folder / "README.md").read_text()


@pytest.mark.parametrize("classes", [CLASSES, ("no", "yes")])
def test_the_estimator_says_the_same(classes, cheap_encoder, tmp_path):
    head = made(cheap_encoder, classes)
    skops.io.dump(scikit_learn(head), tmp_path / "a.skops")
    estimator = skops.io.load(tmp_path / "a.skops")
    features = torch.randn(20, head.num_features, generator=torch.Generator().manual_seed(1))
    expected = head.module()(features).softmax(1).numpy()
    np.testing.assert_allclose(estimator.predict_proba(features.numpy()), expected, atol=1e-5)
    assert estimator.predict(features.numpy()).tolist() == [classes[i] for i in expected.argmax(1)]


@pytest.mark.parametrize("kind", ["text", "pair"])
def test_a_head_of_texts(kind, tmp_path):
    from d2nwg.encoders.sentences import PAIRS, TEXTS
    from d2nwg.encoders.texts import _embedded

    encoder = open_encoder(f"{PAIRS if kind == 'pair' else TEXTS}{DEFAULT_TEXT_ENCODER}")
    head = made(encoder)
    assert {path.name for path in export_head(head, tmp_path)} == {"classifier.skops", "predict.py", "README.md"}
    script = tmp_path / "predict.py"
    script.write_text(script.read_text().replace(DEFAULT_TEXT_ENCODER, str(_embedded())))  # the Hub is not asked
    given = ["A fox.", "Two dogs."]
    run = [sys.executable, "-I", str(script), *given]
    lines = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    expected, _ = head.probabilities([tuple(given)] if kind == "pair" else given)
    said = [(CLASSES[row.argmax()], pytest.approx(float(row.max()), abs=1e-3)) for row in expected]
    assert [(line.split("\t")[1], float(line.split("\t")[2])) for line in lines] == said


def test_two_layers_are_no_estimator(cheap_encoder):
    d = cheap_encoder.num_features
    state = {
        "0.weight": torch.ones(4, d),
        "0.bias": torch.ones(4),
        "2.weight": torch.ones(2, 4),
        "2.bias": torch.ones(2),
    }
    with pytest.raises(UserError, match="ONNX"):
        scikit_learn(Head(state, cheap_encoder.name, ("a", "b"), cheap_encoder.preprocessing))


def test_the_command_line(exported, tmp_path, capsys):
    head, _, _ = exported
    (tmp_path / "made").mkdir()
    head.save(tmp_path / "made" / "head.safetensors")
    out = tmp_path / "out"
    assert cli.main(["export", str(tmp_path / "made"), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"model.onnx", "classifier.skops", "predict.py", "README.md"}
    assert "predict.py and README.md are in" in capsys.readouterr().out
    assert cli.main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
