"""Visitors of one app from other machines: each has their own jobs, whoever sits at the app's machine sees all."""

import zipfile

import pytest
from PIL import Image

from tests.e2e.acts import open_settings, upload


@pytest.fixture
def two_classes(tmp_path):
    """A zip of two classes of colours."""
    path = tmp_path / "colours.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for colour in ("red", "blue"):
            for number in range(20):
                file = tmp_path / f"{colour}-{number}.png"
                Image.new("RGB", (32, 32), colour).point(lambda p, n=number: min(255, p + n)).save(file)
                archive.write(file, f"colours/{colour}/{number}.png")
    return path


def open_train(visit, **who):
    page = visit(**who)
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#jobs :is(.place, .job)")
    return page


def test_a_job_is_its_owners(visit, two_classes):
    mine = open_train(visit, away=True)
    upload(mine, "#zoo-files input[type=file]", two_classes)
    mine.wait_for_selector("#zoo-found:has-text('2 classes')")
    mine.fill("#zoo-name input, #zoo-name textarea", "only-mine")
    open_settings(mine, "#train button:has-text('Settings') >> nth=0", "#zoo-subsets input")
    for key, value in (("subsets", 5), ("images", 2), ("high", 2)):
        mine.fill(f"#zoo-{key} input", str(value))
    mine.click("#zoo-go")
    mine.wait_for_selector("#jobs .job:has-text('only-mine')")

    other, here = open_train(visit, away=True), open_train(visit)
    here.wait_for_selector("#jobs .job:has-text('only-mine')")
    mine.reload()  # the browser keeps the token
    mine.get_by_role("tab", name="Train").click()
    mine.wait_for_selector("#jobs .job:has-text('only-mine'):has(.state:has-text('finished'))")
    mine.wait_for_selector("#zoo-about:has-text('5 linear heads')")
    assert "only-mine" not in other.content() and "Your jobs will stand here" in other.inner_text("#jobs")
    assert not other.locator("#job-delete").is_visible()

    here.wait_for_selector("#job-delete button:not([disabled]), button#job-delete:not([disabled])")
    here.click("#job-delete")
    mine.wait_for_selector("#jobs .place")
