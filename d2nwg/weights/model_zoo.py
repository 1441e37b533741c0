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

import csv
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from d2nwg.data.archives import extract_files
from d2nwg.data.tables import FACTS, TABLES, facts_of, read_tables
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, whole_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown, some
from d2nwg.weights.info import CHECKPOINTS, no_zoo, read_info, write_info
from d2nwg.weights.layouts import ChunkedLayout
from d2nwg.weights.networks import State
from d2nwg.weights.statefiles import SUFFIXES, Checkpoint, read_checkpoint

MAX_CHECKPOINTS = 100_000
PREFIX = "module."  # of all tensor names, where DataParallel wrote the checkpoint


@dataclass
class Imported:
    """The result of an import, or of a dry run of one.

    Attributes:
        records, architectures: as in ``zoo.json``.
        refused: (name, sentence with the reason) of each file that was left out.
        notes: further sentences for the user.
    """

    records: list[dict] = field(default_factory=list)
    architectures: dict[str, list[str]] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ModelZoo:
    """A zoo of checkpoints on disk, opened for reading."""

    def __init__(self, path: str | Path):
        """Raises UserError if ``path`` holds none, or one in a format that this version does not read."""
        self.path = Path(path)
        info = read_info(self.path, CHECKPOINTS)
        try:
            self.records: list[dict] = info["records"]
            self.orders: dict[str, list[str]] = info["architectures"]
        except KeyError as reason:
            raise no_zoo(self.path, CHECKPOINTS) from reason

    def __len__(self) -> int:
        return len(self.records)

    def state(self, number: int) -> dict[str, Tensor]:
        """One checkpoint's tensors, bit for bit as imported."""
        try:
            return load_file(self.path / self.records[number]["file"])
        except OSError as reason:
            raise UserError(f"The zoo {self.path} is incomplete: import its checkpoints again.") from reason

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
            "kind": CHECKPOINTS,
            "checkpoints": len(self),
            "tasks": dict(Counter(record.get("task", "unknown") for record in self.records)),
            "accuracy": {"known": len(rights), **_spread(rights)},
            "architectures": [self._describe(members) for members in self.architectures().values()],
        }

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


def find_checkpoints(
    source: str | Path, *, into: Path | None = None, progress: Progress = silent
) -> tuple[Path, list[Path], list[Path]]:
    """The checkpoints of a file, an archive or a folder.

    Returns:
        The folder, the checkpoints in it (a ``save_pretrained`` folder counts once, a sharded one by its index), and
        the tables beside them.
    Raises:
        UserError: there are none, or `d2nwg.data.archives.extract_files` refuses the archive.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return path.parent, [path], []
    if path.is_file():
        path = extract_files(
            path,
            (*SUFFIXES, *TABLES, ".json"),
            nothing=f"holds no checkpoints; pack files that end in {', '.join(SUFFIXES[:4])}",
            into=into or cache_dir() / "checkpoints",
            progress=progress,
        )
    if not path.is_dir():
        raise UserError(f"There is no folder or archive at {shown(source)}.")
    found, tables = [], []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        here = [Path(folder) / name for name in sorted(files) if not name.startswith(".")]
        tables += [file for file in here if file.suffix.lower() in TABLES]
        found += _whole_models(here)
        if len(found) > MAX_CHECKPOINTS:
            raise UserError(f"{shown(path.name)} holds more than {MAX_CHECKPOINTS:,} checkpoints, which is the limit.")
    if not found:
        raise UserError(f"{shown(path.name)} holds no checkpoints: files that end in {', '.join(SUFFIXES)}.")
    return path, found, tables


def _whole_models(files: list[Path]) -> list[Path]:
    """The checkpoints of one folder. One that `save_pretrained` wrote is one model, however many files hold it."""
    weights = [file for file in files if file.suffix.lower() in SUFFIXES]
    indices = [file for file in files if file.name.endswith(".safetensors.index.json")]
    if any(file.name in ("config.json", "adapter_config.json") for file in files):
        safe = indices or [file for file in weights if file.suffix == ".safetensors"]
        return (safe or [file for file in weights if file.name != "training_args.bin"])[:1]
    return weights


def import_checkpoints(
    source: str | Path | Sequence[str | Path],
    out: str | Path | None,
    *,
    table: str | Path | None = None,
    append: bool = False,
    into: Path | None = None,
    progress: Progress = silent,
) -> Imported:
    """Import checkpoints from folders, archives or files to the zoo ``out``; with ``out=None`` nothing is written.

    Checkpoints of different shapes become architectures of one zoo. Left out, each with its reason, are files that
    need code, are damaged, hold NaN or infinite weights, or are in the zoo already.

    Args:
        table: a CSV or JSONL of ``file``, ``task``, ``accuracy``, ``epoch``; without one, those found beside the
            checkpoints are read.
        append: add to the zoo ``out``.
        into: where archives are unpacked (the cache).
    Raises:
        UserError: nothing can be imported, ``out`` exists and ``append`` is False, or a table is wrong.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    old = ModelZoo(out) if append and out is not None else None
    if out is not None and old is None and Path(out).exists():
        raise UserError(f"{out} exists already: add to it with --append, choose another name, or remove it.")
    found = [find_checkpoints(one, into=into, progress=progress) for one in sources]
    tables = [Path(table)] if table else [file for _, _, files in found for file in files]
    rows = read_tables(tables)
    places = [(root, path) for root, paths, _ in found for path in paths]
    if out is None:
        return _collect(places, rows, None, [], progress)
    if old is not None:
        made = _collect(places, rows, old.path, old.records, progress)
        write_info(
            old.path,
            CHECKPOINTS,
            {"architectures": {**made.architectures, **old.orders}, "records": [*old.records, *made.records]},
        )
        return made
    with whole_folder(Path(out)) as part:
        made = _collect(places, rows, part, [], progress)
        write_info(part, CHECKPOINTS, {"architectures": made.architectures, "records": made.records})
        part.chmod(0o755)
    return made


def _collect(places, table: dict[str, dict], folder: Path | None, old: list[dict], progress: Progress) -> Imported:
    """Read every checkpoint and write those that are kept below `folder`."""
    made, seen = Imported(), {record["sha256"]: record["name"] for record in old}
    used: set[str] = set()
    if folder is not None:
        (folder / "models").mkdir(exist_ok=True)
    for done, (root, path) in enumerate(places):
        progress("Reading checkpoints", done, len(places))
        relative = path.relative_to(root)
        # A save_pretrained folder goes by the folder's name.
        name = shown(relative.parent if path.parent.joinpath("config.json").is_file() else relative)
        name = shown(root.name) if name == "." else name
        try:
            checkpoint = read_checkpoint(path)
        except UserError as reason:
            made.refused.append((name, str(reason)))
            continue
        digest = _digest(checkpoint.state)
        if digest in seen:
            made.refused.append((name, f"{name} has the same weights as {seen[digest]}, which is there already."))
            continue
        seen[digest] = name
        facts = {**checkpoint.facts, **facts_of(table, relative, used)}
        number = len(old) + len(made.records)
        file = f"models/{number:05d}.safetensors"
        shape = architecture(checkpoint)
        made.architectures.setdefault(shape, list(without_prefix(checkpoint.state)))
        record = {"file": file, "name": name, "architecture": shape, "sha256": digest, **facts}
        if folder is not None:
            save_file(checkpoint.state, folder / file)
        else:
            record["path"] = str(path)  # read again by a preview
        made.records.append(record)
    progress("Reading checkpoints", len(places), len(places))
    if not made.records:
        raise UserError(
            made.refused[0][1]
            if len(made.refused) == 1
            else f"None of {len(places)} checkpoints can be imported; the first one: {made.refused[0][1]}"
        )
    if unused := sorted(set(table) - used):
        made.notes.append(f"The table has rows of files that are not here: {some(unused)}.")
    return made


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the ``module.`` that all names may share."""
    if state and all(name.startswith(PREFIX) for name in state):
        return {name[len(PREFIX) :]: tensor for name, tensor in state.items()}
    return state


def architecture(checkpoint: Checkpoint) -> str:
    """Twelve hexadecimal digits, equal for checkpoints with the same tensor names and shapes."""
    shapes = [[name, list(tensor.shape)] for name, tensor in sorted(without_prefix(checkpoint.state).items())]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:12]


def _digest(state: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode(errors="surrogateescape"))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def export_zoo(zoo: ModelZoo, out: str | Path, *, format: str = "safetensors", progress: Progress = silent) -> Path:
    """Write every checkpoint to the folder ``out`` under the name it was imported by, and ``zoo.csv`` with task,
    accuracy and epoch.

    Args:
        format: ``"safetensors"``, or ``"pt"`` for state dicts that `torch.load` reads.
    Raises:
        UserError: ``out`` exists.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists already: choose another name, or remove it.")
    with whole_folder(out) as part:
        rows, taken = [], set()
        for number, record in enumerate(zoo.records):
            progress("Exporting", number, len(zoo))
            stem = (
                str(Path(record["name"]).with_suffix("")) if Path(record["name"]).suffix in SUFFIXES else record["name"]
            )
            stem = stem if stem.casefold() not in taken else f"{stem}-{number}"
            taken.add(stem.casefold())
            target = part / f"{stem}.{format}"
            if not target.resolve().is_relative_to(part.resolve()):  # a zoo from elsewhere can hold any name
                raise UserError(f"The zoo holds a name that leads out of its folder, {shown(stem)}.")
            target.parent.mkdir(parents=True, exist_ok=True)
            if format == "pt":
                torch.save(zoo.state(number), target)
            else:
                shutil.copyfile(zoo.path / record["file"], target)
            rows.append([f"{stem}.{format}", *(record.get(fact, "") for fact in FACTS)])
        with (part / "zoo.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["file", *FACTS], *rows])
        part.chmod(0o755)
    progress("Exporting", len(zoo), len(zoo))
    return out


def _spread(values: list[float]) -> dict:
    if not values:
        return {}
    return {"lowest": min(values), "mean": round(float(np.mean(values)), 4), "highest": max(values)}
