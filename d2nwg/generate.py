"""The main job: labelled images or texts in, generated heads and their report out.

`generate_heads` opens a bundle, reads the data, samples heads, chooses one, scores it and reports.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from d2nwg.conditions.class_names import class_of, rename
from d2nwg.data.labelled import LabelledSet
from d2nwg.encoders.open import FeatureEncoder
from d2nwg.encoders.split import Glimpse, SplitFeatures, SplitReader, read_unlabelled
from d2nwg.evaluation.accuracy import interval, per_class_accuracy
from d2nwg.evaluation.head_scores import HeadScores, score_heads
from d2nwg.evaluation.recommend import MOST, Recommendation, recommend
from d2nwg.evaluation.report import Clock, Report, advice, readme, unheeded
from d2nwg.evaluation.selection import Choice, choose
from d2nwg.heads import Head
from d2nwg.opened import Opened, open_for
from d2nwg.pipelines import DEFAULT
from d2nwg.pipelines.heads import HeadSamples
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, logits, pick

ADVISERS = 10  # samples whose average stands for the generated head while support items are left out
SOON = 50  # denoising steps up to which that is done


@dataclass
class Generation:
    """Generated heads.

    Attributes:
        head: the chosen one.
        samples: all sampled heads as one batch on the encoder's features: ``weight`` (S, C, D), ``bias`` (S, C).
        report: what ``report.json`` holds.
        confusion: (C, C) counts of the chosen head on the query items; rows are the true classes.
        sample_accuracy: (S,) on the query items.
        data: the support and query items.
        baselines: class mean, ridge and logistic regression as linear heads, by their names (`FittedBaselines.linear`).
        vectors: (S, N) the samples as standardised vectors of the bundle's layout; None where it cannot hold them.
        order: (C,) the classes in canonical order, in which ``vectors`` hold their rows; None where those are.
    """

    head: Head
    samples: State
    report: Report
    confusion: np.ndarray
    sample_accuracy: np.ndarray
    data: SplitFeatures
    baselines: dict[str, State]
    vectors: Tensor | None = None
    order: Tensor | None = None

    def sample_head(self, index: int) -> Head:
        """Sample ``index`` as a head of its own."""
        info = {
            **self.head.info,
            "selection": f"sample {index}",
            "query_accuracy": float(self.sample_accuracy[index]),
        }
        return Head(pick(self.samples, index), self.head.encoder, self.head.classes, self.head.preprocessing, info)

    def baseline_head(self, name: str) -> Head:
        """A baseline as a head of its own; its ``query_accuracy`` is that of this linear form.

        Raises:
            KeyError: there is no such baseline.
        """
        state = self.baselines[name]
        right = (logits(state, self.data.query).argmax(-1) == self.data.query_labels).float().mean()
        info = {**self.head.info, "selection": name, "query_accuracy": round(float(right), 6)}
        return Head(state, self.head.encoder, self.head.classes, self.head.preprocessing, info)

    def save(self, folder: str | Path) -> Path:
        """Write ``head.safetensors``, ``samples.safetensors``, ``report.json`` and ``README.md``; and, where a baseline
        is recommended, that as a head under its name."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        probe = "linear" if "weight" in self.samples else "mlp"
        self.head.save(folder / "head.safetensors")
        if advice(self.report):
            self.baseline_head(self.report.recommended).save(folder / f"{self.report.recommended}.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in self.samples.items()}, folder / "samples.safetensors")
        report = json.dumps(self.report.to_json(), indent=1, ensure_ascii=False)
        (folder / "report.json").write_text(report, encoding="utf-8")
        (folder / "README.md").write_text(readme(self.report, probe), encoding="utf-8")
        return folder


def generate_heads(
    given: LabelledSet,
    *,
    bundle: str | Path | None = None,
    shots: int = 5,
    num_samples: int = 50,
    seed: int = 0,
    steps: int | None = None,
    sampler: str = DEFAULT,
    max_query: int | None = 1000,
    encoder: str | None = None,
    unlabelled: Sequence[Any] = (),
    task: str | None = None,
    names: Sequence[str] = (),
    device: str | None = None,
    progress: Progress = silent,
) -> Generation:
    """Generate heads for a data set from ``shots`` images a class, and score them on items that generation never saw.

    Args:
        given: the data set, of images or of texts.
        bundle: name or path; by default the shipped one.
        shots: support items a class.
        num_samples: heads to sample.
        seed: of the split and the noise.
        steps: denoising steps; by default 5, or 1024 for the ancestral sampler.
        sampler: ``"default"``, the bundle's own, or ``"ancestral"``, the paper's.
        max_query: most held-out images to score on.
        encoder: of the images, by default the bundle's, or of the texts. Dual bundles make heads on any.
        unlabelled: items of the same classes without labels (`load_free`), which dual bundles learn from. Those that
            are also support or query items are left out.
        task: for a task-conditioned bundle: the name of a task or a mix of several (`read_mix`); by default the data
            set's name. The items then only choose among the samples and score them.
        names: new names of the classes (`rename`), each with a description after a colon where there is one; by default
            those of the data. They are a condition of bundles that were trained with names.
        progress: stages "Opening the bundle", "Reading images" (or "texts"), "Sampling heads", "Fitting the baselines".
    Raises:
        UserError: see `d2nwg.data.sources` and `WeightGenerationPipeline`.
    """
    whole(shots, "The number of shots", 1)
    whole(num_samples, "The number of samples", 1)
    seed_number(seed)
    if max_query is not None:
        whole(max_query, "The largest number of query images", 1)
    clock = Clock()
    classes = rename(given.classes, names) if names else list(given.classes)
    labels = list(map(class_of, classes)) if names else classes
    opened = open_for(given, classes, bundle, encoder, bool(unlabelled), task, sampler, steps, device, progress)
    sizes = len(classes), opened.encoder.num_features, shots * len(classes), len(unlabelled)
    opened.pipe.check_size(num_samples, *sizes)
    clock.lap("opening")
    reader = SplitReader(given, opened.encoder, max_query, progress)
    early = not unlabelled and sizes[0] * shots <= MOST
    data = reader.split(shots, seed, _glimpse(opened, shots, seed, num_samples) if early else None)
    seen = [given.items[i] for i in np.concatenate([data.support_index, data.query_index])]
    free, notes = read_unlabelled(unlabelled, opened.encoder, seen, progress, given.scale(), given.noun)
    clock.lap("features")
    generator = torch.Generator().manual_seed(seed)
    shown, kept = opened.part(data, shots, seed)
    samples = opened.sample(data.by_class(shown), num_samples, generator, free, progress)
    choice = choose(samples.state, data.support[kept], data.labels[kept], samples.expected)
    clock.lap("sampling")
    progress("Fitting the baselines", 0, 1)
    same_noise = torch.Generator().manual_seed(seed)
    beside = {}  # samples without one of the conditions
    if len(free):
        beside["without_unlabelled"] = opened.sample(data.by_class(shown), num_samples, same_noise)
    if opened.classes:
        nameless, same_noise = replace(opened, classes=()), torch.Generator().manual_seed(seed)
        beside["without_names"] = nameless.sample(data.by_class(shown), num_samples, same_noise, free)
    space = opened.pipe.weight_space
    mean = space.mean.cpu() if opened.on_own_encoder else None
    better = _better(opened, data, num_samples, free, mean, seed)
    scores = score_heads(space, opened.on_own_encoder, data, samples, choice, beside, seed, generator)
    progress("Fitting the baselines", 1, 1)
    clock.lap("baselines")
    report = Report(
        data=given.name,
        classes=labels,
        bundle=opened.name,
        task=opened.task,
        encoder=opened.encoder.name,
        shots=shots,
        num_support=len(data.labels),
        num_query=len(data.query_labels),
        num_unlabelled=len(free),
        unlabelled_trust=None if samples.trust is None else round(samples.trust, 4),
        num_samples=num_samples,
        seed=seed,
        selection=choice.words,
        recommended=better and better.name,
        cross_validation=better and better.right,
        query_accuracy=scores.accuracy,
        per_class=per_class_accuracy(scores.confusion, labels),
        samples=scores.samples,
        novelty=scores.novelty,
        seconds=clock.seconds(),
        device=str(opened.encoder.device),
        notes=[*given.notes, *data.notes, *notes, *unheeded(samples.trust, samples.belief, given.noun), *opened.notes],
        noun=given.noun,
    )
    made = _generation(opened.encoder, data, samples, choice, scores, report)
    made.head.keep_scale(given.scale())
    return made


def _glimpse(opened: Opened, shots: int, seed: int, num_samples: int) -> Glimpse:
    """How good the head is on the query items that have been read: what is said while others still are."""
    heads: list[State] = []

    def look(data: SplitFeatures) -> str:
        if not heads:
            shown, kept = opened.part(data, shots, seed)
            noise = torch.Generator().manual_seed(seed)
            samples = opened.sample(data.by_class(shown), min(num_samples, ADVISERS), noise)
            heads.append(choose(samples.state, data.support[kept], data.labels[kept], samples.expected).head)
        right = int((logits(heads[0], data.query).argmax(-1) == data.query_labels).sum())
        low, high = interval(right, len(data.query_labels))
        return f"right on {right / len(data.query_labels):.0%} so far ({low:.0%} to {high:.0%})"

    return look


def _better(
    opened: Opened, data: SplitFeatures, num_samples: int, free: Tensor, mean: Tensor | None, seed: int
) -> Recommendation | None:
    """Whether to take the generated head or a baseline, by the support alone; None where that takes too long or the
    bundle does not look at the support, so that leaving out some of it says nothing."""
    if opened.names or opened.steps > SOON:
        return None

    def average(shown: Tensor) -> State:
        noise = torch.Generator().manual_seed(seed)
        made = opened.sample(data.by_class(shown), min(num_samples, ADVISERS), noise, free)
        return {name: tensor.mean(0) for name, tensor in made.state.items()}

    return recommend(data.support, data.labels, average, mean=mean, seed=seed)


def _generation(
    encoder: FeatureEncoder,
    data: SplitFeatures,
    samples: HeadSamples,
    choice: Choice,
    scores: HeadScores,
    report: Report,
) -> Generation:
    info = {
        "bundle": report.bundle,
        "data": report.data,
        "seed": report.seed,
        "shots": report.shots,
        "selection": report.selection,
        "query_accuracy": report.query_accuracy.chosen,
        "num_query": report.num_query,
    }
    head = Head(choice.head, encoder.name, tuple(report.classes), encoder.preprocessing, info)
    vectors, order = (None if tensor is None else tensor.cpu() for tensor in (samples.vectors, samples.order))
    return Generation(
        head, samples.state, report, scores.confusion, scores.sample_accuracy, data, scores.baselines, vectors, order
    )
