"""Refine a language model without fine-tuning it (paper sections 3.5 and 4.4, algorithm 1).

A generator is trained on the chunks of the most informative matrices; candidates are sampled for one matrix after
another, and kept only where they improve the score on a selection set. At the end, once, the base, the refined model
and the same search with other candidates (`d2nwg.llm.baselines`) are compared on a report set.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d2nwg.llm.architectures import stream
from d2nwg.llm.base_score import score_base
from d2nwg.llm.baselines import Propose, noise_like, rank_cuts, reconstructions, samples
from d2nwg.llm.checks import check_reconstruction, same_when_reused, temperature_of
from d2nwg.llm.choice import units_of
from d2nwg.llm.chunks import Chunks, Stored, load_matrices
from d2nwg.llm.export import copied_files, save_model
from d2nwg.llm.groups import GroupedGenerator
from d2nwg.llm.models import DEFAULT, LanguageModel, load_language_model
from d2nwg.llm.presets import RefineConfig, smaller
from d2nwg.llm.questions import Question, check_disjoint
from d2nwg.llm.racing import ACCEPTED, rungs
from d2nwg.llm.report import NAMES, ONE_MODEL, RULE, reconstruction_words, summary
from d2nwg.llm.run_folder import keep_base, open_folder
from d2nwg.llm.score import Scorer, Scores
from d2nwg.llm.search import ARMS, Log, Search
from d2nwg.llm.shots import shot_facts
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.outputs import explained, resolved
from d2nwg.utils.paths import sole_writer, write_whole
from d2nwg.utils.progress import Progress, silent


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

    @property
    def noise(self) -> str | None:
        """The arm that was the same search with noise; None where it did not come to its end."""
        arms = set() if self.cancelled else {line["arm"] for line in self.log}
        return next((arm for arm in ("noised", "noise") if arm in arms), None)

    def accepted(self, arm: str) -> dict[str, Tensor]:
        """The tensors that an arm of the search ended with, by name; none where it is the base. They are read from the
        folder. Raises UserError where they are no longer there, or damaged."""
        start = self.folder / f"{arm}-start.safetensors"
        found = load_matrices(start) if start.exists() else {}
        for line in self.log:
            if line["arm"] == arm and line["accepted"]:
                found |= load_matrices(self.folder / arm / f"{line['number']:04}.safetensors")
        return found


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
    on_base: Callable[[int, int, int], None] | None = None,
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
            ``layer``, ``type``, ``before``, ``candidates`` (each a ``score``, ``tie``, ``distance``, ``strength`` and
            number of ``questions``), ``best``, ``accepted``, ``after``, ``lower`` (end of the
            best one's interval; None where it was dropped), ``tokens`` (computed) and ``seconds``.
        on_base: called with how many of how many selection questions the unchanged model has right so far, and how many
            there are, before anything else is computed.

    Raises:
        UserError: the sets overlap, the folder is another run's, the reconstruction is broken, memory ran out, or as
            `load_language_model`.
    """
    config = config or RefineConfig.of("quick")
    selection, report = drawn(selection, report, config)
    folder = resolved(folder)
    try:
        with explained(folder, "make room and resume"), sole_writer(folder):
            return _refine(str(model), selection, report, config, folder, resume, device, progress, on_event, on_base)
    except Exception as reason:
        if not out_of_memory(reason):
            raise
        less = smaller(config.preset)
        advice = f"take the preset {less}" if less != config.preset else "take a smaller model or another device"
        raise UserError(f"Memory ran out with the preset {config.preset}: {advice}.") from reason


def _refine(name, selection, report, config, folder, resume, device, progress, on_event, on_base) -> Refined:
    started = time.monotonic()
    own = load_language_model(name, device=device, fresh=True, progress=progress)
    copied_files(own.folder)  # what could not be saved in the end is refused now
    if on_base:
        score_base(own, selection, config.normalise, on_base, progress)
    units, about, groups = units_of(own, config, progress)
    open_folder(folder, config, own, units, selection, report, resume)
    base = keep_base(folder, own, [part.name for unit in units for part in unit.parts])
    chunks = Chunks(base, units, stream(own.model), config.chunk, 2 ** (len(config.unet_channels) - 1))
    log = Log(folder / "log.jsonl")
    for line in log.lines:
        on_event(line)

    generator = GroupedGenerator(chunks, groups, config, own.device)
    generator.fit(folder / "generator", progress)
    parts = rungs(len(selection), config.seed, config.racing)
    scorer = Scorer(own, selection, parts=parts, keep_bytes=_bytes(own) // 4)
    reuse = same_when_reused(own, selection)
    facts = {
        "base": own.name,
        "licence": own.licence,
        "config": config.to_config(),
        "matrices": about,
        "select_questions": len(selection),
        "report_questions": len(report),
        "reuses_activations": reuse,
        **shot_facts(own, selection=selection, report=report),
    }
    facts |= check_reconstruction(generator, scorer, config, folder, progress)
    temperature = temperature_of(scorer.score, config, folder)

    arms = {arm: Search(arm, scorer, chunks, config, folder, log, temperature=temperature, reuse=reuse) for arm in ARMS}
    propose: dict[str, Callable[[], Propose]] = {
        "refined": lambda: samples(config, generator),
        "noise": lambda: noise_like(config, chunks, log.of("refined")),
        "rank": lambda: rank_cuts(chunks),
        "rebuilt": lambda: reconstructions(config, generator),
    }
    try:
        kept = {arm: search.run(propose[arm](), progress, on_event) for arm, search in arms.items()}
        facts |= spent(log, scorer, temperature)
        right, full = judge(own, chunks, report, kept, config, progress)
    except Cancelled:
        facts |= spent(log, scorer, temperature)
        return _finish(arms["refined"].accepted, facts, own, chunks, folder, log, True)
    finally:
        scorer.close()
    facts |= summary(right, seed=config.seed)
    facts["words"] += [RULE]
    facts["right"] = {arm: [int(value) for value in values] for arm, values in right.items()}
    facts["confidence"] = {arm: scores.confidence(config.normalise, temperature) for arm, scores in full.items()}
    facts["seconds"] = round(time.monotonic() - started, 1)
    return _finish(kept["refined"], facts, own, chunks, folder, log, False)


def drawn(
    selection: Sequence[Question], report: Sequence[Question], config: RefineConfig
) -> tuple[list[Question], list[Question]]:
    """The questions that choose and those that judge, at most as many as the configuration says.

    Raises:
        UserError: there are none of either, or they overlap.
    """
    if not selection or not report:
        raise UserError("Give questions to select by and others to report on.")
    check_disjoint(selection, report)
    return (
        draw(selection, config.select_questions, config.seed),
        draw(report, config.report_questions, config.seed),
    )


def spent(log: Log, scorer: Scorer, temperature: float) -> dict:
    """What a report says of a search: the level of acceptance, the temperature, the ``tokens`` computed, and
    ``tokens_full``, those of every candidate with all questions through all blocks."""
    return {
        "acceptance_level": ACCEPTED,
        "temperature": temperature,
        "tokens": sum(line["tokens"] for line in log.lines),
        "tokens_full": scorer.pass_tokens * sum(len(line["candidates"]) for line in log.lines),
    }


def draw(questions: Sequence[Question], most: int, seed: int) -> list[Question]:
    """At most so many questions, drawn by the seed, in their own order; 0 for all."""
    if not most or len(questions) <= most:
        return list(questions)
    drawn = np.random.default_rng(seed).choice(len(questions), most, replace=False)
    return [questions[i] for i in sorted(drawn)]


@torch.inference_mode()
def judge(
    own: LanguageModel, chunks: Stored, report, accepted: dict[str, dict[str, Tensor]], config, progress: Progress
) -> tuple[dict[str, np.ndarray], dict[str, Scores]]:
    """The base and all arms on the report questions; the only place that looks at them."""
    scorer = Scorer(own, report)
    parameters = dict(own.model.named_parameters())
    right: dict[str, np.ndarray] = {}
    full: dict[str, Scores] = {}
    for arm in ("base", *accepted):
        new = accepted.get(arm, {})
        for unit in chunks.units:
            for name, weights in chunks.tensors(unit).items():
                parameters[name].copy_(new.get(name, weights))
        changed = arm == "base" or bool(accepted[arm])
        full[arm] = scorer.score(progress=progress, stage=f"Reporting: {NAMES[arm]}") if changed else full["base"]
        right[arm] = full[arm].correct(config.normalise)
    return right, full


def _finish(tensors, facts, own: LanguageModel, chunks: Chunks, folder: Path, log: Log, cancelled: bool) -> Refined:
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
            f"Stopped after {len(lines)} of {len(chunks.units)} matrices; {facts['accepted']} replaced so far. The "
            "report set has not been looked at."
            if len(lines) < len(chunks.units)
            else f"Stopped after {len(lines)} decisions on {len(chunks.units)} matrices; {facts['accepted']} of them "
            "replaced weights. The report set has not been looked at."
        ]
    elif not tensors:
        facts["words"].insert(0, "No candidate was better on the selection set: the model is as it was.")
    facts["words"] += [*reconstruction_words(facts["reconstruction"]), ONE_MODEL]
    delta = None
    if tensors:
        base = {name: weights for unit in chunks.units for name, weights in chunks.tensors(unit).items()}
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
