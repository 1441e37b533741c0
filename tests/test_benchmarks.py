"""Every benchmark, at its smallest: it runs, and writes what it measures."""

import json
import shlex
import shutil
from glob import glob
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from d2nwg.utils.paths import shipped
from tests.helpers.documented import ROOT, documented
from tests.helpers.images import make_image_folder
from tests.helpers.text_tasks import opinions, tiny_text_encoder, write_task
from tests.helpers.texts import write_pairs, write_topics
from tests.tiny_llm import make_tiny_llm

SETS = ["flowers12", "house_rooms", "scenes6", "trashnet", "weather4", "yoga8", "cifar100"]
SETS = [f"unseen-{name}" for name in SETS]
TEXT_SETS = "sst2 mr sst5 cola ag_news trec6 tweet_emotion banking77"
RENAMED = "--rename mr=negative,positive trec6=description,entity,abbreviation,human,location,number"
UNSEEN = "--seeds 1 --seeds-many 1 --shots 1 --ways 2 --num-samples 2 --query 2 --unlabelled 1"
TEXTS = "--seeds 1 --shots 1 --ways 2 --num-samples 2 --query 2 --unlabelled 1"
TASKS = "sst2 cola mpqa trec6 tweet_emotion"
WHOLE = "--count 12 --epochs 1 --samples 2 --set vae_steps=2 --set align_steps=2 --set diffusion_steps=2"
NETWORKS = "python -m benchmarks.networks omniglot-aside.npz gray-mnist.npz fashion.npz --bundle networks-28px"
STARTS = "--classes 3 --shots 2 --seeds 2 --steps 0 2 --rates 0.001 0.01"
RESNETS = " ".join(
    f"checkpoints/resnet{name}.th" for name in ("32-d509ac18", "20-12fca82f", "44-014dd654", "56-4bfd9763")
)
SMALLEST = {  # documented command: options that make it small; the last one counts
    "python -m benchmarks.unseen DATA... --bundles BUNDLE --out unseen.json --write-card": UNSEEN,
    "python -m benchmarks.unseen DATA... --bundles heads-dual --out unseen.json": UNSEEN,
    f"python -m benchmarks.unseen {' '.join(SETS)} --bundles heads-dual --shots 1 5 --out unseen.json --readme": UNSEEN,
    f"python -m benchmarks.texts {TEXT_SETS} {RENAMED} --out texts.json --readme": TEXTS,
    "python -m benchmarks.texts mrpc rte --out pairs.json": TEXTS,
    "python -m benchmarks.adapters adapter-zoo texts/* --about benchmarks/text_tasks.json --out adapters.json": (
        "--preset tiny --seeds 1 --smoke"
    ),
    "python -m benchmarks.adapters adapter-zoo texts/* --about benchmarks/text_tasks.json --out new.json --unseen "
    "ag_news clinc150 cola imdb mrpc sst2 trec6 tweet_emotion": "--preset tiny --seeds 1 --unseen sst2 --smoke",
    f"python -m benchmarks.finetune {' '.join(SETS)} --out finetune.json --readme": (
        "--repetitions 2 --epochs 2 --checkpoints 0 1 --shots 1 --num-samples 2 --max-images 8"
    ),
    "python -m benchmarks.speed --zoo zoo --images photos/ --out speed.json": "--smoke --only probes encoder",
    "python -m benchmarks.speed --only encoder --num-images 512": "--smoke",
    "python -m benchmarks.speed --only heads": "--smoke --data flowers",
    "python -m benchmarks.speed --zoo zoo --images photos/ --data flowers/": "--smoke --only heads classes",
    "python -m benchmarks.speed --only sampler --bundle heads-efficientnet-lite0": "--smoke --data flowers",
    "python -m benchmarks.ablations caltech101/ grocery/ clothing/ --out ablations.json": (
        "--rows base predictor half --seeds 0 --classes 2 --records 10 --tasks 1 --shots 1 --num-samples 2 "
        "--set vae_steps=1 --set align_steps=1 --set diffusion_steps=1 --set predictor_steps=1 --set batch_size=2"
    ),
    "python -m benchmarks.app --out app.json": "--smoke",
    "python -m benchmarks.explore --out explore.json": "--heads 100 --numbers 50 --samples 20",
    "python -m benchmarks.training --zoo zoo --presets tiny small --processes 1 2 --repeat 2 --out training.json": (
        "--presets tiny --processes 1 --repeat 1 --seconds 60"
    ),
    "python -m benchmarks.training --zoo zoo --presets tiny small standard paper --processes 1 2 --seconds 85": (
        "--presets tiny --processes 1 --seconds 0"
    ),
    "python -m benchmarks.memory --zoo zoo --times 1 4 12 --steps 250": "--times 2 --smoke",
    "python -m benchmarks.whole_models gray-mnist.npz gray-notmnist.npz --out whole.json": WHOLE,
    "python -m benchmarks.whole_models gray-mnist.npz gray-notmnist.npz --starts common --set diffusion_steps=2500": (
        f"{WHOLE} --work common"
    ),
    f"{NETWORKS} --out networks.json": STARTS,
    f"{NETWORKS} --rows 2000 --out networks.json": STARTS,
    f"python -m benchmarks.transfer {RESNETS} --images cifar10.npz --out transfer.json": (
        "--seeds 2 --samples 1 --steps 1 --set chunk=64 --set encoder_width=64 --set unet_channels=32 "
        "--set vae_steps=2 --set align_steps=2 --set diffusion_steps=2"
    ),
    "python -m benchmarks.tasks gray-mnist.npz gray-notmnist.npz --out tasks-small-networks": "--smoke",
    "python -m benchmarks.tasks gray-mnist.npz gray-notmnist.npz --out tasks-small-networks --write-card": (
        "--smoke --out again"
    ),
    "python -m benchmarks.epochs gray-mnist.npz fashion.npz cifar10.npz gray-notmnist.npz --out epochs.json": (
        "--smoke --seeds 2"
    ),
    "python -m benchmarks.retrieval all-sets/* --out retrieval.json": "--smoke --seeds 2",
    "python -m benchmarks.populations gray-mnist.npz --count 4 --steps 40 --out populations.json": (
        "--count 2 --steps 2 --repeats 1"
    ),
    "python -m benchmarks.language --questions select.jsonl --out language.json": (
        "--model tiny --preset tiny --most 4 --questions built-in"
    ),
    "python -m benchmarks.language --questions select.jsonl --most 256 --only racing --out racing.json": (
        "--model tiny --preset tiny --most 16 --questions built-in"
    ),
    "python -m benchmarks.compression --questions select.jsonl --out compression.json": (
        "--model tiny --questions built-in --smoke"
    ),
    "python -m benchmarks.papers table1 --data sets/ --out papers": "--quick",  # the others: tests/test_papers.py
}


def test_every_documented_benchmark_is_run():
    assert sorted(SMALLEST) == sorted(c for c in documented() if c.startswith("python -m benchmarks."))


def write_archive(path: Path, classes: str, seed: int) -> None:
    """Ten classes of grey 28 × 28 pictures, as the benchmarks of whole networks read them."""
    rng = np.random.default_rng(seed)
    arrays = {"class_names": np.array(list(classes))}
    for part, count in (("train", 500), ("test", 40)):
        labels = np.arange(count) % 10
        arrays[f"y_{part}"] = labels
        arrays[f"x_{part}"] = (rng.integers(0, 50, (count, 28, 28)) + 20 * labels[:, None, None]).astype(np.uint8)
    np.savez(path, **arrays)


def write_resnets(folder: Path) -> None:
    """Narrow ResNets as the benchmark of transfer reads them, and colour pictures of 32 × 32."""
    import torch

    from benchmarks.transfer import CifarResNet

    (folder / "checkpoints").mkdir()
    for seed, name in enumerate(RESNETS.split()):
        torch.manual_seed(seed)
        state = CifarResNet((2, 1, 3, 4)[seed], (4, 6, 8)).state_dict()
        torch.save(
            {"state_dict": {f"module.{key}": value for key, value in state.items() if "num_batches" not in key}},
            folder / name,
        )
    rng, labels = np.random.default_rng(0), {"train": np.arange(60) % 10, "test": np.arange(40) % 10}
    pictures = {f"x_{part}": rng.integers(0, 256, (len(of), 32, 32, 3)).astype(np.uint8) for part, of in labels.items()}
    np.savez(folder / "cifar10.npz", **pictures, **{f"y_{part}": of for part, of in labels.items()})


def _adapter_zoo(folder: Path) -> None:
    """A zoo of adapters of a small encoder, and its tasks."""
    from d2nwg.data.text_tasks import load_text_task, read_about
    from d2nwg.encoders.lora import LoraShape
    from d2nwg.weights.build_adapters import AdapterZooConfig, build_adapters
    from d2nwg.weights.finetune import TuneConfig

    (folder / "benchmarks").mkdir(parents=True)
    said = read_about(shutil.copy(ROOT / "benchmarks" / "text_tasks.json", folder / "benchmarks"))
    rows = {"train": opinions(40), "test": opinions(20, 1)}
    tasks = [load_text_task(write_task(folder / "texts" / name, rows), said=said) for name in TASKS.split()]
    shape = LoraShape(str(tiny_text_encoder(folder / "text-encoder")), rank=1)
    config = AdapterZooConfig(shape, TuneConfig(epochs=1, keep=1), seeds=2, rows=16)
    build_adapters(tasks, config, folder / "adapter-zoo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the benchmarks run, one after another, with the files that they name, small."""
    from d2nwg.data.images import load_images
    from d2nwg.encoders.images import load_encoder
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig

    folder = tmp_path_factory.mktemp("benchmarks")
    for name in ("photos", "flowers"):
        make_image_folder(folder / name, per_class=8)
    for name in TEXT_SETS.split():
        (folder / name).mkdir()
        write_topics(folder / name / "train.csv", 8)
    for name in ("mrpc", "rte"):
        (folder / name).mkdir()
        write_pairs(folder / name / "train.csv", 6)
    for seed, name in enumerate((*SETS, "caltech101", "grocery", "clothing")):
        make_image_folder(folder / name, ("dark", "light"), per_class=4, seed=seed)
    config = ZooConfig(subsets=16, max_classes=3, images=3, max_per_class=6, width=8)
    build_zoo([load_images(folder / "photos")], load_encoder(), config, folder / "zoo", device="cpu")
    _adapter_zoo(folder / "adapters")  # apart: other benchmarks have other texts of the same names
    write_archive(folder / "gray-mnist.npz", "0123456789", 0)
    write_archive(folder / "gray-notmnist.npz", "ABCDEFGHIJ", 1)
    write_resnets(folder)
    for seed, name in enumerate(("omniglot-aside", "fashion")):
        write_archive(folder / f"{name}.npz", "ABCDEFGHIJ", seed + 2)
    (folder / "all-sets").mkdir()
    for name in ("gray-mnist", "fashion"):
        shutil.copy(folder / f"{name}.npz", folder / "all-sets")
    make_tiny_llm(folder / "tiny")
    shutil.copytree(shipped("pretrained") / "heads-dual", folder / "BUNDLE")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, mark in (("unseen", "measured"), ("texts", "texts"), ("finetune", "finetuned")):
            patch.setattr(f"benchmarks.{name}.README", folder / f"{name}.md")
            (folder / f"{name}.md").write_text(f"Before.\n\n<!-- {mark} -->\nold\n<!-- /{mark} -->\n\nAfter.\n")
        yield folder


@pytest.mark.parametrize("command", SMALLEST)
def test_benchmark(command, folder, capsys, monkeypatch):
    if "benchmarks.adapters" in command:
        monkeypatch.chdir(folder := folder / "adapters")
    words = shlex.split(command.replace("DATA...", " ".join(SETS[:2]))) + shlex.split(SMALLEST[command])
    words = [name for word in words for name in (sorted(glob(word)) if "*" in word else [word])]
    python, dash_m, module, *arguments = words
    assert (python, dash_m) == ("python", "-m")
    out = folder / ([word for before, word in pairwise(words) if before == "--out"] or ["nothing"])[-1]
    if out.is_file():
        out.unlink()
    package = hasattr(import_module(module), "__path__")
    import_module(f"{module}.__main__" if package else module).main(arguments)
    assert capsys.readouterr().out.strip()
    if "--out" in words:
        assert out.is_dir() or json.loads(out.read_text())
    if "--readme" in words:
        page = (folder / f"{module.rpartition('.')[2]}.md").read_text()
        assert page.startswith("Before.") and page.endswith("After.\n") and "old" not in page
        assert "| shots |" in page or "| start |" in page
    if "--write-card" in words:
        card = (folder / ("BUNDLE" if "unseen" in module else "again") / "README.md").read_text()
        assert card.count("<!-- measured -->") == 1 and f"python -m {module}" in card


def test_what_scores_ablations_is_in_no_zoo(tmp_path):
    from benchmarks.ablations import parted
    from d2nwg.data.images import load_images

    whole = load_images(make_image_folder(tmp_path / "set", per_class=8))
    kept, held = parted(whole)
    assert not set(kept.items) & set(held.items) and set(kept.items) | set(held.items) == set(whole.items)
    assert np.bincount(held.labels).tolist() == [2, 2, 2] and np.bincount(kept.labels).tolist() == [6, 6, 6]
    for part in (kept, held):
        assert [part.classes[label] for label in part.labels] == [path.parent.name for path in part.items]


def test_what_chooses_and_what_trains_in_epochs_share_no_image(tmp_path):
    from benchmarks.epochs import Task, sizes_of
    from d2nwg.utils.progress import silent

    rng, labels = np.random.default_rng(0), np.arange(300) % 10
    pictures = {f"x_{part}": rng.integers(0, 256, (300, 28, 28)).astype(np.uint8) for part in ("train", "test")}
    names = np.array([*"abcdefghij"])
    np.savez(tmp_path / "gray-set.npz", **pictures, y_train=labels, y_test=labels, class_names=names)
    task = Task.read(str(tmp_path / "gray-set.npz"), sizes_of(smoke=True), silent)
    found = {part: {image.numpy().tobytes() for image in images} for part, images in task.images.items()}
    assert {part: len(of) for part, of in found.items()} == {"train": 128, "validation": 60, "test": 100}
    assert not found["train"] & found["validation"] and not found["test"] & (found["train"] | found["validation"])
    zoo = task.arrays()
    assert {image.tobytes() for image in zoo.train} == found["train"]
    assert {image.tobytes() for image in zoo.test} == found["validation"]


def test_few_classes_of_a_set_keep_their_pictures():
    from benchmarks.epochs import few_classes
    from d2nwg.data.arrays import ImageArrays

    labels = np.arange(60) % 6  # a picture's grey is its class
    pictures = np.broadcast_to(labels[:, None, None, None], (60, 1, 2, 2)).astype(np.uint8)
    whole = ImageArrays("set", tuple("012345"), pictures, labels, pictures[:30], labels[:30])
    few = few_classes(whole, 4)
    assert len(few.classes) == 4 and len(few.train) == 40 and len(few.test) == 20 and few_classes(whole, 0) is whole
    for images, of in ((few.train, few.train_labels), (few.test, few.test_labels)):
        assert [int(few.classes[label]) for label in of] == images[:, 0, 0, 0].tolist() and len(set(of)) == 4


def test_rates_of_epochs_are_chosen_on_validation_images_of_the_first_seed():
    from benchmarks.epochs import best, chosen

    def row(seed: int, rates: list[float], validation: list[float], test: list[float]) -> dict:
        scores = {"validation": {"0": validation, "5": validation}, "test": {"0": [0.1] * len(rates), "5": test}}
        return {"data": "set", "arm": "id", "seed": seed, "rates": rates, **scores}

    rows = [row(0, [0.1, 0.2], [0.5, 0.6], [0.9, 0.7]), row(1, [0.2], [0.4], [0.8])]
    assert best(rows, "set", "id") == {"5": 0.2}
    assert chosen(rows, "set", "id", 5).tolist() == pytest.approx([70, 80])
    assert chosen(rows, "set", "id", 0).tolist() == pytest.approx([10, 10])
