"""The real app as a process of its own, and a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.acts import PATIENCE

REPO = Path(__file__).resolve().parents[2]
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera that shows a clock
    "--use-fake-ui-for-media-stream",  # and that a page may use without asking
]


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.e2e)


@dataclass
class Studio:
    """A running app."""

    url: str
    log: Path
    cache: Path  # its D2NWG_CACHE
    files: Path  # the folder it makes its own in
    models: Path  # the folder that visitors may use models of


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """``python app.py`` on a free port, with its own cache; afterwards its log must hold no traceback."""
    folder = tmp_path_factory.mktemp("studio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [folder / name for name in ("log.txt", "cache", "files", "models")]
    running = Studio(f"http://127.0.0.1:{port}", *places)
    running.models.mkdir()
    # GRADIO_IS_E2E_TEST: a closed page's session ends after a second, not an hour.
    env = {
        **os.environ,
        "D2NWG_CACHE": str(running.cache),
        "GRADIO_TEMP_DIR": str(running.files),
        "GRADIO_IS_E2E_TEST": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with running.log.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py", "--no-browser", "--port", str(port), "--models", str(running.models)],
            cwd=REPO,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(running.url, timeout=5).read()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, running.log.read_text()
                time.sleep(0.2)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "Traceback" not in _without_ended_streams(running.log.read_text())
    assert not list(running.files.glob("d2nwg-app-*")), "the app left files behind"


def _without_ended_streams(log: str) -> str:
    """A log without what gradio itself raises where a stream of events notices that its page was closed: 404, which the
    server cannot send any more."""
    kept, *failures = log.split("Exception in ASGI application")
    for part in failures:
        own, _, rest = part.partition("response already started.")
        kept += rest if "in sse_stream" in own and "404: Not Found" in own else part
    return kept


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium. Without one the browser's tests are skipped, but not where CI is set."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("There is no chromium; the browser tests need one.")
        pytest.skip("There is no chromium.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visit(studio, chromium):
    """A function that opens the app as a new visitor: ``visit(query="", ready=..., **viewport)`` → page, once
    what ``ready`` selects is there; ``away=True`` is one of another machine, behind a proxy. Nothing that a page
    asks for may lie elsewhere than in the app, and nothing may go wrong in its scripts."""
    contexts, elsewhere, failures = [], [], []

    def see(request):
        if urlsplit(request.url).hostname not in (None, "", "127.0.0.1", "localhost"):
            elsewhere.append(request.url)

    def open_page(
        query: str = "", ready: str = "#images .summary", width: int = 1280, height: int = 900, away: bool = False
    ):
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            accept_downloads=True,
            extra_http_headers={"X-Forwarded-For": "203.0.113.9"} if away else {},
        )
        context.set_default_timeout(1000 * PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("request", see)
        page.on("pageerror", lambda failure: failures.append(str(failure)))
        page.goto(f"{studio.url}/{query}")
        page.wait_for_selector(ready)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not elsewhere
    assert not failures


@pytest.fixture(scope="session")
def digits_zip(tmp_path_factory) -> Path:
    """Scanned digits 0 to 4, 16 images each, as a zip of class folders."""
    import zipfile

    from PIL import Image
    from sklearn.datasets import load_digits

    data, path = load_digits(), tmp_path_factory.mktemp("upload") / "my digits.zip"
    folder = path.parent / "pictures"
    folder.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for label in range(5):
            for i, pixels in enumerate(data.images[data.target == label][:16]):
                file = folder / f"{label}-{i}.png"
                Image.fromarray((pixels * 15.9).astype("uint8")).resize((96, 96)).save(file)
                archive.write(file, f"my digits/digit {label}/{i}.png")
    return path


@pytest.fixture(scope="session")
def a_picture(digits_zip) -> Path:
    """A picture of a three."""
    return digits_zip.parent / "pictures" / "3-15.png"
