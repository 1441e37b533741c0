"""Questions as rows of tokens: the choices of each packed behind the text that they share (`d2nwg.llm.score`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from d2nwg.llm.questions import Question
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.llm.models import LanguageModel

JOINED = 32  # most tokens that texts may have fewer together than one by one


@dataclass(frozen=True)
class Row:
    """A question's choices packed into one row of T tokens.

    Attributes:
        tokens, positions, segments: (T,) token, position in its own text, and which choice (0: shared by all).
        reads: (N,) places whose prediction is scored, ``targets`` (N,) the token expected there, ``owners`` (N,) the
            choice that it counts for.
    """

    tokens: list[int]
    positions: list[int]
    segments: list[int]
    reads: list[int]
    targets: list[int]
    owners: list[int]


def pair(model: "LanguageModel", context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of a context and of its continuation, split as lm-evaluation-harness splits them.

    Both are tokenised together, and as many tokens cut off as the context has by itself. Where one token spans the
    whole continuation and the end of the context, that leaves nothing, and the harness stops with an error (its issues
    1297 and 3336); the continuation is then tokenised by itself, as its maintainers propose (issue 1053).

    Returns:
        Tokens of the context, at least one, and of the continuation, at least one.
    Raises:
        UserError: the tokenizer has no tokens for one of them.
    """
    tokenizer = model.tokenizer
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    alone = tokenizer.encode(continuation, add_special_tokens=False)
    if context:
        # The harness adds no start token to a text that begins with one.
        special = start is None or not context.startswith(tokenizer.decode(start))
        before = tokenizer.encode(context, add_special_tokens=special)
        after = tokenizer.encode(context + continuation, add_special_tokens=special)[len(before) :] or alone
    else:
        before, after = ([start], alone) if alone[:1] != [start] else (alone[:1], alone[1:])
    if None in before or not before or not after:
        raise UserError(f"The tokenizer of {model.name} has no tokens for {shown(context + continuation)!r}.")
    return before, after


def room(
    model: "LanguageModel", question: Question, most: int | None = None
) -> tuple[int, list[tuple[list[int], list[int]]]]:
    """How many of a question's examples a model can read before each of its choices, the last ones, and the tokens of
    context and continuation (`pair`) of each choice behind them.

    Args:
        most: tokens; by default what the model can read.
    """
    most = min(model.context, most or model.context)
    kept = tokens = 0
    for example in reversed(question.examples):  # what cannot fit is not joined and read once a choice
        tokens += len(model.tokenizer.encode(example, add_special_tokens=False))
        if tokens > most + JOINED:
            break
        kept += 1
    while True:
        before = "".join(question.examples[len(question.examples) - kept :])
        choices = zip(question.contexts, question.continuations, strict=True)
        pairs = [pair(model, before + context, continuation) for context, continuation in choices]
        if not kept or all(len(context) + len(continuation) <= most + 1 for context, continuation in pairs):
            return kept, pairs
        kept -= 1


def pack(model: "LanguageModel", question: Question, most: int | None = None) -> Row:
    """A question's choices in one row behind what their texts have in common. Of a text longer than the model can read,
    or than so many tokens, the foremost examples are left out; without examples it loses its beginning."""
    most = min(model.context, most or model.context)
    texts = []
    for before, after in room(model, question, most)[1]:
        whole = (before + after)[-(most + 1) :]
        texts.append((whole, min(len(after), len(whole) - 1)))
    inputs = [whole[:-1] for whole, _ in texts]  # the last token predicts nothing that counts
    shared = 0
    for column in zip(*inputs, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    row = Row(list(inputs[0][:shared]), list(range(shared)), [0] * shared, [], [], [])
    for owner, (whole, count) in enumerate(texts):
        start = len(row.tokens)
        row.tokens.extend(whole[shared:-1])
        row.positions.extend(range(shared, len(whole) - 1))
        row.segments.extend([owner + 1] * (len(whole) - 1 - shared))
        for place in range(len(whole) - count, len(whole)):
            before = place - 1
            row.reads.append(before if before < shared else start + before - shared)
            row.targets.append(whole[place])
            row.owners.append(owner)
    return row


def inputs_of(model: "LanguageModel", rows: Sequence[Row]) -> dict[str, Tensor]:
    """Tokens, positions (B, T) and mask (B, 1, T, T) of some rows; short ones are padded behind."""
    device, width = model.device, max(len(row.tokens) for row in rows)

    def padded(values: list[int], fill: int) -> list[int]:
        return values + [fill] * (width - len(values))

    tokens = torch.tensor([padded(row.tokens, 0) for row in rows], device=device)
    positions = torch.tensor([padded(row.positions, 0) for row in rows], device=device)
    segments = torch.tensor([padded(row.segments, -1) for row in rows], device=device)
    place = torch.arange(width, device=device)
    seen = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    seen &= place[None, :, None] >= place[None, None, :]
    dtype = model.model.dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    return {"input_ids": tokens, "position_ids": positions, "attention_mask": mask[:, None]}
