"""Import of checkpoints to a zoo: every file is imported completely, or named with the reason why it is not."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from d2nwg.data.tables import TABLES, facts_of, read_tables
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import explained, new_folder, resolved
from d2nwg.utils.paths import partial_folder, remove_partial, sole_writer
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number, shown, some
from d2nwg.weights.checkpoint_files import CheckpointFiles, Found, find_checkpoints
from d2nwg.weights.info import CHECKPOINTS, write_info
from d2nwg.weights.model_zoo import ModelZoo, architecture, without_prefix


@dataclass
class Imported:
    """The result of an import, or of a dry run of one.

    Attributes:
        records, architectures: as in ``zoo.json``.
        sources: files of each record.
        refused: (name, sentence with the reason) of each checkpoint that was left out.
        notes: further sentences for the user.
        account: a sentence with the numbers of files that were imported and of those that were not.
    """

    records: list[dict] = field(default_factory=list)
    architectures: dict[str, list[str]] = field(default_factory=dict)
    sources: list[CheckpointFiles] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    account: str = ""


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
        UserError: nothing can be imported, ``out`` exists and ``append`` is False, a table is wrong, or another
            process is writing ``out``.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    if out is None:
        return _collect(sources, table, None, [], into, progress)
    if append:
        return _append(sources, table, resolved(out), into, progress)
    with new_folder(out, there="exists already: add to it with --append, choose another name, or remove it") as part:
        made = _collect(sources, table, part, [], into, progress)
        write_info(part, CHECKPOINTS, {"architectures": made.architectures, "records": made.records})
    return made


def _append(sources: Sequence[str | Path], table, out: Path, into: Path | None, progress: Progress) -> Imported:
    """Add to a zoo. It stays as it was until all is read and written; files that a killed run moved into it belong to
    no record, and are replaced by the next one."""
    with explained(out), sole_writer(out):
        zoo, models = ModelZoo(out), out / "models"
        if models.is_symlink() or not models.is_dir():
            raise UserError(f"The zoo {out} is damaged at models: import its checkpoints again.")
        remove_partial(models)
        with partial_folder(models) as part:
            made = _collect(sources, table, part, zoo.records, into, progress)
            records, orders = [*zoo.records, *made.records], {**made.architectures, **zoo.orders}
            try:
                for record in made.records:
                    os.replace(part / record["file"], out / record["file"])
                write_info(out, CHECKPOINTS, {"architectures": orders, "records": records})
            except BaseException:
                if len(ModelZoo(out)) == len(zoo):  # not written
                    for record in made.records:
                        (out / record["file"]).unlink(missing_ok=True)
                raise
    return made


def _collect(
    sources: Sequence[str | Path],
    table: str | Path | None,
    folder: Path | None,
    old: list[dict],
    into: Path | None,
    progress: Progress,
) -> Imported:
    """Read every checkpoint and write those that are imported below `folder`."""
    made, seen = Imported(), {record["sha256"]: record["name"] for record in old}
    finds = [_find(one, len(sources) > 1, made.refused, into, progress) for one in sources]
    tables = [Path(table)] if table else [file for found in finds for file in found.tables]
    rows = read_tables(tables)
    used: set[str] = set()
    checkpoints = [one for found in finds for one in found.checkpoints]
    first = max((int(Path(record["file"]).stem) + 1 for record in old), default=0)
    if folder is not None:
        (folder / "models").mkdir(exist_ok=True)
    for done, files in enumerate(checkpoints):
        progress("Reading checkpoints", done, len(checkpoints))
        try:
            checkpoint = files.read()
            digest = _digest(checkpoint.state)
            if digest in seen:
                raise UserError(f"{shown(files.name)} has the same weights as {shown(seen[digest])}, imported already.")
        except UserError as reason:
            made.refused.append((files.name, str(reason)))
            continue
        seen[digest] = files.name
        if checkpoint.left_out:
            keys = some(checkpoint.left_out)
            made.notes.append(f"Not imported from {shown(files.name)}: further tensors, under {keys}.")
        facts = {**checkpoint.facts, **facts_of(rows, files.path, used)}
        shape = architecture(checkpoint.state)
        made.architectures.setdefault(shape, list(without_prefix(checkpoint.state)))
        file = f"models/{first + len(made.records):05d}.safetensors"
        made.records.append({"file": file, "name": files.name, "architecture": shape, "sha256": digest, **facts})
        made.sources.append(files)
        if folder is not None:
            save_file(checkpoint.state, folder / file)
    progress("Reading checkpoints", len(checkpoints), len(checkpoints))
    made.notes += [note for found in finds for note in found.notes]
    made.account = _account(made, finds, checkpoints)
    if not made.records and not made.refused:
        raise UserError(f"These are tables and no checkpoints ({some([file.name for file in tables])}): give both.")
    if not made.records:
        raise UserError(
            made.refused[0][1]
            if len(made.refused) == 1
            else f"None of {len(made.refused)} checkpoints can be imported; the first one: {made.refused[0][1]}"
        )
    if unused := sorted(set(rows) - used):
        made.notes.append(f"The table has rows of files that are not here: {some(unused)}.")
    return made


def _find(source: str | Path, among_others: bool, refused: list, into: Path | None, progress: Progress) -> Found:
    """The checkpoints of one source. A file or folder that is given among others may be a table, and may hold none: it
    is then refused by itself. What is not there at all is a wrong name, which ends the import."""
    path = Path(source).expanduser()
    if among_others and path.is_file() and path.suffix.lower() in TABLES:
        return Found(tables=[path])
    try:
        return find_checkpoints(source, into=into, progress=progress)
    except UserError as reason:
        if not among_others or not path.exists():
            raise
        refused.append((path.name, str(reason)))
        return Found(others=[path.name])


def _account(made: Imported, finds: Sequence[Found], checkpoints: Sequence[CheckpointFiles]) -> str:
    """What became of all files, in one sentence."""
    imported = sum(len(files.files) for files in made.sources)
    refused = sum(len(files.files) for files in checkpoints) - imported
    others = [name for found in finds for name in found.others]
    skipped = sum(len(found.skipped) for found in finds)
    tables = sum(len(found.tables) for found in finds)
    total = imported + refused + len(others) + skipped + tables
    parts = [
        f"{imported:,} imported as {number(len(made.records), 'checkpoint')}",
        f"{refused:,} left out" if refused else "",
        f"{skipped:,} not read" if skipped else "",
        f"{number(tables, 'table')}" if tables else "",
        f"{len(others):,} of other kinds ({some(others)})" if others else "",
    ]
    return f"{number(total, 'file')}: {', '.join(filter(None, parts))}."


def _digest(state: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode(errors="surrogateescape"))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
