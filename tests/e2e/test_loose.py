"""Photographs as people have them: loose ones that are sorted by hand, and a folder."""

import zipfile

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.e2e.acts import STAYS, download, open_settings, photograph, upload
from tests.e2e.test_accessibility import axe, faults


@pytest.fixture
def photographs(tmp_path):
    """Six zeros and six ones as a camera names them, and the same in class folders beside a hidden file and a film."""
    digits, loose, folder = load_digits(), [], tmp_path / "my digits"
    for label in (0, 1):
        (folder / f"digit {label}").mkdir(parents=True)
        for pixels in digits.images[digits.target == label][:6]:
            loose.append(tmp_path / f"IMG_{len(loose):04}.png")
            picture = Image.fromarray((pixels * 15.9).astype("uint8")).resize((64, 64))
            picture.save(loose[-1])
            picture.save(folder / f"digit {label}" / loose[-1].name)
    (folder / ".hidden.png").write_bytes(b"hidden")
    (folder / "film.mov").write_bytes(b"film")
    return loose, folder


def test_a_folder_is_dropped(visit, photographs):
    """As a person's hand does it: the browser makes the events, and reads the folder."""
    _, folder = photographs
    page = visit()
    page.wait_for_selector("#folder input[type=file]", state="attached")
    browser, data = page.context.new_cdp_session(page), {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for zone in ("#files", "#folder"):
        page.locator(zone).scroll_into_view_if_needed()
        area = page.locator(zone).bounding_box()
        at = {"x": area["x"] + area["width"] / 2, "y": area["y"] + area["height"] / 2}
        for kind in ("dragEnter", "dragOver", "drop"):
            browser.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
        page.wait_for_selector("#images .summary:has-text('2 classes · 12 images')")
        assert not page.locator("#images .notes").count(), "what is no picture did not come along"
        page.reload()
        page.wait_for_selector("#folder input[type=file]", state="attached")
        page.wait_for_selector("#images .summary:has-text('10 classes')")


COPY = """async () => {
    const canvas = document.createElement("canvas");
    canvas.getContext("2d").fillRect(0, 0, 64, 64);
    const picture = await new Promise(done => canvas.toBlob(done, "image/png"));
    await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
}"""


def test_a_picture_of_the_clipboard(visit):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_settings(page, "#sort", "#class-name :is(input, textarea)")
    page.fill("#class-name :is(input, textarea)", "zero, one")
    page.press("#class-name :is(input, textarea)", "Enter")
    page.wait_for_selector("#boxes [data-box=one]")
    page.click("#camera-part button")
    page.evaluate(COPY)
    page.click("#camera button[aria-label='Paste from clipboard']")
    page.wait_for_selector("#boxes [data-box=zero] .tile img")
    page.wait_for_selector("#loose-said:has-text('1 picture added to zero.')")
    page.wait_for_selector("#camera button[aria-label='Paste from clipboard']")  # it is empty again, for the next one
    assert page.locator("#boxes .tile img").count() == 1


def test_a_picture_of_the_camera(visit):
    page = visit()
    page.wait_for_selector("#seen:has-text('has not seen')")  # of the result that stands at first, which comes late
    assert page.evaluate(STAYS, ["#picture", "its picture"])
    photograph(page, "#picture")
    page.wait_for_selector("#seen:has-text('The chosen head predicts'):not(:has-text('has not seen'))")
    assert page.locator("#picture img").count() == 1


def test_from_loose_photographs_or_a_folder_to_a_result(visit, photographs, tmp_path):
    loose, folder = photographs
    page = visit()
    page.wait_for_selector("#folder input[type=file]", state="attached")
    page.set_input_files("#folder input[type=file]", folder)
    page.wait_for_selector("#images .summary:has-text('2 classes · 12 images')")
    assert not page.locator("#images .notes").count(), "what is no picture did not come along"

    upload(page, "#files input[type=file]", loose, refused=True)
    page.wait_for_selector("#loose-said:has-text('12 pictures added. Their names say no two classes')")
    assert page.locator("#boxes .tile img").count() == 12 and not page.is_visible("#files")
    page.fill("#class-name :is(input, textarea)", "zero, one")
    page.press("#class-name :is(input, textarea)", "Enter")
    page.wait_for_selector("#boxes [data-box=one]")
    unsorted = "#boxes [data-box='']"
    for number in range(6):  # with keys alone
        page.locator(f"{unsorted} .tile").nth(number).press("Space")
    page.evaluate(axe.AXE_SCRIPT)
    assert not faults(page)
    page.press("#boxes [data-box=zero] .here", "Enter")
    page.wait_for_selector("#loose-said:has-text('6 pictures put into zero.')")
    assert page.evaluate("document.activeElement.matches('[data-box=zero] .pick')"), "the focus stays"
    page.locator(f"{unsorted} .tile").nth(0).drag_to(page.locator("#boxes [data-box=one]"))
    page.wait_for_selector("#loose-said:has-text('1 picture put into one.')")
    page.click(f"{unsorted} .all")
    page.click("#boxes [data-box=one] .here")
    page.wait_for_selector("#loose-said:has-text('5 pictures put into one.')")

    page.click("#pack")
    page.wait_for_selector("#download-sorted")
    with zipfile.ZipFile(download(page, "#download-sorted", tmp_path)) as archive:
        names = sorted(archive.namelist())
    assert names[0] == "sorted photographs/one/IMG_0006.png" and len(names) == 12
    page.click("#go")
    page.wait_for_selector("#status .notice:is(.good, .bad)")
    assert "your photographs · 2 classes" in page.inner_text("#sentence")
