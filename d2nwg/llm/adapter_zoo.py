"""Zoos of adapters of a causal language model: LoRA fine-tunes on questions, of several seeds, the last epochs of each
kept (``python -m d2nwg zoo build --llm``; `d2nwg.weights.tuning` builds them).

An adapter is trained by the likelihood of the right choice per token (``answer``), or by the cross-entropy of the right
choice among the choices of its question, by their likelihoods per token (``choices``). With the first, two epochs over
240 questions of six sets took the default model from 41.5 to 47.2 % of 300 others, per character from 46.2 to 52.8. It
reads 40 tokens a question, the second 67, which has not been measured yet.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from d2nwg.encoders.lora import LoraShape
from d2nwg.llm.lora import AdaptedModel
from d2nwg.llm.models import DEFAULT, check_tokens
from d2nwg.llm.pack import Row, pack
from d2nwg.llm.questions import Question, check_disjoint
from d2nwg.llm.score import Scorer, Scores
from d2nwg.llm.split import split
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number
from d2nwg.weights.building import build
from d2nwg.weights.finetune import STAGE, TuneConfig, descend
from d2nwg.weights.info import LANGUAGE_MODEL
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.networks import State
from d2nwg.weights.tuning import Tuning

TASK = "questions"  # the one of such a zoo
BACKWARD = 3  # times that a question to train on takes as long as one to score


@dataclass(frozen=True)
class LlmZooConfig:
    """How a zoo of adapters of a language model is built.

    Attributes:
        shape: which matrices of which model; ``max_tokens`` of a question with one choice.
        tune: how each adapter is trained; the last ``keep`` epochs are kept.
        seeds: adapters; they differ by the order of the questions and by dropout, and start from one initialisation.
        loss: ``answer`` or ``choices``.
        rows: most training questions; 0 for all.
        scored: most questions that every checkpoint is scored on; 0 for all.
        seed: the first one; also of the questions that are drawn or kept aside.
    """

    shape: LoraShape = field(default_factory=lambda: LoraShape(DEFAULT, max_tokens=256))
    tune: TuneConfig = field(default_factory=lambda: TuneConfig(epochs=3, batch=8, lr=1e-3, keep=2))
    loss: Literal["answer", "choices"] = "answer"
    seeds: int = 4
    rows: int = 0
    scored: int = 500
    seed: int = 0

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> "LlmZooConfig":
        """The configuration that ``dataclasses.asdict`` and JSON made a dictionary of."""
        parts = {"shape": LoraShape.from_json(config["shape"]), "tune": TuneConfig(**config["tune"])}
        return cls(**{**config, **parts})


def build_llm_adapters(
    sources: Sequence[Sequence[Question]],
    config: LlmZooConfig,
    out: str | Path,
    *,
    select: Sequence[Question] = (),
    resume: bool = False,
    device: str | None = None,
    progress: Progress = silent,
) -> ModelZoo:
    """Fine-tune ``config.seeds`` adapters on questions and write the zoo to ``out`` (`d2nwg.weights.building.build`).

    Args:
        sources: the questions of each set.
        select: what every checkpoint is scored on; without them a fifth of the questions is kept aside. Of both, at
            most ``config.scored``, drawn by the seed.
    Raises:
        UserError: as `d2nwg.weights.building.build`; there are no questions, or ``select`` shares some with the others;
            more epochs are to be kept than there are; no such model.
    """
    tuning = LlmTuning(sources, config, select, progress)
    return build(tuning, out, resume=resume, device=device, progress=progress)


class LlmTuning(Tuning):
    """Adapters of a language model on questions.

    Attributes:
        questions: to train on.
        select: to score each checkpoint on.
    """

    names = (TASK,)
    adapted: AdaptedModel

    def __init__(
        self,
        sources: Sequence[Sequence[Question]],
        config: LlmZooConfig,
        select: Sequence[Question] = (),
        progress: Progress = silent,
    ):
        """Raises UserError; see `build_llm_adapters`."""
        self.config, self.progress = config, progress if os.environ.get("RANK", "0") == "0" else silent
        self.seeds, self.seed, self.keep = config.seeds, config.seed, config.tune.keep
        if config.tune.keep > config.tune.epochs:
            raise UserError(
                f"There are no {config.tune.keep:,} epochs to keep among {config.tune.epochs:,}: choose a smaller "
                "--keep, or more --epochs."
            )
        count = sum(map(len, sources))
        if count < (1 if select else 2):
            raise UserError(f"{number(count, 'question')} are too few to train adapters on: give a file of questions.")
        aside = 0 if select else min(config.scored or count, max(1, count // 5))
        parts: dict[str, int | None] = {"select": aside, "train": None} if aside else {"train": None}
        if config.rows and count - aside > config.rows:
            parts |= {"train": config.rows, "rest": None}
        cut = split(sources, parts, seed=config.seed)
        check_disjoint(
            cut["train"],
            select,
            "The questions to train on and to select by",
            "scores on questions that trained the weights would flatter them",
        )
        if config.scored and len(select) > config.scored:
            select = split([select], {"select": config.scored, "rest": None}, seed=config.seed)["select"]
        self.questions, self.select = cut["train"], list(select) or cut["select"]
        self.cut = "as given" if select else f"kept aside by seed {config.seed}"

    @property
    def about(self) -> dict[str, Any]:
        prints = {"train": self.questions, "select": self.select}
        return {
            "config": asdict(self.config),
            "base": LANGUAGE_MODEL,
            "tasks": [[name, _print(questions)] for name, questions in prints.items()],
        }

    def open(self, device: str) -> AdaptedModel:
        self.adapted = AdaptedModel(self.config.shape, device, self.config.tune.dropout, self.progress)
        asked = self.questions if self.config.loss == "choices" else [right(question) for question in self.questions]
        self.rows = [pack(self.adapted.model, question, self.config.shape.max_tokens) for question in asked]
        for row in self.rows:
            check_tokens(self.adapted.network, (*row.tokens, *row.targets))
        self.scorer = Scorer(self.adapted.model, self.select)
        return self.adapted

    def units(self, task: int) -> int:
        return self._learning + self.config.tune.keep * len(self.select)

    @property
    def _learning(self) -> int:
        """Units of an adapter's training alone."""
        return BACKWARD * self.config.tune.epochs * len(self.questions)

    def frozen(self, task: int, work: Path) -> dict[str, float]:
        return selection(self.scorer.score(stage="Scoring the base", progress=self.progress))

    def tune(
        self, task: int, seed: int, work: Path, name: str, progress: Progress
    ) -> Iterator[tuple[int, State, dict[str, Any]]]:
        tune, total, learnt, before = self.config.tune, self.units(task), 0, 0
        an_epoch = tune.steps(len(self.questions))
        steps = tune.epochs * an_epoch
        kept = range(steps - (tune.keep - 1) * an_epoch, steps + 1, an_epoch)
        lengths = [len(row.tokens) for row in self.rows]

        def trained(stage: str, step: int, steps: int) -> None:
            nonlocal learnt
            learnt = self._learning * step // steps
            progress(STAGE, learnt + before, total)

        def scored(stage: str, count: int, of: int) -> None:
            progress(STAGE, learnt + before + count, total)

        for step in descend(self.adapted, self.loss, lengths, tune, seed, steps, kept, name, progress=trained):
            scores = selection(self.scorer.score(progress=scored))
            before += len(self.select)
            about = {"epoch": step // an_epoch, "accuracy": scores["accuracy"], "selection": scores}
            yield step, self.adapted.state(), about

    def facts(self, frozen: Sequence[dict[str, float]]) -> dict[str, Any]:
        return {
            "base": LANGUAGE_MODEL,
            "shape": asdict(self.config.shape),
            "encoder_key": self.adapted.key,
            "build": {key: value for key, value in asdict(self.config).items() if key != "shape"},
            "tasks": [
                {
                    "name": TASK,
                    "descriptions": [],
                    "classes": [],
                    "metric": "accuracy",
                    "pairs": False,
                    "parts": [len(self.questions), len(self.select), 0],
                    "cut": self.cut,
                    "frozen": scores,
                }
                for scores in frozen
            ],
        }

    def loss(self, chosen: np.ndarray) -> Tensor:
        """The mean loss of the questions of these numbers, with gradients to the adapter."""
        rows = [self.rows[int(i)] for i in chosen]
        found = self.adapted.likelihoods(rows)
        losses, start = [], 0
        for i, row in zip(chosen, rows, strict=True):
            values, start = per_token(row, found[start : start + len(row.reads)]), start + len(row.reads)
            answer = torch.tensor(self.questions[int(i)].answer, device=values.device)
            losses.append(cross_entropy(values, answer) if self.config.loss == "choices" else -values[0])
        return torch.stack(losses).mean()


def right(question: Question) -> Question:
    """A question with its right choice alone."""
    return Question((question.contexts[question.answer],), (question.continuations[question.answer],), 0)


def per_token(row: Row, values: Tensor) -> Tensor:
    """(N,) log-likelihoods of the scored tokens of a question → (C,) means of its choices."""
    owners = torch.tensor(row.owners, device=values.device)
    counts = torch.bincount(owners)
    return torch.zeros(len(counts), device=values.device).index_add(0, owners, values) / counts


def selection(scores: Scores) -> dict[str, float]:
    """What a zoo records of a checkpoint: ``accuracy``, ``accuracy_norm`` (per character of a choice; fractions), and
    ``confidence`` and ``confidence_norm``, the mean log-probability of the right choice among those of its question."""
    return {
        "accuracy": round(scores.accuracy(), 6),
        "accuracy_norm": round(scores.accuracy(True), 6),
        "confidence": round(scores.confidence(), 6),
        "confidence_norm": round(scores.confidence(True), 6),
    }


def _print(questions: Sequence[Question]) -> str:
    """A fingerprint of questions in their order."""
    content = hashlib.sha256()
    for question in questions:
        content.update(repr(question).encode("utf-8", "replace"))
    return content.hexdigest()[:32]
