"""Families of language models: what they are made of, and whole refinements of the ones that are no Llamas."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from d2nwg.llm.architectures import TYPES, decoder_of, family_of, head, matrices, norms, pieces, whole
from d2nwg.llm.choice import choose
from d2nwg.llm.chunks import Chunks
from d2nwg.llm.models import load_language_model
from d2nwg.llm.refine import refine, save_refined
from d2nwg.llm.score import Scorer, score_questions
from d2nwg.llm.spectrum import measure, rank
from tests.llm.test_refine import REPORT, SELECT, config
from tests.llm.test_score import QUESTIONS, by_hand
from tests.tiny_llm import make_tiny_llm

KINDS = {
    "Llama": ("Llama", {"q", "k", "v", "o", "up", "gate", "down"}),
    "Phi3": ("Phi-3", {"qkv", "o", "gate_up", "down"}),
    "GPT2": ("GPT-2", {"qkv", "o", "up", "down"}),
}


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory):
    folder = make_tiny_llm(tmp_path_factory.mktemp("kinds") / request.param, kind=request.param, tied=False)
    return load_language_model(folder), KINDS[request.param]


def test_every_parameter_is_in_one_unit(model):
    (model, (family, types)) = model
    assert family_of(decoder_of(model.model)).name == family
    units = matrices(model.model)
    parameters = dict(model.model.named_parameters())
    assert {unit.type for unit in units} == types <= set(TYPES) and len(units) == 3 * len(types)
    everything = whole(model.model)
    names = [part.name for unit in everything for part in unit.parts]
    assert sorted(names) == sorted(parameters)
    assert all(part.shape == parameters[part.name].shape for unit in everything for part in unit.parts)
    assert [unit.layer for unit in everything] == sorted(unit.layer for unit in everything)
    vectors = {name for name, value in parameters.items() if value.ndim == 1}
    of_norms = {part.name for part in norms(model.model).parts}
    assert of_norms <= vectors and len(of_norms) == (14 if family == "GPT-2" else 7)
    assert head(model.model).parts[0].name == "lm_head.weight" and head(model.model).layer == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_head_is_the_embedding_and_changes_everything_above(kind, tmp_path):
    model = load_language_model(make_tiny_llm(tmp_path / kind, kind=kind)).model
    top = head(model)
    assert top.layer == 0 and model.get_parameter(top.name) is model.get_input_embeddings().weight


def test_rows_are_vectors_of_the_residual_stream(model, tmp_path):
    """A matrix that reads from the stream gives 0 for what its rows do not see; one that writes gives sums of them."""
    from safetensors.torch import save_file

    (model, _) = model
    units, parameters = matrices(model.model), dict(model.model.named_parameters())
    save_file({name: value.clone().contiguous() for name, value in parameters.items()}, tmp_path / "all.safetensors")
    chunks = Chunks(tmp_path / "all.safetensors", units[: len(units) // 3], 32, 512)
    for unit in chunks.units:
        part = unit.parts[0]
        rows = chunks.lay_out(part, parameters[part.name])
        module = model.model.get_submodule(unit.name.removesuffix(".weight"))
        nothing = module(torch.zeros(1, parameters[part.name].shape[0 if "Conv1D" in repr(module) else 1]))
        if unit.type in ("o", "down"):
            impulse = torch.zeros(1, len(rows))
            impulse[0, 5] = 1
            torch.testing.assert_close((module(impulse) - nothing)[0], rows[5])
        else:
            direction = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close((module(direction) - nothing)[0], rows @ direction[0])
        cut = [len(piece) for piece in pieces(part, rows)]
        expected = {("Phi3", "qkv"): [32, 16, 16], ("GPT2", "qkv"): [32, 32, 32], ("Phi3", "gate_up"): [64, 64]}
        assert cut == expected.get((type(model.model).__name__[:4], unit.type), [len(rows)])


def test_scores_are_the_same_without_the_blocks_below(model):
    (model, _) = model
    scorer = Scorer(model, QUESTIONS[:5])
    whole_scores = scorer.score()
    for mine, question in zip(whole_scores.choices, QUESTIONS[:5], strict=True):
        np.testing.assert_allclose(mine, by_hand(model, question), atol=2e-4)
    for depth in (1, 2, 3):
        scorer.advance(depth)
        for mine, theirs in zip(scorer.score().choices, whole_scores.choices, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert model.model.training is False and len(scorer.blocks) == 3
    for mine, theirs in zip(score_questions(model, QUESTIONS[:5]).choices, whole_scores.choices, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", ["Phi3", "GPT2"])
def test_look_refine_export_and_plain_transformers(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("d2nwg.llm.search.lower_bound", lambda differences: 1.0)  # the best one is always taken
    folder = make_tiny_llm(tmp_path / kind, kind=kind)
    model = load_language_model(folder)
    ranked = rank(measure(model), "paper", 34)
    assert {row.matrix.type for row in ranked if row.chosen} == KINDS[kind][1]
    assert len(choose(model, config(layers=4))) == 4
    settings = config(racing=False, reach=0.1)
    made = refine(folder, SELECT, REPORT, settings, folder=tmp_path / "work")
    assert made.tensors and made.report["reuses_activations"]
    out = save_refined(made, tmp_path / "refined", model=folder)
    code = (
        "import sys, torch\nfrom transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "torch.save([model.state_dict(), model(torch.arange(3, 40)[None]).logits], sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(out), str(tmp_path / "out.pt")], check=True)
    state, logits = torch.load(tmp_path / "out.pt", weights_only=True)
    own = load_language_model(folder, fresh=True)
    with torch.no_grad():
        for name, weights in made.tensors.items():
            assert torch.equal(state[name], weights) and not torch.equal(weights, own.model.get_parameter(name))
            own.model.get_parameter(name).copy_(weights)
        torch.testing.assert_close(own.model(torch.arange(3, 40)[None]).logits, logits)
    right = score_questions(load_language_model(out), REPORT).correct()
    assert [int(value) for value in right] == made.report["right"]["refined"]
