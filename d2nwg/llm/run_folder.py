"""The folder of a refinement while it runs: which run it is of, and the weights that this began with."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.llm.architectures import Unit
from d2nwg.llm.chunks import load_matrices, save_matrices
from d2nwg.llm.models import LanguageModel
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import is_partial, read_json, write_whole
from d2nwg.utils.text import shown

FORMAT = 4  # of a refinement's folder: candidates race since


def open_folder(folder: Path, config, own, units: Sequence[Unit], selection, report, resume: bool, **more: str) -> None:
    """Begin a folder, or check that it is this run's, by ``more`` as well."""
    digest = hashlib.sha256(repr((selection, report)).encode()).hexdigest()
    run = {
        "config": config.to_config(),
        "model": own.name,
        "matrices": [unit.name for unit in units],
        "questions": digest,
        **more,
    }
    run = json.loads(json.dumps({"format": FORMAT, **run}))
    note = folder / "run.json"
    if note.exists():
        if not resume:
            raise UserError(f"{shown(folder)} holds a refinement already: resume it, or give the name of a new folder.")
        begun = read_json(note)
        if not isinstance(begun, dict):
            raise UserError(f"The run.json in {shown(folder)} is damaged: give the name of a new folder, or delete it.")
        if begun.get("format") != FORMAT:
            raise UserError(
                f"{shown(folder)} holds a refinement that another version of this program began: give the name of a "
                "new folder, or delete it."
            )
        if begun != run:
            raise UserError(
                f"{shown(folder)} holds another refinement (its model, questions or settings differ): resume it with "
                "what it began with, or give the name of a new folder."
            )
        return
    if folder.exists() and not all(map(is_partial, folder.iterdir())):
        raise UserError(f"{shown(folder)} is not empty: give the name of a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps(run, indent=1) + "\n")


def keep_base(folder: Path, own: LanguageModel, names: Sequence[str]) -> Path:
    """The file with the model's tensors of these names as a refinement found them; it is written when that begins.

    Raises:
        UserError: the model has other ones now.
    """
    base, parameters = folder / "base.safetensors", dict(own.model.named_parameters())
    if not base.exists():
        save_matrices({key: parameters[key].to(own.stored_dtype) for key in names}, base)
    elif not same_tensors(load_matrices(base), parameters, names):
        raise UserError(f"The weights of {own.name} are not those that this refinement began with: begin a new one.")
    return base


def same_tensors(kept: dict[str, Tensor], parameters: dict[str, Tensor], names: Sequence[str]) -> bool:
    """Whether the matrices that were kept are those of the model."""
    return set(kept) == set(names) and all(
        value.shape == parameters[key].shape and torch.equal(value.to(parameters[key]).cpu(), parameters[key].cpu())
        for key, value in kept.items()
    )
