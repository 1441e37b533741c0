"""The signal-to-noise ratio of weight matrices, against a plain reference."""

import math

import numpy as np
import pytest
import torch

from d2nwg.figures.language import layers_figure, spectrum_figure
from d2nwg.llm import spectrum
from d2nwg.llm.models import load_language_model
from d2nwg.llm.spectrum import Matrix, density, rank, signal_to_noise
from d2nwg.utils.errors import UserError
from tests.tiny_llm import make_tiny_llm


def reference(weight: np.ndarray, mode: str) -> float | None:
    """Word for word: numpy's SVD of float64 numbers, sums by a loop."""
    values = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    n, m = max(weight.shape), min(weight.shape)
    q = m / n
    if mode == "paper":
        sigma = weight.astype(np.float64).std()
        values, bound = values / n, sigma * (1 + math.sqrt(q)) / math.sqrt(n)
    else:
        sigma = (np.percentile(values, 75) - np.percentile(values, 25)) / 1.349
        bound = sigma * (1 + math.sqrt(q))
    signal = sum(v for v in values if v > bound)
    noise = sum(v for v in values if v <= bound)
    if not noise:
        return None
    ratio = signal / noise
    return ratio / values[0] if mode == "spectrum" else ratio


def measured(weight: np.ndarray, mode: str) -> float | None:
    matrix = as_matrix(weight)
    return signal_to_noise(matrix.values, matrix.shape, matrix.std, mode)


def as_matrix(weight: np.ndarray, name: str = "model.layers.0.self_attn.q_proj.weight", layer: int = 0) -> Matrix:
    tensor = torch.tensor(weight, dtype=torch.float32)
    values = torch.linalg.svdvals(tensor).numpy()
    return Matrix(name, layer, "q", tuple(weight.shape), float(tensor.std(correction=0)), values)


@pytest.mark.parametrize("aspect", [1, 4, 8])
@pytest.mark.parametrize("mode", spectrum.MODES)
@pytest.mark.parametrize("tall", [True, False])
def test_matches_the_reference(aspect, mode, tall):
    rng = np.random.default_rng(aspect)
    small = 48
    noise = rng.normal(0, 0.02, (small * aspect, small))
    few = rng.normal(size=(small * aspect, 4)) @ rng.normal(size=(4, small)) * 0.05
    decaying = (
        np.linalg.qr(rng.normal(size=(small * aspect, small)))[0]
        * (0.9 ** np.arange(small))
        @ np.linalg.qr(rng.normal(size=(small, small)))[0]
    )
    for weight in (noise + few, decaying, noise + 0.3):
        weight = (weight if tall else weight.T).astype(np.float32)
        ratio = measured(weight, mode)
        expected = reference(weight, mode)
        assert (ratio is None) == (expected is None)
        assert ratio is None or (math.isfinite(ratio) and ratio == pytest.approx(expected, rel=1e-4))
    # Values of pure noise end near the bound of the paper's mode: nearly all of it counts as noise.
    assert measured(noise, "paper") < 0.15
    assert measured(noise + few, "paper") > 4 * measured(noise, "paper") + 0.1


def test_where_there_is_no_noise_there_is_no_ratio():
    eye, nothing = np.eye(16), np.zeros((16, 8))
    assert measured(eye, "spectrum") is None  # no spread: every value lies above the bound
    assert measured(nothing, "paper") is None and measured(nothing, "spectrum") is None
    one = np.outer(np.arange(1.0, 9), np.arange(1.0, 9))  # rank one: the rest is numerically zero
    for mode in spectrum.MODES:
        ratio = measured(one, mode)
        assert ratio is None or math.isfinite(ratio)


def test_a_value_on_the_bound_is_noise():
    values = np.array([4.0, 2.0, 1.0, 1.0], np.float32)
    std = 2.0 / 8  # paper: scale σ√n with n = 16 is 1, and the bound at aspect 16/16 is 2
    assert spectrum.threshold(values, (16, 16), std, "paper") == pytest.approx(2.0)
    assert signal_to_noise(values, (16, 16), std, "paper") == pytest.approx(4.0 / 4.0)


def test_ranks_within_a_type_ties_to_the_earlier_layer():
    rng = np.random.default_rng(0)
    matrices = []
    for layer in range(8):
        weight = rng.normal(0, 1, (32, 32)) + (6 * np.outer(np.ones(32), np.ones(32)) if layer in (5, 6) else 0)
        if layer == 6:
            weight = matrices[5][0]  # exactly as good as layer 5
        if layer == 7:
            weight = np.zeros((32, 32))
        matrices.append((weight, layer))
    rows = [as_matrix(weight, f"model.layers.{layer}.self_attn.q_proj.weight", layer) for weight, layer in matrices]
    ranked = rank(rows, "paper", 25)
    assert [row.rank for row in ranked][5:] == [1, 2, None]
    assert [row.matrix.layer for row in ranked if row.chosen] == [5, 6]  # a quarter of eight
    assert [row.matrix.layer for row in rank(rows, "paper", 1) if row.chosen] == [5]  # at least one
    assert len([row for row in rank(rows, "paper", 100) if row.chosen]) == 7  # without a ratio never
    for percent in (0, 101, math.nan):
        with pytest.raises(UserError):
            rank(rows, "paper", percent)
    with pytest.raises(UserError, match="no mode"):
        rank(rows, "magic")


@pytest.mark.parametrize("shape", [(400, 400), (800, 200), (160, 1280)])
def test_the_density_is_that_of_a_random_matrix(shape):
    rng = np.random.default_rng(1)
    matrix = as_matrix(rng.normal(0, 0.3, shape))
    x, law = density(matrix, "paper")
    assert np.trapezoid(law, x) == pytest.approx(1, abs=0.01)
    cdf = np.concatenate([[0], np.cumsum((law[1:] + law[:-1]) / 2 * np.diff(x))])
    drawn = np.sort(matrix.values.astype(float))
    steps = np.arange(1, len(drawn) + 1) / len(drawn)
    assert np.abs(np.interp(drawn, x, cdf) - steps).max() < 0.02  # Kolmogorov's distance


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_language_model(make_tiny_llm(tmp_path_factory.mktemp("tiny") / "tiny", layers=4))


def test_measures_a_model_once(model, monkeypatch):
    seen = []
    matrices = spectrum.measure(model, progress=lambda *event: seen.append(event))
    assert len(matrices) == 4 * 7 and {m.type for m in matrices} == {"q", "k", "v", "o", "up", "gate", "down"}
    assert not any("embed" in m.name or "lm_head" in m.name for m in matrices)
    assert seen[-1][1:] == (28, 28)
    state = model.model.state_dict()
    for matrix in matrices:
        weight = state[matrix.name].numpy()
        assert matrix.shape == weight.shape and matrix.std == pytest.approx(weight.std(), rel=1e-4)
        for mode in spectrum.MODES:
            ratio = signal_to_noise(matrix.values, matrix.shape, matrix.std, mode)
            expected = reference(weight, mode)
            assert ratio is expected if expected is None else ratio == pytest.approx(expected, rel=2e-3)
    monkeypatch.setattr(spectrum, "_decompose", None)  # from the disk now
    again = spectrum.measure(model)
    assert all(np.array_equal(a.values, b.values) and a.std == b.std for a, b in zip(matrices, again, strict=True))
    with torch.no_grad():
        weight = model.model.model.layers[2].mlp.up_proj.weight
        kept = weight.clone()
        weight *= 2
        with pytest.raises(TypeError):
            spectrum.measure(model)  # other weights: must be computed
        weight.copy_(kept)


def test_figures_mark_what_is_chosen(model):
    matrices = spectrum.measure(model)
    ranked = rank(matrices, "paper", 25)
    figure = layers_figure(ranked, "paper")
    heat, rings = figure.data
    assert list(figure.layout.xaxis.range) == [-0.5, 3.5], "no tick beyond the last of four layers"
    assert np.asarray(heat.z).shape == (7, 4) and len(rings.x) == 7
    assert set(rings.customdata) == {row.matrix.name for row in ranked if row.chosen}
    for mode in spectrum.MODES:
        bars, law = spectrum_figure(matrices[0], mode).data
        widths = np.asarray(bars.x)[1] - np.asarray(bars.x)[0]
        beyond = 1 - np.sum(bars.customdata) / len(matrices[0].values)
        assert np.sum(bars.y) * widths == pytest.approx(1 - beyond)
        assert len(law.x) > 100
    flat = as_matrix(np.eye(16))
    assert len(spectrum_figure(flat, "spectrum").data) == 1  # nothing random to compare with


def test_a_model_of_another_build_says_so(tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = make_tiny_llm(tmp_path / "neox")
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=420, **sizes)).save_pretrained(folder)
    with pytest.raises(UserError, match="none of the matrices that models like Llama, Phi-3 or GPT-2 are made of"):
        spectrum.measure(load_language_model(folder))
