"""Models from strangers: configurations, tokenizers and notes of any shape load, or are refused in a sentence."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.cli import main
from d2nwg.llm.card import model_card
from d2nwg.llm.delta import KEY, read_delta
from d2nwg.llm.models import load_language_model
from d2nwg.llm.questions import ask, read_questions
from d2nwg.llm.score import score_questions
from d2nwg.utils import limits
from tests.helpers.refusals import refusal
from tests.tiny_llm import make_tiny_llm

ASK = [ask("Is it hot?", ["yes", "no"], 0)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", layers=2)


@pytest.fixture
def folder(whole, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(whole, tmp_path / "tiny")


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def opened(folder):
    return load_language_model(folder, device="cpu", fresh=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_hidden_layers": 10**9}, "asks for 1000000000 layers, and its files hold"),
        ({"num_hidden_layers": -1}, "tiny"),
        ({"architectures": 5}, "names no architecture"),
        ({"architectures": [5, {}]}, "names no architecture"),
        ({"architectures": {"a": 1}}, "tiny"),
        ({"hidden_size": "x"}, "tiny"),
        ({"rms_norm_eps": "x"}, "tiny"),
        ({"hidden_act": "x"}, "tiny"),
        ({"num_attention_heads": 0}, "tiny"),
        ({"head_dim": 10**6}, "tiny"),
        ({"quantization_config": 5}, "tiny"),
    ],
)
def test_a_configuration_that_cannot_be(values, words, folder):
    change(folder, "config.json", **values)
    assert words in refusal(opened, folder)


@pytest.mark.parametrize("longest", ["", "x", [], {}])
def test_a_tokenizer_that_cannot_run(longest, folder):
    change(folder, "tokenizer_config.json", model_max_length=longest)
    assert "cannot be run: its configuration does not suit" in refusal(opened, folder)


@pytest.mark.parametrize("text", ["[]", "null", "5", '"x"', "[" * 100_000, "{", ""])
def test_a_configuration_that_is_none(text, folder):
    (folder / "config.json").write_text(text)
    assert "config.json of" in refusal(opened, folder)


@pytest.mark.parametrize("found", ["load", "nonsense", 5, None, [], "int64", "float8_e4m3fn"])
def test_a_number_format_that_is_none(found, folder):
    change(folder, "config.json", dtype=found)
    try:
        model = opened(folder)
    except Exception as reason:  # transformers may refuse it
        assert "tiny" in str(reason) and type(reason).__name__ == "UserError"
    else:
        assert isinstance(model.stored_dtype, torch.dtype) and model.stored_dtype.is_floating_point


@pytest.mark.parametrize("context", [None, "x", -5, 0, 1.5, [], 10**12])
def test_a_context_that_is_none(context, folder):
    change(folder, "config.json", max_position_embeddings=context)
    try:
        assert opened(folder).context in (2048, 10**12)
    except Exception as reason:  # transformers may refuse it
        assert type(reason).__name__ == "UserError"


def test_what_does_not_fit_is_said_before_it_is_loaded(folder, monkeypatch):
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(limits, "free_memory", lambda device: 50_000.0)
    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", lambda *_args, **_options: 1 / 0)
    assert "numbers, needs 1 MB of memory, and 1 MB are free: choose a smaller model" in refusal(opened, folder)
    monkeypatch.undo()
    change(folder, "config.json", vocab_size=10**12)
    assert "needs " in refusal(opened, folder)


@pytest.mark.parametrize("key", ["logit_scale", "logits_scaling", "final_logit_softcapping"])
def test_scales_that_are_no_numbers(key, folder):
    change(folder, "config.json", **{key: "x"})
    assert f"damaged at {key}" in refusal(lambda: score_questions(opened(folder), ASK))


def test_a_tokenizer_of_another_model(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][:50].contiguous()
    save_file(state, path, {"format": "pt"})
    change(folder, "config.json", vocab_size=50)
    model = opened(folder)
    assert "tokens beyond the 50 that the model knows" in refusal(score_questions, model, ASK)


@pytest.mark.parametrize(
    "text", ["[]", "null", "5", "{", "[" * 100_000, '{"name": 5, "licence": ["x"]}', '{"name": "\\ud800"}']
)
def test_a_note_of_any_shape(text, folder):
    (folder / "source.json").write_text(text)
    model = opened(folder)
    assert model.name == str(folder) and model.licence is None
    (folder / "source.json").write_text('{"name": "mine\\u001b[31m", "licence": "mit"}')
    assert opened(folder).name == r"mine\x1b[31m" and opened(folder).licence == "mit"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_files_that_are_none(kind, name, folder, tmp_path):
    shutil.move(folder / name, tmp_path / "elsewhere")
    os.mkfifo(folder / name) if kind == "fifo" else (folder / name).symlink_to(tmp_path / "elsewhere")
    said = refusal(opened, folder)
    assert (
        "no regular file" if kind == "fifo" else "a link that leads elsewhere"
    ) in said or "has no config.json" in said


def test_questions_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "q.jsonl")
    assert "q.jsonl is no regular file" in refusal(read_questions, tmp_path / "q.jsonl")
    assert "is no regular file" in refusal(read_questions, "/dev/zero")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("[]", "damaged or incomplete"),
        ("[" * 100_000, "damaged or incomplete"),
        ('{"version": Infinity, "base": "x"}', "not that of a delta"),
        ('{"version": "1", "base": "x"}', "not that of a delta"),
        ('{"version": 1, "base": 3}', "not that of a delta"),
        ('{"version": 1, "base": "\\ud800"}', "not that of a delta"),
        ('{"version": 1, "base": "x", "hashes": [], "facts": {}}', "not that of a delta"),
        ('{"version": 1, "base": "x", "hashes": {}, "facts": 5}', "not that of a delta"),
        ('{"version": 1, "base": "x", "hashes": {"w": 5}, "facts": {"words": ["\\ud800"]}}', "not that of a delta"),
        ('{"version": 2, "base": "x", "hashes": {"w": ""}}', "newer version"),
    ],
)
def test_a_header_of_a_delta(head, words, tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors", {KEY: head})
    assert words in refusal(read_delta, tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int64, torch.bool])
def test_a_delta_of_other_numbers(dtype, tmp_path):
    head = json.dumps({"version": 1, "base": "x", "hashes": {"w": "", "v": ""}})
    save_file({"w": torch.ones(2).to(dtype), "v": torch.ones(2)}, tmp_path / "x.safetensors", {KEY: head})
    assert "holds numbers that no model has, in w" in refusal(read_delta, tmp_path / "x.safetensors")


@pytest.mark.parametrize("words", [5, None, "said", [5, None], {"a": 1}, ["\ud800"]])
def test_a_card_of_any_report(words):
    text = model_card("x", "a\nb: c", object(), {"words": words, "licence": "mit\nevil: yes", "n": float("nan")})
    text.encode()
    assert "license" not in text.split("---")[1] and "**a\\nb: c**" in text


def test_the_share_of_matrices_is_looked_at_before_the_model(capsys, tmp_path):
    for percent in ("0", "101", "-5"):
        assert (
            main(["llm", "spectrum", str(tmp_path / "no-model"), "--percent", percent, "--out", str(tmp_path / "x")])
            == 2
        )
        assert "above 0 and at most 100 percent" in capsys.readouterr().err
