"""Maps of tasks, and paths between descriptions, as a visitor sees them."""

import json
import shutil
import zipfile

import pytest

from d2nwg.adapters import Adapter
from tests.e2e.acts import download, open_settings, upload

ENDS = ("Did the reviewer enjoy the film?", "Tell whether a legal agreement is invalid.")


@pytest.fixture(scope="module")
def at_hand(studio, adapters):
    """The bundle of adapters in the app's cache; its name."""
    name = "described"
    shutil.copytree(adapters, studio.cache / "bundles" / name)
    yield name
    shutil.rmtree(studio.cache / "bundles" / name)


def choose(page, dropdown: str, name: str) -> None:
    page.click(f"{dropdown} input")
    page.click(f"ul[role=listbox] li:has-text('{name}')")


def test_a_map_of_tasks(visit, at_hand, tmp_path):
    page = visit("?tab=explore&by=tasks&described=Is%20it%20spam%3F", ready="#explore-described textarea")
    assert page.input_value("#explore-described textarea") == "Is it spam?"
    assert page.is_visible("#explore-tasks-places") and not page.is_visible("#explore-places")
    assert not page.is_visible("#explore-no-adapters")
    choose(page, "#explore-task-bundle", at_hand)
    page.fill("#explore-described textarea", ENDS[0])
    page.click("#explore-go")
    page.wait_for_selector("#explore-status .good")
    page.wait_for_selector("#explore-tasks-map .js-plotly-plot .points path")
    answer = page.inner_text("#explore-tasks-sentence .answer")
    assert answer.startswith("This is a task that the generator knows, tone.")
    assert "Is this film review positive?" in page.inner_text("#explore-known-tasks dd >> nth=0")
    page.click("#explore-tasks-method label:has-text('PCA')")
    page.wait_for_selector("#explore-tasks-map .xtitle:has-text('variance')")
    with zipfile.ZipFile(download(page, "#explore-tasks-data", tmp_path)) as archive:
        assert json.loads(archive.read("tasks.json"))["description"] == ENDS[0]
    page.click("#explore-by label:has-text('Heads')")
    page.wait_for_selector("#explore-places")
    page.click("#explore-by label:has-text('Tasks of texts')")
    page.wait_for_selector("#explore-tasks-sentence .answer")


def test_a_path_between_descriptions(visit, at_hand, adapters, tmp_path):
    page = visit("?tab=interpolate&between=descriptions", ready="#path-task-a textarea", width=390, height=844)
    assert page.is_visible("#descriptions-places") and not page.is_visible("#endpoint-a")
    choose(page, "#path-adapters", at_hand)
    for letter, text in zip("ab", ENDS, strict=True):
        page.fill(f"#path-task-{letter} textarea", text)
    open_settings(
        page, "#interpolate .choose button:has-text('Settings') >> visible=true", "#described-task_points input"
    )
    page.fill("#described-task_points input", "5")
    upload(page, "#path-texts-a input[type=file]", adapters.parents[1] / "tone" / "test.jsonl")
    page.click("#interpolate-go")
    page.wait_for_selector("#interpolate-status .good")
    page.wait_for_selector("#descriptions-scores-a .js-plotly-plot")
    assert not page.is_visible("#descriptions-scores-b")
    answer = page.inner_text("#descriptions-sentence .answer")
    assert answer.startswith("On 60 texts of A (test): ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "At 0.50: " in page.inner_text("#descriptions-where")
    page.click("#descriptions-method label:has-text('Weights')")
    page.fill("#descriptions-alpha input[type=number]", "0.75")
    page.keyboard.press("Enter")
    page.wait_for_selector("#descriptions-where:has-text('At 0.75: ')")
    shutil.unpack_archive(download(page, "#download-adapter", tmp_path), tmp_path)
    assert Adapter.load(tmp_path / "adapter-weights-0.75").info["method"] == "weights"
    with zipfile.ZipFile(download(page, "#download-described", tmp_path)) as archive:
        assert {"path.json", "points.csv", "scores-a.html"} <= set(archive.namelist())

    page.fill("#path-task-b textarea", ENDS[0])
    page.click("#interpolate-go")
    page.wait_for_selector("#interpolate-status .bad:has-text('The two descriptions read the same')")
    assert "The path you had is still here." in page.inner_text("#interpolate-status")
    assert page.inner_text("#descriptions-sentence .answer") == answer
