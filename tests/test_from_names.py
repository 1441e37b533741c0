"""Class names in, heads out: a bundle trained with names, heads without an image, names beside images."""

import json

import numpy as np
import pytest
import torch

from d2nwg import from_names, opened
from d2nwg.bundles import load_pipeline
from d2nwg.cli import main
from d2nwg.conditions.base import Task
from d2nwg.data.images import load_images
from d2nwg.encoders.imagenet import NamedRows
from d2nwg.from_names import generate_from_names
from d2nwg.generate import generate_heads
from d2nwg.heads import Head
from d2nwg.models import prior
from d2nwg.pipelines import names as on_encoders
from d2nwg.pipelines.names import Expectation
from d2nwg.training.episodes import ZooEpisodes
from d2nwg.training.names import ZooNames
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_image_folder
from tests.helpers.training import FIRST, NAMED, tensors


@pytest.fixture(scope="module")
def zoo(named_zoo):
    return named_zoo


@pytest.fixture(scope="module")
def bundle(named_bundle):
    return named_bundle


@pytest.fixture(autouse=True)
def cheap(monkeypatch, cheap_encoder):
    for module in (opened, from_names):
        monkeypatch.setattr(module, "load_encoder", lambda *args: cheap_encoder)


@pytest.fixture
def images(tmp_path):
    return load_images(make_image_folder(tmp_path / "data", ("0", "1", "2"), 8))


def test_what_a_bundle_with_names_holds(bundle):
    pipe = load_pipeline(bundle)
    space = pipe.names.config
    assert pipe.uses_names and space.encoder == "fake/colours" and len(space.classes) == 10
    assert "set0/cat" in space.classes and len(space.expected) == 5 and space.alone != (1.0, 1.0)
    assert sum(tensor.numel() for name, tensor in tensors(bundle).items() if name.startswith("names")) < 500_000
    ancestral = pipe.ancestral()
    assert ancestral.names is pipe.names


def test_a_bundle_trained_without_names_knows_none(zoo, tmp_path):
    from dataclasses import replace

    pipe = load_pipeline(train_bundle(zoo, replace(NAMED, names=False), tmp_path / "plain", device="cpu"))
    assert not pipe.uses_names and not pipe.denoiser.config.names
    assert len(pipe([torch.rand(2, 48), torch.rand(2, 48)], 3)) == 3
    with pytest.raises(UserError, match="without class names"):
        generate_from_names(["cat", "dog"], bundle=tmp_path / "plain")


def test_training_sees_names_as_if_their_data_set_were_new(zoo):
    names = ZooNames.of(zoo, ())
    classes = [name for _, name in zoo.class_names]
    known = names.space.name_map(None)(names.texts)[1]
    assert (names.whitened.variance[0] > known + 0.1).all(), "its own set is left out"
    both = [i for i, name in enumerate(classes) if name == "dog"]
    assert (names.whitened.variance[0][both] > 0.5).all(), "so is the other set's class of that name"
    assert ZooNames.of(zoo, ("set1",)) is None, "one set, and no classifier: nothing to learn from"


def test_names_in_training_are_now_and_then_wrong(zoo):
    names, rng = ZooNames.of(zoo, ()), np.random.default_rng(0)
    classes = torch.arange(5).expand(300, -1)
    given = names.directions(classes, False, rng)
    own = names.whitened.weight[0][:5]
    true = (given.weight == own).all(-1).all(-1)
    assert 0.5 < true.float().mean() < 0.85 and 0.05 < (given.named == 0).float().mean() < 0.3
    assert torch.equal(names.directions(classes[:2], False, rng, True).weight, own.expand(2, -1, -1))
    shuffled = names.directions(classes[:9], False, rng, False).weight
    assert not torch.equal(shuffled, own.expand(9, -1, -1))
    torch.testing.assert_close(shuffled.sum(1), own.sum(0).expand(9, -1))


def test_episodes_carry_the_directions_of_their_classes(zoo):
    names = ZooNames.of(zoo, ())
    drawn = ZooEpisodes([zoo], NAMED, torch.device("cpu"), [names]).draw(np.random.default_rng(0))
    assert drawn.directions.weight.shape == (2, drawn.targets.shape[-1], 48) and drawn.directions.named.shape == (2,)
    assert ZooEpisodes([zoo], NAMED, torch.device("cpu")).draw(np.random.default_rng(0)).directions is None


def test_heads_from_names_alone(bundle, tmp_path):
    made = generate_from_names(["cat", "green pear: a fruit", "😀"], bundle=bundle, num_samples=6)
    assert made.head.classes == ("cat", "green pear", "😀") and made.samples["weight"].shape == (6, 3, 48)
    torch.testing.assert_close(made.samples["weight"].mean(0), made.head.state["weight"])
    assert not torch.equal(made.samples["weight"][0], made.samples["weight"][1])
    folder = made.save(tmp_path / "out")
    report = json.loads((folder / "report.json").read_text())
    assert report["classes"] == list(made.head.classes) and 1 / 3 <= report["expected"]["accuracy"] <= 1
    assert Head.load(folder / "head.safetensors").info["shots"] == 0
    assert made.sample_head(2).info["selection"] == "sample 2"
    again = generate_from_names(["cat", "green pear: a fruit", "😀"], bundle=bundle, num_samples=6)
    assert torch.equal(again.samples["weight"], made.samples["weight"])


@pytest.mark.parametrize("names", [["🐱", "cat", "🐶"], ["red fox", "cat", "red_fox"]])
def test_names_that_read_the_same_need_images(bundle, names):
    with pytest.raises(UserError, match=f"The names {names[0]} and {names[2]} read the same"):
        generate_from_names(names, bundle=bundle)
    described = [f"{names[0]}: a pet that purrs", *names[1:]]
    assert len(generate_from_names(described, bundle=bundle, num_samples=2).head.classes) == 3


def test_more_heads_from_names_than_fit_are_refused(bundle):
    with pytest.raises(UserError, match="ask for fewer samples"):
        generate_from_names(["cat", "dog"], bundle=bundle, num_samples=10**9)


def test_permuting_names_permutes_the_head(bundle):
    first, second = (
        generate_from_names(list(names), bundle=bundle).head.state["weight"] for names in (FIRST, FIRST[::-1])
    )
    torch.testing.assert_close(first.flip(0), second, rtol=1e-4, atol=1e-4)


def test_names_far_from_all_that_is_known_are_said_so():
    near = Expectation(0.7, 0.1, 0.4, ("tabby", "dog"))
    far = Expectation(0.5, 0.1, 0.98, ("web site", "menu"))
    words = from_names.notes_on(["cat", "dog"], near)
    assert len(words) == 1 and "about 70% of images" in words[0] and "guessing gives 50%" in words[0]
    assert "far from all that the zoo knows" in from_names.notes_on(["qwx", "zzt"], far)[1]
    assert "qwx (web site)" in from_names.notes_on(["qwx", "zzt"], far)[1]


def test_longer_names_cost_no_more_than_a_sentence(bundle):
    made = generate_from_names(["x" * 390, "cat: " + "very " * 300], bundle=bundle, num_samples=2)
    assert all(tensor.isfinite().all() for tensor in made.samples.values())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (" , ", "No class is named"),
        ("cat", "the only name"),
        ("cat, Cat", "given twice"),
        ("cat," + "x" * 500, "500 characters"),
        (",".join(map(str, range(10_000))), "10,000 names are too many"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(names, words, bundle, tmp_path, capsys):
    assert main(["generate", "--names", names, "--bundle", str(bundle), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not (tmp_path / "out").exists()


def test_the_command_line(bundle, tmp_path, capsys):
    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\npear\r\n".encode())
    for names in ("cat, pear", str(tmp_path / "names.txt")):
        out = tmp_path / names[:3].strip("/ ")
        assert main(["generate", "--names", names, "--bundle", str(bundle), "--out", str(out)]) == 0
        assert Head.load(out / "head.safetensors").classes == ("cat", "pear")
        assert "from their names alone" in capsys.readouterr().out
    assert main(["generate", "--out", str(tmp_path / "x")]) == 2
    assert "Nothing to make a head from" in capsys.readouterr().err
    assert main(["generate", "--names", "a, b", "--unlabelled", "x", "--out", str(tmp_path / "x")]) == 2
    assert "--unlabelled needs labelled images" in capsys.readouterr().err


def test_names_beside_images(images, bundle):
    made = generate_heads(images, bundle=bundle, shots=2, num_samples=3, names=["0=cat", "2=pear: green"])
    assert made.head.classes == ("cat", "1", "pear") == tuple(made.report.classes)
    assert made.report.query_accuracy.without_names is not None
    assert set(made.report.per_class) == {"cat", "1", "pear"}
    other = generate_heads(images, bundle=bundle, shots=2, num_samples=3)
    assert other.head.classes == images.classes and np.array_equal(made.data.support_index, other.data.support_index)
    assert not torch.equal(other.head.state["weight"], made.head.state["weight"])


def test_names_that_the_images_contradict_are_left_out_and_the_report_says_so(images, bundle, monkeypatch):
    settings = dict(bundle=bundle, shots=2, num_samples=3)
    monkeypatch.setattr(prior, "belief", lambda fit: fit.new_ones(len(fit)))
    assert not any("names hardly count" in note for note in generate_heads(images, **settings).report.notes)
    monkeypatch.setattr(prior, "belief", lambda fit: fit.new_zeros(len(fit)))
    made = generate_heads(images, **settings)
    assert any("names hardly count" in note for note in made.report.notes)
    assert made.report.query_accuracy.without_names == made.report.query_accuracy.average
    pipe = load_pipeline(bundle)
    support = made.data.by_class(torch.ones(len(made.data.labels), dtype=torch.bool))
    sampled = [
        pipe(Task(support=support, names=names), 2, torch.Generator().manual_seed(0)) for names in (images.classes, ())
    ]
    assert sampled[0].belief == 0 and sampled[1].belief is None
    torch.testing.assert_close(sampled[0].state["weight"], sampled[1].state["weight"])


def test_an_encoder_that_knows_no_names_ignores_them(images, bundle, cheap_encoder, monkeypatch):
    class Other(type(cheap_encoder)):
        name = "fake/other"

    monkeypatch.setattr(opened, "load_encoder", lambda *args: Other())
    monkeypatch.setattr(from_names, "load_encoder", lambda *args: Other())
    made = generate_heads(images, bundle=bundle, shots=2, num_samples=3, encoder="fake/other")
    assert any("class names are ignored" in note for note in made.report.notes)
    assert made.report.query_accuracy.without_names is None
    with pytest.raises(UserError, match="names alone make no head on it"):
        generate_from_names(["cat", "dog"], bundle=bundle, encoder="fake/other")


def test_an_encoder_of_another_width_takes_its_own_rows(bundle, monkeypatch):
    rows = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0))
    names = ("cat", "dog", *(f"thing {i}" for i in range(998)))
    monkeypatch.setattr(on_encoders, "classifier_rows", lambda name: NamedRows(rows, names, names))
    pipe = load_pipeline(bundle)
    state = pipe(Task(names=["dog", "cat"], encoder="timm/of-width-20"), 2).state
    assert state["weight"].shape == (2, 2, 20)
    centred = rows[:2] - rows.mean(0)
    near = torch.nn.functional.cosine_similarity(state["weight"].mean(0)[:, None], centred[None], dim=-1)
    assert near[0, 1] > near[0, 0] and near[1, 0] > near[1, 1]
    images = [torch.rand(2, 20), torch.rand(2, 20)]
    both = pipe(Task(support=images, names=["dog", "cat"], encoder="timm/of-width-20"), 2).state
    assert both["weight"].shape == (2, 2, 20)
    without = pipe(Task(support=images, encoder="timm/of-width-20"), 2).state
    assert not torch.allclose(both["weight"].mean(0), without["weight"].mean(0), atol=1e-4)
    with pytest.raises(UserError, match="3 names are given for 2 classes"):
        pipe(Task(support=images, names=["a", "b", "c"], encoder="timm/of-width-20"), 2)


def test_a_way_between_two_names(bundle):
    on = load_pipeline(bundle).names_on()
    way = on.between("cat", "plum", 5)
    ends = torch.nn.functional.normalize(on.directions(["cat", "plum"]).weight[0], dim=-1)
    torch.testing.assert_close(way[[0, -1]], ends, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(way.norm(dim=-1), torch.ones(5))
    toward = way @ ends[1]
    assert (toward[1:] >= toward[:-1]).all() and on.labels == tuple(on.space.config.classes)


def test_endpoints_of_interpolation_are_told_their_names(bundle, monkeypatch):
    from d2nwg.interpolation import mixer

    asked = []

    def refuse(*args, **given):
        asked.append(given)
        raise UserError("stop")

    monkeypatch.setattr(mixer, "sample_heads", refuse)
    images = [torch.rand(2, 48), torch.rand(2, 48)]
    member = type("Endpoint", (), {"support": images, "head": None})()
    endpoints = type("Endpoints", (), {"classes": ("cat", "dog"), "members": (member,), "encoder": "fake/colours"})()
    with pytest.raises(UserError, match="stop"):
        mixer.Mixer(load_pipeline(bundle), endpoints)
    assert asked == [{"names": ("cat", "dog"), "encoder": "fake/colours"}]
