"""The endpoints of a path between tasks: data sets, saved heads and named tasks that have classes in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2nwg.conditions.task_names import name_classes, read_mix
from d2nwg.data.deep import PixelScale
from d2nwg.data.examples import EXAMPLES
from d2nwg.data.image_set import ImageSet
from d2nwg.data.images import load_images
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.split import read_split
from d2nwg.heads import Head
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, shown, some
from d2nwg.weights.networks import State, select_classes


@dataclass
class Endpoint:
    """One endpoint of a path.

    A data set has everything but ``head`` and ``task``; a saved head has ``head`` alone; a named task has ``task``, and
    ``query``, ``labels`` and ``items`` where there are images of it. C is the number of shared classes, D that of
    features.

    Attributes:
        name: in sentences and figures.
        support: features of the support images, a tensor (M_i, D) for each of the C classes, in the shared order.
        query: (m, D) features of the held-out images that score heads.
        labels: (m,) classes of the query images, 0 to C − 1.
        items: the m query images themselves, encoded.
        head: weights of a saved head, its rows in the shared order of classes.
        task: the condition of a task-conditioned bundle: class names in the shared order, and shares (`name_classes`).
    """

    name: str
    support: list[Tensor] | None = None
    query: Tensor | None = None
    labels: Tensor | None = None
    items: Sequence | None = None
    head: State | None = None
    task: tuple[list[list[str]], list[float]] | None = None


@dataclass
class NamedTask:
    """A task that a bundle is conditioned on by name: one of its training tasks, or a mix of them (`read_mix`).

    Attributes:
        text: the name, or the mix.
        images: to score heads on, where there are some.
    """

    text: str
    images: ImageSet | None = None


@dataclass
class Endpoints:
    """Two endpoints or more, with one order of the classes.

    Attributes:
        members: the endpoints.
        classes: the C classes that all endpoints have; class i is row i of every head.
        encoder, preprocessing: of the features that the heads read.
        notes: sentences for the user.
        scale: of images of more than 8 bits a channel; that of the first endpoint which has one.
    """

    members: tuple[Endpoint, ...]
    classes: tuple[str, ...]
    encoder: str
    preprocessing: dict
    notes: tuple[str, ...] = ()
    scale: PixelScale = field(default_factory=PixelScale)

    @property
    def scored(self) -> list[int]:
        """Indices of the endpoints that have query images."""
        return [i for i, endpoint in enumerate(self.members) if endpoint.query is not None]


def read_source(text: str, progress: Progress = silent) -> ImageSet | Head | NamedTask:
    """Read an endpoint as a command line names it.

    Args:
        text: a saved head (``.safetensors``), ``task:NAME`` or ``task:NAME=DATA`` with images to score heads on
            (without them, the example of that name where there is one), or what `load_images` takes.

    Raises:
        UserError: as `Head.load` and `load_images`.
    """
    if text.startswith("task:"):
        name, _, data = text.removeprefix("task:").partition("=")
        data = data or (f"example:{name}" if name in EXAMPLES else "")
        return NamedTask(name, load_images(data, progress=progress) if data else None)
    is_head = text.endswith(".safetensors") and not Path(text).is_dir()
    return Head.load(text) if is_head else load_images(text, progress=progress)


def read_endpoints(
    sources: Sequence[ImageSet | Head | NamedTask],
    encoder: Encoder,
    *,
    tasks: Mapping[str, Sequence[str]] | None = None,
    shots: int = 5,
    seed: int = 0,
    max_query: int | None = 200,
    max_classes: int | None = None,
    progress: Progress = silent,
) -> Endpoints:
    """Encode and split the images of the endpoints, with classes matched by name.

    The classes have the order of the first source; those that not all endpoints have are left out.

    Args:
        sources: data sets, saved heads on features of ``encoder``, and named tasks.
        tasks: of a task-conditioned bundle: the names of its training tasks, with their classes. A data set then
            stands for the task of its name.
        shots: support images a class.
        seed: of the splits.
        max_query: most held-out images of each data set to score on.
        max_classes: most classes of a head in the bundle.
    Raises:
        UserError: fewer than two classes in common, or too many of them; no data set among the sources; a head on other
            features; or images that `read_split` refuses.
    """
    sources = [_named(source, tasks or {}) for source in sources]
    if not any(_images(source) for source in sources):
        raise UserError("The endpoints have no images to be scored on: give a data set for one of them.")
    names = names_of(sources)
    every = [tuple(_classes(source, tasks or {})) for source in sources]
    classes, notes = shared_classes(every, names)
    if max_classes and len(classes) > max_classes:
        raise UserError(
            f"The endpoints share {len(classes)} classes, and this bundle makes heads for at most {max_classes}: leave "
            "some classes out, or choose another bundle."
        )
    for source in sources:
        if isinstance(source, Head) and (source.encoder, source.num_features) != (encoder.name, encoder.num_features):
            raise UserError(f"The head is for {source.encoder}, and the bundle for {encoder.name}: both must agree.")
    members, scale = [], PixelScale()
    for source, name in zip(sources, names, strict=True):
        endpoint, images = Endpoint(name), _images(source)
        members.append(endpoint)
        if isinstance(source, Head):
            scale |= source.scale
            endpoint.head = select_classes(source.state, torch.tensor(_rows(source.classes, classes)))
        if isinstance(source, NamedTask):
            endpoint.task = name_classes(tasks, source.text, classes)
        if images is None:
            continue
        images = restricted(images, classes)

        def read(stage: str, done: int, total: int, name=name) -> None:
            progress(f"{stage} of {name}", done, total)

        scale |= images.pixels.scale(read)
        data = read_split(images, encoder, shots, seed, max_query, read)
        if endpoint.task is None:
            endpoint.support = data.by_class()
        endpoint.query, endpoint.labels = data.query, data.query_labels
        endpoint.items = [images.items[i] for i in data.query_index]
        notes += [*images.notes, *data.notes]
    return Endpoints(tuple(members), classes, encoder.name, encoder.preprocessing, tuple(notes), scale)


def _named(source: ImageSet | Head | NamedTask, tasks: Mapping[str, Sequence[str]]) -> ImageSet | Head | NamedTask:
    """A data set as the task of its name, where the bundle is task-conditioned."""
    if isinstance(source, NamedTask):
        if not tasks:
            raise UserError(f"This bundle knows no task by name: give images of {shown(source.text)} instead.")
        return replace(source, images=source.images and _all_of(source.images, tasks, source.text))
    if isinstance(source, Head) or not tasks:
        return source
    if source.name not in tasks:
        raise UserError(
            f"This bundle is conditioned on names of tasks, and {shown(source.name)} is none of them: choose one of "
            f"{some(list(tasks), 20)} (task:NAME=DATA on the command line)."
        )
    return NamedTask(source.name, _all_of(source, tasks, source.name))


def _all_of(images: ImageSet, tasks: Mapping[str, Sequence[str]], task: str) -> ImageSet:
    """The images, if there are some of every class of the task."""
    have = set(map(folded, images.classes))
    if missing := [label for label in _classes(NamedTask(task), tasks) if folded(label) not in have]:
        raise UserError(f"{images.name} has no images of {some(missing)}, a class of the task {shown(task)}.")
    return images


def _images(source: ImageSet | Head | NamedTask) -> ImageSet | None:
    return source if isinstance(source, ImageSet) else getattr(source, "images", None)


def _classes(source: ImageSet | Head | NamedTask, tasks: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if isinstance(source, NamedTask):
        return tasks[next(iter(read_mix(source.text, tasks)))]
    return source.classes


def _rows(own: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Indices of ``classes`` among an endpoint's own."""
    where = {folded(label): row for row, label in enumerate(own)}
    return [where[folded(label)] for label in classes]


def _name(source: ImageSet | Head | NamedTask) -> str:
    if isinstance(source, Head):
        return f"head for {shown(source.info.get('data', 'images'))}"
    return source.text if isinstance(source, NamedTask) else source.name


def names_of(sources: Sequence[ImageSet | Head | NamedTask]) -> list[str]:
    """A name for each endpoint; equal names get a letter."""
    names = [_name(source) for source in sources]
    return [f"{n} ({chr(65 + i)})" if names.count(n) > 1 else n for i, n in enumerate(names)]


def shared_classes(every: list[tuple[str, ...]], names: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The classes that all endpoints have, in the order of the first one, and sentences on those that are left out.

    Raises:
        UserError: there are fewer than two.
    """
    common = set.intersection(*({folded(c) for c in own} for own in every))
    classes = tuple(c for c in every[0] if folded(c) in common)
    if len(classes) < 2:
        raise UserError(
            f"The endpoints have {'only one class' if classes else 'no class'} in common ({names[0]}: "
            f"{some(every[0])}; {names[1]}: {some(every[1])}): a path needs endpoints with the same "
            "classes, named alike."
        )
    notes = []
    for own, name in zip(every, names, strict=True):
        left = [c for c in own if folded(c) not in common]
        if left:
            notes.append(f"Left out of {name}, because not every endpoint has them: {some(left)}.")
    return classes, notes


def restricted(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """The data set with only these of its classes, in that order."""
    rows = _rows(images.classes, classes)
    place = np.full(len(images.classes), -1)
    place[rows] = np.arange(len(rows))
    kept = np.flatnonzero(place[images.labels] >= 0)
    return replace(
        images,
        classes=classes,
        items=[images.items[int(i)] for i in kept],
        labels=place[images.labels[kept]],
        is_test=images.is_test[kept],
    )
