"""A head from typed class names, as a visitor makes it."""

import pytest

from tests.e2e.acts import download, upload
from tests.e2e.test_browser import DIGITS, bars, generate, status, use_elsewhere


def test_type_names_generate_try_and_download(visit, a_picture, tmp_path):
    page = visit(DIGITS)
    page.click("#example input")
    page.click("ul[role=listbox] li:has-text('No images, class names alone')")
    page.wait_for_selector("#images:has-text('No images')")
    for part in ("#shots", "#free-part"):
        page.wait_for_selector(part, state="hidden")
    page.click("#go")
    page.wait_for_selector("#status .bad:has-text('No class is named')")
    assert page.is_visible("#places") and not page.is_visible("#result")
    page.fill("#names textarea", "tabby cat, golden retriever, red fox")
    generate(page, samples=4)
    answer = page.inner_text("#sentence .answer")
    assert answer.startswith("A head from such names is right on about ")
    for part in ("#strip", "#confusion", "#table", "#another"):
        assert not page.is_visible(part)

    upload(page, "#picture input[type=file]", a_picture)
    page.wait_for_selector("#seen .likeliest")
    assert "The head predicts" in page.inner_text("#seen")
    head = download(page, "#download-head", tmp_path)
    elsewhere = use_elsewhere(head, a_picture)
    assert list(elsewhere) == ["tabby cat", "golden retriever", "red fox"]
    for name, percent in bars(page).items():
        assert percent == pytest.approx(100 * elsewhere[name], abs=0.2)

    page.fill("#names textarea", "cat, cat")
    page.click("#go")
    page.wait_for_selector("#status .bad")
    assert "given twice" in status(page) and "The result you had is still here." in status(page)
    assert page.inner_text("#sentence .answer") == answer

    page.click("#example input")
    page.click("ul[role=listbox] li:has-text('Handwritten digits') >> nth=0")
    page.wait_for_selector("#images .summary:has-text('10 classes')")
    page.wait_for_selector("#shots")
    page.fill("#names textarea", "0=zero, 1=one")
    page.wait_for_function("new URL(location.href).searchParams.get('names') === '0=zero, 1=one'")
    generate(page, samples=3)
    assert "The class names " in page.inner_text("#sentence .answer")
    page.wait_for_selector("#confusion .js-plotly-plot")
    page.wait_for_selector("#strip .js-plotly-plot")
    page.wait_for_selector("#seen:has-text('The chosen head predicts')")


def test_a_link_presets_the_names(visit):
    page = visit("?names=cat,%20dog&samples=3", ready="#images:has-text('No images')")
    assert page.input_value("#names textarea") == "cat, dog"
    generate(page)
    page = visit(f"?names={'x' * 3000}")
    assert "class names of more than 2,000 characters" in status(page) and page.input_value("#names textarea") == ""
