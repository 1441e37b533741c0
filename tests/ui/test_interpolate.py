"""The Interpolate tab's parts that need no browser."""

import pytest

from d2nwg.data.decode import open_image
from d2nwg.data.examples import EXAMPLES
from d2nwg.data.images import load_images
from d2nwg.ui import session as sessions
from d2nwg.ui.interpolate import html as own
from d2nwg.ui.work import Work
from d2nwg.utils.errors import UserError


def test_the_ready_ends_share_classes_and_no_picture():
    ends = [load_images(f"example:{own.DEFAULTS[letter]}") for letter in "ab"]
    assert ends[0].classes == ends[1].classes == tuple("01234") and len(ends[0]) == len(ends[1]) == 250
    plain = [open_image(item).tobytes() for item in ends[0].items]
    assert len(set(plain)) > 240
    negatives = {bytes(255 - value for value in open_image(item).tobytes()) for item in ends[1].items[:60]}
    assert not negatives & set(plain)
    assert "5 classes · 250 images" in own.example_strip("digits-on-white")
    assert own.example_strip("digits-on-white").count("<img") == 5


def test_a_link():
    asked = {"from": "digits", "to": "digits-on-white", "third": "x", "way": "latent", "alpha": "0.4"}
    assert own.from_link(asked) == {"a": "digits", "b": "digits-on-white", "way": "latent", "alpha": 0.4}
    assert own.from_link({"from": "../etc", "way": "teleport", "alpha": "nan"}) == {}
    assert own.from_link({"alpha": "many"}) == {} and own.from_link({"alpha": "7"}) == {}


def test_settings():
    assert own.check(None, 21, 3, 16, 5, 0) == dict(bundle=None, points=21, seeds=3, num_samples=16, shots=5, seed=0)
    for values in ((1, 3, 16, 5, 0), (21, 0, 16, 5, 0), (21, 3, 16, 0, 0), (21.5, 3, 16, 5, 0), (None, 3, 16, 5, 0)):
        with pytest.raises(UserError, match="should be a whole number from"):
            own.check(None, *values)
    with pytest.raises(UserError, match="no bundle /etc here"):
        own.check("/etc", 21, 3, 16, 5, 0)
    with pytest.raises(UserError, match="Drop your images"):
        own.read_end("own", None, None)
    with pytest.raises(UserError, match="one of the examples"):
        own.read_end("elsewhere", None, None)
    assert own.DEFAULTS["a"] in EXAMPLES and own.DEFAULTS["b"] in EXAMPLES


def test_a_visitors_tabs_stop_with_them(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    sessions.private_root.cache_clear()
    try:
        visit = sessions.Session("page-1")
        tab = visit.tab("interpolate", made=None)
        assert visit.tab("interpolate") is tab and tab.made is None
        tab.work = Work(lambda progress: None)
        sessions.page_closed("page-2")
        assert not tab.work.cancelled
        sessions.page_closed("page-1")
        assert tab.work.cancelled
        visit.close()
    finally:
        sessions.private_root.cache_clear()
