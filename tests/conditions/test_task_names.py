"""Tasks told by name: what a person writes, the shipped bundle of whole small networks, and its tasks as ends."""

import json

import pytest
import torch

from d2nwg import cli
from d2nwg.bundles import bundle_tasks, list_bundles, load_pipeline
from d2nwg.conditions.task_names import name_classes, read_mix, tasks_of
from d2nwg.data.images import load_images
from d2nwg.exploration.explore import explore
from d2nwg.generate import generate_heads
from d2nwg.interpolation.endpoints import NamedTask, read_source
from d2nwg.interpolation.path import interpolate
from d2nwg.ui.generate.settings import DEFAULTS, check_settings
from d2nwg.ui.interpolate import html as interpolate_views
from d2nwg.ui.interpolate import settings as interpolate_settings
from d2nwg.ui.interpolate.service import read_endpoint
from d2nwg.ui.settings import task_names
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_pattern_folder

BUNDLE = "tasks-small-networks"
TASKS = {"birds": ("wren", "Robin"), "more birds": ("robin", "wren"), "tools": ("saw", "axe", "file")}
QUICK = dict(bundle=BUNDLE, points=5, seeds=2, num_samples=4, max_query=100, device="cpu")


def test_mixes_in_words():
    assert tasks_of(["a/x", "a/y/z", "b/x"]) == {"a": ("x", "y/z"), "b": ("x",)}
    assert read_mix("birds", TASKS) == {"birds": 1.0}
    assert read_mix("0.7 birds + 0.3 more birds", TASKS) == {"birds": 0.7, "more birds": 0.3}
    assert read_mix("birds + more birds", TASKS) == {"birds": 0.5, "more birds": 0.5}
    assert read_mix("1*birds + -.5 more birds + .5 birds", TASKS) == {"birds": 1.5, "more birds": -0.5}
    for text, words in (
        ("fish", "no task fish: the bundle knows birds"),
        ("0.5 birds + 0.5 tools", "other classes"),
        ("birds +", "no task birds +"),
        ("", "no task"),
    ):
        with pytest.raises(UserError, match=words.replace("+", r"\+")):
            read_mix(text, TASKS)
    with pytest.raises(UserError, match="knows no task by name"):
        read_mix("birds", {})


def test_classes_are_matched_by_name():
    names, shares = name_classes(TASKS, "0.5 birds + 0.5 more birds", ["ROBIN", "wren"])
    assert names == [["birds/Robin", "birds/wren"], ["more birds/robin", "more birds/wren"]] and shares == [0.5, 0.5]
    with pytest.raises(UserError, match="not crow"):
        name_classes(TASKS, "birds", ["crow", "wren"])


def test_the_shipped_bundle_knows_its_tasks():
    tasks = bundle_tasks(list_bundles()[BUNDLE])
    assert tasks["digits"] == tasks["mnist-turned-45"] == tuple("0123456789") and len(tasks) == 12
    assert tasks == load_pipeline(list_bundles()[BUNDLE], "cpu").tasks
    assert task_names(BUNDLE) == list(tasks) and task_names("heads-dual") == []
    values = [DEFAULTS[key] for key in ("shots", "samples", "seed", "steps", "max_query")]
    assert check_settings(BUNDLE, *values, " mnist ")["task"] == "mnist"
    with pytest.raises(UserError, match="no task fish"):
        check_settings(BUNDLE, *values, "fish")
    with pytest.raises(UserError, match="knows no task by name"):
        check_settings("heads-dual", *values, "mnist")


def test_networks_for_a_task_told_by_its_name():
    images = load_images("example:digits")
    made = generate_heads(images, bundle=BUNDLE, num_samples=8, max_query=300, device="cpu")
    right = made.report.query_accuracy
    assert made.report.task == "digits" and right.chosen > 0.9 and right.mean > 0.85
    assert right.chosen > right.logistic_regression, "it has seen thousands of digits, the baselines fifty"
    assert set(made.samples) == {"0.weight", "0.bias", "2.weight", "2.bias"} and made.head.encoder == "pixels/28"
    assert made.report.novelty.nearest_zoo_head > 0.8, "zoo heads and samples hold their classes in one order"
    assert "best on 50 support images that generation did not see" in made.report.selection
    other = generate_heads(images, bundle=BUNDLE, num_samples=4, max_query=300, task="digits-turned-90", device="cpu")
    assert other.report.query_accuracy.chosen < 0.5, "another task's network"
    mixed = generate_heads(
        images, bundle=BUNDLE, num_samples=4, max_query=300, device="cpu", task="0.8 digits + 0.2 digits-turned-45"
    )
    assert 0.7 < mixed.report.query_accuracy.chosen


def test_what_a_told_bundle_refuses(tmp_path):
    patterns = load_images(make_pattern_folder(tmp_path / "patterns", classes=range(3)))
    for images, options, words in (
        (patterns, {}, "no task patterns: the bundle knows digits"),
        (patterns, dict(task="digits"), "has the classes 0, 1, 2"),
        (load_images("example:digits-on-black"), dict(task="digits"), "networks for 10 classes, and the task"),
        (patterns, dict(task="digits", bundle="heads-dual"), "knows no task by name"),
        (patterns, dict(unlabelled=[b""]), "cannot use unlabelled images"),
    ):
        with pytest.raises(UserError, match=words):
            generate_heads(images, **{"bundle": BUNDLE, "num_samples": 2, "device": "cpu", **options})


def test_samples_beside_the_bundles_zoo():
    made = explore(load_images("example:digits"), bundle=BUNDLE, tasks=3, num_samples=20, num_trained=5, device="cpu")
    heads = made.heads
    own = heads.accuracy[heads.of("sample")]
    assert [task.name for task in made.tasks] == ["digits"] and own.mean() > 0.85
    zoo = heads.vectors[heads.of("zoo")]
    scored = made.tasks[0].score(made.space, zoo)
    assert scored.max() > 0.9, "the zoo's own networks for digits, their classes in the same order"


def test_paths_between_named_tasks(tmp_path):
    made = interpolate([read_source("task:digits"), read_source("task:digits-turned-45")], **QUICK)
    assert set(made.paths) == {"condition", "condition-spherical", "latent", "weights"} and not made.missing
    right = made.paths["weights"].accuracy.mean(1)
    assert right[0, 0] > 0.85 and right[1, -1] > 0.85 and right[0, -1] < 0.75 and right[1, 0] < 0.75
    for paths in made.paths.values():  # all methods share their endpoints
        torch.testing.assert_close(
            paths.accuracy[..., [0, -1]], made.paths["weights"].accuracy[..., [0, -1]], atol=0.021, rtol=0
        )
    zoo, paths = made.in_weights()
    assert zoo.shape[1] == paths["weights"].shape[1] and len(paths["condition"]) == 5
    nearest = (torch.cdist(paths["weights"][[0, -1]], zoo)).min(1).values
    assert nearest.max() < torch.cdist(zoo, zoo).mean(), "the path's ends lie among the zoo's heads"
    assert made.paths["condition"].outside is not None


def test_a_data_set_is_the_task_of_its_name_and_a_head_can_be_an_end(tmp_path):
    digits = load_images("example:digits")
    head = generate_heads(digits, bundle=BUNDLE, num_samples=2, max_query=100, device="cpu").head
    file = head.save(tmp_path / "head.safetensors")
    made = interpolate([digits, read_source(str(file))], **QUICK)
    assert "needs a task at each endpoint" in made.missing["condition"] and set(made.paths) == {"latent", "weights"}
    assert made.paths["weights"].accuracy[0, :, -1].min() > 0.85
    mixed = interpolate([NamedTask("0.5 digits + 0.5 digits-turned-45"), digits], methods=["condition"], **QUICK)
    assert mixed.scored == ["digits"] and mixed.paths["condition"].accuracy[0, :, -1].min() > 0.85


def test_named_ends_that_do_not_suit(tmp_path):
    strangers = load_images(make_pattern_folder(tmp_path / "patterns", classes=range(3)))
    for sources, words in (
        ([NamedTask("mnist"), NamedTask("notmnist")], "no images to be scored on"),
        ([NamedTask("digits", strangers), NamedTask("mnist")], "has no images of 0, 1, 2"),
        ([strangers, NamedTask("mnist")], "patterns is none of them"),
        ([load_images("example:digits"), NamedTask("notmnist")], "no class in common"),
    ):
        with pytest.raises(UserError, match=words):
            interpolate(sources, **QUICK)
    with pytest.raises(UserError, match="knows no task by name"):
        interpolate([NamedTask("mnist"), strangers], **{**QUICK, "bundle": "heads-efficientnet-lite0"})


def test_the_command_line(tmp_path, capsys):
    assert (
        cli.main(
            [
                "interpolate",
                "task:digits",
                "task:mnist-turned-45=example:digits-turned-45",
                "--bundle",
                BUNDLE,
                "--way",
                "condition",
                "--points",
                "3",
                "--seeds",
                "1",
                "--max-query",
                "50",
                "--num-samples",
                "2",
                "--device",
                "cpu",
                "--out",
                str(tmp_path / "path"),
            ]
        )
        == 0
    )
    report = json.loads((tmp_path / "path" / "path.json").read_text())
    assert report["ends"] == {"a": "digits", "b": "mnist-turned-45"} and report["images"]["b"] == 50
    assert (
        cli.main(
            ["generate", "example:digits", "--bundle", BUNDLE, "--task", "0.5 fish", "--out", str(tmp_path / "out")]
        )
        == 2
    )
    assert "There is no task fish" in capsys.readouterr().err


def test_the_tab_offers_a_bundles_tasks():
    names, first = interpolate_settings.choices(BUNDLE)
    assert names[0] == ("digits", "task:digits") and names[-1] == interpolate_settings.OWN
    assert first == {"a": "task:digits", "b": "task:digits-turned-45", "c": "none"}
    assert "600 images" in interpolate_views.endpoint_strip("task:digits")
    assert "600 images" not in interpolate_views.endpoint_strip("task:mnist")
    asked = interpolate_settings.from_link({"with": BUNDLE, "from": "task:mnist", "to": "example", "mix": "latent"})
    assert asked == {"bundle": BUNDLE, "a": "task:mnist", "method": "latent"}
    end = read_endpoint("task:digits-negative", None, None)
    assert end.text == "digits-negative" and len(end.images.items) == 600
    assert read_endpoint("task:mnist", None, None).images is None
