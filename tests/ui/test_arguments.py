"""Calls with arguments that cannot be: every endpoint answers them in a sentence, and none begins to work."""

import inspect
import json
import logging
import os

import gradio as gr
import gradio.routes
import pytest

from d2nwg.ui.arguments import names
from d2nwg.ui.work import UNEXPECTED
from tests.ui.conftest import file_data

ENDPOINTS = (
    "load_images",
    "generate",
    "predict",
    "sample",
    "finetune",
    "learning_curve",
    "predict_many",
    "describe",
    "describe_and_predict",
    "describe_and_score",
    "explore",
    "explore_names",
    "explore_tasks",
    "interpolate",
    "interpolate_names",
    "interpolate_descriptions",
    "language_spectrum",
    "language_refine",
    "language_chat",
    "language_prompts",
)
ROUTES = ["run", "call", *(["call/v2"] if "/call/v2/" in inspect.getsource(gradio.routes) else [])]  # not in gradio 6.0
# A value that is not of the type for each kind of input, beside those that are of no type.
NOTHING = ([], {}, [[]])
WRONG = {
    gr.Number: ("x", "1", True, "NaN", [1], {"value": 1}, float("nan"), float("inf"), -float("inf"), 10**400, 1e300),
    gr.Textbox: (1, True, ["x"], {"text": "x"}, "\ud800", float("nan")),
    gr.Dropdown: (True, ["x"], {"x": 1}, "\udfff", float("nan"), 7),
    gr.Radio: (True, ["x"], {"x": 1}, "nothing of the kind", float("nan"), 7),
    gr.File: (
        1,
        True,
        "x",
        "/etc/passwd",
        float("nan"),
        {"path": 1},
        {"url": "http://127.0.0.1:1/x"},
        file_data("/etc/passwd"),
        file_data("/etc"),
        file_data("/nowhere/at/all"),
        file_data("../../etc/passwd"),
        file_data("file:///etc/passwd"),
        file_data("http://127.0.0.1:1/x"),
        file_data("a\0b"),
        file_data("x" * 5000),
        [file_data("/etc/passwd")] * 3,
        ["x"] * 3,
    ),
}
WRONG[gr.Image] = WRONG[gr.File]


@pytest.fixture(autouse=True)
def nothing_unforeseen(caplog, capfd):
    """Whatever goes wrong is foreseen, and starts no work."""
    caplog.set_level(logging.ERROR)
    yield
    assert not caplog.records and "Traceback" not in capfd.readouterr().err


@pytest.fixture
def idle(monkeypatch):
    """No call gets so far as to begin some work."""

    def begin(*args, **kwargs):
        raise AssertionError("work has begun")

    # where there is a bundle of adapters, a map of its tasks needs nothing else
    monkeypatch.setattr("d2nwg.ui.settings.adapter_bundles", lambda viewer: [])
    for work in (
        "generate.generate_heads",
        "learning_curve.learning_curve",
        "network_generation.generate_network",
        "predictions.predict_many",
        "finetuning.heads.finetune_head",
        "finetuning.networks.finetune_network",
        "from_description.generate_from_description",
        "exploration.explore.explore",
        "exploration.names.map_names",
        "exploration.task_map.map_tasks",
        "interpolation.path.interpolate",
        "interpolation.names.name_path",
        "interpolation.descriptions.description_path",
        "llm.models.load_language_model",
        "llm.models.locate_language_model",
    ):
        monkeypatch.setattr(f"d2nwg.{work}", begin)


def post(client, name: str, body, route: str = "run"):
    if isinstance(body, dict) and route == "run":
        body = {"session_hash": "test", **body}  # gradio takes a tenth of a second to open a session
    return client.post(
        f"/gradio_api/{route}/{name}",
        content=body if isinstance(body, (str, bytes)) else json.dumps(body),
        headers={"content-type": "application/json"},
    )


def sentence(answer) -> str:
    """The sentence of a refusal."""
    assert 400 <= answer.status_code <= 500, answer.text[:200]
    said = answer.json()["error"]
    assert isinstance(said, str) and said[0] and said.endswith(".") and len(said) < 700, said
    assert said != UNEXPECTED and "Traceback" not in said and "Error" not in said
    return said


def defaults(event) -> list:
    """The arguments that the page of the API shows; a model that there is none of, so that none is fetched."""
    return ["/no/model" if part.label.startswith("Model:") else part.value for part in event.inputs]


def test_all_endpoints_are_tested(served):
    assert set(served.endpoints()) == set(ENDPOINTS)
    kinds = {type(part) for event in served.endpoints().values() for part in event.inputs}
    assert all(any(issubclass(kind, known) for known in WRONG) for kind in kinds)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_argument_of_another_type(served, idle, name):
    client, event = served.client(), served.endpoints()[name]
    values = defaults(event)
    for position, part in enumerate(event.inputs):
        wrong = next(values for kind, values in WRONG.items() if isinstance(part, kind))
        for value in (*wrong, *NOTHING):
            if value == [] and isinstance(part, gr.File):
                continue  # no files
            asked = [*values[:position], value, *values[position + 1 :]]
            said = sentence(post(client, name, {"data": asked}))
            if isinstance(part, (gr.Number, gr.Textbox)):
                assert said.startswith(names(event)[position]), said


@pytest.mark.parametrize("name", ENDPOINTS)
def test_null_and_nothing_and_too_much(served, idle, name):
    client, event = served.client(), served.endpoints()[name]
    values = defaults(event)
    for position in range(len(values)):
        sentence(post(client, name, {"data": [*values[:position], None, *values[position + 1 :]]}))
    for data in ([], [None] * len(values), [*values, None], [*values, *["x"] * 1000]):
        sentence(post(client, name, {"data": data}))
    assert "came" in sentence(post(client, name, {"data": [*values, 1]}))


def test_vast_arguments(served, idle):
    client, parts = served.client(), served.endpoints()["generate"].inputs
    values = defaults(served.endpoints()["generate"])
    assert "pack them in an archive" in sentence(post(client, "load_images", {"data": [["x"] * 50_000, None]}))
    assert "50,000 came" in sentence(post(client, "predict", {"data": [["x"] * 50_000, None]}))
    assert "came" in sentence(post(client, "generate", {"data": [None] * 100_000}))
    task = [part.label.startswith("The task") for part in parts].index(True)
    long = [*values[:task], "x" * 2_000_000, *values[task + 1 :]]
    assert "task may have 1,000,000 characters" in sentence(post(client, "generate", {"data": long}))
    for route in ROUTES:
        said = sentence(post(client, "generate", b'{"data": ["' + b"x" * (33 << 20) + b'"]}', route))
        assert said == "A call may have 32 MB."


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize("route", ROUTES)
def test_bodies_that_are_no_calls(served, name, route):
    client = served.client()
    for body in ("", "{", "[]", "NaN", '{"data": NaN}', '{"data": null}', '{"data": "x"}', '{"data": {}}', b"\xff"):
        said = sentence(post(client, name, body, route))
        if route == "call/v2" and str(body).startswith('{"data"'):  # arguments by name, and there is none of this one
            assert "Parameter `data`" in said
        else:
            assert "A call is a JSON object" in said


def test_there_is_no_such_endpoint(served):
    client = served.client()
    for route in (*ROUTES, "api"):
        assert "no such endpoint" in sentence(post(client, "nothing", {"data": []}, route))
    assert "no such endpoint" in sentence(post(client, "x", {"data": [], "fn_index": 10**6}))
    body = {"data": [], "fn_index": 10**6, "session_hash": "x"}
    assert "no such endpoint" in sentence(client.post("/gradio_api/queue/join", json=body))


def test_a_single_file_is_a_list_of_one(served):
    client, text = served.client(), served.upload("notes.txt", b"no archive")
    answers = [sentence(post(client, "load_images", {"data": [value, None]})) for value in (text, [text])]
    assert answers[0] == answers[1] and "notes.txt" in answers[0]
    said = [sentence(post(client, "predict", {"data": [value, None, None, None]})) for value in (text, [text])]
    assert said[0] == said[1] == "Give a head file, and a picture or a text."
    assert "one file, and 2 came" in sentence(post(client, "predict", {"data": [[text, text], None, None, None]}))


def test_a_path_that_is_no_upload_tells_nothing(served, tmp_path):
    """The sentence is the same whether there is such a file or not, and for links to it."""
    client = served.client()
    (tmp_path / "a.zip").write_bytes(b"x")
    own = served.upload("here.zip", b"x")["path"]
    link = f"{own.removesuffix('here.zip')}a.zip"
    (tmp_path / "b").mkdir()
    os.symlink(tmp_path / "a.zip", link)
    said = {
        sentence(post(client, "load_images", {"data": [[file_data(path)], None]}))
        for path in (tmp_path / "a.zip", tmp_path / "b" / "a.zip", f"file://{tmp_path}/a.zip", link, f"{own}/../a.zip")
    }
    assert said == {"The uploaded file a.zip is no longer here; please choose it again."}


def test_trailing_files_may_be_left_out(served, idle):
    said = sentence(post(served.client(), "language_spectrum", {"data": ["/no/model", "paper", 25]}))
    assert said.startswith("A model is the default one")
    assert "came" in sentence(post(served.client(), "language_spectrum", {"data": ["/no/model", "paper"]}))
