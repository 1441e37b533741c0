"""Refinements as jobs: killed and resumed, stopped, and what is left of a finished one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from d2nwg.jobs import queue as jobs
from d2nwg.jobs import worker as jobrun
from d2nwg.jobs.job import Job
from d2nwg.jobs.owner import owner_of
from d2nwg.jobs.queue import delete, resume, stop, submit
from d2nwg.llm.models import load_language_model
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.questions import load_questions
from d2nwg.llm.refinement import read_log, read_refined, refine_by
from d2nwg.llm.score import score_questions
from d2nwg.llm.shots import solved
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.progress import silent
from tests.helpers.jobs import wait
from tests.helpers.llm_zoo import write_questions
from tests.tiny_llm import make_tiny_llm

CONFIG = RefineConfig.of("tiny", layers=2, candidates=2, vae_steps=4, diffusion_steps=4, criterion="confidence")
REPORT = "built-in:report"

# The real process, killed at a step of a stage.
KILLED = """
import os, signal, sys
from pathlib import Path
from d2nwg.jobs import worker as jobrun
from d2nwg.jobs.job import Job
class Progress(jobrun.JobProgress):
    def __call__(self, now, done, total):
        super().__call__(now, done, total)
        if (now, done) == (sys.argv[2], int(sys.argv[3])):
            os.kill(os.getpid(), signal.SIGKILL)
jobrun.JobProgress = Progress
jobrun.run_job(Job(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", width=16, layers=2)


@pytest.fixture
def questions(tmp_path) -> Path:
    """A file with half of the built-in questions for selection."""
    return write_questions(tmp_path / "mine.jsonl", load_questions("built-in:selection")[::2])


def parameters(model: Path, config: RefineConfig = CONFIG, zoo: Path | None = None) -> dict:
    return {
        "model": str(model),
        "zoo": str(zoo) if zoo else None,
        "report": [REPORT],
        "config": config.to_config(),
        "device": "cpu",
    }


def told(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_killed_and_resumed_it_decides_as_if_it_had_not_been(tiny, questions, cache, tmp_path, monkeypatch):
    undisturbed = refine_by(
        tiny, load_questions(questions), load_questions(REPORT), CONFIG, folder=tmp_path / "work", device="cpu"
    )
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    job = submit("refine", "mine", parameters(tiny), {"select": [questions]})
    questions.unlink()  # the job has its own copy
    monkeypatch.undo()
    monkeypatch.setenv("D2NWG_CACHE", str(cache))
    for stage, step, decided in (("Scoring the base", 16, 0), ("Refining", 2, 1)):
        job.write(state="running", pid=None)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(job.folder), stage, str(step)],
            cwd=Path(jobs.__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        state = job.state()
        assert (state["state"], state["stage"]) == ("interrupted", stage)
        assert state["message"] == "Its process is gone; resuming goes on after the last decision."
        assert len(read_log(job.out)) == decided
        right, answered, of = job.base()
        assert (answered, of) == ((16, 40) if not decided else (40, 40)) and 0 <= right <= answered
        with pytest.raises(UserError, match="no report yet"):
            read_refined(job.out)
    resume(job)
    wait(job, "finished")
    made = read_refined(job.out)
    assert told(made.log) == told(undisturbed.log) and len(made.log) == 8
    assert made.report["right"] == undisturbed.report["right"] and made.report["words"] == undisturbed.report["words"]
    assert made.tensors.keys() == undisturbed.tensors.keys() and (made.delta is not None) == bool(made.tensors)
    assert all(torch.equal(value, undisturbed.tensors[name]) for name, value in made.tensors.items())
    scores = score_questions(load_language_model(tiny), load_questions(job.spec["parameters"]["select"][0]))
    assert job.base() == (int(scores.correct().sum()), 40, 40)
    assert "accepted, " in job.log.read_text() or "rejected, " in job.log.read_text()
    assert {path.name for path in job.out.iterdir()} <= set(jobrun.RESULT), "what only resuming needs is gone"
    report = (job.out / "report.json").read_bytes()
    jobrun._refine(job, job.spec["parameters"], silent)  # killed after the end, before that was recorded
    assert (job.out / "report.json").read_bytes() == report
    delete(job)
    assert not job.folder.exists()


def test_stopped_it_keeps_what_was_decided(tiny, cache):
    config = RefineConfig.of("tiny", layers=0, percent=100, candidates=40, vae_steps=4, diffusion_steps=4)
    job = submit("refine", "mine", parameters(tiny, config) | {"select": ["built-in:selection"]})
    deadline = time.monotonic() + 600
    while not read_log(job.out):
        assert time.monotonic() < deadline and job.state()["state"] in ("queued", "running"), job.state()
        time.sleep(0.02)
    assert job.state()["total"] and job.base()
    stop(job)
    state = job.state()
    assert state["state"] == "stopped" and "resuming goes on after the last decision" in state["message"]
    made = read_refined(job.out)
    assert made.cancelled and "rows" not in made.report and "The report set has not been looked at" in str(made.report)
    assert 0 < len(made.log) < 14 and (job.out / "base.safetensors").exists()


@pytest.mark.parametrize("asked", [{}, {"shots": 3}])
def test_its_questions_have_the_examples_that_were_asked_for(asked, questions, cache, monkeypatch):
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    job = submit("refine", "mine", parameters("m") | asked, {"select": [questions]})
    given = []

    def stop(model, select, report, config, **options):
        given.extend([*select, *report])
        raise Cancelled

    monkeypatch.setattr("d2nwg.llm.refinement.refine_by", stop)
    with pytest.raises(Cancelled):
        jobrun._refine(job, job.spec["parameters"], silent)
    assert {len(question.examples) for question in given} == {asked.get("shots", 0)} and len(given) == 120
    pool = {solved(question) for question in load_questions(job.spec["parameters"]["select"][0])}
    assert all(set(question.examples) <= pool - {solved(question)} for question in given)


def test_a_name_is_one_jobs(cache, monkeypatch):
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    job = submit("refine", "mine", {"model": "m"}, owner=owner_of("x" * 32))
    assert job.out == (job.folder / "result").resolve() and not list((cache / "jobs").glob("*/.*owner"))
    with pytest.raises(UserError, match="The name mine is taken"):
        submit("refine", "mine", {"model": "m"}, owner=owner_of("y" * 32))
    assert "after the last decision" in Job(Path("refine-x")).after_resuming


def test_its_sentences_name_no_folders_to_an_owner(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    (tmp_path / "mine").mkdir()
    job = submit("refine", "mine", {"model": "m"}, {"select": [tmp_path / "mine"]}, owner=owner_of("x" * 32))
    words = f"{job.folder}/data/mine and {cache}/zoos/z are wrong"
    assert jobrun._without_folders(job, words) == f"mine and zoos{os.sep}z are wrong"
    nobodys = submit("refine", "other", {"model": "m"})
    assert jobrun._without_folders(nobodys, words) == words
