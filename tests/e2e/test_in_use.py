"""What follows the head in use in the Generate tab: predictions for many, the confusions, files for other programs."""

import csv
import subprocess
import sys
import zipfile

from tests.e2e.acts import download, upload
from tests.e2e.test_browser import generate


def test_many_pictures_a_baseline_a_cell_and_other_programs(visit, digits_zip, a_picture, tmp_path):
    page = visit()
    upload(page, "#files input[type=file]", digits_zip)
    page.wait_for_selector("#images .summary:has-text('5 classes · 80 images')")
    generate(page, samples=4)

    upload(page, "#many-files input[type=file]", digits_zip)
    page.wait_for_selector("#many-said p:has-text('of 80 images in folders named as a class')")
    assert page.inner_text("#many-said p").startswith("The chosen head is right on ")
    assert page.locator("#many-said .looked img").count() == 24
    rows = list(csv.reader(download(page, "#download-many", tmp_path).read_text().splitlines()))
    assert len(rows) == 81 and {row[3] for row in rows[1:]} == {f"digit {i}" for i in range(5)}
    right = sum(row[4] == "yes" for row in rows)
    assert f"is right on {right} of 80 images" in page.inner_text("#many-said p")

    page.click("#table [role=gridcell]:has-text('ridge (baseline)')")
    page.wait_for_selector("#picked:has-text('In use: ridge (baseline), right on ')")
    page.wait_for_selector("#seen:has-text('Ridge (baseline) predicts')")
    page.wait_for_selector("#many-stale:has-text('These are predictions of the chosen head')")
    assert download(page, "#download-head", tmp_path).name == "head-ridge.safetensors"
    page.click("#many-go")
    page.wait_for_selector("#many-said p:has-text('Ridge (baseline) is right on ')")
    assert not page.inner_text("#many-stale")

    page.wait_for_selector("#confusion .js-plotly-plot[data-hooked]")
    page.locator("#confusion").scroll_into_view_if_needed()
    area = page.locator("#confusion .nsewdrag").bounding_box()
    page.mouse.move(area["x"] + area["width"] / 10, area["y"] + area["height"] / 10)  # the first of five, both ways
    page.wait_for_selector("#confusion .hoverlayer .hovertext")
    page.mouse.click(area["x"] + area["width"] / 10, area["y"] + area["height"] / 10)
    page.wait_for_selector("#cell .seen:has-text('images of digit 0')")
    said = page.inner_text("#cell .seen")
    assert "of 11 images of digit 0 " in said and "recognised" in said
    assert page.locator("#cell img").count() == int(said.split()[0])

    page.click("#elsewhere-go")
    page.wait_for_selector("#download-elsewhere")
    archive = download(page, "#download-elsewhere", tmp_path)
    assert archive.name == "head-ridge-for-other-programs.zip"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    folder = tmp_path / "head-ridge-for-other-programs"
    run = [sys.executable, "-I", str(folder / "predict.py"), str(a_picture)]
    line = subprocess.run(run, capture_output=True, text=True, check=True, cwd=folder).stdout
    assert line.split("\t")[1].startswith("digit ")


def test_a_link_opens_a_result_again(visit, digits_zip):
    page = visit()
    assert not page.is_visible("#keep-go"), "what stands there at first needs no keeping"
    upload(page, "#files input[type=file]", digits_zip)
    page.wait_for_selector("#images .summary:has-text('5 classes · 80 images')")
    generate(page, samples=4)
    page.wait_for_selector("#sentence:has-text('Drawn 5 times')")
    page.click("#keep-go")
    link = page.get_attribute("#kept a", "href")
    said, rows = page.inner_text("#sentence"), page.inner_text("#table")
    page.context.close()

    other = visit(link, ready="#status:has-text('A kept result, of my digits')")
    assert (other.inner_text("#sentence"), other.inner_text("#table")) == (said, rows)
    other.wait_for_selector("#seen:has-text('The chosen head predicts')")
    other.click("#table [role=gridcell]:has-text('sample 2')")
    other.wait_for_selector("#seen:has-text('Sample 2 predicts')")
    assert "result=" in other.url
    generate(other, samples=3)  # of what is chosen, and no longer what the link says
    other.wait_for_function("!location.search.includes('result=')")
    visit("?result=nothing", ready="#status:has-text('not kept here, or no longer')")
