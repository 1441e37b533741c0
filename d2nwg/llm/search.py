"""Algorithm 1 of the paper: a greedy search over matrices; a candidate is kept only where it improves the score.

Every decision is on the disk before the next matrix begins: first the accepted weights, then a line of the log, which
makes it valid. A killed run continues after its last complete line.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor
from typing_extensions import TypedDict

from d2nwg.llm.chunks import MatrixChunks, load_matrices, save_matrices
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.score import Scorer, Scores
from d2nwg.llm.spectrum import place
from d2nwg.training.loop import step_rng
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import Progress

ARMS = ("refined", "noise")
# (number of the matrix, number of the candidate, weights as they are now) -> weights, float32
Propose = Callable[[int, int, Tensor], Tensor]


class _Candidate(TypedDict):
    score: float
    tie: float
    distance: float


class _Line(TypedDict):
    """A decision, as `Search.run` logs it."""

    arm: Literal["refined", "noise"]
    number: int
    name: str
    layer: int
    type: str
    before: float
    candidates: Annotated[list[_Candidate], MinLen(1)]
    best: int
    accepted: bool
    after: float
    seconds: float


class Log:
    """``log.jsonl``: one line a decision."""

    def __init__(self, path: Path):
        self.path, self.lines = path, []
        if path.exists():
            if not path.is_file():  # a FIFO would block
                raise UserError(f"{path} is no regular file: delete the folder of this refinement, and begin it again.")
            for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):  # a line that a kill left torn
                    self.lines.append(json.loads(text))
            _check(self.lines, path)
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


def _check(lines: list, path: Path) -> None:
    """Raises UserError for lines that this program did not write: those of an arm are of one matrix after another."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(list[_Line]).validate_python(lines)
        for arm in ARMS:
            numbers = [line["number"] for line in lines if line["arm"] == arm]
            if numbers != list(range(len(numbers))):
                raise ValueError("out of order")
    except (ValidationError, ValueError) as reason:
        raise UserError(f"{path} is damaged: delete the folder of this refinement, and begin it again.") from reason


class Search:
    """One pass over the matrices, from the bottom of the model to its top.

    Args:
        arm: ``refined`` or ``noise``; also the folder of what it accepted.
        scorer: of the selection questions, on a model that is not used elsewhere.
        chunks: the matrices, as they were.
        log: of all arms.
        reuse: keep what enters the block of the matrix in hand, so that the blocks below run once a matrix; otherwise
            every candidate runs the whole model.
    """

    def __init__(
        self,
        arm: str,
        scorer: Scorer,
        chunks: MatrixChunks,
        config: RefineConfig,
        folder: Path,
        log: Log,
        *,
        reuse: bool = True,
    ):
        self.arm, self.scorer, self.chunks, self.config, self.reuse = arm, scorer, chunks, config, reuse
        self.folder, self.log = folder / arm, log
        self.parameters = dict(scorer.model.model.named_parameters())
        self.accepted: dict[str, Tensor] = {}

    def measure(self, scores: Scores) -> tuple[float, float]:
        """The score in the criterion, and the tie-breaker: the other of accuracy and confidence."""
        pair = scores.accuracy(self.config.normalise), scores.confidence(self.config.normalise)
        return pair if self.config.criterion == "accuracy" else pair[::-1]

    @torch.inference_mode()
    def put(self, name: str, weights: Tensor) -> None:
        """Put weights into the model, rounded to the format that they are stored in: scored is what is saved."""
        self.parameters[name].copy_(weights.to(self.scorer.model.stored_dtype))

    def restore(self) -> None:
        """Put the original weights back."""
        for name in self.chunks.names:
            self.put(name, self.chunks.tensor(name))

    def _kept(self, line: dict) -> dict[str, Tensor]:
        """The weights that a line of the log accepted."""
        path = self.folder / f"{line['number']:04}.safetensors"
        kept = load_matrices(path)
        if set(kept) != {line["name"]} or kept[line["name"]].shape != self.parameters[line["name"]].shape:
            raise UserError(f"{path} is damaged: delete the folder of this refinement, and begin it again.")
        return kept

    def run(self, propose: Propose, progress: Progress, on_event: Callable[[dict], None]) -> dict[str, Tensor]:
        """Search through the matrices that are not in the log yet.

        A candidate replaces the weights only if its score is strictly higher than the current one in the criterion
        (`RefineConfig.criterion`): the best one, ties broken by the other measure, then by order.

        Args:
            propose: makes a candidate.
            progress: may raise ``Cancelled``: the model then has the weights accepted so far.
            on_event: called with each new line of the log.
        Returns:
            The accepted weights, by name.
        """
        names, count = self.chunks.names, self.config.candidates
        self.folder.mkdir(parents=True, exist_ok=True)
        self.restore()
        before = self.log.of(self.arm)
        if [line["name"] for line in before] != names[: len(before)] or any(
            len(b["candidates"]) != count for b in before
        ):
            raise UserError(f"{self.log.path} is another refinement's: delete the folder it is in, and begin again.")
        for line in before:
            if line["accepted"]:
                self.accepted |= self._kept(line)
        for name, weights in self.accepted.items():
            self.put(name, weights)
        self.scorer.close()
        stage = "Refining" if self.arm == "refined" else "Doing the same with noise"
        total = len(names) * count
        progress(stage, len(before) * count, total)
        current = self.measure(self.scorer.score(progress=lambda *_: progress(stage, len(before) * count, total)))
        for number in range(len(before), len(names)):
            name, started = names[number], time.monotonic()
            layer, kind = place(name)
            if self.reuse:
                self.scorer.advance(layer)
            now = self.chunks.tensor(name).float()
            tried, best = [], None
            try:
                for candidate in range(count):
                    done = number * count + candidate
                    progress(stage, done, total)
                    weights = propose(number, candidate, now).to(self.scorer.model.stored_dtype)
                    self.put(name, weights)
                    got = self.measure(self.scorer.score(progress=lambda *_, done=done: progress(stage, done, total)))
                    tried.append(
                        {
                            "score": got[0],
                            "tie": got[1],
                            "distance": float((weights.float() - now).norm() / now.norm().clamp_min(1e-12)),
                        }
                    )
                    if best is None or got > best[0]:
                        best = got, candidate, weights
            finally:
                self.put(name, self.accepted.get(name, now))
            better = best is not None and best[0][0] > current[0]
            line = {
                "arm": self.arm,
                "number": number,
                "name": name,
                "layer": layer,
                "type": kind,
                "before": current[0],
                "candidates": tried,
                "best": best[1],
                "accepted": better,
                "after": best[0][0] if better else current[0],
            }
            if better:
                save_matrices({name: best[2]}, self.folder / f"{number:04}.safetensors")
                self.accepted[name], current = best[2].cpu(), best[0]
                self.put(name, best[2])
            line["seconds"] = round(time.monotonic() - started, 2)
            self.log.add(line)
            on_event(line)
        progress(stage, total, total)
        return self.accepted


def noise_like(config: RefineConfig, chunks: MatrixChunks, lines: Sequence[dict]) -> Propose:
    """Gaussian noise in place of samples: candidate k of a matrix is as far from the weights as sample k was."""

    def propose(number: int, candidate: int, now: Tensor) -> Tensor:
        _, generator = step_rng(config.seed, f"noise for {chunks.names[number]}", candidate)
        noise = torch.randn(now.shape, generator=generator)
        return now + noise * (lines[number]["candidates"][candidate]["distance"] * now.norm() / noise.norm())

    return propose
