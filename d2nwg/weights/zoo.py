"""A zoo: a population of trained heads on disk, with the images each was trained on.

A zoo is a folder:

- ``zoo.json``: how it was made (`ZooConfig`), its data sets and classes, and the number of records.
- ``features.safetensors``: ``features`` (N, D) float16 of every image, ``label`` (N,) class of each, and the
  projection that heads are learnt on: ``mean`` (D,), ``projection`` (k, D).
- ``records-00000.safetensors``, …: up to `SHARD` records each. Tensors, with R records, K checkpoints, C_max classes:
  the head's own (for a linear probe ``weight`` (R, K, C_max, k) and ``bias`` (R, K, C_max)), ``classes`` (R, C_max)
  and ``support`` (R, C_max, M) with -1 for padding, ``accuracy`` (R, K) on other images of the same classes.

Shards are memory-mapped, so that a zoo larger than memory can be read in pieces.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from d2nwg.data.images import ImageSet
from d2nwg.encoders.images import Encoder, content_hash
from d2nwg.utils.devices import resolve_device, workers
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, head_shapes
from d2nwg.weights.probes import fit_linear, fit_mlp, masked_accuracy

BATCH = 128  # problems optimised together; all of one batch have the same number of classes
PIECE = 16  # of which a CPU works on so many at a time, to stay in its cache
SHARD = 16 * BATCH  # records a file
QUERY = 15  # held-out images a class that score a probe


@dataclass(frozen=True)
class ZooConfig:
    """How a zoo of heads is made.

    Attributes:
        subsets: number of records.
        min_classes, max_classes: classes of a subset, drawn uniformly; each subset is of one data set.
        images: support images a class (fewer where a class has few: a quarter is held out to score the probe).
        probe: ``"linear"`` or ``"mlp"`` (two layers).
        hidden: width of an mlp's hidden layer.
        width: k, principal components that heads are learnt on.
        l2: penalty of the probes.
        checkpoints: last iterates kept of each probe.
        max_per_class: images read of each class; the ones with the smallest content hash, so a set's order is moot.
        seed: of the subsets and starts.
    """

    subsets: int = 10_000
    min_classes: int = 2
    max_classes: int = 20
    images: int = 20
    probe: str = "linear"
    hidden: int = 32
    width: int = 128
    l2: float = 1e-2
    checkpoints: int = 3
    max_per_class: int = 40
    seed: int = 0

    def __post_init__(self):
        if not 2 <= self.min_classes <= self.max_classes:
            raise UserError(f"--classes {self.min_classes}-{self.max_classes} is no range: write for instance 2-20.")
        if self.probe not in ("linear", "mlp"):
            raise UserError(f"Probe {self.probe!r} is not known: choose linear or mlp.")
        for name in ("subsets", "images", "width", "checkpoints", "max_per_class", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"The zoo's {name.replace('_', ' ')} must be at least 1.")


@dataclass
class Records:
    """Some records of a zoo; B of them, one checkpoint each.

    Attributes:
        state: padded heads (B, …) on projected features.
        counts: (B,) classes each head has.
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
        """Raises UserError if ``path`` holds no zoo."""
        self.path = Path(path)
        try:
            info = json.loads((self.path / "zoo.json").read_text())
            if info.get("format") == "checkpoints":
                raise UserError(f"{self.path} is a zoo of whole models, and this needs one of heads.")
            self.config = ZooConfig(**info["config"])
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
            raise UserError(f"{self.path} is no zoo: make one with `python -m d2nwg zoo build`.") from reason
        self.encoder, self.preprocessing = info["encoder"], info["preprocessing"]
        self.datasets: list[dict] = info["datasets"]
        self.num_records: int = info["num_records"]
        self.num_images: int = info["num_images"]
        self._command: str = info.get("command", "")
        self.class_names = [(d["name"], c) for d in self.datasets for c in d["classes"]]

    def __len__(self) -> int:
        return self.num_records

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """``features`` (N, D) float16, ``label`` (N,), ``mean`` (D,), ``projection`` (k, D)."""
        try:
            return load_file(self.path / "features.safetensors")
        except (OSError, SafetensorError) as reason:
            raise UserError(f"The zoo {self.path} is incomplete: build it again.") from reason

    @cached_property
    def projected(self) -> Tensor:
        """(N, k) float32: what the heads see."""
        return project(self.images["features"].float(), self.images)

    @cached_property
    def class_images(self) -> Tensor:
        """(classes, L) image numbers of each class, -1 for padding."""
        return class_table(self.images["label"], len(self.class_names))

    @cached_property
    def _shards(self) -> list:
        paths = [self.path / f"records-{i:05d}.safetensors" for i in range(-(-self.num_records // SHARD))]
        try:
            return [safe_open(p, "pt") for p in paths]
        except (OSError, SafetensorError) as reason:
            raise UserError(f"The zoo {self.path} is incomplete: build it again.") from reason

    def summary(self) -> dict:
        """What is in the zoo, in numbers and names."""
        return {
            "encoder": self.encoder,
            "records": self.num_records,
            **{name: getattr(self.config, name) for name in ("probe", "min_classes", "max_classes", "images")},
            "num_images": self.num_images,
            "datasets": [{"name": d["name"], "classes": len(d["classes"])} for d in self.datasets],
        }

    def command(self) -> str:
        """The command line that builds this zoo, its data sets by name; whoever wrote it otherwise has noted how."""
        if self._command:
            return self._command
        c = self.config
        return (
            f"python -m d2nwg zoo build {' '.join(d['name'] for d in self.datasets)} --encoder {self.encoder} "
            f"--subsets {c.subsets} --classes {c.min_classes}-{c.max_classes} --images {c.images} "
            f"--max-per-class {c.max_per_class} --probe {c.probe} --seed {c.seed} --out {self.path.name}"
        )

    def accuracies(self) -> Tensor:
        """(R,) accuracy of each record's last checkpoint on images it was not trained on."""
        return torch.cat([shard.get_slice("accuracy")[:, -1] for shard in self._shards])

    def record_classes(self) -> Tensor:
        """(R, C_max) global class numbers of every record, -1 for padding."""
        return torch.cat([shard.get_slice("classes")[:] for shard in self._shards]).long()

    def records(self, indices: Sequence[int], checkpoint: int | Sequence[int] = -1) -> Records:
        """Read records by number, each at one of its checkpoints (-1: the last)."""
        names = list(head_shapes(self.config.probe, 1, 1))
        steps = [checkpoint] * len(indices) if isinstance(checkpoint, int) else checkpoint
        rows: dict[str, list[Tensor]] = {name: [] for name in [*names, "classes", "support", "accuracy"]}
        for i, step in zip(indices, steps, strict=True):
            shard, row = self._shards[i // SHARD], i % SHARD
            for name, kept in rows.items():
                value = shard.get_slice(name)[row]
                kept.append(value if name in ("classes", "support") else value[step])
        data = {name: torch.stack(kept) for name, kept in rows.items()}
        classes = data["classes"].long()
        return Records(
            state={name: data[name].float() for name in names},
            counts=(classes >= 0).sum(1),
            classes=classes,
            support=data["support"].long(),
            accuracy=data["accuracy"],
        )


def project(features: Tensor, images: dict[str, Tensor]) -> Tensor:
    """(n, D) features → (n, k): ``(x - mean) @ projection.T``."""
    return (features - images["mean"]) @ images["projection"].T


def fit_projection(features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Principal components, scaled so that a projected feature has unit variance on average.

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


def build_zoo(
    sources: Sequence[ImageSet],
    encoder: Encoder,
    config: ZooConfig,
    out: str | Path,
    *,
    device: str | None = None,
    progress: Progress = silent,
) -> Zoo:
    """Encode the data sets, train ``config.subsets`` probes on random class subsets, and write the zoo to ``out``.

    Raises:
        UserError: ``out`` is there already, or the data sets cannot make such subsets.
    """
    out = Path(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from d2nwg.weights.together import build_together

        return build_together(sources, encoder, config, out, device=device, progress=progress)
    if out.exists():
        raise UserError(f"{out} exists already: choose another name for the zoo, or remove it.")
    for source in sources:
        if len(source.classes) < config.min_classes:
            raise UserError(f"{source.name} has {len(source.classes)} classes, fewer than {config.min_classes}.")
    device = resolve_device(device) if device else str(encoder.device)
    images = encode_sets(sources, encoder, config, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Everything is written beside the goal and renamed at the end: a stopped build leaves no half a zoo.
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        save_file(images, part / "features.safetensors")
        write_records(sources, images, config, part, device, progress)
        write_info(sources, encoder, config, images, part)
        os.chmod(part, 0o755)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Zoo(out)


def write_info(sources, encoder, config: ZooConfig, images: dict[str, Tensor], folder: Path) -> None:
    """Write ``zoo.json``, the last file of a zoo."""
    info = {
        "config": asdict(config),
        "encoder": encoder.name,
        "preprocessing": encoder.preprocessing,
        "datasets": [{"name": s.name, "classes": list(s.classes)} for s in sources],
        "num_images": len(images["label"]),
        "num_records": config.subsets,
    }
    (folder / "zoo.json").write_text(json.dumps(info, indent=1))


def encode_sets(sources, encoder, config: ZooConfig, progress: Progress) -> dict[str, Tensor]:
    """What ``features.safetensors`` holds."""
    features, labels, first = [], [], 0
    for source in sources:
        chosen = _spread_choice(source, config.max_per_class)
        found, readable = encoder.encode(
            [source.items[i] for i in chosen],
            progress=lambda stage, done, total, name=source.name: progress(f"{stage} of {name}", done, total),
        )
        kept = source.labels[chosen][readable]
        few = np.flatnonzero(np.bincount(kept, minlength=len(source.classes)) < 3)
        if len(few):
            raise UserError(f"Class {source.classes[few[0]]} of {source.name} has fewer than three readable images.")
        features.append(found[torch.from_numpy(readable)])
        labels.append(torch.from_numpy(kept) + first)
        first += len(source.classes)
    features, labels = torch.cat(features), torch.cat(labels)
    mean, projection = fit_projection(features, config.width)
    return {"features": features.half(), "label": labels, "mean": mean, "projection": projection}


def _spread_choice(source: ImageSet, most: int) -> np.ndarray:
    """At most ``most`` images of each class: those with the smallest content hash."""
    chosen = []
    for label in range(len(source.classes)):
        members = np.flatnonzero(source.labels == label)
        if len(members) > most:
            members = np.array(sorted(members, key=lambda i: content_hash(source.items[i]) or b"\xff")[:most])
        chosen.append(members)
    return np.concatenate(chosen)


def write_records(
    sources, images, config: ZooConfig, folder: Path, device: str, progress: Progress, rank: int = 0, ranks: int = 1
) -> None:
    """Train the probes and write the shards: of several processes each trains every ``ranks``-th shard. The random
    numbers of all are drawn by each, so that the zoo is the same however many build it."""
    features = project(images["features"].float(), images).to(device)
    table = class_table(images["label"], int(images["label"].max()) + 1)
    owner = np.repeat(np.arange(len(sources)), [len(s.classes) for s in sources])
    rng = np.random.default_rng(config.seed)
    pending: list[dict[str, Tensor]] = []
    done = written = 0
    with workers(device) as pool:
        while done < config.subsets:
            size = min(BATCH, config.subsets - done)
            mine = written % ranks == rank
            pending.append(_train_batch(size, features, table, owner, config, rng, device, pool, mine))
            done += size
            progress("Training probes", done, config.subsets)
            if len(pending) * BATCH == SHARD or done == config.subsets:
                if mine:
                    shard = {name: torch.cat([p[name] for p in pending]) for name in pending[0]}
                    save_file(shard, folder / f"records-{written:05d}.safetensors")
                pending, written = [], written + 1


def _train_batch(size, features, table, owner, config, rng, device, pool, mine=True) -> dict[str, Tensor]:
    classes = _draw_classes(size, owner, config, rng)  # (B, C)
    count = classes.shape[1]
    support, query = _draw_images(classes, table, config.images, rng)
    piece = PIECE if device == "cpu" else size
    seeds = rng.integers(2**62, size=-(-size // piece)) if config.probe == "mlp" else repeat(0)
    if not mine:
        return {}

    def train(support: Tensor, query: Tensor, seed: int) -> tuple[State, Tensor]:
        return _train_piece(support, query, count, features, config, int(seed), device)

    pieces = list(pool.map(train, support.split(piece), query.split(piece), seeds))
    state = {name: torch.cat([made[name] for made, _ in pieces]) for name in pieces[0][0]}
    accuracy = torch.cat([scores for _, scores in pieces])
    padded = {}
    for name, shape in head_shapes(config.probe, features.shape[1], config.max_classes, config.hidden).items():
        full = torch.zeros(size, config.checkpoints, *shape)
        full[tuple(slice(s) for s in state[name].shape)] = state[name]
        padded[name] = full
    more = config.max_classes - count
    pad = torch.nn.functional.pad
    return {
        **padded,
        "classes": pad(classes, (0, more), value=-1).int(),
        "support": pad(support, (0, 0, 0, more), value=-1).int(),
        "accuracy": accuracy,
    }


def _train_piece(support, query, count, features, config, seed, device) -> tuple[State, Tensor]:
    """Probes of the support images (B, C, M), on the CPU, and their accuracies (B, K) on the query images."""
    numbers = torch.full((len(support),), count, device=device)
    train, held_out = (gather_images(features, chosen, device) for chosen in (support, query))
    kwargs = {"l2": config.l2, "checkpoints": config.checkpoints}
    if config.probe == "linear":
        state = fit_linear(*train, numbers, count, **kwargs)
    else:
        generator = torch.Generator().manual_seed(seed)
        state = fit_mlp(*train, numbers, count, hidden=config.hidden, generator=generator, **kwargs)
    steps = [{name: value[:, k] for name, value in state.items()} for k in range(config.checkpoints)]
    accuracy = torch.stack([masked_accuracy(step, *held_out, numbers) for step in steps], dim=1)
    return {name: value.cpu() for name, value in state.items()}, accuracy.cpu()


def _draw_classes(size: int, owner: np.ndarray, config: ZooConfig, rng: np.random.Generator) -> Tensor:
    """(B, C) distinct classes of one data set a row; C is drawn once for the batch."""
    per_set = np.bincount(owner)
    count = int(rng.integers(config.min_classes, min(config.max_classes, per_set.max()) + 1))
    able = per_set >= count
    chance = np.where(able, np.sqrt(per_set), 0.0)
    sets = rng.choice(len(per_set), size, p=chance / chance.sum())
    keys = np.where(owner == sets[:, None], rng.random((size, len(owner))), 2.0)
    return torch.from_numpy(np.argsort(keys, axis=1)[:, :count])


def _draw_images(classes: Tensor, table: Tensor, images: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Disjoint support (B, C, M) and query (B, C, QUERY) images of each class, -1 for padding."""
    members = table[classes]  # (B, C, L)
    available = (members >= 0).sum(-1, keepdim=True)
    keys = torch.from_numpy(rng.random(members.shape)) + 2.0 * (members < 0)
    shuffled = members.gather(-1, keys.argsort(-1))
    taken = torch.minimum(available - (available // 4).clamp_min(1), torch.tensor(images))
    position = torch.arange(shuffled.shape[-1])
    support = torch.where(position < taken, shuffled, -1)[..., :images]
    after = (position[:QUERY] + taken).clamp_max(shuffled.shape[-1] - 1)
    query = torch.where(position[:QUERY] + taken < available, shuffled.gather(-1, after), -1)
    return support, query


def gather_images(features: Tensor, chosen: Tensor, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C, M) image numbers → features (B, C·M, k), labels (B, C·M), weights (B, C·M)."""
    size, count, images = chosen.shape
    flat = chosen.flatten(1).to(device)
    weight = (flat >= 0).float()
    labels = torch.arange(count, device=device).repeat_interleave(images).expand(size, -1)
    return features[flat.clamp_min(0)] * weight.unsqueeze(-1), labels, weight
