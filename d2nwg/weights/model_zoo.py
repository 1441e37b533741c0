"""A zoo of checkpoints: networks that were trained elsewhere, imported, inspected and exported.

Unlike a zoo of heads (`d2nwg.weights.zoo`) it is a folder of

- ``zoo.json``: ``{"kind": "checkpoints", "format": 2, "architectures": {…}, "records": […]}``, written last and whole.
  ``architectures`` maps a digest of tensor names and shapes, without a common ``module.``, to the names in module
  order. A record has ``file`` (below the folder), ``name`` (as it was imported), ``architecture``, ``sha256``, and
  where known ``task``, ``accuracy`` (a fraction) and ``epoch``.
- ``models/00000.safetensors``, …: one state dict each, tensors under their stored names and bit for bit as imported,
  integer buffers and BatchNorm statistics among them.

With one file a checkpoint, a zoo larger than memory can be read in pieces, and appended to.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from d2nwg.data.tables import FACTS, write_csv
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, is_utf8
from d2nwg.weights.info import ADAPTERS, CHECKPOINTS, LANGUAGE_MODEL, NETWORKS, Text, place_of, read_info
from d2nwg.weights.layouts import ChunkedLayout
from d2nwg.weights.network_tasks import Networks, Seed
from d2nwg.weights.networks import State
from d2nwg.weights.statefiles import SUFFIXES

MAX_CHECKPOINTS = 100_000
UNKNOWN_TASK = "unknown"  # of records without a task
PREFIX = "module."  # of all tensor names, where DataParallel wrote the checkpoint


def _inside(name: str) -> str:
    parts = Path(name).parts
    if not parts or parts[0] == Path(name).anchor or ".." in parts or "\0" in name or not is_utf8(name):
        raise ValueError("not a path below the zoo")
    return name


Finite = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """One checkpoint in ``zoo.json``."""

    file: Annotated[str, Field(pattern=r"^models/[0-9]{1,12}\.safetensors$")]
    name: Annotated[str, AfterValidator(_inside)]
    architecture: Text
    sha256: Text
    task: Text | None = None
    accuracy: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    epoch: int | None = None
    start: Seed | None = None  # of a small network's initial weights (`d2nwg.weights.network_tasks`)
    score: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None  # by the task's metric, as is
    dev_score: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None  # the one on what chooses
    selection: dict[Text, Finite] | None = None  # of a language model's, on the questions that choose


class AdapterTask(BaseModel):
    """A task of a zoo of adapters.

    Attributes:
        descriptions, aside: in words; the latter test a generator.
        classes: names of the head's rows; none where it says a value.
        metric: of ``score``: accuracy, matthews or pearson.
        pairs: whether it is about pairs of texts.
        parts: numbers of texts to train, to choose and to score with.
        cut: in words, how these parts were made.
        frozen: ``dev`` and ``test``: the score of the best head on the encoder without an adapter; of a language model
            as `Record.selection`, without an adapter.
    """

    name: Text
    descriptions: list[Text]
    aside: list[Text] = []
    classes: list[Text]
    metric: Literal["accuracy", "matthews", "pearson"]
    pairs: bool
    parts: list[int]
    cut: Text
    frozen: dict[str, float]


class Adapters(BaseModel):
    """What the checkpoints of a zoo of adapters are (`d2nwg.weights.build_adapters`).

    Attributes:
        base: what kind of network they change: ``text-encoder``, or ``language-model`` (`d2nwg.llm.adapter_zoo`).
        shape: of `d2nwg.encoders.lora.LoraShape`.
        encoder_key: differs for other weights of the encoder or language model.
        build: the other settings of `d2nwg.weights.build_adapters.AdapterZooConfig`, or of
            `d2nwg.llm.adapter_zoo.LlmZooConfig`.
    """

    base: Literal["text-encoder", "language-model"] = "text-encoder"
    shape: dict[str, Any]
    encoder_key: Text
    build: dict[str, Any] = {}
    tasks: list[AdapterTask]


class _Info(BaseModel):
    architectures: dict[Text, list[Text]]
    records: list[Record]
    adapters: Adapters | None = None
    networks: Networks | None = None


class ModelZoo:
    """A zoo of checkpoints on disk, opened for reading."""

    def __init__(self, path: str | Path):
        """Raises UserError if ``path`` holds none, a damaged one, or one in a format that cannot be read."""
        self.path = Path(path)
        info = read_info(self.path, CHECKPOINTS)
        try:
            checked = _Info.model_validate(info)
        except ValidationError as reason:
            raise UserError(
                f"The zoo.json of {self.path} is damaged at {place_of(reason)}: import its checkpoints again."
            ) from reason
        self.records = [record.model_dump(exclude_none=True) for record in checked.records]
        self.orders, self.adapters, self.networks = checked.architectures, checked.adapters, checked.networks

    def __len__(self) -> int:
        return len(self.records)

    @property
    def kind(self) -> str:
        """As of `d2nwg.weights.info.zoo_kind`."""
        return ADAPTERS if self.adapters else NETWORKS if self.networks else CHECKPOINTS

    def state(self, number: int) -> dict[str, Tensor]:
        """One checkpoint's tensors, bit for bit as imported.

        Raises:
            UserError: its file is missing, damaged or a link, or holds other tensors than ``zoo.json`` says.
        """
        record = self.records[number]
        path = self.path / record["file"]
        try:
            if not path.is_file() or path.resolve() != self.path.resolve() / record["file"]:
                raise FileNotFoundError(path)  # a link could name any file of the machine
            state = load_file(path)
        except (OSError, SafetensorError) as reason:
            raise UserError(
                f"The zoo {self.path} is incomplete at {record['file']}: import its checkpoints again."
            ) from reason
        if set(without_prefix(state)) != set(self.orders.get(record["architecture"], ())):
            raise UserError(f"The zoo {self.path} is damaged at {record['file']}: import its checkpoints again.")
        return state

    def plain_state(self, number: int) -> State:
        """`state` without the ``module.`` that all names may share, in module order."""
        state = without_prefix(self.state(number))
        return {name: state[name] for name in self.orders[self.records[number]["architecture"]]}

    def architectures(self) -> dict[str, list[int]]:
        """Digest → record numbers, the most frequent architecture first."""
        groups: dict[str, list[int]] = {}
        for number, record in enumerate(self.records):
            groups.setdefault(record["architecture"], []).append(number)
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))

    def layout(self, architecture: str, chunk: int = 1024, batchnorm: str = "travel") -> ChunkedLayout:
        """The chunked layout of one architecture, with statistics of all its checkpoints."""
        members = self.architectures()[architecture]
        layout = ChunkedLayout.of(self.plain_state(members[0]), chunk, batchnorm)
        layout.fit(self.plain_state(number) for number in members)
        return layout

    def summary(self) -> dict:
        """Numbers of checkpoints, their tasks, accuracies and architectures, for ``zoo info``."""
        rights = [record["accuracy"] for record in self.records if "accuracy" in record]
        return {
            "kind": self.kind,
            "checkpoints": len(self),
            "tasks": dict(Counter(record.get("task", UNKNOWN_TASK) for record in self.records)),
            "accuracy": {"known": len(rights), **_spread(rights)},
            "architectures": [self._describe(members) for members in self.architectures().values()],
            **(self._of_base(self.adapters) if self.adapters else {}),
            **({"networks": self.networks.summary()} if self.networks else {}),
        }

    def _of_base(self, about: Adapters) -> dict:
        """What the adapters change; of a language model, how the base and the best of them answer what chooses."""
        facts: dict = {"base": {"kind": about.base, **about.shape}}
        if about.base == LANGUAGE_MODEL:
            known = [(record["name"], record["selection"]) for record in self.records if record.get("selection")]
            facts["questions"] = [
                {"train": task.parts[0], "select": task.parts[1], "cut": task.cut} for task in about.tasks
            ]
            facts["selection"] = {"base": about.tasks[0].frozen, **dict(known)} if about.tasks else dict(known)
        return facts

    def _describe(self, members: list[int]) -> dict:
        state = self.plain_state(members[0])
        weights = [tensor for tensor in state.values() if tensor.is_floating_point()]
        return {
            "checkpoints": len(members),
            "first": self.records[members[0]]["name"],
            "tensors": len(state),
            "parameters": sum(tensor.numel() for tensor in weights),
            "batchnorm": any(name.endswith("running_mean") for name in state),
        }


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the ``module.`` that all names may share."""
    if state and all(name.startswith(PREFIX) for name in state):
        return {name[len(PREFIX) :]: tensor for name, tensor in state.items()}
    return state


def architecture(state: dict[str, Tensor]) -> str:
    """Twelve hexadecimal digits, equal for state dicts with the same tensor names and shapes."""
    shapes = [[name, list(tensor.shape)] for name, tensor in sorted(without_prefix(state).items())]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:12]


def export_zoo(zoo: ModelZoo, out: str | Path, *, format: str = "safetensors", progress: Progress = silent) -> Path:
    """Write every checkpoint to the folder ``out`` under the name it was imported by, and ``zoo.csv`` with task,
    accuracy and epoch.

    Args:
        format: ``"safetensors"``, or ``"pt"`` for state dicts that `torch.load` reads.
    Raises:
        UserError: as `new_folder`, or the zoo is damaged.
    """
    with new_folder(out) as part:
        _export(zoo, part, format, progress)
    progress("Exporting", len(zoo), len(zoo))
    return Path(out)


def _export(zoo: ModelZoo, folder: Path, format: str, progress: Progress) -> None:
    names = export_names([record["name"] for record in zoo.records], format)
    for number, (record, name) in enumerate(zip(zoo.records, names, strict=True)):
        progress("Exporting", number, len(zoo))
        state, target = zoo.state(number), folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if format == "pt":
            with target.open("xb") as file:  # torch's own writer does not say why it failed
                torch.save(state, file)
        else:
            shutil.copyfile(zoo.path / record["file"], target)
    tables = (folder / f"zoo{number}.csv" for number in ("", *range(2, len(names) + 3)))
    table = next(path for path in tables if not path.exists())  # it can be the name of a folder
    facts = ([record.get(fact, "") for fact in FACTS] for record in zoo.records)
    write_csv(table, [["file", *FACTS], *([name, *row] for name, row in zip(names, facts, strict=True))])


def export_names(names: Sequence[str], format: str) -> list[str]:
    """A relative path for each checkpoint, from the name that it was imported by: all different, also where capitals
    or the composition of accents do not count, none a folder of another, and no part longer than file systems allow."""
    stems = []
    for name in names:
        path = Path(name)
        path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
        stems.append(
            "/".join([*(_cut(part, 255) for part in path.parent.parts), _cut(path.name, 255 - len(f".{format}") - 8)])
        )
    wanted = {folded(f"{stem}.{format}") for stem in stems}
    folders = {folded(str(parent)) for stem in stems for parent in Path(stem).parents}
    taken, last = set(folders), dict.fromkeys(map(folded, stems), 1)
    paths = []
    for stem in stems:
        path, key = f"{stem}.{format}", folded(stem)
        while folded(path) in taken or (last[key] > 1 and folded(path) in wanted):
            last[key] += 1
            path = f"{stem}-{last[key]}.{format}"
        taken.add(folded(path))
        paths.append(path)
    return paths


def _cut(part: str, room: int) -> str:
    """The beginning of a name, of at most so many bytes."""
    return os.fsencode(part)[:room].decode("utf-8", "ignore")


def _spread(values: list[float]) -> dict:
    if not values:
        return {}
    return {"lowest": min(values), "mean": round(float(np.mean(values)), 4), "highest": max(values)}
