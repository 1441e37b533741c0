"""A zoo of small networks, which was trained here: what ``zoo.json`` says of it (`Networks`), and the images that its
networks were trained and tested on (`NetworkTasks`).

It is a zoo of checkpoints (`d2nwg.weights.model_zoo`) that is complete in itself: beside ``models/`` lie
``images/00000.safetensors``, … with ``train`` (n, c, s, s) uint8, ``train_labels`` (n,) int64, ``test`` and
``test_labels`` of each data set, and ``starts/<seed>.safetensors`` with the initial weights.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import MOST_SEED
from d2nwg.utils.text import shown
from d2nwg.weights.info import Text
from d2nwg.weights.networks import State
from d2nwg.weights.small_networks import MAX_CLASSES, MAX_SIZE, NETWORKS, small_network
from d2nwg.weights.zoo_files import check_finite, check_labels, check_range, damaged, open_member

PLAIN = "plain"
TURNS = {"turned-90": 1, "turned-180": 2, "turned-270": 3}  # quarters, against the clock
VARIANTS = (PLAIN, "negative", *TURNS)
MOST = 1_000_000  # images of a part

Count = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]


class NetworkSet(BaseModel):
    """A data set: the names of its classes, and how many images there are to train and to test with."""

    name: Text
    classes: Annotated[list[Text], Field(min_length=2, max_length=100_000)]
    train: Count
    test: Count


class NetworkTask(BaseModel):
    """Classes of a data set, by number and in the order of the head's rows, in one of `VARIANTS`."""

    set: Annotated[int, Field(ge=0)]
    classes: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=MAX_CLASSES)]
    variant: Literal["plain", "negative", "turned-90", "turned-180", "turned-270"] = "plain"


class Networks(BaseModel):
    """What the networks of a zoo are.

    Attributes:
        network: of `d2nwg.weights.small_networks.NETWORKS`.
        channels, classes, size: of its input and output.
        mean, std: of the pixels as fractions, one a channel: a network takes ``(pixel / 255 - mean) / std``.
        starts: initial weights that the networks share.
        build: the settings of `d2nwg.weights.build_networks.NetworkZooConfig`.
        left_out: networks that diverged.
    """

    network: Text
    channels: Literal[1, 3]
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)]
    mean: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1, max_length=3)]
    starts: Annotated[int, Field(ge=1)]
    build: dict[str, Any] = {}
    sets: Annotated[list[NetworkSet], Field(min_length=1)]
    tasks: Annotated[dict[Text, NetworkTask], Field(min_length=1)]
    left_out: list[Text] = []

    @model_validator(mode="after")
    def _fits(self) -> "Networks":
        if self.network not in NETWORKS or not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("no such network, or other channels")
        for task in self.tasks.values():
            known = len(self.sets[task.set].classes) if task.set < len(self.sets) else 0
            distinct = len(set(task.classes)) == len(task.classes) == self.classes
            if not distinct or max(task.classes) >= known:
                raise ValueError("a task of other classes")
        return self

    def summary(self) -> dict[str, Any]:
        """For ``zoo info``."""
        return {
            **{key: getattr(self, key) for key in ("network", "channels", "classes", "size", "starts")},
            "tasks": len(self.tasks),
            "sets": [
                {"name": one.name, "classes": len(one.classes), "train": one.train, "test": one.test}
                for one in self.sets
            ],
            "left_out": self.left_out,
        }


class NetworkTasks:
    """The tasks of a zoo of small networks, with their images.

    Attributes:
        networks: what ``zoo.json`` says.
        tasks: name → `NetworkTask`.
    """

    def __init__(self, zoo):
        """
        Args:
            zoo: a `d2nwg.weights.model_zoo.ModelZoo`.
        Raises:
            UserError: its networks were not trained by ``zoo build --network``.
        """
        if zoo.networks is None:
            raise UserError(
                f"{shown(zoo.path, 500)} holds no networks with their data sets: make one with "
                "`python -m d2nwg zoo build DATA --network cnn`."
            )
        self.path: Path = zoo.path
        self.networks: Networks = zoo.networks
        self.tasks = self.networks.tasks
        self._set = lru_cache(maxsize=16)(self._read)

    def names(self, task: str) -> list[str]:
        """The classes of a task, in the order of the head's rows."""
        one = self._task(task)
        return [self.networks.sets[one.set].classes[number] for number in one.classes]

    def images(self, task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and labels to train with, and to test with: (n, c, s, s) uint8, (n,) int64 from 0 to C - 1 in the
        order of the head's rows, (m, c, s, s), (m,).

        Raises:
            UserError: there is no such task, or its file is missing, damaged, a link, or of other images.
        """
        one = self._task(task)
        train, train_labels, test, test_labels = self._set(one.set)
        return (
            *task_images(train, train_labels, one.classes, one.variant),
            *task_images(test, test_labels, one.classes, one.variant),
        )

    def set_images(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `images`, all of a data set, plain, labelled by the numbers of its own classes."""
        return self._set(number)

    def start(self, seed: int) -> State:
        """The initial weights of a record's ``start``.

        Raises:
            UserError: their file is missing, damaged, a link, or holds other weights.
        """
        about, name = self.networks, f"starts/{int(seed)}.safetensors"
        module = small_network(about.network).build(about.channels, about.classes, about.size)
        like = module.state_dict()
        with open_member(self.path, name, {key: tuple(tensor.shape) for key, tensor in like.items()}) as file:
            state = {key: file.get_tensor(key) for key in like}
        check_finite({key: state[key] for key, tensor in like.items() if tensor.is_floating_point()}, self.path, name)
        return state

    def _task(self, task: str) -> NetworkTask:
        if task not in self.tasks:
            raise UserError(f"The zoo {shown(self.path, 500)} has no task {shown(task)}.")
        return self.tasks[task]

    def _read(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        about, one, name = self.networks, self.networks.sets[number], image_file(number)
        sides = (about.channels, about.size, about.size)
        shapes = {"train": (one.train, *sides), "train_labels": (one.train,)}
        shapes |= {"test": (one.test, *sides), "test_labels": (one.test,)}
        with open_member(self.path, name, shapes) as file:
            found = {key: file.get_tensor(key) for key in shapes}
        for part in ("train", "test"):
            if found[part].dtype != torch.uint8:
                raise damaged(self.path, name)
            found[f"{part}_labels"] = check_range(found[f"{part}_labels"], 0, len(one.classes), self.path, name)
            check_labels(found[f"{part}_labels"], len(one.classes), self.path, name)
        return found["train"], found["train_labels"], found["test"], found["test_labels"]


def image_file(number: int) -> str:
    """Of a data set's images, below the zoo."""
    return f"images/{number:05d}.safetensors"


def task_images(images: Tensor, labels: Tensor, classes: list[int], variant: str) -> tuple[Tensor, Tensor]:
    """The images of these classes in a variant, labelled by their places in ``classes``."""
    rows = torch.full((int(labels.max()) + 1 if len(labels) else 1,), -1)
    for row, number in enumerate(classes):
        if number < len(rows):
            rows[number] = row
    chosen = rows[labels] >= 0
    return varied(images[chosen], variant), rows[labels[chosen]]


def varied(images: Tensor, variant: str) -> Tensor:
    """(…, s, s) uint8 in one of `VARIANTS`."""
    if variant == "negative":
        return 255 - images
    return torch.rot90(images, TURNS[variant], (-2, -1)).contiguous() if variant in TURNS else images
