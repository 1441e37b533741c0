"""The app's parts that need no browser: words, settings, sessions, and work that can be stopped."""

import asyncio
import base64
import io
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from d2nwg.data.images import load_images
from d2nwg.ui import html as views
from d2nwg.ui import session as sessions
from d2nwg.ui.generate import html
from d2nwg.ui.generate.made import Result
from d2nwg.ui.generate.service import preview
from d2nwg.ui.generate.settings import DEFAULTS, check_settings, from_link
from d2nwg.ui.work import UNEXPECTED, Stage, Work, call
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.reports import make_report

NASTY = '<img src=x onerror="alert(1)">'
REPORT = make_report(
    (0.5, 0.25),
    (None, 1.25),
    dict(chosen=0.882, class_mean=0.851, ridge=0.87, logistic_regression=0.876, random=0.5),
    data=NASTY,
    classes=["a", NASTY],
    num_query=200,
    notes=[NASTY],
    selection="average of the 50 samples",
)


# ------------------------------------------------------------------------------------------------------ words


def test_the_result_in_words():
    answer, baselines, made = html.result_sentences(REPORT)
    assert answer == "The generated head is right on 88.2\u00a0% of 200 images it never saw."
    assert "0.6 points above logistic regression" in baselines and "the same 10 images" in baselines
    assert "centred on the mean that the bundle keeps" in html.CENTRED, "why another bundle has other baselines"
    assert made == f"Chosen: average of the 50 samples. {html.CENTRED} 1.4 s, of which 1.1 s reading images."
    worse = replace(REPORT, query_accuracy=replace(REPORT.query_accuracy, chosen=0.8))
    assert "7.6 points below logistic regression" in html.result_sentences(worse)[1]
    level = replace(REPORT, query_accuracy=replace(REPORT.query_accuracy, chosen=0.876))
    assert "level with logistic regression" in html.result_sentences(level)[1]


def test_html_holds_names_as_text():
    pieces = [
        html.result(REPORT),
        views.notice(NASTY),
        views.hint(NASTY),
        views.title(NASTY, NASTY),
        views.progress(Stage(NASTY, 1, 2, 3.0)),
        html.seen(NASTY, {NASTY: 0.9, "b": 0.1}, NASTY),
    ]
    assert not [piece for piece in pieces if "<img" in piece or 'onerror="' in piece]


def test_thumbnails(image_folder):
    (image_folder / "blue" / "00.png").write_bytes(b"broken")
    shown = views.thumbnails(load_images(image_folder))
    assert "3 classes · 24 images" in shown and shown.count("<img") == 18 + 3
    assert re.findall(r'class="many">(\d+)', shown) == ["8", "8", "8"]


def test_pictures_of_more_than_8_bits_are_on_the_scale_of_their_data_set(tmp_path):
    for label, value in (("dark", 500), ("bright", 4000)):
        (tmp_path / "12 bits" / label).mkdir(parents=True)
        Image.fromarray(np.full((64, 64), value, np.uint16)).save(tmp_path / "12 bits" / label / "0.png")
    images = load_images(tmp_path / "12 bits")

    def brightness(data):
        return float(np.asarray(Image.open(data).convert("L")).mean())

    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', views.thumbnails(images))
    bright, dark = (brightness(io.BytesIO(base64.b64decode(data))) for data in found[:2])
    assert bright > 240 and 25 < dark < 40
    shown = preview(images.items[1], tmp_path, images.pixels.scale())
    assert images.classes[1] == "dark" and brightness(shown) == pytest.approx(dark, abs=3)


def heads_table(report) -> dict:
    return Result([], SimpleNamespace(report=report, baselines={}), {}, ()).table()


def test_table_sorts_by_number_and_shows_one_decimal():
    table = heads_table(REPORT)
    assert table["data"] == [["chosen", 88.2, None], ["sample 0", 50.0, None], ["sample 1", 25.0, 1.25]]
    assert table["metadata"]["display_value"][2] == ["sample 1", "25.0", "1.250"]
    elsewhere = replace(REPORT, samples=[replace(sample, nearest_zoo_distance=None) for sample in REPORT.samples])
    table = heads_table(elsewhere)
    assert table["headers"] == ["head", "right, %"] and table["data"][2] == ["sample 1", 25.0]


# --------------------------------------------------------------------------------------------------- settings


def test_settings():
    keys = ("shots", "samples", "seed", "steps", "max_query")
    assert check_settings(None, *(DEFAULTS[key] for key in keys)) == {
        "bundle": None,
        "shots": 5,
        "num_samples": 50,
        "seed": 0,
        "steps": None,
        "max_query": 1000,
        "task": None,
        "sampler": "default",
    }
    for values in (
        (0, 50, 0, 20, 1000),
        (5, 10**9, 0, 20, 1000),
        (5, 50, -1, 20, 1000),
        (None, 50, 0, 20, 1000),
        (5, 50, 0.5, 20, 1000),
        ("5", 50, 0, 20, 1000),
        (5, 50, 0, float("nan"), 1000),
        (5, 50, 0, 20, float("inf")),
    ):
        with pytest.raises(UserError, match="should be a whole number from"):
            check_settings(None, *values)
    with pytest.raises(UserError, match="no bundle /etc here"):
        check_settings("/etc", *(DEFAULTS[key] for key in keys))


def test_a_link():
    assert from_link({"example": "digits", "shots": "3", "seed": "9", "__theme": "dark"}) == (
        {"example": "digits", "shots": 3, "seed": 9},
        "",
    )
    values, missing = from_link({"bundle": "../../etc", "shots": "x", "samples": "0"})
    assert values == {} and "bundle ../../etc and shots x and samples 0" in missing


# --------------------------------------------------------------------------------------------------- sessions


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    stale, mine = tmp_path / "d2nwg-app-999999999-abc", tmp_path / "d2nwg-app-1-abc"
    for folder in (stale, mine, tmp_path / "somebody's"):
        folder.mkdir()
    sessions.private_root.cache_clear()
    yield sessions.private_root()
    sessions.private_root.cache_clear()


def test_private_root(root, tmp_path):
    assert root.parent == tmp_path and root.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "d2nwg-app-999999999-abc").exists()  # of a process that is no more
    assert (tmp_path / "d2nwg-app-1-abc").exists() and (tmp_path / "somebody's").exists()


def test_a_session_takes_its_files_along(root):
    one, two = sessions.Session(), sessions.Session()
    shared, own = root / "shared.zip", root / "own.zip"
    for file in (shared, own, again := root / "again.zip", one.subfolder() / "head.safetensors"):
        file.write_text("x")
    one.uploaded([str(shared), str(own), str(again), str(root / "gone.zip")])
    os.utime(shared, (10, 10))  # given anew by the other visitor
    two.uploaded([str(shared)])
    os.utime(again, ns=(2 * again.stat().st_mtime_ns,) * 2)  # and by a program, which has not said what for
    assert one.folder != two.folder and len(one.folder.name) > 30
    one.close()
    assert not one.folder.exists() and not own.exists() and shared.exists() and two.folder.exists()
    two.close()
    assert not shared.exists() and again.exists()


def test_old_calls_are_cleared(root, monkeypatch):
    old = sessions.call_folder()
    monkeypatch.setattr(sessions, "KEEP_CALLS", -1)
    assert sessions.call_folder().exists() and not old.exists()


def test_only_own_files(root, tmp_path):
    from d2nwg.ui.uploads import own_file

    inside, outside = root / "a.png", tmp_path / "b.png"
    inside.touch()
    outside.touch()
    assert own_file(str(inside)) == inside
    for path in (outside, root / ".." / "b.png", root, root / "gone.png"):
        with pytest.raises(UserError, match="no longer here"):
            own_file(str(path))


# ------------------------------------------------------------------------------------------------------- work


@dataclass
class Slow:
    """A call that counts for minutes; it says that it has begun, and in which thread."""

    begun: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def __call__(self, progress):
        self.thread = threading.current_thread()
        for i in range(100_000):
            progress("Counting", i, 100_000)
            self.begun.set()
            time.sleep(0.005)


def test_work_reports_and_returns():
    seen, told = [], threading.Event()

    def count(progress):
        progress("Counting", 2, 5)
        assert told.wait(600)
        return 5

    def tell(*stage):
        seen.append(stage)
        if stage == ("Counting", 2, 5):
            told.set()

    assert asyncio.run(call(count, tell)) == 5
    assert seen[-1] == ("Counting", 2, 5)


def test_work_stops_when_asked():
    slow = Slow()
    work = Work(slow)

    async def watch():
        async for stage in work.watch():
            if stage.done > 3:
                work.cancel()

    asyncio.run(watch())
    assert not slow.thread.is_alive()
    with pytest.raises(Cancelled):
        work.result()


def test_work_stops_when_nobody_watches():
    slow = Slow()

    async def main():
        task = asyncio.create_task(call(slow))
        assert await asyncio.to_thread(slow.begun.wait, 600)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not slow.thread.is_alive()


def test_failures_become_sentences(caplog):
    def mistaken(progress):
        raise UserError("The class cat has 1 image.")

    def broken(progress):
        return 1 / 0

    with pytest.raises(UserError, match="class cat"):
        asyncio.run(call(mistaken))
    assert not caplog.records
    with pytest.raises(UserError, match=re.escape(UNEXPECTED)):
        asyncio.run(call(broken))
    assert "ZeroDivisionError" in caplog.text


# ------------------------------------------------------------------------------------------------------ start


def test_the_page_does_not_wait_for_torch():
    code = "import sys, app; print([m for m in ('torch', 'sklearn', 'plotly', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_likeliest_are_in_order():
    shown = html.likeliest({"b": 0.1, "a": 0.9})
    assert shown.index(">a<") < shown.index(">b<") and "90.0\u00a0%" in shown
    assert np.isclose(float(re.search(r"width:([\d.]+)%", shown)[1]), 90)
