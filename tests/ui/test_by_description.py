"""Explore and Interpolate by descriptions of tasks: controls, endpoints, words and files, without a browser."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from d2nwg.adapters import Adapter
from d2nwg.bundles import NO_ADAPTERS
from d2nwg.ui.explore import by_name as exploring
from d2nwg.ui.explore import by_task as mapping
from d2nwg.ui.explore import html as explored
from d2nwg.ui.explore.by_task import MappedTasks
from d2nwg.ui.interpolate import by_description as between
from d2nwg.ui.interpolate import html as interpolated
from d2nwg.ui.interpolate.by_description import DescribedPath
from d2nwg.ui.interpolate.settings import check_descriptions, descriptions_from_link
from d2nwg.ui.settings import adapter_bundles, check_adapters
from d2nwg.utils.errors import UserError
from tests.helpers.text_tasks import DESCRIBED

ENDS = ["Did the reviewer enjoy the film?", "Tell whether a legal agreement is invalid."]


@pytest.fixture
def at_hand(adapters, tmp_path, monkeypatch):
    """The bundle of adapters in a cache."""
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("d2nwg.bundles.shipped", lambda name: tmp_path / "nothing")
    return Path(shutil.copytree(adapters, tmp_path / "cache" / "bundles" / "mine"))


def test_which_bundles_there_are(at_hand):
    assert adapter_bundles() == ["mine"] and check_adapters(None) == "mine" == check_adapters("mine")
    for bundle in ("heads-dual", "/etc", str(at_hand)):
        with pytest.raises(UserError, match="There is no bundle of adapters"):
            check_adapters(bundle)
    shutil.copytree(at_hand, at_hand.parent / "adapters")
    assert adapter_bundles() == ["adapters", "mine"], "the default one first"


def test_settings(at_hand):
    assert mapping.check("mine", 5, 1) == {"bundle": "mine", "num_samples": 5, "seed": 1}
    assert check_descriptions(None, 11, 8, 0) == {"bundle": "mine", "num_samples": 8, "points": 11, "seed": 0}
    for points, samples, seed in ((2, 8, 0), (1_000, 8, 0), (11, 0, 0), (11, None, 0), (11, 8, -1)):
        with pytest.raises(UserError):
            check_descriptions("mine", points, samples, seed)


def test_links():
    assert exploring.from_link({"by": "tasks", "described": "spam?"}) == {"by": "tasks", "described": "spam?"}
    asked = {"task_a": "Is it spam?", "task_b": "Is it good?", "between": "descriptions"}
    assert descriptions_from_link(asked) == {"task_a": "Is it spam?", "task_b": "Is it good?"}
    assert descriptions_from_link({"task_a": " ", "task_b": "x" * 3000}) == {}


def test_a_map(at_hand, tmp_path):
    made = mapping.make("Is <b>this</b> good?", {"bundle": "mine", "num_samples": 2, "seed": 0}, tmp_path / "map")
    assert isinstance(made, MappedTasks) and len(made.found.samples) == 2
    listed = explored.known_tasks(made)
    assert listed.count("<dt>") == 2 and DESCRIBED["tone"][0] in listed and "no, yes · accuracy · " in listed
    assert "<b>this</b>" not in mapping.page(made, "pca").read_text().split("<body>")[1].split("{")[0]
    with zipfile.ZipFile(mapping.data(made)) as archive:
        assert {"tasks.csv", "tasks.json", "tensor.bytes"} <= set(archive.namelist())
    alone = explored.known_tasks(mapping.make(" ", {"bundle": "mine"}, tmp_path / "alone"))
    assert "<b>" not in alone and alone.count("<dt>") == 2


def test_a_path(at_hand, tmp_path):
    settings = {"bundle": "mine", "points": 3, "num_samples": 1}
    made = between.make(["<i>x</i> " + ENDS[0], ENDS[1]], [None, None], ["", None], settings, tmp_path)
    assert isinstance(made, DescribedPath)
    card = interpolated.description_answer(made)
    assert "&lt;i&gt;x" in card and "<i>x" not in card and "3 points by each of two methods" in card
    said = interpolated.description_point(made, "weights", 0.9)
    assert said.startswith('<p class="seen">At 1.00: Its distance is ') and "head of B" in said
    file = between.adapter_file(made, "weights", 0.4)
    assert file.name == "adapter-weights-0.50.zip" and file == between.adapter_file(made, "weights", 0.5)
    shutil.unpack_archive(file, tmp_path / "out")
    assert Adapter.load(tmp_path / "out" / "adapter-weights-0.50").info["share"] == 0.5
    drawn = between.figures(made, 0.5)
    assert drawn["scores-a"] is None and drawn["distance"].layout.shapes[0].x0 == 0.5


def test_what_is_missing_is_said(tmp_path):
    for ends in ([ENDS[0], " "], [None, ENDS[1]]):
        with pytest.raises(UserError, match="describe both tasks"):
            between.make(ends, [None, None], ["", ""], {}, tmp_path)


def ask(served, name: str, *data):
    return served.client().post(f"/gradio_api/run/{name}", json={"data": list(data)}).json()


def test_the_endpoints(served, adapters, tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.bundles.shipped", lambda name: tmp_path / "nothing")
    assert NO_ADAPTERS in json.dumps(ask(served, "explore_tasks", ENDS[0], None, 2, 0), ensure_ascii=False)
    asked = [*ENDS, None, None, None, None, None, 3, 1, 0]
    assert NO_ADAPTERS in json.dumps(ask(served, "interpolate_descriptions", *asked), ensure_ascii=False)
    shutil.copytree(adapters, Path(os.environ["D2NWG_CACHE"]) / "bundles" / "mine")  # of the app
    words, numbers, data, page = ask(served, "explore_tasks", ENDS[0], "mine", 2, 0)["data"]
    assert words.startswith("This is a task that the generator knows, tone.") and numbers["samples"] == 2
    with zipfile.ZipFile(data["path"]) as archive:
        assert "tasks.csv" in archive.namelist()
    assert page["path"].endswith(".html")
    table = [served.upload("films.jsonl", (adapters.parents[1] / "tone" / "test.jsonl").read_bytes())]
    asked = [*ENDS, table, None, None, "no, yes", "mine", 3, 1, 0]
    words, report, made = ask(served, "interpolate_descriptions", *asked)["data"]
    assert words.startswith("On 60 texts of A (films): ") and len(report["points"]) == 6
    assert report["ends"][0]["texts"] == 60 and report["ends"][1]["texts"] is None
    with zipfile.ZipFile(made["path"]) as archive:
        assert "adapters/condition-0.50/adapter_model.safetensors" in archive.namelist()
    for given, sentence in (
        ([ENDS[0], "", table, None, None, None, "mine", 3, 1, 0], "describe both tasks"),
        ([*ENDS, None, None, None, None, "/etc", 3, 1, 0], "There is no bundle of adapters"),
    ):
        assert sentence in json.dumps(ask(served, "interpolate_descriptions", *given))
