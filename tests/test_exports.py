"""A head for other programs, opened by each program's own runtime."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import skops.io
import torch
from huggingface_hub import metadata_load
from PIL import Image

from d2nwg import cli
from d2nwg.encoders.images import load_encoder
from d2nwg.encoders.open import load_encoder as open_encoder
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER
from d2nwg.exports import export_head, scikit_learn
from d2nwg.heads import Head
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_pattern_folder

NAMES = {"predict.py", "app.py", "requirements.txt", "README.md"}
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


def asked(folder, given):
    """What the page of an exported head answers, in a process that finds nothing of this project."""
    ask = (
        "import json, sys; sys.path[:0] = [sys.argv[1]]; import app; from gradio_client import Client, handle_file\n"
        "_, url, _ = app.page.launch(prevent_thread_lock=True, quiet=True)\n"
        "files = [handle_file(text) if text.endswith('.png') else text for text in sys.argv[2:]]\n"
        "found = Client(url, verbose=False).predict(*files, api_name='/label')\n"
        "print(json.dumps({row['label']: row['confidence'] for row in found['confidences']}))"
    )
    run = [sys.executable, "-I", "-c", ask, str(folder), *map(str, given)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    chances = json.loads(done.stdout.splitlines()[-1])
    return {name: chances[name] for name in CLASSES}


def test_the_folder_is_a_space(exported):
    head, folder, pictures = exported
    (expected,), _ = head.probabilities(pictures[:1])
    assert list(asked(folder, pictures[:1]).values()) == pytest.approx(expected.tolist(), abs=2e-3)
    front = metadata_load(folder / "README.md")
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py") and (folder / "app.py").is_file()
    assert front["title"] == "=a\"'cat, dög or another"
    needed = (folder / "requirements.txt").read_text().split()
    assert needed == ["gradio", "onnxruntime", "pillow", "numpy"]


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
    assert {path.name for path in export_head(head, tmp_path)} == {"classifier.skops", *NAMES}
    script = tmp_path / "predict.py"
    script.write_text(script.read_text().replace(DEFAULT_TEXT_ENCODER, str(_embedded())))  # the Hub is not asked
    given = ["A fox.", "Two dogs."]
    run = [sys.executable, "-I", str(script), *given]
    lines = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    expected, _ = head.probabilities([tuple(given)] if kind == "pair" else given)
    said = [(CLASSES[row.argmax()], pytest.approx(float(row.max()), abs=1e-3)) for row in expected]
    assert [(line.split("\t")[1], float(line.split("\t")[2])) for line in lines] == said
    chances = asked(tmp_path, given if kind == "pair" else given[:1])
    assert list(chances) == list(CLASSES)
    assert list(chances.values()) == pytest.approx(expected[0].tolist(), abs=1e-3)


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
    assert {path.name for path in out.iterdir()} == {"model.onnx", "classifier.skops", *NAMES}
    assert "requirements.txt and README.md are in" in capsys.readouterr().out
    assert cli.main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_pushed(exported, tmp_path, monkeypatch, capsys):
    """Both repositories hold the files, and no other; what the Hub refuses is a sentence."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    head, _, _ = exported
    head.save(tmp_path / "head.safetensors")
    asked = []

    class Hub:
        def create_repo(self, name, **given):
            if name == "offline":
                raise OfflineModeIsEnabled
            asked.append(("create", name, given.get("repo_type"), given.get("space_sdk")))
            return SimpleNamespace(repo_id=name)

        def upload_folder(self, repo_id, folder_path, allow_patterns, repo_type=None, **_):
            asked.append(("upload", repo_id, repo_type, {path.name for path in Path(folder_path).iterdir()}))
            assert set(allow_patterns) == asked[-1][3]

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    files = {"model.onnx", "classifier.skops", *NAMES}
    to = ["export", str(tmp_path / "head.safetensors"), "--out"]
    assert cli.main([*to, str(tmp_path / "a"), "--push-to-hub", "me/a", "--push-to-space", "me/b"]) == 0
    assert asked == [
        ("create", "me/a", "model", None),
        ("upload", "me/a", "model", files),
        ("create", "me/b", "space", "gradio"),
        ("upload", "me/b", "space", files),
    ]
    assert cli.main([*to, str(tmp_path / "b"), "--push-to-space", "offline"]) == 2
    assert capsys.readouterr().err == f"The Hub cannot be reached from here; the head is in {tmp_path / 'b'}.\n"
    assert (tmp_path / "b" / "model.onnx").is_file()
