"""The Train tab's words and figures, and what its settings become."""

import json
import os
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from d2nwg.bundles import list_bundles, pack_bundle
from d2nwg.figures.train import accuracies_figure, losses_figure
from d2nwg.jobs import queue as jobs
from d2nwg.jobs.owner import EVERYTHING, Viewer
from d2nwg.jobs.process import identity
from d2nwg.jobs.queue import check_name
from d2nwg.training.estimate import estimate
from d2nwg.ui import jobs as ui_jobs
from d2nwg.ui.access import ACCESS
from d2nwg.ui.job_html import jobs_html
from d2nwg.ui.jobs import acting, job_choices, newest, pick_update
from d2nwg.ui.train import html
from d2nwg.ui.train import service as training
from d2nwg.ui.train.jobs import _figures, followed, submitted
from d2nwg.ui.train.zoo import ARCHITECTURES
from d2nwg.ui.uploads import zoo_name
from d2nwg.utils.errors import UserError
from d2nwg.weights.small_networks import NETWORKS
from tests.helpers.training import quick_config

NASTY = '<img src=x onerror="alert(1)">'


@pytest.fixture
def still(tmp_path, monkeypatch):
    """A cache of its own, any file counts as an upload, and no job begins."""
    monkeypatch.setattr(training, "own_file", Path)
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(jobs, "_start", lambda job: None)


def test_off_on_a_space(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert training.why_off() is None
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    assert "huggingface.co/spaces/someone/studio?duplicate=true" in training.why_off()
    monkeypatch.setenv("TRAIN_HERE", "1")
    assert training.why_off() is None


def test_jobs_in_words(still, tiny_zoo):
    def listed(chosen=None) -> str:
        return jobs_html(newest(EVERYTHING, training.KINDS), chosen, "Train <something>.")

    assert "Your jobs will stand here" in listed() and "Train &lt;something&gt;." in listed()
    job = jobs.submit_training("mine", [tiny_zoo.path], quick_config())
    jobs.submit("refine", "other", {"model": "default"})
    assert "waiting" in listed() and "other" not in listed()
    assert job_choices(newest(EVERYTHING, training.KINDS)) == [("mine (training)", "train-mine")]
    job.write(state="failed", message=NASTY)
    shown = listed(job.id)
    assert "<img" not in shown and "failed" in shown
    me = os.getpid()
    job.write(
        state="running",
        pid=me,
        identity=identity(me),
        stage="Training the VAE",
        done=5,
        total=20,
        left=75.0,
        message="",
    )
    job.work.mkdir(parents=True)
    (job.work / "metrics.jsonl").write_text(
        '{"stage": "Training the VAE", "step": 5, "steps": 20, "loss": 0.5, "reconstructed_accuracy": 0.75}\n{"torn'
    )
    shown = listed(job.id)
    for words in ("step 5 of 20", "1 min 15 s left", "loss 0.5", "reconstructions right on 75.0", "width:25.0%"):
        assert words in shown
    job.write(state="stopped", pid=None)


@pytest.fixture
def allowed(tiny_zoo, monkeypatch):
    """The app was started with the folder of the tiny zoo."""
    monkeypatch.setattr(ACCESS, "folders", (tiny_zoo.path.resolve().parent,))


def test_a_look_leaves_what_was_chosen_meanwhile(still, tiny_zoo):
    for name in ("first", "second"):
        jobs.submit_training(name, [tiny_zoo.path], quick_config())
    own = newest(EVERYTHING, training.KINDS)
    kept = pick_update(own, "train-first", "train-first")
    assert "value" not in kept, "a look that was under way when the second began would show the first again"
    assert {key for _, key in kept["choices"]} == {"train-first", "train-second"}
    assert pick_update(own, "train-gone", "train-second")["value"] == "train-second"


def test_a_zoo_in_words(tiny_zoo, allowed, tmp_path):
    assert "300 linear heads" in html.describe_zoo(str(tiny_zoo.path), EVERYTHING)
    (tiny_zoo.path.parent / "empty").mkdir(exist_ok=True)
    assert "is no zoo" in html.describe_zoo(str(tiny_zoo.path.parent / "empty"), EVERYTHING)
    assert "That zoo is not to be had here" in html.describe_zoo(str(tmp_path), EVERYTHING)
    assert "No zoo yet" in html.describe_zoo(None, EVERYTHING)
    with pytest.raises(UserError, match="Choose a zoo"):
        training.zoo_path(None, EVERYTHING)


def test_a_zoo_of_networks_is_asked_for(still, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"read by the job")
    job = training.submit_networks([str(tmp_path / "x.npz")], "nets", "mlp", 20, 0, 50, 3, EVERYTHING)
    config = job.spec["parameters"]["config"]
    assert (config["network"], config["subsets"], config["classes"], config["updates"]) == ("mlp", 20, None, 50)
    assert job.spec["kind"] in training.KINDS and [key for _, key in ARCHITECTURES] == list(NETWORKS)
    for files, network, many, words in (
        (None, "mlp", 20, "Choose the images first"),
        (["x.zip"], "huge", 20, "no small network 'huge'"),
        (["x.zip"], "mlp", 1, "Networks should be a whole number from 2"),
    ):
        with pytest.raises(UserError, match=words):
            training.submit_networks(files, "y", network, many, 0, 50, 3, EVERYTHING)


def test_settings(still):
    with pytest.raises(UserError, match="Choose the images first"):
        training.submit_zoo(None, "x", 10, 2, 3, 5, 0, EVERYTHING)
    with pytest.raises(UserError, match="Heads should be a whole number from 5"):
        training.submit_zoo(["x.zip"], "x", 1, 2, 3, 5, 0, EVERYTHING)
    assert training.training_config("unet", "tiny", {"vae_steps": "7", "ema": ""}).vae_steps == 7
    assert training.training_config("dual", "tiny", {"held_out": "a, b"}).held_out == ("a", "b")
    with pytest.raises(UserError, match="'x' cannot be the vae_steps: write for instance 200"):
        training.training_config("unet", "tiny", {"vae_steps": "x"})


def test_figures(tiny_bundle):
    lines = [json.loads(line) for line in (tiny_bundle / "metrics.jsonl").open()]
    losses = losses_figure(lines)
    assert len(losses.data) == 3 and [note.text for note in losses.layout.annotations] == [
        "VAE",
        "condition",
        "denoiser",
    ]
    rights = accuracies_figure(lines)
    assert {trace.text[-1].split("s ")[0] for trace in rights.data} == {"reconstruction", "sample"}
    assert list(rights.data[0].x) == [10, 20, 30] and rights.layout.annotations[0].text.startswith("zoo heads ")
    assert max(rights.data[1].x) == 80
    assert not losses_figure([]).data and not accuracies_figure([]).data


def test_time_and_memory_are_measured(tiny_zoo):
    found = estimate([tiny_zoo.path], quick_config(diffusion_steps=1000), device="cpu", limit=500)
    assert found["whole"] and found["device"] == "CPU" and 1e8 < found["memory"] < 1e10
    assert list(found["stages"]) == ["Training the VAE", "Aligning the condition", "Training the denoiser"]
    assert found["seconds"] == pytest.approx(sum(found["stages"].values()))


def test_a_bundle_as_one_archive(tiny_bundle, tmp_path, monkeypatch):
    packed = pack_bundle(tiny_bundle, tmp_path)
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    zipfile.ZipFile(packed).extractall(tmp_path / "cache" / "bundles")
    assert (list_bundles()["tiny"] / "vae" / "config.json").read_bytes() == (
        tiny_bundle / "vae" / "config.json"
    ).read_bytes()
    with pytest.raises(UserError, match="no bundle"):
        pack_bundle(tmp_path / "nothing", tmp_path)


def test_checkpoints_added_to_a_zoo(still, tmp_path):
    import torch

    from d2nwg.weights.model_zoo import ModelZoo

    files = [tmp_path / f"{i}.pt" for i in range(3)]
    for i, file in enumerate(files):
        torch.save(torch.nn.Linear(2 + i // 2, 2).state_dict(), file)
    me, other = Viewer("me"), Viewer("other")

    def take(files, append: bool, viewer=me):
        return training.import_zoo([str(file) for file in files], "mine", tmp_path / "a", append, viewer)

    with pytest.raises(UserError, match="no zoo of checkpoints mine to add to"):
        take(files[:1], True)
    assert "1 checkpoint imported" in take(files[:1], False).sentence
    with pytest.raises(UserError, match="a zoo mine already: choose another name, or tick"):
        take(files[1:2], False)
    for append, words in ((True, "You have no zoo of checkpoints mine"), (False, "The name mine is taken")):
        with pytest.raises(UserError, match=words):
            take(files, append, other)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
        archive.writestr("log.txt", "no checkpoint")
    made = take([tmp_path / "all.zip"], True)
    assert made.sentence == "2 checkpoints added to the zoo mine, which now has 3."
    shown = html.imported(made)
    assert "4 files: 2 imported as 2 checkpoints, 1 left out" in shown and "log.txt" in shown
    assert "<li>0.pt has the same w" in shown
    assert [r["name"] for r in ModelZoo(tmp_path / "cache" / "zoos" / "mine").records] == ["0.pt", "1.pt", "2.pt"]
    assert training.zoo_names(me) == training.zoo_names(EVERYTHING) == ["mine"] and not training.zoo_names(other)
    assert "3 networks</b> of 2 architectures" in html.describe_zoo("mine", me)
    assert "not to be had here" in html.describe_zoo("mine", other)


def test_the_account_of_a_look(still, tmp_path):
    import torch

    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.pt")
    torch.save({"code": os.system}, tmp_path / "b.pt")
    found = training.look_at_checkpoints([str(tmp_path / name) for name in ("a.pt", "b.pt")], tmp_path / "a")
    shown = html.checkpoints(found)
    assert "2 files: 1 imported as 1 checkpoint, 1 left out" in shown and "b.pt needs code" in shown


def test_the_generator_suits_the_zoo(still, tiny_zoo, allowed, tmp_path):
    import torch

    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.pt")
    training.import_zoo([str(tmp_path / "a.pt")], "models", tmp_path / "a", False, EVERYTHING)
    suiting = partial(training.suiting, viewer=EVERYTHING)
    heads = str(tiny_zoo.path)
    assert suiting("models", "dual") == "networks" and suiting(heads, "dual") == "dual"
    assert suiting(heads, "networks") == training.FIRST and suiting(heads, "unet") == suiting(None, "unet") == "unet"
    assert suiting("/etc", "networks") == suiting("/nowhere", "networks") == "networks"


def test_the_line_under_a_button_follows_its_job(still, tiny_zoo):
    job = jobs.submit_training("mine", [tiny_zoo.path], quick_config())
    line = submitted(job)
    assert "The training mine is in the queue: see Jobs." in line and followed(line, [job]) is None
    job.write(state="finished")
    assert "The training mine is finished: see Jobs." in followed(line, [job])
    job.write(state="failed")
    assert "The training mine has failed: see Jobs." in followed(line, [job])
    assert followed(line, []) == "", "the job is deleted"
    assert followed('<div class="notice bad">Choose a zoo.</div>', [job]) is followed(None, [job]) is None


def test_what_is_done_to_a_job_is_said_while_it_is_done(still, tiny_zoo, monkeypatch):
    job = jobs.submit_training("mine", [tiny_zoo.path], quick_config())
    monkeypatch.setattr(ui_jobs, "visitor", lambda request, token: EVERYTHING)
    said = acting("pause")(None, None, job.id)
    assert "Pausing mine …" in next(said)
    assert "only a running one can be paused" in next(said) and not list(said)
    said = acting("delete")(None, None, job.id)
    assert "Deleting mine …" in next(said) and job.folder.exists()
    assert "mine is deleted" in next(said) and not job.folder.exists()


def test_no_figure_without_a_point(still, tiny_zoo):
    parts = SimpleNamespace(figures="figures", losses="losses", accuracies="accuracies", good="good")
    job = jobs.submit_training("mine", [tiny_zoo.path], quick_config())
    begun = [{"stage": "vae", "steps": 20}]
    shown = _figures(parts, job, begun)
    assert not shown["figures"]["visible"] and not shown["good"]["visible"]
    shown = _figures(parts, job, [*begun, {"stage": "vae", "step": 5, "loss": 0.5}])
    assert shown["figures"]["visible"] and not shown["good"]["visible"]


def test_a_zoo_is_named_after_its_files():
    assert zoo_name(["/x/my digits.zip"]) == "my-digits" and zoo_name(None) == zoo_name([]) == ""
    assert zoo_name(["a.zip", "b.zip", "c.zip"]) == "a-and-2-more", "not as if there were one file"
    assert check_name(zoo_name([f"{'x' * 300}.zip"] * 100)) and check_name(zoo_name(["ж.zip", "b.zip"]))
