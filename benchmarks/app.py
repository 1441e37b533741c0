"""The app as a process of its own: seconds until its page, seconds of each action, and the memory that it then holds.

    python -m benchmarks.app [--visitors N] [--smoke] [--out FILE.json]

It starts ``python app.py``, as a Space does, with an empty cache and without the Hub, and uses its API. An action is
done twice: the first time loads what it needs. Memory is what the process and its children hold for themselves (USS,
which leaves out pages that they share), and the most of it that was seen so far, looked at four times a second. At the
end some visitors press Generate at the same time.
"""

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from gradio_client import Client

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300  # seconds for the first page
ACTIONS: dict[str, dict] = {
    "heads for the clothes": {"api_name": "/generate", "example": "clothes"},
    "heads from names alone": {"api_name": "/generate", "names": "wolf, red fox, tabby cat"},
    "an adapter from a description": {"api_name": "/describe", "description": "Is this film review positive?"},
    "a map and densities of heads": {"api_name": "/explore", "example": "digits", "num_samples": 50},
    "a path between two names": {"api_name": "/interpolate_names", "first": "wolf", "last": "dog", "points": 5},
    "an answer of the language model": {"api_name": "/language_chat", "message": "Name a fox.", "longest": 16},
}


class Watch(threading.Thread):
    """Looks at the memory of a process and its children until `stop`."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._process, self._ended = psutil.Process(pid), threading.Event()
        self.now = self.most = 0

    def run(self) -> None:
        while not self._ended.wait(0.25):
            self.look()

    def look(self) -> None:
        """Count the bytes that they hold now."""
        total = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except psutil.Error:  # it has ended
                continue
        self.now, self.most = total, max(self.most, total)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="seconds and memory of the app, action by action")
    parser.add_argument("--visitors", type=int, default=8, help="who press Generate at the same time (8)")
    parser.add_argument("--smoke", action="store_true", help="two short actions and two visitors")
    parser.add_argument("--out", help="write JSON here")
    args = parser.parse_args(argv)
    actions = dict(list(ACTIONS.items())[slice(1, 3) if args.smoke else slice(None)])
    with tempfile.TemporaryDirectory() as folder:
        found = measure(actions, 2 if args.smoke else args.visitors, Path(folder))
    print("| what | seconds, the first time | again | memory then | the most so far |\n|---|---|---|---|---|")
    for row in found["rows"]:
        again = "" if row["again"] is None else f"{row['again']:.1f}"
        print(f"| {row['what']} | {row['seconds']:.1f} | {again} | {row['now']:.1f} GB | {row['most']:.1f} GB |")
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1))


def measure(actions: dict[str, dict], visitors: int, folder: Path) -> dict:
    """Start the app, act, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"D2NWG_CACHE": str(folder / "cache"), "GRADIO_TEMP_DIR": str(folder / "files"), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    app = subprocess.Popen(
        [sys.executable, "app.py", "--no-browser", "--port", str(port)], cwd=ROOT, env=os.environ | own
    )
    watch, rows = Watch(app.pid), []
    watch.start()

    def row(what: str, seconds: float, again: float | None = None) -> None:
        watch.look()
        rows.append(
            {"what": what, "seconds": seconds, "again": again, "now": watch.now / 1e9, "most": watch.most / 1e9}
        )

    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, app)
        row("the page", time.perf_counter() - started)
        client = Client(url, verbose=False, download_files=str(folder))
        for what, given in actions.items():
            first, again = (_seconds(lambda given=given: client.predict(**given)) for _ in range(2))
            row(what, first, again)
        first_action = next(iter(actions.values()))
        clients = [Client(url, verbose=False, download_files=str(folder)) for _ in range(visitors)]

        def together() -> None:
            with ThreadPoolExecutor(visitors) as pool:
                list(pool.map(lambda one: one.predict(**first_action), clients))

        row(f"{visitors} visitors at once: the first of these", _seconds(together))
    finally:
        watch.stop()
        app.send_signal(signal.SIGTERM)
        app.wait(60)
    return {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "rows": rows}


def _wait(url: str, app: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return
        except OSError:
            if app.poll() is not None or time.monotonic() > deadline:
                sys.exit("The app did not start.")
            time.sleep(0.1)


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
