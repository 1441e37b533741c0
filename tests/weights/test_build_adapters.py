"""Zoos of adapters: what is trained is better than without it, an interrupted build ends as an undisturbed one, and
plain peft reads what is kept."""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from d2nwg.cli import main
from d2nwg.data.text_tasks import load_text_task
from d2nwg.encoders.lora import AdaptedEncoder, LoraShape
from d2nwg.utils.errors import UserError
from d2nwg.weights import tuning as building
from d2nwg.weights.build_adapters import AdapterZooConfig, build_adapters
from d2nwg.weights.building import _open_work
from d2nwg.weights.finetune import TuneConfig
from d2nwg.weights.model_zoo import ModelZoo
from tests.helpers.text_tasks import opinions, tiny_text_encoder, write_task


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_text_encoder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, flip in (("tone", False), ("contrary", True)):
        rows = {"train": opinions(160, 1, flip), "dev": opinions(40, 2, flip), "test": opinions(60, 3, flip)}
        write_task(folder / name, rows, description=f"The {name} of a text.", labels=["no", "yes"])
    return [folder / "tone", folder / "contrary"]


@pytest.fixture(scope="module")
def tasks(folders):
    return [load_text_task(folder) for folder in folders]


@pytest.fixture
def config(base):
    return AdapterZooConfig(LoraShape(base, rank=2), TuneConfig(epochs=2, batch=8, lr=1e-2, keep=2), seeds=2, rows=120)


def test_a_zoo_of_adapters(tasks, config, tmp_path):
    said = []
    zoo = build_adapters(tasks, config, tmp_path / "zoo", progress=lambda *now: said.append(now))
    assert len(zoo) == 2 * 2 * 2 and [r["task"] for r in zoo.records] == ["tone"] * 4 + ["contrary"] * 4
    assert said[-1] == ("Training adapters", 120, 120) and [s[1] for s in said] == sorted(s[1] for s in said)
    last = [record for record in zoo.records if record["name"].endswith("step-30")]
    assert len(last) == 4 and all(record["score"] == record["accuracy"] > 0.9 for record in last)
    one, two = (zoo.plain_state(number) for number in (1, 3))  # other seeds of one task
    assert one["head.weight"].shape == (2, 16) and not torch.equal(one["head.weight"], two["head.weight"])
    told = zoo.adapters.tasks[1]
    assert told.descriptions == ["The contrary of a text."] and told.parts == [160, 40, 60] and not told.pairs
    assert 0.4 < told.frozen["test"] <= 1
    assert not (tmp_path / "zoo.building").exists()


def test_adapters_start_from_one_initialisation_and_change_nothing_at_first(base):
    one, two = AdaptedEncoder(LoraShape(base, rank=2)), AdaptedEncoder(LoraShape(base, rank=2))
    torch.manual_seed(7)
    assert all(torch.equal(value, two.state()[name]) for name, value in one.state().items())
    from sentence_transformers import SentenceTransformer

    texts = ["a very good film", "the book"]
    plain = SentenceTransformer(base, device="cpu").encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(one.embed(texts), plain)


def test_an_interrupted_build_goes_on_to_the_same_zoo(tasks, config, tmp_path, monkeypatch):
    whole = build_adapters(tasks, config, tmp_path / "whole")
    real, count = building._train_one, []

    def stop_at_the_third(*args):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(building, "_train_one", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build_adapters(tasks, config, tmp_path / "cut")
    monkeypatch.setattr(building, "_train_one", real)
    with pytest.raises(UserError, match="go on with --resume"):
        build_adapters(tasks, config, tmp_path / "cut")
    with pytest.raises(UserError, match="begun with other tasks or settings"):
        build_adapters(tasks, replace(config, rows=100), tmp_path / "cut", resume=True)
    cut = build_adapters(tasks, config, tmp_path / "cut", resume=True)
    assert (cut.path / "zoo.json").read_text() == (whole.path / "zoo.json").read_text()
    for number in range(len(whole)):
        assert all(torch.equal(value, cut.state(number)[name]) for name, value in whole.state(number).items())


def test_killed_at_its_first_file_a_build_begins_again(tmp_path):
    """That file is not there then: only what a killed process left of it, in folders that are empty."""
    job = SimpleNamespace(about={"tasks": 1}, folders=("models",), prepare=lambda work: None)
    work = tmp_path / "a.building"
    (work / "models").mkdir(parents=True)
    (work / ".building.json.partial-999999999-1.file").write_text("{")
    with ExitStack() as held:
        assert _open_work(held, job, tmp_path / "a", False) == work
    assert [path.name for path in work.iterdir() if path.is_file()] == ["building.json"]
    (work / "building.json").rename(work / "models" / "mine.json")
    with ExitStack() as held, pytest.raises(UserError, match="is there and no unfinished zoo"):
        _open_work(held, job, tmp_path / "a", False)


def test_what_cannot_be_built_is_refused(tasks, config, tmp_path):
    with pytest.raises(UserError, match="nothing|no unfinished zoo"):
        build_adapters(tasks, config, tmp_path / "zoo", resume=True)
    with pytest.raises(UserError, match="Two tasks are called tone"):
        build_adapters([tasks[0], tasks[0]], config, tmp_path / "zoo")
    with pytest.raises(UserError, match="cannot take this adapter"):
        build_adapters(tasks, replace(config, shape=replace(config.shape, targets=("nowhere",))), tmp_path / "zoo")
    with pytest.raises(UserError, match="rank 17 is more than .* is wide: at most 16"):
        build_adapters(tasks, replace(config, shape=replace(config.shape, rank=17)), tmp_path / "zoo")
    with pytest.raises(UserError, match="could not be loaded"):
        build_adapters(tasks, replace(config, shape=LoraShape("nobody/nothing")), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_on_the_command_line(folders, base, tmp_path, capsys):
    line = ["zoo", "build", *map(str, folders), "--out", str(tmp_path / "zoo")]
    assert main([*line, "--rank", "2"]) == 2 and "add --adapter lora" in capsys.readouterr().err
    line += ["--adapter", "lora", "--base", base, "--rank", "2", "--epochs", "1", "--seeds", "1", "--keep", "1"]
    assert main([*line, "--rows", "40"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == {"tone": 1, "contrary": 1}
    assert len(ModelZoo(tmp_path / "zoo")) == 2
    assert main([*line, "--resume"]) == 2 and "exists already" in capsys.readouterr().err


def test_two_processes_build_the_zoo_of_one(folders, base, tmp_path, monkeypatch):
    line = ["-m", "d2nwg", "zoo", "build", *map(str, folders), "--adapter", "lora", "--base", base, "--rank", "2"]
    line += ["--epochs", "1", "--seeds", "1", "--keep", "1", "--rows", "40", "--device", "cpu"]
    alone = subprocess.run([sys.executable, *line, "--out", tmp_path / "alone"], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    several = subprocess.run([*launch, *line, "--out", tmp_path / "several"], capture_output=True, text=True)
    assert several.returncode == 0, several.stderr
    one, two = ModelZoo(tmp_path / "alone"), ModelZoo(tmp_path / "several")
    assert one.records == two.records
