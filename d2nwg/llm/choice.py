"""What of a language model is refined, in which order, and which of it shares a generator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from d2nwg.llm.architectures import TYPES, Unit, head, matrices, norms, units_named, whole
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.spectrum import measure, rank
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent

if TYPE_CHECKING:
    from d2nwg.llm.models import LanguageModel
    from d2nwg.llm.spectrum import Ranked


def choose(model: "LanguageModel", config: RefineConfig, progress: Progress = silent) -> "list[Ranked]":
    """The matrices to refine, from the bottom of the model to its top: of those in the top share of their type, the
    best of each type first until there are `config.layers`."""
    ranked = [row for row in rank(measure(model, progress=progress), config.mode, config.percent) if row.chosen]
    if not ranked:
        raise UserError(f"No matrix of {model.name} has a ratio in the mode {config.mode}: choose the other one.")
    ranked.sort(key=lambda row: (row.rank, TYPES.index(row.matrix.type)))
    kept = ranked[: config.layers] if config.layers else ranked
    return sorted(kept, key=lambda row: (row.matrix.layer, TYPES.index(row.matrix.type)))


def units_of(
    model: "LanguageModel", config: RefineConfig, progress: Progress = silent
) -> tuple[list[Unit], list[dict], list[list[int]]]:
    """What is refined by `config.parts`: the units from the bottom of the model to its top, facts about each as JSON,
    and the numbers of those that share a generator, group by group.

    Raises:
        UserError: the model is of no known family, or has none of these parts.
    """
    own = matrices(model.model, model.name)
    if config.parts == "matrices":
        ranked = choose(model, config, progress)
        units = units_named(own, [row.matrix.name for row in ranked])
        places = [(row.rank or 1) - 1 for row in ranked]
        return units, [row.to_json() for row in ranked], _grouped(units, places, config.group)
    if config.parts == "all":
        units = whole(model.model)
    else:
        units = [norms(model.model) if config.parts == "norms" else head(model.model)]
    places, seen = [], dict.fromkeys([unit.type for unit in units], 0)
    for unit in units:  # without a rank, from the bottom to the top
        places.append(seen[unit.type])
        seen[unit.type] += 1
    return units, [unit.to_json() for unit in units], _grouped(units, places, config.group)


def _grouped(units: Sequence[Unit], places: Sequence[int], size: int) -> list[list[int]]:
    """Numbers of units by group: so many places of each type, the best first; vectors always by themselves."""
    groups: dict[tuple, list[int]] = {}
    for number, (unit, place) in enumerate(zip(units, places, strict=True)):
        vectors = all(len(part.shape) == 1 for part in unit.parts)
        groups.setdefault((vectors, 0 if vectors or not size else place // size), []).append(number)
    return [groups[key] for key in sorted(groups)]
