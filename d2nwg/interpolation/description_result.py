"""What a path between two descriptions gives: adapters, their scores and distances, as sentences and files."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from d2nwg.adapters import Adapter
from d2nwg.data.tables import write_csv
from d2nwg.encoders.lora import LoraShape
from d2nwg.interpolation.description_ends import DescribedEnd
from d2nwg.interpolation.methods import CONDITION, WEIGHTS
from d2nwg.utils.text import number, shown
from d2nwg.weights.lora import distances
from d2nwg.weights.networks import State

BY = {CONDITION: "by the condition", WEIGHTS: "by the weights"}
JUMP = 2.5  # times the mean step, from which on a step is worth a sentence
UNIT = "lengths of a zoo adapter"


@dataclass
class Stretch:
    """The P adapters of one method.

    Attributes:
        states: their matrices.
        scores: (2, P) of each on A's texts with A's head, and on B's with B's; NaN without texts.
        far: (3, P) distances ‖ΔW - ΔW'‖ to A's, to B's and to the nearest zoo adapter, in lengths of a zoo adapter.
        owners: (P,) tasks of those nearest ones.
        degrees: (P,) by which the vectors of sentences are turned, on average.
    """

    states: list[State]
    scores: Tensor
    far: Tensor
    owners: list[str]
    degrees: Tensor


@dataclass
class DescriptionPath:
    """P points from one description to another.

    Attributes:
        ends: A and B.
        bundle: its name.
        shape: of the adapters.
        share: (P,) shares of B, from 0 to 1.
        stretches: by method: condition, weights.
        plain: (2,) scores on A's and B's texts with their heads, without an adapter.
        within: the median distance of the zoo's adapters to the nearest other one of their task, in the same unit.
        seed, num_samples: of the noise.
        seconds: wall time, loading aside.
    """

    ends: tuple[DescribedEnd, DescribedEnd]
    bundle: str
    shape: LoraShape
    share: Tensor
    stretches: dict[str, Stretch]
    plain: Tensor
    within: Tensor
    seed: int
    num_samples: int
    seconds: float

    @property
    def notes(self) -> list[str]:
        """Sentences for the user."""
        return [note for end in self.ends for note in end.notes]

    @property
    def scored(self) -> list[int]:
        """Numbers of the ends that have texts."""
        return [i for i, end in enumerate(self.ends) if end.texts]

    def nearest_point(self, share: float) -> int:
        """The number of the point nearest to a share of B."""
        return int((self.share - float(share)).abs().argmin())

    def sentences(self) -> list[str]:
        """The result in sentences, the answer first. Halfway is the point with a share nearest to 0.5: no point is
        chosen by the texts that score it."""
        middle, said = self.nearest_point(0.5), []
        own = self.stretches[CONDITION]
        for i in self.scored:
            end = self.ends[i]
            halfway = [f"{self.scored_as(i, method, middle)} {BY[method]}" for method in self.stretches]
            first, last = (self.scored_as(i, CONDITION, point) for point in (0, -1))
            said.append(
                f"On {number(len(end.texts), 'text')} of {end.letter} ({end.data}): {first} by A's adapter, halfway "
                f"{' and '.join(halfway)}, {last} by B's; {self._score(i, self.plain[i])} without an adapter."
            )
        far = {method: stretch.far[:, middle].tolist() for method, stretch in self.stretches.items()}
        condition, weights = far[CONDITION], far[WEIGHTS]
        said.append(
            f"Halfway the adapter by the condition is {condition[0]:.2f} {UNIT} from A's and {condition[1]:.2f} from "
            f"B's (by the weights {weights[0]:.2f} and {weights[1]:.2f}), and {condition[2]:.2f} from the nearest of "
            f"the zoo, one of {own.owners[middle] or 'none'}{self._within()}."
        )
        if jump := self._jump():
            said.append(jump)
        turned = [float(own.degrees[n]) for n in (0, middle, -1)]
        said.append(
            f"By the condition the adapter halfway turns the vectors of sentences by {turned[1]:.0f}° on average; A's "
            f"does by {turned[0]:.0f}°, B's by {turned[2]:.0f}°."
        )
        if not self.scored:
            said.append("Give a table of texts with labels for A or B to see what the adapters do on them.")
        return said

    def _within(self) -> str:
        within = float(self.within)
        return f" (adapters of one task: {within:.2f})" if within == within else ""

    def _jump(self) -> str | None:
        """Where a path by the condition changes over rather than mixes: one step is far longer than the others."""
        states = self.stretches[CONDITION].states
        steps = torch.stack([distances(one, other) for one, other in pairwise(states)])
        best = int(steps.argmax())
        if len(steps) < JUMP or float(steps[best]) < JUMP * float(steps.mean()):
            return None
        return (
            f"The path by the condition is uneven: the step from {float(self.share[best]):.2f} to "
            f"{float(self.share[best + 1]):.2f} is {float(steps[best] / steps.mean()):.1f} times as long as the mean."
        )

    def _score(self, end: int, value: Tensor) -> str:
        metric = self.ends[end].metric
        return f"{100 * float(value):.1f} %" if metric == "accuracy" else f"{float(value):.2f} ({metric})"

    def scored_as(self, end: int, method: str, point: int) -> str:
        """The score of a point on the texts of an end, for a person."""
        return self._score(end, self.stretches[method].scores[end, point])

    def adapter(self, method: str, point: int) -> Adapter:
        """The adapter at a point, with the head of the nearer end."""
        end = self.ends[int(self.share[point] > 0.5)]
        info: dict = {"bundle": self.bundle, "descriptions": [one.description for one in self.ends], "method": method}
        info |= {"share": round(float(self.share[point]), 6), "seed": self.seed, "num_samples": self.num_samples}
        info |= {"head": end.letter, "metric": end.metric, "task": f"{float(self.share[point]):.2f} from A to B"}
        return Adapter(
            self.stretches[method].states[point],
            end.adapter.head,
            self.shape,
            end.adapter.classes,
            end.adapter.pairs,
            info,
        )

    def write_adapter(self, method: str, point: int, folder: Path) -> None:
        """Write an adapter's folder, which is made: that of peft with the head of the nearer end, and beside it the
        heads of both (``head-A.safetensors``, ``head-B.safetensors``)."""
        folder.mkdir(parents=True)
        said = f"{' '.join(self.notes)} From A: {self.ends[0].description} To B: {self.ends[1].description}"
        self.adapter(method, point).write(folder, folder.name, shown(said, 4_000))
        for end in self.ends:
            about = {
                "classes": json.dumps(list(end.adapter.classes), ensure_ascii=False),
                "description": end.description,
            }
            save_file(end.adapter.head, folder / f"head-{end.letter}.safetensors", about)

    def report(self) -> dict:
        """The content of ``path.json``."""
        ends = [
            {
                "description": end.description,
                "nearest": [{"task": name, "cosine": round(cosine, 4)} for name, cosine in end.nearest],
                "seen": end.seen,
                "classes": list(end.adapter.classes),
                "head": end.head_from,
                "metric": end.metric,
                "texts": len(end.texts) or None,
                "data": end.data or None,
                "without_adapter": _number(plain),
            }
            for end, plain in zip(self.ends, self.plain.tolist(), strict=True)
        ]
        return {
            "bundle": self.bundle,
            "base": self.shape.base,
            "ends": ends,
            "points": [dict(zip(COLUMNS, row, strict=True)) for row in self._rows()],
            "within_task": _number(float(self.within)),
            "unit": UNIT,
            "seed": self.seed,
            "num_samples": self.num_samples,
            "words": self.sentences(),
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }

    def _rows(self) -> list[list]:
        rows = []
        for method, stretch in self.stretches.items():
            numbers = torch.cat([stretch.scores, stretch.far, stretch.degrees[None]])
            for i, (share, owner) in enumerate(zip(self.share.tolist(), stretch.owners, strict=True)):
                rows.append([method, round(share, 6), *map(_number, numbers[:, i].tolist()), owner])
        return rows

    def save(self, folder: str | Path, every: bool = True) -> Path:
        """Write ``path.json``, ``points.csv`` and, with ``every``, a folder of peft's for each point in
        ``adapters/``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        report = json.dumps(self.report(), indent=1, ensure_ascii=False)
        (folder / "path.json").write_text(report, encoding="utf-8")
        write_csv(folder / "points.csv", [COLUMNS, *self._rows()])
        for method, stretch in self.stretches.items() if every else ():
            for point in range(len(stretch.states)):
                name = f"{method}-{float(self.share[point]):.2f}"
                self.write_adapter(method, point, folder / "adapters" / name)
        return folder


COLUMNS = ["method", "share", "score_a", "score_b", "to_a", "to_b", "to_zoo", "degrees", "nearest_task"]


def _number(value: float) -> float | None:
    return None if value != value else round(value, 6)
