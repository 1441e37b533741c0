"""The Describe tab without a browser: settings, links, words and files."""

import csv
import zipfile

import pytest
from safetensors.torch import load_file

from d2nwg.adapters import Adapter
from d2nwg.ui.describe import html, service
from d2nwg.ui.describe.settings import DEFAULTS, check, from_link, known_tasks
from d2nwg.ui.session import call_folder
from d2nwg.ui.settings import adapter_bundles
from d2nwg.utils.errors import UserError
from tests.helpers.text_tasks import DESCRIBED, opinions

NUMBERS = tuple(DEFAULTS[key] for key in ("samples", "seed", "steps", "guidance"))


@pytest.fixture
def here(described, monkeypatch):
    """The cache holds a bundle of adapters, which is the only one."""
    monkeypatch.setenv("D2NWG_CACHE", str(described[0]))
    monkeypatch.setattr("d2nwg.bundles.shipped", lambda name: described[0] / "nothing")


def test_settings(here):
    assert adapter_bundles() == ["adapters"] and known_tasks(None) == {n: words[-1] for n, words in DESCRIBED.items()}
    assert known_tasks("heads-dual") == {}
    wanted = {"bundle": "adapters", "num_samples": 10, "seed": 0, "steps": DEFAULTS["steps"]}
    wanted["guidance_scale"] = DEFAULTS["guidance"]
    assert check(None, *NUMBERS) == wanted
    for given in (("/etc", *NUMBERS), (None, 0, *NUMBERS[1:]), (None, 101, *NUMBERS[1:]), (None, 10, 0, None, 1.0)):
        with pytest.raises(UserError):
            check(*given)


def test_without_a_bundle_one_is_told_how_to_make_one(monkeypatch, tmp_path):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path))
    monkeypatch.setattr("d2nwg.bundles.shipped", lambda name: tmp_path / "nothing")
    assert adapter_bundles() == [] and known_tasks(None) == {}
    with pytest.raises(UserError, match="--adapter lora"):
        check(None, *NUMBERS)


def test_links():
    asked = {"describe": "Is it good?", "labels": "no, yes", "tab": "describe"}
    assert from_link(asked) == {"describe": "Is it good?", "labels": "no, yes"}
    assert from_link({"describe": "x" * 6000, "labels": "\ud800"}) == {} == from_link({"describe": " "})


def test_describe_try_score_and_take_away(here):
    folder = call_folder()
    result = service.describe(" Did the reviewer <b>enjoy</b> the film? ", "", check(None, *NUMBERS), folder)
    card = html.answer(result)
    assert "knows, <b>tone</b>" in card and "&lt;b&gt;enjoy&lt;/b&gt;" in card and "<b>enjoy" not in card
    near = html.nearest(result.made)
    assert DESCRIBED["tone"][0] in near and "The zoo&#x27;s adapters: right on" in near
    assert "zoo: tone" in html.effect(result.made)
    with zipfile.ZipFile(result.files["adapter"]) as packed:
        packed.extractall(folder / "mine")
    own = Adapter.load(folder / "mine" / "adapter")
    assert own.classes == ("no", "yes") and set(load_file(folder / "mine/adapter/head.safetensors")) == {
        "weight",
        "bias",
    }

    looked = service.look(result.made, "a very good film")
    assert max(looked.adapter, key=looked.adapter.get) == "yes" and set(looked.without) == {"no", "yes"}
    assert own.predict(["a very good film"])[0, 1] == pytest.approx(looked.adapter["yes"], abs=1e-5)
    assert "With the adapter" in html.said(looked) and "says <b>0.30" in html.said(service.Looked(0.3, None))
    with pytest.raises(UserError, match="write a text"):
        service.look(result.made, " ")

    table = folder / "rows.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((row["text"], row["label"]) for row in opinions(30, 5))])
    scored = service.score(result.made, [str(table)], folder / "scored")
    assert scored.found.scores["generated"] > 0.9 and "generated adapter" in html.scores(scored, "tone")
    rows = list(csv.DictReader(scored.file.open()))
    right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    assert len(rows) == 30 and right == pytest.approx(scored.found.scores["generated"])
    assert service.confusion(scored, result.made.adapter).data[0].z.sum(1) == pytest.approx([1, 1])  # a row a class
    for files, why in ((None, "Drop a table"), (["/etc/passwd"], "no longer here")):
        with pytest.raises(UserError, match=why):
            service.score(result.made, files, folder / "again")
