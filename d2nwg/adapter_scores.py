"""Adapters on labelled texts: how often they are right, and what one would have had without them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2nwg.adapters import Adapter
from d2nwg.data.labelled import LabelledSet
from d2nwg.data.text_set import Text, TextSet
from d2nwg.encoders.lora import AdaptedEncoder, adapted_encoder
from d2nwg.evaluation.accuracy import confusion_matrix, interval, per_class_accuracy
from d2nwg.from_description import NAMED, DescribedAdapter, rows_of_names
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, number, some
from d2nwg.weights.finetune import score

BATCH = 64
MOST = 1_000  # texts that are scored

GENERATED, LOOK_UP, WITHOUT, FREQUENT = "generated", "look_up", "without", "frequent"


@dataclass(frozen=True)
class Targets:
    """Texts, and what an adapter should say of them.

    Attributes:
        texts: n of them.
        values: (n,) int64, the row of the head that is right; or float32, for an adapter that says a value.
        notes: sentences for the user.
    """

    texts: list[Text]
    values: np.ndarray
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """An adapter and its baselines on the same texts.

    Attributes:
        metric: ``accuracy``, or ``pearson`` for values.
        scores: by `GENERATED`, `LOOK_UP` (the nearest task's adapter of the zoo), `WITHOUT` (the encoder without an
            adapter, and a head from the labels' names) and `FREQUENT` (always the label that is most frequent here);
            for values the first two.
        intervals: of accuracies, at 95 %.
        said: the generated adapter's probabilities (n, C), or values (n,).
        targets: what was scored on.
        confusion: (C, C) of the generated adapter, a row a true class; None for values.
    """

    metric: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    said: Tensor
    targets: Targets
    confusion: np.ndarray | None

    def to_json(self) -> dict:
        """As JSON, without the single texts."""
        intervals = {name: [round(end, 4) for end in ends] for name, ends in self.intervals.items()}
        scores = {name: round(value, 6) for name, value in self.scores.items()}
        facts = {"metric": self.metric, "num_texts": len(self.targets.texts), "scores": scores}
        return {**facts, "intervals": intervals, "notes": list(self.targets.notes)}


def targets_of(adapter: Adapter, data: LabelledSet, most: int = MOST, seed: int = 0) -> Targets:
    """What an adapter should say of the test texts of a data set, or of all where it has none; at most so many, drawn
    by the seed. Classes are matched by name; where they are numbers from 0, by place.

    Raises:
        UserError: data of another kind, labels that the adapter does not know, or that are no numbers for one that says
            a value.
    """
    if not isinstance(data, TextSet):
        raise UserError(f"{data.name} holds images, and an adapter reads texts: give a table of texts and labels.")
    if data.pairs != adapter.pairs:
        raise UserError(
            f"{data.name} holds {data.noun}s, and this adapter reads {'pairs of' if adapter.pairs else 'single'} texts."
        )
    chosen = np.flatnonzero(data.is_test) if data.is_test.any() else np.arange(len(data))
    notes = list(data.notes)
    if len(chosen) > most:
        notes.append(f"Scored on {most:,} of {len(chosen):,} texts, drawn by seed {seed}.")
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, most, replace=False))
    texts = [data.items[int(i)] for i in chosen]
    if not adapter.classes:
        try:
            said = np.array([float(data.classes[int(i)]) for i in data.labels[chosen]], np.float32)
            if not np.isfinite(said).all():
                raise ValueError("not finite")
        except ValueError:
            raise UserError(f"This adapter says a value, and the labels of {data.name} are no numbers.") from None
        return Targets(texts, said, tuple(notes))
    rows = {folded(name): place for place, name in enumerate(adapter.classes)}
    unknown = [name for name in data.classes if folded(name) not in rows]
    if unknown and all(name.isdecimal() and int(name) < len(adapter.classes) for name in data.classes):
        rows, unknown = {folded(name): int(name) for name in data.classes}, []
        pairs = [f"{name} as {adapter.classes[int(name)]}" for name in data.classes]
        notes.append(f"The labels are numbers, taken as places: {some(pairs, 4)}.")
    if unknown:
        raise UserError(
            f"{data.name} has labels that the adapter does not know ({some(unknown)}): its own are "
            f"{some(adapter.classes, 8)}."
        )
    numbers = np.array([rows[folded(name)] for name in data.classes], np.int64)
    return Targets(texts, numbers[data.labels[chosen]], tuple(notes))


def evaluate_adapter(
    adapter: Adapter, data: LabelledSet, *, device: str | None = None, progress: Progress = silent
) -> dict:
    """Score an adapter on labelled texts, all of them.

    Returns:
        what `d2nwg.heads.evaluate_head` does; ``pearson`` instead of what is about classes for one that says a value.
    Raises:
        UserError: as `targets_of`, or the encoder is not available.
    """
    found = targets_of(adapter, data, most=len(data))
    with adapted_encoder(adapter.shape, device) as encoder:
        encoder.load(adapter.state)
        said = _logits(adapter, encoder, found.texts, lambda done: progress("Reading texts", done, len(found.texts)))
    facts: dict = {f"num_{data.noun}s": len(found.texts), "skipped": 0, "notes": list(found.notes)}
    if not adapter.classes:
        return {"pearson": round(score("pearson", said, found.values), 6), **facts}
    confusion = confusion_matrix(found.values, said.argmax(1).numpy(), len(adapter.classes))
    return {
        "accuracy": round(float(confusion.diagonal().sum() / confusion.sum()), 6),
        "matthews": round(score("matthews", said, found.values), 6),
        "per_class": per_class_accuracy(confusion, adapter.classes),
        "classes": list(adapter.classes),
        "confusion": confusion.tolist(),
        **facts,
    }


def compare(
    made: DescribedAdapter, data: LabelledSet, *, device: str | None = None, progress: Progress = silent
) -> Comparison:
    """A generated adapter and what one would have had without it, on the same texts.

    Raises:
        UserError: as `targets_of`.
    """
    found, classes = targets_of(made.adapter, data), made.adapter.classes
    said: dict[str, Tensor] = {}
    total = len(found.texts) * (3 if classes else 2)

    def read(adapter: Adapter, encoder: AdaptedEncoder) -> Tensor:
        before = len(said) * len(found.texts)
        return _logits(adapter, encoder, found.texts, lambda done: progress("Reading texts", before + done, total))

    with adapted_encoder(made.adapter.shape, device) as encoder:
        if classes:
            said[WITHOUT] = read(without(made.adapter, encoder), encoder)
        for name, adapter in ((GENERATED, made.adapter), (LOOK_UP, made.look_up)):
            encoder.load(adapter.state)
            said[name] = read(adapter, encoder)
    if not classes:
        scores = {name: score("pearson", said[name], found.values) for name in (GENERATED, LOOK_UP)}
        return Comparison("pearson", scores, {}, said[GENERATED][:, 0], found, None)
    right = {name: int((said[name].argmax(1).numpy() == found.values).sum()) for name in (GENERATED, LOOK_UP, WITHOUT)}
    right[FREQUENT] = int(np.bincount(found.values).max())
    count = len(found.texts)
    confusion = confusion_matrix(found.values, said[GENERATED].argmax(1).numpy(), len(classes))
    return Comparison(
        "accuracy",
        {name: value / count for name, value in right.items()},
        {name: interval(value, count) for name, value in right.items()},
        said[GENERATED].softmax(1),
        found,
        confusion,
    )


def without(adapter: Adapter, encoder: AdaptedEncoder) -> Adapter:
    """What classes there are without an adapter: a head from their names, on the encoder as it is."""
    head = {"weight": NAMED * rows_of_names(list(adapter.classes), encoder), "bias": torch.zeros(len(adapter.classes))}
    return Adapter({}, head, adapter.shape, adapter.classes, adapter.pairs)


def _logits(adapter: Adapter, encoder: AdaptedEncoder, texts: list[Text], read: Callable[[int], None]) -> Tensor:
    """(n, C) of the adapter that is in the encoder."""
    parts = []
    for start in range(0, len(texts), BATCH):
        parts.append(encoder.embed(texts[start : start + BATCH]) @ adapter.head["weight"].T + adapter.head["bias"])
        read(min(start + BATCH, len(texts)))
    return torch.cat(parts)


NAMES = {
    GENERATED: "generated adapter",
    LOOK_UP: "the nearest task's adapter of the zoo",
    WITHOUT: "no adapter, a head from the labels' names",
    FREQUENT: "always the most frequent label",
}


def words(found: Comparison, nearest: str) -> str:
    """What was measured, for a person; ``nearest`` is the name of the nearest task."""
    count = number(len(found.targets.texts), "text")
    if found.metric == "pearson":
        of, beside = found.scores[GENERATED], found.scores[LOOK_UP]
        return (
            f"The values that the generated adapter says of {count} correlate with the given ones by {of:.3f} "
            f"(Pearson); those of the zoo's adapter of {nearest} by {beside:.3f}."
        )
    low, high = found.intervals[GENERATED]
    return (
        f"The generated adapter is right on {found.scores[GENERATED]:.1%} of {count} ({low:.1%} to {high:.1%}); the "
        f"zoo's adapter of {nearest} on {found.scores[LOOK_UP]:.1%}, no adapter with a head from the labels' names on "
        f"{found.scores[WITHOUT]:.1%}; the most frequent label is right on {found.scores[FREQUENT]:.1%}."
    )
