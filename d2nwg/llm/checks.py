"""Checks before a refinement: whether the VAE reconstructs the matrices, and whether kept activations give the same
scores."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from d2nwg.llm.generator import ChunkGenerator
from d2nwg.llm.models import LanguageModel
from d2nwg.llm.questions import Question
from d2nwg.llm.score import Scorer
from d2nwg.llm.search import Log, Search
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.paths import read_json, write_whole
from d2nwg.utils.progress import Progress

BROKEN = 0.5  # relative error of reconstructed weights from which on they are no longer the model's
TOLERANCE = 1e-3  # between scores with and without the blocks below; beyond it they are not reused


@torch.inference_mode()
def check_reconstruction(generator: ChunkGenerator, scorer: Scorer, config, folder: Path, progress: Progress) -> dict:
    """The model with every chosen matrix as the VAE gives it back, before anything is refined.

    Raises:
        UserError: it answers far worse than before: nothing sampled through this VAE could help.
    """
    note = folder / "reconstruction.json"
    if note.exists():
        before = read_json(note)
        if not isinstance(before, dict) or not isinstance(before.get("reconstruction"), dict):
            raise UserError(f"{note} is damaged: delete the folder of this refinement, and begin it again.")
        return before
    chunks, stage = generator.chunks, "Checking the reconstruction"
    search = Search("refined", scorer, chunks, config, folder, Log(folder / "log.jsonl"))
    before = scorer.score(progress=progress, stage="Scoring the base")
    errors, distances = {}, {}
    for number, name in enumerate(chunks.names):
        progress(stage, number, len(chunks.names))
        exact, rebuilt = chunks.tensor(name).float(), generator.reconstruct(number)
        errors[name] = float((rebuilt - exact).norm() / exact.norm().clamp_min(1e-12))
        distances[name] = float((generator.sample(number, 0) - exact).norm() / exact.norm().clamp_min(1e-12))
        search.put(name, rebuilt)
    after = scorer.score(progress=progress, stage=stage)
    search.restore()
    base, with_rebuilt = before.accuracy(config.normalise), after.accuracy(config.normalise)
    found: dict[str, dict] = {
        "reconstruction": {
            "error": float(np.mean(list(errors.values()))),
            "errors": errors,
            "sample_distances": distances,
            "residual_scale": {key: min(1.0, config.reach / max(value, 1e-12)) for key, value in distances.items()},
            "base_selection_accuracy": base,
            "selection_accuracy": with_rebuilt,
            "base_selection_confidence": before.confidence(config.normalise),
            "selection_confidence": after.confidence(config.normalise),
        }
    }
    spread = (base * (1 - base) / len(before.answers)) ** 0.5
    worse = before.confidence(config.normalise) - after.confidence(config.normalise)
    error = found["reconstruction"]["error"]
    if error > BROKEN or base - with_rebuilt > max(0.05, 3 * spread) or worse > 1.0:
        raise UserError(
            f"The VAE does not give the layers back (relative error {error:.2g}; with them the model is right on "
            f"{with_rebuilt:.1%} of the selection questions instead of {base:.1%}). Nothing was refined: take a larger "
            "preset or another seed."
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
