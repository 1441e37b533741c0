"""The Explore tab as a visitor uses it."""

import csv
import io
import json
import zipfile
from contextlib import suppress

from playwright.sync_api import TimeoutError

from d2nwg.heads import Head
from tests.e2e.acts import download, open_settings

SMALL = dict(samples=24, trained=8, tasks=2)


def explore(page, **fields):
    """Fill in fields, press the button, wait for the result."""
    if "trained" in fields:
        open_settings(page, "#explore .choose >> text=Settings", "#explore-trained input")
    for name, value in fields.items():
        page.fill(f"#explore-{name} input", str(value))
    page.click("#explore-go")
    page.wait_for_selector("#explore-status .notice:is(.good, .bad)")
    assert page.locator("#explore-status .good").count(), page.inner_text("#explore-status")
    page.wait_for_selector("#explore-map .js-plotly-plot .points path")


def colours(page) -> set:
    return set(
        page.evaluate("""[...document.querySelectorAll('#explore-map .points path')].map(
        path => path.style.fill)""")
    )


def click_a_point(page):
    """Click the map's first point; once more where the map was still being drawn."""
    for _ in range(20):
        place = page.evaluate("""() => {
            const box = document.querySelector('#explore-map .points path').getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]; }""")
        page.mouse.move(*place)
        page.mouse.click(*place)
        with suppress(TimeoutError):
            page.wait_for_selector("#explore-about .point", timeout=6_000)
            return
    raise AssertionError("Clicks on the map do nothing.")


def test_cold_start_colours_pick_send_and_downloads(visit, tmp_path):
    page = visit("?tab=explore", ready="#explore-go")
    assert page.is_visible("#explore-places") and not page.is_visible("#explore-result")
    explore(page, **SMALL)
    said = page.inner_text("#explore-sentence")
    assert said.startswith("Samples are ") and "energy coefficient" in said and "24 samples for 2 tasks" in said

    by_origin = colours(page)
    assert {"rgb(0, 158, 115)", "rgb(111, 134, 166)"} <= by_origin  # samples and zoo heads, as everywhere
    page.click("#explore-colour label:has-text('accuracy')")
    page.wait_for_selector("#explore-map .colorbar, #explore-map .infolayer .cbbg")
    assert colours(page) != by_origin

    page.locator("#explore-map").scroll_into_view_if_needed()
    click_a_point(page)
    assert any(kind in page.inner_text("#explore-about h4") for kind in ("Zoo head", "Sample", "Trained head"))
    page.fill("#explore-head input", "sample 3")
    page.keyboard.press("Enter")
    page.wait_for_selector("#explore-about h4:has-text('Sample 3')")
    assert page.locator("#explore-about .near li").count() == 5
    head = Head.load(download(page, "#explore-download-head", tmp_path))
    assert len(head.classes) == 5 and head.info["selection"] == "sample 3"

    picture = download(page, "#explore-map-png", tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert "Do samples fall" in download(page, "#explore-map-html", tmp_path).read_text()
    with zipfile.ZipFile(download(page, "#explore-download-data", tmp_path)) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("projection.csv").decode())))
        assert json.loads(archive.read("summary.json"))["points"]["sample"] == 24
    assert sum(row["origin"] == "sample" for row in rows) == 24
    with zipfile.ZipFile(download(page, "#explore-download-projector", tmp_path)) as archive:
        assert set(archive.namelist()) == {"tensor.bytes", "metadata.tsv", "projector_config.json"}

    page.click("#explore-endpoint")
    page.wait_for_selector("#strip-a:has-text('A head from Explore')")
    assert "tab=interpolate" in page.url
    page.click("button[role=tab]:has-text('Explore')")
    page.click("#explore-send")
    page.wait_for_selector("#sentence .answer")
    assert "In use: sample 3" in page.inner_text("#picked")
    assert "The result is Explore's, of " in page.inner_text("#status"), "not of the images that are chosen there"
    page.wait_for_selector("#seen:has-text('Sample 3 predicts')")
    page.wait_for_function("""() => {
        const box = document.querySelector("#picture").getBoundingClientRect();
        return box.top >= 0 && box.bottom <= innerHeight; }""")
    assert "tab=generate" in page.url


def test_a_bundle_without_a_vae_offers_no_latent_space(visit):
    page = visit("?tab=explore&bundle=heads-dual", ready="#explore-go")
    explore(page, **SMALL)
    assert page.is_visible("#explore-no-latent")
    assert page.locator("#explore-where label:has-text('latent')").count() == 0


def test_class_names_on_the_map_search_and_downloads(visit, tmp_path):
    page = visit("?tab=explore&by=names&named=wolf,%20pansy", ready="#explore-named textarea")
    assert page.input_value("#explore-named textarea") == "wolf, pansy"
    assert page.is_visible("#explore-names-places") and not page.is_visible("#explore-places")
    page.click("#explore-go")
    page.wait_for_selector("#explore-status .good")
    page.wait_for_selector("#explore-names-map .js-plotly-plot .points path")
    assert page.inner_text("#explore-names-sentence .answer").startswith("wolf lies nearest to timber wolf (cosine 0.")
    assert "timber wolf" in page.inner_text("#explore-beside dd >> nth=0")
    marks = "[...document.querySelectorAll('#explore-names-map .points path')].map(path => path.style.fill)"
    assert page.evaluate(marks).count("rgb(0, 158, 115)") >= 2, "one's own are accent-coloured"
    assert "rgb(111, 134, 166)" in page.evaluate(marks), "the zoo's are grey-blue"

    page.fill("#explore-search input", "husky")
    page.press("#explore-search input", "Enter")
    page.wait_for_selector("#explore-found:has-text('is part of 2 known names: husky (Eskimo dog), Siberian husky.')")
    page.wait_for_selector("#explore-names-map text:has-text('husky')")
    assert "search=husky" in page.url and "by=names" in page.url
    with zipfile.ZipFile(download(page, "#explore-names-data", tmp_path)) as archive:
        assert json.loads(archive.read("names.json"))["search"]["text"] == "husky"
        assert b"\npansy,pansy,yours," in archive.read("names.csv").replace(b"\r", b"")
    assert "Where do your names lie" in download(page, "#explore-names-html", tmp_path).read_text()

    page.fill("#explore-named textarea", "cat, cat")
    page.click("#explore-go")
    page.wait_for_selector("#explore-status .bad:has-text('The name cat is given twice')")
    assert "What you had is still here." in page.inner_text("#explore-status") and page.is_visible("#explore-beside")
    page.click("#explore-by label:has-text('Heads')")
    page.wait_for_selector("#explore-places")
    assert page.is_visible("#explore-data") and not page.is_visible("#explore-names-result")
    page.click("#bundle input")
    page.click("ul[role=listbox] li:has-text('heads-efficientnet-lite0')")
    page.wait_for_selector("#explore-by label:has-text('Class names')", state="detached")
    assert page.locator("#explore-by label").count() == 2


def test_brushing_and_other_views(visit, tmp_path):
    page = visit("?tab=explore&bundle=heads-efficientnet-lite0", ready="#explore-go")
    explore(page, **SMALL)
    page.locator("#explore-map").scroll_into_view_if_needed()
    box = page.locator("#explore-map .nsewdrag").bounding_box()
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.02)]
    place = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*place[0])
    page.mouse.down()
    for x, y in place[1:]:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()
    page.wait_for_selector("#explore-brushed")
    assert "heads chosen" in page.inner_text("#explore-count")
    with zipfile.ZipFile(download(page, "#explore-download-selected", tmp_path)) as archive:
        assert "heads.csv" in archive.namelist() and len(archive.namelist()) > 20

    page.click("#explore-where label:has-text('latent')")
    page.wait_for_selector("#explore-sentence:has-text('latent space')")
    page.click("#explore-method label:has-text('PCA')")
    page.wait_for_selector("#explore-map .xtitle:has-text('variance')")
    page.fill("#explore-perplexity input", "0")
    page.keyboard.press("Enter")
    page.wait_for_selector("#explore-status .bad:has-text('Perplexity should be a whole number')")


def test_cancel_keeps_what_was_there(visit):
    page = visit("?tab=explore", ready="#explore-go")
    page.fill("#explore-samples input", "2000")
    open_settings(page, "#explore >> text=Settings", "#explore-steps input")
    page.fill("#explore-steps input", "1000")
    page.click("#explore-go")
    page.wait_for_selector("#explore-status .working:has-text('sampling heads')")
    page.click("#explore-stop")
    page.wait_for_selector("#explore-status:has-text('Cancelled.')")
    assert page.is_enabled("#explore-go") and page.is_visible("#explore-places")


def test_a_telephone(visit):
    page = visit("?tab=explore&tasks=2&explored=24&__theme=dark", ready="#explore-go", width=390, height=844)
    assert page.input_value("#explore-tasks input") == "2" and page.input_value("#explore-samples input") == "24"
    explore(page)
    page.wait_for_selector("#explore-similarity .js-plotly-plot")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#explore-map .js-plotly-plot").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
