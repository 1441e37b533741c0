"""Adapters in encoders of several families: padding changes nothing, and peft alone reads what was trained."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from d2nwg.adapters import Adapter
from d2nwg.encoders.lora import AdaptedEncoder, LoraShape, adapted_encoder
from d2nwg.utils.errors import UserError
from d2nwg.weights.finetune import Examples, TuneConfig, finetune
from tests.helpers.text_tasks import WORDS, opinions

LAYERS = {"roberta": "self.query", "llama": "q_proj", "gpt2": "c_attn"}


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    """A tiny model of a family with random weights; those of causal language models have no token for padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaModel,
    )

    folder = tmp_path_factory.mktemp(request.param)
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    more = {"pad_token": "<pad>"} if request.param == "roberta" else {}
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **more
    ).save_pretrained(folder)
    wide = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    wide |= {"intermediate_size": 32, "max_position_embeddings": 66}
    torch.manual_seed(0)
    if request.param == "roberta":
        model = RobertaModel(RobertaConfig(**wide))
    elif request.param == "llama":
        model = LlamaForCausalLM(LlamaConfig(**wide, num_key_value_heads=1))
    else:
        sizes = {"vocab_size": len(vocabulary), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
        model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=2))
    model.save_pretrained(folder)
    return request.param, str(folder)


@pytest.mark.parametrize("base", list(LAYERS), indirect=True)
def test_any_encoder_or_causal_language_model_is_a_base(base, tmp_path):
    family, folder = base
    shape = LoraShape(folder, rank=2)
    encoder = AdaptedEncoder(shape)
    assert all(
        f".{LAYERS[family]}.lora_" in name or ".value.lora_" in name or ".v_proj.lora_" in name
        for name in encoder.parameters
    )
    plain = encoder.embed(["good film the", "bad"])
    torch.testing.assert_close(plain[1:], encoder.embed(["bad"]), atol=1e-5, rtol=1e-5)
    assert encoder.embed([("good film", "bad"), ("bad", "a book")]).shape == (2, 16)

    rows = opinions(32)
    examples = Examples([row["text"] for row in rows], np.array([row["label"] for row in rows]), 2)
    head = {"head.weight": torch.zeros(2, 16), "head.bias": torch.zeros(2)}
    *_, (_, state) = finetune(encoder, examples, head, TuneConfig(epochs=4, batch=8, lr=5e-2), 0)
    adapter = Adapter(
        {k: v for k, v in state.items() if k not in head},
        {"weight": state["head.weight"], "bias": state["head.bias"]},
        shape,
        ("bad", "good"),
    )
    out = adapter.save(tmp_path / "mine")
    program = f"""
from peft import PeftModel
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
encoder = SentenceTransformer({folder!r}, device="cpu")
encoder.tokenizer.pad_token = encoder.tokenizer.pad_token or encoder.tokenizer.eos_token
encoder[0].auto_model = PeftModel.from_pretrained(encoder[0].auto_model, {str(out)!r}).eval()
save_file({{"it": encoder.encode(["good film the"], convert_to_tensor=True, normalize_embeddings=True)}},
          {str(tmp_path / "it")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True)
    own = adapter.encoder().embed(["good film the"])
    assert float((own - plain[:1]).norm()) > 1e-2
    torch.testing.assert_close(load_file(tmp_path / "it")["it"], own, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("base", ["roberta"], indirect=True)
def test_an_encoder_is_kept_for_the_next_one_and_lent_to_one_at_a_time(base):
    shape = LoraShape(base[1], rank=2)
    with adapted_encoder(shape, "cpu") as first, adapted_encoder(shape, "cpu") as second:
        assert first is not second
        first.load({name: torch.ones_like(value) for name, value in first.state().items()})
    with adapted_encoder(shape, "cpu") as one, adapted_encoder(shape, "cpu") as other:
        assert {id(one), id(other)} == {id(first), id(second)}
        assert torch.equal(one.embed(["good"]), other.embed(["good"]))  # without what was loaded
    with pytest.raises(ValueError), adapted_encoder(shape, "cpu") as broken:
        raise ValueError
    with adapted_encoder(shape, "cpu") as one, adapted_encoder(shape, "cpu") as other:
        assert broken not in (one, other)


@pytest.mark.parametrize(
    "damaged",
    [
        {"targets": True},
        {"targets": [1]},
        {"rank": "many"},
        {"base": None},
        {"max_tokens": 1.5},
        {"rank": 0},
        {"alpha": -1},
        [1],
        None,
    ],
)
def test_a_shape_that_is_none_is_refused(damaged):
    assert LoraShape.from_json(asdict(LoraShape(targets=("query",)))) == LoraShape(targets=("query",))
    with pytest.raises(UserError, match="is damaged at"):
        LoraShape.from_json({**asdict(LoraShape()), **damaged} if isinstance(damaged, dict) else damaged)
