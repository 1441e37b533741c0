"""The whole chain in miniature, on the real encoder: stripes and colours that are known decide the class.

A zoo of heads for 36 classes, a generator trained with the tiny preset, heads for six classes it has never seen.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import d2nwg
from d2nwg import cli
from d2nwg.heads import Head
from tests.helpers.images import make_pattern_folder

ROOT = Path(d2nwg.__file__).parents[1]
UNSEEN = range(200, 206)


def call(capsys, *args) -> str:
    """Run a verb in this process; what it prints."""
    capsys.readouterr()
    code = cli.main([*map(str, args), *(() if "--device" in args else ("--device", "cpu"))])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    make_pattern_folder(folder / "known", range(24), per_class=8)
    make_pattern_folder(folder / "more", range(24, 36), per_class=8)
    make_pattern_folder(folder / "unseen", UNSEEN, per_class=14)
    make_pattern_folder(folder / "others", UNSEEN, per_class=5, seed=9)
    return folder


def test_a_zoo_is_built(work, capsys):
    made = call(
        capsys,
        "zoo",
        "build",
        work / "known",
        work / "more",
        "--subsets",
        1000,
        "--classes",
        "2-6",
        "--images",
        6,
        "--seed",
        3,
        "--out",
        work / "zoo",
    )
    summary = json.loads(made)
    assert summary["records"] == 1000 and summary["num_images"] == 36 * 8 and summary["accuracy"]["mean"] > 0.9
    assert [d["classes"] for d in summary["datasets"]] == [24, 12]
    assert json.loads(call(capsys, "zoo", "info", work / "zoo")) == summary


def test_a_generator_is_trained(work, capsys):
    said = call(capsys, "train", "--zoo", work / "zoo", "--preset", "tiny", "--out", work / "bundle")
    *parts, last = said.splitlines()
    assert last == f"The bundle is in {work / 'bundle'}."
    assert [part.partition(":")[0] for part in parts] == ["vae", "condition_encoder", "denoiser"]
    assert all(part.endswith(" parameters") for part in parts)
    measured = json.loads((work / "bundle" / "training.json").read_text())["measured"]
    assert measured["reconstructed_accuracy"] > 0.8


def test_heads_for_unseen_classes(work):
    """As a process, as a person would."""
    args = [
        "generate",
        work / "unseen",
        "--bundle",
        work / "bundle",
        "--shots",
        5,
        "--num-samples",
        20,
        "--out",
        work / "out",
        "--device",
        "cpu",
    ]
    process = subprocess.run(
        [sys.executable, "-m", "d2nwg", *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert process.returncode == 0, process.stderr
    report = json.loads((work / "out" / "report.json").read_text())
    accuracy = report["query_accuracy"]
    assert set(accuracy) >= {
        "chosen",
        "average",
        "mean",
        "std",
        "oracle_top3",
        "class_mean",
        "ridge",
        "logistic_regression",
        "random",
    }
    assert set(report["seconds"]) >= {"features", "sampling", "total"}
    assert report["num_query"] == 6 * 9 and report["bundle"] == "bundle" and report["selection"]
    assert process.stdout.startswith(f"The chosen head is right on {accuracy['chosen']:.1%} of 54 images")
    # Chance is one in six.
    assert accuracy["chosen"] > 0.8 and accuracy["mean"] > 0.7 and accuracy["random"] < 0.35
    assert accuracy["class_mean"] > 0.9, "the classes are easy to tell apart"


def test_a_second_time_nothing_is_read(work, capsys, monkeypatch):
    from d2nwg.encoders.base import Encoder

    monkeypatch.setattr(Encoder, "forward", lambda *args: pytest.fail("the network ran"))
    call(capsys, "generate", work / "unseen", "--bundle", work / "bundle", "--num-samples", 20, "--out", work / "again")
    first, again = (json.loads((work / name / "report.json").read_text()) for name in ("out", "again"))
    assert again["query_accuracy"] == first["query_accuracy"] and again["seconds"]["features"] < 1


def test_the_head_works_in_another_process_without_this_library(work):
    """With torch and safetensors alone, by the README beside it."""
    code = (work / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code += """
import sys
assert not any(name.partition(".")[0] in ("d2nwg", "timm", "diffusers") for name in sys.modules)
features = torch.linspace(-1, 1, head.in_features)
print(json.dumps([head(features).tolist(), classes, preprocessing["size"]]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=work / "out", capture_output=True, text=True, timeout=900
    )
    assert process.returncode == 0, process.stderr
    logits, classes, size = json.loads(process.stdout)
    head = Head.load(work / "out" / "head.safetensors")
    torch.testing.assert_close(torch.tensor(logits), head.module()(torch.linspace(-1, 1, 1280)))
    assert classes == list(head.classes) == [f"pattern-{n}" for n in UNSEEN] and size == 224


def test_the_head_on_other_images(work, capsys):
    scores = json.loads(call(capsys, "evaluate", work / "out" / "head.safetensors", work / "others"))
    assert scores["num_images"] == 30 and scores["accuracy"] > 0.8 and len(scores["per_class"]) == 6
    with Image.open(work / "others" / "pattern-203" / "00.png") as image:
        image.resize((300, 200)).save(work / "photo.jpg", quality=90)
    files = [work / "others" / "pattern-201" / "00.png", work / "photo.jpg"]
    lines = call(capsys, "predict", work / "out" / "head.safetensors", *files).splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(file) for file in files]
    assert lines[0].split("\t")[1] == "pattern-201" and 1 / 6 < float(lines[0].split("\t")[2]) <= 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["generate", "known", "--bundle", "bundle", "--out", "x"], "known has 24 classes"),
        (["generate", "unseen", "--bundle", "bundle", "--shots", "20", "--out", "x"], "14 images but 21 are needed"),
        (["generate", "unseen", "--bundle", "nowhere", "--out", "x"], "There is no bundle nowhere"),
        (["generate", "unseen", "--bundle", "zoo", "--out", "x"], "zoo is no bundle"),
        (["generate", "./nowhere", "--bundle", "bundle", "--out", "x"], "no folder or archive at ./nowhere"),
        (["train", "--zoo", "known", "--out", "x"], "known is no zoo"),
        (["train", "--zoo", "zoo", "--out", "bundle"], "bundle exists already"),
        (["train", "--zoo", "zoo", "--out", "x", "--resume"], "no unfinished run"),
        (["zoo", "info", "bundle"], "bundle is no zoo"),
        (["zoo", "build", "known", "--out", "zoo"], "zoo exists already"),
        (["zoo", "build", "known", "--out", "x", "--encoder", "resnet"], "'resnet' is not known"),
        (["generate", "unseen", "--bundle", "bundle", "--out", "x", "--device", "cuda"], "no CUDA device cuda"),
        (["train", "--zoo", "zoo", "--out", "x", "--device", "cuda:1"], "no CUDA device cuda:1"),
        (["zoo", "build", "known", "--out", "x", "--device", "cuda"], "no CUDA device cuda"),
        (["evaluate", "out/head.safetensors", "others", "--device", "cuda"], "no CUDA device cuda"),
    ],
)
def test_mistakes_are_one_sentence(args, words, work, capsys, monkeypatch):
    monkeypatch.chdir(work)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    capsys.readouterr()
    assert cli.main(args) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and not said.out
    assert not (work / "x").exists() and not (work / "x.training").exists()
