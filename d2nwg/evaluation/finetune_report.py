"""What fine-tuning measured: curves of accuracy over epochs for every start, and what they mean in words."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev

from d2nwg.evaluation.report import BASELINES
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import aligned, number, shown

GENERATED, RANDOM = "generated", "random"
LABELS = {
    GENERATED: "generated start",
    RANDOM: "random initialisation",
    "class_mean": BASELINES["class_mean"],
    "ridge": BASELINES["ridge"],
    "ridge_all": "ridge on all training images",
    "average": "zoo average",
    "nearest": "nearest zoo member",
    "noise": "nearest zoo member + noise",
    "density": "kernel density of the zoo (SKDE30)",
}
FORMAT = 1
LEVEL = 5e-4  # a difference of less than 0.05 points is none


@dataclass(frozen=True)
class Curve:
    """One start, trained.

    Attributes:
        arm: its id, a key of `LABELS`.
        lr: learning rate.
        epochs: after which it was measured, from 0 on.
        accuracy: after each of them, of each seed, on the test items; fractions.
    """

    arm: str
    lr: float
    epochs: list[int]
    accuracy: list[list[float]]

    def at(self, epoch: int) -> tuple[float, float]:
        """Mean and standard deviation over the seeds (of one seed 0) after an epoch that was measured."""
        values = self.accuracy[self.epochs.index(epoch)]
        return mean(values), stdev(values) if len(values) > 1 else 0.0

    def reaches(self, accuracy: float) -> int | None:
        """The first epoch after which the mean is at least so high; None for never."""
        return next((epoch for epoch in self.epochs if self.at(epoch)[0] >= accuracy - 1e-9), None)


@dataclass(frozen=True)
class FineTuneReport:
    """What ``finetune.json`` holds.

    Attributes:
        kind: ``"head"`` or ``"network"``.
        data, classes: name and classes of the data set.
        encoder: of the items; for a network its architecture.
        epochs: of training.
        checkpoints: epochs of the table.
        seeds: of the order of the items, and of random weights.
        batch_size: items a step.
        tuned: whether each start's learning rate was chosen on a validation part of the training items.
        num_train, num_validation, num_test: items; the validation ones are some of the training ones.
        num_shown: training items that generation saw.
        curves: of each start, the generated one first.
        seconds: wall time.
        device: that computed.
        notes: sentences.
        noun: what an item is called.
    """

    kind: str
    data: str
    classes: list[str]
    encoder: str
    epochs: int
    checkpoints: list[int]
    seeds: list[int]
    batch_size: int
    tuned: bool
    num_train: int
    num_validation: int
    num_test: int
    num_shown: int
    curves: list[Curve]
    seconds: float
    device: str
    notes: list[str] = field(default_factory=list)
    noun: str = "image"
    format: int = FORMAT

    def curve(self, arm: str) -> Curve | None:
        """The curve of a start, where it took part."""
        return next((curve for curve in self.curves if curve.arm == arm), None)

    def label(self, arm: str) -> str:
        """A start in words."""
        if arm in ("class_mean", "ridge") and self.num_shown:
            return (
                f"{LABELS[arm]} of the shown {self.noun}s"
                if arm == "class_mean"
                else f"ridge on the shown {self.noun}s"
            )
        return LABELS.get(arm, arm).replace("images", f"{self.noun}s")

    def to_json(self) -> dict:
        """As ``finetune.json`` holds it, with the table of means and standard deviations."""
        return asdict(self) | {"table": table(self), "words": sentences(self)}

    def write(self, folder: Path) -> None:
        """Write ``finetune.json`` into a folder that is there."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (folder / "finetune.json").write_text(text, encoding="utf-8")

    @classmethod
    def from_json(cls, data: dict) -> "FineTuneReport":
        """The reverse of `to_json`.

        Raises:
            UserError: it is no such report.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python({k: v for k, v in data.items() if k not in ("table", "words")})
        except ValidationError as reason:
            where = ".".join(map(str, reason.errors()[0]["loc"]))
            raise UserError(f"finetune.json is damaged at {shown(where)}: fine-tune again.") from reason
        except (TypeError, AttributeError, RecursionError) as reason:
            raise UserError("This is no report of fine-tuning: give the finetune.json that it wrote.") from reason


def table(report: FineTuneReport) -> list[dict]:
    """A row a start: ``arm``, ``label``, ``lr``, and of each checkpoint ``epoch``, ``mean`` and ``std``."""
    rows = []
    for curve in report.curves:
        found = [dict(zip(("epoch", "mean", "std"), (e, *curve.at(e)), strict=True)) for e in report.checkpoints]
        rows.append({"arm": curve.arm, "label": report.label(curve.arm), "lr": curve.lr, "checkpoints": found})
    return rows


def cell(found: dict, seeds: int) -> str:
    """``85.4 ± 0.6``, or ``85.4`` of one seed; in percent."""
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['std']:.1f}" if seeds > 1 else "")


def text_table(report: FineTuneReport) -> list[str]:
    """The table in lines of plain text."""
    heads = ["% right after epoch", *map(str, report.checkpoints), "learning rate"]
    rows = [
        [r["label"], *(cell(c, len(report.seeds)) for c in r["checkpoints"]), f"{r['lr']:g}"] for r in table(report)
    ]
    return aligned([heads, *rows])


def sentences(report: FineTuneReport) -> list[str]:
    """What the curves mean: epochs saved against random initialisation, and the start that is best beside ours."""
    return [*filter(None, (epochs_saved(report), against_best(report)))]


def epochs_saved(report: FineTuneReport) -> str:
    """How many epochs random initialisation needs for what the generated start has after each checkpoint; also where it
    is behind."""
    ours, random = report.curve(GENERATED), report.curve(RANDOM)
    if ours is None or random is None:
        return ""
    parts = []
    for epoch in report.checkpoints:
        right = ours.at(epoch)[0]
        after = "untrained" if not epoch else f"after {number(epoch, 'epoch')}"
        needs, lead = random.reaches(right), right - random.at(epoch)[0]
        if needs is None:
            what = f"which random initialisation does not reach within {number(report.epochs, 'epoch')}"
        elif needs > epoch:
            saved = f", {needs - epoch} more" if epoch else ""
            what = f"for which random initialisation needs {number(needs, 'epoch')}{saved}"
        elif lead < -LEVEL:
            what = f"{100 * -lead:.1f} points behind random initialisation"
        else:
            what = "as much as random initialisation"
        parts.append(f"{after} {100 * right:.1f} %, {what}")
    return f"The generated start is right on: {'; '.join(parts)}."


def against_best(report: FineTuneReport) -> str:
    """The generated start beside the best of the others, before training and at its end."""
    ours = report.curve(GENERATED)
    others = [curve for curve in report.curves if curve.arm != GENERATED]
    if ours is None or not others:
        return ""
    parts = []
    for epoch in sorted({0, report.epochs}):
        best = max(others, key=lambda curve: curve.at(epoch)[0])
        gap = ours.at(epoch)[0] - best.at(epoch)[0]
        stand = "level with" if abs(gap) < LEVEL else f"{100 * abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
        when = "untrained" if not epoch else f"after {number(epoch, 'epoch')}"
        parts.append(f"{when} it is {stand} {report.label(best.arm)} ({100 * best.at(epoch)[0]:.1f} %)")
    return f"Beside the best of the other starts: {'; '.join(parts)}."


def measured_on(report: FineTuneReport) -> str:
    """Which items trained, chose and scored, in a sentence."""
    noun = f"{report.noun}s"
    seen = f", {report.num_shown:,} of which generation saw" if report.num_shown else ""
    if report.tuned:
        chose = f"; each start's learning rate was chosen on {report.num_validation:,} of them, which then train too"
    else:
        chose = "; all starts with one learning rate"
    spread = "mean and standard deviation" if len(report.seeds) > 1 else "mean"
    return (
        f"Trained on {report.num_train:,} {noun}{seen}{chose}. Scored on {report.num_test:,} others; {spread} of "
        f"{number(len(report.seeds), 'seed')}, batches of {report.batch_size}."
    )


def default_checkpoints(epochs: int, asked: Sequence[int] = (0, 1, 5, 25, 50, 100, 200, 500)) -> list[int]:
    """Those that are within the epochs, with 0 and the last one."""
    return sorted({0, epochs, *(epoch for epoch in asked if 0 <= epoch <= epochs)})
