"""Explore and Interpolate by class names: controls, endpoints, words and files, without a browser."""

import json
import zipfile
from dataclasses import replace

import pytest

from d2nwg.heads import Head
from d2nwg.ui.explore import by_name as exploring
from d2nwg.ui.explore import html as explored
from d2nwg.ui.explore.by_name import Mapped
from d2nwg.ui.interpolate import by_name as between
from d2nwg.ui.interpolate import html as interpolated
from d2nwg.ui.interpolate.by_name import NamedPath
from d2nwg.ui.interpolate.settings import check_names, names_from_link, naming_bundles
from d2nwg.ui.settings import knows_names
from d2nwg.utils.errors import UserError
from tests.helpers.reports import make_name_map, make_name_path


def test_which_bundles_know_names():
    assert naming_bundles()[0] == "heads-dual" and "heads-efficientnet-lite0" not in naming_bundles()
    assert knows_names(None) and knows_names("heads-dual")
    assert not knows_names("heads-efficientnet-lite0") and not knows_names("/etc")


def test_links():
    asked = {"by": "names", "named": "cat, dog", "search": "husky", "tab": "explore"}
    assert exploring.from_link(asked) == {"by": "names", "named": "cat, dog", "search": "husky"}
    assert exploring.from_link({"by": "x", "named": " ", "search": "\ud800"}) == {}
    assert exploring.from_link({"named": "x" * 3000}) == {}
    asked = {"between": "names", "first": "cat", "last": "dog", "liked": "digits"}
    assert names_from_link(asked) == asked
    assert names_from_link({"between": "x", "first": " ", "last": "x" * 3000, "liked": "../etc"}) == {}


def test_settings():
    assert check_names("heads-dual", 11) == {"bundle": "heads-dual", "points": 11}
    for bundle, points in (("heads-dual", 2), ("heads-dual", 1000), ("heads-dual", None), ("/etc", 11)):
        with pytest.raises(UserError):
            check_names(bundle, points)


def test_words_of_a_map():
    made = Mapped(make_name_map("wolf"), None)
    assert "<dt>wolf</dt><dd>wolf <span>1.00</span>, d <span>0.50</span>" in explored.beside(made)
    assert "far from all that is known" in explored.beside(made)
    assert "“wolf” is part of 2 known names: wolf, wolf (a)." in explored.found_names(made)
    assert len(exploring.words(made)) == len(exploring.words(made, with_search=False)) + 2
    many = explored.beside(Mapped(make_name_map(names=explored.MOST_BESIDE + 7), None))
    assert many.count("<dt>") == explored.MOST_BESIDE and "7 more are in the download." in many


def test_words_of_a_path():
    made = NamedPath(make_name_path("wolf"), None)
    card = interpolated.name_answer(made)
    assert (
        "wolf → dog" in card and "<li>wolf</li>" in card and "3 points, made from the two names alone by wolf" in card
    )
    assert "What lies near each point?" in interpolated.strip_title(made)


def test_a_search_that_cannot_be_is_refused():
    made = Mapped(make_name_map(), None)
    assert exploring.searched(made, "  ").found.found is None
    made = Mapped(replace(made.found, bundle="heads-dual"), None)
    with pytest.raises(UserError, match="has 500 characters"):
        exploring.searched(made, "x" * 500)


def test_what_is_missing_is_said(tmp_path):
    for names, liked, words in (
        (["wolf", " "], "none", "type both"),
        ([None, None], "none", "type both"),
        (["wolf", "dog"], "own", "Drop your images"),
        (["wolf", "dog"], "elsewhere", "one of the examples"),
    ):
        with pytest.raises(UserError, match=words):
            between.make(names, liked, None, {}, tmp_path)


def ask(served, name: str, *data):
    return served.client().post(f"/gradio_api/run/{name}", json={"data": list(data)}).json()


def test_the_endpoint_of_the_map(served):
    words, numbers, data, page = ask(served, "explore_names", "wolf, T-shirt", "husky", "heads-dual")["data"]
    assert words.startswith("wolf lies nearest to timber wolf") and "“husky” is part of 2 known names" in words
    assert numbers["names"][0]["nearest"][0]["name"].startswith("timber wolf") and numbers["known"] > 1000
    with zipfile.ZipFile(data["path"]) as archive:
        assert {"names.csv", "names.json", "tensor.bytes"} <= set(archive.namelist())
    assert page["path"].endswith(".html")
    for given, sentence in (
        (("", None, "heads-dual"), "Give class names to map"),
        (("cat, cat", None, "heads-dual"), "given twice"),
        (("cat", None, "heads-efficientnet-lite0"), "without class names"),
        (("cat", None, "/etc"), "There is no bundle"),
    ):
        assert sentence in json.dumps(ask(served, "explore_names", *given))


def test_the_endpoint_of_the_path(served, tmp_path):
    words, report, made = ask(served, "interpolate_names", "wolf", "dog", None, "digits", "heads-dual", 4)["data"]
    assert words.startswith("Halfway from wolf to dog") and "Scored on 200 images of digits." in words
    assert [len(point["images"]) for point in report["points"]] == [6] * 4
    with zipfile.ZipFile(made["path"]) as archive:
        assert {"path.json", "rows.safetensors", "images.html", "classes.html"} <= set(archive.namelist())
        head = Head.load(archive.extract("rows.safetensors", tmp_path))
    assert head.classes == tuple(f"wolf → dog {share}" for share in ("0.00", "0.33", "0.67", "1.00"))
    assert "type both" in json.dumps(ask(served, "interpolate_names", "wolf", "", None, None, "heads-dual", 4))
    refused = ask(served, "interpolate_names", "wolf", "dog", None, None, "heads-dual", 1)
    assert "Points should be a whole number from 3 to 101" in json.dumps(refused)
