"""The app's endpoints as a program uses them, and what the server gives away."""

import csv
import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from d2nwg.heads import Head
from tests.e2e.acts import PATIENCE
from tests.tiny_llm import make_tiny_llm

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(studio, tmp_path_factory):
    return Client(studio.url, download_files=str(tmp_path_factory.mktemp("fetched")), verbose=False)


@pytest.fixture(scope="module")
def made(client, digits_zip):
    return client.predict(files=[handle_file(digits_zip)], num_samples=6, seed=3, api_name="/generate")


def test_every_action_is_documented(client):
    info = client.view_api(return_format="dict")["named_endpoints"]
    assert set(info) == {
        "/load_images",
        "/generate",
        "/predict",
        "/sample",
        "/finetune",
        "/learning_curve",
        "/predict_many",
        "/explore",
        "/explore_names",
        "/describe",
        "/describe_and_predict",
        "/describe_and_score",
        "/explore_tasks",
        "/interpolate",
        "/interpolate_names",
        "/interpolate_descriptions",
        "/language_spectrum",
        "/language_refine",
        "/language_chat",
        "/language_prompts",
    }
    assert all(endpoint["description"] for endpoint in info.values())
    assert all(parameter["parameter_has_default"] for parameter in info["/generate"]["parameters"])


def test_load_images(client, digits_zip, a_picture):
    found = client.predict(files=[handle_file(digits_zip)], api_name="/load_images")
    assert found["num_images"] == 80 and found["classes"]["digit 3"] == 16
    assert client.predict(example="digits", api_name="/load_images")["num_images"] > 500
    loose = [handle_file(a_picture.with_name(f"{name}.png")) for name in ("1-1", "1-2", "2-1", "2-2")]
    assert client.predict(files=loose, api_name="/load_images")["classes"] == {"1": 2, "2": 2}
    with pytest.raises(AppError, match="only one class"):
        client.predict(files=loose[:2], api_name="/load_images")
    assert client.predict(files=handle_file(digits_zip), api_name="/load_images") == found, "one file is a list of one"


def test_generate(made):
    sentence, report, head, samples, report_file = made
    assert sentence.startswith("The generated head is right on ")
    assert f"{100 * report['query_accuracy']['chosen']:.1f}" in sentence
    assert len(report["samples"]) == 6 and report["seed"] == 3
    assert json.loads(Path(report_file).read_text())["query_accuracy"] == report["query_accuracy"]
    assert Head.load(head).classes == tuple(f"digit {i}" for i in range(5))
    assert Path(samples).stat().st_size > Path(head).stat().st_size


def test_finetune(client, digits_zip, made):
    head, files = handle_file(made[2]), [handle_file(digits_zip)]
    said, report, tuned = client.predict(head, files, epochs=2, seeds=1, api_name="/finetune")
    assert said.startswith("The generated start is right on: untrained ") and report["num_shown"] == 25
    assert [row["epoch"] for row in report["table"][0]["checkpoints"]] == [0, 1, 2]
    assert Head.load(tuned).info["finetuned"]["epochs"] == 2
    with pytest.raises(AppError, match="give data with the head's own classes"):
        client.predict(head, example="digits", epochs=2, api_name="/finetune")
    with pytest.raises(AppError, match="Give a head file"):
        client.predict(example="digits", api_name="/finetune")


def test_unlabelled_images(client, digits_zip, a_picture):
    free = [handle_file(digits_zip), handle_file(a_picture)]
    _, report, *_ = client.predict(
        files=[handle_file(digits_zip)], shots=1, num_samples=6, unlabelled=free, api_name="/generate"
    )
    # All that is in the zip supports or scores the head, so only the other picture is left.
    assert report["num_unlabelled"] <= 1 and "unlabelled images left out: also labelled here" in report["notes"][-1]
    with pytest.raises(AppError, match="test_api.py"):
        client.predict(example="digits", unlabelled=[handle_file(__file__)], api_name="/generate")


def test_predict_and_sample(client, made, a_picture):
    said = client.predict(head=handle_file(made[2]), image=handle_file(a_picture), api_name="/predict")
    assert len(said["confidences"]) == 5 and said["label"].startswith("digit ")
    taken = client.predict(head=handle_file(made[2]), samples=handle_file(made[3]), number=2, api_name="/sample")
    assert Head.load(taken).classes == Head.load(made[2]).classes
    with pytest.raises(AppError, match="samples 0 to 5"):
        client.predict(head=handle_file(made[2]), samples=handle_file(made[3]), number=6, api_name="/sample")


def test_predict_many(client, made, digits_zip, a_picture, tmp_path):
    files = [handle_file(digits_zip), handle_file(a_picture)]
    table = client.predict(head=handle_file(made[2]), files=files, api_name="/predict_many")
    rows = list(csv.reader(Path(table).read_text().splitlines()))
    assert rows[0] == ["item", "predicted", "probability", "true", "right", *(f"digit {i}" for i in range(5))]
    assert len(rows) == 82 and rows[-1][0] == "3-15.png" and rows[-1][3] == ""
    for row in rows[1:-1]:
        assert row[0].startswith(f"{row[3]}/") and row[4] == ("yes" if row[1] == row[3] else "no")
    (tmp_path / "notes.txt").write_text("no picture")
    notes = handle_file(tmp_path / "notes.txt")
    with pytest.raises(AppError, match="notes.txt"):
        client.predict(head=handle_file(made[2]), files=[notes], api_name="/predict_many")
    with pytest.raises(AppError, match="Give a head file, and images or texts"):
        client.predict(head=handle_file(made[2]), api_name="/predict_many")


def test_explore(client, tmp_path):
    words, numbers, data, figures, projector = client.predict(
        example="digits", tasks=2, num_samples=8, num_trained=4, max_query=40, dimensions=3, api_name="/explore"
    )
    assert words.startswith("Samples are ") and numbers["points"]["sample"] == 8
    with zipfile.ZipFile(data) as archive:
        assert {"projection.csv", "summary.json"} <= set(archive.namelist())
        assert "tsne_3" in archive.read("projection.csv").decode().splitlines()[0]
    with zipfile.ZipFile(figures) as archive:
        assert {"map.html", "novelty.html", "plotly.min.js"} <= set(archive.namelist())
    assert zipfile.is_zipfile(projector)
    with pytest.raises(AppError, match="The number of dimensions"):
        client.predict(example="digits", num_samples=4, dimensions=4, api_name="/explore")
    with pytest.raises(AppError, match="There is no part row 99"):
        client.predict(example="digits", num_samples=4, max_query=40, part="row 99", api_name="/explore")


def test_language(client, studio, tmp_path):
    folder = str(make_tiny_llm(studio.models / "small"))
    found = client.predict(model=folder, percent=50, api_name="/language_spectrum")
    assert len(found["matrices"]) == 21 and sum(row["chosen"] for row in found["matrices"]) == 7
    assert {row["type"] for row in found["matrices"]} == {"q", "k", "v", "o", "up", "gate", "down"}

    said = dict(model=folder, temperature=0, longest=6, api_name="/language_chat")
    first, other, facts = client.predict(message="is it hot?", **said)
    assert first and other is None and facts["base"]["tokens"] == 6
    history = json.dumps([{"message": "is it hot?", "answers": [first]}])
    assert client.predict(message="is it hot?", history=history, **said)[0] != first
    with pytest.raises(AppError, match="The history should be JSON such as"):
        client.predict(message="so?", history="[1]", **said)
    said = set()
    for path in ("/nowhere", "/etc", "/etc/passwd", "~", "../..", str(tmp_path), "file:///etc/passwd"):
        for call in (dict(message="so?", api_name="/language_chat"), dict(api_name="/language_spectrum")):
            with pytest.raises(AppError, match="A model is the default one, a Hub id") as refusal:
                client.predict(model=path, **call)
            said.add(str(refusal.value))
    assert len(said) == 1, "the server does not tell what is there"
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", folder)
    own = client.predict(model_file=handle_file(archive), percent=50, api_name="/language_spectrum")
    assert own["model"] == "mine" and own["matrices"] == found["matrices"]
    with pytest.raises(AppError, match="Candidates should be a whole number"):
        client.predict(model=folder, candidates=0, api_name="/language_refine")
    with pytest.raises(AppError, match="80 examples before each question cannot be drawn from 79"):
        client.predict(model=folder, shots=80, api_name="/language_refine")
    with pytest.raises(AppError, match="Give the delta.safetensors"):
        client.predict(model=folder, api_name="/language_prompts")


def test_mistakes_are_sentences(client, made, a_picture, tmp_path):
    for call, words in (
        (dict(api_name="/generate"), "one of the examples"),
        (dict(example="digits", shots=0, api_name="/generate"), "Images per class should be"),
        (dict(example="digits", shots=10**6, api_name="/generate"), "Images per class should be"),
        (dict(head=handle_file(a_picture), image=handle_file(a_picture), api_name="/predict"), "3-15.png"),
        (dict(head=handle_file(made[2]), image=handle_file(made[4]), api_name="/predict"), "cannot be read"),
        (dict(head=handle_file(made[2]), samples=handle_file(made[4]), api_name="/sample"), "report.json is not"),
        (dict(head=handle_file(made[2]), image=None, api_name="/predict"), "Give a head file, and a picture or a text"),
        (dict(example="digits", shots="x", api_name="/generate"), "shots should be a number"),
        (dict(example=["digits"], api_name="/generate"), "example should be a text"),
    ):
        with pytest.raises(AppError, match=words) as said:
            client.predict(**call)
        assert "Traceback" not in str(said.value) and "/session-" not in str(said.value)


def test_a_strangers_head_cannot_name_any_encoder(client, made, a_picture, tmp_path):
    head = Head.load(made[2])
    head.encoder = "open_clip/ViT-B-32:/etc/passwd"
    with pytest.raises(AppError, match="can be tried here"):
        client.predict(
            head=handle_file(head.save(tmp_path / "h.safetensors")), image=handle_file(a_picture), api_name="/predict"
        )


def test_cancelling_a_job_frees_the_slot(client, made):
    job = client.submit(example="digits", num_samples=1000, steps=1000, api_name="/generate")
    deadline = time.monotonic() + PATIENCE
    while not (said := job.status().progress_data) or said[-1].desc != "Sampling heads":
        assert time.monotonic() < deadline and not job.done()
        time.sleep(0.05)
    assert job.cancel()
    assert len(client.submit(example="digits", num_samples=3, api_name="/generate").result(timeout=PATIENCE)) == 5


def fetch(url: str) -> int:
    try:
        return urllib.request.urlopen(url, timeout=PATIENCE).status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_nothing_else_is_servable(studio, client, made):
    client.predict(example="digits", api_name="/load_images")
    cached = next(file for file in studio.cache.rglob("*") if file.is_file())
    own = next(studio.files.glob("d2nwg-app-*"))
    paths = [
        REPO / "app.py",
        REPO / "requirements.txt",
        "app.py",
        "./requirements.txt",
        "assets/style.css",
        cached,
        "/etc/passwd",
        studio.log,
        own,
        own / "..",
        own / f"../../{studio.log.name}",
        next(own.glob("call-*")),
        "http://127.0.0.1:1/",
        "https://example.com/",
        f"file://{REPO / 'app.py'}",
    ]
    for path in paths:
        for quoted in (str(path), urllib.parse.quote(str(path)), urllib.parse.quote(str(path), safe="")):
            for route in ("gradio_api/file=", "file=", "gradio_api/file/", "gradio_api/proxy="):
                code = fetch(f"{studio.url}/{route}{quoted}")
                assert 400 <= code < 500, (code, route, quoted)
    assert (own.stat().st_mode & 0o077) == 0 or os.name == "nt"


def test_inputs_are_uploads_only(client, studio):
    """A path or an address in place of an upload is refused, not opened."""
    for path in (str(REPO / "app.py"), str(studio.log), "http://127.0.0.1:1/x.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(Exception) as said:
            client.predict(files=[file], api_name="/load_images")
        assert "import" not in str(said.value)


def test_manifest(studio):
    manifest = json.loads(urllib.request.urlopen(f"{studio.url}/manifest.json").read())
    assert manifest["name"] == "D2NWG Studio" and manifest["icons"]
