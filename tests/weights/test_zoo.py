"""Zoos: what a record holds, shards, the same seed, and builds that fail or are stopped."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from d2nwg.data.images import load_images
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.progress import silent
from d2nwg.weights import build as building
from d2nwg.weights.build import build_zoo
from d2nwg.weights.networks import logits, pick, select_classes
from d2nwg.weights.open import open_zoo
from d2nwg.weights.zoo import Zoo, ZooConfig, fit_projection
from tests.helpers.images import make_image_folder, make_pattern_folder

CONFIG = dict(subsets=40, min_classes=2, max_classes=5, images=4, width=8, checkpoints=2, hidden=6)


@pytest.fixture
def small_shards(monkeypatch):
    """Batches of 8 records and shards of 16, so that 40 records take three shards."""
    monkeypatch.setattr(building, "BATCH", 8)
    monkeypatch.setattr(building, "SHARD", 16)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    first = make_pattern_folder(folder / "first", range(6), per_class=8)
    second = make_pattern_folder(folder / "second", range(6, 9), per_class=5)
    return [load_images(first), load_images(second)]


def build(sources, encoder, out, **changes) -> Zoo:
    progress = changes.pop("progress", silent)
    return build_zoo(sources, encoder, ZooConfig(**CONFIG | changes), out, progress=progress)


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_a_record_holds_a_head_its_classes_and_its_images(probe, sources, cheap_encoder, tmp_path, small_shards):
    zoo = build(sources, cheap_encoder, tmp_path / "zoo", probe=probe)
    records = zoo.records(range(len(zoo)))
    assert len(zoo) == 40 and len(list(zoo.path.glob("records-*.safetensors"))) == 3
    assert zoo.class_names[0] == ("first", "pattern-00") and zoo.class_names[6] == ("second", "pattern-06")
    assert 2 <= records.counts.min() and records.counts.max() <= 5
    labels, right = zoo.images["label"], []
    for i in range(len(zoo)):
        classes = records.classes[i, : records.counts[i]].tolist()
        assert len(set(classes)) == len(classes) and min(classes) >= 0, "distinct classes"
        assert len({zoo.class_names[c][0] for c in classes}) == 1, "of one data set"
        for slot, label in enumerate(classes):
            images = records.support[i, slot][records.support[i, slot] >= 0]
            assert (labels[images] == label).all() and len(images.unique()) == len(images)
            assert len(images) == (4 if label < 6 else 4)  # 8 images: 4 asked for; 5: one is held out
        assert (records.classes[i, records.counts[i] :] == -1).all()
        assert (records.support[i, records.counts[i] :] == -1).all()
        head = select_classes(pick(records.state, i), slice(0, len(classes)))
        unused = select_classes(pick(records.state, i), slice(len(classes), None))
        row = "weight" if probe == "linear" else "2.weight"
        assert head[row].any() and not unused[row].any()
        rest = [n for n, c in enumerate(labels.tolist()) if c in classes and n not in records.support[i]]
        truth = torch.tensor([classes.index(int(labels[n])) for n in rest])
        right.append(float((logits(head, zoo.projected[rest]).argmax(-1) == truth).float().mean()))
    # Held-out images of a class are at most 15, and here that is all of them.
    torch.testing.assert_close(records.accuracy, torch.tensor(right))
    if probe == "linear":
        assert float(zoo.accuracies().mean()) > 0.8


def test_support_and_held_out_images_are_disjoint():
    table = torch.arange(5 * 30).reshape(5, 30)
    table[3, 3:] = -1  # a class of three images
    rng = np.random.default_rng(0)
    support, query = building.draw_images(torch.tensor([[0, 3], [4, 1]]), table, 20, rng)
    for chosen in (support, query):
        assert (chosen[0, 1] >= 0).sum() == (2 if chosen is support else 1)
    for slot in support.flatten(0, 1).tolist(), query.flatten(0, 1).tolist():
        assert all(len({n for n in row if n >= 0}) == sum(n >= 0 for n in row) for row in slot)
    assert not set(support.flatten().tolist()) & set(query.flatten().tolist()) - {-1}


def test_checkpoints_are_the_last_iterates(sources, cheap_encoder, tmp_path):
    zoo = build(sources, cheap_encoder, tmp_path / "zoo", checkpoints=3)
    steps = [zoo.records([0, 7], k).state["weight"] for k in range(3)]
    assert all(not torch.equal(a, b) for a, b in pairwise(steps))
    assert torch.equal(steps[2], zoo.records([0, 7]).state["weight"])
    mixed = zoo.records([0, 7], [0, 2]).state["weight"]
    assert torch.equal(mixed[0], steps[0][0]) and torch.equal(mixed[1], steps[2][1])


def test_the_same_seed_makes_the_same_zoo(sources, cheap_encoder, tmp_path, small_shards):
    first, again, other = (build(sources, cheap_encoder, tmp_path / str(i), seed=s) for i, s in enumerate([3, 3, 4]))
    names = sorted(path.name for path in first.path.iterdir())
    assert names == sorted(path.name for path in again.path.iterdir()) and len(names) == 5
    assert all((first.path / name).read_bytes() == (again.path / name).read_bytes() for name in names)
    assert not torch.equal(first.records([0]).support, other.records([0]).support)


def test_a_zoo_is_read_in_pieces(sources, cheap_encoder, tmp_path, small_shards):
    zoo = build(sources, cheap_encoder, tmp_path / "zoo")
    everything = zoo.records(range(40))
    some = Zoo(zoo.path).records([39, 0, 17, 16, 15])
    assert torch.equal(some.state["weight"], everything.state["weight"][[39, 0, 17, 16, 15]])
    assert torch.equal(some.support, everything.support[[39, 0, 17, 16, 15]])
    assert torch.equal(zoo.accuracies(), everything.accuracy)
    sizes = [len(load_file(zoo.path / f"records-{i:05d}.safetensors")["accuracy"]) for i in range(3)]
    assert sizes == [16, 16, 8]


def test_the_summary_says_what_is_in_it(tiny_zoo):
    summary = json.loads(json.dumps(tiny_zoo.summary()))
    assert summary["records"] == 300 and summary["encoder"] == "fake/colours" and summary["num_images"] == 24 * 12
    assert summary["datasets"] == [{"name": "patterns", "classes": 24}]


def test_at_most_so_many_images_of_a_class(sources, cheap_encoder, tmp_path):
    zoo = build(sources, cheap_encoder, tmp_path / "zoo", max_per_class=6)
    assert torch.bincount(zoo.images["label"]).tolist() == [6] * 6 + [5] * 3


def test_an_existing_folder_is_refused(sources, cheap_encoder, tmp_path):
    (tmp_path / "zoo").mkdir()
    with pytest.raises(UserError, match="zoo exists already"):
        build(sources, cheap_encoder, tmp_path / "zoo")


def test_a_stopped_build_leaves_nothing(sources, cheap_encoder, tmp_path, small_shards):
    def stop(stage, done, total):
        if stage == "Training probes" and done >= 24:
            raise Cancelled

    with pytest.raises(Cancelled):
        build(sources, cheap_encoder, tmp_path / "zoo", progress=stop)
    assert not list(tmp_path.iterdir())


def test_progress_names_the_data_set(sources, cheap_encoder, tmp_path):
    seen = []
    build(sources, cheap_encoder, tmp_path / "zoo", progress=lambda *step: seen.append(step))
    assert [s for s in dict.fromkeys(stage for stage, _, _ in seen)] == [
        "Reading images of first",
        "Reading images of second",
        "Training probes",
    ]
    assert seen[-1] == ("Training probes", 40, 40)


def test_a_class_with_too_few_readable_images(cheap_encoder, tmp_path):
    folder = make_image_folder(tmp_path / "data", per_class=4)
    for name in ("00.png", "01.png"):
        (folder / "green" / name).write_bytes(b"no image")
    with pytest.raises(UserError, match="Class green of data has fewer than three readable images"):
        build([load_images(folder)], cheap_encoder, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_an_unreadable_image_is_left_out(cheap_encoder, tmp_path):
    folder = make_image_folder(tmp_path / "data", per_class=5)
    (folder / "green" / "00.png").write_bytes(b"no image")
    zoo = build([load_images(folder)], cheap_encoder, tmp_path / "zoo", max_classes=3)
    assert torch.bincount(zoo.images["label"]).tolist() == [5, 4, 5]


def test_a_set_with_too_few_classes(cheap_encoder, tmp_path, image_folder):
    with pytest.raises(UserError, match="colours has 3 classes, fewer than 4"):
        build([load_images(image_folder)], cheap_encoder, tmp_path / "zoo", min_classes=4, max_classes=6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(min_classes=1), "1-20 is no range"),
        (dict(min_classes=9, max_classes=3), "9-3 is no range"),
        (dict(probe="tree"), "probe cannot be tree: choose one of linear, mlp"),
        (dict(subsets=0), "subsets cannot be 0: give a whole number from 1 to 1,000,000,000"),
        (dict(subsets=10**13), "subsets cannot be 10000000000000"),
        (dict(max_per_class=0), "max_per_class cannot be 0"),
        (dict(l2=float("nan")), "l2 cannot be nan"),
        (dict(images=True), "images cannot be True"),
        (dict(seed=-1), "seed cannot be -1"),
    ],
)
def test_settings_that_make_no_sense(changes, words):
    with pytest.raises(UserError, match=words):
        ZooConfig(**changes)


@pytest.mark.parametrize("damage", ["nowhere", "no_json", "half_json", "other_json", "wrong_config"])
def test_what_is_no_zoo_is_refused(damage, tiny_zoo, tmp_path):
    path = tmp_path / "zoo"
    if damage != "nowhere":
        path.mkdir()
        info = json.loads((tiny_zoo.path / "zoo.json").read_text())
        text = {"half_json": "{", "other_json": "[]", "wrong_config": json.dumps({**info, "config": {"x": 1}})}
        if damage in text:
            (path / "zoo.json").write_text(text[damage])
    with pytest.raises(UserError, match="is no zoo: make one|is damaged at zoo.json, config: build it again"):
        Zoo(path)


def test_a_zoo_without_a_format_number_is_read_and_a_newer_one_refused(tiny_zoo, tmp_path):
    info = json.loads((tiny_zoo.path / "zoo.json").read_text())
    assert info.pop("kind") == "heads" and info.pop("format") == 1
    shutil.copytree(tiny_zoo.path, tmp_path / "zoo")
    (tmp_path / "zoo" / "zoo.json").write_text(json.dumps(info))
    assert torch.equal(Zoo(tmp_path / "zoo").records([3]).accuracy, tiny_zoo.records([3]).accuracy)
    for number in (2, 0, "new", True):
        (tmp_path / "zoo" / "zoo.json").write_text(json.dumps({**info, "format": number}))
        sentence = (
            f"zoo has format {number}, and this version reads format 1: make one with `python -m d2nwg zoo build`"
        )
        with pytest.raises(UserError, match=sentence):
            open_zoo(tmp_path / "zoo")


@pytest.mark.parametrize("name", ["records-00000.safetensors", "features.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_an_incomplete_zoo_is_refused(name, damage, tiny_zoo, tmp_path):
    path = tmp_path / "zoo"
    shutil.copytree(tiny_zoo.path, path)
    if damage == "gone":
        (path / name).unlink()
    else:
        (path / name).write_bytes((path / name).read_bytes()[:-100])
    with pytest.raises(UserError, match="is (incomplete|damaged at .*): build it again"):
        zoo = Zoo(path)
        zoo.records([0])
        _ = zoo.projected


def test_the_projection_has_unit_variance_and_bounds():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 6, generator=generator) * torch.tensor([9.0, 5, 3, 1, 0.1, 0.01]) + 4
    mean, projection = fit_projection(features, 3)
    projected = (features - mean) @ projection.T
    assert projection.shape == (3, 6) and float(projected.square().mean()) == pytest.approx(1, rel=1e-4)
    covariance = projected.T @ projected / len(projected)
    assert float((covariance - covariance.diag().diag()).abs().max()) < 1e-3  # components are uncorrelated
    assert fit_projection(features, 100)[1].shape == (6, 6) and fit_projection(features[:4], 100)[1].shape == (3, 6)
    assert fit_projection(torch.zeros(5, 6), 3)[1].isfinite().all()
