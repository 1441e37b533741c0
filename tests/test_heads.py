"""Heads: their file, what they say about images, and every way a file can be wrong."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from d2nwg.data.images import load_images
from d2nwg.encoders import images as encoders
from d2nwg.heads import Head, evaluate_head, predict_images
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_image_folder

PREPROCESSING = {"size": 8, "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}


def linear(C=3, d=3, **changes) -> Head:
    state = {"weight": torch.randn(C, d), "bias": torch.randn(C)}
    fields = dict(
        state=state,
        encoder="fake/mean_colour",
        classes=("blue", "green", "red")[:C],
        preprocessing=PREPROCESSING,
        info={"seed": 3, "note": "ünï"},
    )
    return Head(**fields | changes)


def mlp(C=3, d=3, h=5, **changes) -> Head:
    return linear(
        state={
            "0.weight": torch.randn(h, d),
            "0.bias": torch.randn(h),
            "2.weight": torch.randn(C, h),
            "2.bias": torch.randn(C),
        },
        **changes,
    )


class MeanColour:
    """An encoder whose three features are the mean red, green and blue of an image."""

    name, num_features, preprocessing = "fake/mean_colour", 3, PREPROCESSING

    def encode(self, items, *, progress, cache=True):
        features, readable = torch.zeros(len(items), 3), np.zeros(len(items), bool)
        for i, item in enumerate(items):
            try:
                features[i] = torch.tensor(np.asarray(Image.open(item).convert("RGB")).mean((0, 1)) / 255)
                readable[i] = True
            except OSError:
                pass
        progress("Reading images", len(items), len(items))
        return features, readable


@pytest.fixture
def encoder(monkeypatch):
    fake = MeanColour()
    monkeypatch.setattr(encoders, "load_encoder", lambda name, device=None: fake)
    return fake


@pytest.fixture
def colours(tmp_path):
    """Red, green and blue images, and the head that tells them apart by their largest channel."""
    for name, rgb in {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (8, 8), rgb).save(tmp_path / "data" / name / f"{k}.png")
    weight = 10 * torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    return SimpleNamespace(folder=tmp_path / "data", head=linear(state={"weight": weight, "bias": torch.zeros(3)}))


@pytest.mark.parametrize("make", [linear, mlp])
def test_a_saved_head_comes_back_the_same(make, tmp_path):
    head = make()
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert (loaded.encoder, loaded.classes, loaded.preprocessing, loaded.info) == (
        head.encoder,
        head.classes,
        head.preprocessing,
        head.info,
    )
    x = torch.randn(6, 3)
    assert torch.equal(loaded.module()(x), head.module()(x))


def test_a_linear_head_is_a_plain_linear_layer():
    head = linear()
    module = head.module()
    assert type(module) is torch.nn.Linear
    assert torch.equal(module.weight, head.state["weight"]) and torch.equal(module.bias, head.state["bias"])
    assert head.num_features == 3


def test_an_mlp_head_is_linear_relu_linear():
    head, x = mlp(), torch.randn(4, 3)
    hidden = (x @ head.state["0.weight"].T + head.state["0.bias"]).relu()
    expected = hidden @ head.state["2.weight"].T + head.state["2.bias"]
    torch.testing.assert_close(head.module()(x), expected)


def test_half_precision_tensors_are_taken_as_float32():
    head = linear(state={"weight": torch.randn(3, 3).half(), "bias": torch.randn(3).bfloat16()})
    assert {t.dtype for t in head.state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": ("a",)}, "at least two classes"),
        ({"classes": ("a", "b", "")}, "at least two classes"),
        ({"classes": ("a", "b", "a")}, "same name"),
        ({"classes": ("a", "b")}, "2 class names for 3 outputs"),
        ({"state": {}}, "linear layer"),
        ({"state": {"weight": torch.ones(3, 3)}}, "linear layer"),
        ({"state": {"weight": torch.ones(3, 3), "bias": torch.ones(2)}}, "shapes"),
        ({"state": {"weight": torch.ones(9), "bias": torch.ones(3)}}, "shapes"),
        ({"state": {"weight": torch.ones(3, 0), "bias": torch.ones(3)}}, "shapes"),
        ({"state": {"weight": torch.full((3, 3), torch.nan), "bias": torch.ones(3)}}, "finite"),
        (
            {
                "state": {
                    "0.weight": torch.ones(5, 3),
                    "0.bias": torch.ones(5),
                    "2.weight": torch.ones(3, 4),
                    "2.bias": torch.ones(3),
                }
            },
            "shapes",
        ),
    ],
)
def test_numbers_that_cannot_be_a_head_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        linear(**changes)


def rewritten(path: Path, tensors=None, **metadata) -> Path:
    """A good head file with some metadata or tensors changed; a value of None drops the entry."""
    head = linear()
    good = {"format": "d2nwg-head", "version": "1"} | {
        name: json.dumps(getattr(head, name)) for name in ("encoder", "classes", "preprocessing", "info")
    }
    save_file(head.state | (tensors or {}), path, {k: v for k, v in (good | metadata).items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"format": "pt"}, "not a d2nwg head"),
        ({"format": None}, "not a d2nwg head"),
        ({"version": "2"}, "newer"),
        ({"classes": None}, "metadata"),
        ({"classes": "[1"}, "metadata"),
        ({"classes": "[" * 100_000}, "metadata"),
        ({"classes": '{"a": 1}'}, "metadata"),
        ({"classes": '["a", "b", 3]'}, "classes"),
        ({"encoder": "7"}, "metadata"),
        ({"tensors": {"bias": torch.tensor([1.0, torch.inf, 0.0])}}, "finite"),
        ({"tensors": {"more": torch.ones(1)}}, "linear layer"),
    ],
)
def test_a_file_that_is_not_a_usable_head_is_named(metadata, sentence, tmp_path):
    path = rewritten(tmp_path / "odd.safetensors", **metadata)
    with pytest.raises(UserError, match=sentence) as caught:
        Head.load(path)
    assert "odd.safetensors" in str(caught.value)


def test_other_files_are_refused_by_name(tmp_path):
    (tmp_path / "text.safetensors").write_text("not tensors at all")
    (tmp_path / "empty.safetensors").touch()
    whole = linear().save(tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    for name, sentence in {
        "text.safetensors": "not a safetensors file",
        "empty.safetensors": "not a safetensors",
        "cut.safetensors": "not a safetensors",
        "none.safetensors": "no such file",
        ".": "a folder",
    }.items():
        with pytest.raises(UserError, match=sentence):
            Head.load(tmp_path / name)


def test_saved_heads_are_read_by_safetensors_alone(tmp_path):
    head = linear()
    assert set(load_file(head.save(tmp_path / "head.safetensors"))) == {"weight", "bias"}


def test_evaluate_matches_classes_by_name(encoder, colours):
    images = load_images(colours.folder)
    scores = evaluate_head(colours.head, images)
    assert scores["accuracy"] == 1 and scores["num_images"] == 12 and scores["skipped"] == 0
    assert scores["per_class"] == {"blue": 1, "green": 1, "red": 1}
    assert any("no test folder" in note for note in scores["notes"])
    turned = linear(state={k: v.flip(0) for k, v in colours.head.state.items()}, classes=("red", "green", "blue"))
    assert evaluate_head(turned, images)["accuracy"] == 1
    swapped = linear(state=colours.head.state, classes=("red", "green", "blue"))
    scores = evaluate_head(swapped, images)
    assert scores["confusion"] == [[0, 0, 4], [0, 4, 0], [4, 0, 0]] and scores["classes"][0] == "red"
    assert scores["per_class"] == {"red": 0, "green": 1, "blue": 0}
    json.dumps(scores)


def test_evaluate_takes_fewer_classes_but_no_unknown_ones(encoder, colours):
    for file in (colours.folder / "green").iterdir():
        file.unlink()
    (colours.folder / "green").rmdir()
    scores = evaluate_head(colours.head, load_images(colours.folder))
    assert scores["per_class"] == {"blue": 1, "red": 1} and len(scores["confusion"]) == 3
    (colours.folder / "blue").rename(colours.folder / "purple")
    with pytest.raises(UserError, match=r"purple.*blue, green, red"):
        evaluate_head(colours.head, load_images(colours.folder))


def test_evaluate_scores_the_test_split(encoder, colours, tmp_path):
    split = tmp_path / "split"
    split.mkdir()
    colours.folder.rename(split / "train")
    for name in ("red", "green", "blue"):  # all test images are red
        (split / "test" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (200, 20, 20)).save(split / "test" / name / "0.png")
    scores = evaluate_head(colours.head, load_images(split))
    assert scores["num_images"] == 3 and scores["accuracy"] == pytest.approx(1 / 3)
    assert not any("no test folder" in note for note in scores["notes"])


def test_evaluate_skips_and_counts_unreadable_images(encoder, colours):
    (colours.folder / "red" / "0.png").write_bytes(b"\x89PNG cut short")
    scores = evaluate_head(colours.head, load_images(colours.folder))
    assert scores["skipped"] == 1 and scores["num_images"] == 11 and scores["accuracy"] == 1
    for file in colours.folder.rglob("*.png"):
        file.write_bytes(b"\x89PNG cut short")
    with pytest.raises(UserError, match="None of the 12 images"):
        evaluate_head(colours.head, load_images(colours.folder))


def test_predict_names_the_likeliest_classes(encoder, colours):
    rows = predict_images(colours.head, [colours.folder / "red" / "0.png", str(colours.folder / "blue" / "1.png")])
    assert [row["label"] for row in rows] == ["red", "blue"]
    assert rows[0]["image"] == str(colours.folder / "red" / "0.png")
    assert len(rows[0]["top"]) == 3 and sum(p for _, p in rows[0]["top"]) == pytest.approx(1)
    assert rows[0]["top"][0] == ("red", rows[0]["probability"])
    assert len(predict_images(colours.head, [colours.folder / "red" / "0.png"], top=2)[0]["top"]) == 2


def test_predict_names_the_file_at_fault(encoder, colours, tmp_path):
    good = colours.folder / "red" / "0.png"
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:40])
    with pytest.raises(UserError, match=r"no such file: .*nothing\.png"):
        predict_images(colours.head, [good, tmp_path / "nothing.png"])
    with pytest.raises(UserError, match=r"cut\.png"):
        predict_images(colours.head, [good, tmp_path / "cut.png"])


def test_rows_of_unreadable_images_are_zero(encoder, colours, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    probabilities, readable = colours.head.probabilities([tmp_path / "cut.png", colours.folder / "red" / "0.png"])
    assert readable.tolist() == [False, True]
    assert probabilities[0].tolist() == [0, 0, 0] and probabilities[1].sum() == pytest.approx(1)


def test_another_encoder_than_the_heads_is_refused(encoder, colours):
    file = [colours.folder / "red" / "0.png"]
    encoder.preprocessing = PREPROCESSING | {"size": 16}
    with pytest.raises(UserError, match="preprocessing"):
        colours.head.probabilities(file)
    encoder.num_features = 7
    with pytest.raises(UserError, match="takes 3 features but fake/mean_colour gives 7"):
        colours.head.probabilities(file)


def test_a_head_on_the_real_encoder(tmp_path):
    """From the features of one folder to a file that labels the images of another."""
    from d2nwg.evaluation.baselines import class_mean_head

    known = load_images(make_image_folder(tmp_path / "known", per_class=3))
    encoder = encoders.load_encoder(encoders.DEFAULT_ENCODER, "cpu")
    features, readable = encoder.encode(known.items)
    assert readable.all()
    weight, bias = class_mean_head(features.double().numpy(), known.labels, 3)
    state = {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
    path = Head(state, encoder.name, known.classes, encoder.preprocessing).save(tmp_path / "head.safetensors")
    others = load_images(make_image_folder(tmp_path / "others", per_class=5, seed=1))
    assert evaluate_head(Head.load(path), others, device="cpu")["accuracy"] > 0.9
