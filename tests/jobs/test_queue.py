"""Jobs: processes of their own that may be paused, stopped and killed, in every stage and while they write."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from d2nwg.cli import main
from d2nwg.jobs import queue as jobs
from d2nwg.jobs import worker as jobrun
from d2nwg.jobs.job import get_job, list_jobs
from d2nwg.jobs.process import identity, process_state
from d2nwg.jobs.queue import delete, pause, resume, start_next, stop, submit
from d2nwg.training.config import UNetConfig
from d2nwg.training.config_base import STAGES
from d2nwg.training.run import train_bundle
from d2nwg.training.settings import as_text, changed, meanings
from d2nwg.utils.errors import UserError
from tests.helpers.jobs import wait
from tests.helpers.training import SHORT, quick_config, tensors

# A process that holds its job's folder like the real one, but only counts: quick to start, and not done before it is
# paused or stopped, however slow the machine is.
COUNTER = """
import sys, time, signal
from pathlib import Path
from d2nwg.jobs import worker as jobrun
from d2nwg.jobs.job import Job

def count(job, parameters, progress):
    for i in range(parameters.get("steps", 1_000_000)):
        progress("Counting", i, 1000)
        time.sleep(0.01)
    if parameters.get("fail"):
        raise {"user": jobrun.UserError("This was wrong."), "bug": KeyError("x"),
               "disk": OSError(28, "No space left on device")}[parameters["fail"]]
    Path(parameters["out"]).mkdir(parents=True)

jobrun.WORK["train"] = count
jobrun.start_next = lambda: None
sys.exit(jobrun.run_job(Job(Path(sys.argv[1]))))
"""

# The real process, killed at a step of a stage; or while it writes a checkpoint, half of it written.
KILLED = """
import os, signal, sys
from pathlib import Path
from d2nwg.jobs import worker as jobrun
from d2nwg.jobs.job import Job
stage, step = sys.argv[2], int(sys.argv[3])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
class Progress(jobrun.JobProgress):
    def __call__(self, now, done, total):
        super().__call__(now, done, total)
        if (now, done) == (stage, step):
            if len(sys.argv) > 4:
                import torch
                def half(state, file):
                    file.write(b"half a checkpoint")
                    file.flush()
                    die()
                torch.save = half
            else:
                die()
jobrun.JobProgress = Progress
jobrun.run_job(Job(Path(sys.argv[1])))
"""


@pytest.fixture
def counting(cache, monkeypatch):
    monkeypatch.setattr(jobs, "worker_command", lambda job: [sys.executable, "-c", COUNTER, str(job.folder)])


def test_killed_in_every_stage_and_while_writing(tiny_zoo, cache, tmp_path, monkeypatch):
    config = quick_config(**SHORT)
    spec = {"zoos": [str(tiny_zoo.path)], "generator": "unet", "config": config.to_config(), "device": "cpu"}
    undisturbed = train_bundle(tiny_zoo, config, tmp_path / "bundle", device="cpu")
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    job = submit("train", "mine", spec)
    kills = [(STAGES["vae"], 3), (STAGES["condition"], 3), (STAGES["denoiser"], 5, "writing")]
    monkeypatch.undo()
    monkeypatch.setenv("D2NWG_CACHE", str(cache))
    for stage, step, *writing in kills:
        job.write(state="running", pid=None)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(job.folder), stage, str(step), *writing],
            cwd=Path(jobs.__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        state = job.state()
        assert (state["state"], state["stage"]) == ("interrupted", stage)
        assert not job.out.exists() and (job.work / "config.json").exists()
    assert (job.work / "denoiser" / "checkpoint").exists()
    torch.save({}, job.work / "left.part")
    resume(job)
    wait(job, "finished")
    first, second = tensors(undisturbed), tensors(job.out)
    assert len(first) > 100 and [n for n in first if not torch.equal(first[n], second[n])] == []
    assert not job.work.exists() and [p.name for p in job.out.parent.iterdir()] == ["mine"]
    lines = [
        [
            (m["stage"], m.get("step"), m.get("loss"))
            for m in map(json.loads, (b / "metrics.jsonl").open())
            if "loss" in m
        ]
        for b in (undisturbed, job.out)
    ]
    assert lines[0] == lines[1], "what was done twice is told once"
    assert "Finished in" in job.state()["message"]


def test_a_line_of_jobs(counting):
    first, second = submit("train", "first", {}), submit("train", "second", {})
    assert second.state()["state"] == "queued"
    state = wait(first, "running")
    assert state["stage"] == "Counting" and state["total"] == 1000
    assert os.getpgid(state["pid"]) == state["pid"], "a session of its own"
    pause(first)
    assert psutil.Process(state["pid"]).status() == psutil.STATUS_STOPPED
    start_next()
    assert first.state()["state"] == "paused" and second.state()["state"] == "queued", "it keeps its place"
    with pytest.raises(UserError, match="is paused: only a running one"):
        pause(first)
    resume(first)
    wait(first, "running")
    stop(first)
    assert first.state()["state"] == "stopped" and "resuming" in first.state()["message"]
    wait(second, "running")
    os.kill(second.state()["pid"], signal.SIGKILL)
    wait(second, "interrupted")
    start_next()
    assert "Its process is gone" in second.state()["message"]
    with pytest.raises(UserError, match="is interrupted already"):
        stop(second)
    resume(second)
    wait(second, "running")
    with pytest.raises(UserError, match="nothing to resume"):
        resume(second)
    delete(second)
    assert [job.id for job in list_jobs()] == ["train-first"]


def test_a_paused_job_can_be_stopped(counting):
    job = submit("train", "x", {})
    wait(job, "running")
    pause(job)
    stop(job)
    assert job.state()["state"] == "stopped"
    queued = submit("train", "y", {"steps": 2})
    assert wait(queued, "finished")["message"].startswith("Finished in")


@pytest.mark.parametrize(
    "fail, message",
    [("user", "This was wrong."), ("bug", "the log says what"), ("disk", "The disk is full .* make room and resume")],
)
def test_what_goes_wrong_is_told(fail, message, cache, counting):
    import re

    job = submit("train", "x", {"steps": 1, "fail": fail})
    assert re.search(message, wait(job, "failed")["message"])
    assert ("Traceback" in job.log.read_text()) == (fail != "user")


def test_a_job_begins_once_it_is_written_that_it_was_started(counting, monkeypatch):
    """Or that would overwrite how a quick one ended."""
    begun = []

    def slow(pid):  # what is written last by who starts it
        (job,) = list_jobs()
        while not (job.folder / "run.lock").exists():  # its process is there, and does nothing but wait
            time.sleep(0.01)
        for _ in range(50):
            begun.append(job.state().get("pid"))
            time.sleep(0.01)
        return identity(pid)

    monkeypatch.setattr(jobs, "identity", slow)
    job = submit("train", "x", {"steps": 1, "fail": "bug"})
    assert set(begun) == {None} and "the log says what" in wait(job, "failed")["message"]


def test_names(counting, cache):
    for bad in ("", "../x", "a/b", ".hidden", "x" * 80, "a b", "x.training"):
        with pytest.raises(UserError, match="Give a name of letters"):
            submit("train", bad, {})
    submit("train", "x", {})
    with pytest.raises(UserError, match="There is a job train-x already"):
        submit("train", "x", {})
    (cache / "bundles" / "y").mkdir(parents=True)
    with pytest.raises(UserError, match="y exists already"):
        submit("train", "y", {})
    with pytest.raises(UserError, match="There is no job z; the jobs: train-x"):
        get_job("z")
    assert get_job("x") == get_job("train-x")


def test_files_are_the_jobs_own(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.zip").write_text(folder)
    job = submit("zoo", "x", {}, {"data": [tmp_path / name / "same.zip" for name in "ab"]})
    kept = [Path(path) for path in job.spec["parameters"]["data"]]
    assert [path.read_text() for path in kept] == ["a", "b"] and all(job.folder in path.parents for path in kept)
    delete(job)
    assert not job.folder.exists() and (tmp_path / "a" / "same.zip").exists()


def test_another_process_of_the_same_number_is_not_the_job():
    me = os.getpid()
    assert process_state(me, identity(me)) == "alive"
    assert process_state(me, identity(me)[:-1] + "x") == "gone" and process_state(me, "") == "gone"
    assert process_state(None, None) == "gone"
    child = subprocess.Popen(["true"])
    known = identity(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not yet reaped
    assert process_state(child.pid, known) == "gone", "a zombie is no process"
    child.wait()


def test_only_one_process_does_a_job(cache, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(jobs, "_start", lambda job: None)
    job = submit("train", "x", {})
    with FileLock(job.folder / "run.lock"):
        assert jobrun.run_job(job) == 3
    assert job.state()["state"] == "queued"


def test_a_full_disk_keeps_the_last_checkpoint(tiny_zoo, tmp_path, monkeypatch):
    """A limit on the size of files stands in for the disk's end: both make a write fail half-way."""
    import resource

    config, out = quick_config(**SHORT), tmp_path / "bundle"
    checkpoint = tmp_path / "bundle.training" / "vae" / "checkpoint"

    def progress(stage, done, total):
        if (stage, done) == (STAGES["vae"], 3):
            resource.setrlimit(resource.RLIMIT_FSIZE, (checkpoint.stat().st_size // 2, resource.RLIM_INFINITY))

    try:
        with pytest.raises(UserError, match=r"checkpoint of step 4 could not be written .* MB are free: make room"):
            train_bundle(tiny_zoo, config, out, device="cpu", progress=progress)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint"]
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    seen = []
    train_bundle(tiny_zoo, config, out, device="cpu", resume=True, progress=lambda *step: seen.append(step))
    assert (STAGES["vae"], 1, 6) not in seen and (STAGES["vae"], 2, 6) in seen and out.exists()


def test_the_log_tells_how_good_samples_are(tiny_bundle):
    lines = [json.loads(line) for line in (tiny_bundle / "metrics.jsonl").open()]
    rebuilt = [line["step"] for line in lines if "reconstructed_accuracy" in line and "step" in line]
    sampled = [line["sampled_accuracy"] for line in lines if "sampled_accuracy" in line]
    assert rebuilt == [10, 20] and len(sampled) == 3 and all(0 <= value <= 1 for value in sampled)


def test_settings_as_text():
    config = UNetConfig()
    assert set(meanings(UNetConfig)) == set(config.to_config()) and meanings(UNetConfig)["ema"].startswith(
        "decay of the denoiser's"
    )
    assert changed(config, {name: as_text(value) for name, value in vars(config).items()}) == config
    assert changed(config, {"patch": "1, 64, 64", "vae_skip": "no", "vae_lr": "1e-4"}).patch == (1, 64, 64)
    for name, text in (
        ("patch", "x"),
        ("vae_steps", "-1"),
        ("vae_steps", "1.5"),
        ("vae_skip", "maybe"),
        ("prediction", "noise"),
        ("vae_lr", "nan"),
        ("steps", "3"),
    ):
        with pytest.raises(UserError):
            changed(config, {name: text})


def test_the_verbs(counting, capsys, tiny_zoo, tmp_path):
    assert (
        main(
            [
                "train",
                "--zoo",
                str(tiny_zoo.path),
                "--preset",
                "tiny",
                "--set",
                "vae_steps=7",
                "--job",
                "mine",
                "--out",
                str(tmp_path / "made"),
            ]
        )
        == 0
    )
    assert "The job train-mine is running" in capsys.readouterr().out
    job = get_job("mine")
    assert job.spec["parameters"]["config"]["vae_steps"] == 7 and job.out == tmp_path / "made"
    wait(job, "running")
    assert main(["jobs", "list"]) == 0 and capsys.readouterr().out.startswith("train-mine\trunning\tCounting\t")
    assert main(["jobs", "show", "mine"]) == 0 and '"state": "running"' in capsys.readouterr().out
    for verb, said in (("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("delete", "deleted")):
        assert main(["jobs", verb, "mine"]) == 0
        assert capsys.readouterr().out == f"train-mine: {said}.\n"
    assert main(["jobs", "show", "mine"]) == 2 and "no job mine" in capsys.readouterr().err


def test_formats_and_jobs_that_cannot_be_read(cache, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    old, newer, broken = (submit("train", name, {}) for name in ("old", "newer", "broken"))
    spec = json.loads((newer.folder / "job.json").read_text())
    assert spec["format"] == 1
    (newer.folder / "job.json").write_text(json.dumps({**spec, "format": 2}))
    (broken.folder / "job.json").write_text("[")
    del spec["format"]
    (old.folder / "job.json").write_text(json.dumps({**spec, "name": "old"}))  # as the first version wrote it
    assert list_jobs() == [old] and get_job("old") == old
    sentence = "The job train-newer has format 2, and this version reads format 1: delete it and submit it again."
    with pytest.raises(UserError) as refused:
        _ = get_job("train-newer").spec
    assert str(refused.value) == sentence
    assert main(["jobs", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].startswith("train-old\tqueued") and listed[2] == f"train-newer\tunreadable\t\t\t{sentence}"
    assert "train-broken is incomplete: delete it" in listed[1]
    for job in (newer, broken):
        assert main(["jobs", "show", job.id]) == 2 and job.id in capsys.readouterr().err
        assert main(["jobs", "delete", job.id]) == 0 and not job.folder.exists()
