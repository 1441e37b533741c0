"""Refine a language model without fine-tuning it (paper sections 3.5 and 4.4, algorithm 1).

A generator is trained on the chunks of the most informative matrices; candidates are sampled for one matrix after
another, and kept only where they improve the score on a selection set. At the end, once, the base, the refined model
and the same search with Gaussian noise are compared on a report set.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from d2nwg.llm.checks import check_reconstruction, same_when_reused
from d2nwg.llm.chunks import MatrixChunks, load_matrices, save_matrices
from d2nwg.llm.export import copied_files, save_model
from d2nwg.llm.generator import ChunkGenerator
from d2nwg.llm.models import DEFAULT, LanguageModel, load_language_model
from d2nwg.llm.presets import RefineConfig, smaller
from d2nwg.llm.questions import Question, check_disjoint
from d2nwg.llm.report import summary
from d2nwg.llm.score import Scorer, Scores
from d2nwg.llm.search import ARMS, Log, Search, noise_like
from d2nwg.llm.spectrum import TYPES, measure, rank
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.outputs import explained, resolved
from d2nwg.utils.paths import is_partial, read_json, sole_writer, write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.llm.spectrum import Ranked

FORMAT = 2  # of a refinement's folder: the generator's stages have ids since


@dataclass
class Refined:
    """A finished or cancelled refinement.

    Attributes:
        tensors: what was accepted, by name, in the format the model is stored in.
        report: as JSON; without ``rows`` when it was cancelled: the report set is then still untouched.
        folder: the state: ``log.jsonl``, ``report.json``, ``delta.safetensors``, what a resumed run needs.
        delta: the changed tensors as a file for ``llm apply``; None where nothing was accepted.
        cancelled: stopped before the end; ``resume=True`` goes on.
    """

    name: str
    tensors: dict[str, Tensor]
    report: dict
    folder: Path
    delta: Path | None
    cancelled: bool = False
    log: list[dict] = field(default_factory=list)

    @property
    def report_file(self) -> Path:
        return self.folder / "report.json"


def refine(
    model: str | Path = DEFAULT,
    selection: Sequence[Question] = (),
    report: Sequence[Question] = (),
    config: RefineConfig | None = None,
    *,
    folder: str | Path,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = silent,
    on_event: Callable[[dict], None] = lambda line: None,
) -> Refined:
    """Refine a model; all state is kept in `folder`, so that a killed run can be resumed.

    Args:
        model: as for `load_language_model`; this call loads a copy of its own.
        selection: questions that choose among candidates.
        report: other questions, scored once, at the end.
        resume: continue the run in `folder`, which must have the same questions and settings.
        progress: may raise ``Cancelled``: what was accepted until then is returned (`Refined.cancelled`), or, before
            the first candidate, ``Cancelled`` goes through.
        on_event: called with each line of the log, also those of a resumed run: ``arm``, ``number``, ``name``,
            ``layer``, ``type``, ``before``, ``candidates`` (each a ``score``, ``tie`` and ``distance``), ``best``,
            ``accepted``, ``after``, ``seconds``.

    Raises:
        UserError: the sets overlap, the folder is another run's, the reconstruction is broken, memory ran out, or as
            `load_language_model`.
    """
    config = config or RefineConfig.of("quick")
    if not selection or not report:
        raise UserError("Give questions to select by and others to report on.")
    check_disjoint(selection, report)
    selection = draw(selection, config.select_questions, config.seed)
    report = draw(report, config.report_questions, config.seed)
    folder = resolved(folder)
    try:
        with explained(folder, "make room and resume"), sole_writer(folder):
            return _refine(str(model), selection, report, config, folder, resume, device, progress, on_event)
    except Exception as reason:
        if not out_of_memory(reason):
            raise
        less = smaller(config.preset)
        advice = f"take the preset {less}" if less != config.preset else "take a smaller model or another device"
        raise UserError(f"Memory ran out with the preset {config.preset}: {advice}.") from reason


def _refine(name, selection, report, config, folder, resume, device, progress, on_event) -> Refined:
    started = time.monotonic()
    own = load_language_model(name, device=device, fresh=True, progress=progress)
    copied_files(own.folder)  # what could not be saved in the end is refused now
    ranked = choose(own, config, progress)
    matrices = [row.matrix.name for row in ranked]
    _open(folder, config, own, matrices, selection, report, resume)
    parameters = dict(own.model.named_parameters())
    base = folder / "base.safetensors"
    if not base.exists():
        save_matrices({key: parameters[key].to(own.stored_dtype) for key in matrices}, base)
    elif not _same(load_matrices(base), parameters, matrices):
        raise UserError(f"The weights of {own.name} are not those that this refinement began with: begin a new one.")
    chunks = MatrixChunks(base, matrices, config.chunk, 2 ** (len(config.unet_channels) - 1))
    log = Log(folder / "log.jsonl")
    for line in log.lines:
        on_event(line)

    generator = ChunkGenerator(chunks, config, own.device)
    generator.fit(folder / "generator", progress)
    scorer = Scorer(own, selection, keep_bytes=_bytes(own) // 4)
    reuse = same_when_reused(own, selection)
    facts = {
        "base": own.name,
        "licence": own.licence,
        "config": config.to_config(),
        "matrices": [row.to_json() for row in ranked],
        "select_questions": len(selection),
        "report_questions": len(report),
        "reuses_activations": reuse,
    }
    facts |= check_reconstruction(generator, scorer, config, folder, progress)

    def sampled(number: int, candidate: int, now: Tensor) -> Tensor:
        change = generator.sample(number, candidate) - now
        length = float(change.norm() / now.norm().clamp_min(1e-12))
        return now + change * min(1.0, config.reach / max(length, 1e-12))

    arms = {arm: Search(arm, scorer, chunks, config, folder, log, reuse=reuse) for arm in ARMS}
    try:
        tensors = arms["refined"].run(sampled, progress, on_event)
        noise = arms["noise"].run(noise_like(config, chunks, log.of("refined")), progress, on_event)
        right, full = _judge(own, chunks, report, {"refined": tensors, "noise": noise}, config, progress)
    except Cancelled:
        return _finish(arms["refined"].accepted, facts, own, chunks, folder, log, True)
    finally:
        scorer.close()
    facts |= summary(right, seed=config.seed)
    facts["right"] = {arm: [int(value) for value in values] for arm, values in right.items()}
    facts["confidence"] = {arm: scores.confidence(config.normalise) for arm, scores in full.items()}
    facts["seconds"] = round(time.monotonic() - started, 1)
    return _finish(tensors, facts, own, chunks, folder, log, False)


def _same(kept: dict[str, Tensor], parameters: dict[str, Tensor], names: Sequence[str]) -> bool:
    """Whether the matrices that were kept are those of the model."""
    return set(kept) == set(names) and all(
        value.shape == parameters[key].shape and torch.equal(value.to(parameters[key]).cpu(), parameters[key].cpu())
        for key, value in kept.items()
    )


def choose(model: LanguageModel, config: RefineConfig, progress: Progress = silent) -> "list[Ranked]":
    """The matrices to refine, from the bottom of the model to its top: of those in the top share of their type, the
    best of each type first until there are `config.layers`."""
    ranked = [row for row in rank(measure(model, progress=progress), config.mode, config.percent) if row.chosen]
    if not ranked:
        raise UserError(f"No matrix of {model.name} has a ratio in the mode {config.mode}: choose the other one.")
    ranked.sort(key=lambda row: (row.rank, TYPES.index(row.matrix.type)))
    kept = ranked[: config.layers] if config.layers else ranked
    return sorted(kept, key=lambda row: (row.matrix.layer, TYPES.index(row.matrix.type)))


def draw(questions: Sequence[Question], most: int, seed: int) -> list[Question]:
    """At most so many questions, drawn by the seed, in their own order; 0 for all."""
    if not most or len(questions) <= most:
        return list(questions)
    drawn = np.random.default_rng(seed).choice(len(questions), most, replace=False)
    return [questions[i] for i in sorted(drawn)]


def _open(folder: Path, config, own, matrices, selection, report, resume: bool) -> None:
    """Begin a folder, or check that it is this run's."""
    digest = hashlib.sha256(repr((selection, report)).encode()).hexdigest()
    run = {"config": config.to_config(), "model": own.name, "matrices": matrices, "questions": digest}
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


@torch.inference_mode()
def _judge(
    own: LanguageModel, chunks: MatrixChunks, report, accepted: dict[str, dict[str, Tensor]], config, progress: Progress
) -> tuple[dict[str, np.ndarray], dict[str, Scores]]:
    """Base, refined and noise on the report questions; the only place that looks at them."""
    scorer = Scorer(own, report)
    parameters = dict(own.model.named_parameters())
    right: dict[str, np.ndarray] = {}
    full: dict[str, Scores] = {}
    for arm in ("base", *accepted):
        for name in chunks.names:
            weights = accepted.get(arm, {}).get(name)
            parameters[name].copy_(chunks.tensor(name) if weights is None else weights)
        changed = arm == "base" or bool(accepted[arm])
        full[arm] = scorer.score(progress=progress, stage=f"Reporting on the {arm}") if changed else full["base"]
        right[arm] = full[arm].correct(config.normalise)
    return right, full


def _finish(
    tensors, facts, own: LanguageModel, chunks: MatrixChunks, folder: Path, log: Log, cancelled: bool
) -> Refined:
    from d2nwg.llm.delta import save_delta

    lines = log.of("refined")
    facts |= {
        "tried": len(lines),
        "accepted": sum(line["accepted"] for line in lines),
        "selection_score": {
            arm: {"before": log.of(arm)[0]["before"], "after": log.of(arm)[-1]["after"]} for arm in ARMS if log.of(arm)
        },
        "cancelled": cancelled,
    }
    if cancelled:
        facts["words"] = [
            f"Stopped after {len(lines)} of {len(chunks.names)} matrices; {facts['accepted']} replaced so far. The "
            "report set has not been looked at."
        ]
    elif not tensors:
        facts["words"].insert(0, "No candidate was better on the selection set: the model is as it was.")
    delta = None
    if tensors:
        base = {name: chunks.tensor(name) for name in tensors}
        short = {key: facts[key] for key in ("words", "config", "accepted", "tried")}
        delta = save_delta(base, tensors, folder, name=own.name, facts=short)
    write_whole(folder / "report.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return Refined(own.name, tensors, facts, folder, delta, cancelled, list(log.lines))


def save_refined(made: Refined, out: str | Path, *, model: str | Path) -> Path:
    """The refined model as a folder for transformers, with its report, log and delta.

    Raises:
        UserError: `out` holds something, or cannot be written.
    """
    own = load_language_model(model, device="cpu", dtype="auto", fresh=True)
    parameters = dict(own.model.named_parameters())
    with torch.no_grad():
        for name, weights in made.tensors.items():
            parameters[name].copy_(weights)
    beside = [path for path in (made.folder / "log.jsonl", made.delta) if path and path.exists()]
    about = {"base": own.hub_id or made.name, "source": own.folder, "report": made.report}
    return save_model(own.model, own.tokenizer, out, beside=beside, **about)


def _bytes(model: LanguageModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.model.parameters())
