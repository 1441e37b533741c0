"""The map of named rows: places, neighbours, search, files, the verb, and what is refused."""

import csv
import json

import numpy as np
import pytest
import torch

from d2nwg.analysis.projections import on_components, project
from d2nwg.bundles import bundle_knows_names, load_pipeline, resolve_bundle
from d2nwg.cli import main
from d2nwg.exploration import names as mapping
from d2nwg.exploration.names import find, map_names, names_of
from d2nwg.exploration.names_words import far_names, save, sentences, summary
from d2nwg.pipelines.names import FAR, KnownName
from d2nwg.utils.errors import UserError
from tests.helpers.reports import make_name_map
from tests.helpers.training import FIRST, SECOND


@pytest.fixture
def on(named_bundle):
    return names_of(named_bundle)


def test_the_known_names_are_those_of_the_training_sets(on):
    expected = [("set0", name) for name in sorted(FIRST)] + [("set1", name) for name in sorted(SECOND)]
    assert sorted((known.source, known.name) for known in on.known_names) == sorted(expected)
    assert on.cosines(on.map.rows.float()).diagonal().min() > 0.999


def test_a_classifiers_rows_are_known_by_their_first_lemma():
    on = load_pipeline(resolve_bundle(None)).names_on()
    assert on.known_names[0] == KnownName("tench, Tinca tinca", "tench")
    last = on.known_names[-1]
    assert len(on.known_names) > 1000 and last.source and last.label == f"{last.source}/{on.labels[-1].split('/')[1]}"


def test_a_name_lies_where_its_direction_does(named_bundle, on):
    made = map_names(["dog", "kitten: a young cat", "plum"], bundle=named_bundle)
    directions = torch.nn.functional.normalize(on.directions(list(made.names)).weight[0], dim=-1)
    np.testing.assert_allclose(made.directions, directions.numpy(), atol=1e-5)
    cosines = directions @ on.map.rows.float().mT
    for row, near in zip(cosines, made.nearest, strict=True):
        np.testing.assert_allclose([one.cosine for one in near], row[[one.number for one in near]], atol=1e-5)
        np.testing.assert_allclose([one.cosine for one in near], row.sort(descending=True).values[:5], atol=1e-5)
    near = [{made.known[one.number].name for one in row[:2]} for row in made.nearest]
    assert near[1:] == [{"cat", "apple"}, {"plum", "horse"}], "cats and apples have one colour here, plums and horses"
    for plane, own in ((made.projection.tsne, made.tsne), (made.projection.pca, made.pca)):
        assert (own >= plane.min(0) - 1e-4).all() and (own <= plane.max(0) + 1e-4).all()
    # on t-SNE's map: the mean of the five nearest, weighted by 1/distance
    distance = (2 - 2 * cosines[0].double()).clamp_min(0).sqrt()
    best = [one.number for one in made.nearest[0]]
    weight = (1 / distance[best].clamp_min(1e-6)).numpy()
    expected = (made.projection.tsne[best] * weight[:, None]).sum(0) / weight.sum()
    np.testing.assert_allclose(made.tsne[0], expected, rtol=1e-3, atol=1e-3)


def test_points_are_projected_as_the_matrix_was():
    rows = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    made = project(rows)
    np.testing.assert_allclose(on_components(rows, rows, made.pca), made.pca, atol=1e-4)
    mixed = 0.3 * rows[:5] + 0.7 * rows[5:10]
    np.testing.assert_allclose(
        on_components(mixed, rows, made.pca), 0.3 * made.pca[:5] + 0.7 * made.pca[5:10], atol=1e-4
    )


def test_the_map_is_drawn_once_a_process(named_bundle, monkeypatch):
    drawn = []
    monkeypatch.setattr(mapping, "_maps", {})
    monkeypatch.setattr(mapping, "project", lambda *given: drawn.append(given) or project(*given))
    first, second = (map_names(names, bundle=named_bundle) for names in (["dog"], ["plum", "cat"]))
    assert len(drawn) == 1 and first.projection is second.projection
    map_names(seed=1, bundle=named_bundle)
    assert len(drawn) == 2
    for seed in range(2, 2 + 2 * mapping.KEPT):
        map_names(seed=seed, bundle=named_bundle)
    assert len(mapping._maps) == mapping.KEPT


def test_search_by_spelling_and_by_meaning(on):
    found = find(on, "  DOG ")
    assert found.text == "DOG" and [on.known_names[one.number].name for one in found.spelled] == ["dog", "dog"]
    kitten = find(on, "kitten")
    assert not kitten.spelled and on.known_names[kitten.meant[0].number].name == "cat"
    cosines = [one.cosine for one in kitten.meant]
    assert cosines == sorted(cosines, reverse=True) and len({one.number for one in kitten.meant}) == len(cosines)
    assert {on.known_names[one.number].name for one in find(on, "he").spelled} == {"sheep", "cherry"}
    assert len(find(on, "set1").spelled) == 5, "the data set's name too"


def test_what_is_the_text_comes_before_what_holds_it():
    ranks = [mapping._rank("cat", lemma) for lemma in ("cat", "tabby cat", "catamaran", "old catfish", "muscat", "dog")]
    assert ranks == [0, 1, 2, 2, 3, 4]
    found = find(names_of(resolve_bundle(None)), "husky")
    assert [one.lemma for one in found.spelled] == ["husky", "Siberian husky"]
    for text in ("water lilly", "water_lilly"):  # as a phrase, and as the folder is called
        assert [one.lemma for one in find(names_of(resolve_bundle(None)), text).spelled] == ["water lilly"]


def test_sentences(named_bundle):
    made = map_names(["dog", "plum"], "kitten", bundle=named_bundle)
    near, *_, known = sentences(made)
    first, second = (made.known[row[0].number].name for row in made.nearest)
    assert near.startswith(f"dog lies nearest to {first} (cosine 0.") and f", plum to {second} (" in near
    assert any("“kitten” is part of no known name" in text for text in sentences(made))
    assert known == f"The bundle {named_bundle.name} knows 10 rows by name: 10 classes of training sets."
    many = sentences(make_name_map(names=9))
    assert "and so on for 5 more" in many[0] and "Far from all that the zoo knows" in many[1]
    assert far_names(made) == [n for n, v in zip(made.names, made.variance, strict=True) if v > FAR]


def test_files(named_bundle, tmp_path):
    made = map_names(["=dog", "plum"], "dog", bundle=named_bundle)
    saved = save(made, tmp_path)
    with open(tmp_path / "names.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and [row["source"] for row in rows[-2:]] == ["yours"] * 2
    assert rows[-2]["label"] == "'=dog", "no formula of a spreadsheet"
    assert float(rows[-1]["tsne_1"]) == pytest.approx(float(made.tsne[1, 0]), abs=1e-4)
    assert all(row["nearest"] != row["label"] for row in rows[:10]), "a known row's neighbour is another one"
    report = json.loads((tmp_path / "names.json").read_text())
    assert report == summary(made) and report["names"][1]["nearest"][0]["name"] in ("set1/plum", "set0/horse")
    assert report["search"]["spelled"] == ["set0/dog", "set1/dog"] and len(saved["projector"]) == 3


@pytest.mark.parametrize(
    ("names", "search", "words"),
    [
        (["cat", "Cat"], "", "given twice"),
        (["cat", " "], "", "One of the names is empty"),
        (["x" * 500], "", "500 characters"),
        ([f"class {i}" for i in range(10_000)], "", "10,000 names are too many"),
        ([], "x" * 500, "has 500 characters"),
        ([], " ", "nothing to search for"),
        ([], "\ud800", "not UTF-8"),
    ],
)
def test_what_cannot_be_mapped_is_refused_in_a_sentence(names, search, words, named_bundle):
    with pytest.raises(UserError, match=words):
        map_names(names, search, bundle=named_bundle)


def test_a_bundle_without_names(tiny_bundle, named_bundle):
    with pytest.raises(UserError, match="was trained without class names"):
        map_names(["cat"], bundle=tiny_bundle)
    assert bundle_knows_names(named_bundle) and not bundle_knows_names(tiny_bundle)
    assert not bundle_knows_names(tiny_bundle / "nowhere")


def test_the_command_line(named_bundle, tmp_path, capsys):
    out, bundle = tmp_path / "out", ["--bundle", str(named_bundle)]
    assert main(["explore", "--names", "dog, 😀", "--search", "pear", *bundle, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("dog lies nearest to ") and "“pear” is part of 1 known name: pear." in said
    found = {path.name for path in out.iterdir()}
    assert {"map.html", "map-pca.html", "names.csv", "names.json", "projector"} <= found
    assert "Where do your names lie" in (out / "map.html").read_text()
    assert main(["explore", "--search", "dog", *bundle, "--out", str(tmp_path / "searched")]) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--names", "a, a"], "given twice"),
        (["--names", " , "], "No class is named"),
        (["--names", ""], "The argument names is empty"),
        (["--search", ""], "The argument search is empty"),
        (["--names", "a", "--data", "x"], "leave out --data"),
        (["--names", ",".join(map(str, range(10_000)))], "10,000 names are too many"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(given, words, named_bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["explore", *given, "--bundle", str(named_bundle), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not out.exists()
