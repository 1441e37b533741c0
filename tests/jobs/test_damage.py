"""Files of jobs of any shape are listed, or refused in a sentence."""

import json

import pytest

from d2nwg.cli import main
from d2nwg.jobs.job import Job, unreadable_jobs
from tests.helpers.refusals import refusal

SPEC = {
    "format": 1,
    "kind": "train",
    "name": "mine",
    "created": 1.5,
    "parameters": {"zoos": ["z"], "generator": "unet", "config": {}, "device": "cpu", "out": "/nowhere/x"},
}


@pytest.fixture
def job(cache):
    folder = cache / "jobs" / "train-mine"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(SPEC))
    (folder / "state.json").write_text('{"state": "stopped"}')
    return Job(folder)


@pytest.mark.parametrize(
    "spec",
    [
        *("[]", "{", "5", "null", "[" * 100_000),
        *({"kind": 5}, {"kind": "fly"}, {"name": None}, {"created": "x"}, {"created": []}, {"parameters": 5}),
        *({"parameters": {**SPEC["parameters"], "out": out}} for out in (5, "", None, [])),
        *({"parameters": {**SPEC["parameters"], "zoos": zoos}} for zoos in (5, [5], "x")),
    ],
)
def test_a_damaged_job(spec, job, capsys):
    text = spec if isinstance(spec, str) else json.dumps({**SPEC, **spec})
    (job.folder / "job.json").write_text(text)
    assert refusal(lambda: job.spec).endswith("delete it.") and list(unreadable_jobs()) == ["train-mine"]
    assert main(["jobs", "list"]) == 0 and "unreadable" in capsys.readouterr().out
    assert main(["jobs", "show", "train-mine"]) == 2
    assert main(["jobs", "delete", "train-mine"]) == 0 and not job.folder.exists()


@pytest.mark.parametrize(
    "state",
    [
        *("[]", "{", "5", "null", "[" * 100_000),
        *({"state": 5}, {"state": "flying"}, {}, {"state": "running", "pid": -1}, {"state": "running", "pid": 2**40}),
        *({"state": "stopped", "message": 5}, {"state": "stopped", "stage": []}, {"state": "running", "left": "x"}),
        {"state": "finished", "total": "x"},
    ],
)
def test_a_damaged_state(state, job, capsys):
    (job.folder / "state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    assert job.state()["state"] == "interrupted"
    for action in ("list", "show"):
        assert main(["jobs", action, *(["mine"] if action == "show" else [])]) == 0
    assert "interrupted" in capsys.readouterr().out


def test_metrics_of_any_shape(job, tmp_path):
    (job.folder / "job.json").write_text(
        json.dumps({**SPEC, "parameters": {**SPEC["parameters"], "out": str(tmp_path / "x")}})
    )
    job.work.mkdir()
    (job.work / "metrics.jsonl").write_text('5\n[]\n{"step": 1}\n{"st')
    assert job.metrics() == [{"step": 1}]
