"""The main job on the tiny bundle: the report, the choice of a head, the files, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from d2nwg import generate, opened
from d2nwg.data.images import load_images
from d2nwg.encoders import split
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.recommend import Recommendation
from d2nwg.evaluation.report import Report, advice
from d2nwg.evaluation.selection import choose, selection_split
from d2nwg.generate import generate_heads
from d2nwg.heads import Head
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.heads import WeightGenerationPipeline
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.images import make_pattern_folder

STAGES = ["Opening the bundle", "Reading images", "Sampling heads", "Fitting the baselines"]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch, cheap_encoder):
    monkeypatch.setattr(opened, "load_encoder", lambda name, device=None: cheap_encoder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four classes that the tiny zoo has not seen."""
    return make_pattern_folder(tmp_path_factory.mktemp("new") / "fresh", range(100, 104), per_class=16)


@pytest.fixture
def images(folder):
    return load_images(folder)


def run(images, bundle, **kwargs):
    return generate_heads(images, bundle=bundle, device="cpu", **dict(shots=3, num_samples=8, steps=4) | kwargs)


@pytest.fixture(scope="module")
def made(folder, tiny_bundle, cheap_encoder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "load_encoder", lambda name, device=None: cheap_encoder)
        return run(load_images(folder), tiny_bundle)


def test_the_report_says_all(made, images):
    report = json.loads(json.dumps(made.report.to_json()))
    accuracy = report["query_accuracy"]
    assert set(accuracy) == {
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
    assert all(0 <= value <= 1 for value in accuracy.values())
    assert {"features", "sampling", "rivals", "total"} <= set(report["seconds"])
    assert report["seconds"]["total"] == pytest.approx(
        sum(v for k, v in report["seconds"].items() if k != "total"), abs=0.01
    )
    assert (report["num_support"], report["num_query"], report["num_samples"]) == (12, 52, 8)
    assert report["selection"] == "average of the 8 samples" and report["bundle"] == "tiny"
    assert report["data"] == "fresh" and report["classes"] == list(images.classes) and report["shots"] == 3
    assert len(report["samples"]) == 8 and report["encoder"] == "fake/colours" and report["notes"] == []
    assert all(sample["nearest_zoo_distance"] > 0 for sample in report["samples"])
    assert accuracy["class_mean"] > 0.9, "the classes are easy to tell apart"


def test_the_numbers_agree_with_each_other(made, images, cheap_encoder):
    accuracy, scores = made.report.query_accuracy, made.sample_accuracy
    assert [sample.accuracy for sample in made.report.samples] == pytest.approx(scores.tolist(), abs=1e-6)
    assert accuracy.mean == pytest.approx(scores.mean(), abs=1e-6)
    assert accuracy.std == pytest.approx(scores.std(), abs=1e-6)
    assert accuracy.oracle_top3 == pytest.approx(np.sort(scores)[-3:].mean(), abs=1e-6)
    assert accuracy.chosen == accuracy.average == pytest.approx(made.confusion.trace() / 52, abs=1e-6)
    assert made.confusion.sum() == 52 and made.confusion.sum(1).tolist() == [13] * 4
    per_class = dict(zip(images.classes, made.confusion.diagonal() / 13, strict=True))
    assert made.report.per_class == pytest.approx(per_class, abs=1e-6)
    # The same numbers from the files alone, on the images that generation says it did not see.
    features, _ = cheap_encoder.encode([images.items[i] for i in made.data.query_index])
    labels = torch.from_numpy(images.labels[made.data.query_index])
    assert accuracies(made.samples, features, labels).numpy() == pytest.approx(scores)
    predicted = made.head.module()(features).argmax(1)
    assert float((predicted == labels).float().mean()) == pytest.approx(accuracy.chosen, abs=1e-6)


def test_it_says_how_good_the_head_is_while_others_are_read(made, images, tiny_bundle, monkeypatch):
    """Where reading takes long; nothing else changes by it."""
    said = []
    monkeypatch.setattr(split, "PART", 13)
    quick = run(images, tiny_bundle, progress=lambda stage, done, total: said.append((stage, done, total)))
    assert all(" · " not in stage for stage, *_ in said), "it did not take long"
    monkeypatch.setattr(split, "SOON", -1.0)
    said.clear()
    slow = run(images, tiny_bundle, progress=lambda stage, done, total: said.append((stage, done, total)))
    read = [row for row in said if row[0].startswith("Reading images")]
    words = list(dict.fromkeys(stage for stage, *_ in read))
    assert words[0] == "Reading images" and all(
        " · right on " in stage and "% so far (" in stage for stage in words[1:]
    )
    assert len(words) > 1 and {total for *_, total in read if total} >= {12 + 52}
    assert [done for _, done, total in read if total == 64] == sorted(done for _, done, total in read if total == 64)
    for other in (quick, slow):
        assert other.report.query_accuracy == made.report.query_accuracy and torch.equal(
            other.samples["weight"], made.samples["weight"]
        )


def test_the_average_is_the_mean_of_the_samples(made):
    for name, tensor in made.head.state.items():
        torch.testing.assert_close(tensor, made.samples[name].mean(0))
    assert made.head.info["selection"] == "average of the 8 samples"
    one = made.sample_head(5)
    assert torch.equal(one.state["weight"], made.samples["weight"][5]) and one.info["selection"] == "sample 5"
    assert one.info["query_accuracy"] == pytest.approx(made.sample_accuracy[5])
    assert made.head.info["selection"] == "average of the 8 samples", "the chosen head keeps its own"


def test_the_files(made, tmp_path):
    folder = made.save(tmp_path / "deep" / "out")
    better = {f"{made.report.recommended}.safetensors"} - {"generated.safetensors"}
    assert {path.name for path in folder.iterdir()} == better | {
        "head.safetensors",
        "samples.safetensors",
        "report.json",
        "README.md",
    }
    head, samples = Head.load(folder / "head.safetensors"), load_file(folder / "samples.safetensors")
    assert all(torch.equal(head.state[name], made.head.state[name]) for name in made.head.state)
    assert head.classes == made.head.classes and head.preprocessing == made.head.preprocessing
    assert head.info["seed"] == 0 and head.info["bundle"] == "tiny"
    assert samples["weight"].shape == (8, 4, 48) and torch.equal(samples["weight"], made.samples["weight"])
    stored = json.loads((folder / "report.json").read_text())
    assert stored == made.report.to_json() and Report.from_json(stored) == made.report
    readme = (folder / "README.md").read_text()
    assert "A generated head for fresh" in readme and "average of the 8 samples" in readme


def test_a_baseline_that_is_better_comes_with_it(images, tiny_bundle, tmp_path):
    def advised(name):
        with pytest.MonkeyPatch.context() as patch:
            found = name and Recommendation(name, {"generated": 0.5, "ridge": 0.75}, 12)
            patch.setattr(generate, "recommend", lambda *args, **kwargs: found)
            return run(images, tiny_bundle)

    better = advised("ridge")
    folder, words = better.save(tmp_path / "ridge"), advice(better.report)
    assert "Take ridge instead" in words and "75.0%" in words and "50.0%" in words
    assert words in (folder / "README.md").read_text()
    head = Head.load(folder / "ridge.safetensors")
    right = accuracies({k: t[None] for k, t in head.state.items()}, better.data.query, better.data.query_labels)
    assert float(right[0]) == pytest.approx(head.info["query_accuracy"]) and head.info["selection"] == "ridge"
    assert float(right[0]) == pytest.approx(better.report.query_accuracy.ridge, abs=0.1), "nearly what was reported"
    for name in ("generated", None):
        made = advised(name)
        assert (
            advice(made.report) is None and "instead" not in (made.save(tmp_path / str(name)) / "README.md").read_text()
        )
        assert torch.equal(made.head.state["weight"], better.head.state["weight"]), "advice changes no head"


def test_one_image_a_class_gives_no_advice(images, tiny_bundle):
    assert run(images, tiny_bundle, shots=1).report.recommended is None


def test_the_same_seed_gives_the_same_heads(made, images, tiny_bundle):
    again, other = run(images, tiny_bundle), run(images, tiny_bundle, seed=1)
    assert (
        torch.equal(again.samples["weight"], made.samples["weight"])
        and (again.data.query_index == made.data.query_index).all()
    )
    assert replace(again.report, seconds=made.report.seconds) == made.report
    assert not torch.equal(other.samples["weight"], made.samples["weight"])
    assert other.data.query_index.tolist() != made.data.query_index.tolist()


def test_the_stages_come_in_order(images, tiny_bundle):
    seen = []
    run(images, tiny_bundle, progress=lambda *step: seen.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == STAGES
    for stage in STAGES:
        last = [step for step in seen if step[0] == stage][-1]
        assert last[1] == last[2] > 0


@pytest.mark.parametrize("stage", STAGES)
def test_it_can_be_stopped_anywhere(stage, images, tiny_bundle):
    def stop(now, done, total):
        if now == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(images, tiny_bundle, progress=stop)


def test_few_images_are_all_for_the_generator():
    labels = torch.arange(3).repeat_interleave(5)
    given, aside = selection_split(labels, 5, 0)
    assert given.all() and not aside.any()


def test_of_many_images_a_third_of_each_class_chooses():
    labels = torch.arange(3).repeat_interleave(12)
    given, aside = selection_split(labels, 12, 0)
    assert torch.equal(given, ~aside) and torch.bincount(labels[aside]).tolist() == [4, 4, 4]
    assert torch.equal(selection_split(labels, 12, 0)[1], aside) and not torch.equal(
        selection_split(labels, 12, 1)[1], aside
    )


def test_the_choice_is_the_best_on_images_set_aside():
    features, labels = torch.eye(2).repeat(3, 1), torch.arange(2).repeat(3)
    good, bad = torch.eye(2), -torch.eye(2)
    samples = {"weight": torch.stack([bad, good, bad]), "bias": torch.zeros(3, 2)}
    choice = choose(samples, features, labels)
    assert torch.equal(choice.head["weight"], good) and torch.equal(choice.average["weight"], bad / 3)
    assert choice.words == "sample 1, best on 6 support images that generation did not see"
    samples["weight"] = torch.stack([good, 2 * good, good])
    assert choose(samples, features, labels).words.startswith("the average of the samples, best on 6")


def test_with_many_shots_the_report_says_who_chose(images, tiny_bundle):
    made = run(images, tiny_bundle, shots=12)
    assert made.report.selection.endswith("best on 16 support images that generation did not see")
    assert made.report.num_support == 48 and made.report.num_query == 16


def test_the_query_images_do_not_change_the_heads(tmp_path, tiny_bundle):
    """With a test split, generation sees train/ only: other test images give the same heads."""
    heads = []
    for i in range(2):
        root = tmp_path / str(i) / "data"
        make_pattern_folder(root / "train", range(100, 103), per_class=4)
        make_pattern_folder(root / "test", range(100, 103), per_class=5, seed=7 + i)
        heads.append(run(load_images(root), tiny_bundle))
    assert torch.equal(heads[0].samples["weight"], heads[1].samples["weight"])
    assert heads[0].report.num_query == 15


def test_unreadable_images_are_replaced_and_counted(tmp_path, tiny_bundle):
    folder = make_pattern_folder(tmp_path / "data", range(3), per_class=10)
    for path in sorted((folder / "pattern-01").iterdir())[:6]:
        path.write_bytes(b"no image")
    made = run(load_images(folder), tiny_bundle)
    assert made.report.num_support == 9 and made.report.num_query == 7 + 1 + 7
    assert len(made.report.notes) == 1 and "6 images of 30" in made.report.notes[0]


def test_mostly_unreadable_images_are_refused(tmp_path, tiny_bundle):
    folder = make_pattern_folder(tmp_path / "data", range(2), per_class=10)
    for path in [p for name in ("pattern-00", "pattern-01") for p in sorted((folder / name).iterdir())[:6]]:
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="12 of 20 images in data cannot be read"):
        run(load_images(folder), tiny_bundle)


def test_too_many_classes_are_refused_before_images_are_read(tmp_path, tiny_bundle):
    folder = make_pattern_folder(tmp_path / "data", range(7), per_class=4)
    stages = []
    with pytest.raises(UserError, match="data has 7 classes, and the bundle tiny makes heads for at most 6"):
        run(load_images(folder), tiny_bundle, progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {STAGES[0]}


def test_too_few_images_are_refused(images, tiny_bundle):
    with pytest.raises(UserError, match="pattern-100 has 16 images but 17 are needed"):
        run(images, tiny_bundle, shots=16)


def test_most_query_images_are_bounded(images, tiny_bundle):
    assert run(images, tiny_bundle, max_query=8).report.num_query == 8


def test_the_sampler_and_its_steps(images, tiny_bundle, monkeypatch):
    """``steps`` means denoising steps alone: 1024 of the default sampler are not the paper's sampler."""
    used = []
    monkeypatch.setattr(
        WeightGenerationPipeline,
        "__call__",
        lambda pipe, *args, **kwargs: used.append((pipe.scheduler, kwargs)) or 1 / 0,
    )
    for options in ({"steps": None}, {"steps": 1024}, {"sampler": "ancestral", "steps": None}):
        with pytest.raises(ZeroDivisionError):
            run(images, tiny_bundle, **options)
    with pytest.raises(ZeroDivisionError):
        run(images, tiny_bundle, sampler="ancestral", steps=50)
    assert [kwargs["num_inference_steps"] for _, kwargs in used] == [DEFAULT_STEPS, 1024, 1024, 50]
    names = [type(scheduler).__name__ for scheduler, _ in used]
    assert names == ["DPMSolverMultistepScheduler"] * 2 + ["DDPMScheduler"] * 2
    stages = []
    with pytest.raises(UserError, match="1 to 1,024, not 1025; the paper's sampler is the sampler ancestral"):
        run(images, tiny_bundle, steps=1025, progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {STAGES[0]}, "refused before images are read"
    with pytest.raises(UserError, match="There is no sampler ddim: choose one of default, ancestral"):
        run(images, tiny_bundle, sampler="ddim")


def test_two_layer_heads(tmp_path, images, tiny_mlp_bundle):
    """The README of a two-layer head loads it, as the linear one's does (`test_chain`)."""
    made = run(images, tiny_mlp_bundle)
    folder = made.save(tmp_path / "out")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace('"head.safetensors"', repr(str(folder / "head.safetensors"))), names)
    x = torch.rand(5, 48)
    torch.testing.assert_close(names["head"](x), made.head.module()(x))
    assert names["classes"] == list(images.classes)
