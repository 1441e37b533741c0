"""Whether to take the generated head or a baseline."""

import pytest
import torch

from d2nwg.evaluation import recommend as module
from d2nwg.evaluation.baselines import baseline_heads, fit_baselines, normalised
from d2nwg.evaluation.recommend import recommend

CLASSES, WIDTH = 4, 12


@pytest.fixture
def support():
    """Features (40, 12) of four well separated classes, their labels, and the classes' true centres."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(CLASSES, WIDTH, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(10)
    return centres[labels] + torch.randn(40, WIDTH, generator=generator), labels, centres


def right_head(centres):
    return {"weight": centres, "bias": -0.5 * (centres**2).sum(1)}


def test_a_head_that_knows_nothing_is_not_recommended(support):
    features, labels, centres = support
    advice = recommend(features, labels, lambda shown: right_head(centres.flip(0)))
    assert advice.name in ("class_mean", "ridge", "logistic_regression") and advice.num_items == 40
    assert advice.right["generated"] < 0.3 and advice.right[advice.name] > 0.9


def test_a_head_as_good_as_the_baselines_is(support):
    features, labels, centres = support
    assert recommend(features, labels, lambda shown: right_head(centres)).name == "generated"


def test_it_is_judged_on_what_it_did_not_see(support):
    features, labels, _ = support
    folds = []

    def copy(shown):  # the nearest of the images shown: always right on those
        folds.append(shown)
        means = torch.stack([features[shown & (labels == c)].mean(0) for c in range(CLASSES)])
        return right_head(means)

    recommend(features, labels, copy)
    left_out = torch.stack([~shown for shown in folds])
    assert (left_out.sum(0) == 1).all(), "every item is left out once"


def test_where_nothing_can_be_left_out_there_is_no_advice(support, monkeypatch):
    features, labels, centres = support
    first = torch.arange(0, 40, 10)
    assert recommend(features[first], labels[first], lambda shown: right_head(centres)) is None
    monkeypatch.setattr(module, "MOST", 39)
    assert recommend(features, labels, lambda shown: right_head(centres)) is None


def test_baselines_as_linear_heads(support):
    """With features of one length they are the very baselines; else close to them."""
    features, labels, _ = support
    features = features - features.mean(0)
    unit = features / features.norm(dim=1, keepdim=True)
    centre = torch.zeros(WIDTH)
    own = baseline_heads(normalised(unit.numpy(), centre.numpy()), labels.numpy())
    for name, head in fit_baselines(unit, labels, mean=centre).linear().items():
        weight, bias = map(torch.from_numpy, own[name])
        assert torch.allclose(
            unit @ head["weight"].T + head["bias"], (unit.double() @ weight.T + bias).float(), atol=1e-5
        )
    for head in fit_baselines(5 * features, labels).linear().values():
        predicted = (5 * features @ head["weight"].T + head["bias"]).argmax(1)
        assert (predicted == labels).float().mean() > 0.9
