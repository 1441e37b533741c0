"""Damaged zoos of heads: a sentence before their numbers are used."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.cli import main
from d2nwg.weights.zoo import Zoo
from tests.helpers.refusals import refusal

SHARD, FEATURES = "records-00000.safetensors", "features.safetensors"


@pytest.fixture
def zoo(tiny_zoo, tmp_path):
    return shutil.copytree(tiny_zoo.path, tmp_path / "zoo")


def use(path) -> None:
    """What training does with a zoo."""
    zoo = Zoo(path)
    zoo.accuracies(), zoo.record_classes(), zoo.projected, zoo.class_images
    for checkpoint in range(zoo.config.checkpoints):
        zoo.records(range(len(zoo)), checkpoint)


def test_a_whole_one(zoo):
    use(zoo)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("encoder", 3),
        ("preprocessing", []),
        ("datasets", []),
        ("datasets", "patterns"),
        ("datasets.0.name", None),
        ("datasets.0.classes", "abc"),
        ("datasets.0.classes.0", 3),
        ("datasets.0.classes.0", "\ud800"),
        ("num_images", -1),
        ("num_records", "many"),
        ("num_records", 0),
        ("num_records", 2**70),
        ("config", []),
        ("config.subsets", "many"),
        ("config.checkpoints", {}),
        ("config.probe", 1),
        ("command", ["x"]),
    ],
)
def test_a_zoo_json_that_does_not_fit(place, value, zoo, capsys):
    info = json.loads((zoo / "zoo.json").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = info
    for part in path:
        inner = inner[part]
    inner[last] = value
    (zoo / "zoo.json").write_text(json.dumps(info))
    assert f"its zoo.json is damaged at {place}" in refusal(Zoo, zoo)
    for words in (["zoo", "info", zoo], ["train", "--zoo", zoo, "--out", zoo.parent / "out"]):
        assert main(list(map(str, words))) == 2 and "is no zoo: make one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "value"),
    [("config.checkpoints", 2), ("config.max_classes", 9), ("config.images", 4), ("config.probe", "mlp"),
     ("num_records", 299), ("num_images", 5), ("datasets.0.classes", ["a", "b"])],
)  # fmt: skip
def test_a_zoo_json_of_another_zoo(place, value, zoo):
    info = json.loads((zoo / "zoo.json").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = info
    for part in path:
        inner = inner[part]
    inner[last] = value
    (zoo / "zoo.json").write_text(json.dumps(info))
    assert "is incomplete: build it again" in refusal(use, zoo)


def filled(value):
    return lambda tensor: torch.full_like(tensor, value)


@pytest.mark.parametrize(
    ("file", "tensor", "change"),
    [
        (SHARD, "weight", lambda t: t[..., :-1].contiguous()),
        (SHARD, "weight", filled(float("nan"))),
        (SHARD, "weight", lambda t: t.int()),
        (SHARD, "bias", None),
        (SHARD, "bias", lambda t: t[:-1].contiguous()),
        (SHARD, "classes", filled(24)),
        (SHARD, "classes", filled(-2)),
        (SHARD, "classes", filled(-1)),
        (SHARD, "classes", lambda t: t.float()),
        (SHARD, "support", filled(24 * 12)),
        (SHARD, "accuracy", None),
        (SHARD, "accuracy", filled(float("inf"))),
        (FEATURES, "label", filled(24)),
        (FEATURES, "label", filled(-1)),
        (FEATURES, "label", filled(0)),
        (FEATURES, "label", lambda t: t.float()),
        (FEATURES, "features", filled(float("nan"))),
        (FEATURES, "features", lambda t: t[:, :-1].contiguous()),
        (FEATURES, "mean", None),
        (FEATURES, "projection", filled(float("inf"))),
    ],
)
def test_tensors_that_do_not_fit(file, tensor, change, zoo):
    tensors = load_file(zoo / file)
    tensors |= {tensor: change(tensors[tensor])} if change else {"other": tensors.pop(tensor)}
    save_file(tensors, zoo / file)
    assert "is incomplete: build it again" in refusal(use, zoo)


@pytest.mark.parametrize("file", [SHARD, FEATURES])
@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_members_that_are_no_files(file, kind, zoo):
    path = zoo / file
    path.rename(zoo.parent / "moved")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(zoo.parent / "moved")
    else:
        path.mkdir()
    assert f"{file} is missing or damaged" in refusal(use, zoo)
