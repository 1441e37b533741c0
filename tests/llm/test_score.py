"""Scores of choices: those of lm-evaluation-harness, however they are computed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from d2nwg.llm.checks import same_when_reused
from d2nwg.llm.models import load_language_model
from d2nwg.llm.pack import pack
from d2nwg.llm.questions import Question, ask, complete
from d2nwg.llm.score import Scorer, score_questions
from d2nwg.utils.errors import UserError
from tests.tiny_llm import make_tiny_llm

QUESTIONS = [
    ask("What would you call the part of a day with no sun?", ["night", "noon", "the long water day", "a word"], 0),
    ask("How many people may go down?", ["one", "two people", "many more than the other one said"], 2),
    ask("Is it hot?", ["it is", "it is not"], 1),
    complete(["The water was hot because the sun", "The water was hot because the number"], "had been on it.", 0),
    complete(["Look at her", "Did he look at them and then look at her"], "now.", 1),
    Question(("Find the  ", "Find the  "), ("way", "day"), 0),  # spaces go over to the continuation
    Question(("", ""), (" first people", " who could not"), 1),
    ask("word " * 300, ["down", "up there"], 1),  # longer than the model reads
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_language_model(make_tiny_llm(tmp_path_factory.mktemp("tiny") / "tiny", layers=4))


def by_hand(model, question: Question) -> np.ndarray:
    """The harness's formula: one full pass a choice, the log-probabilities of the continuation's tokens added up."""
    found = []
    for context, continuation in zip(question.contexts, question.continuations, strict=True):
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        if context:
            whole, before = model.tokenizer.encode(context + continuation), model.tokenizer.encode(context)
        else:
            before = [model.tokenizer.bos_token_id]
            whole = before + model.tokenizer.encode(continuation, add_special_tokens=False)
        after = whole[len(before) :]
        fed = torch.tensor([whole[-(model.context + 1) :][:-1]])
        with torch.inference_mode():
            logits = model.model(fed).logits[0].log_softmax(-1)
        found.append(sum(float(logits[i - len(after), token]) for i, token in enumerate(after)))
    return np.array(found)


def test_equals_the_harness_formula(model):
    scores = score_questions(model, QUESTIONS, batch_tokens=200)
    expected = [by_hand(model, question) for question in QUESTIONS]
    for mine, theirs in zip(scores.choices, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert np.ptp(np.concatenate(expected)) > 10  # they differ by far more than the tolerance
    right = [int(np.argmax(values)) == question.answer for values, question in zip(expected, QUESTIONS, strict=True)]
    assert scores.correct().tolist() == right and scores.accuracy() == pytest.approx(np.mean(right))
    normed = [
        int(np.argmax(values / [len(text.strip()) for text in question.continuations])) == question.answer
        for values, question in zip(expected, QUESTIONS, strict=True)
    ]
    assert scores.correct(normalise=True).tolist() == normed
    shares = [np.exp(v - v.max()) / np.exp(v - v.max()).sum() for v in expected]
    sure = np.mean([np.log(share[q.answer]) for share, q in zip(shares, QUESTIONS, strict=True)])
    assert scores.confidence() == pytest.approx(sure, abs=1e-4)


def test_equals_lm_evaluation_harness(model):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=1, max_length=model.context)
    requests, owners = [], []
    for number, question in enumerate(QUESTIONS):
        for context, continuation in zip(question.contexts, question.continuations, strict=True):
            requests.append(Instance("loglikelihood", {}, (context, continuation), len(requests)))
            owners.append(number)
    theirs = np.array([value for value, _ in harness.loglikelihood(requests, disable_tqdm=True)])
    mine = np.concatenate(score_questions(model, QUESTIONS).choices)
    np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_a_token_that_spans_context_and_choice(model, tmp_path):
    """As the harness scores it; where it would stop with an error, because no token is left, the choice by itself."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<|endoftext|>"))  # no pre-tokenizer: tokens may hold several words
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    core.train_from_iterator(["Answer: yes Answer: no it is Question: ab\n"] * 50, trainer)
    names = dict(bos_token=special[1], eos_token=special[2], pad_token=special[2], unk_token=special[0])
    own = replace(model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=core, **names))

    def tokens(text):
        return own.tokenizer.encode(text, add_special_tokens=False)

    questions = [ask("ab", ["yes", "no", "yes it", "no it is", "is no yes"], 0)]
    pairs = [(c, t) for q in questions for c, t in zip(q.contexts, q.continuations, strict=True)]
    pairs.append(("<|im_start|>ab", " it is"))
    pairs.append(("", "<|im_start|> no"))
    spans = [len(tokens(c + t)) - len(tokens(c)) for c, t in pairs]
    merged = [tokens(c + t)[: len(tokens(c))] != tokens(c) for c, t in pairs]
    assert any(m and n > 0 for m, n in zip(merged, spans, strict=True)) and min(spans[:5]) <= 0
    harness = HFLM(pretrained=own.model, tokenizer=own.tokenizer, batch_size=1, max_length=own.context)
    for (context, continuation), left in zip(pairs, spans, strict=True):
        mine = score_questions(own, [Question((context,) * 2, (continuation, " it is"), 0)]).choices[0][0]
        if left > 0:
            request = Instance("loglikelihood", {}, (context, continuation), 0)
            expected = harness.loglikelihood([request], disable_tqdm=True)[0][0]
        else:
            with pytest.raises(AssertionError):
                harness.loglikelihood([Instance("loglikelihood", {}, (context, continuation), 0)], disable_tqdm=True)
            before, after = tokens(context), tokens(continuation)
            with torch.inference_mode():
                logits = own.model(torch.tensor([before + after])).logits[0].log_softmax(-1)
            expected = sum(float(logits[len(before) + i - 1, token]) for i, token in enumerate(after))
        assert mine == pytest.approx(expected, abs=1e-4), (context, continuation)


def test_a_shared_prefix_is_computed_once(model):
    row = pack(model, QUESTIONS[0])
    alone = [len(model.tokenizer.encode(c + t)) for c, t in zip(*_texts(QUESTIONS[0]), strict=True)]
    assert len(row.tokens) < 0.5 * sum(alone)
    assert row.segments.count(0) == min(len(model.tokenizer.encode(c)) for c in QUESTIONS[0].contexts)


def _texts(question):
    return question.contexts, question.continuations


@pytest.mark.parametrize("keep_bytes", [2**28, 0])
def test_activations_below_are_reused(model, keep_bytes):
    own = load_language_model(model.folder, fresh=True)
    scorer = Scorer(own, QUESTIONS, batch_tokens=300, keep_bytes=keep_bytes)
    whole = scorer.score()
    runs = [0] * 4
    for number, block in enumerate(own.model.model.layers):
        block.register_forward_hook(lambda *_, number=number: runs.__setitem__(number, runs[number] + 1))
    for depth in (1, 3):
        scorer.advance(depth)
        runs[:] = [0] * 4
        for mine, theirs in zip(scorer.score().choices, whole.choices, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
        assert runs[:depth] == [0] * depth and all(runs[depth:])
    with torch.no_grad():
        own.model.model.layers[3].mlp.down_proj.weight.mul_(1.5)
    changed, fully = scorer.score(), Scorer(own, QUESTIONS).score()
    for mine, theirs, before in zip(changed.choices, fully.choices, whole.choices, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
        assert np.abs(mine - before).max() > 1e-3
    scorer.close()
    assert not any(scorer.depths) and scorer.blocks is own.model.model.layers and len(scorer.blocks) == 4


@pytest.mark.parametrize("kind", ["Qwen3", "Mistral", "Gemma2", "Granite"])
def test_other_builds_score_the_same(model, tmp_path, kind):
    """Norms on queries, a sliding window, scaled embeddings, capped logits."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(model.tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=4, head_dim=16,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(transformers, f"{kind}ForCausalLM")(config)
    network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    own = load_language_model(tmp_path / "model", fresh=True)
    few = QUESTIONS[:5]
    scorer = Scorer(own, few)
    for mine, question in zip(scorer.score().choices, few, strict=True):
        np.testing.assert_allclose(mine, by_hand(own, question), atol=2e-4)
    whole = scorer.score()
    scorer.advance(2)
    same = all(np.abs(a - b).max() < 1e-3 for a, b in zip(scorer.score().choices, whole.choices, strict=True))
    assert same == same_when_reused(own, few)
    assert same or kind == "Gemma2"


def test_broken_weights_and_no_questions_are_said(model):
    own = load_language_model(model.folder, fresh=True)
    with torch.no_grad():
        own.model.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="no numbers"):
        score_questions(own, QUESTIONS)
    with pytest.raises(UserError, match="no questions"):
        score_questions(own, [])
