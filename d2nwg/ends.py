"""The ends of a path between tasks: data sets and saved heads that tell the same classes apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from d2nwg.conditions.encoders import Encoder
from d2nwg.errors import UserError
from d2nwg.generate import read_split
from d2nwg.heads import Head
from d2nwg.images import ImageSet
from d2nwg.names import folded, some
from d2nwg.progress import Progress, silent
from d2nwg.weights.networks import State, select_classes


@dataclass
class End:
    """One end. A data set has everything but ``head``, a saved head has nothing but that.

    Attributes:
        name: in sentences and figures.
        support: features of the support images of each class, C tensors (M_i, D), in the order all ends share.
        query: (m, D) features of the images that score.
        labels: (m,) their classes.
        items: (m) the images themselves, encoded.
        head: a saved head's weights, rows in the order all ends share.
    """

    name: str
    support: list[Tensor] | None = None
    query: Tensor | None = None
    labels: Tensor | None = None
    items: Sequence | None = None
    head: State | None = None


@dataclass
class Ends:
    """Two ends or more, in one order of the classes.

    Attributes:
        members: the ends.
        classes: the classes that all ends have, C of them; class i is row i everywhere.
        encoder, preprocessing: of the heads.
        notes: sentences for the user.
    """

    members: tuple[End, ...]
    classes: tuple[str, ...]
    encoder: str
    preprocessing: dict
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> list[int]:
        """Numbers of the ends that have query images."""
        return [i for i, end in enumerate(self.members) if end.query is not None]


def read_ends(
    sources: Sequence[ImageSet | Head],
    encoder: Encoder,
    *,
    shots: int = 5,
    seed: int = 0,
    max_query: int | None = 200,
    max_classes: int | None = None,
    progress: Progress = silent,
) -> Ends:
    """Read what the ends need, classes matched by name.

    Row i of one head means row i of the other only when both are the same class, so the order is that of the first
    source whatever order the others have; classes that not all ends have are left out.

    Args:
        sources: data sets, and saved heads on ``encoder``'s features.
        shots: support images a class.
        seed: of the splits.
        max_query: most held-out images of each data set to score on.
        max_classes: what the bundle can hold.
    Raises:
        UserError: fewer than two classes in common, too many of them, no data set among the sources, a head on other
            features, or images that `read_split` refuses.
    """
    if not any(isinstance(source, ImageSet) for source in sources):
        raise UserError("Two saved heads have no images to be scored on: give a data set for one of the ends.")
    names = _names(sources)
    classes, notes = _shared_classes(sources, names)
    if max_classes and len(classes) > max_classes:
        raise UserError(
            f"The ends share {len(classes)} classes, and this bundle makes heads for at most {max_classes}: leave some "
            "classes out, or choose another bundle."
        )
    for source in sources:
        if isinstance(source, Head) and (source.encoder, source.num_features) != (encoder.name, encoder.num_features):
            raise UserError(f"The head is for {source.encoder}, and the bundle for {encoder.name}: both must agree.")
    members = []
    for source, name in zip(sources, names, strict=True):
        where = {folded(c): i for i, c in enumerate(source.classes)}
        rows = [where[folded(c)] for c in classes]
        if isinstance(source, Head):
            members.append(End(name, head=select_classes(source.state, torch.tensor(rows))))
            continue
        images = _restricted(source, rows, classes)

        def read(stage: str, done: int, total: int, name=name) -> None:
            progress(f"{stage} of {name}", done, total)

        features, support, query, more = read_split(images, encoder, shots, seed, max_query, read)
        labels = torch.from_numpy(images.labels)
        of_class = [features[support][labels[support] == c] for c in range(len(classes))]
        members.append(End(name, of_class, features[query], labels[query], [images.items[i] for i in query]))
        notes += [*source.notes, *more]
    return Ends(tuple(members), classes, encoder.name, encoder.preprocessing, tuple(notes))


def _names(sources: Sequence[ImageSet | Head]) -> list[str]:
    """A name for each end; equal names get a letter."""
    names = [s.name if isinstance(s, ImageSet) else f"head for {s.info.get('data', 'images')}" for s in sources]
    return [f"{n} ({chr(65 + i)})" if names.count(n) > 1 else n for i, n in enumerate(names)]


def _shared_classes(sources, names) -> tuple[tuple[str, ...], list[str]]:
    every = [{folded(c) for c in source.classes} for source in sources]
    common = set.intersection(*every)
    classes = tuple(c for c in sources[0].classes if folded(c) in common)
    if len(classes) < 2:
        raise UserError(
            f"The ends have {'only one class' if classes else 'no class'} in common ({names[0]}: "
            f"{some(sources[0].classes)}; {names[1]}: {some(sources[1].classes)}): a path needs ends with the same "
            "classes, named alike."
        )
    notes = []
    for source, name in zip(sources, names, strict=True):
        left = [c for c in source.classes if folded(c) not in common]
        if left:
            notes.append(f"Left out of {name}, because not every end has them: {some(left)}.")
    return classes, notes


def _restricted(images: ImageSet, rows: Sequence[int], classes: tuple[str, ...]) -> ImageSet:
    """The data set with only the classes ``rows``, in that order."""
    place = np.full(len(images.classes), -1)
    place[list(rows)] = np.arange(len(rows))
    kept = np.flatnonzero(place[images.labels] >= 0)
    return replace(
        images,
        classes=classes,
        items=[images.items[i] for i in kept],
        labels=place[images.labels[kept]],
        is_test=images.is_test[kept],
    )
