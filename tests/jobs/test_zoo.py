"""A zoo's building killed, and begun again."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from d2nwg.data.images import load_images
from d2nwg.jobs import queue as jobs
from d2nwg.jobs.job import Job
from d2nwg.jobs.queue import resume, start_next, submit
from d2nwg.weights.build import build_zoo
from d2nwg.weights.build_networks import NetworkZooConfig
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.zoo import Zoo, ZooConfig
from tests.helpers.jobs import wait
from tests.helpers.small_zoo import pictures

REPO = Path(jobs.__file__).parents[2]

# The real process with a cheap encoder, killed while probes are trained, or with half of a shard written.
BUILD = """
import os, signal, sys
from pathlib import Path
from d2nwg.jobs import worker as jobrun
from d2nwg.encoders import images as encoders
from d2nwg.jobs.job import Job
from d2nwg.weights import build
from tests.helpers.encoder import CheapEncoder
encoders.load_encoder = lambda *_: CheapEncoder()
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
class Progress(jobrun.JobProgress):
    def __call__(self, now, done, total):
        super().__call__(now, done, total)
        if now == sys.argv[2]:
            die()
def half(tensors, path):
    if "records" in str(path):
        Path(path).write_bytes(b"half a shard")
        die()
    save(tensors, path)
save = build.save_file
if sys.argv[2] == "writing":
    build.save_file = half
jobrun.JobProgress = Progress
sys.exit(jobrun.run_job(Job(Path(sys.argv[1]))))
"""


def test_a_killed_building_begins_again(cache, patterns, cheap_encoder, tmp_path, monkeypatch):
    config = ZooConfig(subsets=60, min_classes=2, max_classes=4, images=5, width=8)
    undisturbed = build_zoo([load_images(patterns)], cheap_encoder, config, tmp_path / "zoo", device="cpu")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])))
    start = jobs._start
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    job = submit("zoo", "mine", {"data": [str(patterns)], "encoder": "cheap", "config": asdict(config)})
    for where in ("Training probes", "writing"):
        job.write(state="running", pid=None)
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(job.folder), where], cwd=REPO, capture_output=True, text=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        state = job.state()
        assert (state["state"], state["stage"]) == ("interrupted", "Training probes")
        assert state["message"] == "Its process is gone; resuming begins again."
        assert not job.out.exists() and len(list(job.out.parent.iterdir())) == 1, "what is half done is not a zoo"
    start_next()
    assert job.state()["state"] == "interrupted"
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs, "worker_command", lambda job: [sys.executable, "-c", BUILD, str(job.folder), ""])
    resume(job)
    wait(job, "finished")
    assert [path.name for path in job.out.parent.iterdir()] == ["mine"] and not (job.folder / "data").exists()
    names = sorted(path.name for path in undisturbed.path.iterdir())
    assert names == sorted(path.name for path in job.out.iterdir())
    for name in names:
        if name.endswith(".safetensors"):
            one, two = load_file(undisturbed.path / name), load_file(job.out / name)
            assert one.keys() == two.keys()
            for key in one:
                assert one[key].shape == two[key].shape and (one[key] - two[key]).abs().max() < 1e-4, (name, key)
    assert Zoo(job.out).summary() == undisturbed.summary()


NETWORKS = """
import os, signal, sys
from pathlib import Path
from d2nwg.jobs import worker as jobrun
from d2nwg.jobs.job import Job
from d2nwg.weights import build_networks
build_networks.ON_CPU = 2
class Progress(jobrun.JobProgress):
    def __call__(self, now, done, total):
        super().__call__(now, done, total)
        if now == build_networks.STAGE and done >= int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
jobrun.JobProgress = Progress
sys.exit(jobrun.run_job(Job(Path(sys.argv[1]))))
"""


def test_a_killed_building_of_networks_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    images, labels = pictures(10, 0, 4)
    np.savez(tmp_path / "mine.npz", x=images.numpy()[:, 0], y=labels.numpy())
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    config = NetworkZooConfig(network="mlp", size=8, subsets=6, classes=3, updates=10)
    job = submit("networks", "mine", {"data": [], "config": asdict(config)}, {"data": [tmp_path / "mine.npz"]})
    for most, code in ((25, -signal.SIGKILL), (10**6, 0)):
        job.write(state="running", pid=None)
        run = [sys.executable, "-c", NETWORKS, str(job.folder), str(most)]
        done = subprocess.run(run, cwd=REPO, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        if code:
            assert not job.out.exists() and len(list(job.work.glob("zoo.building/run-*.json"))) == 2
    assert job.state()["state"] == "finished" and not job.work.exists() and not (job.folder / "data").exists()
    zoo = ModelZoo(job.out)
    assert len(zoo) == 6 and zoo.networks.network == "mlp"
    assert [path.name for path in job.out.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "kind, words",
    [
        ("train", "goes on from the last checkpoint"),
        ("zoo", "begins again"),
        ("networks", "after the last group"),
        ("finetunes", "after the last fine-tune"),
    ],
)
def test_the_message_says_what_resuming_does(kind, words):
    assert words in Job(Path(f"{kind}-x")).after_resuming
