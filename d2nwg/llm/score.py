"""Log-likelihoods of the choices of questions, as lm-evaluation-harness computes them, with shared prefixes.

The choices of a question mostly follow the same text. They are packed behind it into one row, with an attention mask
that separates them and positions as if each stood alone, so that the prefix is computed once. The results are those of
a separate forward pass for each choice.

A `Scorer` can also keep the inputs of a decoder block for every row (`advance`): changed weights in that block or above
are then scored without running the blocks below again.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from d2nwg.llm.models import check_tokens
from d2nwg.llm.questions import Question
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.llm.models import LanguageModel

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
BATCH_LOGITS = 2**23  # numbers of logits held at once


@dataclass(frozen=True)
class Scores:
    """Likelihoods of every choice of Q questions.

    Attributes:
        choices: per question, (C,) log-likelihood of each choice.
        lengths: per question, (C,) characters of each choice without the space before it, as the harness counts.
        answers: (Q,) index of the right one.
    """

    choices: tuple[np.ndarray, ...]
    lengths: tuple[np.ndarray, ...]
    answers: np.ndarray

    def correct(self, normalise: bool = False) -> np.ndarray:
        """(Q,) bool: the right choice is the likeliest (the harness's acc), or per character (its acc_norm)."""
        return np.array([int(np.argmax(values)) for values in self._values(normalise)]) == self.answers

    def accuracy(self, normalise: bool = False) -> float:
        """The share of right answers, a fraction."""
        return float(self.correct(normalise).mean())

    def confidence(self, normalise: bool = False) -> float:
        """The mean log-probability of the right choice, normalised over the choices of its question; at most 0."""
        found = []
        for values, answer in zip(self._values(normalise), self.answers, strict=True):
            found.append(values[answer] - values.max() - math.log(np.exp(values - values.max()).sum()))
        return float(np.mean(found))

    def _values(self, normalise: bool) -> Iterator[np.ndarray]:
        for values, lengths in zip(self.choices, self.lengths, strict=True):
            yield values / lengths if normalise else values


@dataclass(frozen=True)
class _Row:
    """A question's choices packed into one row.

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


class Scorer:
    """Scores a fixed list of questions repeatedly, while a model's weights change.

    Args:
        model: between calls, only its blocks from the depth of `advance` on may change.
        questions: at least one.
        batch_tokens: most tokens in a batch; by default by device (`BATCH_TOKENS`).
        keep_bytes: kept activations beyond this many bytes go to a temporary folder.
    Raises:
        UserError: no questions.
    """

    def __init__(
        self,
        model: "LanguageModel",
        questions: Sequence[Question],
        *,
        batch_tokens: int | None = None,
        keep_bytes: int = 2**28,
    ):
        if not questions:
            raise UserError("There are no questions to score.")
        self.model, self.questions = model, list(questions)
        self.base = model.model.get_decoder() if hasattr(model.model, "get_decoder") else model.model.base_model
        rows = [pack(model, question) for question in self.questions]
        for row in rows:
            check_tokens(model.model, (*row.tokens, *row.targets))
        budget = batch_tokens or BATCH_TOKENS.get(model.device.type, 4096)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
        self.batches: list[list[int]] = []
        for index in order:  # of like length, so that little is padded
            if self.batches and (len(self.batches[-1]) + 1) * len(rows[self.batches[-1][0]].tokens) <= budget:
                self.batches[-1].append(index)
            else:
                self.batches.append([index])
        self.rows = rows
        self.depth = 0  # blocks whose output is kept
        self._kept: list[Tensor | Path] = []
        self._keep_bytes = keep_bytes
        self._folder: tempfile.TemporaryDirectory | None = None

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's decoder blocks."""
        return self.base.layers

    @property
    def tokens(self) -> int:
        """Tokens that one pass over all questions computes."""
        return sum(len(row.tokens) for row in self.rows)

    @torch.inference_mode()
    def score(self, *, progress: Progress = silent, stage: str = "Scoring the questions") -> Scores:
        """Log-likelihoods of all choices with the weights as they are, from the block on that `advance` has reached.

        Raises:
            UserError: some likelihood is no number.
        """
        found: list[np.ndarray | None] = [None] * len(self.questions)
        done = 0
        for number, batch in enumerate(self.batches):
            progress(stage, done, len(self.questions))
            inputs = self._inputs(batch)
            states = self._run(number, inputs, self.depth, None)
            for index, values in zip(batch, self._likelihoods(batch, states), strict=True):
                found[index] = values
            done += len(batch)
        progress(stage, len(self.questions), len(self.questions))
        if not all(np.isfinite(values).all() for values in found):
            raise UserError(f"{self.model.name} gives likelihoods that are no numbers: its weights are broken.")
        return scores_of(self.questions, found)

    @torch.inference_mode()
    def advance(self, depth: int) -> None:
        """Keep the inputs of block ``depth`` (from 0) for all questions; the blocks below must then not change."""
        if depth <= self.depth:
            return
        for number, batch in enumerate(self.batches):
            states = self._run(number, self._inputs(batch), self.depth, depth)
            self._keep(number, states)
        self.depth = depth

    def close(self) -> None:
        """Discard the kept activations."""
        self._kept, self.depth = [], 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _keep(self, number: int, states: Tensor) -> None:
        total = states.numel() * states.element_size() * len(self.batches)
        if total > self._keep_bytes:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="d2nwg-activations-")
            path = Path(self._folder.name) / f"{number}.pt"
            with path.open("wb") as file:  # torch's own writer does not say why it failed
                torch.save(states.cpu(), file)
            states = path
        if number < len(self._kept):
            self._kept[number] = states
        else:
            self._kept.append(states)

    def _inputs(self, batch: Sequence[int]) -> dict[str, Tensor]:
        """Tokens, positions (B, T) and mask (B, 1, T, T) of some rows; short ones are padded behind."""
        rows, device = [self.rows[index] for index in batch], self.model.device
        width = max(len(row.tokens) for row in rows)

        def padded(values: list[int], fill: int) -> list[int]:
            return values + [fill] * (width - len(values))

        tokens = torch.tensor([padded(row.tokens, 0) for row in rows], device=device)
        positions = torch.tensor([padded(row.positions, 0) for row in rows], device=device)
        segments = torch.tensor([padded(row.segments, -1) for row in rows], device=device)
        place = torch.arange(width, device=device)
        seen = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
        seen &= place[None, :, None] >= place[None, None, :]
        dtype = self.model.model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
        return {"input_ids": tokens, "position_ids": positions, "attention_mask": mask[:, None]}

    def _run(self, number: int, inputs: dict[str, Tensor], first: int, last: int | None) -> Tensor:
        """States (B, T, H) before block `last`, or after the final norm; blocks below `first` come from what is
        kept."""
        if first:
            kept = self._kept[number]
            kept = torch.load(kept, weights_only=True) if isinstance(kept, Path) else kept
            inputs = {"inputs_embeds": kept.to(self.model.device)} | {
                name: value for name, value in inputs.items() if name != "input_ids"
            }
        with only_blocks(self.base, first, last):
            return self.base(**inputs, use_cache=False).last_hidden_state

    def _likelihoods(self, batch: Sequence[int], states: Tensor) -> list[np.ndarray]:
        """Log-likelihoods of the choices; the output head runs only at positions whose prediction is scored."""
        rows = [self.rows[index] for index in batch]
        where = [(i, place) for i, row in enumerate(rows) for place in row.reads]
        lines, places = (torch.tensor(values, device=states.device) for values in zip(*where, strict=True))
        targets = torch.tensor([token for row in rows for token in row.targets], device=states.device)
        head = self.model.model.get_output_embeddings()
        states = states[lines, places]
        together = max(1, BATCH_LOGITS // head.weight.shape[0])
        found = []
        for start in range(0, len(states), together):
            logits = self._scaled(head(states[start : start + together])).float()
            aims = targets[start : start + together]
            found.append(logits.gather(1, aims[:, None])[:, 0] - logits.logsumexp(1))
        values = torch.cat(found).double().cpu().numpy()
        result, start = [], 0
        for index, row in zip(batch, rows, strict=True):
            mine, start = values[start : start + len(row.reads)], start + len(row.reads)
            result.append(np.bincount(row.owners, mine, len(self.questions[index].continuations)))
        return result

    def _scaled(self, logits: Tensor) -> Tensor:
        """Logits with the final scaling or soft capping that some models apply."""
        if scale := self._number("logit_scale"):
            logits = logits * scale
        if divisor := self._number("logits_scaling"):
            logits = logits / divisor
        if cap := self._number("final_logit_softcapping"):
            logits = (logits / cap).tanh() * cap
        return logits

    def _number(self, name: str) -> float:
        """A number of the model's configuration; 0 where it has none of this name."""
        value = getattr(self.model.model.config, name, None) or 0
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"The config.json of {self.model.name} is damaged at {name}: fetch it again.")
        return float(value)


def score_questions(
    model: "LanguageModel", questions: Sequence[Question], *, progress: Progress = silent, **options
) -> Scores:
    """The log-likelihood of every choice of some questions.

    Raises:
        UserError: there are no questions, or the weights are broken.
    """
    return Scorer(model, questions, **options).score(progress=progress)


def scores_of(questions: Sequence[Question], choices: Sequence[np.ndarray]) -> Scores:
    """Likelihoods with the facts of their questions."""
    lengths = tuple(np.array([max(1, len(text.strip())) for text in question.continuations]) for question in questions)
    return Scores(tuple(choices), lengths, np.array([question.answer for question in questions]))


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


def pack(model: "LanguageModel", question: Question) -> _Row:
    """A question's choices in one row behind what their texts have in common. A text longer than the model can read
    loses its beginning."""
    texts = []
    for context, continuation in zip(question.contexts, question.continuations, strict=True):
        before, after = pair(model, context, continuation)
        whole = (before + after)[-(model.context + 1) :]
        texts.append((whole, min(len(after), len(whole) - 1)))
    inputs = [whole[:-1] for whole, _ in texts]  # the last token predicts nothing that counts
    shared = 0
    for column in zip(*inputs, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    row = _Row(list(inputs[0][:shared]), list(range(shared)), [0] * shared, [], [], [])
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


@contextmanager
def only_blocks(base: nn.Module, first: int, last: int | None) -> Iterator[None]:
    """A decoder that runs blocks ``first`` to ``last`` (exclusive) alone, without the final norm where `last` is
    given. Not for a model that others use at the same time."""
    if first == 0 and last is None:
        yield
        return
    blocks, norm = base.layers, base.norm
    try:
        base.layers = blocks[first:last]
        if last is not None:
            base.norm = nn.Identity()
        yield
    finally:
        base.layers, base.norm = blocks, norm
