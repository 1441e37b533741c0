"""A refined language model taken away: as a folder that plain transformers reads, and as a delta on its base."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from d2nwg.llm.delta import apply_delta, fingerprint, merge_deltas, read_delta, save_delta, write_delta
from d2nwg.llm.export import save_model
from d2nwg.utils.errors import UserError
from tests.tiny_llm import make_tiny_llm

TEXT = "Question: what is in the water?\nAnswer:"
TOUCHED = ("model.layers.0.self_attn.q_proj.weight", "model.layers.2.mlp.down_proj.weight")
PLAIN = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer(sys.argv[2], return_tensors="pt")
scores = model(**inputs).logits.log_softmax(-1)[0, -1].tolist()
chat = tokenizer.apply_chat_template([{"role": "user", "content": "hot?"}], tokenize=False, add_generation_prompt=True)
text = tokenizer.decode(model.generate(**inputs, max_new_tokens=24, do_sample=False)[0])
print(json.dumps({"scores": scores, "text": text, "chat": chat}))
"""


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path_factory):
    return make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", tied=request.param)


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def refine(model, seed=1):
    """Change two of its matrices; returns what they were."""
    state, generator = model.state_dict(), torch.Generator().manual_seed(seed)
    before = {name: state[name].clone() for name in state}
    for name in TOUCHED:
        state[name].add_(0.05 * torch.randn(state[name].shape, generator=generator))
    return before


def everything(model):
    return {name: fingerprint(value) for name, value in model.state_dict().items()}


def test_a_fresh_process_scores_and_writes_the_same(folder, tmp_path):
    model, tokenizer = load(folder)
    refine(model)
    model.generation_config.temperature = 0.6  # without do_sample: transformers itself refuses to save this
    report = {"words": ["No better than chance."], "seed": 7, "licence": "apache-2.0"}
    out = save_model(model, tokenizer, tmp_path / "refined", base="me/tiny", source=folder, report=report)
    said = json.loads(
        subprocess.run([sys.executable, "-c", PLAIN, str(out), TEXT], capture_output=True, text=True, check=True).stdout
    )
    inputs = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(said["scores"]), model(**inputs).logits.log_softmax(-1)[0, -1])
    assert said["text"] == tokenizer.decode(model.generate(**inputs, max_new_tokens=24, do_sample=False)[0])
    assert said["chat"].endswith("<|im_start|>assistant\n")

    for path in folder.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            assert (out / path.name).read_bytes() == path.read_bytes()
    stored = load_file(out / "model.safetensors")
    assert ("lm_head.weight" in stored) != model.config.tie_word_embeddings
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.6
    assert model.generation_config.temperature == 0.6
    assert json.loads((out / "report.json").read_text()) == report
    card = (out / "README.md").read_text()
    assert "base_model: me/tiny" in card and "license: apache-2.0" in card and "No better than chance." in card
    with pytest.raises(UserError, match="is there already"):
        save_model(model, tokenizer, out, base="me/tiny")


def test_shards_and_a_tokenizer_without_files(folder, tmp_path):
    model, tokenizer = load(folder)
    tokenizer.name_or_path = "nowhere/to-be-found"
    out = save_model(model, tokenizer, tmp_path / "shards", base=str(folder), shard="40KB")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    # One tensor, the embedding, is larger than a shard and has one to itself.
    assert len(shards) > 3 and sum((out / name).stat().st_size > 44_000 for name in shards) <= 2
    again, tokenizer_again = load(out)
    assert everything(again) == everything(model)
    assert tokenizer_again(TEXT).input_ids == tokenizer(TEXT).input_ids
    assert tokenizer_again.chat_template == tokenizer.chat_template
    assert "base_model:" not in (out / "README.md").read_text()


def test_half_precision_checkpoints_stay_half_where_nothing_is_lost(folder, tmp_path):
    model, tokenizer = load(folder)
    model = model.to(torch.bfloat16).to(torch.float32)
    out = save_model(model, tokenizer, tmp_path / "half", base="me/tiny", dtype=torch.bfloat16)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    stored = load_file(out / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16} and model.dtype == torch.float32
    again = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert everything(again) == everything(model)
    refine(model)  # numbers that bfloat16 does not have
    out = save_model(model, tokenizer, tmp_path / "full", base="me/tiny", dtype=torch.bfloat16)
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    assert everything(AutoModelForCausalLM.from_pretrained(out)) == everything(model)


def test_what_was_read_from_gguf_can_be_saved(folder, tmp_path):
    """transformers keeps the quantiser of a model that it has unpacked, and then refuses to save it."""
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    class Gguf(HfQuantizer):
        is_trainable = False

        def is_serializable(self, *args, **kwargs):
            return False

    model, tokenizer = load(folder)
    model.hf_quantizer = Gguf(QuantizationConfigMixin(quant_method="gguf"))
    with pytest.raises(ValueError, match="serializable"):
        model.save_pretrained(tmp_path / "refused")
    out = save_model(model, tokenizer, tmp_path / "saved", base="me/tiny")
    assert model.hf_quantizer is not None and everything(load(out)[0]) == everything(model)


def test_a_delta_on_its_base_is_bit_for_bit(folder, tmp_path):
    refined = load(folder)[0]
    before = refine(refined)
    path = save_delta(before, refined.state_dict(), tmp_path, name="me/tiny", facts={"seed": 7})
    assert path.name == "delta.safetensors" and set(load_file(path)) == set(TOUCHED)
    base = load(folder)[0]
    applied = apply_delta(path, base)
    assert everything(base) == everything(refined)
    assert applied.base == "me/tiny" and applied.facts == {"seed": 7}
    with pytest.raises(UserError, match="No tensor differs"):
        save_delta(before, before, tmp_path, name="me/tiny", facts={})


def test_a_base_in_another_number_format_is_converted(folder, tmp_path):
    model = load(folder)[0].to(torch.bfloat16).to(torch.float32)  # a half-precision checkpoint, worked on in float32
    half = load(folder)[0].to(torch.bfloat16)
    before = refine(model)
    path = save_delta(before, model.state_dict(), tmp_path, name="me/tiny", facts={})
    apply_delta(path, half)
    assert everything(half) == everything(model)


def test_a_wrong_base_is_refused_and_left_alone(folder, tmp_path):
    refined, _ = load(folder)
    path = save_delta(refine(refined), refined.state_dict(), tmp_path, name="me/tiny", facts={})
    other = load(make_tiny_llm(tmp_path / "other", seed=5))[0]
    was = everything(other)
    with pytest.raises(UserError, match=r"belongs to me/tiny, and 2 tensors of this model"):
        apply_delta(path, other)
    assert everything(other) == was
    with pytest.raises(UserError, match="another shape"):
        apply_delta(path, load(make_tiny_llm(tmp_path / "wide", width=48))[0])
    with pytest.raises(UserError, match="are not what it was made from"):  # its own result is no base either
        apply_delta(path, refined)


def test_damaged_deltas_are_refused(folder, tmp_path):
    refined, _ = load(folder)
    path = save_delta(refine(refined), refined.state_dict(), tmp_path, name="me/tiny", facts={})
    whole, delta = path.read_bytes(), read_delta(path)
    tensors = dict(delta.tensors)
    for data in (whole[:-100], whole[:20], b"", b"\xff" * 100):
        path.write_bytes(data)
        with pytest.raises(UserError, match="damaged or incomplete"):
            read_delta(path)
    save_file(tensors, path)
    with pytest.raises(UserError, match="is no delta"):
        read_delta(path)
    save_file(tensors, path, {"d2nwg_delta": '{"version": 1, "base": 3}'})
    with pytest.raises(UserError, match="damaged"):
        read_delta(path)
    write_delta(delta, path)
    delta.tensors[TOUCHED[0]][0, 0] = float("nan")
    write_delta(delta, path)
    with pytest.raises(UserError, match="numbers that no model has"):
        read_delta(path)
    delta.tensors.pop(TOUCHED[0])
    write_delta(delta, path)
    with pytest.raises(UserError, match="names other tensors"):
        read_delta(path)
    with pytest.raises(UserError, match=r"is not there: give the file delta\.safetensors"):
        read_delta(tmp_path / "gone")


def test_an_average_of_variants(folder, tmp_path):
    base, deltas = load(folder)[0], []
    for seed in (1, 2):
        variant = load(folder)[0]
        before = refine(variant, seed)
        if seed == 2:  # it left this one alone
            variant.state_dict()[TOUCHED[1]].copy_(before[TOUCHED[1]])
        deltas.append(
            read_delta(
                save_delta(before, variant.state_dict(), tmp_path / str(seed), name="me/tiny", facts={"seed": seed})
            )
        )
    soup = merge_deltas(deltas, base)
    assert soup.facts == {"average_of": [{"seed": 1}, {"seed": 2}]}
    first, second = TOUCHED
    was = base.state_dict()[second].clone()
    torch.testing.assert_close(soup.tensors[first], (deltas[0].tensors[first] + deltas[1].tensors[first]) / 2)
    torch.testing.assert_close(soup.tensors[second], (deltas[0].tensors[second] + was) / 2)
    apply_delta(read_delta(write_delta(soup, tmp_path / "soup")), base)
    assert torch.equal(base.state_dict()[second], soup.tensors[second])
    with pytest.raises(UserError, match="at least two"):
        merge_deltas(deltas[:1], base)
