"""Model folders that are not whole, or bring code of their own, are refused in a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.llm.models import load_language_model
from d2nwg.utils.errors import UserError
from tests.tiny_llm import make_tiny_llm


@pytest.fixture
def folder(tmp_path):
    return make_tiny_llm(tmp_path / "tiny", layers=2)


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_weights(folder, function):
    state = load_file(folder / "model.safetensors")
    function(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
def test_whole_ones_load_whether_tied_or_not(tmp_path, tied):
    model = load_language_model(make_tiny_llm(tmp_path / "tiny", tied=tied)).model
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def lacks_a_layer(folder):
    change_weights(folder, lambda state: [state.pop(name) for name in list(state) if ".1." in name])


def has_an_extra_layer(folder):
    change(folder / "config.json", num_hidden_layers=1)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lacks_a_layer, r"9 tensors are missing from its files \(model\.layers\.1\.input_layernorm\.weight, "),
        (lambda f: change(f / "config.json", num_hidden_layers=3), r"9 tensors are missing .*layers\.2\."),
        (lambda f: change(f / "config.json", model_type="qwen3"), r"4 tensors are missing .*k_norm\.weight"),
        (lambda f: change(f / "config.json", tie_word_embeddings=False), r"1 tensor is missing .*lm_head\.weight"),
        (lambda f: change(f / "config.json", intermediate_size=48), r"6 tensors are of another shape .*mlp\.down_proj"),
        (has_an_extra_layer, r"9 tensors are in its files without a place .*layers\.1\."),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, harm, words):
    harm(folder)
    with pytest.raises(UserError, match=f"is not whole: {words}"):
        load_language_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(folder, value):
    def harm(state):
        state["model.layers.1.mlp.up_proj.weight"][3, 4] = value

    change_weights(folder, harm)
    with pytest.raises(UserError, match=r"not finite numbers, in model\.layers\.1\.mlp\.up_proj\.weight: "):
        load_language_model(folder)


@pytest.fixture
def code(folder, tmp_path, monkeypatch):
    """A file that says so when it is run, beside the model; nobody may be asked whether to run it."""
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"open({str(ran)!r}, 'w')\n"
        "from transformers import LlamaConfig as C, LlamaForCausalLM as M, PreTrainedTokenizerFast as T\n"
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the standard input"))
    return ran


def test_code_in_the_config_is_neither_run_nor_asked_about(folder, code):
    change(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    with pytest.raises(UserError, match=r"code of its own \(auto_map in its config\.json\), which is never run"):
        load_language_model(folder)
    assert not code.exists()


def test_code_that_is_not_needed_is_left_alone(folder, code):
    change(folder / "config.json", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    assert torch.isfinite(load_language_model(folder).model(torch.tensor([[1, 2]])).logits).all()
    assert not code.exists()


def test_code_of_the_tokenizer_is_neither_run_nor_asked_about(folder, code):
    change(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": [None, "own.T"]})
    with pytest.raises(UserError, match=r"auto_map in its tokenizer_config\.json"):
        load_language_model(folder)
    assert not code.exists()
