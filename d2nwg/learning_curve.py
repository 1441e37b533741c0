"""How good heads are with ever more labelled items a class, over several draws of those items.

`learning_curve` makes heads as `d2nwg.generate.generate_heads` does, for every number of items and every draw, and fits
the baselines beside them to the same items.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from d2nwg.bundles import bundle_tasks, makes_for_data, resolve_bundle
from d2nwg.conditions.class_names import class_of, rename
from d2nwg.data.labelled import LabelledSet
from d2nwg.data.split import candidates
from d2nwg.encoders.split import SplitReader
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.baselines import fit_baselines
from d2nwg.evaluation.report import BASELINES
from d2nwg.evaluation.selection import choose
from d2nwg.opened import Opened, open_for
from d2nwg.pipelines import DEFAULT
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number

SHOTS, DRAWS = (1, 2, 5, 10, 20), 5
MOST_DRAWS = 100
GENERATED = "generated"
ARMS = {
    GENERATED: "generated head",
    **{name: BASELINES[name] for name in ("class_mean", "ridge", "logistic_regression")},
}


@dataclass(frozen=True)
class LearningCurve:
    """Accuracies over numbers of labelled items.

    Attributes:
        data, classes, bundle, encoder, num_samples, max_query, noun: as in `d2nwg.evaluation.report.Report`.
        shots: the numbers of labelled items a class.
        seeds: of the draws.
        accuracy: of each of `ARMS`, for each number of items, for each draw: fractions of its query items.
        num_query: (draws,) query items at the fewest shots.
        notes: sentences on what was left out.
    """

    data: str
    classes: list[str]
    bundle: str
    encoder: str
    num_samples: int
    max_query: int | None
    shots: list[int]
    seeds: list[int]
    accuracy: dict[str, list[list[float]]]
    num_query: list[int]
    notes: list[str]
    noun: str = "image"

    def to_json(self) -> dict[str, Any]:
        """What the JSON file holds."""
        return asdict(self)

    def at(self, arm: str, place: int) -> tuple[float, float]:
        """Mean over the draws and standard deviation (of the draws, 0 for one) at ``shots[place]``."""
        found = np.array(self.accuracy[arm][place])
        return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else 0.0

    def best_baseline(self, place: int) -> str:
        """The baseline with the highest mean there."""
        return max((arm for arm in ARMS if arm != GENERATED), key=lambda arm: self.at(arm, place)[0])


def learning_curve(
    given: LabelledSet,
    *,
    bundle: str | None = None,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    num_samples: int = 50,
    seed: int = 0,
    steps: int | None = None,
    sampler: str = DEFAULT,
    max_query: int | None = 1000,
    encoder: str | None = None,
    names: Sequence[str] = (),
    device: str | None = None,
    progress: Progress = silent,
) -> LearningCurve:
    """Generate heads for a data set with each number of labelled items a class, several times from other items.

    Args:
        given: the data set, of images or of texts.
        shots: numbers of labelled items a class; those that the data have too few items for are left out, with a note.
        draws: how often the items are drawn, with seeds from ``seed`` on.
        bundle, num_samples, steps, sampler, max_query, encoder, names, device: as `generate_heads` takes them.
        progress: stages "Opening the bundle", "Reading images" (or "texts"), "Drawing".
    Raises:
        UserError: as `generate_heads`; the bundle is not shown the data; or no number of items is possible.
    """
    for count in shots:
        whole(count, "The number of shots", 1)
    whole(draws, "The number of draws", 1, MOST_DRAWS)
    whole(num_samples, "The number of samples", 1)
    seed_number(seed_number(seed) + draws - 1)
    if max_query is not None:
        whole(max_query, "The largest number of query images", 1)
    if makes_for_data(bundle):
        raise UserError(f"The bundle {bundle} makes whole networks: choose a bundle of heads.")
    if bundle_tasks(resolve_bundle(bundle)):
        raise UserError(
            f"The bundle {bundle} makes heads from the name of a task, whatever {given.noun}s there are: choose one "
            "that is shown the data."
        )
    classes = rename(given.classes, names) if names else list(given.classes)
    counts, notes = _possible(given, sorted(set(shots)), seed, max_query)
    opened = open_for(given, classes, bundle, encoder, False, None, sampler, steps, device, progress)
    width = opened.encoder.num_features
    opened.pipe.check_size(num_samples, len(classes), width, counts[-1] * len(classes), 0)
    reader = SplitReader(given, opened.encoder, max_query, progress)
    accuracy: dict[str, list[list[float]]] = {arm: [[] for _ in counts] for arm in ARMS}
    seeds, num_query, unread = list(range(seed, seed + draws)), [], ()
    # The largest split of every draw first: one long wait, and what cannot be read is known before heads are made.
    for drawn in seeds:
        unread = reader.split(counts[-1], drawn).notes
    for draw, drawn in enumerate(seeds):
        for place, count in enumerate(counts):
            progress("Drawing", draw * len(counts) + place, draws * len(counts))
            data = reader.split(count, drawn)
            if not place:
                num_query.append(len(data.query_labels))
            for arm, right in _score(opened, data, count, drawn, num_samples).items():
                accuracy[arm][place].append(round(right, 6))
    progress("Drawing", 1, 1)
    return LearningCurve(
        data=given.name,
        classes=list(map(class_of, classes)) if names else classes,
        bundle=opened.name,
        encoder=opened.encoder.name,
        num_samples=num_samples,
        max_query=max_query,
        shots=counts,
        seeds=seeds,
        accuracy=accuracy,
        num_query=num_query,
        notes=[*given.notes, *unread, *notes, *opened.notes],
        noun=given.noun,
    )


def _possible(data: LabelledSet, shots: Sequence[int], seed: int, max_query: int | None) -> tuple[list[int], list[str]]:
    """The numbers of items a class that the data have enough for, and a sentence on the others.

    Raises:
        UserError: none is possible.
    """
    fine: list[int] = []
    for count in shots:
        try:
            candidates(data, count, seed=seed, max_query=max_query)
        except UserError:
            if not fine:
                raise
            break
        fine.append(count)
    left = [f"{count:,}" for count in shots[len(fine) :]]
    words = f"Not with {' or '.join(left)} {data.noun}s a class: at least one class has too few." if left else ""
    return fine, [words] if words else []


def _score(opened: Opened, data, shots: int, seed: int, num_samples: int) -> dict[str, float]:
    """The accuracy of the generated head and of the baselines on the query items."""
    shown, kept = opened.part(data, shots, seed)
    samples = opened.sample(data.by_class(shown), num_samples, torch.Generator().manual_seed(seed))
    chosen = choose(samples.state, data.support[kept], data.labels[kept], samples.expected).head
    batch = {name: tensor[None] for name, tensor in chosen.items()}
    right = {GENERATED: float(accuracies(batch, data.query, data.query_labels)[0])}
    mean = opened.pipe.weight_space.mean.cpu() if opened.on_own_encoder else None
    fitted = fit_baselines(data.support, data.labels, mean=mean, seed=seed)
    scores = fitted.scores(data.query, data.query_labels, seed=seed)
    return right | {arm: scores[arm] for arm in ARMS if arm != GENERATED}


def rows(curve: LearningCurve) -> list[list[str]]:
    """The table as words, its heads first: accuracies in percent, with a standard deviation where there are several
    draws."""

    def cell(mean: float, spread: float) -> str:
        return f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if len(curve.seeds) > 1 else "")

    heads = [f"% right with … {curve.noun}s a class", *(f"{count:,}" for count in curve.shots)]
    places = range(len(curve.shots))
    return [heads, *([words, *(cell(*curve.at(arm, place)) for place in places)] for arm, words in ARMS.items())]


def sentences(curve: LearningCurve) -> list[str]:
    """What a curve says: at its first and last number of items, and how many labelled items the generator saves."""
    said = []
    draws = number(len(curve.seeds), "draw")
    for place in sorted({0, len(curve.shots) - 1}):
        best = curve.best_baseline(place)
        (own, spread), (other, _) = curve.at(GENERATED, place), curve.at(best, place)
        gains = np.subtract(curve.accuracy[GENERATED][place], curve.accuracy[best][place])
        won = f", ahead of it in {int((gains > 0).sum())} of {draws}" if len(gains) > 1 else ""
        around = f" ± {100 * spread:.1f}" if spread else ""
        said.append(
            f"With {number(curve.shots[place], f'labelled {curve.noun}')} a class the generated head is right on "
            f"{own:.1%}{around}, the best baseline ({ARMS[best]}) on {other:.1%}{won}."
        )
    if saved := _as_good_as(curve):
        said.append(saved)
    return said


def _as_good_as(curve: LearningCurve) -> str:
    """How many items a class the best baseline needs to be as good as the generated head with the fewest."""
    own = curve.at(GENERATED, 0)[0]
    others = [curve.at(curve.best_baseline(place), place)[0] for place in range(len(curve.shots))]
    if others[0] >= own or len(curve.shots) < 2:
        return ""
    reached = next((count for count, right in zip(curve.shots, others, strict=True) if right >= own), None)
    few = number(curve.shots[0], curve.noun)
    if reached is None:
        return f"No baseline gets there with {curve.shots[-1]:,} {curve.noun}s a class."
    return f"The best baseline needs {reached:,} {curve.noun}s a class to be as good as the generated head with {few}."
