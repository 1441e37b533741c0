"""Algorithm 1 of the paper: a greedy search over matrices; a candidate is kept only where it improves the score by more
than chance would, which `d2nwg.llm.racing` finds out on as few questions as that takes.

Every decision is on the disk before the next matrix begins: first the accepted weights, then a line of the log, which
makes it valid. A killed run continues after its last complete line.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import MinLen
from torch import Tensor
from typing_extensions import TypedDict

from d2nwg.llm.architectures import Unit
from d2nwg.llm.baselines import CUTS, Propose
from d2nwg.llm.chunks import Stored, joined, load_matrices, save_matrices, split
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.racing import lower_bound, race
from d2nwg.llm.score import Scorer, Scores
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import Progress

ARMS = {  # who tries: what a person reads while it does
    "refined": "Refining",
    "noise": "Doing the same with noise",
    "rank": "Doing the same with ranks cut",
    "rebuilt": "Doing the same with reconstructions",
}


ZOO_ARMS = {  # with a zoo of checkpoints
    "single": "Scoring the checkpoints",
    "whole": "Sampling all layers",
    "refined": "Refining",
    "noised_whole": "Doing the same with noise in all layers",
    "noised": "Doing the same with noise",
}


STRENGTHS = (1.0, 0.5, 0.25)  # of the way from the weights in hand to what is proposed, for one candidate after another
HELD = 2**28  # bytes of candidates that are kept while they race; others are made again


class _Candidate(TypedDict):
    score: float
    tie: float
    distance: float
    strength: float
    questions: int


class _Line(TypedDict):
    """A decision, as `Search.run` logs it."""

    arm: str
    number: int
    name: str
    layer: int
    type: str
    before: float
    candidates: Annotated[list[_Candidate], MinLen(1)]
    best: int
    accepted: bool
    after: float
    lower: float | None
    tokens: int
    seconds: float


class Log:
    """``log.jsonl``: one line a decision, each of one of some arms."""

    def __init__(self, path: Path, arms: Collection[str] = ARMS):
        self.path, self.lines = path, []
        if path.exists():
            if not path.is_file():  # a FIFO would block
                raise UserError(f"{path} is no regular file: delete the folder of this refinement, and begin it again.")
            for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):  # a line that a kill left torn
                    self.lines.append(json.loads(text))
            _check(self.lines, path, arms)
            write_whole(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, line: dict) -> None:
        """Append a line; it is on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)

    def of(self, arm: str) -> list[dict]:
        """The decisions of one arm."""
        return [line for line in self.lines if line["arm"] == arm]


def _check(lines: list, path: Path, arms: Collection[str]) -> None:
    """Raises UserError for lines that this program did not write: those of an arm are of one matrix after another."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(list[_Line]).validate_python(lines)
        if not {line["arm"] for line in lines} <= set(arms):
            raise ValueError("of other arms")
        for arm in arms:
            numbers = [line["number"] for line in lines if line["arm"] == arm]
            if numbers != list(range(len(numbers))):
                raise ValueError("out of order")
    except (ValidationError, ValueError) as reason:
        raise UserError(f"{path} is damaged: delete the folder of this refinement, and begin it again.") from reason


def tries(arm: str, config: RefineConfig) -> int:
    """How many candidates an arm has for each unit: none has more than the refinement, and none any twice."""
    different = {"rank": len(CUTS) * len(STRENGTHS), "rebuilt": len(STRENGTHS)}
    return min(different.get(arm, config.candidates), config.candidates)


class Search:
    """Passes over the units, from the bottom of the model to its top.

    Args:
        arm: one of `ARMS` or `ZOO_ARMS`; also the folder of what it accepted.
        scorer: of the selection questions, on a model that is not used elsewhere; candidates race over its parts.
        chunks: the units, as they were.
        log: of all arms.
        temperature: of the log-probabilities.
        count: candidates of each unit; by default `tries`.
        passes: by default the configuration's.
        strengths: cycled through by the candidates.
        any_wins: as of `d2nwg.llm.racing.race`.
        reuse: keep what enters the block of the unit in hand, so that the blocks below run once a unit; otherwise
            every candidate runs the whole model.
    """

    def __init__(
        self,
        arm: str,
        scorer: Scorer,
        chunks: Stored,
        config: RefineConfig,
        folder: Path,
        log: Log,
        *,
        temperature: float = 1.0,
        count: int | None = None,
        passes: int | None = None,
        strengths: Sequence[float] = STRENGTHS,
        any_wins: bool = False,
        reuse: bool = True,
    ):
        self.arm, self.scorer, self.chunks, self.config, self.reuse = arm, scorer, chunks, config, reuse
        self.folder, self.log, self.count = folder / arm, log, count or tries(arm, config)
        self.passes, self.strengths, self.any_wins = passes or config.passes, strengths, any_wins
        self.temperature, self.stage = temperature, (ARMS | ZOO_ARMS)[arm]
        self.parameters = dict(scorer.model.model.named_parameters())
        self.accepted: dict[str, Tensor] = {}

    def measure(self, scores: Scores) -> np.ndarray:
        """(2, Q) of each question: the criterion, and the tie-breaker, which is the other of the two."""
        normalise = self.config.normalise
        pair = [scores.correct(normalise).astype(float), scores.log_probability(normalise, self.temperature)]
        return np.stack(pair if self.config.criterion == "accuracy" else pair[::-1])

    @torch.inference_mode()
    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Put weights into the model, rounded to the format that they are stored in: scored is what is saved."""
        for name, weights in tensors.items():
            self.parameters[name].copy_(weights.to(self.scorer.model.stored_dtype))

    def restore(self) -> None:
        """Put the original weights back."""
        for unit in self.chunks.units:
            self.put(self.chunks.tensors(unit))

    def _kept(self, unit: Unit, number: int) -> dict[str, Tensor]:
        """The weights that a line of the log accepted."""
        path = self.folder / f"{number:04}.safetensors"
        kept = load_matrices(path)
        if {name: tuple(tensor.shape) for name, tensor in kept.items()} != {p.name: p.shape for p in unit.parts}:
            raise UserError(f"{path} is damaged: delete the folder of this refinement, and begin it again.")
        return kept

    def _over(self) -> bool:
        """All passes are made, or one that accepted nothing."""
        lines, length = self.log.of(self.arm), len(self.chunks.units)
        if not lines or len(lines) % length:
            return False
        return len(lines) >= self.passes * length or not any(line["accepted"] for line in lines[-length:])

    def _resume(self) -> int:
        """Put in what was accepted. Returns the number of decisions."""
        units, before = self.chunks.units, self.log.of(self.arm)
        if len(before) > self.passes * len(units) or any(
            line["name"] != units[line["number"] % len(units)].name or len(line["candidates"]) != self.count
            for line in before
        ):
            raise UserError(f"{self.log.path} is another refinement's: delete the folder it is in, and begin again.")
        for line in before:
            if line["accepted"]:
                self.accepted |= self._kept(units[line["number"] % len(units)], line["number"])
        self.put(self.accepted)
        return len(before)

    def run(self, propose: Propose, progress: Progress, on_event: Callable[[dict], None]) -> dict[str, Tensor]:
        """Search through the units that are not in the log yet: one pass, and more until one accepts nothing.

        Candidates race (`d2nwg.llm.racing`). The best one, ties broken by the other measure, then by order, replaces
        the weights only if the one-sided 90 % interval of its mean difference from them in the criterion
        (`RefineConfig.criterion`), paired over all selection questions, lies above 0.

        Args:
            propose: makes a candidate at full strength.
            progress: may raise ``Cancelled``: the model then has the weights accepted so far.
            on_event: called with each new line of the log.
        Returns:
            The accepted weights, by name.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.restore()
        done, total = self._resume(), len(self.chunks.units) * self.passes
        self.scorer.close()
        progress(self.stage, done * self.count, total * self.count)
        if self._over():
            return self.accepted
        current = self.measure(
            self.scorer.score(progress=lambda *_: progress(self.stage, done * self.count, total * self.count))
        )
        for number in range(done, total):
            if number % len(self.chunks.units) == 0:
                if self._over():
                    break
                self.scorer.close()  # the lowest blocks are changed again
            line, current = self._decide(number, propose, current, progress, total)
            self.log.add(line)
            on_event(line)
        progress(self.stage, total * self.count, total * self.count)
        return self.accepted

    def _decide(
        self, number: int, propose: Propose, current: np.ndarray, progress: Progress, total: int
    ) -> tuple[dict, np.ndarray]:
        """Let the candidates for one unit race, and put in what is accepted. Returns the line of the log, and (2, Q) of
        the weights in hand."""
        scorer, started, tokens = self.scorer, time.monotonic(), self.scorer.tokens
        past, index = divmod(number, len(self.chunks.units))
        unit = self.chunks.units[index]
        stored = {name: self.accepted.get(name, tensor) for name, tensor in self.chunks.tensors(unit).items()}
        now = joined(unit, stored)
        held: dict[int, Tensor] = {}
        distances: dict[int, float] = {}
        scored = 0

        def strength(candidate: int) -> float:
            return self.strengths[(past * self.count + candidate) % len(self.strengths)]

        def weights(candidate: int) -> Tensor:
            if candidate in held:
                return held[candidate]
            aim = propose(index, past * self.count + candidate, now)  # a later pass has fresh candidates
            made = (now + strength(candidate) * (aim - now)).to(scorer.model.stored_dtype)
            distances[candidate] = float((made.float() - now).norm() / now.norm().clamp_min(1e-12))
            if (len(held) + 1) * made.numel() * made.element_size() <= HELD:
                held[candidate] = made
            return made

        def score(candidate: int, rung: int) -> np.ndarray:
            nonlocal scored
            done = number * self.count + scored // len(scorer.questions)
            progress(self.stage, done, total * self.count)
            if self.reuse:
                scorer.advance(unit.layer, rung)
            self.put(split(unit, weights(candidate)))
            found = scorer.score(rung, progress=lambda *_: progress(self.stage, done, total * self.count))
            scored += len(scorer.parts[rung])
            return self.measure(found)

        try:
            found, best = race(scorer.parts, self.count, score, current, any_wins=self.any_wins)
        finally:
            self.put(stored)
        whole = not np.isnan(found[best]).any()
        lower = lower_bound(found[best, 0] - current[0]) if whole else -np.inf
        before = float(current[0].mean())
        if lower > 0:
            kept = {name: tensor.cpu().clone() for name, tensor in split(unit, weights(best)).items()}
            save_matrices(kept, self.folder / f"{number:04}.safetensors")
            self.accepted |= kept
            self.put(kept)
        means = [self._estimate(one, current) for one in found]
        line = {
            "arm": self.arm,
            "number": number,
            "name": unit.name,
            "layer": unit.layer,
            "type": unit.type,
            "before": before,
            "candidates": [
                {
                    "score": means[one][0],
                    "tie": means[one][1],
                    "distance": distances[one],
                    "strength": strength(one),
                    "questions": int((~np.isnan(found[one, 0])).sum()),
                }
                for one in range(self.count)
            ],
            "best": best,
            "accepted": lower > 0,
            "after": means[best][0] if lower > 0 else before,
            "lower": lower if np.isfinite(lower) else None,
            "tokens": round(scorer.tokens - tokens),
            "seconds": round(time.monotonic() - started, 2),
        }
        return line, found[best] if lower > 0 else current

    def _estimate(self, found: np.ndarray, current: np.ndarray) -> list[float]:
        """The means on all questions; of a candidate that was dropped, those of the weights in hand and the difference
        on the questions that both have: scores on other questions could not be compared."""
        seen = ~np.isnan(found[0])
        if seen.all():
            return [float(value) for value in found.mean(1)]
        guess = current.mean(1) + (found[:, seen] - current[:, seen]).mean(1)
        top = np.array([1.0, 0.0] if self.config.criterion == "accuracy" else [0.0, 1.0])
        low = np.where(top == 1.0, 0.0, -np.inf)  # of an accuracy
        return [float(value) for value in np.clip(guess, low, top)]
