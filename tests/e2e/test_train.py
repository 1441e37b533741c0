"""The Train tab from an empty start: two data sets in, a zoo, a training, and heads from the new bundle."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.e2e.acts import open_settings, upload


def pictures(path: Path, sets: dict[str, list], size: int = 64) -> Path:
    """A zip of class folders."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, images in sets.items():
            for number, pixels in enumerate(images):
                file = path.parent / f"{path.stem}-{name}-{number}.png"
                Image.fromarray(pixels).convert("RGB").resize((size, size)).save(file)
                archive.write(file, f"{path.stem}/{name}/{number}.png")
    return path


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory) -> list[Path]:
    """Scanned digits, and pieces of two photographs, as zips."""
    from sklearn.datasets import load_digits, load_sample_images

    folder, digits = tmp_path_factory.mktemp("sets"), load_digits()
    numbers = {
        f"digit {k}": [(p * 15.9).astype("uint8") for p in digits.images[digits.target == k][:10]] for k in range(4)
    }
    places = {
        name: [photo[40 * i : 40 * i + 80, x : x + 80] for i in range(8)]
        for photo, label in zip(load_sample_images().images, ("temple", "flower"), strict=True)
        for x, name in ((80, f"{label} left"), (400, f"{label} right"))
    }
    return [pictures(folder / "digits.zip", numbers), pictures(folder / "places.zip", places)]


def finished(page, name: str):
    card = page.locator(f"#jobs .job:has(b:text-is('{name}'))")
    card.locator(".state:has-text('finished'), .state:has-text('failed')").wait_for()
    assert "finished" in card.inner_text(), card.inner_text()
    return card


def test_from_an_empty_start(visit, two_sets, tmp_path):
    page = visit()
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#jobs:has-text('Your jobs will stand here')")
    assert not page.is_visible("#bundle"), "no bundle is used here"
    page.wait_for_selector("#train-generator label.selected:has-text('Dual')")
    upload(page, "#zoo-files input[type=file]", two_sets)
    page.wait_for_selector("#zoo-found:has-text('places')")
    assert (
        page.inner_text("#zoo-found").count("4 classes") == 2
        and page.input_value("#zoo-name input, #zoo-name textarea") == "digits-and-1-more"
    )
    open_settings(page, "#train button:has-text('Settings') >> nth=0", "#zoo-subsets input")
    for key, value in (("subsets", 60), ("images", 5), ("high", 4)):
        page.fill(f"#zoo-{key} input", str(value))
    page.click("#zoo-go")
    finished(page, "digits-and-1-more")
    page.wait_for_selector("#zoo-status:has-text('The zoo digits-and-1-more is finished: see Jobs')")
    page.wait_for_selector("#zoo-about:has-text('60 linear heads')")
    page.click("#train-generator label:has-text('UNet')")
    open_settings(page, "#train-settings button", "#train-settings :is(input, textarea)")
    for field, value in (("vae steps", 40), ("align steps", 10), ("diffusion steps", 40), ("checkpoint every", 10)):
        page.get_by_label(field, exact=False).filter(visible=True).first.fill(str(value))
    page.fill("#train-name input, #train-name textarea", "mine")
    page.click("#train-go")
    page.wait_for_selector("#train-status:has-text('mine')")  # in the queue, and soon running

    page.reload()  # a job does not mind
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#jobs .job:has-text('mine')")
    finished(page, "mine")
    page.wait_for_selector("#job-losses .js-plotly-plot")
    page.wait_for_selector("#job-accuracies .js-plotly-plot")
    page.click("#job-logs button")
    page.wait_for_selector("#job-log:has-text('Training the denoiser')")
    page.click("#job-use")
    page.wait_for_selector("#go", state="visible")
    upload(page, "#files input[type=file]", two_sets[0])
    page.wait_for_selector("#images .summary:has-text('4 classes · 40 images')")
    page.fill("#samples input", "4")
    page.click("#go")
    page.wait_for_selector("#status .notice:is(.good, .bad)")
    assert page.locator("#status .good").count(), page.inner_text("#status")
    assert page.input_value("#bundle input") == "mine"
    assert "of 20 images it never saw" in page.inner_text("#sentence")


def test_checkpoints_are_looked_at_and_imported(visit, tmp_path, studio):
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save(torch.nn.Linear(4, 3).state_dict(), good)
    torch.save({"code": os.system}, bad)
    page = visit()
    page.get_by_role("tab", name="Train").click()
    page.click("label:has-text('Import checkpoints')")
    upload(page, "#zoo-files input[type=file]", [good, bad])
    page.wait_for_selector("#zoo-found:has-text('1 checkpoint, 1 architecture')")
    assert "bad.pt needs code to open" in page.inner_text("#zoo-found")
    page.wait_for_selector("#zoo-figure .js-plotly-plot")
    page.click("#zoo-go")
    page.wait_for_selector("#zoo-status:has-text('1 checkpoint imported as the zoo good-and-1-more')")
    page.wait_for_function("document.querySelector('#zoo-chosen input').value === 'good-and-1-more'")
    page.wait_for_selector("#train-generator label.selected:has-text('Networks (imported)')")
    said = page.inner_text("#zoo-status")
    assert "2 files: 1 imported as 1 checkpoint, 1 left out" in said and "bad.pt needs code to open" in said
    assert (studio.cache / "zoos" / "good-and-1-more" / "zoo.json").is_file()


def test_checkpoints_are_added_and_learnt(visit, tmp_path, studio):
    page = visit()
    page.get_by_role("tab", name="Train").click()
    page.click("label:has-text('Import checkpoints')")
    for turn in range(2):
        files = [tmp_path / f"net-{turn}-{i}.pt" for i in range(5)]
        for file in files:
            torch.save(torch.nn.Linear(4, 3).state_dict(), file)
        if turn:
            page.click("#zoo-files button[aria-label='Clear']")
        upload(page, "#zoo-files input[type=file]", files)
        page.wait_for_selector("#zoo-found:has-text('5 checkpoints, 1 architecture')")
        page.fill("#zoo-name input, #zoo-name textarea", "nets")
        page.locator("#zoo-append input").set_checked(bool(turn))
        page.click("#zoo-go")
        words = "5 checkpoints added to the zoo nets, which now has 10" if turn else "5 checkpoints imported"
        page.wait_for_selector(f"#zoo-status:has-text('{words}')")
    page.wait_for_function("document.querySelector('#zoo-chosen input').value === 'nets'")
    page.wait_for_selector("#zoo-about:has-text('10 networks of 1 architecture')")
    page.wait_for_selector("#train-generator label.selected:has-text('Networks')")
    page.wait_for_selector("#train-preset")
    open_settings(page, "#train-settings button", "#train-settings :is(input, textarea)")
    for field, value in (("vae steps", 4), ("align steps", 2), ("diffusion steps", 4)):
        page.get_by_label(field, exact=False).filter(visible=True).first.fill(str(value))
    page.fill("#train-name input, #train-name textarea", "whole")
    page.click("#train-go")
    finished(page, "whole")
    page.wait_for_selector("#job-done", state="visible")
    page.wait_for_selector("#job-done:has-text('d2nwg sample')")
    assert not page.locator("#job-use").is_visible(), "the Generate tab is for heads"
