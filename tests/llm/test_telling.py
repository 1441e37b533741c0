"""Prompts that tell two models apart: against each prompt alone, and what is refused."""

import io
import json
from dataclasses import replace

import pytest
import torch

from d2nwg.cli import main
from d2nwg.llm import telling
from d2nwg.llm.delta import save_delta, variant_of
from d2nwg.llm.models import load_language_model
from d2nwg.llm.prompts import FIRST, PROMPTS
from d2nwg.llm.questions import built_in
from d2nwg.llm.telling import telling_prompts
from d2nwg.utils.errors import Cancelled, UserError
from tests.tiny_llm import make_tiny_llm

ASKED = ("is it hot?", "so?", "how many people are there in the first long day by the water?", "find him")
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_language_model(make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def other(base):
    weights = base.model.state_dict()[NAME]
    change = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    return replace(base, model=variant_of(base.model, {NAME: weights + change}))


def answer_of(model, prompt: str, tokens: int) -> list[int]:
    ids = model.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
    ids = torch.tensor([ids if isinstance(ids, list) else ids["input_ids"]])
    made = model.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return ids[0].tolist(), [token for token in made[0, ids.shape[1] :].tolist() if token != 2]


def alone(model, asked: list[int], answer: list[int]) -> float:
    logits = model.model(torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1].log_softmax(-1)
    return float(logits.gather(1, torch.tensor(answer)[:, None]).sum())


@pytest.mark.parametrize("budget", (1, 120, 4096))
def test_differences_are_those_of_each_prompt_alone(base, other, monkeypatch, budget):
    monkeypatch.setitem(telling.BATCH_TOKENS, "cpu", budget)
    expected = {}
    for prompt in ASKED:
        asked, answer = answer_of(base, prompt, 12)
        expected[prompt] = (alone(base, asked, answer) - alone(other, asked, answer)) / len(answer)
    found = telling_prompts(base, other, ASKED, 10, tokens=12)
    assert [prompt for prompt, _ in found] == sorted(ASKED, key=lambda prompt: -abs(expected[prompt]))
    assert dict(found) == pytest.approx(expected, abs=1e-4) and abs(found[0][1]) > 1e-2
    assert telling_prompts(base, other, ASKED, 2, tokens=12) == found[:2]


def test_a_model_is_not_told_from_itself(base):
    assert all(value == 0 for _, value in telling_prompts(base, base, ASKED, 4, tokens=6))


def test_a_model_with_another_tokenizer_reads_the_same_answer(base, tmp_path):
    folder = make_tiny_llm(tmp_path / "second", seed=1)
    second = load_language_model(folder, device="cpu")
    assert second.tokenizer is not base.tokenizer
    same = telling_prompts(base, replace(second, tokenizer=base.tokenizer), ASKED[:2], 2, tokens=6)
    assert [prompt for prompt, _ in telling_prompts(base, second, ASKED[:2], 2, tokens=6)] == [p for p, _ in same]


def test_answers_that_end_at_once_are_left_out(base, monkeypatch):
    _, answer = answer_of(base, ASKED[0], 3)
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", [2, answer[0]])
    found = dict(telling_prompts(base, base, ASKED, 9, tokens=3))
    assert ASKED[0] not in found
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", list(range(len(base.tokenizer))))
    assert telling_prompts(base, base, ASKED, 9, tokens=3) == []


def test_progress_and_cancelling(base, other):
    seen = []
    telling_prompts(base, other, ASKED, 1, tokens=4, progress=lambda *stage: seen.append(stage))
    assert len({stage for stage, _, _ in seen}) == 3 and all(0 <= done <= total == 4 for _, done, total in seen)
    for after in (0, 2, len(seen) - 2):
        calls = []

        def stop(*stage, calls=calls, after=after):
            calls.append(stage)
            if len(calls) > after:
                raise Cancelled

        with pytest.raises(Cancelled):
            telling_prompts(base, other, ASKED, 1, tokens=4, progress=stop)
        assert len(calls) == after + 1


def test_the_command_line_asks_them_first(base, tmp_path, monkeypatch, capsys):
    weights, deltas = base.model.state_dict(), []
    for factor in (3, -2):
        path = tmp_path / f"{factor}.safetensors"
        deltas.append(str(save_delta(weights, {NAME: factor * weights[NAME]}, path, name="tiny", facts={})))
    chat = ["llm", "chat", str(base.folder), "--max-tokens", "6", "--device", "cpu"]
    monkeypatch.setattr("sys.stdin", io.StringIO("is it hot?\n"))
    assert main([*chat, "--against", *deltas, "--telling", "2", "--save", str(tmp_path / "talk.json")]) in (0, None)
    printed = capsys.readouterr().out
    assert printed.count("nats a token likelier under it") == 2 and printed.count("refined (3): 6 tokens") == 3
    assert sum(f"> {prompt}" in printed for prompt in PROMPTS) == 2
    kept = json.loads((tmp_path / "talk.json").read_text("utf-8"))
    assert kept["models"][1:] == ["refined", "refined (3)"] and len(kept["turns"]) == 1
    assert len({answer["text"] for answer in kept["turns"][0]["answers"]}) == 3 and kept["votes"] is None
    assert main([*chat, "--telling", "2"]) and "name the other one with --against" in capsys.readouterr().err


def test_what_is_refused(base, other):
    for prompts, words in (((), "1 to 1,000 prompts"), (("so?",) * 1001, "1 to 1,000"), (("hot " * 400,), "too long")):
        with pytest.raises(UserError, match=words):
            telling_prompts(base, other, prompts)
    weights = {NAME: torch.full_like(base.model.state_dict()[NAME], float("nan"))}
    with pytest.raises(UserError, match="weights are broken"):
        telling_prompts(base, replace(base, model=variant_of(base.model, weights)), ASKED[:1])


def test_the_prompts_are_none_of_the_questions():
    asked = {question.contexts[0].removeprefix("Question: ").removesuffix("\nAnswer:") for question in built_in()}
    own = {prompt.removeprefix("Question: ").removesuffix("\nAnswer:") for prompt in PROMPTS}
    assert not {text.casefold() for text in asked} & {text.casefold() for text in own}
    assert len(set(PROMPTS)) == len(PROMPTS) >= 24 and set(FIRST) <= set(PROMPTS) and max(map(len, PROMPTS)) <= 140
