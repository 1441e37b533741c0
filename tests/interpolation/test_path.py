"""Paths between tasks: closed forms, exact ends, class order, what is refused, figures and the verb."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d2nwg import cli
from d2nwg.conditions.base import Task
from d2nwg.data.image_set import ImageSet
from d2nwg.data.images import load_images
from d2nwg.data.labelled import labelled_set
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.heads import Head, evaluate_head
from d2nwg.interpolation.endpoints import read_endpoints
from d2nwg.interpolation.methods import LABELS, METHODS
from d2nwg.interpolation.mixer import Mixer, blend, slerp
from d2nwg.interpolation.path import barrier, interpolate
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.progress import silent
from d2nwg.weights.networks import logits
from tests.helpers.images import make_pattern_folder


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Four classes of stripes, and the same four by other noise, under the same names."""
    root = tmp_path_factory.mktemp("ends")
    return [make_pattern_folder(root / name, classes=range(4), seed=seed) for name, seed in (("one", 1), ("two", 2))]


@pytest.fixture
def at_hand(monkeypatch, cheap_encoder):
    """The cheap encoder wherever one is loaded."""
    for module in ("d2nwg.interpolation.path", "d2nwg.encoders.images"):
        monkeypatch.setattr(f"{module}.load_encoder", lambda *_, **__: cheap_encoder)


SHORT = dict(points=5, seeds=2, num_samples=2, shots=3, steps=2)


@pytest.fixture
def walked(ends, tiny_bundle, at_hand):
    return interpolate([load_images(end) for end in ends], bundle=tiny_bundle, **SHORT)


# --------------------------------------------------------------------------------------------- closed forms


def test_slerp_is_shoemakes():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 9, generator=generator) * torch.tensor([1.0, 3, 0.2, 1, 1, 1])[:, None] for _ in range(2))
    share = torch.rand(6, generator=generator)
    for i in range(6):
        angle = math.acos(float(a[i] @ b[i] / (a[i].norm() * b[i].norm())))
        t = float(share[i])
        by_hand = (math.sin((1 - t) * angle) * a[i] + math.sin(t * angle) * b[i]) / math.sin(angle)
        torch.testing.assert_close(slerp(a[i], b[i], share[i]), by_hand, rtol=1e-4, atol=1e-5)
    quarter = slerp(torch.tensor([1.0, 0]), torch.tensor([0.0, 1]), torch.tensor(0.5))
    torch.testing.assert_close(quarter, torch.tensor([0.5**0.5, 0.5**0.5]))


def test_slerp_of_equal_directions_is_a_straight_line():
    a = torch.tensor([1.0, 2, 2])
    torch.testing.assert_close(slerp(a, 3 * a, torch.tensor(0.5)), 2 * a)
    torch.testing.assert_close(slerp(a, torch.zeros(3), torch.tensor(0.25)), 0.75 * a)
    assert slerp(a, -a, torch.tensor(0.5)).isfinite().all()


def test_blending():
    points = [torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1, 0]]), torch.tensor([[0.0, 0, 1]])]
    mix = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])
    straight = blend(points, mix)
    assert torch.equal(straight[:2, 0], torch.tensor([[1.0, 0, 0], [0, 0, 1]]))
    torch.testing.assert_close(straight[3, 0], torch.full((3,), 1 / 3))
    sphere = blend(points, mix, spherical=True)
    torch.testing.assert_close(sphere[:2], straight[:2])
    torch.testing.assert_close(sphere[2, 0], slerp(points[0][0], points[1][0], torch.tensor(0.5)))
    torch.testing.assert_close(sphere.norm(dim=-1), torch.ones(4, 1))


def test_the_barrier_by_hand():
    alpha = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    valley = torch.tensor([0.9, 0.7, 0.3, 0.5, 0.5])  # the line is 0.9, 0.8, 0.7, 0.6, 0.5
    hill = torch.tensor([0.2, 0.5, 0.9, 0.8, 0.6])
    torch.testing.assert_close(barrier(torch.stack([valley, hill]), alpha), torch.tensor([0.4, 0.0]))


# ----------------------------------------------------------------------------------------------------- ends


def test_classes_are_matched_by_name(ends, cheap_encoder):
    """Whatever order the second endpoint names its classes in, and with a class of its own, row i is the same class."""
    one, two = map(load_images, ends)
    order = [3, 1, 0, 2]
    names = [one.classes[i] for i in order]
    turned = labelled_set(ImageSet, "turned", two.items, [two.classes[c] for c in two.labels], two.is_test, [])
    object.__setattr__(turned, "classes", (*names, "zebra"))
    object.__setattr__(turned, "labels", np.array([order.index(c) for c in two.labels]))
    plain = read_endpoints([one, two], cheap_encoder, shots=3)
    other = read_endpoints([one, turned], cheap_encoder, shots=3)
    assert other.classes == plain.classes == one.classes
    assert any("zebra" in note for note in other.notes)
    for a, b in zip(plain.members[1].support, other.members[1].support, strict=True):
        assert torch.equal(a.sort(0).values, b.sort(0).values)
    assert torch.equal(plain.members[1].labels, other.members[1].labels)


def test_a_heads_rows_follow_the_shared_order(ends, cheap_encoder):
    one = load_images(ends[0])
    generator = torch.Generator().manual_seed(0)
    state = {"weight": torch.randn(5, 48, generator=generator), "bias": torch.randn(5, generator=generator)}
    names = (one.classes[2], "zebra", one.classes[0], one.classes[1].upper(), one.classes[3])
    head = Head(state, cheap_encoder.name, names, cheap_encoder.preprocessing)
    end = read_endpoints([one, head], cheap_encoder, shots=3).members[1]
    assert torch.equal(end.head["bias"], state["bias"][[2, 3, 0, 4]])
    assert torch.equal(end.head["weight"], state["weight"][[2, 3, 0, 4]])


def test_endpoints_that_do_not_suit(ends, patterns, cheap_encoder, tmp_path):
    one = load_images(ends[0])
    state = {"weight": torch.randn(4, 48), "bias": torch.zeros(4)}
    head = Head(state, cheap_encoder.name, one.classes, cheap_encoder.preprocessing)
    foreign = Head(state, "timm/other", one.classes, {})
    strangers = load_images(make_pattern_folder(tmp_path / "others", classes=range(10, 13)))
    for sources, words in (
        ([head, head], "The endpoints have no images"),
        ([one, foreign], "both must agree"),
        ([one, strangers], "no class in common"),
    ):
        with pytest.raises(UserError, match=words):
            read_endpoints(sources, cheap_encoder, shots=3)
    with pytest.raises(UserError, match="at most 6"):
        read_endpoints([load_images(patterns)] * 2, cheap_encoder, shots=3, max_classes=6)


# ----------------------------------------------------------------------------------------------------- paths


def test_the_weights_path_ends_at_the_endpoints(walked):
    """Exactly: the same numbers, and the same accuracies on both endpoints' images."""
    paths, mixer = walked.paths["weights"], walked.mixer
    for number, point in ((0, 0), (1, -1)):
        end = mixer.states[number]
        for name, tensor in paths.state.items():
            assert torch.equal(tensor[:, point], end[name])
        for row, other in enumerate(walked.endpoints.members):
            assert torch.equal(paths.accuracy[row, :, point], accuracies(end, other.query, other.labels))


def test_halfway_the_weights_are_their_mean(walked):
    paths, states = walked.paths["weights"], walked.mixer.states
    for name, tensor in paths.state.items():
        torch.testing.assert_close(tensor[:, 2], (states[0][name] + states[1][name]) / 2)


def test_all_methods_share_their_endpoints(walked):
    assert list(walked.paths) == list(METHODS)
    for paths in walked.paths.values():
        for name, tensor in paths.state.items():
            assert tensor.shape[:2] == (2, 5)
            for point in (0, -1):
                expected = walked.paths["weights"].state[name][:, point]
                torch.testing.assert_close(tensor[:, point], expected, rtol=1e-3, atol=1e-4)


def test_the_endpoints_are_what_the_bundle_makes(walked):
    """A head at an endpoint is the average of pipeline samples from the same noise, given the same class order."""
    mixer = walked.mixer
    end = walked.endpoints.members[0]
    condition, order = mixer.pipe.condition(Task(support=end.support), mixer.order)
    assert torch.equal(order, mixer.order)
    generator = torch.Generator().manual_seed(0)
    beside = mixer.pipe.denoiser.lay_out(condition)
    with torch.inference_mode():
        noise = torch.randn(2, *mixer.pipe.vae.latent_shape, generator=generator)
        latents = mixer.pipe._denoise(
            lambda x, t: mixer.pipe.denoiser.denoise(x, t, beside),
            noise,
            (2, None, silent),
            mixer.pipe.padding(len(order)),
        )
        vectors = mixer.pipe.vae.decode(latents / mixer.pipe.vae.config.latent_scale)
        state = mixer.pipe.weight_space.to_heads(vectors, order)
    torch.testing.assert_close(mixer.states[0]["weight"][0], state["weight"].mean(0), rtol=1e-4, atol=1e-5)


def test_permuting_the_second_endpoint_changes_nothing(ends, tiny_bundle, at_hand):
    one, two = map(load_images, ends)
    plain = interpolate([one, two], bundle=tiny_bundle, **SHORT)
    object.__setattr__(two, "classes", two.classes[::-1])
    object.__setattr__(two, "labels", len(two.classes) - 1 - two.labels)
    other = interpolate([one, two], bundle=tiny_bundle, **SHORT)
    for method, paths in plain.paths.items():
        torch.testing.assert_close(other.paths[method].state["weight"], paths.state["weight"], rtol=1e-3, atol=1e-4)


def test_distance_to_what_was_seen(walked, tiny_bundle):
    space = walked.mixer.pipe.weight_space
    assert space.zoo_conditions.shape[0] == 300
    paths = walked.paths["condition"]
    by_hand = (paths.condition[:, None] - space.zoo_conditions[None]).norm(dim=-1).min(1).values
    torch.testing.assert_close(paths.distance, by_hand, rtol=1e-3, atol=1e-3)
    assert torch.equal(paths.outside, paths.distance > walked.radius)
    torch.testing.assert_close(paths.condition[2], (paths.condition[0] + paths.condition[4]) / 2)
    assert walked.paths["latent"].distance is None and walked.paths["weights"].outside is None
    seen = space.condition_distance(space.zoo_conditions[:5])
    torch.testing.assert_close(seen, torch.zeros(5), atol=2e-3, rtol=0)


def test_a_saved_head_is_an_endpoint(walked, ends, tiny_bundle, at_hand, tmp_path):
    head = Head.load(walked.head("weights", 4).save(tmp_path / "head.safetensors"))
    sources = [load_images(ends[0]), head]
    made = interpolate(sources, bundle=tiny_bundle, **SHORT)
    assert list(made.paths) == ["latent", "weights"] and set(made.missing) == {"condition", "condition-spherical"}
    assert made.scored == ["one"] and made.paths["weights"].accuracy.shape == (1, 2, 5)
    assert torch.equal(made.paths["weights"].state["weight"][0, -1], head.state["weight"])
    assert list(made.report()["ways"]["weights"]) == ["accuracy_a", "barrier", "condition_distance", "outside"]
    with pytest.raises(UserError, match="needs a task at each endpoint"):
        interpolate(sources, bundle=tiny_bundle, methods=["condition"], **SHORT)


def test_a_point_is_a_head_of_its_own(walked, ends, tmp_path, at_hand):
    """What is downloaded is right as often as the path says, on the images the path was scored on."""
    head = Head.load(walked.head("latent", 2).save(tmp_path / "head.safetensors"))
    end = walked.endpoints.members[1]
    names = [walked.endpoints.classes[c] for c in end.labels]
    images = labelled_set(ImageSet, "query", end.items, names, [False] * len(end.items), [])
    measured = evaluate_head(head, images)["accuracy"]
    assert measured == pytest.approx(float(walked.paths["latent"].accuracy[1, 0, 2]))
    assert head.info["mix"] == {"one": 0.5, "two": 0.5} and head.info["query_accuracy"]["two"] == round(measured, 6)


def test_a_bundle_without_conditions_mixes_weights(ends, tiny_bundle, at_hand, monkeypatch):
    """The dual generator has neither VAE nor data-set encoder."""
    from d2nwg.bundles import load_pipeline
    from d2nwg.interpolation import mixer as mixing

    pipe = load_pipeline(tiny_bundle)
    kept = {name: getattr(pipe, name) for name in ("weight_space", "_check", "scheduler", "sample_bytes")}
    bare = SimpleNamespace(**kept, max_classes=None, tasks={})
    made = {"weight": torch.randn(2, 4, 48), "bias": torch.randn(2, 4)}
    monkeypatch.setattr(mixing, "sample_heads", lambda *_, **__: SimpleNamespace(state=made))
    monkeypatch.setattr("d2nwg.interpolation.path.load_pipeline", lambda *_: bare)
    sources = [load_images(end) for end in ends]
    gone = interpolate(sources, bundle=tiny_bundle, **SHORT)
    assert list(gone.paths) == ["weights"] and "coefficients on the support images" in gone.missing["latent"]
    torch.testing.assert_close(gone.paths["weights"].state["bias"][0, 0], made["bias"].mean(0))
    with pytest.raises(UserError, match="needs a bundle with a data-set encoder"):
        interpolate(sources, bundle=tiny_bundle, methods=["condition"], **SHORT)


def test_three_endpoints(ends, tiny_bundle, at_hand, tmp_path):
    third = make_pattern_folder(tmp_path / "three", classes=range(4), seed=3)
    made = interpolate([load_images(end) for end in (*ends, third)], bundle=tiny_bundle, **SHORT)
    assert made.scored == ["one", "two", "three"] and made.paths["condition"].accuracy.shape == (3, 2, 5)
    for method in METHODS:
        head, right = made.mixed([0, 0, 2], method)
        assert list(right) == made.scored
        torch.testing.assert_close(head.state["weight"], made.mixer.states[2]["weight"][0], rtol=1e-3, atol=1e-4)
        at_point, _ = made.mixed([1, 1, 0], method)
        torch.testing.assert_close(at_point.state["weight"], made.state(method, 2)["weight"], rtol=1e-3, atol=1e-4)
    for shares in ([1, 1], [0, 0, 0], [1, -1, 1]):
        with pytest.raises(UserError, match="share of at least 0"):
            made.mixed(shares, "weights")


def test_interpolating_can_be_stopped(ends, tiny_bundle, at_hand):
    def stop(stage, done, total):
        if stage == "Sampling along the path":
            raise Cancelled

    with pytest.raises(Cancelled):
        interpolate([load_images(end) for end in ends], bundle=tiny_bundle, progress=stop, **SHORT)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(points=1), "number of points should be a whole number from 2 to 10,000"),
        (dict(points=10_000, num_samples=10**9), "paths of 10,000 points.* GB of memory, and .* are free: ask for"),
        (dict(seeds=10**9), "number of seeds should be a whole number from 1 to 1,000"),
        (dict(seed=2**63), "The seed should be a whole number"),
        (dict(methods=["teleport"]), "'teleport' is not known"),
    ],
)
def test_interpolations_that_are_refused(ends, tiny_bundle, at_hand, changes, words):
    with pytest.raises(UserError, match=words):
        interpolate([load_images(end) for end in ends], bundle=tiny_bundle, **SHORT | changes)


# --------------------------------------------------------------------------------------- figures and the verb


def test_figures_show_the_numbers(walked):
    from d2nwg.figures.interpolate import barrier_figure, curves_figure, map_figure, path_figures

    figure = curves_figure(walked, 1, alpha=0.5)
    lines = {trace.name: trace for trace in figure.data if trace.mode == "lines" and trace.name}
    assert all(trace.mode == "lines" for trace in figure.data), "no dots at the corners of a band"
    assert len(lines) == 4
    shown = np.array(lines[LABELS["latent"]].y)
    np.testing.assert_allclose(shown, 100 * walked.paths["latent"].accuracy[1].mean(0).numpy(), rtol=1e-6)
    bars = {bar.name: bar for bar in barrier_figure(walked).data}
    expected = 100 * walked.paths["weights"].barrier.mean(1).numpy()
    np.testing.assert_allclose(bars[LABELS["weights"]].y, expected, rtol=1e-5, atol=1e-6)
    deepest = max(max(bar.y) for bar in bars.values())
    assert deepest > 0.5 and f"The deepest barrier is {deepest:.1f} points on " in " ".join(walked.sentences())
    (ends,) = (trace for trace in map_figure(walked).data if trace.text)
    assert ends.cliponaxis is False, "A and B are not cut off at the edge"
    titles = [drawn.layout.xaxis.title.text or "" for drawn in path_figures(walked).values()]
    assert all(len(line) <= 34 for title in titles for line in title.split("<br>")), "cut off on a phone"
    assert set(path_figures(walked)) == {"right-on-a", "right-on-b", "barrier", "distance", "map", "map-of-weights"}


def test_the_verb(ends, tiny_bundle, at_hand, tmp_path, capsys):
    out = tmp_path / "path"
    code = cli.main(
        [
            "interpolate",
            *map(str, ends),
            "--bundle",
            str(tiny_bundle),
            "--method",
            "condition",
            "--points",
            "3",
            "--steps",
            "2",
            "--seeds",
            "2",
            "--shots",
            "3",
            "--num-samples",
            "2",
            "--out",
            str(out),
        ]
    )
    said = capsys.readouterr().out
    assert code == 0 and "Halfway" in said and "(3 points of the path, 2 denoising steps)" in said
    report = json.loads((out / "path.json").read_text())
    assert report["alpha"] == [0, 0.5, 1] and report["denoising_steps"] == 2
    assert list(report["ways"]) == ["condition", "weights"]
    method = report["ways"]["condition"]
    assert len(method["accuracy_a"]["mean"]) == len(method["accuracy_b"]["std"]) == 3
    assert set(method["barrier"]) == {"a", "b", "average"} and set(method["barrier"]["a"]) == {"mean", "std"}
    assert len(method["condition_distance"]) == len(method["outside"]) == 3
    names = {path.name for path in out.glob("*.html")}
    assert names == {
        f"{name}.html" for name in ("right-on-a", "right-on-b", "barrier", "distance", "map", "map-of-weights")
    }
    heads = sorted(path.name for path in (out / "heads").iterdir())
    assert heads == [
        f"{method}-{alpha}.safetensors" for method in ("condition", "weights") for alpha in ("0.000", "0.500", "1.000")
    ]
    middle, first = (Head.load(out / "heads" / name) for name in (heads[1], heads[0]))
    assert middle.classes == first.classes
    x = torch.rand(3, 48)
    assert not torch.equal(logits(middle.state, x), logits(first.state, x))


def test_the_earlier_name_of_an_option_is_hidden(capsys):
    with pytest.raises(SystemExit):
        cli.main(["interpolate", "--help"])
    said = capsys.readouterr().out
    assert "--method" in said and "--points" in said and "--way" not in said


def test_a_mixer_needs_no_figures(walked):
    """The library's part imports no plotly."""
    assert isinstance(walked.mixer, Mixer)
    import subprocess
    import sys

    code = "import sys, d2nwg.interpolation.path; print('plotly' in sys.modules, 'gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
