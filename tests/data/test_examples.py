from dataclasses import replace

import numpy as np
import pytest

from d2nwg.data.decode import open_image
from d2nwg.data.examples import EXAMPLES, Example
from d2nwg.data.images import load_images
from d2nwg.data.split import split_support_query
from d2nwg.utils.errors import UserError


def test_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path))
    images = load_images("example:digits")
    assert images.name == "digits" and images.classes == tuple("0123456789")
    assert np.bincount(images.labels).tolist() == [60] * 10 and images.notes == ()
    assert [f.name for f in (tmp_path / "examples").iterdir()] == ["digits"]
    pictures = np.stack([np.asarray(open_image(item)) for item in images.items[::10]])
    assert pictures.shape == (60, 64, 64, 3) and pictures.max() == 255 and pictures.min() == 0
    split_support_query(images, 5, seed=0)

    monkeypatch.setitem(EXAMPLES, "digits", replace(EXAMPLES["digits"], images=lambda: pytest.fail("made again")))
    assert load_images("example:digits").items == images.items


def test_clothes_are_shipped_as_files():
    images = load_images("example:clothes")
    assert images.name == "clothes" and len(images.classes) == 10 and images.notes == ()
    assert min(np.bincount(images.labels)) >= 5 + 7 and len(images.items) == 218
    assert sum(item.stat().st_size for item in images.items) < 3_000_000
    folder = images.items[0].parents[1]
    assert "CC0" in (folder.parent / "clothes-LICENSE").read_text()
    assert np.asarray(open_image(images.items[0])).shape[2] == 3


def test_every_example_says_what_it_is():
    for name, example in EXAMPLES.items():
        assert example.name == name and example.title and example.licence
        assert example.description.endswith(".") and "\n" not in example.description


def test_an_example_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path))

    def images():
        yield next(EXAMPLES["digits"].images())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Example("half", "Half", "Half.", "none", images).folder()
    assert not any((tmp_path / "examples").iterdir())


def test_an_unknown_example():
    with pytest.raises(UserError, match=r"no example named cats.*digits"):
        load_images("example:cats")
