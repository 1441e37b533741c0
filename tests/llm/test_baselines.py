"""Candidates that are not generated: ranks cut as numpy cuts them, in every layout; and parts of a model other than
matrices, refined and exported."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from d2nwg.llm.architectures import HEAD, NORMS, VECTORS, Part, Unit
from d2nwg.llm.baselines import CUTS, EDGE, rank_cuts
from d2nwg.llm.choice import units_of
from d2nwg.llm.chunks import Chunks, joined, save_matrices, split
from d2nwg.llm.delta import apply_delta, variant_of
from d2nwg.llm.models import load_language_model
from d2nwg.llm.refine import refine, save_refined
from d2nwg.llm.score import score_questions
from tests.llm.test_refine import REPORT, SELECT, config
from tests.tiny_llm import make_tiny_llm


def cut(matrix: torch.Tensor, share) -> np.ndarray:
    """Word for word: numpy's SVD of float64 numbers."""
    exact = matrix.numpy().astype(np.float64)
    left, values, right = np.linalg.svd(exact, full_matrices=False)
    if share == EDGE:
        n, m = max(exact.shape), min(exact.shape)
        spread = np.sqrt((exact**2).mean())
        kept = (values > spread * np.sqrt(n) * (1 + np.sqrt(m / n))).sum()
    else:
        kept = round(share * len(values))
    kept = max(1, kept)
    return left[:, :kept] * values[:kept] @ right[:kept]


def test_ranks_are_cut_matrix_by_matrix(tmp_path):
    rng = torch.Generator().manual_seed(0)
    strong = torch.outer(torch.randn(12, generator=rng), torch.randn(8, generator=rng))
    held = {
        "plain": torch.randn(12, 8, generator=rng) * 0.2 + strong,
        "fused": torch.randn(8, 20, generator=rng),
        "norm": torch.randn(8, generator=rng),
        "other": torch.randn(8, generator=rng),
    }
    units = [
        Unit("plain", 0, "q", (Part("plain", (12, 8)),)),
        Unit("fused", 0, "qkv", (Part("fused", (8, 20), turned=True, cuts=(12, 8)),)),
        Unit(NORMS, 0, NORMS, (Part("norm", (8,)), Part("other", (8,)))),
    ]
    chunks = Chunks(save_matrices(held, tmp_path / "m.safetensors"), units, 8, 64)
    propose = rank_cuts(chunks)
    for candidate, share in enumerate(CUTS):
        found = [
            split(unit, propose(number, candidate, joined(unit, chunks.tensors(unit))))
            for number, unit in enumerate(units)
        ]
        np.testing.assert_allclose(found[0]["plain"], cut(held["plain"], share), atol=1e-5)
        parts = [cut(held["fused"][:, :12], share), cut(held["fused"][:, 12:], share)]
        np.testing.assert_allclose(found[1]["fused"], np.concatenate(parts, 1), atol=1e-5)
        vectors = cut(torch.stack([held["norm"], held["other"]]), share)
        np.testing.assert_allclose(np.stack([found[2]["norm"], found[2]["other"]]), vectors, atol=1e-5)
    assert np.linalg.matrix_rank(cut(held["plain"], EDGE)) == 1  # what stands out, and nothing else


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("parts", ["norms", "head", "all"])
def test_other_parts_are_refined_and_exported(parts, tied, tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.llm.search.lower_bound", lambda differences: 1.0)  # the best one is always taken
    kind = "GPT2" if parts == "all" else "Llama"
    folder = make_tiny_llm(tmp_path / "tiny", kind=kind, tied=tied, layers=2)
    own = load_language_model(folder, fresh=True)
    settings = config(parts=parts, racing=False, reach=0.05, chunk=2048)
    units, about, groups = units_of(own, settings)
    parameters = dict(own.model.named_parameters())
    names = {part.name for unit in units for part in unit.parts}
    expected = {
        "norms": {name for name in parameters if "norm" in name},
        "head": {"model.embed_tokens.weight" if tied else "lm_head.weight"},
        "all": set(parameters),
    }[parts]
    assert names == expected and len(about) == len(units)
    assert sorted(number for group in groups for number in group) == list(range(len(units)))
    if parts == "all":
        assert [units[number].type for number in groups[1]] == [VECTORS], "vectors have a generator of their own"
    made = refine(folder, SELECT, REPORT, settings, folder=tmp_path / "work")
    assert [line["name"] for line in made.log if line["arm"] == "noise"] == [unit.name for unit in units]
    assert made.tensors and made.report["matrices"][0]["type"] in (NORMS, HEAD, VECTORS, "embeddings")
    out = save_refined(made, tmp_path / "refined", model=folder)
    right = score_questions(load_language_model(out), REPORT).correct()
    assert [int(value) for value in right] == made.report["right"]["refined"]
    # Its delta is the same model, also beside its base with memory shared.
    saved = load_file(out / "model.safetensors")
    variant = variant_of(own.model, made.tensors)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        beside, base = variant(tokens).logits, own.model(tokens).logits
        apply_delta(out / "delta.safetensors", own.model)
        torch.testing.assert_close(own.model(tokens).logits, beside)
        assert (beside - base).abs().max() > 1e-4
    for name, weights in made.tensors.items():
        assert torch.equal(saved[name] if name in saved else saved["lm_head.weight"], weights)


def test_groups_have_generators_of_their_own(tmp_path):
    model = load_language_model(make_tiny_llm(tmp_path / "tiny", layers=8))
    settings = config(group=2, percent=50, layers=0)
    units, about, groups = units_of(model, settings)
    assert len(units) == 7 * 4 and [len(group) for group in groups] == [14, 14]
    for group, ranks in zip(groups, ({1, 2}, {3, 4}), strict=True):
        assert {about[number]["rank"] for number in group} == ranks
    assert units_of(model, config(percent=50, layers=0))[2] == [list(range(28))]
