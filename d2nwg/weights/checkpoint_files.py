"""Which files below a path make up which checkpoint.

A checkpoint is one file, or the shards of one: those that an index names (``….safetensors.index.json``), or a complete
series ``…-00001-of-00003.safetensors``. Every other file is named, with the reason why it is not imported.
"""

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from d2nwg.data.archives import extract_files, left_out
from d2nwg.data.listing import Listing, skipped_note, walk
from d2nwg.data.tables import TABLES
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import is_utf8, shown, some
from d2nwg.weights.statefiles import SUFFIXES, Checkpoint, merge_shards, read_checkpoint

MAX_CHECKPOINTS = 100_000
MAX_INDEX = 64 * 2**20  # bytes
CONFIGS = ("config.json", "adapter_config.json")  # in a folder that `save_pretrained` wrote
_SUFFIX = "|".join(re.escape(suffix) for suffix in SUFFIXES)
_INDEX = re.compile(rf"(?P<prefix>.+)(?P<suffix>{_SUFFIX})\.index\.json", re.IGNORECASE)
_SHARD = re.compile(rf"(?P<prefix>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>{_SUFFIX})", re.IGNORECASE | re.ASCII)


@dataclass
class CheckpointFiles:
    """The files of one checkpoint.

    Attributes:
        name: of the checkpoint: its path below the source's folder, or its folder's where `save_pretrained` wrote it.
        path: of its file, its index, or its first shard, below the source's folder.
        weights: files that hold tensors.
        files: all of its files.
        index: tensor name → file name, where there is an index.
        fault: a sentence on why it cannot be read; empty where it can be tried.
    """

    name: str
    path: Path
    weights: list[Path]
    files: list[Path]
    index: dict[str, str] | None = None
    fault: str = ""

    def read(self) -> Checkpoint:
        """Read the checkpoint.

        Raises:
            UserError: see `d2nwg.weights.statefiles.read_checkpoint`, or its shards are not all there.
        """
        if self.fault:
            raise UserError(self.fault)
        if self.index is None and len(self.weights) == 1:
            return read_checkpoint(self.weights[0])
        return merge_shards(self.weights, self.index, shown(self.path.name))


@dataclass
class Found:
    """All files of a source.

    Attributes:
        checkpoints: those to be tried.
        tables: CSV and JSONL files.
        others: paths of the files that are neither.
        skipped: paths of links and special files, which are not opened, and sentences on them.
    """

    checkpoints: list[CheckpointFiles] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_checkpoints(source: str | Path, *, into: Path | None = None, progress: Progress = silent) -> Found:
    """The checkpoints and all other files of a file, an archive or a folder; hidden files are left out.

    Raises:
        UserError: there are no checkpoints, or `d2nwg.data.archives.extract_files` refuses the archive.
    """
    path = Path(source).expanduser()
    found = Found()
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        found.checkpoints = _checkpoints(Listing(os.fspath(path.parent), files=[path.name]), path.parent)
        return found
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
    skipped: list[tuple[str, str]] = []
    found.others = left_out(path)
    for listing in walk(path, path):
        here = _checkpoints(listing, path)
        found.checkpoints += here
        used = {file.name for checkpoint in here for file in checkpoint.files}
        for name in (name for name in listing.files if name not in used):
            file = Path(listing.path, name)
            if file.suffix.lower() in TABLES:
                found.tables.append(file)
            else:
                found.others.append(os.fspath(file.relative_to(path)))
        skipped += listing.skipped
        if len(found.checkpoints) > MAX_CHECKPOINTS:
            raise UserError(f"{shown(path.name)} holds more than {MAX_CHECKPOINTS:,} checkpoints, which is the limit.")
    found.skipped = [os.path.relpath(entry, path) for entry, _ in skipped]
    found.notes = skipped_note(skipped, path)
    if not found.checkpoints:
        more = f" {found.notes[0]}" if found.notes else ""
        raise UserError(f"{shown(path.name)} holds no checkpoints: files that end in {', '.join(SUFFIXES)}.{more}")
    return found


def _checkpoints(listing: Listing, root: Path) -> list[CheckpointFiles]:
    """The checkpoints of one folder, by name."""
    folder = Path(listing.path)
    left = {name for name in listing.files if Path(name).suffix.lower() in SUFFIXES}
    found = []
    for name in listing.files:
        if match := _INDEX.fullmatch(name):
            found.append(_indexed(folder, name, match, left))
            left -= {file.name for file in found[-1].files}
    series: dict[tuple, dict[int, str]] = defaultdict(dict)
    for name in sorted(left):
        if match := _SHARD.fullmatch(name):
            key = match["prefix"], match["suffix"], len(match["number"]), int(match["count"])
            series[key][int(match["number"])] = name
    for (*_, count), shards in series.items():
        names = list(shards.values())
        left -= set(names)
        fault = ""
        if (len(shards), min(shards), max(shards)) != (count, 1, count):
            fault = f"{shown(names[0])} is one of {count:,} shards, which are not all here; found: {some(names)}."
        files = [folder / name for name in names]
        found.append(CheckpointFiles("", files[0], files, files, fault=fault))
    found += [CheckpointFiles("", folder / name, [folder / name], [folder / name]) for name in sorted(left)]
    found.sort(key=lambda one: one.path.name)
    # The model of a `save_pretrained` folder is called by the folder's name: sharded, as safetensors, or in other form.
    models = [one for one in found if len(found) == 1 or "model" in one.path.name]
    saved = any(name in CONFIGS for name in listing.files)
    main = min(models, key=_rank, default=None) if saved else None
    for one in found:
        named = folder if one is main else one.path
        relative = named.relative_to(root)
        one.name = shown(root.resolve().name if relative == Path(".") else relative, limit=4096)  # to be unique
        one.path = one.path.relative_to(root)
    return found


def _rank(one: CheckpointFiles) -> tuple:
    name = one.path.name
    return one.index is None, not name.endswith(".safetensors"), name.startswith("adapter"), name


def _indexed(folder: Path, name: str, match: re.Match, left: set[str]) -> CheckpointFiles:
    """The checkpoint of an index. Where the index is wrong, what is named like one of its shards belongs to it too."""
    path = folder / name
    pattern = re.compile(rf"{re.escape(match['prefix'])}-\d+(-of-\d+)?{re.escape(match['suffix'])}", re.IGNORECASE)
    shards = [file for file in sorted(left) if pattern.fullmatch(file)]
    try:
        index = _read_index(path)
        if missing := sorted(set(index.values()) - left):
            raise UserError(f"{shown(name)} names {some(missing)}, which is missing.")
    except UserError as reason:
        files = [folder / file for file in shards]
        return CheckpointFiles("", path, files, [path, *files], index={}, fault=str(reason))
    files = [folder / file for file in sorted(set(index.values()))]
    return CheckpointFiles("", path, files, [path, *files], index=index)


def _read_index(path: Path) -> dict[str, str]:
    """Tensor name → file name, of an index.

    Raises:
        UserError: it is damaged, or names a file outside its folder.
    """
    name = shown(path.name)
    try:
        if path.stat().st_size > MAX_INDEX:
            raise UserError(f"{name} is larger than {MAX_INDEX // 2**20} MiB; is it an index?")
        index = json.loads(path.read_text("utf-8"))["weight_map"]
        pairs = list(index.items())
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as reason:
        raise UserError(
            f"{name} is damaged: an index maps the name of each tensor to the file that holds it."
        ) from reason
    for _, file in pairs:
        if not isinstance(file, str) or Path(file).name != file or not is_utf8(file) or "\0" in file:
            raise UserError(f"{name} names a file outside its folder, {shown(file)}.")
        if Path(file).suffix.lower() not in SUFFIXES:
            raise UserError(f"{name} names {shown(file)}, which is no file of weights.")
    if not pairs:
        raise UserError(f"{name} is damaged: it names no tensors.")
    return index
