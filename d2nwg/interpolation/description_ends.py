"""The two ends of a path between descriptions: what the generator knows of each, its head, and the texts that score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from d2nwg.adapter_scores import targets_of
from d2nwg.adapters import Adapter
from d2nwg.conditions.class_names import check_names, class_of
from d2nwg.data.sources import Data, load_data
from d2nwg.data.text_set import Text, TextSet
from d2nwg.encoders.lora import AdaptedEncoder
from d2nwg.from_description import NAMED, rows_of_names
from d2nwg.models.adapter_space import AdapterSpace
from d2nwg.pipelines.adapters import AdapterSamples
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, shown, some
from d2nwg.weights.finetune import predictions, score

GENERATED, NAMES, BORROWED = "generated", "names", "nearest task"  # where a head comes from


@dataclass
class DescribedEnd:
    """An end of a path between descriptions.

    Attributes:
        letter: A or B.
        description: of its task.
        nearest: names of the nearest known tasks, and the cosines of their descriptions with this one.
        seen: whether it describes a known task.
        adapter: that was generated for it, with a head.
        head_from: generated for the known task; the vectors of class names, on the encoder with this adapter; or that
            of the nearest known task, where the task is new and no class is named.
        metric: accuracy, matthews or pearson.
        data: name of the set that is scored; "" where there is none.
        texts, targets: (m,) what is scored.
        notes: sentences for the user.
    """

    letter: str
    description: str
    nearest: list[tuple[str, float]]
    seen: bool
    adapter: Adapter
    head_from: str
    metric: str
    data: str
    texts: list[Text]
    targets: np.ndarray
    notes: tuple[str, ...]

    def score(self, encoder: AdaptedEncoder) -> float:
        """Of the adapter in the encoder with this end's head, on this end's texts; NaN without texts."""
        if not self.texts:
            return float("nan")
        head = {f"head.{name}": value for name, value in self.adapter.head.items()}
        return score(self.metric, predictions(encoder, head, self.texts), self.targets)


def read_texts(source: str | Path, progress: Progress = silent) -> TextSet:
    """Labelled texts, as `d2nwg.data.sources.load_data` reads them.

    Raises:
        UserError: they are images, or cannot be read.
    """
    return texts_of(load_data(source, progress=progress))


def texts_of(data: Data) -> TextSet:
    """A set that is one of texts.

    Raises:
        UserError: it holds images.
    """
    if not isinstance(data, TextSet):
        raise UserError(f"{shown(data.name)} holds images: the adapters of a text encoder are scored on texts.")
    return data


def end_of(
    letter: str,
    description: str,
    samples: AdapterSamples,
    chosen: int,
    data: TextSet | None,
    labels: Sequence[str],
    space: AdapterSpace,
    encoder: AdaptedEncoder,
    most: int,
    seed: int,
) -> DescribedEnd:
    """An end, for whose description adapters were generated.

    Args:
        samples, chosen: the adapters, and the number of the one that is taken.
        data: labelled texts; None for none.
        labels: names of the classes, as a person gave them; may be none.
        encoder: is left with this end's adapter in it.
        most, seed: texts to score on, and the draw of them.
    Raises:
        UserError: the labels or the texts do not fit.
    """
    task, nearest = samples.task, [(space.tasks[n].name, cosine) for n, cosine in samples.nearest]
    state, head = ({k: v.float().cpu().contiguous() for k, v in part.items()} for part in samples.one(chosen))
    head = {name.removeprefix("head."): value for name, value in head.items()}
    names = [class_of(name) for name in check_names(labels)] if labels else []
    if not names and data is not None and not samples.seen:
        names = check_names(list(data.classes))
    known = samples.seen and (not names or sorted(map(folded, names)) == sorted(map(folded, task.classes)))
    source, classes, metric, pairs = GENERATED, tuple(task.classes), task.metric, task.pairs
    notes = [_known(letter, nearest, samples.seen)]
    if names and not known:
        encoder.load(state)
        length = float(head["weight"].norm(dim=1).median()) or NAMED
        head = {"weight": length * rows_of_names(names, encoder), "bias": torch.zeros(len(names))}
        source, classes, metric = NAMES, tuple(names), "accuracy"
        pairs = task.pairs if data is None else data.pairs
        notes.append(f"The head of {letter} is made of the vectors of its class names.")
    elif not known:
        source = BORROWED
        notes.append(f"The head of {letter} is that of {task.name}: name the classes of {letter} for one of its own.")
    adapter = Adapter(state, head, encoder.shape, classes, pairs, {"task": task.name if samples.seen else "new"})
    texts, values = [], np.zeros(0)
    if data is not None:
        try:
            found = targets_of(adapter, data, most, seed)
        except UserError as reason:
            raise UserError(f"{letter}: {reason}") from reason
        texts, values = found.texts, found.values
        notes += [f"{letter}: {note}" for note in found.notes]
    name = shown(data.name, 60) if data is not None else ""
    return DescribedEnd(
        letter, description, nearest, samples.seen, adapter, source, metric, name, texts, values, tuple(notes)
    )


def _known(letter: str, nearest: list[tuple[str, float]], seen: bool) -> str:
    beside = some([f"{name} ({cosine:.2f})" for name, cosine in nearest])
    if seen:
        return f"{letter} is a task that the generator knows, {nearest[0][0]}. Nearest by description: {beside}."
    return f"The generator knows no such task as {letter}, so expect little of it. Nearest by description: {beside}."
