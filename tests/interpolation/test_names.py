"""A path between two names: rows, neighbours, images, files, the verb, and what is refused."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from d2nwg.cli import main
from d2nwg.data.images import load_images
from d2nwg.exploration.names import names_of
from d2nwg.heads import Head
from d2nwg.interpolation import names as paths
from d2nwg.interpolation.names import name_path
from d2nwg.utils.errors import UserError
from d2nwg.weights.networks import logits
from tests.helpers.images import make_image_folder
from tests.helpers.reports import make_name_path
from tests.helpers.training import FIRST


@pytest.fixture(autouse=True)
def cheap(monkeypatch, cheap_encoder):
    monkeypatch.setattr(paths, "load_encoder", lambda *args: cheap_encoder)


@pytest.fixture
def folder(tmp_path):
    return make_image_folder(tmp_path / "animals", FIRST, 6)


@pytest.fixture
def images(folder):
    return load_images(folder)


def test_the_ends_are_the_names_and_the_scores_those_of_the_rows(named_bundle, images, cheap_encoder, tmp_path):
    made = name_path(["cat", "goat: with horns"], images, bundle=named_bundle, points=5)
    on = names_of(named_bundle)
    ends = torch.nn.functional.normalize(on.directions(list(made.names)).weight[0], dim=-1)
    cosines = ends @ on.map.rows.float().mT
    torch.testing.assert_close(made.cosines[[0, -1]], cosines, rtol=1e-3, atol=1e-4)
    features, _ = cheap_encoder.encode([images.items[i] for i in made.index])
    torch.testing.assert_close(made.scores[[0, -1]], ends @ on.features(features).mT, rtol=1e-3, atol=1e-4)
    loaded = Head.load(made.save(tmp_path / "out") / "rows.safetensors")
    torch.testing.assert_close(logits(loaded.state, features).mT, made.scores)
    assert loaded.classes[0] == "cat → goat 0.00" and made.share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    back = name_path([*made.names[::-1]], images, bundle=named_bundle, points=5)
    torch.testing.assert_close(back.scores.flip(0), made.scores, rtol=1e-3, atol=1e-4)


def test_what_a_point_likes(named_bundle, images):
    made = name_path(["cat", "goat"], images, bundle=named_bundle, points=4, best=3)
    labels = images.labels[made.index]
    for point in range(4):
        liked = made.likes(point)
        order = made.scores[point].argsort(descending=True)[:3]
        assert [number for number, _, _ in liked] == made.index[order].tolist()
        assert [label for _, label, _ in liked] == [images.classes[labels[i]] for i in order]
        assert [score for *_, score in liked] == pytest.approx(made.scores[point, order].tolist())
        for c in range(len(FIRST)):
            mean = made.scores[point, torch.from_numpy(labels == c)].mean()
            assert float(made.of_class[point, c]) == pytest.approx(float(mean), abs=1e-6)


def test_held_out_images_of_all_classes_alike(named_bundle, images, folder):
    few = name_path(["cat", "goat"], images, bundle=named_bundle, max_query=11)
    counts = np.bincount(few.labels, minlength=5)
    assert len(few.index) == 11 and counts.min() == 2 and counts.max() == 3
    same = name_path(["cat", "goat"], images, bundle=named_bundle, max_query=11)
    other = name_path(["cat", "goat"], images, bundle=named_bundle, max_query=11, seed=1)
    assert np.array_equal(few.index, same.index) and not np.array_equal(few.index, other.index)
    test = np.arange(len(images)) % 3 == 0
    split = name_path(["cat", "goat"], replace(images, is_test=test), bundle=named_bundle)
    assert sorted(split.index) == np.flatnonzero(test).tolist()
    (folder / "cat" / "00.png").write_bytes(b"no picture")
    partly = name_path(["cat", "goat"], load_images(folder), bundle=named_bundle)
    assert len(partly.index) == 29 and any("could not be read" in note for note in partly.notes)


def test_what_lies_between():
    made = make_name_path(points=11)
    assert [(made.known[one.number].source, one.cosine) for one in made.between()] == [("set", pytest.approx(0.9))]
    first, passed, rest = made.sentences()
    assert first == "Halfway from wolf to dog the nearest known rows are wolf (cosine 0.90), wolf (0.50), dog (0.50)."
    assert passed == "Nearer between the two than at either of them: wolf (cosine 0.90)."
    assert rest == "Give images to see which of them each point likes best."
    assert make_name_path(points=2).between() == []


def test_without_a_known_row_there_are_only_images(images):
    made = replace(make_name_path(images=images), known=(), cosines=torch.zeros(3, 0))
    assert made.nearest() == [[], [], []] and made.between() == []
    assert made.sentences()[0] == "Of the images' classes, sheep has the highest mean score all along the path."


def test_the_classes_along_the_path(images):
    made = make_name_path(images=images, points=4)
    made.scores = torch.zeros(4, len(images))
    for point, label in enumerate((0, 0, 2, 1)):
        made.scores[point, torch.from_numpy(images.labels == label)] = 1.0
    assert "highest mean score is cat up to 0.33, then goat up to 0.67, then dog up to 1.00." in made.sentences()[2]


def test_files(named_bundle, images, tmp_path):
    made = name_path(["cat", "goat"], images, bundle=named_bundle, points=3, best=2)
    made.save(tmp_path)
    report = json.loads((tmp_path / "path.json").read_text())
    assert report["names"] == ["cat", "goat"] and [point["share"] for point in report["points"]] == [0, 0.5, 1]
    assert report["points"][0]["nearest"][0]["name"] == "set0/cat" and len(report["points"][2]["images"]) == 2
    assert str(tmp_path) not in json.dumps(report), "images are named without the folders they lie in"
    for name, rows in (("nearest", 15), ("images", 6), ("classes", 15)):
        with open(tmp_path / f"{name}.csv", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == rows, name
    name_path(["cat", "goat"], bundle=named_bundle, points=3).save(tmp_path / "none")
    assert {path.name for path in (tmp_path / "none").iterdir()} == {"path.json", "rows.safetensors", "nearest.csv"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "No class is named"),
        (["cat"], "needs two of them, and cat is the only one"),
        (["cat", "cat"], "given twice"),
        (["cat", "CAT"], "given twice"),
        (["red fox", "red_fox"], "read the same"),
        (["cat", ""], "One of the names is empty"),
        (["cat", "dog", "cow"], "give two names, not 3"),
        ([f"class {i}" for i in range(10_000)], "10,000 names are too many"),
        (["x" * 500, "cat"], "500 characters"),
    ],
)
def test_what_is_no_path_is_refused_in_a_sentence(names, words, named_bundle):
    with pytest.raises(UserError, match=words):
        name_path(names, bundle=named_bundle)


def test_numbers_and_bundles(named_bundle, tiny_bundle):
    for key, value in (("points", 1), ("points", 102), ("points", 2.5), ("best", 0), ("max_query", 0), ("seed", -1)):
        with pytest.raises(UserError, match="should be a whole number"):
            name_path(["cat", "dog"], bundle=named_bundle, **{key: value})
    with pytest.raises(UserError, match="without class names"):
        name_path(["cat", "dog"], bundle=tiny_bundle)


def test_the_command_line(named_bundle, folder, tmp_path, capsys):
    bundle = ["--bundle", str(named_bundle)]
    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\ngoat: with horns\r\n".encode())
    out = tmp_path / "out"
    call = ["interpolate", str(folder), "--names", str(tmp_path / "names.txt"), *bundle, "--out", str(out)]
    assert main([*call, "--points", "4"]) == 0
    said = capsys.readouterr().out
    assert "Halfway from cat to goat" in said and f"The path of 4 points is in {out}." in said
    found = {path.name for path in out.iterdir()}
    assert found >= {"path.json", "rows.safetensors", "images.html", "nearest.html", "classes.html", "images.csv"}
    assert (out / "images.html").read_text().count("<img ") == 24
    assert main(["interpolate", "--names", "cat, goat", *bundle, "--out", str(tmp_path / "none")]) == 0
    assert "Give images" in capsys.readouterr().out and not (tmp_path / "none" / "images.html").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--names", "cat"], "cat is the only one"),
        (["--names", ""], "The argument names is empty"),
        (["--names", " , "], "No class is named"),
        (["a", "b", "--names", "cat, dog"], "at most one set of images"),
        (["--names", "cat, dog", "--method", "weights"], "--method is for paths between tasks"),
        (["a"], "A path needs two endpoints"),
        ([], "A path needs two endpoints"),
        (["{}", "--names", "cat, dog"], "holds no images"),
        (["--names", "cat, dog", "--points", "1000"], "from 2 to 101"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(given, words, named_bundle, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    given = [word.format(tmp_path / "empty") if word == "{}" else word for word in given]
    assert main(["interpolate", *given, "--bundle", str(named_bundle), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not (tmp_path / "out").exists()
