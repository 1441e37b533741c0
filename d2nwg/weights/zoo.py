"""A zoo of heads: a population of trained heads on disk, with the images that each was trained on.

A zoo is a folder, which `d2nwg.weights.build` writes:

- ``zoo.json``: how it was made (`ZooConfig`), its data sets and classes, and the number of records.
- ``features.safetensors``: ``features`` (N, D) float16 of every image, ``label`` (N,) class of each, and the
  projection that heads are learnt on: ``mean`` (D,), ``projection`` (k, D).
- ``records-00000.safetensors``, …: shards. Tensors, for R records, K checkpoints and at most C_max classes:
  the head's own (for a linear probe ``weight`` (R, K, C_max, k) and ``bias`` (R, K, C_max)), ``classes`` (R, C_max)
  and ``support`` (R, C_max, M) with -1 for padding, ``accuracy`` (R, K) on other images of the same classes. Each
  `BATCH` consecutive records have the same number of classes.

Shards are memory-mapped, so that a zoo larger than memory can be read in pieces.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from torch import Tensor

from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Count, Seed, check_fields
from d2nwg.utils.limits import MANY
from d2nwg.weights.info import HEADS, Text, no_zoo, read_info
from d2nwg.weights.networks import State, head_shapes
from d2nwg.weights.zoo_files import Shape, check_finite, check_labels, check_range, damaged, open_member

BATCH = 128  # probes trained in one optimisation, all with the same number of classes
FEATURES, RECORDS = "features.safetensors", "one of its records"
QUERY = 15  # held-out images a class that score a probe


@dataclass(frozen=True)
class ZooConfig:
    """The configuration of a zoo of heads.

    Attributes:
        subsets: number of records.
        min_classes, max_classes: range of the number of classes of a subset, drawn uniformly; each subset is of one
            data set.
        images: support images a class (fewer where a class has few: a quarter is held out to score the probe).
        probe: ``"linear"`` or ``"mlp"`` (two layers).
        hidden: width of the hidden layer of an mlp.
        width: k, the number of principal components that heads are trained on.
        l2: L2 penalty of the probes.
        checkpoints: number of last iterates kept of each probe.
        max_per_class: upper bound on the images read of each class; those with the smallest content hash.
        seed: of the random subsets and initial weights.
    """

    subsets: Count = 10_000
    min_classes: Annotated[int, Ge(2), Le(MANY)] = 2
    max_classes: Annotated[int, Ge(2), Le(MANY)] = 20
    images: Count = 20
    probe: Literal["linear", "mlp"] = "linear"
    hidden: Annotated[int, Ge(1), Le(2**20)] = 32
    width: Annotated[int, Ge(1), Le(2**20)] = 128
    l2: Annotated[float, Gt(0), Le(10**6)] = 1e-2
    checkpoints: Annotated[int, Ge(1), Le(12)] = 3  # `fit_linear` makes so many iterations
    max_per_class: Count = 40
    seed: Seed = 0

    def __post_init__(self):
        low, high = self.min_classes, self.max_classes
        if isinstance(low, int) and isinstance(high, int) and not 2 <= low <= high:
            raise UserError(f"--classes {low}-{high} is no range: write for instance 2-20.")
        check_fields(self, "zoo's setting")


class _Dataset(BaseModel):
    name: Text
    classes: Annotated[list[Text], Field(min_length=1)]
    notes: list[Text] = []


def _known_fields(config: object) -> object:
    if isinstance(config, dict) and set(config) - {one.name for one in fields(ZooConfig)}:
        raise ValueError("of a newer version, or no zoo")
    return config


class _Info(BaseModel):
    """``zoo.json``."""

    config: Annotated[ZooConfig, BeforeValidator(_known_fields)]
    encoder: Text
    preprocessing: dict
    datasets: Annotated[list[_Dataset], Field(min_length=1)]
    num_images: Annotated[int, Field(ge=1, le=MANY)]
    num_records: Annotated[int, Field(ge=1, le=MANY)]
    command: Text = ""


@dataclass
class Records:
    """B records of a zoo, one checkpoint each.

    Attributes:
        state: padded heads (B, …) on projected features.
        counts: (B,) number of classes of each head.
        classes: (B, C_max) global class numbers, -1 for padding.
        support: (B, C_max, M) image numbers, -1 for padding.
        accuracy: (B,) on held-out images.
    """

    state: State
    counts: Tensor
    classes: Tensor
    support: Tensor
    accuracy: Tensor


class Zoo:
    """A zoo on disk, opened for reading."""

    def __init__(self, path: str | Path):
        """Raises UserError if ``path`` holds no zoo of heads, or one in a format that this version does not read."""
        self.path = Path(path)
        try:
            info = _Info.model_validate(read_info(self.path, HEADS))
        except ValidationError as reason:
            raise no_zoo(self.path, HEADS, reason) from reason
        self.config, self.encoder, self.preprocessing = info.config, info.encoder, info.preprocessing
        self.datasets = [one.model_dump(exclude_defaults=True) for one in info.datasets]
        self.num_records, self.num_images, self._command = info.num_records, info.num_images, info.command
        self.class_names = [(d["name"], c) for d in self.datasets for c in d["classes"]]

    def __len__(self) -> int:
        return self.num_records

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """``features`` (N, D) float16, ``label`` (N,), ``mean`` (D,), ``projection`` (k, D)."""
        shapes: dict[str, Shape] = {"features": (self.num_images, None), "label": (self.num_images,)}
        file = open_member(self.path, FEATURES, {**shapes, "mean": (None,), "projection": (None, None)})
        found = {name: file.get_tensor(name) for name in (*shapes, "mean", "projection")}
        if (
            found["projection"].shape[1] != found["features"].shape[1]
            or found["mean"].shape != found["features"][0].shape
        ):
            raise damaged(self.path, FEATURES)
        check_finite({name: found[name] for name in ("features", "mean", "projection")}, self.path, FEATURES)
        check_labels(found["label"], len(self.class_names), self.path, FEATURES)
        return found

    @cached_property
    def projected(self) -> Tensor:
        """(N, k) float32: the projected features, inputs of the heads."""
        return project(self.images["features"].float(), self.images)

    def support_features(self, records: "Records", shots: int | None = None) -> tuple[Tensor, Tensor]:
        """What the heads of B records see of their support images: (B, C_max, M, k), zero for padding, and the mask
        (B, C_max, M) of images that are there; of at most ``shots`` images a class."""
        support = records.support[..., :shots]
        mask = support >= 0
        return self.projected[support.clamp_min(0)] * mask.unsqueeze(-1), mask

    @cached_property
    def class_images(self) -> Tensor:
        """(classes, L) image numbers of each class, -1 for padding."""
        return class_table(self.images["label"], len(self.class_names))

    @cached_property
    def _shards(self) -> list:
        config, first = self.config, open_member(self.path, FEATURES, {"projection": (None, None)})
        width = first.get_slice("projection").get_shape()[0]
        shapes: dict[str, Shape] = {
            name: (None, config.checkpoints, *shape)
            for name, shape in head_shapes(config.probe, width, config.max_classes, config.hidden).items()
        }
        # Fewer support images than `config.images` where no class has so many.
        shapes |= {"classes": (None, config.max_classes), "support": (None, config.max_classes, None)}
        shapes |= {"accuracy": (None, config.checkpoints)}
        names = sorted(path.name for path in self.path.glob("records-*.safetensors"))
        shards = [open_member(self.path, name, shapes) for name in names]
        for shard, name in zip(shards, names, strict=True):
            if len({shard.get_slice(tensor).get_shape()[0] for tensor in shapes}) != 1:
                raise damaged(self.path, name)
            if shard.get_slice("support").get_shape()[2] > config.images:
                raise damaged(self.path, name)
        if sum(shard.get_slice("accuracy").get_shape()[0] for shard in shards) != self.num_records:
            raise damaged(self.path, RECORDS)
        return shards

    @cached_property
    def _ends(self) -> np.ndarray:
        """(shards,) number of records up to the end of each shard."""
        return np.cumsum([shard.get_slice("accuracy").get_shape()[0] for shard in self._shards])

    def summary(self) -> dict:
        """Encoder, numbers of records and images, probe and data sets, for ``zoo info``."""
        return {
            "encoder": self.encoder,
            "records": self.num_records,
            **{name: getattr(self.config, name) for name in ("probe", "min_classes", "max_classes", "images")},
            "num_images": self.num_images,
            "datasets": [{**d, "classes": len(d["classes"])} for d in self.datasets],
        }

    def command(self) -> str:
        """The command line that builds this zoo, with its data sets by name, or the one that ``zoo.json`` gives."""
        if self._command:
            return self._command
        c = self.config
        return (
            f"python -m d2nwg zoo build {shlex.join(d['name'] for d in self.datasets)} --encoder {self.encoder} "
            f"--subsets {c.subsets} --classes {c.min_classes}-{c.max_classes} --images {c.images} "
            f"--max-per-class {c.max_per_class} --probe {c.probe} --seed {c.seed} --out {self.path.name}"
        )

    def accuracies(self) -> Tensor:
        """(R,) accuracy of each record's last checkpoint on images it was not trained on."""
        found = torch.cat([shard.get_slice("accuracy")[:, -1] for shard in self._shards])
        check_finite({"accuracy": found}, self.path, RECORDS)
        return found

    def record_classes(self) -> Tensor:
        """(R, C_max) global class numbers of every record, -1 for padding."""
        found = torch.cat([shard.get_slice("classes")[:] for shard in self._shards])
        return check_range(found, -1, len(self.class_names), self.path, RECORDS)

    def records(self, indices: Sequence[int], checkpoint: int | Sequence[int] = -1) -> Records:
        """Read records by number, each at one of its checkpoints (-1: the last)."""
        names = list(head_shapes(self.config.probe, 1, 1))
        steps = [checkpoint] * len(indices) if isinstance(checkpoint, int) else checkpoint
        rows: dict[str, list[Tensor]] = {name: [] for name in [*names, "classes", "support", "accuracy"]}
        for i, step in zip(indices, steps, strict=True):
            number = int(np.searchsorted(self._ends, i, side="right"))
            shard, row = self._shards[number], i - int(self._ends[number - 1]) if number else i
            for name, kept in rows.items():
                value = shard.get_slice(name)[row]
                kept.append(value if name in ("classes", "support") else value[step])
        data = {name: torch.stack(kept) for name, kept in rows.items()}
        classes = check_range(data["classes"], -1, len(self.class_names), self.path, RECORDS)
        counts = check_range((classes >= 0).sum(1), 2, self.config.max_classes + 1, self.path, RECORDS)
        check_finite({name: data[name] for name in (*names, "accuracy")}, self.path, RECORDS)
        return Records(
            state={name: data[name].float() for name in names},
            counts=counts,
            classes=classes,
            support=check_range(data["support"], -1, self.num_images, self.path, RECORDS),
            accuracy=data["accuracy"],
        )


def project(features: Tensor, images: dict[str, Tensor]) -> Tensor:
    """(n, D) features → (n, k): ``(x - mean) @ projection.T``."""
    return (features - images["mean"]) @ images["projection"].T


def fit_projection(features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Principal components of features (n, D), scaled so that the projected features have unit variance on average.

    Returns:
        mean (D,), projection (k, D) with k = min(width, D, n - 1).
    """
    mean = features.mean(0)
    centred = features - mean
    values, vectors = torch.linalg.eigh((centred.T @ centred / len(centred)).double())
    width = min(width, len(values), len(features) - 1)
    values, vectors = values.flip(0)[:width], vectors.flip(1)[:, :width]
    return mean, (vectors / values.mean().clamp_min(1e-12).sqrt()).T.float().contiguous()


def class_table(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (N,) → (num_classes, L) image numbers of each class, -1 for padding."""
    members = [torch.nonzero(labels == c).squeeze(1) for c in range(num_classes)]
    return torch.nn.utils.rnn.pad_sequence(members, batch_first=True, padding_value=-1)


def gather_images(features: Tensor, chosen: Tensor, device: str | torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C, M) image numbers, -1 for padding → features (B, C·M, k), labels (B, C·M) and weights (B, C·M), 0 for
    padding, as `d2nwg.weights.probes` takes them."""
    size, count, images = chosen.shape
    flat = chosen.flatten(1).to(device)
    weight = (flat >= 0).float()
    labels = torch.arange(count, device=device).repeat_interleave(images).expand(size, -1)
    return features[flat.clamp_min(0)] * weight.unsqueeze(-1), labels, weight
