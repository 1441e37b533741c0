"""Zoos of adapters of a language model: an interrupted build ends as an undisturbed one, merged weights answer as the
adapter does, and what cannot be built is refused in a sentence."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from d2nwg.cli import main
from d2nwg.encoders.lora import LoraShape
from d2nwg.llm import adapter_zoo
from d2nwg.llm.adapter_zoo import LlmTuning, LlmZooConfig, build_llm_adapters
from d2nwg.llm.lora import AdaptedModel, add, changes, merged, shape_of, soup
from d2nwg.llm.models import load_language_model
from d2nwg.llm.pack import pack
from d2nwg.llm.questions import ask, complete
from d2nwg.llm.score import Scorer, score_questions
from d2nwg.llm.split import write_parts
from d2nwg.llm.zoo_estimate import estimate
from d2nwg.utils.errors import UserError
from d2nwg.weights import tuning
from d2nwg.weights.finetune import TuneConfig
from d2nwg.weights.model_zoo import ModelZoo
from tests.tiny_llm import WORDS, make_tiny_llm

TOPICS = WORDS.split()[:24]
FIRST = [ask(f"Is it {topic}?", ["the one", "no", f"my {topic}"], number % 2) for number, topic in enumerate(TOPICS)]
SECOND = [complete([f"a {topic} was", f"they {topic}"], "at the water", 0) for topic in TOPICS[:12]]
SELECT = [ask(f"Was it {topic}?", ["the one", "no"], number % 2) for number, topic in enumerate(TOPICS[:10])]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny", width=16, layers=2))


@pytest.fixture
def config(base):
    return LlmZooConfig(LoraShape(base, rank=2, alpha=4), TuneConfig(epochs=3, batch=6, lr=1e-2, keep=2), seeds=2)


def random_state(adapted: AdaptedModel, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=draw) for name, value in adapted.state().items()}


def test_a_zoo_of_a_language_model(config, tmp_path):
    said = []
    zoo = build_llm_adapters(
        [FIRST, SECOND], config, tmp_path / "zoo", select=SELECT, progress=lambda *now: said.append(now)
    )
    training = [now for now in said if now[0] == "Training adapters"]
    assert training[-1][1] == training[-1][2] and [now[1] for now in training] == sorted(now[1] for now in training)
    assert len(zoo) == 4 and [record["epoch"] for record in zoo.records] == [2, 3, 2, 3]
    assert zoo.adapters.base == "language-model" and zoo.adapters.tasks[0].parts == [36, 10, 0]
    keys = {"accuracy", "accuracy_norm", "confidence", "confidence_norm"}
    assert zoo.adapters.tasks[0].frozen.keys() == keys
    assert all(record["selection"].keys() == keys for record in zoo.records)
    assert all(record["accuracy"] == record["selection"]["accuracy"] for record in zoo.records)
    one, two = zoo.plain_state(1), zoo.plain_state(3)  # of two seeds
    assert not all(torch.equal(value, two[name]) for name, value in one.items())
    adapted = AdaptedModel(config.shape)
    assert one.keys() == adapted.state().keys() and adapted.key == zoo.adapters.encoder_key
    assert shape_of(zoo, load_language_model(config.shape.base)) == config.shape
    with pytest.raises(UserError, match="whose weights are others"):
        shape_of(zoo, load_language_model(make_tiny_llm(tmp_path / "other", seed=1, width=16, layers=2)))
    about = json.loads((zoo.path / "zoo.json").read_text())
    for damage, words in (
        ({"base": "text-encoder"}, "is no zoo of adapters of a language"),
        ({"shape": {}}, "damaged"),
    ):
        (zoo.path / "zoo.json").write_text(json.dumps({**about, "adapters": {**about["adapters"], **damage}}))
        with pytest.raises(UserError, match=words):
            shape_of(ModelZoo(zoo.path), load_language_model(config.shape.base))
    adapted.load(one)
    again = adapter_zoo.selection(score_questions(adapted.model, SELECT))
    assert again == pytest.approx(zoo.records[1]["selection"], abs=2e-6)


def test_how_long_it_takes_by_the_speed_of_a_few_steps(config, monkeypatch):
    """With a clock that goes on by the tokens that are learnt or scored."""
    now = [0.0]

    class Tuning(LlmTuning):
        def loss(self, chosen):
            now[0] += 0.01 * sum(len(self.rows[int(i)].tokens) for i in chosen) + 5 * (not now[0])  # warming up
            return super().loss(chosen)

    def score(self, *args, **options):
        now[0] += 0.002 * self.pass_tokens

    monkeypatch.setattr(Scorer, "score", score)
    said: list = []
    tuning = Tuning([FIRST], replace(config, seeds=3), SELECT)
    found = estimate(tuning, "cpu", progress=lambda *stage: said.append(stage), clock=lambda: now[0])
    learnt = sum(len(row.tokens) for row in tuning.rows)
    scored = sum(len(pack(tuning.adapted.model, question).tokens) for question in SELECT)
    assert found == pytest.approx(3 * (3 * 0.01 * learnt + 2 * 0.002 * scored) + 0.002 * scored)
    assert said[-4:] == [("Measuring", step, 4) for step in (1, 2, 3, 4)]


@pytest.mark.parametrize("loss", ["answer", "choices"])
def test_it_learns(loss, base, tmp_path):
    """Questions with one answer for all: what was learnt holds for others like them."""
    config = LlmZooConfig(LoraShape(base, rank=4), TuneConfig(epochs=6, batch=6, lr=1e-2, keep=1), seeds=1, loss=loss)
    train, other = ([ask(f"{word} {t}?", ["by day", "more"], 1) for t in TOPICS] for word in ("Has", "Can"))
    zoo = build_llm_adapters([train], config, tmp_path / "zoo", select=other)
    before, after = zoo.adapters.tasks[0].frozen, zoo.records[0]["selection"]
    assert after["confidence_norm"] > before["confidence_norm"] + 0.1 and after["accuracy_norm"] > 0.9


def test_an_interrupted_build_goes_on_to_the_same_zoo(config, tmp_path, monkeypatch):
    whole = build_llm_adapters([FIRST, SECOND], config, tmp_path / "whole")
    assert whole.adapters.tasks[0].parts == [29, 7, 0]  # a fifth is kept aside
    real, count = tuning._train_one, []

    def stop_at_the_second(*args):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(tuning, "_train_one", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        build_llm_adapters([FIRST, SECOND], config, tmp_path / "cut")
    monkeypatch.setattr(tuning, "_train_one", real)
    with pytest.raises(UserError, match="go on with --resume"):
        build_llm_adapters([FIRST, SECOND], config, tmp_path / "cut")
    for other in ({"sources": [FIRST]}, {"select": SELECT}, {"config": replace(config, seeds=3)}):
        with pytest.raises(UserError, match="begun with other tasks or settings"):
            given = {"sources": [FIRST, SECOND], "config": config, **other}
            build_llm_adapters(given.pop("sources"), given.pop("config"), tmp_path / "cut", resume=True, **given)
    cut = build_llm_adapters([FIRST, SECOND], config, tmp_path / "cut", resume=True)
    assert (cut.path / "zoo.json").read_text() == (whole.path / "zoo.json").read_text()
    for number in range(len(whole)):
        assert all(torch.equal(value, cut.state(number)[name]) for name, value in whole.state(number).items())


def tiny_gpt2(folder: Path) -> Path:
    """A GPT-2, whose matrices are Conv1D, with the tokenizer of the tiny Llama."""
    make_tiny_llm(folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 420, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_merged_weights_answer_as_the_adapter_does(kind, base, tmp_path):
    name = base if kind == "llama" else str(tiny_gpt2(tmp_path / "gpt2"))
    shape = LoraShape(name, rank=3, alpha=5)
    adapted, plain = AdaptedModel(shape), load_language_model(name, fresh=True)
    state = random_state(adapted, 1)
    adapted.load(state)
    tokens = torch.arange(1, 41).reshape(2, 20)
    rows = [pack(plain, question) for question in (*FIRST[:3], *SECOND[:3])]
    likely = adapted.likelihoods(rows).detach()
    with torch.inference_mode():
        wanted, before = adapted.network(input_ids=tokens).logits, plain.model(input_ids=tokens).logits
    new = merged(plain, state, shape.scale)
    assert new.keys() <= plain.model.state_dict().keys()
    plain.model.load_state_dict(new, strict=False)
    with torch.inference_mode():
        torch.testing.assert_close(plain.model(input_ids=tokens).logits, wanted)
    scores = np.concatenate(score_questions(plain, [*FIRST[:3], *SECOND[:3]]).choices)
    sums = [
        np.bincount(row.owners, part)
        for row, part in zip(rows, likely.split([len(r.reads) for r in rows]), strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(sums), scores, rtol=1e-4)
    assert not torch.allclose(before, wanted, atol=1e-2)


def test_a_soup_averages_changes_and_not_factors(base):
    shape = LoraShape(base, rank=2, alpha=6)
    adapted, plain = AdaptedModel(shape), load_language_model(base)
    one, two = random_state(adapted, 1), random_state(adapted, 2)
    found = soup(plain, [one, two], shape.scale)
    layer = "model.layers.0.self_attn.q_proj"
    products = [3 * state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"] for state in (one, two)]
    torch.testing.assert_close(found[f"{layer}.weight"], sum(products) / 2)
    turned = {name: -value for name, value in one.items()}  # the same change by other factors
    torch.testing.assert_close(soup(plain, [one, turned], shape.scale), changes(plain, one, shape.scale))
    whole = add(plain, found)
    torch.testing.assert_close(
        whole[f"{layer}.weight"], plain.model.state_dict()[f"{layer}.weight"] + sum(products) / 2
    )
    for broken in ({}, {**one, "head.weight": torch.ones(1)}, {name: v[:1] for name, v in one.items()}):
        with pytest.raises(UserError, match="no adapter|more than an adapter"):
            soup(plain, [broken] if broken else [], shape.scale)


def test_what_cannot_be_built_is_refused(config, tmp_path):
    def refused(words, sources=(FIRST,), config=config, **options):
        with pytest.raises(UserError, match=words):
            build_llm_adapters(list(sources), config, tmp_path / "zoo", **options)
        assert not (tmp_path / "zoo").exists()

    refused("no unfinished zoo", resume=True)
    refused("0 questions are too few", sources=[[]])
    refused("1 question is too few|1 question are too few", sources=[FIRST[:1]])
    refused("have 3 questions in common", select=FIRST[:3])
    refused("no 4 epochs to keep among 3", config=replace(config, tune=replace(config.tune, keep=4)))
    shape = config.shape
    refused("cannot take this adapter", config=replace(config, shape=replace(shape, targets=("nowhere",))))
    refused("rank 17 is more than .* is wide: at most 16", config=replace(config, shape=replace(shape, rank=17)))
    refused("embed_tokens cannot be adapted", config=replace(config, shape=replace(shape, targets=("embed_tokens",))))
    refused("cannot change alone", config=replace(config, shape=replace(shape, targets=("lm_head",))))
    refused("check the path", config=replace(config, shape=LoraShape("./nothing")))
    refused("questions/seed-0 diverged at step", config=replace(config, tune=replace(config.tune, lr=1e30)))


def test_on_the_command_line(base, tmp_path, capsys):
    write_parts({"train": FIRST, "select": SELECT}, tmp_path / "given")
    train, select = (str(tmp_path / "given" / f"{name}.jsonl") for name in ("train", "select"))
    line = ["zoo", "build", train, "--out", str(tmp_path / "zoo"), "--device", "cpu"]
    assert main([*line, "--select", select]) == 2 and "add --llm MODEL" in capsys.readouterr().err
    line += ["--llm", base, "--rank", "2", "--epochs", "1", "--seeds", "5", "--keep", "1", "--rows", "8"]
    assert main([*line, "--about", "x"]) == 2 and "is for adapters of text encoders" in capsys.readouterr().err
    assert main([*line, "--lr", "-1"]) == 2 and "learning rate -1 is none" in capsys.readouterr().err
    assert main([*line, "--select", select, "--select-questions", "7"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["questions"] == [{"train": 8, "select": 7, "cut": "as given"}] and len(said["selection"]) == 6
    assert said["base"]["kind"] == "language-model" and len(ModelZoo(tmp_path / "zoo")) == 5
    assert main(["zoo", "info", str(tmp_path / "zoo")]) == 0 and json.loads(capsys.readouterr().out) == said
    assert main([*line, "--resume"]) == 2 and "exists already" in capsys.readouterr().err
    for generator in ([], ["--generator", "networks"]):
        assert main(["train", "--zoo", str(tmp_path / "zoo"), "--out", str(tmp_path / "bundle"), *generator]) == 2
        assert "adapters of a language model, which no bundle is trained on" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text('{"question": "x"}')
    assert main(["zoo", "build", str(tmp_path / "bad.jsonl"), *line[3:-1], "9", "--out", str(tmp_path / "new")]) == 2
    assert "Line 1 of bad.jsonl has neither choices nor contexts" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not (tmp_path / "bundle").exists()
