"""Every benchmark, at its smallest: it runs, and writes what it measures."""

import json
import shlex
import shutil
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
SMALLEST = {  # documented command: options that make it small; the last one counts
    "python -m benchmarks.unseen DATA... --bundles BUNDLE --out unseen.json --write-card": UNSEEN,
    "python -m benchmarks.unseen DATA... --bundles heads-dual --out unseen.json": UNSEEN,
    f"python -m benchmarks.unseen {' '.join(SETS)} --bundles heads-dual --shots 1 5 --out unseen.json --readme": UNSEEN,
    f"python -m benchmarks.texts {TEXT_SETS} {RENAMED} --out texts.json --readme": TEXTS,
    "python -m benchmarks.texts mrpc rte --out pairs.json": TEXTS,
    f"python -m benchmarks.adapters adapter-zoo {TASKS} --about benchmarks/text_tasks.json --out adapters.json": (
        "--preset tiny --seeds 1 --smoke"
    ),
    f"python -m benchmarks.adapters adapter-zoo {TASKS} --about benchmarks/text_tasks.json --unseen 4 --out new.json": (
        "--preset tiny --seeds 1 --unseen 1 --smoke"
    ),
    "python -m benchmarks.speed --zoo zoo --images photos/ --out speed.json": "--smoke --only probes encoder",
    "python -m benchmarks.speed --only encoder --num-images 512": "--smoke",
    "python -m benchmarks.speed --only heads": "--smoke --data flowers",
    "python -m benchmarks.speed --only probes --zoo zoo": "--smoke",
    "python -m benchmarks.speed --zoo zoo --images photos/ --data flowers/": "--smoke --only heads classes",
    "python -m benchmarks.speed --only sampler --bundle heads-efficientnet-lite0": "--smoke --data flowers",
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
    "python -m benchmarks.tasks gray-mnist.npz gray-notmnist.npz --out tasks-small-networks": "--smoke",
    "python -m benchmarks.tasks gray-mnist.npz gray-notmnist.npz --out tasks-small-networks --write-card": (
        "--smoke --out again"
    ),
    "python -m benchmarks.language --questions select.jsonl --out language.json": (
        "--model tiny --preset tiny --most 4 --questions built-in"
    ),
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


def _adapter_zoo(folder: Path) -> None:
    """A zoo of adapters of a small encoder, and its tasks."""
    from d2nwg.data.text_tasks import load_text_task, read_about
    from d2nwg.encoders.lora import LoraShape
    from d2nwg.weights.build_adapters import AdapterZooConfig, build_adapters
    from d2nwg.weights.finetune import TuneConfig

    (folder / "benchmarks").mkdir(parents=True)
    said = read_about(shutil.copy(ROOT / "benchmarks" / "text_tasks.json", folder / "benchmarks"))
    rows = {"train": opinions(40), "test": opinions(20, 1)}
    tasks = [load_text_task(write_task(folder / name, rows), said=said) for name in TASKS.split()]
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
    for seed, name in enumerate(SETS):
        make_image_folder(folder / name, ("dark", "light"), per_class=4, seed=seed)
    config = ZooConfig(subsets=16, max_classes=3, images=3, max_per_class=6, width=8)
    build_zoo([load_images(folder / "photos")], load_encoder(), config, folder / "zoo", device="cpu")
    _adapter_zoo(folder / "adapters")  # apart: other benchmarks have other texts of the same names
    write_archive(folder / "gray-mnist.npz", "0123456789", 0)
    write_archive(folder / "gray-notmnist.npz", "ABCDEFGHIJ", 1)
    make_tiny_llm(folder / "tiny")
    shutil.copytree(shipped("pretrained") / "heads-dual", folder / "BUNDLE")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, mark in (("unseen", "measured"), ("texts", "texts")):
            patch.setattr(f"benchmarks.{name}.README", folder / f"{name}.md")
            (folder / f"{name}.md").write_text(f"Before.\n\n<!-- {mark} -->\nold\n<!-- /{mark} -->\n\nAfter.\n")
        yield folder


@pytest.mark.parametrize("command", SMALLEST)
def test_benchmark(command, folder, capsys, monkeypatch):
    if "benchmarks.adapters" in command:
        monkeypatch.chdir(folder := folder / "adapters")
    words = shlex.split(command.replace("DATA...", " ".join(SETS[:2]))) + shlex.split(SMALLEST[command])
    python, dash_m, module, *arguments = words
    assert (python, dash_m) == ("python", "-m")
    out = folder / ([word for before, word in pairwise(words) if before == "--out"] or ["nothing"])[-1]
    if out.is_file():
        out.unlink()
    import_module(module).main(arguments)
    assert capsys.readouterr().out.strip()
    if "--out" in words:
        assert out.is_dir() or json.loads(out.read_text())
    if "--readme" in words:
        page = (folder / f"{module.rpartition('.')[2]}.md").read_text()
        assert page.startswith("Before.") and page.endswith("After.\n") and "old" not in page and "| shots |" in page
    if "--write-card" in words:
        card = (folder / ("BUNDLE" if "unseen" in module else "again") / "README.md").read_text()
        assert card.count("<!-- measured -->") == 1 and f"python -m {module}" in card
