"""The accuracy predictor: trained on a zoo, it ranks weights that it has not seen, guides the VAE, and chooses."""

import json

import numpy as np
import pytest
import torch

from d2nwg.bundles import load_bundle
from d2nwg.conditions.base import Task
from d2nwg.data.images import load_images
from d2nwg.evaluation.selection import choose
from d2nwg.models.predictor import AccuracyPredictor
from d2nwg.models.vae import WeightVAE
from d2nwg.training.data import ZooBatches
from d2nwg.training.loop import step_rng
from d2nwg.training.run import train_bundle
from d2nwg.training.space import fit_layout
from d2nwg.training.stages import guidance_loss
from d2nwg.weights.build import build_zoo
from d2nwg.weights.zoo import ZooConfig
from tests.helpers.training import quick_config

FEW = dict(vae_steps=4, align_steps=2, diffusion_steps=2, batch_size=32)


@pytest.fixture(scope="module")
def hard_zoo(tmp_path_factory, patterns, cheap_encoder):
    """300 heads of 6 to 10 classes, each trained on one image a class: some are much better than others."""
    config = ZooConfig(subsets=300, min_classes=6, max_classes=10, images=1, width=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2nwg.weights.build.BATCH", 20)
        return build_zoo([load_images(patterns)], cheap_encoder, config, tmp_path_factory.mktemp("hard") / "zoo")


@pytest.fixture(scope="module")
def bundle(hard_zoo, tmp_path_factory):
    config = quick_config(**FEW, predictor="dataset", predictor_steps=200, predictor_weight=10.0, shots=(1,))
    return train_bundle(hard_zoo, config, tmp_path_factory.mktemp("predicted") / "bundle", device="cpu")


def test_it_ranks_heads_that_it_has_not_seen(bundle):
    measured = json.loads((bundle / "training.json").read_text())["measured"]
    assert measured["predictor_spoilt"] > 0.6 and measured["predictor_zoo"] > 0.25
    card = (bundle / "README.md").read_text()
    assert "rank correlation with measured accuracy is" in card and "guided the VAE with weight 10" in card
    assert "| predictor | AccuracyPredictor |" in card and "Stages: 200 predictor, 4 VAE" in card


@torch.no_grad()
def test_without_labels_it_chooses_better_than_chance(bundle, hard_zoo):
    """Among a task's head, and the same with noise or mixed with others: the chosen one beside the mean of them, on
    images of the task."""
    pipe = load_bundle(bundle)
    data = ZooBatches(hard_zoo, fit_layout(hard_zoo), (1,), torch.device("cpu"))
    chosen, average = [], []
    for number in list(data.aside)[:20]:
        records = hard_zoo.records([number] * 8)
        rng, _ = step_rng(0, "toy", number)
        judged = data.judged(records, np.arange(8) % 3, rng)
        batch = data.batch(judged, rng)
        expected = pipe.predictor(batch.vectors, batch.mask, *data.predictor_inputs(batch, rng))
        chosen.append(float(judged.accuracy[int(expected.argmax())]))
        average.append(float(judged.accuracy.mean()))
    assert np.mean(chosen) > np.mean(average) + 0.02


def test_a_bundle_with_a_predictor_chooses_by_it(bundle):
    pipe = load_bundle(bundle)
    given = torch.rand(7, 2, 48)
    samples = pipe(given, num_samples=4, num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert samples.expected.shape == (5,) and (samples.expected > 0).all() and (samples.expected < 1).all()
    # The first is the average of the samples, whose vector is the average of theirs.
    again = pipe._expected(samples.vectors.mean(0, keepdim=True), Task(support=list(given)), samples.order)
    torch.testing.assert_close(again, samples.expected[:1])
    none = torch.zeros(0, 48), torch.zeros(0, dtype=torch.long)
    choice = choose(samples.state, *none, samples.expected)
    best = int(samples.expected.argmax())
    expected = choice.average["weight"] if best == 0 else samples.state["weight"][best - 1]
    assert torch.equal(choice.head["weight"], expected) and "accuracy predictor expects most" in choice.words
    assert choose(samples.state, *none).words == "average of the 4 samples"
    # Images with labels are worth more than what is expected.
    labelled = choose(samples.state, torch.rand(6, 48), torch.tensor([0, 1, 2] * 2), samples.expected)
    assert "best on 6 support images" in labelled.words


def test_the_classes_order_changes_nothing():
    torch.manual_seed(0)
    predictor = AccuracyPredictor(6 * 9, 6, num_classes=6, num_features=8, width=16)
    vectors, means, order = torch.randn(2, 6, 9), torch.randn(2, 6, 8), torch.tensor([2, 0, 3, 1, 4, 5])
    mask = (torch.arange(6) < 4).repeat_interleave(9).expand(2, -1)
    first = predictor(vectors.flatten(1), mask, means)
    torch.testing.assert_close(predictor(vectors[:, order].flatten(1), mask, means[:, order]), first)
    torch.testing.assert_close(predictor((vectors + 9 * ~mask.unflatten(1, (6, 9))).flatten(1), mask, means), first)
    assert not torch.allclose(predictor(vectors.flatten(1), mask, means[:, order]), first)


@pytest.mark.parametrize("settings", [dict(tokens=6, ordered=True), dict(num_classes=6, num_features=8), dict()])
def test_a_saved_predictor_comes_back_the_same(settings, tmp_path):
    predictor = AccuracyPredictor(54, width=16, **settings).eval()
    predictor.save_pretrained(tmp_path)
    again = AccuracyPredictor.from_pretrained(tmp_path)
    mask = torch.ones(2, 54, dtype=torch.bool)
    given = torch.randn(2, 54), mask, *([torch.randn(2, 6, 8)] if predictor.conditioned else [])
    assert torch.equal(predictor(*given), again(*given)) and predictor(*given).shape == (2,)


def test_guidance_moves_the_vae_and_not_the_predictor():
    """Equation 9: a reconstruction that the predictor takes for another accuracy costs; one it takes for the same does
    not."""
    torch.manual_seed(0)
    predictor = AccuracyPredictor(54, 6, width=16).requires_grad_(False)
    vae = WeightVAE(54, 6, patch=(8, 1, 2), channels=(8,))
    vectors, mask = torch.randn(4, 54), torch.ones(4, 54, dtype=torch.bool)
    rebuilt, _ = vae(vectors, torch.Generator().manual_seed(0))
    (rebuilt - vectors).square().mean().backward(retain_graph=True)
    plain = [p.grad.clone() for p in vae.parameters()]
    guidance_loss(predictor, vectors, rebuilt, mask).backward()
    changed = [not torch.equal(p.grad, before) for p, before in zip(vae.parameters(), plain, strict=True)]
    assert sum(changed) > len(changed) // 2
    assert float(guidance_loss(predictor, vectors, vectors, mask)) == 0
    assert all(p.grad is None for p in predictor.parameters())


def test_the_log_has_the_guidance(bundle):
    lines = [json.loads(line) for line in (bundle / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("guidance", -1) >= 0 for line in lines if line["stage"] == "vae")
