"""The dual-coordinate generator: its laws, its parts against known answers, its training, and what it is used for."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from d2nwg import opened
from d2nwg.data.images import load_images, load_unlabelled
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.generate import generate_heads
from d2nwg.models import dual
from d2nwg.models.closed_form import PENALTIES, SCALES, ClosedForm, describe, tuned_ridge
from d2nwg.models.dual import COEFFICIENTS, DualDenoiser
from d2nwg.models.span import Span
from d2nwg.pipelines.heads import WeightGenerationPipeline
from d2nwg.training.config import DualConfig
from d2nwg.training.config_base import STAGES
from d2nwg.training.episodes import ZooEpisodes
from d2nwg.training.heads_dual import zoo_corrections
from d2nwg.training.run import train_bundle
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.weights.zoo import Zoo
from tests.helpers.images import make_pattern_folder
from tests.helpers.training import stop_at, tensors


def quick(**changes) -> DualConfig:
    few = dict(width=16, depth=1, heads=2, steps=8, tasks=3, checkpoint_every=3, validate_every=4, max_images=40)
    return DualConfig(**few | changes)


@pytest.fixture(scope="module")
def bundle(tiny_zoo, tmp_path_factory):
    return train_bundle(tiny_zoo, quick(), tmp_path_factory.mktemp("dual") / "dual", device="cpu")


@pytest.fixture(scope="module")
def pipe(bundle) -> WeightGenerationPipeline:
    made = WeightGenerationPipeline.from_pretrained(bundle)
    made.set_progress_bar_config(disable=True)
    return made


def blobs(classes: int, each, width: int = 30, seed: int = 0) -> list[torch.Tensor]:
    """Features of ``each`` images (one number, or one a class) of Gaussian classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 + torch.randn(classes, width, generator=generator)
    each = [each] * classes if isinstance(each, int) else each
    return [c + 0.7 * torch.randn(n, width, generator=generator) for c, n in zip(centres, each, strict=True)]


def together(images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (1, n, d) and one-hot targets (1, n, C)."""
    labels = torch.arange(len(images)).repeat_interleave(torch.tensor([len(x) for x in images]))
    return torch.cat(images)[None], torch.eye(len(images))[labels][None]


@pytest.fixture(scope="module")
def model() -> DualDenoiser:
    """With random weights wherever an untrained one has zeros, so that every part does something."""
    torch.manual_seed(0)
    made = DualDenoiser(width=16, depth=2, heads=2)
    for last in (made.guess, made.gate[-1], made.denoise[-1], made.start.scalars[-1]):
        torch.nn.init.normal_(last.weight, std=0.2)
    made.spread.data = torch.tensor([0.4, 0.6, 0.3])
    return made.eval().requires_grad_(False)


def sample(pipe, images, seed: int = 0, **kwargs):
    kwargs = dict(num_samples=4, num_inference_steps=3) | kwargs
    return pipe(images, generator=torch.Generator().manual_seed(seed), **kwargs)


# ---------------------------------------- laws


@pytest.mark.parametrize("free", [0, 20])
def test_permuting_the_classes_permutes_the_rows_and_changes_nothing_else(pipe, free):
    images, more = blobs(5, [1, 3, 2, 4, 2]), torch.cat(blobs(5, 4))[:free] if free else None
    first = sample(pipe, images, unlabelled=more)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        other = sample(pipe, [images[i].flip(0) for i in order], unlabelled=None if more is None else more.flip(0))
        for name in first.state:
            torch.testing.assert_close(other.state[name], first.state[name][:, order], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("free", [0, 20])
def test_rotating_the_features_leaves_predictions_alone(pipe, free):
    images, query = blobs(4, 3), torch.cat(blobs(4, 9))
    more = torch.cat(blobs(4, 5)) if free else None
    turn = torch.linalg.qr(torch.randn(30, 30, generator=torch.Generator().manual_seed(1)))[0]
    first, other = (
        sample(pipe, images, unlabelled=more),
        sample(pipe, [x @ turn for x in images], unlabelled=None if more is None else more @ turn),
    )
    here, there = (
        x @ s.state["weight"].mT + s.state["bias"][:, None] for x, s in ((query, first), (query @ turn, other))
    )
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


def test_any_number_of_classes_images_and_features(pipe):
    for images in (blobs(2, 1), blobs(40, 1, width=7), blobs(3, [1, 9, 2], width=100)):
        state = sample(pipe, images).state
        assert state["weight"].shape == (4, len(images), images[0].shape[1]) and state["bias"].shape == (4, len(images))
        assert all(tensor.isfinite().all() for tensor in state.values())


def test_heads_on_features_are_the_heads_on_coordinates(model):
    features, targets = together(blobs(4, 3))
    free, query = torch.cat(blobs(4, 5, seed=1))[None], torch.cat(blobs(4, 2, seed=2))[None]
    for more in (None, free):
        condition = model.encode(features, targets, more)
        latents = torch.randn(1, condition.num_tokens, COEFFICIENTS)
        state = model.to_heads(latents, condition)
        expected = model.logits(latents, condition, query)
        torch.testing.assert_close(query @ state["weight"].mT + state["bias"][:, None], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("what, size", [("ROWS", 3), ("ENTRIES", 50)])
def test_pieces_give_the_same(model, monkeypatch, what, size):
    features, targets = together(blobs(4, 3))
    latents = torch.randn(6, 12, COEFFICIENTS)
    whole = model.to_heads(latents, model.encode(features, targets))
    monkeypatch.setattr(dual, what, size)
    pieces = model.to_heads(latents, model.encode(features, targets))
    torch.testing.assert_close(pieces["weight"], whole["weight"], rtol=1e-4, atol=1e-5)


def test_several_tasks_at_once_are_each_their_own(model):
    tasks = [together(blobs(3, 2, seed=s)) for s in (0, 1)]
    both = model.encode(*(torch.cat(parts) for parts in zip(*tasks, strict=True)))
    latents, query = torch.randn(2, 6, COEFFICIENTS), torch.randn(2, 5, 30)
    clean = model(latents, torch.tensor([3, 900]), both)
    scores = model.logits(clean, both, query)
    for i, (task, time) in enumerate(zip(tasks, (3, 900), strict=True)):
        alone = model.encode(*task)
        one = model(latents[i : i + 1], time, alone)
        torch.testing.assert_close(one, clean[i : i + 1], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model.logits(one, alone, query[i : i + 1])[0], scores[i], rtol=1e-3, atol=1e-3)


# ---------------------------------------- parts


@pytest.mark.parametrize("images, width", [(8, 30), (30, 8)])
def test_a_span_keeps_inner_products(images, width):
    features, targets = together(blobs(2, images // 2, width))
    span = Span.of(features, targets)
    unit = features / features.norm(dim=-1, keepdim=True)
    centred = unit - unit.mean(1, keepdim=True)
    centred = centred * centred.norm(dim=-1, keepdim=True).pow(-0.5)
    centred = centred / centred.square().sum(-1).mean().sqrt()
    torch.testing.assert_close(span.points @ span.points.mT, centred @ centred.mT, rtol=1e-4, atol=1e-4)
    products = span.points.mT @ span.points
    torch.testing.assert_close(products, torch.diag_embed(span.spectrum), rtol=1e-4, atol=1e-4)


def test_the_logistic_part_is_logistic_regression():
    features, targets = together(blobs(3, 12, width=5))
    span, penalty = Span.of(features, targets), 0.02
    start = ClosedForm(iterations=200)
    weight, bias = start._logistic(span.points, targets, span.spectrum.unsqueeze(1), torch.tensor(penalty))
    fitted = LogisticRegression(C=1 / (penalty * 36), tol=1e-8, max_iter=10_000)
    fitted.fit(span.points[0].numpy(), targets[0].argmax(-1).numpy())
    np.testing.assert_allclose(weight[0].numpy(), fitted.coef_, atol=1e-3)
    np.testing.assert_allclose(bias[0] - bias[0].mean(), fitted.intercept_ - fitted.intercept_.mean(), atol=1e-3)


def test_many_images_tune_a_ridge_themselves():
    """Leaving each image out in turn, for real, gives the penalty and the scores that the leverages give at once."""
    features = torch.cat(blobs(3, 14)) + 1.5 * torch.randn(42, 30, generator=torch.Generator().manual_seed(1))
    targets = torch.eye(3).repeat_interleave(14, 0)
    span = Span.of(features[None], targets[None])
    points, found = span.points[0].double(), {}
    for penalty in PENALTIES:
        scores = []
        for i in range(42):
            rest = torch.arange(42) != i
            offset, centre = targets[rest].double().mean(0), points[rest].mean(0)
            x = points[rest] - centre
            aim = targets[rest].double() - offset
            solved = torch.linalg.solve(x.mT @ x + penalty * torch.eye(x.shape[1]), x.mT @ aim)
            scores.append(offset + (points[i] - centre) @ solved)
        scores = torch.stack(scores)
        found[float((scores - targets).square().mean())] = penalty, scores
    penalty, scores = found[min(found)]
    weight, bias = tuned_ridge(span)
    plain = points.mT @ points + penalty * torch.eye(points.shape[1])
    plain = torch.linalg.solve(plain, points.mT @ (targets.double() - 1 / 3))
    scale = (weight[0].double() / plain.mT).median()
    torch.testing.assert_close(weight[0].double(), scale * plain.mT, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(bias[0].double(), (scale / 3).expand(3), rtol=1e-3, atol=1e-3)
    surprise = {s: float(torch.nn.functional.cross_entropy(scores * s, targets.argmax(-1))) for s in SCALES}
    assert abs(np.log2(float(scale)) - np.log2(min(surprise, key=surprise.get))) < 0.3


def test_how_much_the_tuned_ridge_says():
    def start(each, unlabelled=0, learning=False):
        features, targets = torch.cat(blobs(3, each + unlabelled)), torch.eye(3).repeat_interleave(each + unlabelled, 0)
        targets[torch.arange(len(targets)) % (each + unlabelled) >= each] = 0
        return ClosedForm().train(learning)(Span.of(features[None], targets[None]))

    assert start(1).tuned is None and start(30, unlabelled=2).tuned is None and start(30, learning=True).tuned is None
    assert [round(float(start(each).tuned_share), 3) for each in (2, 5, 7, 40)] == [0.125, 0.5, 0.75, 0.75]
    many = start(7)
    weight, bias = many.finish(torch.zeros_like(many.weight), torch.zeros_like(many.bias))
    torch.testing.assert_close(weight, 0.25 * many.weight + 0.75 * many.tuned[0])
    torch.testing.assert_close(bias, 0.25 * many.bias + 0.75 * many.tuned[1])


def test_what_describes_a_task_tells_easy_from_hard():
    def facts(noise):
        images = blobs(3, 6)
        generator = torch.Generator().manual_seed(5)
        return describe(Span.of(*together([x + noise * torch.randn(x.shape, generator=generator) for x in images])))[0]

    easy, hard = facts(0.0), facts(6.0)
    assert easy[5] > hard[5] + 0.2 and easy[8] == 1.0 > hard[8] and easy[9] >= hard[9]


def test_unlabelled_images_move_the_class_means():
    torch.manual_seed(0)
    centres = torch.zeros(2, 20)
    centres[0, 0], centres[1, 0] = 3.0, -3.0
    images = [centres[c] + 4 + torch.randn(1, 20) for c in (0, 1)]
    free, query = ((centres[torch.arange(n) % 2] + 4 + torch.randn(n, 20))[None] for n in (60, 400))
    labels = torch.arange(400) % 2
    model = DualDenoiser(width=16, depth=1, heads=2).eval()
    torch.nn.init.constant_(model.gate[-1].bias, 8.0)  # the branch with unlabelled images alone
    right = []
    for more in (None, free):
        condition = model.encode(*together(images), more)
        scores = model.logits(torch.zeros(1, condition.num_tokens, COEFFICIENTS), condition, query)
        right.append((scores.argmax(-1)[0] == labels).float().mean().item())
    assert right[1] > 0.97 and right[1] > right[0] + 0.02


def test_labelled_images_tell_whether_unlabelled_ones_help():
    """They do where clusters are classes; not where each cluster holds images of both."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([1.0, -1.0])

    def images(count, far, near):  # of two classes, told apart by one axis; another one spreads them without meaning
        labels = torch.arange(count) % 2
        x = torch.randn(count, 20, generator=generator) + 4
        x[:, 0] += near * sides[labels]
        x[:, 1] += far * sides[torch.randint(2, (count,), generator=generator)]
        return x, torch.eye(2)[labels]

    def worth_of(x, targets):
        return float(model._worth(x, targets, free, Span.of(x[None], targets[None]).key[0]))

    model, worth = DualDenoiser(width=16, depth=1, heads=2).eval(), []
    for far, near in ((0.0, 1.5), (9.0, 2.0)):
        (x, targets), (free, _) = images(24, far, near), images(60, far, near)
        worth.append(worth_of(x, targets))
        order = torch.randperm(24, generator=generator)
        assert worth_of(x[order], targets[order]) == pytest.approx(worth[-1], abs=1e-3)
        assert worth_of(x[:2], targets[:2]) == 1, "one image a class tells nothing"
        gates = []
        for model.training in (True, False):
            gates.append(model.encode(x[None], targets[None], free[None]).gate.item())
        assert gates[1] == pytest.approx(worth[-1] * gates[0], abs=1e-5)
    assert worth[0] > 0.9 and worth[1] < 0.4


def test_corrections_of_a_known_head_are_found(model, monkeypatch, tiny_zoo):
    monkeypatch.setattr("d2nwg.training.heads_dual.SHRINKAGE", 1e-5)
    episode = ZooEpisodes([tiny_zoo], quick(shots=(2,), unlabelled=(0,)), torch.device("cpu")).draw(
        np.random.default_rng(0)
    )
    monkeypatch.setattr(model.start, "training", True)
    condition = model.encode(episode.support, episode.targets)
    truth = 0.3 * torch.randn(len(episode.support), condition.num_tokens, COEFFICIENTS)
    images = torch.cat([episode.support, episode.query], 1)
    episode.zoo_logits = model.logits(truth / model.spread, condition, images)
    found = zoo_corrections(condition, episode)
    fitted = model.logits(found / model.spread, condition, images)
    centred = [scores - scores.mean(-1, keepdim=True) for scores in (fitted, episode.zoo_logits)]
    # But for one scale a task, which the corrections leave to the start.
    scales = [scores / scores.square().mean((1, 2), keepdim=True).sqrt() for scores in centred]
    torch.testing.assert_close(*scales, rtol=2e-2, atol=2e-2)


# ---------------------------------------- training


def test_a_run_killed_ends_the_same(bundle, tiny_zoo, tmp_path):
    out = tmp_path / "dual"
    with pytest.raises(Cancelled):
        train_bundle(tiny_zoo, quick(), out, device="cpu", progress=stop_at(STAGES["generator"], 5))
    train_bundle(tiny_zoo, quick(steps=99), out, resume=True, device="cpu")
    first, second = tensors(bundle), tensors(out)
    assert list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_what_a_dual_bundle_holds(bundle, tiny_zoo):
    names = {path.name for path in bundle.iterdir()}
    assert names == {
        "model_index.json",
        "README.md",
        "metrics.jsonl",
        "training.json",
        "denoiser",
        "scheduler",
        "weight_space",
    }
    made = json.loads((bundle / "training.json").read_text())
    assert DualConfig.from_config(made["config"]) == quick() and made["zoos"] == [tiny_zoo.summary()]
    assert "any number of classes" in (bundle / "README.md").read_text()


def test_data_sets_held_out_are_never_drawn(tmp_path, patterns, cheap_encoder):
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig

    other = load_images(make_pattern_folder(tmp_path / "other", range(50, 58)))
    config = ZooConfig(subsets=120, min_classes=2, max_classes=4, images=6, width=16)
    zoo = build_zoo([load_images(patterns), other], cheap_encoder, config, tmp_path / "zoo")
    settings = quick(held_out=("other",))
    episodes = ZooEpisodes([zoo], settings, torch.device("cpu"))
    theirs = [
        {tuple(x.tolist()) for x in zoo.images["features"][zoo.class_images[first:last].clamp_min(0)].flatten(0, 1)}
        for first, last in ((0, 24), (24, 32))
    ]
    for rng in map(np.random.default_rng, range(20)):
        drawn, aside = episodes.draw(rng), episodes.held_out(5, 1, 0, rng)
        for episode, own in ((drawn, theirs[0]), (aside, theirs[1])):
            assert {tuple(x.tolist()) for x in episode.support.half().flatten(0, 1)} <= own
    assert aside.targets.shape == (3, 4, 4), "as many classes as the records have"
    out = train_bundle(zoo, settings, tmp_path / "bundle", device="cpu")
    assert "other took no part in training" in (out / "README.md").read_text()
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = max(line["held_out_accuracy"] for line in log if "held_out_accuracy" in line)
    assert json.loads((out / "training.json").read_text())["measured"]["accuracy"] == best


@pytest.mark.parametrize(
    "config, words",
    [
        (quick(held_out=("none such",)), "none such is not in the zoo"),
        (quick(held_out=("patterns",)), "left to train on"),
    ],
)
def test_what_cannot_be_held_out(config, words, tiny_zoo, tmp_path):
    with pytest.raises(UserError, match=words):
        train_bundle(tiny_zoo, config, tmp_path / "bundle", device="cpu")


def test_the_paper_preset_is_the_unets():
    with pytest.raises(UserError, match="no preset 'paper': choose one of tiny, small"):
        DualConfig.preset("paper")


# ---------------------------------------- use


@pytest.fixture
def data(tmp_path_factory, monkeypatch, cheap_encoder):
    monkeypatch.setattr(opened, "load_encoder", lambda name, device=None: cheap_encoder)
    return make_pattern_folder(tmp_path_factory.mktemp("use") / "fresh", range(100, 109), per_class=16)


def test_heads_for_more_classes_than_the_zoo_has(data, bundle):
    made = generate_heads(load_images(data), bundle=bundle, shots=3, num_samples=6, device="cpu")
    right = made.report.query_accuracy
    assert made.samples["weight"].shape[:2] == (6, 9) and right.chosen > 3 * right.random
    assert right.chosen > right.class_mean - 0.05
    assert {row.nearest_zoo_distance for row in made.report.samples} == {None}, "no zoo head has 9 classes"


def test_all_support_images_make_the_head(data, bundle):
    made = generate_heads(load_images(data), bundle=bundle, shots=12, num_samples=6, device="cpu")
    assert made.report.selection == "average of the 6 samples"


def test_novelty_is_reported_where_the_zoo_has_such_heads(data, bundle, tmp_path):
    few = tmp_path / "few"
    for number in (100, 101, 102):
        (few / f"{number}").parent.mkdir(exist_ok=True)
        (data / f"pattern-{number:02}").rename(few / f"{number}")
    report = generate_heads(load_images(few), bundle=bundle, shots=3, num_samples=6, device="cpu").report
    rows = report.novelty
    assert 0 < rows.distance and report.query_accuracy.chosen > rows.nearest_zoo_head
    assert all(row.nearest_zoo_distance > 0 for row in report.samples)


def test_unlabelled_images(data, bundle, tmp_path, monkeypatch):
    free = make_pattern_folder(tmp_path / "free", range(100, 109), per_class=4, seed=7)
    labelled = next((data / "pattern-100").iterdir())
    (free / "copy.png").write_bytes(labelled.read_bytes())
    (free / "broken.png").write_bytes(b"no image")
    images = load_images(data)
    settings = dict(bundle=bundle, shots=1, num_samples=6, device="cpu")
    made, plain = (generate_heads(images, **settings, unlabelled=u) for u in (load_unlabelled([free]), ()))
    report = made.report
    assert report.num_unlabelled == 36 and plain.report.num_unlabelled == 0
    assert "1 unlabelled image left out: also labelled here." in report.notes
    assert "1 unlabelled image left out: unreadable." in report.notes
    without = plain.report.query_accuracy.chosen
    assert report.query_accuracy.without_unlabelled == pytest.approx(without, abs=1e-6)
    assert not torch.allclose(made.samples["weight"], plain.samples["weight"])
    assert report.unlabelled_trust > 0.15 and plain.report.unlabelled_trust is None
    monkeypatch.setattr(DualDenoiser, "_worth", lambda self, features, *others: features.new_zeros(()))
    unheeded = generate_heads(images, **settings, unlabelled=load_unlabelled([free]))
    assert unheeded.report.unlabelled_trust == 0
    assert any("hardly count" in note for note in unheeded.report.notes)


def test_a_unet_bundle_cannot_use_them(data, tiny_bundle):
    images = load_images(data)
    for extra, words in ((dict(unlabelled=[data]), "unlabelled images"), (dict(encoder="timm/other"), "timm/other")):
        few = type(images)(**{**vars(images), "classes": images.classes[:6]})
        with pytest.raises(UserError, match=f"tiny cannot use .*{words}"):
            generate_heads(few, bundle=tiny_bundle, shots=1, device="cpu", **extra)


def test_no_unlabelled_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="hold no images"):
        load_unlabelled([tmp_path / "empty"])
    with pytest.raises(UserError, match="no folder or archive"):
        load_unlabelled([tmp_path / "nowhere"])


def test_heads_become_vectors_of_the_layout_and_back(pipe):
    space = pipe.weight_space
    images = blobs(4, 3, width=48)
    state = sample(pipe, images).state
    order = torch.tensor([2, 0, 3, 1])
    vectors = space.to_vectors(state, order)
    back = space.to_heads(vectors, order)
    torch.testing.assert_close(space.to_vectors(back, order), vectors, rtol=1e-3, atol=1e-3)
    x = torch.rand(5, 48)
    inside = space.mean + space.project(x) @ torch.linalg.pinv(space.projection).T
    first, second = ((inside @ s["weight"][0, :4].T + s["bias"][0, :4]) for s in (state, back))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-2)
    assert accuracies(state, x, torch.zeros(5, dtype=torch.long)).shape == (4,)


def test_a_zoo_of_two_layer_heads_is_refused(tmp_path, patterns, cheap_encoder):
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig

    config = ZooConfig(subsets=6, max_classes=3, images=4, width=8, probe="mlp", hidden=4)
    build_zoo([load_images(patterns)], cheap_encoder, config, tmp_path / "zoo")
    with pytest.raises(UserError, match="makes linear heads"):
        train_bundle(Zoo(tmp_path / "zoo"), quick(), tmp_path / "bundle", device="cpu")
