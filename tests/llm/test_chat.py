"""Chat with one model or two: what is written, in which order, and what happens to long conversations."""

import json
import threading
from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from d2nwg.llm.chat import Answer, ChatSettings, answer_together, draw, fit, stopped
from d2nwg.llm.conversation import Conversation, Turn, as_json, as_markdown, differing, tally
from d2nwg.llm.delta import variant_of
from d2nwg.llm.tally import Tally
from d2nwg.utils.errors import UserError
from tests.tiny_llm import make_tiny_llm

ASK = [{"role": "user", "content": "is the water hot?"}]
BRIEF = ChatSettings(max_tokens=12)
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def other(base):
    change = torch.randn(base[0].state_dict()[NAME].shape, generator=torch.Generator().manual_seed(1))
    return variant_of(base[0], {NAME: base[0].state_dict()[NAME] + change}), base[1]


def say(speaker, messages=ASK, settings=BRIEF, **options) -> Answer:
    return list(answer_together([speaker], [messages], settings, **options))[-1][0]


def test_a_variant_shares_all_but_its_own(base, other):
    before, after = base[0].state_dict(), other[0].state_dict()
    assert [name for name in before if before[name].data_ptr() != after[name].data_ptr()] == [NAME]
    assert not torch.equal(before[NAME], after[NAME])
    with pytest.raises(UserError, match="no tensor model.nothing"):
        variant_of(base[0], {"model.nothing": torch.zeros(1)})
    with pytest.raises(UserError, match="of this shape"):
        variant_of(base[0], {NAME: torch.zeros(1)})


def test_greedy_answers_are_those_of_generate(base):
    model, tokenizer = base
    ids = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    answer = say(base)
    assert answer.text == tokenizer.decode(made, skip_special_tokens=True).strip() and answer.text
    assert answer.tokens == len(made) and answer.ended == "length" and answer.speed > 0


def test_two_answer_together_as_each_alone(base, other):
    settings = ChatSettings(temperature=1.0, top_p=0.9, seed=3, max_tokens=12)
    rounds = list(answer_together([base, other], [ASK, ASK], settings))
    assert rounds[-1][0].text == say(base, settings=settings).text
    assert rounds[-1][1].text == say(other, settings=settings).text != rounds[-1][0].text
    for first, second in rounds[:-1]:  # neither waits for the other
        assert abs(first.tokens - second.tokens) <= 1
    texts = [answers[0].text for answers in rounds]
    assert all(later.startswith(earlier.rstrip()) for earlier, later in pairwise(texts))
    assert say(base, settings=ChatSettings(temperature=1.0, top_p=0.9, seed=4, max_tokens=12)).text != texts[-1]


def test_stopping_keeps_what_is_written(base, other):
    rounds = answer_together([base, other], [ASK, ASK], BRIEF)
    said = [next(rounds) for _ in range(4)]
    first, second = stopped(said[-1])
    assert (first.ended, second.ended) == ("stopped",) * 2 and first.tokens == 4
    assert first.text == said[-1][0].text.strip() != ""
    whole = list(rounds)[-1]
    assert stopped(whole) == whole, "one that is over stays so"


def test_drawing():
    logits = torch.tensor([0.0, 3.0, 2.0, -9.0])
    random = torch.Generator().manual_seed(0)
    assert draw(logits, 0, 1, random) == 1
    assert {draw(logits, 1.0, 0.5, random) for _ in range(50)} == {1}
    assert {draw(logits, 1.0, 0.95, random) for _ in range(200)} == {1, 2}
    drawn = torch.tensor([draw(logits, 1.0, 1.0, random) for _ in range(4000)])
    torch.testing.assert_close((drawn == 1).float().mean(), logits.softmax(-1)[1], atol=0.03, rtol=0)
    for wrong in (dict(temperature=-1), dict(top_p=0), dict(max_tokens=0), dict(seed=-1), dict(temperature="hot")):
        with pytest.raises(UserError, match="should be a (whole )?number from"):
            ChatSettings(**wrong)


def test_the_end_token_ends_it(base):
    model, tokenizer = base
    first = next(answer_together([base], [ASK], BRIEF))[0]
    token = tokenizer(first.text, add_special_tokens=False).input_ids
    was, model.generation_config.eos_token_id = model.generation_config.eos_token_id, [2, *token]
    try:
        answer = say(base)
    finally:
        model.generation_config.eos_token_id = was
    assert answer.ended == "end" and answer.tokens == 0 and answer.text == ""


def test_long_conversations_lose_their_oldest_turns(base):
    tokenizer = base[1]
    said = []
    for number in range(12):
        said += [
            {"role": "user", "content": f"the number {number} is the number"},
            {"role": "assistant", "content": "so it is"},
        ]
    tokens, dropped = fit(tokenizer, [*said, *ASK], "be long", 256, 20)
    text = tokenizer.decode(tokens)
    assert dropped % 2 == 0 and dropped > 0 and len(tokens) <= 236
    assert "be long" in text and "number 0 is" not in text and "number 11 is" in text and "is the water hot?" in text
    answer = say(base, [*said, *ASK], ChatSettings(system="be long", max_tokens=20))
    assert answer.notice == (
        f"The first {dropped} messages no longer fit into the 256 tokens that the model reads, and are left out."
    )
    assert not say(base, said[:2] + ASK).notice
    with pytest.raises(UserError, match=r"Your message is too long: .* the model reads 244; shorten it"):
        say(base, [{"role": "user", "content": "hot water " * 300}])
    with pytest.raises(UserError, match="end with your message"):
        say(base, said)


def test_models_without_a_template_or_without_a_system_role(base):
    from copy import deepcopy

    model, tokenizer = base
    plain, strict = deepcopy(tokenizer), deepcopy(tokenizer)
    plain.chat_template = None
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template
    )
    text = tokenizer.decode(fit(plain, ASK, "be hot", 256, 20)[0])
    assert text.endswith("be hot\n\nUser: is the water hot?\nAssistant:")
    assert say((model, plain)).text
    text = tokenizer.decode(fit(strict, ASK, "be hot", 256, 20)[0])
    assert "user\nbe hot\n\nis the water hot?" in text and "system" not in text


def test_visitors_at_once_do_not_mix(base, other):
    """Eight conversations on the same two models, in threads: each is what it is alone."""
    asked = [
        [{"role": "user", "content": text}]
        for text in ("is it hot?", "how many people?", "find the water", "first or second?")
    ]
    alone = [[answer.text for answer in list(answer_together([base, other], [ask, ask], BRIEF))[-1]] for ask in asked]
    assert len({tuple(texts) for texts in alone}) == len(asked)
    found, failures = [None] * 8, []

    def visit(number):
        try:
            ask = asked[number % 4]
            found[number] = [a.text for a in list(answer_together([base, other], [ask, ask], BRIEF))[-1]]
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and found == alone * 2


def test_differing_words():
    first, second = "The water is very hot today.", "The water is cold\ntoday."
    a, b = differing(first, second)
    assert "".join(text for text, _ in a) == first and "".join(text for text, _ in b) == second
    assert [text.strip() for text, other in a if other and text.strip()] == ["very hot"]
    assert "cold" in "".join(text for text, other in b if other)
    assert not any(other for side in differing(first, first) for _, other in side)
    assert differing("", "so") == ([], [("so", True)])


def test_votes_and_files():
    talk = Conversation(("base", "refined"))
    assert tally(talk).words(talk.names) == "No votes yet."
    for number in range(8):
        answers = [Answer(f"a{number}", 4, 2.0, "end"), Answer("- b\n> c", 4, 1.0, "end", notice="Cut.")]
        turn = Turn(
            f"q{number}", answers, ChatSettings(seed=number), vote=1 if number < 7 else "same", blind=number > 5
        )
        talk.turns.append(turn)
    assert tally(talk) == Tally(0, 7, 1) and tally(talk).p == pytest.approx(2 / 2**7)
    assert "refined is preferred" in tally(talk).words(talk.names)
    talk.turns[0].vote = talk.turns[1].vote = 0
    assert "within chance" in tally(talk).words(talk.names)
    assert talk.messages(1, "next")[:2] == [
        {"role": "user", "content": "q0"},
        {"role": "assistant", "content": "- b\n> c"},
    ]
    assert talk.messages(0, "next")[-1] == {"role": "user", "content": "next"} and len(talk.messages(0)) == 16

    kept = json.loads(as_json(talk))
    assert kept["turns"][3]["answers"][1]["text"] == "- b\n> c" and kept["turns"][3]["settings"]["seed"] == 3
    assert kept["votes"] == {"first": 2, "second": 5, "same": 1, "equal": 0, "p": pytest.approx(0.453125)}
    assert kept["turns"][7]["vote"] == "same"
    text = as_markdown(talk)
    assert (
        "## q3" in text
        and "> - b\n> > c" in text
        and "**refined** (4 tokens, 3.0 a second · preferred)" in text
        and "Votes (2 blind): base 2" in text
    )


def test_pairs_of_equal_answers_are_left_out():
    talk = Conversation(("base", "refined"))
    for texts in (("so  it is\n", "so it is"), ("so", "no"), ("", "")):
        talk.turns.append(Turn("?", [Answer(text) for text in texts], ChatSettings(), vote=1))
    assert [turn.equal for turn in talk.turns] == [True, False, True]
    assert tally(talk) == Tally(0, 1, 0, 2)
    assert "2 pairs of equal answers left out" in tally(talk).words(talk.names)
    assert (
        not Turn("?", [Answer("so")], ChatSettings()).equal
        and json.loads(as_json(Conversation(("a",))))["votes"] is None
    )
