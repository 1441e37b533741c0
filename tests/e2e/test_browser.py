"""The Generate tab as a visitor uses it."""

import hashlib
import io
import json
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from d2nwg.heads import Head
from d2nwg.ui.generate.first import BEFOREHAND
from tests.e2e.acts import PATIENCE, download, open_settings, upload
from tests.helpers.texts import write_topics

DIGITS = "?example=digits"


def status(page) -> str:
    return page.inner_text("#status .notice, #status .working")


def generate(page, **fields):
    """Fill in fields, press the button, wait for the result."""
    for name, value in fields.items():
        page.fill(f"#{name} input", str(value))
    page.evaluate("document.querySelector('#status .notice')?.classList.add('earlier')")
    page.click("#go")
    page.wait_for_selector("#status .notice:is(.good, .bad):not(.earlier)")
    assert page.locator("#status .good").count(), status(page)


def use_elsewhere(head, picture) -> dict:
    """Load a head and look at a picture with it in a fresh process."""
    code = (
        "import json, sys; from d2nwg import Head; head = Head.load(sys.argv[1]); "
        "p, ok = head.probabilities([__import__('pathlib').Path(sys.argv[2])]); "
        "print(json.dumps([head.classes, p[0].tolist(), bool(ok[0])]))"
    )
    done = subprocess.run([sys.executable, "-c", code, head, picture], capture_output=True, text=True, check=True)
    classes, probabilities, readable = json.loads(done.stdout)
    assert readable
    return dict(zip(classes, probabilities, strict=True))


def bars(page) -> dict:
    """The likeliest classes as the page shows them, in percent."""
    rows = page.evaluate("""[...document.querySelectorAll('#seen .likeliest li')].map(
        row => [row.querySelector('.name').innerText, parseFloat(row.querySelector('.many').innerText)])""")
    return dict(rows)


def test_first_sight(visit, tmp_path):
    """A finished result on photographs stands there, its files are real, and a card computes another one."""
    page = visit()
    page.wait_for_selector("#sentence .answer")
    assert "10 classes · 218 images" in page.inner_text("#images .summary")
    assert page.locator("#images .strip img").count() == 10 and not page.is_visible("#images .row")
    assert page.is_visible("#result") and not page.is_visible("#places")
    assert "images it never saw" in page.inner_text("#sentence") and BEFOREHAND in page.inner_text("#sentence")
    page.wait_for_selector("#strip .js-plotly-plot")
    page.wait_for_selector("#confusion .js-plotly-plot")
    assert "The generator has not seen this picture" in page.inner_text("#seen")
    report = json.loads(download(page, "#download-report", tmp_path).read_text())
    assert f"{100 * report['query_accuracy']['chosen']:.1f}\u00a0%" in page.inner_text("#sentence .answer")
    assert Head.load(download(page, "#download-head", tmp_path)).classes == tuple(report["classes"])
    page.wait_for_selector("#go:not([disabled])")
    assert page.locator("#go").bounding_box()["y"] < 900 - 40 and not page.is_visible("#stop")

    page.click("#card-names")
    page.wait_for_selector("#status .notice:is(.good, .bad)")
    assert page.locator("#status .good").count(), status(page)
    assert page.inner_text("#sentence .answer").startswith("A head from such names is right on about ")
    assert "jeans" in page.input_value("#names textarea") and not page.is_visible("#shots")
    assert BEFOREHAND not in page.inner_text("#sentence") and len(bars(page)) == 5  # a photograph was tried


def test_the_first_result_is_not_shown_for_a_link_to_another_example(visit):
    page = visit(DIGITS)
    page.wait_for_selector("#images .summary:has-text('10 classes · 600 images')")
    page.wait_for_selector("#go:not([disabled])")
    assert page.is_visible("#places") and not page.is_visible("#result")


def test_unlabelled_images_take_part(visit, digits_zip, tmp_path):
    with zipfile.ZipFile(digits_zip) as labelled, zipfile.ZipFile(tmp_path / "more.zip", "w") as free:
        for number, name in enumerate(labelled.namelist()):
            picture = Image.open(io.BytesIO(labelled.read(name))).convert("RGB").rotate(5, fillcolor="white")
            data = io.BytesIO()
            picture.save(data, "png")
            free.writestr(f"{number}.png", data.getvalue())
    page = visit(DIGITS)
    upload(page, "#files input[type=file]", digits_zip)
    page.wait_for_selector("#images .summary:has-text('5 classes · 80 images')")
    page.click("text=Unlabelled images or texts (optional)")
    upload(page, "#free input[type=file]", tmp_path / "more.zip")
    generate(page, samples=8, shots=1)
    said = page.inner_text("#sentence .answer")
    assert "80 unlabelled images took part; without them it reaches" in said


def test_texts_make_a_head_to_try(visit, tmp_path):
    page = visit(DIGITS)
    upload(page, "#files input[type=file]", write_topics(tmp_path / "topics.csv"))
    page.wait_for_selector("#images .summary:has-text('3 classes · 36 texts')")
    generate(page, samples=8, shots=2)
    assert "of 30 texts it never saw" in page.inner_text("#sentence .answer")
    assert "The generator has not seen this text" in page.inner_text("#seen")
    assert page.input_value("#text textarea") and not page.is_visible("#picture") and not page.is_visible("#second")
    page.fill("#text textarea", "The referee ended the match.")
    page.click("#try-text")
    page.wait_for_selector("#seen:has-text('predicts football')")
    assert len(bars(page)) == 3


def test_upload_generate_try_pick_download(visit, digits_zip, a_picture, tmp_path):
    page = visit(DIGITS)
    upload(page, "#files input[type=file]", digits_zip)
    page.wait_for_selector("#images .summary:has-text('5 classes · 80 images')")
    generate(page, samples=8)
    page.wait_for_selector("#sentence:has-text('Drawn 5 times: with 5 labelled images a class')")
    sentence = page.inner_text("#sentence .answer")
    assert sentence.startswith("The generated head is right on ") and "of 55 images it never saw" in sentence
    page.wait_for_selector("#strip .js-plotly-plot")
    page.wait_for_selector("#confusion .js-plotly-plot")
    assert "The generator has not seen this picture" in page.inner_text("#seen")

    page.click("#picture button[aria-label='Remove Image']")
    page.wait_for_selector("#seen:has-text('will stand here')")
    upload(page, "#picture input[type=file]", a_picture)
    page.wait_for_selector("#seen .likeliest")
    assert len(bars(page)) == 5
    chosen = download(page, "#download-head", tmp_path)
    assert chosen.name == "head.safetensors"
    elsewhere = use_elsewhere(chosen, a_picture)
    for name, percent in bars(page).items():
        assert percent == pytest.approx(100 * elsewhere[name], abs=0.2)

    page.click("#table [role=gridcell]:has-text('sample 3')")
    page.wait_for_selector("#picked:has-text('In use: sample 3')")
    page.wait_for_selector("#seen:has-text('Sample 3 predicts')")
    picked = download(page, "#download-head", tmp_path)
    assert picked.name == "head-sample-3.safetensors"
    assert 'Head.load("head-sample-3.safetensors")' in page.inner_text("#snippet")
    elsewhere = use_elsewhere(picked, a_picture)
    for name, percent in bars(page).items():
        assert percent == pytest.approx(100 * elsewhere[name], abs=0.2)

    report = json.loads(download(page, "#download-report", tmp_path).read_text())
    assert f"{100 * report['query_accuracy']['chosen']:.1f}\u00a0%" in sentence
    assert len(report["samples"]) == 8
    assert download(page, "#download-samples", tmp_path).stat().st_size > 8 * picked.stat().st_size * 0.9


def test_a_bad_upload_is_a_sentence(visit, tmp_path):
    page = visit(DIGITS)
    for name, content, words in (
        ("notes.zip", b"this is no archive", "notes.zip"),
        ("one.txt", b"hello", "one.txt"),
        ("empty.zip", None, "no images"),
        ("<img src=x onerror=alert(1)>.zip", b"no archive", "archive"),
    ):
        path = tmp_path / name
        if content is None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a/readme.pdf", "nothing")
        else:
            path.write_bytes(content)
        page.evaluate("document.querySelector('#files-said .notice')?.classList.add('earlier')")
        upload(page, "#files input[type=file]", path, refused=True)
        page.wait_for_selector("#files-said .notice.bad:not(.earlier)")
        said = page.inner_text("#files-said")  # where it was dropped
        assert words in said and "digits is still chosen." in said
        everything = page.inner_text("body")
        assert "Error" not in everything and "Traceback" not in everything
        assert page.locator("#files-said img").count() == 0
    generate(page, samples=3)  # what was chosen before still works


def test_a_failure_keeps_the_result(visit):
    page = visit(DIGITS)
    generate(page, samples=3)
    page.wait_for_selector("#sentence:has-text('Drawn 5 times')")
    sentence = page.inner_text("#sentence .result")
    page.fill("#shots input", "60")
    page.click("#go")
    page.wait_for_selector("#status .notice.bad")
    assert "class 0" in status(page) and "The result you had is still here." in status(page)
    page.fill("#shots input", "0")
    page.click("#go")
    page.wait_for_selector("#status:has-text('Images per class should be a whole number')")
    assert page.inner_text("#sentence .result") == sentence and page.is_enabled("#go")
    assert "Error" not in page.inner_text("body")


@pytest.fixture(scope="module")
def noise_zip(tmp_path_factory):
    """3,000 images that no cache knows: reading them takes long enough to be stopped."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("noise") / "noise.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3000):
            data = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(data, "png", compress_level=0)
            archive.writestr(f"class {i % 3}/{i}.png", data.getvalue())
    return path


def known_images(studio, archive) -> int:
    """How many images of a zip the app has read so far: those whose features it keeps."""
    with zipfile.ZipFile(archive) as opened:
        keys = {hashlib.sha256(opened.read(name)).digest() for name in opened.namelist()}
    known = 0
    for path in (studio.cache / "features").glob("*.sqlite"):
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as db:
            known += sum(key in keys for (key,) in db.execute("SELECT image FROM features"))
    return known


@pytest.mark.parametrize("how", ["cancel", "close the page"])
def test_stopping_really_stops(visit, studio, noise_zip, how):
    page, other = visit(DIGITS), visit(DIGITS)
    upload(page, "#files input[type=file]", noise_zip)
    page.wait_for_selector("#images .summary:has-text('3,000 images')")
    open_settings(page, "text=Settings", "#most input")
    page.fill("#most input", "10000")
    page.click("#go")
    page.wait_for_selector("#status .working:has-text('Reading images')")
    other.fill("#samples input", "3")
    other.click("#go")  # waits for its turn
    other.wait_for_selector("#status:has-text('Waiting: one is ahead of you')")
    if how == "cancel":
        page.click("#stop")
        page.wait_for_selector("#status:has-text('Cancelled.')")
        assert page.is_enabled("#go") and not page.is_visible("#stop")
        assert page.is_visible("#places") and not page.is_visible("#result")
    else:
        page.context.close()
    other.wait_for_selector("#status .good")  # the place was free
    assert 0 < known_images(studio, noise_zip) < 3000


def test_two_visitors_do_not_meet(visit, studio, digits_zip):
    one, two = visit(DIGITS), visit(DIGITS)
    upload(one, "#files input[type=file]", digits_zip)
    one.wait_for_selector("#images .summary:has-text('5 classes')")
    generate(one, samples=3)
    assert two.is_visible("#places") and not two.is_visible("#result")
    assert "10 classes" in two.inner_text("#images .summary")
    with one.expect_download() as waiting:
        one.click("#download-head")
    link = waiting.value.url
    assert one.request.get(link).ok
    folder = link.split("/session-")[1].split("/")[0]
    assert list(studio.files.glob(f"*/session-{folder}"))
    assert not two.request.get(link.replace(folder, "x" * len(folder))).ok
    one.context.close()
    deadline = time.monotonic() + PATIENCE
    while list(studio.files.glob(f"*/session-{folder}")):  # what one visitor made goes with them
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not two.request.get(link).ok


def test_a_link_presets_the_controls(visit):
    page = visit("?tab=generate&example=digits&shots=3&samples=7&seed=11")
    assert page.input_value("#shots input") == "3" and page.input_value("#samples input") == "7"
    page.fill("#shots input", "4")
    page.wait_for_function("new URL(location.href).searchParams.get('shots') === '4'")
    assert "seed=11" in page.url and "bundle=" in page.url
    page = visit("?bundle=elsewhere&shots=many")
    assert "bundle elsewhere and shots many" in status(page)


def test_a_telephone(visit):
    page = visit(f"{DIGITS}&__theme=dark", width=390, height=844)
    generate(page, samples=5)
    page.wait_for_selector("#confusion .js-plotly-plot")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for figure in ("#strip", "#confusion"):
        box = page.locator(f"{figure} .js-plotly-plot").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_hostile_names(visit, tmp_path, digits_zip):
    """Class names are text everywhere: in rows, figures, the table and the likeliest classes."""
    nasty = "<img src=x onerror=document.title='owned'>"
    path = tmp_path / "nasty.zip"
    with zipfile.ZipFile(digits_zip) as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            archive.writestr(name.replace("digit 0", nasty).replace("digit 1", "<b>bold</b>"), source.read(name))
    page = visit(DIGITS)
    upload(page, "#files input[type=file]", path)
    page.wait_for_selector(f'#images:has-text("{nasty}")')
    page.wait_for_selector("#images .summary:has-text('5 classes')")
    generate(page, samples=3)
    page.wait_for_selector("#confusion .js-plotly-plot")
    page.hover("#confusion .nsewdrag")
    assert page.title() == "D2NWG Studio"
    assert page.locator("#result img[onerror], #images img[onerror]").count() == 0


def test_a_task_told_by_its_name(visit):
    page = visit(f"{DIGITS}&bundle=tasks-small-networks")
    page.wait_for_selector("#task input")
    generate(page, samples=4)
    said = page.inner_text("#sentence")
    assert "task “digits”" in said and "Made from the task's name only." in said
    page.fill("#task input", "0.5 digits + 0.5 fish")
    page.keyboard.press("Enter")
    page.evaluate("document.querySelector('#status .notice')?.classList.add('earlier')")
    page.click("#go")
    page.wait_for_selector("#status .bad:has-text('There is no task fish')")
    page.click("#bundle input")
    page.click("ul[role=listbox] li:has-text('heads-dual')")
    page.wait_for_selector("#task", state="hidden")


def test_the_steps_are_those_of_the_sampler(visit):
    page = visit(DIGITS)
    open_settings(page, "text=Settings", "#steps input")
    assert page.input_value("#steps input") == "5"
    page.click('#sampler label:has-text("the paper\'s")')
    page.wait_for_function("document.querySelector('#steps input').value === '1024'")
    page.click("#sampler label:has-text('fast')")
    page.wait_for_function("document.querySelector('#steps input').value === '5'")
    generate(page, samples=3)
    assert page.is_visible("#sentence .answer")
