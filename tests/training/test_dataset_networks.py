"""Networks for a data set: training on a tiny zoo, the bundle, sampling, and the folder that generate writes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from PIL import Image

from d2nwg.bundles import data_bundle, list_bundles, load_bundle, makes_for_data
from d2nwg.cli import main
from d2nwg.generators import for_zoo
from d2nwg.pipelines.dataset_networks import DatasetNetworkPipeline
from d2nwg.training.config import DatasetNetworksConfig, NetworksConfig
from d2nwg.training.config_base import STAGES
from d2nwg.training.network_episodes import TaskPool, choose_held_out
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.network_files import load_network
from d2nwg.weights.network_tasks import NetworkTasks
from d2nwg.weights.populations import accuracy_of
from d2nwg.weights.small_networks import small_network
from tests.helpers.small_zoo import SIZE, pictures, write_small_zoo
from tests.helpers.training import stop_at, tensors

QUICK = dict(steps=6, checkpoint_every=2, width=16)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_small_zoo(tmp_path_factory.mktemp("small") / "zoo")


@pytest.fixture(scope="module")
def bundle(zoo, tmp_path_factory):
    config = DatasetNetworksConfig.preset("tiny", checkpoint_every=20)
    return train_bundle(zoo, config, tmp_path_factory.mktemp("bundles") / "for-data", device="cpu")


@pytest.fixture(scope="module")
def pipe(bundle) -> DatasetNetworkPipeline:
    return load_bundle(bundle)


def some(count: int = 5, classes: int = 4, seed: int = 9):
    images, labels = pictures(count, seed)
    return images[labels < classes], labels[labels < classes]


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_task_loss_falls(bundle):
    lines = [json.loads(line) for line in (bundle / "metrics.jsonl").read_text().splitlines()]
    losses = [line["task"] for line in lines if line["stage"] == "generator"]
    assert losses[-1] < losses[0] - 0.2
    measured = json.loads((bundle / "training.json").read_text())["measured"]
    assert measured["held_out"] == 1 and measured["members"] == 7
    assert measured["made_closed_form"] > measured["random"] + 0.2


def test_the_card_says_what_it_adds(bundle):
    card = (bundle / "README.md").read_text()
    for said in (
        "average trunk + closed-form head",
        "gradient steps on the shown images",
        "generated, one sample of the diffusion",
    ):
        assert f"| {said}" in card
    assert "is worth" in card and "without the condition" in card
    assert "1 task of the zoo, whose networks were left out" in card


def test_permuting_the_classes_permutes_the_rows_and_nothing_else(pipe):
    images, labels = some()
    order = torch.tensor([2, 0, 3, 1])  # class c becomes order[c]
    shuffle = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    for head in ("closed-form", "generated"):
        made = pipe(images, labels, 2, torch.Generator().manual_seed(0), head=head).state
        moved = pipe(images[shuffle], order[labels[shuffle]], 2, torch.Generator().manual_seed(0), head=head).state
        for name, value in made.items():
            rows = moved[name][:, order] if name.startswith("head.") else moved[name]
            assert torch.equal(rows, value), name
        assert not torch.equal(moved["head.weight"], made["head.weight"])


def test_the_same_generator_gives_the_same_networks_with_every_scheduler(pipe):
    images, labels = some()
    for scheduler in (None, DDPMScheduler, DDIMScheduler, EulerDiscreteScheduler):
        sampling = pipe
        if scheduler:
            config = pipe.scheduler.config
            sampling = DatasetNetworkPipeline(pipe.hypernetwork, scheduler.from_config(config), pipe.weight_space)
        first, again, other = (
            sampling(images, labels, 3, torch.Generator().manual_seed(seed)).state for seed in (0, 0, 1)
        )
        assert same(first, again) and not same(first, other)
        assert same({n: v[:1] for n, v in first.items()}, pipe(images, labels).state), "the first is the deterministic"


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_any_number_of_classes_and_images(pipe, classes):
    images, labels = some(classes=classes)
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[:3] = False  # two images of the first class
    made = pipe(images[kept], labels[kept])
    assert made.state["head.weight"].shape == (1, classes, 32) and len(made) == 1
    query, truth = some(10, classes, seed=3)
    right = accuracy_of(small_network("mlp").build(1, classes, SIZE), made.state, query[None], truth[None])
    assert float(right) > 1.5 / classes


def test_a_bundle_comes_back_as_it_was(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "again")
    images, labels = some()
    one, other = (
        p(images, labels, 2, torch.Generator().manual_seed(0)) for p in (pipe, load_bundle(tmp_path / "again"))
    )
    assert same(one.state, other.state) and torch.equal(one.distance, other.distance) and one.head == other.head


def test_what_cannot_be_shown_is_refused(pipe):
    images, labels = some()
    for wrong, numbers, words in (
        (images[..., :6, :6], labels, r"8 × 8 pixels of 8 bits, grey"),
        (images.expand(-1, 3, -1, -1), labels, "8 × 8 pixels"),
        (images.float(), labels, "8 bits"),
        (images, labels[:-1], "number of its class"),
        (images, torch.zeros_like(labels), "2 to 1,000 classes"),
        (images, labels * 2, "each needs an image"),
        (images, labels - 1, "each needs an image"),
        (images[:0], labels[:0], "number of its class"),
    ):
        with pytest.raises(UserError, match=words):
            pipe(wrong, numbers)
    with pytest.raises(UserError, match="closed-form, generated"):
        pipe(images, labels, head="other")


def test_a_damaged_bundle_is_refused(bundle, tmp_path):
    import shutil

    for part, key, value in (
        ("hypernetwork", "width", 8),
        ("weight_space", "network", "huge"),
        ("weight_space", "size", 9),
    ):
        copy = tmp_path / f"{part}-{key}"
        shutil.copytree(bundle, copy)
        config = copy / part / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
        with pytest.raises(UserError, match=r"damaged|do not fit|no small network"):
            load_bundle(copy)


def test_a_resumed_run_ends_as_an_undisturbed_one(zoo, tmp_path):
    config = DatasetNetworksConfig.preset("tiny", **QUICK)
    whole = train_bundle(zoo, config, tmp_path / "whole", device="cpu")
    with pytest.raises(Cancelled):
        train_bundle(zoo, config, tmp_path / "cut", device="cpu", progress=stop_at(STAGES["generator"], 3))
    cut = train_bundle(zoo, config, tmp_path / "cut", resume=True, device="cpu")
    assert same(tensors(whole), tensors(cut))


@pytest.mark.parametrize("networks", [1, 4])
def test_a_zoo_of_few_networks_trains(networks, tmp_path):
    few = write_small_zoo(tmp_path / "zoo", networks)
    out = train_bundle(few, DatasetNetworksConfig.preset("tiny", **QUICK), tmp_path / "out", device="cpu")
    assert "no distribution" in (out / "README.md").read_text()
    short = NetworksConfig.preset("tiny", vae_steps=2, align_steps=2, diffusion_steps=2, batch_size=2)
    named = train_bundle(few, short, tmp_path / "named", device="cpu")
    assert "no distribution" in (named / "README.md").read_text()
    images, labels = some()
    assert all(value.isfinite().all() for value in load_bundle(out)(images, labels, 2).state.values())
    assert all(value.isfinite().all() for value in load_bundle(named)(task="task-0", num_samples=2).state.values())


def test_held_out_classes_are_in_no_task(zoo):
    tasks = NetworkTasks(zoo)
    held_out = choose_held_out(tasks, 0.1)
    assert len(held_out) == 1
    pool = TaskPool(tasks, held_out)
    assert len(pool.rows[0]) == 9 and set(pool.groups) == {(0, "plain"), (0, "negative")}
    _, labels, *_ = tasks.set_images(0)
    left_out = set(tasks.tasks[held_out[0]].classes)
    assert not left_out & set(labels[np.concatenate(pool.rows[0])].tolist())
    episode = pool.draw(3, 4, 5, 20, np.random.default_rng(0))
    assert episode.support.shape == (3, 4, 5, 1, SIZE, SIZE) and episode.query.shape == (3, 80, 1, SIZE, SIZE)


def test_only_zoos_of_networks_with_images_offer_it():
    assert [one.name for one in for_zoo("networks")] == ["dataset-networks", "networks"]
    assert [one.name for one in for_zoo("checkpoints")] == ["networks"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "shapes"
    images, labels = pictures(12, 5, classes=4)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        (folder / f"class-{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"class-{label}" / f"{number}.png")
    return folder


def test_generate_writes_a_network_that_predict_and_evaluate_take(bundle, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path))
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "mine").symlink_to(bundle)
    assert makes_for_data("mine") and data_bundle(str(bundle)) == bundle and "mine" in list_bundles("network")
    out = tmp_path / "net"
    command = ["generate", str(photos), "--bundle", "mine", "--num-samples", "2", "--device", "cpu", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "The network is right on" in said and "gradient steps on the same images" in said
    report = json.loads((out / "report.json").read_text())
    assert report["num_support"] == 20 and report["classes"] == [f"class-{c}" for c in range(4)]
    right = report["query_accuracy"]
    assert right["network"] > right["random"] + 0.2 and right["nearest_member"] is not None and right["steps"] > 0
    assert "| average of the zoo |" in (out / "README.md").read_text() and (out / "samples.safetensors").is_file()
    assert len(report["samples"]) == 2 and (out / "model.onnx").is_file()
    network = load_network(out)
    assert network.classes == tuple(report["classes"]) and network.bundle == "mine" and network.mean == (0.5,)
    assert main(["evaluate", str(out), str(photos)]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.5
    images, labels = pictures(6, 3, classes=4)
    arrays = {"x_test": images[:, 0].numpy(), "y_test": labels.numpy(), "class_names": np.array(report["classes"])}
    np.savez(tmp_path / "more.npz", x_train=arrays["x_test"], y_train=arrays["y_test"], **arrays)
    assert main(["evaluate", str(out), str(tmp_path / "more.npz")]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["num_images"] == 24 and scores["accuracy"] > 0.5 and len(scores["confusion"]) == 4
    picture = photos / "class-2" / "24.png"
    assert main(["predict", str(out), str(picture)]) == 0
    assert capsys.readouterr().out.split("\t")[0] == str(picture)


def test_generate_refuses_what_a_network_cannot_use(bundle, photos, tmp_path, capsys):
    for extra, words in (
        (["--names", "a, b, c, d"], "--names is not for bundles of networks"),
        (["--unlabelled", str(photos)], "--unlabelled is not"),
        (["--shots", "50"], "training images but 50 are needed"),
    ):
        command = ["generate", str(photos), "--bundle", str(bundle), "--out", str(tmp_path / "out"), *extra]
        assert main(command) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main(["sample", str(bundle), "--out", str(tmp_path / "out")]) == 2
    assert "generate DATA --bundle" in capsys.readouterr().err


def test_settings_that_make_no_generator(zoo, tmp_path):
    config = replace(DatasetNetworksConfig.preset("tiny", **QUICK), width=2**20, depth=1000)
    with pytest.raises(UserError, match="of memory"):
        train_bundle(zoo, config, tmp_path / "huge", device="cpu")
    assert not (tmp_path / "huge.training").exists()
