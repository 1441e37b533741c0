"""Zoos of heads, built by one process or by several (``accelerate launch … -m d2nwg zoo build …``)."""

import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from d2nwg.data.image_set import ImageSet
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.cache import content_hash
from d2nwg.utils.devices import leave_group_at_exit, resolve_device, workers
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory, check_space
from d2nwg.utils.outputs import claimed, new_folder, resolved
from d2nwg.utils.paths import partial_name
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.info import HEADS, write_info
from d2nwg.weights.networks import State, head_shapes
from d2nwg.weights.probes import fit_linear, fit_mlp, masked_accuracy
from d2nwg.weights.zoo import (
    BATCH,
    QUERY,
    Zoo,
    ZooConfig,
    class_table,
    fit_projection,
    gather_images,
    project,
)

SHARD = 16 * BATCH  # records a file
PIECE = 16  # probes of a batch that a CPU core trains at once, so that they stay in its cache


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

    With ``WORLD_SIZE`` processes (as `accelerate launch` starts them) each trains its share of the shards, and ``out``
    must be on a disk that all of them see. The zoo is bit for bit the one that a single process builds on the same
    kind of device.

    Raises:
        UserError: ``out`` exists or is being written, or the data sets cannot make such subsets.
    """
    out = Path(out)
    device = resolve_device(device) if device else str(encoder.device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _build_in_processes(sources, encoder, config, out, device, progress)
        return Zoo(out)
    with new_folder(out) as part:
        _check(sources, encoder, config, out, device)
        images = encode_sets(sources, encoder, config, progress)
        save_file(images, part / "features.safetensors")
        _write_records(sources, images, config, part, device, progress)
        _write_info(sources, encoder, config, images, part)
    return Zoo(out)


def _build_in_processes(
    sources: Sequence[ImageSet], encoder: Encoder, config: ZooConfig, out: Path, device: str, progress: Progress
) -> None:
    """`build_zoo` in one of several processes. The first one encodes the images and writes ``zoo.json``; what it
    refuses is raised in all of them."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=device == "cpu")
    leave_group_at_exit()
    device = "cpu" if device == "cpu" else str(state.device)  # each process has a GPU of its own
    out = resolved(out)
    part = partial_name(out, "building")
    refusal: list[UserError | None] = [None]
    with ExitStack() as held:
        if state.is_main_process:
            try:
                held.enter_context(claimed(out))  # removes `part` of a build that was killed
                held.callback(shutil.rmtree, part, ignore_errors=True)
                _check(sources, encoder, config, out, device)
                part.mkdir()
                images = encode_sets(sources, encoder, config, progress)
                save_file(images, part / "features.safetensors")
            except UserError as reason:
                refusal = [reason]
        refusal = broadcast_object_list(refusal)
        if refusal[0] is not None:
            raise refusal[0]
        images = load_file(part / "features.safetensors")
        shown = progress if state.is_main_process else silent
        _write_records(sources, images, config, part, device, shown, state.process_index, state.num_processes)
        state.wait_for_everyone()
        if state.is_main_process:
            _write_info(sources, encoder, config, images, part)
            part.chmod(0o755)
            part.rename(out)
        state.wait_for_everyone()


def _check(sources: Sequence[ImageSet], encoder: Encoder, config: ZooConfig, out: Path, device: str) -> None:
    for source in sources:
        if len(source.classes) < config.min_classes:
            raise UserError(f"{source.name} has {len(source.classes)} classes, fewer than {config.min_classes}.")
    _check_size(sources, encoder, config, out, device)


def _check_size(sources: Sequence[ImageSet], encoder: Encoder, config: ZooConfig, out: Path, device: str) -> None:
    """Refuse a zoo that does not fit on the disk, or whose building does not fit into the memory.

    A record's head is padded to the most classes that are asked for, also where no data set has so many.
    """
    c, images = config, sum(len(source) for source in sources)
    width = min(c.width, encoder.num_features, max(1, images - 1))
    head = sum(math.prod(shape) for shape in head_shapes(c.probe, width, c.max_classes, c.hidden).values())
    most = max(len(source.classes) for source in sources)
    a_class = min(c.images, c.max_per_class, max(int(np.bincount(source.labels).max()) for source in sources))
    record = 4 * (c.checkpoints * head + c.max_classes * (1 + a_class))
    classes = f"--classes {c.min_classes}-{c.max_classes} (no data set has more than {most:,})"
    check_memory(2 * min(SHARD, c.subsets) * record, f"Building a zoo with {classes}", "choose a smaller range")
    seen = a_class * min(c.max_classes, most)
    trained = 4 * min(BATCH, c.subsets) * (2 * seen * width + width * width + c.checkpoints * head)
    check_memory(
        trained, f"Training {BATCH} probes on {width:,} numbers an image", "lower --images or --classes", device
    )
    what = f"A zoo of {c.subsets:,} heads of up to {c.max_classes:,} classes"
    check_space(c.subsets * record, out, what, "lower --subsets or --classes")


def _write_info(
    sources: Sequence[ImageSet], encoder: Encoder, config: ZooConfig, images: dict[str, Tensor], folder: Path
) -> None:
    """Write ``zoo.json``, the last file of a zoo."""
    content = {
        "config": asdict(config),
        "encoder": encoder.name,
        "preprocessing": encoder.preprocessing,
        "datasets": [
            {"name": s.name, "classes": list(s.classes)}
            | ({"notes": notes} if (notes := s.pixels.scale().notes()) else {})
            for s in sources
        ],
        "num_images": len(images["label"]),
        "num_records": config.subsets,
    }
    write_info(folder, HEADS, content)


def encode_sets(
    sources: Sequence[ImageSet], encoder: Encoder, config: ZooConfig, progress: Progress = silent
) -> dict[str, Tensor]:
    """Features, labels and projection of the data sets' images: the tensors of ``features.safetensors`` (see
    `d2nwg.weights.zoo`).

    Raises:
        UserError: a class has fewer than three readable images.
    """
    features, labels, first = [], [], 0
    for source in sources:
        chosen = _choose_images(source, config.max_per_class)

        def report(stage: str, done: int, total: int, name: str = source.name) -> None:
            progress(f"{stage} of {name}", done, total)

        items, scale = [source.items[i] for i in chosen], source.pixels.scale(report)
        found, readable = encoder.encode(items, progress=report, **scale.option)
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


def _choose_images(source: ImageSet, most: int) -> np.ndarray:
    """Indices of at most ``most`` images a class: those with the smallest content hash, so that the choice does not
    depend on the order of the files."""
    chosen = []
    for label in range(len(source.classes)):
        members = np.flatnonzero(source.labels == label)
        if len(members) > most:
            members = np.array(sorted(members, key=lambda i: content_hash(source.items[int(i)]) or b"\xff")[:most])
        chosen.append(members)
    return np.concatenate(chosen)


def _write_records(
    sources: Sequence[ImageSet],
    images: dict[str, Tensor],
    config: ZooConfig,
    folder: Path,
    device: str,
    progress: Progress,
    rank: int = 0,
    ranks: int = 1,
) -> None:
    """Train the probes and write the shards: process ``rank`` of ``ranks`` every ``ranks``-th shard. Each process draws
    the random numbers of all, so that the zoo does not depend on their number."""
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
            pending.append(train_batch(size, features, table, owner, config, rng, device, pool, mine))
            done += size
            progress("Training probes", done, config.subsets)
            if len(pending) * BATCH == SHARD or done == config.subsets:
                if mine:
                    shard = {name: torch.cat([p[name] for p in pending]) for name in pending[0]}
                    save_file(shard, folder / f"records-{written:05d}.safetensors")
                pending, written = [], written + 1


def train_batch(
    size: int,
    features: Tensor,
    table: Tensor,
    owner: np.ndarray,
    config: ZooConfig,
    rng: np.random.Generator,
    device: str,
    pool: Executor,
    mine: bool = True,
) -> dict[str, Tensor]:
    """Draw ``size`` class subsets, all with the same number of classes, and train a probe on each.

    Args:
        features: (N, k) projected features of all images.
        table: (classes, L), as of `class_table`.
        owner: (classes,) number of the data set of each class.
        mine: False draws the random numbers and trains nothing.
    Returns:
        The tensors of `size` records, as a shard holds them (see `d2nwg.weights.zoo`); empty if not ``mine``.
    """
    classes = draw_classes(size, owner, config, rng)  # (B, C)
    count = classes.shape[1]
    support, query = draw_images(classes, table, config.images, rng)
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


def _train_piece(
    support: Tensor, query: Tensor, count: int, features: Tensor, config: ZooConfig, seed: int, device: str
) -> tuple[State, Tensor]:
    """Probes trained on the support images (B, C, M), moved to the CPU, and their accuracies (B, K) on the query."""
    numbers = torch.full((len(support),), count, device=device)
    train, held_out = (gather_images(features, chosen, device) for chosen in (support, query))
    kwargs: dict[str, Any] = {"l2": config.l2, "checkpoints": config.checkpoints}
    if config.probe == "linear":
        state = fit_linear(*train, numbers, count, **kwargs)
    else:
        generator = torch.Generator().manual_seed(seed)
        state = fit_mlp(*train, numbers, count, hidden=config.hidden, generator=generator, **kwargs)
    steps = [{name: value[:, k] for name, value in state.items()} for k in range(config.checkpoints)]
    accuracy = torch.stack([masked_accuracy(step, *held_out, numbers) for step in steps], dim=1)
    return {name: value.cpu() for name, value in state.items()}, accuracy.cpu()


def draw_classes(size: int, owner: np.ndarray, config: ZooConfig, rng: np.random.Generator) -> Tensor:
    """(B, C) distinct classes of one data set a row; C is drawn once for the batch."""
    per_set = np.bincount(owner)
    count = int(rng.integers(config.min_classes, min(config.max_classes, per_set.max()) + 1))
    large_enough = per_set >= count
    chance = np.where(large_enough, np.sqrt(per_set), 0.0)
    sets = rng.choice(len(per_set), size, p=chance / chance.sum())
    keys = np.where(owner == sets[:, None], rng.random((size, len(owner))), 2.0)
    return torch.from_numpy(np.argsort(keys, axis=1)[:, :count])


def draw_images(classes: Tensor, table: Tensor, images: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
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
