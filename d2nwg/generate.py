"""The main job: labelled images in, generated heads and their report out.

`generate_heads` opens a bundle, reads images, samples heads, chooses one, scores it and reports.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from d2nwg.bundles import DEFAULT_BUNDLE, load_pipeline, resolve_bundle
from d2nwg.conditions.class_names import class_of, rename
from d2nwg.conditions.task_names import name_classes
from d2nwg.data.image_set import ImageSet
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.images import load_encoder
from d2nwg.encoders.split import SplitFeatures, read_split, read_unlabelled
from d2nwg.evaluation.accuracy import accuracies, confusion_matrix, per_class_accuracy
from d2nwg.evaluation.baselines import score_baselines
from d2nwg.evaluation.report import Clock, Novelty, QueryAccuracy, Report, SampleScore, readme
from d2nwg.evaluation.selection import Choice, choose, selection_split
from d2nwg.evaluation.zoo_baselines import novelty
from d2nwg.evaluation.zoo_distance import zoo_distance
from d2nwg.heads import Head
from d2nwg.pipelines import DEFAULT
from d2nwg.pipelines.heads import HeadSamples, WeightGenerationPipeline
from d2nwg.pipelines.sampling import choose_sampler, sample_heads
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, logits, pick

NAMELESS = "This encoder has neither a classifier of ImageNet's classes nor a text tower: class names are ignored."
LEAST_TRUST = 0.15  # with less, images without labels make no difference worth speaking of


@dataclass
class Generation:
    """Generated heads.

    Attributes:
        head: the chosen one.
        samples: all sampled heads as one batch on the encoder's features: ``weight`` (S, C, D), ``bias`` (S, C).
        report: what ``report.json`` holds.
        confusion: (C, C) counts of the chosen head on the query images; rows are the true classes.
        sample_accuracy: (S,) on the query images.
        data: the support and query images.
        vectors: (S, N) the samples as standardised vectors of the bundle's layout; None where it cannot hold them.
        order: (C,) the classes in canonical order, in which ``vectors`` hold their rows; None where those are.
    """

    head: Head
    samples: State
    report: Report
    confusion: np.ndarray
    sample_accuracy: np.ndarray
    data: SplitFeatures
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

    def save(self, folder: str | Path) -> Path:
        """Write ``head.safetensors``, ``samples.safetensors``, ``report.json`` and ``README.md``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        probe = "linear" if "weight" in self.samples else "mlp"
        self.head.save(folder / "head.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in self.samples.items()}, folder / "samples.safetensors")
        report = json.dumps(self.report.to_json(), indent=1, ensure_ascii=False)
        (folder / "report.json").write_text(report, encoding="utf-8")
        (folder / "README.md").write_text(readme(self.report, probe), encoding="utf-8")
        return folder


def generate_heads(
    images: ImageSet,
    *,
    bundle: str | Path | None = None,
    shots: int = 5,
    num_samples: int = 50,
    seed: int = 0,
    steps: int | None = None,
    sampler: str = DEFAULT,
    max_query: int | None = 1000,
    encoder: str | None = None,
    unlabelled: Sequence[Path | bytes] = (),
    task: str | None = None,
    names: Sequence[str] = (),
    device: str | None = None,
    progress: Progress = silent,
) -> Generation:
    """Generate heads for a data set from ``shots`` images a class, and score them on images that generation never saw.

    Args:
        images: the data set.
        bundle: name or path; by default the shipped one.
        shots: support images a class.
        num_samples: heads to sample.
        seed: of the split and the noise.
        steps: denoising steps; by default 5, or 1024 for the ancestral sampler.
        sampler: ``"default"``, the bundle's own, or ``"ancestral"``, the paper's.
        max_query: most held-out images to score on.
        encoder: of the images; by default the bundle's. Dual bundles make heads on any.
        unlabelled: images of the same classes without labels (`load_unlabelled`), which dual bundles learn from. Those
            that are also support or query images are left out.
        task: for a task-conditioned bundle: the name of a task or a mix of several (`read_mix`); by default the data
            set's name. The images then only choose among the samples and score them.
        names: new names of the classes (`rename`), each with a description after a colon where there is one; by default
            those of the folders. They are a condition of bundles that were trained with names.
        progress: stages "Opening the bundle", "Reading images", "Sampling heads", "Fitting the baselines".
    Raises:
        UserError: see `d2nwg.data.images` and `WeightGenerationPipeline`.
    """
    whole(shots, "The number of shots", 1)
    whole(num_samples, "The number of samples", 1)
    seed_number(seed)
    if max_query is not None:
        whole(max_query, "The largest number of query images", 1)
    clock = Clock()
    classes = rename(images.classes, names) if names else list(images.classes)
    labels = list(map(class_of, classes)) if names else classes
    opened = _open(images, classes, bundle, encoder, bool(unlabelled), task, sampler, steps, device, progress)
    sizes = len(classes), opened.encoder.num_features, shots * len(classes), len(unlabelled)
    opened.pipe.check_size(num_samples, *sizes)
    clock.lap("opening")
    data = read_split(images, opened.encoder, shots, seed, max_query, progress)
    labelled = [images.items[i] for i in np.concatenate([data.support_index, data.query_index])]
    free, notes = read_unlabelled(unlabelled, opened.encoder, labelled, progress, images.pixels.scale())
    clock.lap("features")
    generator = torch.Generator().manual_seed(seed)
    given, kept = _selection_split(opened, data, shots, seed)
    samples = _sample(opened, data.by_class(given), num_samples, generator, free, progress)
    choice = choose(samples.state, data.support[kept], data.labels[kept])
    clock.lap("sampling")
    progress("Fitting the baselines", 0, 1)
    same_noise = torch.Generator().manual_seed(seed)
    beside = {}  # samples without one of the conditions
    if len(free):
        beside["without_unlabelled"] = _sample(opened, data.by_class(given), num_samples, same_noise)
    if opened.classes:
        nameless, same_noise = replace(opened, classes=()), torch.Generator().manual_seed(seed)
        beside["without_names"] = _sample(nameless, data.by_class(given), num_samples, same_noise, free)
    scores = _score(opened, data, samples, choice, beside, seed, generator)
    progress("Fitting the baselines", 1, 1)
    clock.lap("baselines")
    report = Report(
        data=images.name,
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
        query_accuracy=scores.accuracy,
        per_class=per_class_accuracy(scores.confusion, labels),
        samples=scores.samples,
        novelty=scores.novelty,
        seconds=clock.seconds(),
        device=str(opened.encoder.device),
        notes=[*images.notes, *data.notes, *notes, *_on_trust(samples), *opened.notes],
    )
    made = _generation(opened.encoder, data, samples, choice, scores, report)
    made.head.keep_scale(images.pixels.scale())
    return made


@dataclass(frozen=True)
class _Opened:
    """A bundle, ready to sample.

    Attributes:
        name: the bundle's.
        pipe, steps: with the sampler asked for, and its denoising steps.
        task: in words; None for a bundle that is shown images.
        names: what the pipeline takes for the task (`name_classes`); None likewise.
        classes: names of the classes where they are a condition; empty where not.
        notes: sentences for the user.
    """

    name: str
    pipe: WeightGenerationPipeline
    steps: int
    encoder: Encoder
    task: str | None
    names: tuple | None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def on_own_encoder(self) -> bool:
        """Whether the heads sit on the same encoder as the zoo's."""
        return self.encoder.name == self.pipe.weight_space.config.encoder


def _open(
    images, classes, bundle, encoder, with_unlabelled: bool, task, sampler, steps, device, progress: Progress
) -> _Opened:
    """Open the bundle and its encoder. What they cannot do is refused before minutes are spent on reading images."""
    progress("Opening the bundle", 0, 1)
    path = resolve_bundle(bundle)
    pipe, steps = choose_sampler(load_pipeline(path, device), sampler, steps)
    space = pipe.weight_space
    if pipe.max_classes is not None and len(images.classes) > pipe.max_classes:
        raise UserError(
            f"{images.name} has {len(images.classes)} classes, and the bundle {path.name} makes heads for at most "
            f"{pipe.max_classes}: leave some classes out, or choose another bundle."
        )
    other = not pipe.any_encoder and encoder not in (None, space.config.encoder)
    if other or (with_unlabelled and not pipe.uses_unlabelled):
        what = f"the encoder {encoder}" if other else "unlabelled images"
        raise UserError(f"The bundle {path.name} cannot use {what}: choose a dual bundle, such as {DEFAULT_BUNDLE}.")
    task = task or images.name if pipe.tasks or task else None
    names = name_classes(pipe.tasks, task, images.classes) if task else None
    opened = _Opened(path.name, pipe, steps, load_encoder(encoder or space.config.encoder, device), task, names)
    if pipe.uses_names:
        known = pipe.names_on(opened.encoder.name).known
        opened = replace(opened, classes=tuple(classes)) if known else replace(opened, notes=(NAMELESS,))
    progress("Opening the bundle", 1, 1)
    return opened


def _selection_split(opened: _Opened, data: SplitFeatures, shots: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bool masks (n,) of the support images that condition the generator, and of those that choose a sample."""
    # A dual generator gains more from all of the support than from a choice among its samples; a task-conditioned one
    # sees no image, so that all of them can choose.
    given, kept = selection_split(data.labels, 0 if opened.pipe.uses_all_support or opened.names else shots, seed)
    return given, (given if opened.names else kept)


def _sample(
    opened: _Opened,
    by_class: list[Tensor],
    num_samples: int,
    generator: torch.Generator,
    unlabelled: Tensor | None = None,
    progress: Progress = silent,
) -> HeadSamples:
    """Sample heads; their state is on the CPU."""
    run: dict = {"steps": opened.steps, "unlabelled": unlabelled, "task": opened.names, "progress": progress}
    run |= {"names": opened.classes, "encoder": opened.encoder.name}
    samples = sample_heads(opened.pipe, by_class, num_samples, generator, **run)
    samples.state = {name: tensor.cpu() for name, tensor in samples.state.items()}
    return samples


@dataclass(frozen=True)
class _Scores:
    """What was measured on the query images.

    Attributes:
        accuracy: of the heads and the baselines.
        samples: each sample.
        sample_accuracy: (S,) the same, not rounded.
        novelty: of the average of the samples.
        confusion: (C, C) of the chosen head.
    """

    accuracy: QueryAccuracy
    samples: list[SampleScore]
    sample_accuracy: np.ndarray
    novelty: Novelty | None
    confusion: np.ndarray


def _score(
    opened: _Opened,
    data: SplitFeatures,
    samples: HeadSamples,
    choice: Choice,
    beside: dict[str, HeadSamples],
    seed: int,
    generator: torch.Generator,
) -> _Scores:
    """Score the samples, the chosen head and the baselines; ``beside`` are samples without one of the conditions."""
    space, query, labels = opened.pipe.weight_space, data.query, data.query_labels
    each = accuracies(samples.state, query, labels)
    predicted = logits(choice.head, query).argmax(-1)
    accuracy = {
        "chosen": float((predicted == labels).float().mean()),
        "average": _accuracy(choice.average, query, labels),
        "mean": float(each.mean()),
        "std": float(each.std(correction=0)),
        "oracle_top3": float(each.topk(min(3, len(each))).values.mean()),
    }
    mean = space.mean.cpu() if opened.on_own_encoder else None
    accuracy |= score_baselines(data.support, data.labels, query, labels, mean=mean, seed=seed)
    for without, others in beside.items():
        average = {name: tensor.mean(0) for name, tensor in others.state.items()}
        accuracy[without] = _accuracy(average, query, labels)
    distance, found_novelty = [None] * len(each), None
    if samples.vectors is not None and opened.on_own_encoder:
        found = zoo_distance(space, samples.vectors, len(samples.order)).tolist()
        distance = [None if np.isnan(value) else round(value, 4) for value in found]
        found_novelty = novelty(space, samples.vectors, samples.order, query, labels, generator)
    return _Scores(
        accuracy=QueryAccuracy(**{name: round(value, 6) for name, value in accuracy.items()}),
        samples=[SampleScore(round(a, 6), d) for a, d in zip(each.tolist(), distance, strict=True)],
        sample_accuracy=each.numpy(),
        novelty=found_novelty,
        confusion=confusion_matrix(labels, predicted, len(data.labels.unique())),
    )


def _accuracy(head: State, features: Tensor, labels: Tensor) -> float:
    return float(accuracies({name: tensor[None] for name, tensor in head.items()}, features, labels)[0])


def _on_trust(samples: HeadSamples) -> list[str]:
    """A sentence where unlabelled images made no difference."""
    if samples.trust is None or samples.trust >= LEAST_TRUST:
        return []
    return ["The unlabelled images hardly count: with them, labelled ones are recognised worse."]


def _generation(
    encoder: Encoder, data: SplitFeatures, samples: HeadSamples, choice: Choice, scores: _Scores, report: Report
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
    return Generation(head, samples.state, report, scores.confusion, scores.sample_accuracy, data, vectors, order)
