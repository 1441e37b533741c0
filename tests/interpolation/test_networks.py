"""Whole networks between two data sets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from d2nwg.bundles import data_bundle, load_bundle
from d2nwg.cli import main
from d2nwg.data.images import load_images
from d2nwg.heads import Head
from d2nwg.interpolation.endpoints import NamedTask
from d2nwg.interpolation.methods import CONDITION, CONDITION_SPHERICAL, LATENT, METHODS, WEIGHTS
from d2nwg.interpolation.networks import NetworkMixer, read_network_endpoints
from d2nwg.interpolation.path import interpolate
from d2nwg.utils.errors import UserError
from d2nwg.weights.network_files import read_network
from d2nwg.weights.populations import accuracy_of

BUNDLE = "networks-28px"
EXAMPLES = ("example:digits-on-black", "example:digits-on-white")


@pytest.fixture(scope="module")
def sources():
    return [load_images(text) for text in EXAMPLES]


@pytest.fixture(scope="module")
def made(sources):
    return interpolate(sources, bundle=BUNDLE, points=5, shots=3, seed=1)


def test_the_endpoints_are_the_networks_that_the_bundle_makes(made, sources):
    pipe, members = load_bundle(data_bundle(BUNDLE)), made.endpoints.members
    assert list(made.paths) == [CONDITION, CONDITION_SPHERICAL, WEIGHTS] and list(made.missing) == [LATENT]
    for point, member in ((0, members[0]), (4, members[1])):
        images, labels = torch.cat(member.support), torch.arange(5).repeat_interleave(3)
        own = pipe(images, labels).states()[0]
        for method in made.paths:
            state = made.state(method, point)
            assert all(torch.allclose(state[name], own[name], atol=1e-4) for name in own)
        query = pipe.weight_space.normalised(member.query).unsqueeze(0)
        batch = {name: value.unsqueeze(0) for name, value in own.items()}
        right = accuracy_of(made.mixer.module, batch, query, member.labels.unsqueeze(0))
        assert made.paths[WEIGHTS].accuracy[point // 4, 0, point] == pytest.approx(float(right[0]), abs=0.02)
    assert not any(set(map(bytes, _bytes(m.query))) & set(map(bytes, _bytes(torch.cat(m.support)))) for m in members)
    assert [len(images) for images in sources] == [250, 250]


def _bytes(images: torch.Tensor) -> np.ndarray:
    return images.flatten(1).numpy()


def test_the_baseline_is_linear_in_the_weights_and_the_others_are_not(made):
    ends = [made.state(WEIGHTS, point) for point in (0, 4)]
    for name in ends[0]:
        between = 0.75 * ends[0][name] + 0.25 * ends[1][name]
        assert torch.allclose(made.state(WEIGHTS, 1)[name], between, atol=1e-5)
    trunk = next(name for name in ends[0] if not name.startswith("head"))
    assert not torch.allclose(made.state(CONDITION, 2)[trunk], made.state(CONDITION_SPHERICAL, 2)[trunk], atol=1e-4)


def test_a_point_is_a_network_file(made, tmp_path):
    made.save(tmp_path)
    report = json.loads((tmp_path / "path.json").read_text())
    assert report["denoising_steps"] == 0 and report["seeds"] == [1] and report["ends"]["a"] == "digits-on-black"
    files = sorted(path.name for path in (tmp_path / "networks").iterdir())
    assert len(files) == 15 and "condition-0.500.safetensors" in files
    network = read_network(tmp_path / "networks" / "condition-0.500.safetensors")
    assert network.classes == made.endpoints.classes and network.bundle == BUNDLE
    assert network.info["mix"] == {"digits-on-black": 0.5, "digits-on-white": 0.5}
    member = made.endpoints.members[0]
    chance = made.mixer.probabilities(made.state(CONDITION, 2), member.query)
    assert torch.allclose(network.logits(member.query).softmax(-1), chance, atol=1e-5)
    right = float((chance.argmax(-1) == member.labels).float().mean())
    assert network.info["query_accuracy"]["digits-on-black"] == pytest.approx(right)
    seen, lines = made.in_weights()
    assert seen.shape[1] == lines[CONDITION].shape[1] and len(lines[CONDITION]) == 5


def test_a_third_endpoint(sources):
    pipe = load_bundle(data_bundle(BUNDLE))
    three = [*sources, replace(sources[0], name="again")]
    ends = read_network_endpoints(three, pipe, shots=1, seed=0, max_query=10)
    mixer = NetworkMixer(pipe, ends)
    state = mixer.heads(CONDITION, torch.tensor([[0.2, 0.3, 0.5]]))
    assert mixer.score(state).shape == (3, 1, 1) and mixer.methods()[WEIGHTS] == ""


@pytest.mark.parametrize(
    ("change", "settings", "sentence"),
    [
        (lambda images: NamedTask("mnist"), {}, "every endpoint is a data set of images"),
        (
            lambda images: Head({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "x", ("0", "1"), {}),
            {},
            "data set",
        ),
        (lambda images: replace(images, classes=tuple("abcde")), {}, "have no class in common"),
        (None, {"methods": [LATENT]}, "needs a bundle with a VAE"),
        (None, {"steps": 3}, "without denoising steps"),
        (None, {"shots": 1000}, "training images but 1000 are needed"),
    ],
)
def test_what_is_refused(sources, change, settings, sentence):
    second = change(sources[1]) if change else sources[1]
    with pytest.raises(UserError, match=sentence):
        interpolate([sources[0], second], bundle=BUNDLE, points=2, **settings)


def test_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "path"
    main(["interpolate", *EXAMPLES, "--bundle", BUNDLE, "--points", "3", "--shots", "2", "--out", str(out)])
    said = capsys.readouterr().out
    assert "All of it (3 points of the path) is in" in said and "The method latent needs" in said
    assert {path.name for path in out.iterdir()} >= {"path.json", "right-on-a.html", "barrier.html", "networks"}
    assert set(METHODS) - {LATENT} == {path.name.rsplit("-", 1)[0] for path in (out / "networks").iterdir()}
