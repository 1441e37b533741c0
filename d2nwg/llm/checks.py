"""Checks before a refinement: whether the VAE reconstructs the matrices, and whether kept activations give the same
scores."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import FiniteFloat, PositiveFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from d2nwg.llm.chunks import joined
from d2nwg.llm.groups import GroupedGenerator
from d2nwg.llm.models import LanguageModel
from d2nwg.llm.questions import Question
from d2nwg.llm.score import Scorer, Scores, fit_temperature
from d2nwg.llm.search import Log, Search
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.paths import read_json, write_whole
from d2nwg.utils.progress import Progress

BROKEN = 1.0  # relative error of reconstructed weights that zeros have: nothing was learnt
TOLERANCE = 1e-3  # between scores with and without the blocks below; beyond it they are not reused


class _Compression(TypedDict):
    latents: FiniteFloat
    with_decoder: FiniteFloat


class _Found(TypedDict):
    """What was measured, as ``reconstruction.json`` keeps it."""

    compression: _Compression
    error: FiniteFloat
    errors: dict[str, FiniteFloat]
    sample_distances: dict[str, FiniteFloat]
    residual_scale: dict[str, FiniteFloat]
    base_selection_accuracy: FiniteFloat
    selection_accuracy: FiniteFloat
    base_selection_confidence: float
    selection_confidence: float


class _Note(TypedDict):
    reconstruction: _Found


class _Temperature(TypedDict):
    temperature: Annotated[PositiveFloat, FiniteFloat]


def _read(note: Path, kind: type = _Note) -> dict:
    """What an earlier run measured. Raises UserError for what it did not write."""
    try:
        return dict(TypeAdapter(kind).validate_python(read_json(note), strict=True))
    except ValidationError as reason:
        raise UserError(f"{note} is damaged: delete the folder of this refinement, and begin it again.") from reason


def temperature_of(base: Callable[[], Scores], config, folder: Path) -> float:
    """The temperature of all log-probabilities of a refinement, fitted once, when it begins, to how the base model
    scores the selection questions.

    Args:
        base: scores them; called when there is no temperature yet.
    Raises:
        UserError: what the folder keeps of it is damaged.
    """
    note = folder / "temperature.json"
    if not note.exists():
        write_whole(note, json.dumps({"temperature": fit_temperature(base(), config.normalise)}) + "\n")
    return _read(note, _Temperature)["temperature"]


@torch.inference_mode()
def check_reconstruction(generator: GroupedGenerator, scorer: Scorer, config, folder: Path, progress: Progress) -> dict:
    """The model with every chosen matrix as the VAE gives it back, before anything is refined. Weights that hardly
    compress come back changed, and the model with all of them at once may answer far worse: that is said, and one
    matrix at a time is tried all the same.

    Raises:
        UserError: the VAE has learnt nothing.
    """
    note = folder / "reconstruction.json"
    if note.exists():
        return _read(note)
    chunks, stage = generator.chunks, "Checking the reconstruction"
    search = Search("refined", scorer, chunks, config, folder, Log(folder / "log.jsonl"))
    before = scorer.score(progress=progress, stage="Scoring the base")
    temperature = temperature_of(lambda: before, config, folder)
    errors, distances = {}, {}
    for number, unit in enumerate(chunks.units):
        progress(stage, number, len(chunks.units))
        exact, rebuilt = joined(unit, chunks.tensors(unit)), generator.reconstruct(number)
        length = exact.norm().clamp_min(1e-12)
        errors[unit.name] = float((joined(unit, rebuilt) - exact).norm() / length)
        distances[unit.name] = float((joined(unit, generator.sample(number, 0)) - exact).norm() / length)
        search.put(rebuilt)
    after = scorer.score(progress=progress, stage=stage)
    search.restore()
    base, with_rebuilt = before.accuracy(config.normalise), after.accuracy(config.normalise)
    found: dict[str, dict] = {
        "reconstruction": {
            "compression": generator.compression,
            "error": float(np.mean(list(errors.values()))),
            "errors": errors,
            "sample_distances": distances,
            "residual_scale": {key: min(1.0, config.reach / max(value, 1e-12)) for key, value in distances.items()},
            "base_selection_accuracy": base,
            "selection_accuracy": with_rebuilt,
            "base_selection_confidence": before.confidence(config.normalise, temperature),
            "selection_confidence": after.confidence(config.normalise, temperature),
        }
    }
    error = found["reconstruction"]["error"]
    if not error < BROKEN:
        raise UserError(
            f"The VAE does not give the layers back (relative error {error:.2g}, no better than zeros). Nothing was "
            "refined: take a smaller --compression or another seed."
        )
    write_whole(note, json.dumps(found, indent=1) + "\n")
    return found


def same_when_reused(model: LanguageModel, questions: Sequence[Question]) -> bool:
    """Whether scores are the same when the blocks below are not run again; on a few questions, in mid-model. Some
    models do more than run their blocks in turn."""
    few = Scorer(model, questions[:4])
    whole = few.score()
    try:
        few.advance(len(few.blocks) // 2)
        reused = few.score()
    except (AttributeError, TypeError, RuntimeError) as reason:
        if out_of_memory(reason):
            raise
        return False
    finally:
        few.close()
    return all(np.abs(a - b).max() < TOLERANCE for a, b in zip(whole.choices, reused.choices, strict=True))
