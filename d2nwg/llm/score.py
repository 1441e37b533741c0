"""Log-likelihoods of the choices of questions, as lm-evaluation-harness computes them, with shared prefixes.

The choices of a question mostly follow the same text. They are packed behind it into one row, with an attention mask
that separates them and positions as if each stood alone, so that the prefix is computed once. The results are those of
a separate forward pass for each choice.

A `Scorer` can also keep the inputs of a decoder block for every row (`advance`): changed weights in that block or above
are then scored without running the blocks below again. It can score a part of the questions alone.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from d2nwg.llm.architectures import blocks_of, decoder_of
from d2nwg.llm.blocks import only_blocks
from d2nwg.llm.models import check_tokens
from d2nwg.llm.pack import Row, inputs_of, pack
from d2nwg.llm.questions import Question
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

if TYPE_CHECKING:
    from d2nwg.llm.models import LanguageModel

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
BATCH_LOGITS = 2**23  # numbers of logits held at once
TEMPERATURES = 1e-2, 1e3  # between which one is fitted


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

    def log_probability(self, normalise: bool = False, temperature: float = 1.0) -> np.ndarray:
        """(Q,) log-probability of the right choice: a softmax over its question's choices, whose log-likelihoods (per
        character with `normalise`) are divided by `temperature`; at most 0."""
        found = []
        for values, answer in zip(self._values(normalise), self.answers, strict=True):
            values = (values - values.max()) / temperature
            found.append(values[answer] - math.log(np.exp(values).sum()))
        return np.array(found)

    def confidence(self, normalise: bool = False, temperature: float = 1.0) -> float:
        """The mean of `log_probability`."""
        return float(self.log_probability(normalise, temperature).mean())

    def _values(self, normalise: bool) -> Iterator[np.ndarray]:
        for values, lengths in zip(self.choices, self.lengths, strict=True):
            yield values / lengths if normalise else values


def fit_temperature(scores: Scores, normalise: bool = False) -> float:
    """The temperature with which the right choices are most probable, within `TEMPERATURES`. Sums of log-likelihoods
    over tokens are far over-confident: at 1 they say less than guessing."""
    from scipy.optimize import minimize_scalar

    bounds = [math.log(end) for end in TEMPERATURES]
    found = minimize_scalar(lambda x: -scores.confidence(normalise, math.exp(x)), bounds=bounds, method="bounded")
    return math.exp(found.x)


class Scorer:
    """Scores a fixed list of questions repeatedly, while a model's weights change.

    Args:
        model: between calls, only its blocks from the depth of `advance` on may change.
        questions: at least one.
        parts: cut of the questions, by their numbers, into parts that can be scored by themselves; by default one.
        batch_tokens: most tokens in a batch; by default by device (`BATCH_TOKENS`).
        keep_bytes: kept activations beyond this many bytes go to a temporary folder.
    Attributes:
        tokens: computed until now; what runs through some of the blocks counts by their share.
    Raises:
        UserError: no questions.
    """

    def __init__(
        self,
        model: "LanguageModel",
        questions: Sequence[Question],
        *,
        parts: Sequence[Sequence[int]] | None = None,
        batch_tokens: int | None = None,
        keep_bytes: int = 2**28,
    ):
        if not questions:
            raise UserError("There are no questions to score.")
        self.model, self.questions = model, list(questions)
        self.base = decoder_of(model.model)
        rows = [pack(model, question) for question in self.questions]
        for row in rows:
            check_tokens(model.model, (*row.tokens, *row.targets))
        budget = batch_tokens or BATCH_TOKENS.get(model.device.type, 4096)
        self.parts = [list(part) for part in parts or [range(len(rows))]]
        self.batches: list[list[int]] = []
        self._of_part: list[range] = []  # numbers of its batches
        for part in self.parts:
            first = len(self.batches)
            for index in sorted(part, key=lambda i: -len(rows[i].tokens)):  # of like length: little is padded
                last = self.batches[-1] if len(self.batches) > first else None
                if last is not None and (len(last) + 1) * len(rows[last[0]].tokens) <= budget:
                    last.append(index)
                else:
                    self.batches.append([index])
            self._of_part.append(range(first, len(self.batches)))
        self.rows = rows
        self.tokens = 0.0
        self.depths = [0] * len(self.batches)  # blocks whose output is kept
        self._kept: dict[int, Tensor | Path] = {}
        self._keep_bytes = keep_bytes
        self._folder: tempfile.TemporaryDirectory | None = None

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's decoder blocks. Raises AttributeError where it is of no known family."""
        return blocks_of(self.base)

    @property
    def pass_tokens(self) -> int:
        """Tokens of one pass over all questions."""
        return sum(len(row.tokens) for row in self.rows)

    @torch.inference_mode()
    def score(
        self, part: int | None = None, *, progress: Progress = silent, stage: str = "Scoring the questions"
    ) -> Scores:
        """Log-likelihoods of all choices with the weights as they are, from the block on that `advance` has reached.

        Args:
            part: only its questions, in the order of ``parts``; by default all of them, in their own order.
        Raises:
            UserError: some likelihood is no number.
        """
        wanted = range(len(self.questions)) if part is None else self.parts[part]
        found: dict[int, np.ndarray] = {}
        for number in self._batches(part):
            progress(stage, len(found), len(wanted))
            batch = self.batches[number]
            inputs = inputs_of(self.model, [self.rows[index] for index in batch])
            states = self._run(number, inputs, None)
            found |= zip(batch, self._likelihoods(batch, states), strict=True)
        progress(stage, len(wanted), len(wanted))
        if not all(np.isfinite(values).all() for values in found.values()):
            raise UserError(f"{self.model.name} gives likelihoods that are no numbers: its weights are broken.")
        return scores_of([self.questions[index] for index in wanted], [found[index] for index in wanted])

    @torch.inference_mode()
    def advance(self, depth: int, part: int | None = None) -> None:
        """Keep the inputs of block ``depth`` (from 0) for all questions or those of one part; the blocks below must
        then not change."""
        for number in self._batches(part):
            if depth > self.depths[number]:
                inputs = inputs_of(self.model, [self.rows[index] for index in self.batches[number]])
                self._keep(number, self._run(number, inputs, depth))
                self.depths[number] = depth

    def close(self) -> None:
        """Discard the kept activations."""
        self._kept, self.depths = {}, [0] * len(self.batches)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _batches(self, part: int | None) -> range:
        return range(len(self.batches)) if part is None else self._of_part[part]

    def _keep(self, number: int, states: Tensor) -> None:
        total = states.numel() * states.element_size() * len(self.batches)
        if total > self._keep_bytes:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="d2nwg-activations-")
            path = Path(self._folder.name) / f"{number}.pt"
            with path.open("wb") as file:  # torch's own writer does not say why it failed
                torch.save(states.cpu(), file)
            states = path
        self._kept[number] = states

    def _run(self, number: int, inputs: dict[str, Tensor], last: int | None) -> Tensor:
        """States (B, T, H) before block `last`, or after the final norm; what is kept is not run again."""
        first, share = self.depths[number], 1.0
        if first or last is not None:
            share = ((len(self.blocks) if last is None else last) - first) / len(self.blocks)
        self.tokens += share * sum(len(self.rows[index].tokens) for index in self.batches[number])
        if first:
            kept = self._kept[number]
            kept = torch.load(kept, weights_only=True) if isinstance(kept, Path) else kept
            inputs = {"inputs_embeds": kept.to(self.model.device)} | {
                name: value for name, value in inputs.items() if name != "input_ids"
            }
        with only_blocks(self.base, first, last):
            return self.base(**inputs, use_cache=False).last_hidden_state

    def _likelihoods(self, batch: Sequence[int], states: Tensor) -> list[np.ndarray]:
        """Log-likelihoods of the choices."""
        rows = [self.rows[index] for index in batch]
        values = likelihoods(self.model, rows, states).double().cpu().numpy()
        result, start = [], 0
        for index, row in zip(batch, rows, strict=True):
            mine, start = values[start : start + len(row.reads)], start + len(row.reads)
            result.append(np.bincount(row.owners, mine, len(self.questions[index].continuations)))
        return result


def likelihoods(model: "LanguageModel", rows: Sequence[Row], states: Tensor) -> Tensor:
    """(N,) log-likelihoods of the tokens that packed rows score, one row's after another's.

    Args:
        states: (B, T, H) after the final norm. The output head runs only at positions whose prediction is scored.
    Raises:
        UserError: the model's configuration is damaged.
    """
    where = [(i, place) for i, row in enumerate(rows) for place in row.reads]
    lines, places = (torch.tensor(values, device=states.device) for values in zip(*where, strict=True))
    targets = torch.tensor([token for row in rows for token in row.targets], device=states.device)
    head = model.model.get_output_embeddings()
    states = states[lines, places]
    together = max(1, BATCH_LOGITS // head.weight.shape[0])
    found = []
    for start in range(0, len(states), together):
        logits = _scaled(model, head(states[start : start + together])).float()
        aims = targets[start : start + together]
        found.append(logits.gather(1, aims[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(found)


def _scaled(model: "LanguageModel", logits: Tensor) -> Tensor:
    """Logits with the final scaling or soft capping that some models apply."""
    if scale := _number(model, "logit_scale"):
        logits = logits * scale
    if divisor := _number(model, "logits_scaling"):
        logits = logits / divisor
    if cap := _number(model, "final_logit_softcapping"):
        logits = (logits / cap).tanh() * cap
    return logits


def _number(model: "LanguageModel", name: str) -> float:
    """A number of the model's configuration; 0 where it has none of this name."""
    value = getattr(model.model.config, name, None) or 0
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"The config.json of {model.name} is damaged at {name}: fetch it again.")
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
