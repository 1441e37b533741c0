"""The app's endpoints, called in process by a program that sends what it likes."""

import json
import os
import shutil
import sys
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.forked import GIB, Limits
from tests.fuzz.hostile import TEXTS, VALUES
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock

NUMBERS = [0, 1, 2, -1, 1.5, 10**6, 10**9, 10**13, 10**30, True, "5", "x", "", None, [], {}, [1], 1e308]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """One call with hostile values in the places of good ones."""
    name, data = rng.choice(_calls(rng, room, stock))
    data = list(data)
    for _ in range(rng.choice((0, 1, 1, 2))):
        what = rng.randrange(10)
        place = rng.randrange(len(data)) if data else 0
        if what < 8 and data:
            numeric = isinstance(data[place], (int, float))
            data[place] = rng.choice(
                NUMBERS if numeric and rng.random() < 0.7 else [*VALUES, *TEXTS, _file(rng, room, stock)]
            )
        elif what == 8:
            data = data[:place]
        else:
            data.append(rng.choice(VALUES))
    body = json.dumps({"data": data})

    def run() -> int:
        return _call(name, body, room)

    run.words = f"{name} {body[:3000]}"  # type: ignore[attr-defined]
    # The folder is that of this process, which imported gradio; the encoders of the shipped bundles need the memory.
    return Case(call=run, writable=[Path(os.environ["GRADIO_TEMP_DIR"])], limits=Limits(memory=3 * GIB))


def _calls(rng: Random, room: Room, stock: Stock) -> list[tuple[str, list]]:
    """Every endpoint with good arguments."""
    files = [
        _upload(stock.images / "a" / "00.png", room, "a-1.png"),
        _upload(stock.images / "b" / "00.png", room, "b-1.png"),
    ]
    head = _upload(stock.generated / "head.safetensors", room, "head.safetensors")
    samples = _upload(stock.generated / "samples.safetensors", room, "samples.safetensors")
    picture = _upload(stock.images / "a" / "01.png", room, "p.png")
    questions = _upload(stock.questions / "select.jsonl", room, "q.jsonl")
    delta = _upload(stock.delta, room, "delta.safetensors")
    return [
        ("load_images", [files, None]),
        ("generate", [None, "digits", "heads-dual", 1, 2, 0, None, 10, None, "", "default"]),
        ("predict", [head, picture, None, None]),
        ("predict", [head, None, "a text", "another"]),
        ("sample", [head, samples, 0]),
        (
            "explore",
            [None, "digits", "heads-efficientnet-lite0", 1, 5, 2, 2, 1, 0, None, 10, "weights", "all", 5, "default"],
        ),
        (
            "interpolate",
            [
                None,
                None,
                "digits-on-black",
                "digits-on-white",
                rng.choice(["heads-dual", "networks-28px"]),
                3,
                1,
                1,
                2,
                0,
            ],
        ),
        ("explore_names", ["wolf, dog", "husky", "heads-dual"]),
        ("interpolate_names", ["wolf", "dog", files, None, "heads-dual", 3]),
        ("explore_tasks", ["Is this spam?", None, 2, 0]),
        ("interpolate_descriptions", ["Is this spam?", "Is this good?", files, None, "a, b", "", None, 3, 1, 0]),
        ("language_spectrum", [str(room.given), "paper", 25]),
        ("language_chat", ["hello", "[]", str(room.given), delta, "", 0, 1, 0, 2]),
        ("language_prompts", [str(room.given), delta, '["hello"]', 1]),
        ("language_refine", [str(room.given), questions, questions, "tiny", 1, 1, 0, "paper", 25]),
    ]


def _upload(source: Path, room: Room, name: str) -> dict:
    """A file as one that was uploaded: its place is known when the app is there (see `_call`)."""
    target = room.given / name
    if not target.exists():
        shutil.copyfile(source, target)
    return {"path": f"UPLOADS/{name}", "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def _file(rng: Random, room: Room, stock: Stock) -> object:
    """What is no file that was uploaded."""
    paths = [
        "/etc/passwd",
        str(room.canary / "secret.png"),
        "UPLOADS/../../canary/secret.txt",
        "gone",
        "",
        "UPLOADS",
        "/dev/zero",
        "http://192.0.2.1/x.png",
        "file:///etc/passwd",
        "a\0b",
        "x" * 5000,
        "UPLOADS/p.png",
        "\ud800",
    ]
    path = rng.choice(paths)
    return rng.choice(
        [
            {"path": path, "meta": {"_type": "gradio.FileData"}},
            {"path": path},
            {"url": path},
            path,
            [path],
            {"path": [path]},
            {"path": None},
        ]
    )


def _call(name: str, body: str, room: Room) -> int:
    """Call an endpoint; prints its answer, or on stderr what it said instead."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from d2nwg.ui.app import build_app, launch_options
    from d2nwg.ui.session import private_root

    demo = build_app()
    uploads = private_root() / "uploads"
    uploads.mkdir()
    for file in room.given.iterdir():
        if file.is_file():
            shutil.copyfile(file, uploads / file.name)
    body = body.replace("UPLOADS", str(uploads))
    options = launch_options()
    kept = {key: options[key] for key in ("allowed_paths", "blocked_paths", "show_error", "max_file_size")}
    app = gr.mount_gradio_app(FastAPI(), demo, path="/", **kept)
    with TestClient(app, raise_server_exceptions=False) as client:
        asked = client.post(
            f"/gradio_api/call/{name}",
            content=body.encode("utf-8", "surrogatepass"),
            headers={"Content-Type": "application/json"},
        )
        if asked.status_code >= 500:
            print(f"status {asked.status_code}", file=sys.stderr)
            return 1
        if asked.status_code != 200:
            print(f"status {asked.status_code}: {asked.text[:300]}.", file=sys.stderr)
            return 2
        with client.stream("GET", f"/gradio_api/call/{name}/{asked.json()['event_id']}") as answer:
            event = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: ") and event == "complete":
                    print(line[6:1000].encode("ascii", "backslashreplace").decode())
                    return 0
                elif line.startswith("data: ") and event == "error":
                    said = json.loads(line[6:])
                    said = said.get("error") if isinstance(said, dict) else said
                    print(
                        str(said if said else f"{said!r} is no sentence").encode("ascii", "backslashreplace").decode(),
                        file=sys.stderr,
                    )
                    return 2
    print(f"no answer, process {os.getpid()}", file=sys.stderr)
    return 1
