"""A generated head trained further: which images train and which score, the files, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from d2nwg import opened
from d2nwg.cli import main
from d2nwg.data.images import load_images
from d2nwg.encoders import open as encoders
from d2nwg.evaluation.finetune import Items
from d2nwg.evaluation.finetune_report import FineTuneReport
from d2nwg.evaluation.finetune_starts import ARMS
from d2nwg.finetuning import heads as finetuning
from d2nwg.finetuning.heads import finetune_head
from d2nwg.finetuning.parts import Parts, read_parts
from d2nwg.finetuning.plan import check_plan
from d2nwg.generate import generate_heads
from d2nwg.heads import Head
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.images import make_pattern_folder

SHOTS, SEED = 3, 4


@pytest.fixture(autouse=True)
def _cheap(monkeypatch, cheap_encoder):
    for place in (opened, encoders):
        monkeypatch.setattr(place, "load_encoder", lambda name, device=None: cheap_encoder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_pattern_folder(tmp_path_factory.mktemp("new") / "fresh", range(100, 103), per_class=12)


@pytest.fixture
def images(folder):
    return load_images(folder)


@pytest.fixture(scope="module")
def made(folder, tiny_bundle, cheap_encoder):
    """A generation of three images a class."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "load_encoder", lambda name, device=None: cheap_encoder)
        data = load_images(folder)
        return generate_heads(data, bundle=tiny_bundle, shots=SHOTS, seed=SEED, num_samples=4, steps=2, device="cpu")


def run(head, images, **kwargs):
    return finetune_head(head, images, **dict(epochs=3, seeds=2, device="cpu") | kwargs)


def test_what_was_shown_never_scores(made, images, cheap_encoder):
    parts = read_parts(made.head, images, cheap_encoder, 3000, 0)
    train, test = parts.index
    assert set(train[parts.shown.numpy()]) == set(made.data.support_index)
    assert not set(train) & set(test) and set(train) | set(test) == set(range(36))
    assert len(test) == 9, "a third of nine a class"
    assert np.array_equal(parts.test.labels, images.labels[test])
    assert not np.array_equal(np.sort(test), np.sort(read_parts(made.head, images, cheap_encoder, 3000, 1).index[1]))


def test_a_test_split_scores(made, images, cheap_encoder):
    is_test = np.zeros(36, bool)
    is_test[::4] = True
    split = replace(images, is_test=is_test)
    parts = read_parts(made.head, split, cheap_encoder, 3000, 0)
    assert set(parts.index[1]) == set(np.flatnonzero(is_test))
    assert set(parts.index[0]) == set(np.flatnonzero(~is_test))
    few = read_parts(made.head, split, cheap_encoder, 18, 0)
    assert len(few.index[1]) == 6 and len(few.index[0]) == 12
    assert int(few.shown.sum()) == 9


def test_a_head_of_other_images(made, images, cheap_encoder):
    head = replace(made.head, info={**made.head.info, "data": "others"})
    assert "made from others, these are fresh" in read_parts(head, images, cheap_encoder, 3000, 0).notes[0]
    many = replace(made.head, info={**made.head.info, "shots": 12})
    parts = read_parts(many, images, cheap_encoder, 3000, 0)
    assert "is not known" in parts.notes[0] and not parts.shown.any()
    for shots in (True, "3", -1, 10**30, None):
        assert (
            "is not known"
            in read_parts(replace(made.head, info={"shots": shots}), images, cheap_encoder, 99, 0).notes[0]
        )
    named = read_parts(replace(made.head, info={"shots": 0}), images, cheap_encoder, 3000, 0)
    assert not named.notes and not named.shown.any()


def test_classes_are_matched_by_name(made, images, cheap_encoder):
    turned = Head(
        {name: tensor.flip(0) for name, tensor in made.head.state.items()},
        made.head.encoder,
        made.head.classes[::-1],
        made.head.preprocessing,
        made.head.info,
    )
    one, other = run(made.head, images), run(turned, images)
    assert one.report.curves[0].accuracy == other.report.curves[0].accuracy
    renamed = replace(made.head, classes=("x", "y", "z"))
    assert run(renamed, images).report.curves[0].accuracy == one.report.curves[0].accuracy
    with pytest.raises(UserError, match="lacks x, y, z, which the head knows"):
        run(replace(renamed, info={}), images)


def test_the_head_and_its_report(made, images, tmp_path, cheap_encoder):
    tuned = run(made.head, images, epochs=4, seeds=2)
    report = tuned.report
    assert [curve.arm for curve in report.curves] == list(ARMS)
    assert report.checkpoints == [0, 1, 4] and report.tuned and report.num_shown == 9
    assert (report.num_train, report.num_test, report.num_validation) == (27, 9, 6)
    folder = tuned.save(tmp_path / "out")
    head = Head.load(folder / "head.safetensors")
    parts = read_parts(made.head, images, cheap_encoder, 3000, 0)
    said = head.module()(parts.test.features).argmax(1)
    right = (said == parts.test.labels).float().mean().item()
    assert right == pytest.approx(report.curves[0].accuracy[-1][0], abs=1e-5) == head.info["query_accuracy"]
    untrained = (made.head.module()(parts.test.features).argmax(1) == parts.test.labels).float().mean().item()
    assert untrained == pytest.approx(report.curves[0].accuracy[0][0], abs=1e-5)
    assert FineTuneReport.from_json(json.loads((folder / "finetune.json").read_text())) == report
    readme = (folder / "README.md").read_text()
    assert "random initialisation" in readme and "python -m d2nwg predict head.safetensors picture.jpg" in readme
    again = read_parts(head, images, cheap_encoder, 50, 9)
    assert set(again.index[1]) == set(parts.index[1]), "what it was trained on does not score it later"


def parts_of(test_labels: torch.Tensor) -> Parts:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    train = Items(torch.randn(30, 6, generator=generator) + torch.eye(3, 6)[labels], labels)
    test = Items(torch.randn(30, 6, generator=generator) + torch.eye(3, 6)[labels], test_labels)
    return Parts(train, test, torch.arange(30) < 6, (np.arange(30), np.arange(30)), 0, 99, ())


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_nothing_is_chosen_on_the_test_part(probe):
    if probe == "linear":
        state = {"weight": torch.eye(3, 6), "bias": torch.zeros(3)}
    else:
        state = {
            "0.weight": torch.eye(4, 6),
            "0.bias": torch.zeros(4),
            "2.weight": torch.eye(3, 4),
            "2.bias": torch.zeros(3),
        }
    head, plan = Head(state, "e", ("a", "b", "c"), {}), check_plan(3, 2, None, None, ARMS, 8, 99, 0)
    found = [
        finetuning._train(head, parts_of(labels), plan, "cpu", None, lambda *_: None)
        for labels in (torch.arange(30) % 3, (torch.arange(30) + 1) % 3)
    ]
    assert found[0].curves[0].accuracy != found[1].curves[0].accuracy
    assert [curve.lr for curve in found[0].curves] == [curve.lr for curve in found[1].curves]
    assert len({curve.lr for curve in found[0].curves}) > 1, "otherwise this test shows nothing"
    assert all(torch.equal(found[0].state[name], tensor) for name, tensor in found[1].state.items())


def test_one_learning_rate_for_all(made, images):
    report = run(made.head, images, lr=0.02, arms=["random"]).report
    assert [(curve.arm, curve.lr) for curve in report.curves] == [("generated", 0.02), ("random", 0.02)]
    assert not report.tuned and report.num_validation == 0


def test_without_an_image_to_choose_by(tmp_path, made):
    few = load_images(make_pattern_folder(tmp_path / "fresh", range(100, 103), per_class=SHOTS + 1))
    report = run(made.head, few).report
    assert not report.tuned and "too few images" in report.notes[-1] and report.curves[0].lr == finetuning.LR


def stop(stage: str, after: int):
    def progress(name, done, total):
        if name == stage and done >= after:
            raise Cancelled

    return progress


@pytest.mark.parametrize(("stage", "after"), [("Tuning learning rates", 2), ("Fine-tuning", 1), ("Fine-tuning", 3)])
def test_gone_on_with(made, images, tmp_path, stage, after):
    whole, work = run(made.head, images), tmp_path / "work"
    with pytest.raises(UserError, match="no unfinished run"):
        run(made.head, images, folder=work, resume=True)
    with pytest.raises(Cancelled):
        run(made.head, images, folder=work, progress=stop(stage, after))
    with pytest.raises(UserError, match="go on with --resume"):
        run(made.head, images, folder=work)
    with pytest.raises(UserError, match="begun with another head"):
        run(made.head, images, folder=work, resume=True, epochs=4)
    done = run(made.head, images, folder=work, resume=True)
    assert done.report.curves == whole.report.curves
    assert all(torch.equal(tensor, whole.head.state[name]) for name, tensor in done.head.state.items())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "The number of epochs should be"),
        ({"seeds": 0}, "The number of seeds should be"),
        ({"lr": -1.0}, "learning rate should be above 0"),
        ({"lr": float("nan")}, "learning rate should be above 0"),
        ({"arms": ["x"]}, "There is no start x"),
        ({"checkpoints": [9]}, "Checkpoints are epochs from 0 to 3"),
        ({"max_images": 3}, "largest number of images"),
        ({"batch_size": 0}, "The size of a batch"),
        ({"seed": -1}, "The seed"),
    ],
)
def test_settings_out_of_their_limits(made, images, settings, words):
    with pytest.raises(UserError, match=words):
        run(made.head, images, **settings)


def test_on_the_command_line(made, folder, tmp_path, capsys, monkeypatch):
    made.save(tmp_path / "made")
    line = ["finetune", str(tmp_path / "made"), str(folder), "--epochs", "2", "--seeds", "2", "--device", "cpu"]
    line += ["--out", str(tmp_path / "out")]
    stopped = stop("Fine-tuning", 1)
    with monkeypatch.context() as patch:
        patch.setattr("d2nwg.utils.progress.TerminalProgress.__call__", lambda self, *stage: stopped(*stage))
        with pytest.raises(Cancelled):
            main(line)
    assert (tmp_path / "out.finetuning" / "run.json").exists() and not (tmp_path / "out").exists()
    assert main(line) == 2 and "go on with --resume" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 0
    said = capsys.readouterr().out
    assert "random initialisation" in said and "The generated start is right on: untrained" in said
    assert not (tmp_path / "out.finetuning").exists()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"head.safetensors", "finetune.json", "README.md"}
    picture = next(folder.glob("*/*.png"))
    assert main(["predict", str(tmp_path / "out" / "head.safetensors"), str(picture), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.split("\t")[1] in made.head.classes
    for wrong, words in (
        ([*line[:1], str(folder), *line[2:-1], str(tmp_path / "x")], "cannot be read as a head"),
        ([*line[:-1], str(tmp_path / "y"), "--lr", "0"], "above 0"),
    ):
        assert main(wrong) == 2 and words in capsys.readouterr().err
