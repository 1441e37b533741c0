"""Which prompts tell two models apart: those whose answer is far likelier under one of them than under the other."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from d2nwg.llm.chat import end_tokens, lock_of, tokens_of
from d2nwg.llm.models import check_tokens
from d2nwg.llm.prompts import PROMPTS
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from torch import Tensor

    from d2nwg.llm.models import LanguageModel

TOKENS = 24  # of an answer
MOST = 1000  # prompts
BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}
BATCH_LOGITS = 2**24  # numbers of logits held at once

Rows = Sequence[list[int]]  # of tokens, one a prompt


def telling_prompts(
    base: "LanguageModel",
    other: "LanguageModel",
    prompts: Sequence[str] = PROMPTS,
    count: int = 4,
    *,
    tokens: int = TOKENS,
    progress: Progress = silent,
) -> list[tuple[str, float]]:
    """The prompts whose greedy answer by `base` differs most in likelihood between two models.

    Args:
        other: reads the same answers, with its own chat template and tokenizer.
        prompts: each is the only message of a conversation.
        count: how many to return, at most.
        tokens: most of an answer.
        progress: called before every forward pass; may raise ``Cancelled``.
    Returns:
        Prompts with log p(answer | `base`) − log p(answer | `other`), in nats, divided by the answer's tokens under
        `base`; the largest in absolute value first. Prompts that `base` answers with nothing are left out.
    Raises:
        UserError: there are no prompts or too many, one is too long for a model, or the weights are broken.
    """
    if not 0 < len(prompts) <= MOST:
        raise UserError(f"Give 1 to {MOST:,} prompts.")
    asked = _asked(base, prompts, tokens)
    answers = _greedy(base, asked, tokens, progress)
    kept = [i for i, answer in enumerate(answers) if answer]
    asked, answers = [asked[i] for i in kept], [answers[i] for i in kept]
    ours = _likelihoods(base, asked, answers, "Scoring the answers", progress)
    if other.tokenizer is base.tokenizer:
        theirs = _likelihoods(other, asked, answers, "Scoring them with the other model", progress)
    else:
        texts = [base.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
        read = [other.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        asked = _asked(other, [prompts[i] for i in kept], max(map(len, read), default=0))
        theirs = _likelihoods(other, asked, read, "Scoring them with the other model", progress)
    found = [
        (prompts[i], (one - two) / len(answer)) for i, answer, one, two in zip(kept, answers, ours, theirs, strict=True)
    ]
    return sorted(found, key=lambda pair: -abs(pair[1]))[:count]


def _asked(model: "LanguageModel", prompts: Sequence[str], room: int) -> list[list[int]]:
    """The tokens of prompts in a model's chat template, where so many more fit behind them."""
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    rows = list(tokens_of(model.tokenizer, conversations, ""))
    for prompt, row in zip(prompts, rows, strict=True):
        check_tokens(model.model, row)
        if not 0 < len(row) <= model.context - room:
            raise UserError(f"“{shown(prompt, 60)}” is too long for {model.name}: take shorter prompts.")
    return rows


def _greedy(model: "LanguageModel", asked: Rows, most: int, progress: Progress) -> list[list[int]]:
    """A model's likeliest next tokens, at most so many, up to where the answer ends."""
    import torch
    from transformers import DynamicCache

    ends, stage = end_tokens(model.model, model.tokenizer), "Answering the prompts"
    answers: list[list[int]] = [[] for _ in asked]
    for done, batch in _batches(model, [len(row) + most for row in asked]):
        read, mask, positions = _padded(model, [asked[i] for i in batch])
        cache, open_ = DynamicCache(config=model.model.config), set(batch)
        for step in range(most):
            progress(stage, done + len(batch) * step // most, len(asked))
            with lock_of(model.model), torch.inference_mode():
                logits = model.model(
                    input_ids=read,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits
            drawn = logits[:, -1].argmax(-1)
            for i, token in zip(batch, drawn.tolist(), strict=True):
                if token in ends:
                    open_.discard(i)
                elif i in open_:
                    answers[i].append(token)
            if not open_:
                break
            read, positions = drawn[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(batch), 1)], 1)
    return answers


def _likelihoods(model: "LanguageModel", asked: Rows, answers: Rows, stage: str, progress: Progress) -> list[float]:
    """The log-likelihood of each answer behind its prompt."""
    import torch

    found = [0.0] * len(asked)
    head = max(map(len, answers), default=0) + 1
    size = model.model.get_input_embeddings().weight.shape[0]
    together = max(1, BATCH_LOGITS // (head * size))
    for done, batch in _batches(model, [len(a) + len(b) for a, b in zip(asked, answers, strict=True)], together):
        progress(stage, done, len(asked))
        read, mask, positions = _padded(model, [asked[i] + answers[i] for i in batch])
        keep = max(len(answers[i]) for i in batch) + 1
        with lock_of(model.model), torch.inference_mode():
            logits = model.model(
                input_ids=read, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
            ).logits
        values = logits[:, -keep:-1].float().log_softmax(-1).gather(2, read[:, 1 - keep :, None])[..., 0]
        for row, i in enumerate(batch):
            found[i] = float(values[row, values.shape[1] - len(answers[i]) :].double().sum())
    progress(stage, len(asked), len(asked))
    if not all(map(math.isfinite, found)):
        raise UserError(f"{model.name} gives likelihoods that are no numbers: its weights are broken.")
    return found


def _batches(
    model: "LanguageModel", lengths: Sequence[int], most: int | None = None
) -> Iterator[tuple[int, list[int]]]:
    """Numbers of rows of like length, with how many came before; at most `most` together."""
    budget, done = BATCH_TOKENS.get(model.device.type, 4096), 0
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[batch[0]] > budget):
            yield done, batch
            done, batch = done + len(batch), []
        batch.append(i)
    if batch:
        yield done, batch


def _padded(model: "LanguageModel", rows: Rows) -> "tuple[Tensor, Tensor, Tensor]":
    """Tokens, mask and positions (B, T) of rows that end together: short ones are padded before."""
    import torch

    width = max(map(len, rows))
    read = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return read, mask, (mask.cumsum(1) - 1).clamp_min(0)
