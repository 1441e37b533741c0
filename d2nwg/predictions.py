"""What a head or a small network says of many images, or of many texts: a table, and what deserves a look first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d2nwg.data.columns import FOUND, Columns
from d2nwg.data.deep import PixelScale
from d2nwg.data.text_set import in_words
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number, some

if TYPE_CHECKING:
    from d2nwg.heads import Head
    from d2nwg.weights.network_files import NetworkFile


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for n items that could be read.

    Attributes:
        items: (n,) image paths, texts, or pairs of texts.
        names: (n,) what each is called: the end of an image's path, or the text.
        classes: the C classes.
        probabilities: (n, C) float32.
        truth: (n,) the true class's number; -1 where it is not known.
        notes: sentences on what was left out.
        scale: on which images of more than 8 bits a channel became 8 bits.
    """

    items: tuple[Any, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    truth: np.ndarray
    notes: tuple[str, ...] = ()
    scale: PixelScale = field(default_factory=PixelScale)

    @property
    def predicted(self) -> np.ndarray:
        """(n,) the number of the likeliest class."""
        return self.probabilities.argmax(1)

    @property
    def wrong(self) -> np.ndarray:
        """(n,) bool: the true class is known, and another one is predicted."""
        return (self.truth >= 0) & (self.truth != self.predicted)

    @property
    def accuracy(self) -> float | None:
        """The share of right ones among those whose class is known; None where none is."""
        known = self.truth >= 0
        return float(1 - self.wrong[known].mean()) if known.any() else None

    def order(self) -> np.ndarray:
        """(n,) the items' numbers, wrong ones first, and then by doubt: the least likely of the predictions first."""
        return np.lexsort((self.probabilities.max(1), ~self.wrong))

    def save(self, path: str | Path) -> Path:
        """Write a CSV file: name, predicted class and its probability, the true class where one is known, and the
        probability of each class."""
        from d2nwg.data.tables import write_csv

        known = bool((self.truth >= 0).any())
        rows: list[list] = [
            ["item", "predicted", "probability", *(["true", "right"] if known else []), *self.classes],
        ]
        for name, chances, best, true in zip(self.names, self.probabilities, self.predicted, self.truth, strict=True):
            row = [name, self.classes[best], round(float(chances[best]), 4)]
            if known:
                row += ["", ""] if true < 0 else [self.classes[true], "yes" if true == best else "no"]
            rows.append([*row, *(round(float(p), 4) for p in chances)])
        return write_csv(Path(path), rows)


def predict_many(
    head: "Head | NetworkFile",
    sources: Sequence[str | Path],
    *,
    columns: Columns = FOUND,
    into: Path | None = None,
    device: str | None = None,
    progress: Progress = silent,
) -> Predictions:
    """Predict for all that files, folders and archives hold.

    The true class of an image is known where the folder it lies in has the name of one of the head's classes.

    Args:
        sources: images, folders and archives of images at any depth; or tables and lists of texts.
        columns: of tables.
        into: a folder where archives are unpacked; by default in the cache.
        progress: stage "Reading images" or "Reading texts".
    Raises:
        UserError: there is nothing to read, or the head's encoder is not available.
    """
    from d2nwg.data.images import load_unlabelled
    from d2nwg.data.pixels import measure
    from d2nwg.data.texts import load_free_texts

    paths, scale = [Path(source) for source in sources], head.scale
    if head.noun == "image":
        items: Sequence[Any] = load_unlabelled(paths, into=into, progress=progress)
        scale |= measure(items, progress)
        names = [f"{item.parent.name}/{item.name}" for item in items]
        row = {name: i for i, name in enumerate(head.classes)}
        truth = np.array([row.get(item.parent.name, -1) for item in items])
    else:
        items = load_free_texts(paths, pairs=head.noun == "pair", columns=columns, into=into, progress=progress)
        names = [in_words(item) for item in items]
        truth = np.full(len(items), -1)
    probabilities, readable = head.probabilities(items, device=device, progress=progress, scale=scale)
    left_out = [name for name, could in zip(names, readable, strict=True) if not could]
    if len(left_out) == len(items):
        raise UserError(f"None of these can be read: {some(left_out)}.")
    notes = (f"Left out {number(len(left_out), head.noun)} that could not be read: {some(left_out)}.",)
    kept = np.flatnonzero(readable).tolist()
    return Predictions(
        tuple(items[i] for i in kept),
        tuple(names[i] for i in kept),
        tuple(head.classes),
        probabilities.numpy()[kept],
        truth[kept],
        notes if left_out else (),
        scale,
    )
