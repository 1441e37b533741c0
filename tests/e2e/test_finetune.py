"""The card "Train it further" as a visitor uses it."""

from d2nwg.heads import Head
from tests.e2e.acts import download, upload
from tests.e2e.test_browser import generate


def test_train_it_further(visit, digits_zip, tmp_path):
    page = visit()
    upload(page, "#files input[type=file]", digits_zip)
    page.wait_for_selector("#images .summary:has-text('5 classes · 80 images')")
    generate(page, samples=8)
    assert not page.is_visible("#tuned")
    page.fill("#tune-epochs input", "0")
    page.click("#tune-go")
    page.wait_for_selector("#tune-status .bad:has-text('Epochs should be a whole number from 1 to 500')")
    page.fill("#tune-epochs input", "4")
    page.fill("#tune-seeds input", "2")
    page.click("#tune-go")
    page.wait_for_selector("#tune-status .notice:is(.good, .bad):has-text('Done')")
    page.wait_for_selector("#tuned-figure .js-plotly-plot")
    said = page.inner_text("#tuned-sentence")
    assert said.startswith("The generated start is right on: untrained ")
    assert "Trained on 60 images, 25 of which generation saw" in said and "Scored on 20 others" in said
    rows = page.locator("#tuned-sentence tbody tr")
    assert rows.count() == 5 and "random initialisation" in rows.nth(1).inner_text()
    assert page.locator("#tuned-sentence thead th").all_inner_texts()[1:-1] == ["0", "1", "4"]
    head = Head.load(download(page, "#download-tuned", tmp_path))
    assert head.info["finetuned"]["epochs"] == 4 and head.classes == tuple(f"digit {i}" for i in range(5))

    assert page.is_enabled("#tune-go") and not page.is_visible("#tune-stop")
    generate(page, samples=4)
    assert not page.is_visible("#tuned")
