"""A task in words, and its adapter tried, scored and taken away."""

import csv
import zipfile

from tests.e2e.acts import download, upload
from tests.helpers.text_tasks import DESCRIBED, opinions


def test_describe_try_score_and_download(visit, studio, described, tmp_path):
    bundles = studio.cache / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    (bundles / "a-described").symlink_to(described[0] / "bundles" / "adapters")
    page = visit(f"?tab=describe&describe={DESCRIBED['tone'][1]}", ready="#d-go")
    assert page.input_value("#description textarea") == DESCRIBED["tone"][1]
    page.click("#describe button:has-text('Settings')")
    page.click("#d-bundle input")
    page.click("ul[role=listbox] li:has-text('a-described')")
    page.click("#d-go")
    page.wait_for_selector("#d-sentence .answer b:has-text('tone')")
    page.wait_for_selector("#d-near .likeliest :text('contrary')")
    page.fill("#d-text textarea", "a very good film")
    page.click("#d-try")
    page.wait_for_selector("#d-said .side li >> nth=0")
    assert page.inner_text("#d-said .side li .name >> nth=0") == "yes"

    table = tmp_path / "rows.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((row["text"], row["label"]) for row in opinions(30, 5))])
    page.click("#d-score")
    page.wait_for_selector("#d-score-status .bad:has-text('Drop a table')")
    upload(page, "#d-table input[type=file]", table)
    page.click("#d-score")
    page.wait_for_selector("#d-scores td >> nth=0")
    page.wait_for_selector("#d-confusion .js-plotly-plot")
    with zipfile.ZipFile(download(page, "#d-adapter", tmp_path)) as packed:
        assert "adapter/adapter_config.json" in packed.namelist()
    told = download(page, "#d-predictions", tmp_path).read_text().splitlines()
    assert told[0] == "text,label,predicted,probability" and len(told) == 31

    answer = page.inner_text("#d-sentence .answer")
    page.fill("#description textarea", "How hot is this soup?")
    page.click("#d-go")
    page.wait_for_selector("#d-status .bad:has-text('name its labels')")
    assert "The adapter you had is still here" in page.inner_text("#d-status")
    assert page.inner_text("#d-sentence .answer") == answer
    page.fill("#labels input, #labels textarea", "cold, warm, hot")
    page.click("#d-go")
    page.wait_for_selector("#d-sentence .answer:has-text('knows no such task')")
    assert not page.is_visible("#d-confusion")
