"""Refine a language model with a zoo of its fine-tunes: sample from the distribution of their changes, and keep what
answers the selection questions better (`d2nwg.llm.zoo_generator`; paper section 4.4, algorithm 1).

The search begins with the checkpoints' average. First come whole candidates, a sample of every layer at once, then one
layer or group of adjacent layers after another from the bottom. Beside it stand, on the same report questions, the
base, the checkpoint that is best on the selection questions, the average, and that checkpoint with noise as large as
checkpoints lie apart, in a search with as many candidates.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.llm.architectures import Unit
from d2nwg.llm.base_score import score_base
from d2nwg.llm.baselines import Propose
from d2nwg.llm.checks import same_when_reused, temperature_of
from d2nwg.llm.chunks import Stored, joined, save_matrices, split
from d2nwg.llm.export import copied_files
from d2nwg.llm.lora import shape_of
from d2nwg.llm.models import DEFAULT, LanguageModel, load_language_model
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.questions import Question
from d2nwg.llm.racing import rungs
from d2nwg.llm.refine import Refined, drawn, judge, spent
from d2nwg.llm.report import RULE, summary
from d2nwg.llm.run_folder import keep_base, open_folder
from d2nwg.llm.score import Scorer
from d2nwg.llm.search import ZOO_ARMS, Log, Search
from d2nwg.llm.shots import shot_facts
from d2nwg.llm.zoo_generator import ZooChanges, ZooGenerator
from d2nwg.training.loop import step_rng
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.outputs import explained, resolved
from d2nwg.utils.paths import sole_writer, write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number as counted
from d2nwg.utils.text import shown
from d2nwg.weights.model_zoo import ModelZoo


def refine_from_zoo(
    model: str | Path = DEFAULT,
    zoo: str | Path = "zoo",
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
    """Refine a model with a zoo of adapters of it, as `d2nwg.llm.refine.refine` does without one.

    Args:
        zoo: as ``zoo build --llm`` makes it; neither questions should be among those that its checkpoints learnt.
        config: ``layers``, ``candidates``, ``passes``, ``racing``, ``criterion``, ``normalise``, ``diffusion_steps``,
            ``diffusion_lr``, the numbers of questions and ``seed`` count; by default ``RefineConfig.of("quick",
            zoo=True)``.
        progress: may raise ``Cancelled``, which goes through: with ``resume`` the run goes on.
        on_event, on_base: as of `d2nwg.llm.refine.refine`; arms are those of `d2nwg.llm.search.ZOO_ARMS`.

    Raises:
        UserError: as `d2nwg.llm.refine.refine`, `d2nwg.llm.lora.shape_of` and
            `d2nwg.llm.zoo_generator.ZooChanges`.
    """
    config = config or RefineConfig.of("quick", zoo=True)
    selection, report = drawn(selection, report, config)
    folder, opened = resolved(folder), ModelZoo(zoo)
    try:
        with explained(folder, "make room and resume"), sole_writer(folder):
            return _refine(
                str(model), opened, selection, report, config, folder, resume, device, progress, on_event, on_base
            )
    except Exception as reason:
        if not out_of_memory(reason):
            raise
        raise UserError("Memory ran out: take a smaller model or another device.") from reason


def _refine(
    name, zoo: ModelZoo, selection, report, config, folder, resume, device, progress, on_event, on_base
) -> Refined:
    started = time.monotonic()
    own = load_language_model(name, device=device, fresh=True, progress=progress)
    copied_files(own.folder)  # what could not be saved in the end is refused now
    if on_base:
        score_base(own, selection, config.normalise, on_base, progress)
    shape = shape_of(zoo, own)
    changes = ZooChanges(zoo, own, shape.scale)
    layers, whole = changes.units, changes.whole
    units = grouped(layers, config.layers)
    open_folder(folder, config, own, units, selection, report, resume, zoo=_digest(changes))
    names = [part.name for part in whole.parts]
    parameters = {name: value.detach() for name, value in own.model.named_parameters()}
    base = keep_base(folder, own, names)
    pretrained = {key: parameters[key].cpu().clone() for key in names}
    log = Log(folder / "log.jsonl", ZOO_ARMS)
    for line in log.lines:
        on_event(line)

    generator = ZooGenerator(changes, config)
    generator.fit(folder / "generator", progress)
    scorer = Scorer(own, selection, parts=rungs(len(selection), config.seed, config.racing))
    reuse = same_when_reused(own, selection)
    temperature = temperature_of(partial(scorer.score, progress=progress, stage="Scoring the base"), config, folder)
    place = {part.name: number for number, layer in enumerate(layers) for part in layer.parts}

    def span(unit: Unit) -> range:
        """The layers of a unit."""
        return range(place[unit.parts[0].name], place[unit.parts[-1].name] + 1)

    def weights(unit: Unit, combined: Tensor) -> Tensor:
        """A unit's weights with the checkpoints combined, in each layer of it by a row of ``combined``."""
        first, found = span(unit)[0], {}
        for part in unit.parts:
            row = combined[place[part.name] - first]
            found[part.name] = pretrained[part.name].float() + changes.change(part.name, row)
        return joined(unit, found)

    one_by_one, even = torch.eye(len(changes)), torch.full((len(changes),), 1 / len(changes))

    def single(number: int, candidate: int, now: Tensor) -> Tensor:
        return weights(whole, one_by_one[candidate].expand(len(layers), -1))

    def sampled(of: Sequence[Unit]) -> Propose:
        return lambda number, candidate, now: weights(
            of[number], generator.sample(span(of[number]), of[number].name, candidate)
        )

    def rounded(tensor: Tensor) -> dict[str, Tensor]:
        return {name: value.to(own.stored_dtype) for name, value in split(whole, tensor).items()}

    def search(arm: str, start: dict[str, Tensor], propose: Propose, of: Sequence[Unit], **how) -> dict:
        """The weights that an arm ends with, begun with ``start``."""
        file = folder / f"{arm}-start.safetensors"
        if not file.exists():  # what it began with counts, also where another machine would round otherwise
            save_matrices({key: value.to(own.stored_dtype) for key, value in start.items()}, file)
        held = Stored(file, of)
        begun = {key: value for unit in of for key, value in held.tensors(unit).items()}
        found = Search(arm, scorer, held, config, folder, log, temperature=temperature, reuse=reuse, **how)
        return begun | found.run(propose, progress, on_event)

    noise = _noise(changes, config)
    as_they_are = dict(count=len(changes), strengths=(1.0,), any_wins=True)
    try:
        kept = {"single": search("single", pretrained, single, [whole], passes=1, **as_they_are)}
        best = log.of("single")[0]["best"]
        kept["single"] = rounded(single(0, best, torch.empty(0)))  # also where the base is better
        kept["soup"] = rounded(weights(whole, even.expand(len(layers), -1)))
        kept["refined"] = search("whole", kept["soup"], sampled([whole]), [whole], passes=1)
        kept["refined"] = search("refined", kept["refined"], sampled(units), units)
        kept["noised"] = search("noised_whole", kept["single"], noise([whole]), [whole], passes=1)
        kept["noised"] = search("noised", kept["noised"], noise(units), units)
        order = ("refined", "single", "soup", "noised")
        right, full = judge(own, Stored(base, [whole]), report, {arm: kept[arm] for arm in order}, config, progress)
    finally:
        scorer.close()
    facts = {
        "base": own.name,
        "licence": own.licence,
        "zoo": {
            "name": shown(resolved(zoo.path).name),
            "checkpoints": [shown(record["name"]) for record in zoo.records],
            "best": shown(zoo.records[best]["name"]),
            "shape": {"rank": shape.rank, "alpha": shape.alpha, "targets": list(shape.targets)},
        },
        "config": config.to_config(),
        "layers": [
            {"name": unit.name, "matrices": len(unit.parts), "dimensions": int(count)}
            for unit, count in zip(layers, generator.counts, strict=True)
        ],
        "groups": [unit.name for unit in units],
        "generator": generator.spread(),
        "select_questions": len(selection),
        "report_questions": len(report),
        "reuses_activations": reuse,
        **spent(log, scorer, temperature),
        **shot_facts(own, selection=selection, report=report),
        **summary(right, seed=config.seed),
        "right": {arm: [int(value) for value in values] for arm, values in right.items()},
        "confidence": {arm: scores.confidence(config.normalise, temperature) for arm, scores in full.items()},
        "seconds": round(time.monotonic() - started, 1),
    }
    return _finish(kept["refined"], facts, own, Stored(base, [whole]), folder, log)


def grouped(layers: Sequence[Unit], count: int) -> list[Unit]:
    """Adjacent layers in so many groups, or each by itself where there are no more or ``count`` is 0."""
    import numpy as np

    found = []
    for numbers in np.array_split(np.arange(len(layers)), min(count or len(layers), len(layers))):
        held = [layers[number] for number in numbers]
        parts = tuple(part for layer in held for part in layer.parts)
        group = Unit(f"{held[0].name} to {held[-1].name}", held[0].layer, "layers", parts)
        found.append(group if len(held) > 1 else held[0])
    return found


def _noise(changes: ZooChanges, config: RefineConfig) -> Callable[[Sequence[Unit]], Propose]:
    """Candidates that are the weights with Gaussian noise, in each matrix as large as two checkpoints lie apart."""

    def of(units: Sequence[Unit]) -> Propose:
        def propose(number: int, candidate: int, now: Tensor) -> Tensor:
            unit = units[number]
            _, draw = step_rng(config.seed, f"noise for {unit.name}", candidate)
            found = []
            for name, held in split(unit, now).items():
                noise = torch.randn(held.shape, generator=draw)
                found.append((held + noise * (changes.apart(name) / noise.norm())).flatten())
            return torch.cat(found).reshape(now.shape)

        return propose

    return of


def _digest(changes: ZooChanges) -> str:
    """Of what the checkpoints change, and how."""
    content = hashlib.sha256()
    for held in (changes.left, changes.right):
        for name, tensor in held.items():
            content.update(f"{name} {list(tensor.shape)}\n".encode())
            content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()


def _finish(tensors: dict[str, Tensor], facts: dict, own: LanguageModel, base: Stored, folder, log: Log) -> Refined:
    from d2nwg.llm.delta import save_delta

    whole, lines, zoo = log.of("whole")[0], log.of("refined"), facts["zoo"]
    replaced, groups = len({line["name"] for line in lines if line["accepted"]}), len(facts["groups"])
    searched = counted(groups, "layer") if groups == len(facts["layers"]) else counted(groups, "group") + " of layers"
    accepted = sum(line["accepted"] for line in lines)
    facts |= {
        "tried": len(lines),
        "accepted": accepted,
        "selection_score": {
            arm: {"before": log.of(arm)[0]["before"], "after": log.of(arm)[-1]["after"]} for arm in ZOO_ARMS
        },
        "cancelled": False,
    }
    begun = "a sample of all layers" if whole["accepted"] else "the checkpoints' average"
    facts["words"] += [
        f"It is {begun}, with {replaced} of {searched} replaced by samples, from the zoo "
        f"{zoo['name']} of {counted(len(zoo['checkpoints']), 'checkpoint')}."
        if whole["accepted"] or accepted
        else "No sample was better than the checkpoints' average on the selection set: the model is that average.",
        "Samples are combinations of the checkpoints' changes. The comparison holds for questions that no checkpoint "
        "was trained on.",
        RULE,
    ]
    old = base.tensors(base.units[0])
    delta = None
    if any(not torch.equal(value, old[name]) for name, value in tensors.items()):
        short = {key: facts[key] for key in ("words", "config", "accepted", "tried")}
        delta = save_delta(old, tensors, folder, name=own.name, facts=short)
    write_whole(folder / "report.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return Refined(own.name, tensors, facts, folder, delta, False, list(log.lines))
