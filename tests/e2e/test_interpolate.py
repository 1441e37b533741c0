"""The Interpolate tab as a visitor uses it."""

import json
import zipfile

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageOps

from d2nwg.heads import Head
from tests.e2e.acts import download, open_settings, upload


@pytest.fixture(scope="module")
def negatives_zip(digits_zip, tmp_path_factory):
    """The five digits of `digits_zip` as negatives, their classes under the same names."""
    path = tmp_path_factory.mktemp("upload") / "negatives.zip"
    with zipfile.ZipFile(digits_zip) as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            picture = path.parent / "picture.png"
            ImageOps.invert(Image.open(source.open(name)).convert("L")).save(picture)
            archive.write(picture, name.replace("my digits", "negatives"))
    return path


def open_tab(visit, **viewport):
    page = visit(**viewport)
    page.click("#tabs button[role=tab]:has-text('Interpolate')")
    page.wait_for_selector("#strip-a img")
    return page


def walk(page, **fields):
    """Fill in settings, press the button, wait for the result."""
    if not page.is_visible("#points"):
        open_settings(page, "#interpolate button:has-text('Settings')", "#points input")
    for name, value in fields.items():
        page.fill(f"#{name} input", str(value))
    page.evaluate("document.querySelector('#interpolate-status .notice')?.classList.add('earlier')")
    page.click("#interpolate-go")
    page.wait_for_selector("#interpolate-status .notice:is(.good, .bad):not(.earlier)")


def stand_at(page, alpha: float):
    """Move the slider and wait until the page shows that point."""
    page.fill("#alpha input[type=number]", str(alpha))
    page.press("#alpha input[type=number]", "Enter")
    page.wait_for_selector(f"#where:has-text('At {alpha:.2f} the head')")


QUICK = dict(points=5, paths=2) | {"path-samples": 2}


def test_walk_slide_download(visit, tmp_path):
    page = open_tab(visit)
    assert page.is_visible("#interpolate-places") and not page.is_visible("#interpolate-result")
    walk(page, **QUICK)
    assert "images that generation never saw" in page.inner_text("#interpolate-sentence")
    for figure in ("curve-a", "curve-b", "barrier", "distance", "path-map"):
        page.wait_for_selector(f"#{figure} .js-plotly-plot")
    assert page.locator("#looked figure").count() == 12
    page.click("#interpolate-method label:has-text('Weights, linear')")
    stand_at(page, 0)
    first, words = page.inner_text("#looked"), page.inner_text("#where")
    stand_at(page, 1)
    assert page.inner_text("#looked") != first and page.inner_text("#where") != words
    page.wait_for_function("new URL(location.href).searchParams.get('alpha') === '1'")
    assert "mix=weights" in page.url and "from=digits-on-black" in page.url and "tab=interpolate" in page.url

    head = Head.load(download(page, "#download-point", tmp_path))
    assert head.info["way"] == "weights" and head.info["mix"] == {"digits-on-black": 0, "digits-on-white": 1}
    with zipfile.ZipFile(download(page, "#download-path", tmp_path)) as archive:
        report = json.loads(archive.read("path.json"))
        assert "heads/latent-0.500.safetensors" in archive.namelist() and "barrier.html" in archive.namelist()
    shown = 100 * head.info["query_accuracy"]["digits-on-white"]
    assert f"{shown:.1f}\u00a0%" in page.inner_text("#where")
    assert report["alpha"] == [0, 0.25, 0.5, 0.75, 1] and list(report["ways"]) == [
        "condition",
        "condition-spherical",
        "latent",
        "weights",
    ]


def test_own_ends_a_third_one_and_a_mistake(visit, digits_zip, negatives_zip, tmp_path):
    page = open_tab(visit)
    for letter, path in (("a", digits_zip), ("b", negatives_zip)):
        page.click(f"#endpoint-{letter} input")
        page.click("ul[role=listbox] li:has-text('Your own images')")
        upload(page, f"#files-{letter} input[type=file]", path)
        page.wait_for_selector(f"#strip-{letter}:has-text('5 classes · 80 images')")
    walk(page, **QUICK)
    assert "my digits" in page.inner_text("#interpolate-sentence") and "negatives" in page.inner_text("#looked")
    sentence = page.inner_text("#interpolate-sentence")

    page.click("#interpolate button:has-text('Add a third endpoint')")
    page.click("#endpoint-c input")
    page.click("ul[role=listbox] li:has-text('black on white')")
    page.wait_for_selector("#strip-c img")
    walk(page, **QUICK)  # its classes are named 0 … 4, those of the others digit 0 … digit 4
    assert "no class in common" in page.inner_text("#interpolate-status")
    assert page.inner_text("#interpolate-sentence") == sentence and "Error" not in page.inner_text("body")


def test_three_ends(visit, tmp_path):
    page = open_tab(visit)
    page.click("#interpolate button:has-text('Add a third endpoint')")
    page.click("#endpoint-c input")
    page.click("ul[role=listbox] li:has-text('Handwritten digits')")
    page.wait_for_selector("#strip-c img")
    walk(page, **QUICK)
    page.wait_for_selector("#mix-card")
    page.locator("#share-a input[type=range]").fill("0")
    page.locator("#share-a input[type=range]").dispatch_event("pointerup")
    page.wait_for_selector("#mixed:has-text('right on')")
    assert page.locator("#mixed-looked figure").count() == 18
    assert Head.load(download(page, "#download-mix", tmp_path)).info["mix"]["digits-on-black"] == 0


def choose(page, dropdown: str, words: str):
    page.click(f"{dropdown} input")
    page.click(f"ul[role=listbox] li:has-text('{words}')")


def test_tasks_that_the_bundle_is_told_by_name(visit):
    page = open_tab(visit)
    choose(page, "#path-bundle", "tasks-small-networks")
    page.wait_for_selector("#strip-b:has-text('10 classes · 600 images')")
    assert (
        page.input_value("#endpoint-a input") == "digits"
        and page.input_value("#endpoint-b input") == "digits-turned-45"
    )
    walk(page, **QUICK)
    assert "digits → digits-turned-45" in page.inner_text("#interpolate-sentence")
    page.click("#map-of label:has-text('Weights')")
    page.wait_for_selector("#path-map .xtitle:has-text('weights')")
    page.wait_for_function("new URL(location.href).searchParams.get('from') === 'task:digits'")
    again = visit("?" + page.url.partition("?")[2], ready="#strip-b img")
    assert again.input_value("#endpoint-b input") == "digits-turned-45"
    assert again.input_value("#path-bundle input") == "tasks-small-networks"


def test_between_two_names(visit, digits_zip, tmp_path):
    page = visit("?tab=interpolate&between=names&last=husky", ready="#path-first input")
    assert page.input_value("#path-first input") == "wolf" and page.input_value("#path-last input") == "husky"
    assert page.is_visible("#names-places") and not page.is_visible("#interpolate-places")
    page.click("#interpolate-go")
    page.wait_for_selector("#interpolate-status .good")
    page.wait_for_selector("#names-nearest .js-plotly-plot")
    assert page.inner_text("#names-sentence .answer").startswith(
        "Halfway from wolf to husky the nearest known rows are"
    )
    assert page.locator("#names-strip .stop").count() == 11 and page.locator("#names-strip img").count() == 0
    assert not page.is_visible("#names-classes")

    choose(page, "#path-liked", "Your own images")
    page.set_input_files("#path-liked-files input[type=file]", digits_zip)
    page.wait_for_selector("#path-liked-files:has-text('my digits')")
    open_settings(page, "#interpolate .choose button:has-text('Settings') >> visible=true", "#name-points input")
    page.fill("#name-points input", "5")
    page.evaluate("document.querySelector('#interpolate-status .notice')?.classList.add('earlier')")
    page.click("#interpolate-go")
    page.wait_for_selector("#interpolate-status .good:not(.earlier)")
    page.wait_for_selector("#names-classes .js-plotly-plot")
    assert page.locator("#names-strip .stop").count() == 5 and page.locator("#names-strip .liked img").count() == 30
    assert Head.load(download(page, "#names-head", tmp_path)).classes[2] == "wolf → husky 0.50"
    with zipfile.ZipFile(download(page, "#names-everything", tmp_path)) as archive:
        assert {"path.json", "images.html", "images.csv", "nearest.html"} <= set(archive.namelist())
        assert len(json.loads(archive.read("path.json"))["points"]) == 5

    page.fill("#path-last input", "wolf")
    page.click("#interpolate-go")
    page.wait_for_selector("#interpolate-status .bad:has-text('The name wolf is given twice')")
    assert page.is_visible("#names-strip")
    page.click("#path-by label:has-text('Two tasks')")
    page.wait_for_selector("#interpolate-places")
    assert page.is_visible("#endpoint-a") and not page.is_visible("#names-result")


def test_cancel_keeps_the_path_that_was_there(visit):
    page = open_tab(visit)
    walk(page, **QUICK)
    said = page.inner_text("#interpolate-sentence")
    for name, value in {"points": 101, "paths": 10, "path-samples": 8}.items():
        page.fill(f"#{name} input", str(value))
    page.click("#interpolate-go")
    page.wait_for_selector("#interpolate-status .working:has-text('Sampling along the path')")
    page.click("#interpolate-stop")
    page.wait_for_selector("#interpolate-status:has-text('Cancelled. The path you had is still here.')")
    assert page.inner_text("#interpolate-sentence") == said
    assert page.is_enabled("#interpolate-go") and not page.is_visible("#interpolate-stop")


def test_a_telephone(visit):
    page = open_tab(lambda **size: visit("?__theme=dark", **size), width=390, height=844)
    walk(page, **QUICK)
    page.wait_for_selector("#path-map .js-plotly-plot")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_endpoint(studio, digits_zip, negatives_zip, tmp_path):
    client = Client(studio.url, download_files=str(tmp_path), verbose=False)
    words, report, made = client.predict(
        files_a=[handle_file(digits_zip)],
        files_b=[handle_file(negatives_zip)],
        points=3,
        seeds=1,
        num_samples=1,
        api_name="/interpolate",
    )
    assert "Halfway" in words and report["classes"] == [f"digit {i}" for i in range(5)]
    assert json.loads(zipfile.ZipFile(made).read("path.json"))["ways"] == report["ways"]
    for call, sentence in ((dict(example_a="digits"), "one of the examples"), (dict(points=1), "Points should be")):
        with pytest.raises(AppError, match=sentence):
            client.predict(**call, api_name="/interpolate")
