"""Zoos of fine-tunes of a language model as jobs: stopped and gone on with, and submitted by the command line."""

import json
from dataclasses import replace

import pytest

from d2nwg.cli import main
from d2nwg.encoders.lora import LoraShape
from d2nwg.jobs import queue as jobs
from d2nwg.jobs.job import Job, get_job
from d2nwg.jobs.queue import submit_finetunes
from d2nwg.jobs.worker import WORK
from d2nwg.llm.adapter_zoo import LlmZooConfig, build_llm_adapters
from d2nwg.llm.zoos import list_language_zoos
from d2nwg.ui.job_html import LIVE, jobs_html
from d2nwg.utils.errors import Cancelled
from d2nwg.utils.progress import silent
from d2nwg.weights.finetune import TuneConfig
from d2nwg.weights.model_zoo import ModelZoo
from tests.helpers.llm_zoo import random_questions, write_questions
from tests.tiny_llm import make_tiny_llm


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", width=16, layers=2))


@pytest.fixture
def config(tiny):
    return LlmZooConfig(LoraShape(tiny, rank=2, alpha=4), TuneConfig(epochs=2, batch=6, lr=1e-2, keep=2), seeds=2)


@pytest.fixture(autouse=True)
def still(cache, monkeypatch):
    monkeypatch.setattr(jobs, "_start", lambda job: None)


def test_one_that_is_stopped_goes_on_to_the_same_zoo(config, tmp_path):
    questions = random_questions(20, 3)
    undisturbed = build_llm_adapters([questions], config, tmp_path / "zoo", device="cpu")
    mine = write_questions(tmp_path / "mine.jsonl", questions)
    job = submit_finetunes("mine", config, files={"data": [mine]}, device="cpu")
    mine.unlink()  # the job has its own copy
    work, parameters = WORK[job.spec["kind"]], job.spec["parameters"]
    assert job.checkpoints() == (None, []) and LIVE["finetunes"](job) == ""

    def stop(stage, done, total):
        if (job.building / "run-00000.json").exists() and 0 < done < total:  # the second one has begun
            raise Cancelled

    with pytest.raises(Cancelled):
        work(job, parameters, stop)
    frozen, (base, made) = undisturbed.adapters.tasks[0].frozen["accuracy"], job.checkpoints()
    assert base == frozen and len(made) == 2 and "2 checkpoints · base" in LIVE["finetunes"](job)
    assert not job.out.exists() and job.after_resuming.endswith("after the last fine-tune that was finished")
    stages = []
    work(job, parameters, lambda stage, done, total: stages.append((stage, done, total)))
    trained = [done / total for stage, done, total in stages if stage == "Training adapters"]
    assert min(trained) == 0.5 and max(trained) == 1, "the first one is not trained again"
    zoo = ModelZoo(job.out)
    assert zoo.records == undisturbed.records, "also the checksums are those of an undisturbed build"
    assert not job.work.exists() and not (job.folder / "data").exists()
    base, made = job.checkpoints()
    assert (base, [one["accuracy"] for one in made]) == (frozen, [record["accuracy"] for record in zoo.records])
    assert "of tiny" in jobs_html([job], None, "") and "mine" in list_language_zoos()
    work(job, parameters, silent)  # killed after the end, before that was recorded
    assert [path.name for path in job.out.parent.iterdir()] == ["mine"]


def test_what_lies_there_may_be_anything(config):
    job = submit_finetunes("mine", config, ["built-in"])
    job.building.mkdir(parents=True)
    for text in ("[]", "5", "{}", '{"records": 5}', '{"records": [{"name": "x", "epoch": 1, "accuracy": "much"}]}'):
        (job.building / "run-00000.json").write_text(text)
        assert job.checkpoints() == (None, []) and "mine" in jobs_html([job], None, "")


def test_the_command_line_submits_one(tiny, cache, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_questions(tmp_path / "mine.jsonl", random_questions(20, 3))
    line = ["zoo", "build", "mine.jsonl", "built-in", "--llm", tiny, "--seeds", "3", "--epochs", "2", "--out", "zoo"]
    assert main([*line, "--job", "tunes"]) == 0
    assert "The job finetunes-tunes is queued; `python -m d2nwg jobs show" in capsys.readouterr().out
    job = get_job("tunes")
    parameters, out = job.spec["parameters"], tmp_path / "zoo"
    assert parameters["data"] == [str(tmp_path / "mine.jsonl"), "built-in"] and job.out == out
    asked = LlmZooConfig.from_json(json.loads(json.dumps(parameters["config"])))
    plain = LlmZooConfig()
    assert asked == replace(plain, shape=replace(plain.shape, base=tiny), tune=replace(plain.tune, epochs=2), seeds=3)
    for more, words in (
        (["--job", "x", "--resume"], "goes on with `python -m d2nwg jobs resume x`"),
        (["--job", "x", "--keep", "3"], "There are no 3 epochs to keep among 2"),
        (["--job", "tunes"], "There is a job finetunes-tunes already"),
        (["--job", "../x"], "Give a name of letters"),
    ):
        assert main([*line, *more]) == 2
        assert words in capsys.readouterr().err
    assert main(["zoo", "build", "mine.jsonl", "--job", "x", "--out", "zoo"]) == 2
    assert "--job is for adapters of language models: add --llm MODEL" in capsys.readouterr().err
    assert [job.id for job in map(Job, (cache / "jobs").iterdir()) if job.folder.is_dir()] == ["finetunes-tunes"]
