"""The Interpolate tab's parts that need no browser."""

import pytest

from d2nwg.data.decode import open_image
from d2nwg.data.examples import EXAMPLES
from d2nwg.data.images import load_images
from d2nwg.ui.interpolate import html, service
from d2nwg.ui.interpolate.settings import DEFAULTS, check, from_link
from d2nwg.utils.errors import UserError


def test_the_ready_endpoints_share_classes_and_no_picture():
    ends = [load_images(f"example:{DEFAULTS[letter]}") for letter in "ab"]
    assert ends[0].classes == ends[1].classes == tuple("01234") and len(ends[0]) == len(ends[1]) == 250
    plain = [open_image(item).tobytes() for item in ends[0].items]
    assert len(set(plain)) > 240
    negatives = {bytes(255 - value for value in open_image(item).tobytes()) for item in ends[1].items[:60]}
    assert not negatives & set(plain)
    assert "5 classes · 250 images" in html.example_strip("digits-on-white")
    assert html.example_strip("digits-on-white").count("<img") == 5


def test_a_link():
    asked = {"from": "digits", "to": "digits-on-white", "third": "x", "mix": "latent", "alpha": "0.4"}
    assert from_link(asked) == {"a": "digits", "b": "digits-on-white", "method": "latent", "alpha": 0.4}
    assert from_link({"from": "../etc", "mix": "teleport", "alpha": "nan"}) == {}
    assert from_link({"way": "weights"}) == {"method": "weights"}, "an older link"
    assert from_link({"alpha": "many"}) == {} and from_link({"alpha": "7"}) == {}


def test_settings():
    assert check(None, 21, 3, 16, 5, 0) == dict(bundle=None, points=21, seeds=3, num_samples=16, shots=5, seed=0)
    for values in ((1, 3, 16, 5, 0), (21, 0, 16, 5, 0), (21, 3, 16, 0, 0), (21.5, 3, 16, 5, 0), (None, 3, 16, 5, 0)):
        with pytest.raises(UserError, match="should be a whole number from"):
            check(None, *values)
    with pytest.raises(UserError, match="no bundle /etc here"):
        check("/etc", 21, 3, 16, 5, 0)
    with pytest.raises(UserError, match="Drop your images"):
        service.read_endpoint("own", None, None)
    with pytest.raises(UserError, match="one of the examples"):
        service.read_endpoint("elsewhere", None, None)
    assert DEFAULTS["a"] in EXAMPLES and DEFAULTS["b"] in EXAMPLES


def test_a_picture_of_every_class():
    from types import SimpleNamespace

    import torch

    images = load_images("example:digits")
    labels, items = torch.tensor(images.labels[::7]), images.items[::7]
    assert len(set(labels.tolist())) == 10
    member = SimpleNamespace(labels=labels, items=items)
    ends = SimpleNamespace(scored=[0], members=[member], classes=images.classes, scale=None)
    numbers, pictures = service._pictures(SimpleNamespace(endpoints=ends))[0]
    assert len(pictures) == 10 and labels[numbers].unique().numel() == 10
    ends.classes = images.classes[:2]
    numbers, _ = service._pictures(SimpleNamespace(endpoints=ends))[0]
    assert len(numbers) == service.SHOWN, "no fewer where there are few classes"


def test_a_path_of_whole_networks(tmp_path):
    settings = check("networks-28px", 3, 3, 16, 2, 0)
    made = service.interpolate([("digits-on-black", None), ("digits-on-white", None)], settings, tmp_path)
    answer = html.answer(made)
    assert "3 points, each a whole network, nothing of it drawn, made by networks-28px" in answer
    assert "the network is right on <b>" in html.point(made, "condition", 1)
    looked = html.looked(made, made.found.state("condition", 1))
    assert looked.count("<img") == 12 and "From B, <b>digits-on-white</b>" in looked
    assert service.head_file(made, "condition", 1).name == "network-condition-0.50.safetensors"
    drawn = service.figures(made.found, 0.5)
    assert len(drawn.curves) == 2 and drawn.distance is None and "networks of the zoo" in drawn.map.data[0].name
    assert service.everything(made).stat().st_size > 0
    assert from_link({"with": "networks-28px"}) == {"bundle": "networks-28px"}
