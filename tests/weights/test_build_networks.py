"""Zoos of small networks: complete in themselves, the same however they are built, and careful with what is damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.cli import main
from d2nwg.data.arrays import ImageArrays, load_arrays
from d2nwg.utils.errors import UserError
from d2nwg.weights.build_networks import NetworkTasks, NetworkZooConfig, build_networks
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.network_plan import plan
from d2nwg.weights.populations import accuracy_of, stack_states
from d2nwg.weights.small_networks import initial_state, small_network
from tests.helpers.disk import FullDisk
from tests.helpers.refusals import refusal

SIZE = 8


def _set(name: str, classes: int, count: int = 12, channels: int = 1, seed: int = 0) -> ImageArrays:
    """Images of classes that differ in brightness and in where they are bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(classes * count) % classes
    images = rng.integers(0, 40, (len(labels), channels, SIZE, SIZE))
    images[:, :, :4] += (labels * (200 // classes))[:, None, None, None]
    images = images.astype(np.uint8)
    names = tuple(f"{name}{i}" for i in range(classes))
    return ImageArrays(name, names, images, labels, images[: 4 * classes] // 2 * 2, labels[: 4 * classes])


@pytest.fixture(scope="module")
def sets():
    return [_set("one", 5), _set("two", 3, seed=1)]


CONFIG = NetworkZooConfig(
    network="mlp", size=SIZE, classes=3, subsets=6, variants=("negative", "turned-90"), updates=40, batch=8, keep=2
)


@pytest.fixture(scope="module")
def zoo(sets, tmp_path_factory):
    return build_networks(sets, CONFIG, tmp_path_factory.mktemp("networks") / "zoo", device="cpu")


def _same(one: ModelZoo, other: ModelZoo) -> bool:
    def files(zoo):
        return {str(p.relative_to(zoo.path)): p.read_bytes() for p in sorted(zoo.path.rglob("*")) if p.is_file()}

    return files(one) == files(other)


def test_a_zoo_says_what_it_holds(zoo, sets):
    assert len(zoo) == 6 * 2 and not zoo.path.with_name("zoo.building").exists()
    assert list(zoo.networks.tasks) == [
        *("one-0000", "one-0001-negative", "one-0002-turned-90"),
        *("two-0000", "two-0001-negative", "two-0002-turned-90"),
    ]
    assert [record["epoch"] for record in zoo.records[-2:]] == [7, 9]  # 33 and 40 steps of 8 of 36 images
    assert {record["start"] for record in zoo.records} == {0}
    drawn = [tuple(task.classes) for task in zoo.networks.tasks.values()]
    assert len(set(drawn)) > 3 and all(len(set(classes)) == 3 for classes in drawn)
    about = zoo.summary()["networks"]
    assert about["network"] == "mlp" and about["sets"][0] == {"name": "one", "classes": 5, "train": 60, "test": 20}


def test_recorded_accuracies_are_those_of_its_own_files(zoo):
    tasks, module = NetworkTasks(zoo), small_network("mlp").build(1, 3, SIZE)
    for number, record in enumerate(zoo.records):
        _, _, test, labels = tasks.images(record["task"])
        state = stack_states([zoo.plain_state(number)])
        assert abs(accuracy_of(module, state, test[None], labels[None]).item() - record["accuracy"]) < 1e-6
    assert np.mean([record["accuracy"] for record in zoo.records[1::2]]) > 0.8


def test_images_of_a_task_are_its_classes_in_its_order_and_variant(zoo, sets):
    tasks = NetworkTasks(zoo)
    for name, change in (
        ("one-0000", lambda x: x),
        ("one-0001-negative", lambda x: 255 - x),
        ("one-0002-turned-90", lambda x: np.rot90(x, 1, (-2, -1))),
    ):
        train, labels, test, _ = tasks.images(name)
        assert len(train) == 36 and len(test) == 12
        for row, number in enumerate(tasks.tasks[name].classes):
            expected = change(sets[0].train[sets[0].train_labels == number])
            assert np.array_equal(train[labels == row].numpy(), expected)
        assert tasks.names(name) == [f"one{number}" for number in tasks.tasks[name].classes]
    start = tasks.start(0)
    assert all(torch.equal(tensor, start[key]) for key, tensor in initial_state("mlp", 1, 3, SIZE, 0).items())
    assert "no task" in refusal(tasks.images, "three")


def test_whole_data_sets_in_each_variant_with_several_seeds_and_starts(sets, tmp_path):
    config = replace(CONFIG, classes=None, subsets=0, variants=("negative",), seeds=3, starts=2, keep=1, epochs=2)
    zoo = build_networks([sets[1]], config, tmp_path / "zoo", device="cpu")
    names = ["two", "two-negative"]
    assert [record["name"] for record in zoo.records] == [f"{name}/seed-{s}/step-9" for name in names for s in range(3)]
    assert [record["start"] for record in zoo.records] == [0, 1, 0, 1, 0, 1]
    assert {record["epoch"] for record in zoo.records} == {2}
    states = [zoo.plain_state(number)["head.weight"] for number in (0, 2)]  # of one task and start
    assert not torch.equal(*states)
    assert sorted(path.name for path in (zoo.path / "starts").iterdir()) == ["0.safetensors", "1.safetensors"]


def test_a_network_does_not_depend_on_those_it_is_trained_with(sets, zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.weights.build_networks.ON_CPU", 1)
    assert _same(zoo, build_networks(sets, CONFIG, tmp_path / "zoo", device="cpu"))


def test_an_interrupted_build_goes_on_to_the_same_zoo(sets, zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.weights.build_networks.ON_CPU", 2)

    def stop(stage, done, total):
        if done == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_networks(sets, CONFIG, tmp_path / "zoo", device="cpu", progress=stop)
    assert len(list((tmp_path / "zoo.building").glob("run-*.json"))) == 3
    with pytest.raises(UserError, match="go on with --resume"):
        build_networks(sets, CONFIG, tmp_path / "zoo", device="cpu")
    with pytest.raises(UserError, match="begun with other tasks or settings"):
        build_networks([_set("one", 5, seed=3), sets[1]], CONFIG, tmp_path / "zoo", resume=True, device="cpu")
    said = []
    cut = build_networks(
        sets, CONFIG, tmp_path / "zoo", resume=True, device="cpu", progress=lambda *now: said.append(now[1:])
    )
    assert said[0] == (120, 240) and said[-1] == (240, 240)
    assert _same(zoo, cut)


@pytest.mark.parametrize("where", ["write_info", "_link_or_copy"])
def test_a_build_that_ends_while_it_takes_its_place_loses_nothing(where, sets, zoo, tmp_path, monkeypatch):
    from d2nwg.weights import building

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, where, end)
        build_networks(sets, CONFIG, tmp_path / "zoo", device="cpu")
    monkeypatch.setattr("d2nwg.weights.build_networks.train_networks", lambda *_, **__: pytest.fail("trained again"))
    assert _same(zoo, build_networks(sets, CONFIG, tmp_path / "zoo", resume=True, device="cpu"))


def test_a_full_disk_loses_nothing(sets, zoo, tmp_path):
    out, resume = tmp_path / "zoo", False
    for at in range(80):
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, tmp_path, min(at, 3) if at < 70 else 10**6)
            try:
                build_networks(sets, CONFIG, out, resume=resume, device="cpu")
                break
            except UserError as reason:
                assert "the disk is full" in str(reason) and "--resume" in str(reason)
        assert not out.exists()
        resume = (tmp_path / "zoo.building" / "building.json").exists()
    assert _same(zoo, ModelZoo(out))


def test_a_network_that_diverged_is_named_and_left_out(sets, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="All networks diverged"):
        build_networks(sets, replace(CONFIG, lr=1e20), tmp_path / "none", device="cpu")
    real = NetworkZooConfig  # one network of six diverges where its weights become infinite

    from d2nwg.weights import build_networks as module

    train = module.train_networks

    def spoilt(*args, on_step, seeds, **options):
        def spoil(step, states):
            if 1 in seeds:
                states["head.bias"][list(seeds).index(1), 0] = float("nan")
            on_step(step, states)

        return train(*args, on_step=spoil, seeds=seeds, **options)

    monkeypatch.setattr(module, "train_networks", spoilt)
    zoo = build_networks(sets, real(**vars(CONFIG)), tmp_path / "zoo", device="cpu")
    assert zoo.networks.left_out == ["one-0001-negative"] and len(zoo) == 10
    assert "one-0001-negative" not in {record["task"] for record in zoo.records}
    assert ModelZoo(zoo.path).summary()["networks"]["left_out"] == ["one-0001-negative"]


def test_settings_that_do_not_fit_are_refused(sets, tmp_path):
    for changes, words in (
        ({"network": "vgg"}, "no small network"),
        ({"variants": ("upside-down",)}, "no variant upside-down"),
        ({"classes": 4}, "two has 3 classes"),
        ({"classes": None, "subsets": 0}, "two has 3 classes"),
        ({"size": 9}, "9 pixels a side"),
        ({"network": "cnn"}, "20 to 128 pixels"),
    ):
        assert words in refusal(build_networks, sets, replace(CONFIG, **changes), tmp_path / "zoo", device="cpu")
    assert "no data set" in refusal(build_networks, [], CONFIG, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists() and not (tmp_path / "zoo.building").exists()


def test_tasks_are_shared_evenly_and_differ_by_the_seed(sets):
    tasks = plan(sets, replace(CONFIG, subsets=7))
    assert [task.set for task in tasks.values()] == [0, 0, 0, 0, 1, 1, 1]
    assert plan(sets, replace(CONFIG, subsets=7)) == tasks != plan(sets, replace(CONFIG, subsets=7, seed=1))


def test_grey_and_colour_in_one_zoo_are_colour_and_names_are_told_apart(sets, tmp_path):
    colour = _set("two", 3, channels=3, seed=2)
    zoo = build_networks([sets[1], colour], replace(CONFIG, subsets=2, keep=1), tmp_path / "zoo", device="cpu")
    assert zoo.networks.channels == 3 and [one.name for one in zoo.networks.sets] == ["two", "two-2"]
    train, *_ = NetworkTasks(zoo).images("two-0000")
    assert torch.equal(train[:, 0], train[:, 2])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("network", "vgg"),
        ("channels", 2),
        ("size", 10**9),
        ("classes", 4),
        ("mean", [0.5, 0.5]),
        ("std", [0.0]),
        ("sets", []),
        ("sets.0.train", -1),
        ("sets.0.classes", ["a", 3]),
        ("tasks", {}),
        ("tasks.one-0000.set", 7),
        ("tasks.one-0000.classes", [0, 1, 99]),
        ("tasks.one-0000.classes", [0, 1, 1]),
        ("tasks.one-0000.classes", [0, 1]),
        ("tasks.one-0000.variant", "sideways"),
    ],
)
def test_a_networks_field_that_does_not_fit_is_refused(place, value, zoo, tmp_path, capsys):
    broken = shutil.copytree(zoo.path, tmp_path / "zoo")
    info = json.loads((broken / "zoo.json").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = info["networks"]
    for part in path:
        inner = inner[part]
    inner[last] = value
    (broken / "zoo.json").write_text(json.dumps(info))
    assert "damaged at networks" in refusal(ModelZoo, broken)
    assert main(["zoo", "info", str(broken)]) == 2 and "damaged" in capsys.readouterr().err


def test_damaged_images_are_refused(zoo, tmp_path):
    file = "images/00000.safetensors"
    good = load_file(zoo.path / file)
    (tmp_path / "elsewhere").write_bytes((zoo.path / file).read_bytes())
    content = (zoo.path / file).read_bytes()
    for number, bad in enumerate(
        [
            content[:-7],
            b"",
            None,
            {**good, "train": good["train"][:-1]},
            {**good, "train": good["train"].float()},
            {**good, "train": good["train"].repeat(1, 3, 1, 1)},
            {**good, "train_labels": good["train_labels"] + 1},
            {**good, "test_labels": good["test_labels"] * 0},
            {key: tensor for key, tensor in good.items() if key != "test"},
        ]
    ):
        broken = shutil.copytree(zoo.path, tmp_path / str(number))
        (broken / file).unlink()
        if isinstance(bad, bytes):
            (broken / file).write_bytes(bad)
        elif bad is None:
            (broken / file).symlink_to(tmp_path / "elsewhere")
        else:
            save_file({key: tensor.contiguous() for key, tensor in bad.items()}, broken / file)
        assert "missing or damaged" in refusal(NetworkTasks(ModelZoo(broken)).images, "one-0000")
    (broken / "starts" / "0.safetensors").unlink()
    assert "missing or damaged" in refusal(NetworkTasks(ModelZoo(broken)).start, 0)


def test_other_zoos_have_no_tasks(tmp_path, zoo):
    plain = shutil.copytree(zoo.path, tmp_path / "zoo")
    info = json.loads((plain / "zoo.json").read_text())
    info.pop("networks")
    (plain / "zoo.json").write_text(json.dumps(info))
    assert "zoo build DATA --network cnn" in refusal(NetworkTasks, ModelZoo(plain))


@pytest.fixture(scope="module")
def file(sets, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "one.npz"
    one = sets[0]
    np.savez(path, x_train=one.train[:, 0], y_train=one.train_labels, x_test=one.test[:, 0], y_test=one.test_labels)
    return path


def _line(file, out, *more):
    line = ["zoo", "build", file, "--network", "mlp", "--size", SIZE, "--classes", 3, "--subsets", 4, "--updates", 20]
    return list(map(str, [*line, *more, "--out", out, "--device", "cpu"]))


def test_on_the_command_line(file, tmp_path, capsys):
    assert main(_line(file, tmp_path / "zoo", "--variants", "negative", "--keep", 2)) == 0
    assert json.loads(capsys.readouterr().out)["networks"]["tasks"] == 4
    config = NetworkZooConfig(
        network="mlp", size=SIZE, classes=3, subsets=4, updates=20, variants=("negative",), keep=2
    )
    same = build_networks([load_arrays(file, size=SIZE)], config, tmp_path / "same", device="cpu")
    assert _same(ModelZoo(tmp_path / "zoo"), same)
    for more, words in (
        (["--network", "vgg"], "no small network"),
        (["--classes", "2-3"], "one number"),
        (["--rank", 3], "is for adapters"),
        (["--epochs", 3], "both say how long"),
        (["--lr", 0], "learning rate"),
        (["--adapter", "lora"], "not allowed with"),
    ):
        code = None
        try:
            code = main(_line(file, tmp_path / "other", *more))
        except SystemExit as ended:
            code = ended.code
        assert code == 2 and words in capsys.readouterr().err
    assert main(["zoo", "build", str(file), "--size", "8", "--out", str(tmp_path / "other")]) == 2
    assert "add --network NAME" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_killed_build_goes_on(file, tmp_path):
    alone = _line(file, tmp_path / "alone", "--updates", 400, "--subsets", 12)
    assert main(alone) == 0
    line = [sys.executable, "-m", "d2nwg", *_line(file, tmp_path / "zoo", "--updates", 400, "--subsets", 12)]
    running = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    while running.poll() is None and not list((tmp_path / "zoo.building").glob("run-*.json")):
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL and not (tmp_path / "zoo").exists()
    ended = subprocess.run([*line, "--resume"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert _same(ModelZoo(tmp_path / "alone"), ModelZoo(tmp_path / "zoo"))


def test_two_processes_build_the_zoo_of_one(file, tmp_path):
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    assert main(_line(file, tmp_path / "alone")) == 0
    line = [sys.executable, *launch, "-m", "d2nwg", *_line(file, tmp_path / "several")]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert _same(ModelZoo(tmp_path / "alone"), ModelZoo(tmp_path / "several"))
