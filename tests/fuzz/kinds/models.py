"""Folders of language models from strangers, deltas, and chat templates."""

import json
import shutil
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file

from tests.fuzz.case import Case
from tests.fuzz.hostile import damage_file, damage_header, damaged_json, damaged_text, json_of, plain
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock

JSON = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "source.json",
]
EVIL = "open({target!r}, 'w')\nfrom transformers import LlamaConfig as EvilConfig, LlamaForCausalLM as EvilModel\n"
TEMPLATES = [
    "{% if",
    "{{ 1 / 0 }}",
    "{{ raise_exception('no') }}",
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ 'a' * 10**12 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ '%1000000000000d' % 1 }}",
    "{{ 'x'.center(10**12) }}",
    "{{ ('x' * 10**6) | center(10**10) }}",
    "{{ lipsum(n=10**8) }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=['ab']) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% include 'x' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends messages %}",
    "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}",
    "{{ strftime_now('%Y') }}",
    "{{ strftime_now('%') }}{{ strftime_now(5) }}",
    "{{ messages | tojson(indent=10**10) }}",
    "{{ messages[99].content }}",
    "{{ undefined.attribute }}",
    "{{ messages | map('x') | list }}",
    "",
    "{% generation %}x{% endgeneration %}",
    "{% for m in messages %}{{ m.content }}{% break %}{% endfor %}",
    "\x1b[31m{{ bos_token }}",
    "{{ eos_token * 300000 }}",
    "{% do messages.append(1) %}",
    "{% set messages = messages[1:] %}{{ messages[0].role }}",
    "{{ range(5) | random }}",
    "{{ 'x' | batch(10**9, 'y') | list }}",
    "{% for a in 'x' * 4000 recursive %}{{ loop([a]) }}{% endfor %}",
    "\ud800",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ 1" + " + 1" * 20000 + " }}",
]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A copy of a model with something wrong, or of a delta, and a verb that loads it."""
    model = stock.copy(stock.llm, room.given)
    delta = stock.copy(stock.delta, room.given)
    (model / "source.json").write_text(
        json.dumps({"name": "tiny", "source": "here", "licence": "mit", "base_model": "a/b"})
    )
    for _ in range(rng.choice((1, 1, 1, 2))):
        _wrong(model, delta, rng, room)
    lines = [
        ["llm", "chat", model, "--max-tokens", 2],
        ["llm", "chat", model, "--max-tokens", 2, "--save", room.out / "talk.json"],
        ["llm", "chat", stock.llm, "--against", rng.choice([model, delta]), "--max-tokens", 2],
        ["llm", "evaluate", model, stock.questions / "select.jsonl"],
        ["llm", "spectrum", model, "--out", room.out / "x.json"],
        ["llm", "apply", delta, model, "--out", room.out / "x"],
    ]
    return Case([*map(str, rng.choice(lines)), "--device", "cpu"], stdin="is it hot\n")


def make_template(rng: Random, room: Room, stock: Stock) -> Case:
    """A model with a hostile chat template, to talk with."""
    model = stock.copy(stock.llm, room.given)
    text = rng.choice(TEMPLATES)
    if rng.random() < 0.3:
        text = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}" + text
    config = json.loads((model / "tokenizer_config.json").read_text())
    where = rng.randrange(4)
    if where == 0:
        (model / "chat_template.jinja").write_bytes(text.encode("utf-8", "surrogatepass"))
    elif where == 1:
        (model / "chat_template.jinja").unlink(missing_ok=True)
        config["chat_template"] = text
    elif where == 2:
        (model / "chat_template.jinja").unlink(missing_ok=True)
        names = rng.choice([["default"], ["tool_use"], ["default", "x"]])
        config["chat_template"] = rng.choice(
            [[{"name": n, "template": text} for n in names], damaged_json([{"name": "default", "template": text}], rng)]
        )
    else:
        (model / "chat_template.jinja").write_bytes(damaged_text((model / "chat_template.jinja").read_text(), rng))
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    system = rng.choice([[], ["--system", "be kind"]])
    line = ["llm", "chat", model, "--max-tokens", 2, *system, "--device", "cpu"]
    return Case([*map(str, line)], stdin="is it hot\nand now\n")


def _wrong(model: Path, delta: Path, rng: Random, room: Room) -> None:
    what = rng.randrange(8)
    path = model / rng.choice(JSON)
    if what < 3 and plain(path):
        if (value := json_of(path)) is None:
            return
        text = json.dumps(damaged_json(value, rng))
        path.write_bytes(damaged_text(text, rng) if rng.random() < 0.1 else text.encode())
    elif what == 3 and plain(model / "config.json"):
        if config := json_of(model / "config.json"):
            (model / "config.json").write_text(json.dumps(_config(config, rng)))
        (model / "evil.py").write_text(EVIL.format(target=str(room.canary / "PWNED")))
    elif what == 4 and plain(model / "model.safetensors"):
        _weights(model / "model.safetensors", rng)
    elif what == 5 and plain(delta):
        damage_header(delta, rng) if rng.random() < 0.7 else damage_file(delta, rng, links=False)
    elif what == 6 and plain(delta):
        folder = room.given / "refined"
        if not folder.exists():
            folder.mkdir()
            shutil.copy(delta, folder / "delta.safetensors")
    else:
        files = [file for file in sorted(model.rglob("*")) if plain(file)]
        if files:
            damage_file(rng.choice(files), rng)


def _config(config, rng: Random):
    if not isinstance(config, dict):
        return config
    changes = [
        {"auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}, "model_type": "evil"},
        {"auto_map": 5},
        {"model_type": "bert"},
        {"model_type": "gpt2"},
        {"model_type": ""},
        {"model_type": None},
        {"architectures": 5},
        {"architectures": ["BertModel"]},
        {"architectures": [5]},
        {"architectures": []},
        {"architectures": {"a": 1}},
        {"dtype": "load"},
        {"dtype": "nonsense"},
        {"dtype": 5},
        {"torch_dtype": "float8_e4m3fn"},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 3},
        {"hidden_size": 10**7},
        {"vocab_size": 10**12},
        {"vocab_size": 10},
        {"max_position_embeddings": 10**12},
        {"max_position_embeddings": -5},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": "x"},
        {"max_position_embeddings": 4},
        {"logit_scale": "x"},
        {"logits_scaling": 0},
        {"logits_scaling": 1e308},
        {"final_logit_softcapping": "x"},
        {"final_logit_softcapping": -1},
        {"rope_scaling": {"type": "x"}},
        {"rope_theta": 0},
        {"rope_theta": "x"},
        {"rms_norm_eps": "x"},
        {"rms_norm_eps": -5},
        {"hidden_act": "x"},
        {"hidden_act": "tanh"},
        {"eos_token_id": "x"},
        {"eos_token_id": [[1]]},
        {"quantization_config": {"quant_method": "gptq"}},
        {"quantization_config": 5},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 0},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"_name_or_path": "/etc/passwd"},
        {"attn_implementation": "/x"},
        {"_attn_implementation": "flash"},
        {"use_cache": "x"},
        {"attention_dropout": 2},
        {"initializer_range": "x"},
        {"head_dim": 10**6},
        {"head_dim": 0},
        {"mlp_bias": True},
        {"pretraining_tp": 10**9},
    ]
    return {**config, **rng.choice(changes)}


def _weights(path: Path, rng: Random) -> None:
    try:
        state = load_file(path)
    except Exception:  # damaged before
        return
    name = rng.choice(sorted(state))
    what = rng.randrange(7)
    if what == 0:
        del state[name]
    elif what == 1:
        state[name].view(-1)[0] = rng.choice([float("nan"), float("inf"), 1e38, -float("inf")])
    elif what == 2:
        state[f"{name}.more"] = torch.ones(2)
    elif what == 3:
        state[name] = state[name][:-1].contiguous()
    elif what == 4:
        state[name] = state[name].to(
            rng.choice([torch.float16, torch.int64, torch.float8_e4m3fn, torch.bool, torch.float64])
        )
    elif what == 5:
        state = {key: value * rng.choice([0, 1e20, 1e-30]) for key, value in state.items()}
    else:
        state = {f"x.{key}": value for key, value in state.items()}
    save_file(state, path, {"format": "pt"} if rng.random() < 0.9 else None)
