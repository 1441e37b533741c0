"""A result under a link of its own."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from d2nwg.ui.generate import kept
from d2nwg.ui.generate.kept import keep, open_kept, results_dir
from d2nwg.ui.generate.state import GenerateState
from d2nwg.ui.session import private_root
from d2nwg.ui.uploads import read_data
from d2nwg.utils.errors import UserError
from tests.helpers.reports import make_named
from tests.ui.test_in_use import page, result, upload  # noqa: F401 (fixtures)
from tests.ui.test_networks import digits  # noqa: F401 (a fixture)
from tests.ui.test_texts import write_pairs


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))


def folder() -> Path:
    """As if it were a visitor's."""
    return Path(tempfile.mkdtemp(dir=private_root()))


def same(one, other) -> None:
    """What the page shows of both, and what follows from picking another head."""
    assert one.sentence() == other.sentence() and one.table() == other.table()
    for picked in (None, 1, "ridge"):
        assert np.array_equal(one.predicted(picked), other.predicted(picked))
        assert one.head(picked).info == other.head(picked).info
    assert one.images.classes == other.images.classes and one.noun == other.noun
    assert np.array_equal(one.truth(), other.truth()) and np.array_equal(one.held_out(), other.held_out())


def test_it_opens_again_without_its_first_images(page, result, image_folder):  # noqa: F811
    result.draws = "Drawn 5 times: as good."
    said = page.view._keep(page.visit)
    key = re.search(r'href="\?tab=generate&amp;result=([\w-]{22})"', said)[1]
    contents = [path.read_bytes() for path in result.images.items]
    shutil.rmtree(image_folder)
    again = open_kept(key, folder())
    same(result, again)
    assert [path.read_bytes() for path in again.images.items] == contents
    assert "predicts" in page.view.show_new(page.visit, again)[page.results.seen]
    assert {path.name for path in again.files.values()} == set(kept.FILES.values())
    assert not any(path.is_relative_to(results_dir()) for path in again.files.values()), "the app offers its own alone"
    assert oct((results_dir() / key).stat().st_mode)[-3:] == "700"


def test_pairs_of_texts_and_an_example(page, tmp_path):  # noqa: F811
    state = page.visit.state(GenerateState)
    state.images = read_data(files=[upload(write_pairs(tmp_path / "pairs.csv"))])
    page.press("", example="own", samples=2, shots=2)
    again = open_kept(keep(state.result), folder())
    same(state.result, again)
    assert again.images.items == state.result.images.items and again.noun == "pair"


def test_a_network_from_an_array_file(page, digits):  # noqa: F811
    state = page.visit.state(GenerateState)
    state.images = read_data(files=[upload(digits)])
    update = page.press("", example="own", bundle="networks-28px", samples=2, shots=3)
    assert update[page.results.keep["card"]]["visible"]
    first = state.result
    digits.unlink()
    again = open_kept(keep(first), folder())
    assert again.kind == "network" and again.sentence() == first.sentence() and again.table() == first.table()
    for picked in (None, 1):
        one, other = first.head(picked), again.head(picked)
        assert one.facts() == other.facts() and all((one.state[name] == other.state[name]).all() for name in one.state)
        assert np.array_equal(first.predicted(picked), again.predicted(picked))
    assert np.array_equal(first.truth(), again.truth()) and np.array_equal(first.held_out(), again.held_out())
    assert sorted(path.name for path in again.files.values()) == sorted(path.name for path in first.files.values())
    assert {bytes(item) for item in first.images.items} == {path.read_bytes() for path in again.images.items}
    shown = page.view.show_new(page.visit, again)
    assert "The network predicts" in shown[page.results.seen] and shown[page.results.onnx]["visible"]


def test_an_example_is_not_copied(page, result):  # noqa: F811
    result.images = read_data(example="clothes")
    key = keep(result)
    assert list((results_dir() / key / "items").iterdir()) == []
    assert open_kept(key, folder()).images.items == result.images.items


@pytest.mark.parametrize("key", ["", "x", "../" * 7 + "x", "a" * 22, "a" * 21 + "\n", "é" * 22, "\0" * 22])
def test_no_such_link(key):
    with pytest.raises(UserError, match="not kept here, or no longer"):
        open_kept(key, folder())


def test_bounds(page, result, monkeypatch):  # noqa: F811
    monkeypatch.setattr(kept, "LARGEST", 10)
    assert "1 MB of a result can be kept" in page.view._keep(page.visit)
    assert not results_dir().exists()


def test_the_oldest_make_room(page, result, tmp_path, monkeypatch):  # noqa: F811
    keys = [keep(result) for _ in range(3)]
    for age, key in enumerate(keys):
        os.utime(results_dir() / key, (age, age))
    open_kept(keys[0], folder())  # looked at: no longer the oldest
    held = sum(file.stat().st_size for file in (results_dir() / keys[0]).rglob("*") if file.is_file())
    monkeypatch.setattr(kept, "ALL", 3 * held)
    last = keep(result)
    assert {path.name for path in results_dir().iterdir()} == {keys[0], keys[2], last}


def test_an_image_that_is_gone(page, result):  # noqa: F811
    result.images.items[0].unlink()
    assert "could not be kept: no such file" in page.view._keep(page.visit)
    assert not results_dir().exists() or not list(results_dir().iterdir())


def test_what_is_offered_a_link(page, result):  # noqa: F811
    card = page.results.keep["card"]
    assert page.view.show(page.visit)[card]["visible"]
    named = kept.Result(None, make_named(("a", "b")), {}, (None, None))
    assert kept.of(page.results.keep, named)[card]["visible"] is False, "its settings are in the address"
