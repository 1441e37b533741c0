"""Labelled images in, a generated small network and its report out: `generate_network` opens a bundle, makes networks
for a few images a class, and scores them beside what a person would otherwise take, on images that it never saw."""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from d2nwg.bundles import data_bundle, load_pipeline
from d2nwg.data.arrays import ImageArrays, load_arrays, to_channels
from d2nwg.data.images import load_images
from d2nwg.data.labelled import LabelledSet
from d2nwg.evaluation import network_baselines as baselines
from d2nwg.evaluation.accuracy import confusion_matrix, per_class_accuracy
from d2nwg.evaluation.network_report import NetworkAccuracy, NetworkReport, about
from d2nwg.evaluation.report import Clock, SampleScore
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.dataset_networks import DatasetNetworkPipeline, DatasetNetworks
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown
from d2nwg.weights.network_files import NetworkFile
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import accuracy_of, logits_of
from d2nwg.weights.small_networks import MAX_CLASSES

ROWS = 20_000  # most images of a data set that are read


@dataclass
class NetworkGeneration:
    """A generated network.

    Attributes:
        network: to hand out.
        samples: networks drawn beside it, (S, …) a tensor; empty without any.
        report: what ``report.json`` holds.
        confusion: (C, C) counts on the query images; rows are the true classes.
        query_index: numbers of the query images in the data set.
        query, truth: those images as bytes (m, channels, size, size), and their classes (m,).
        shown, labels: the same of the images that generation was shown.
    """

    network: NetworkFile
    samples: State
    report: NetworkReport
    confusion: np.ndarray
    query_index: np.ndarray
    query: Tensor
    truth: np.ndarray
    shown: Tensor
    labels: Tensor

    def sample(self, index: int) -> NetworkFile:
        """Sample ``index`` as a network of its own."""
        info = self.network.info | {"query_accuracy": self.report.samples[index].accuracy, "sample": index}
        return replace(self.network, state=pick(self.samples, index), info=info)

    def save(self, part: Path, name: str) -> None:
        """Write the files of `NetworkFile.write`, ``report.json`` and, where there are any, ``samples.safetensors``
        into a folder that is there; ``name`` is what the card calls it."""
        self.network.write(part, name, about(self.report))
        text = json.dumps(self.report.to_json(), indent=1, ensure_ascii=False)
        (part / "report.json").write_text(text, encoding="utf-8")
        if self.samples:
            save_file({key: value.contiguous() for key, value in self.samples.items()}, part / "samples.safetensors")


def generate_network(
    source: str | Path | LabelledSet,
    *,
    bundle: str | Path,
    shots: int = 5,
    num_samples: int = 5,
    seed: int = 0,
    steps: int | None = None,
    max_query: int | None = 1000,
    device: str | None = None,
    progress: Progress = silent,
) -> NetworkGeneration:
    """Generate a network for a data set from ``shots`` images a class, and score it on others.

    Args:
        source: an `ImageSet`, or what `d2nwg.data.images.load_images` takes.
        bundle: name or path of a bundle of networks for a data set.
        shots: support images a class.
        num_samples: networks to draw by diffusion beside the deterministic one, to compare.
        seed: of the split and the noise.
        steps: denoising steps of the samples.
        max_query: most images to score on.
        progress: stages "Opening the bundle", "Reading images", "Sampling networks", "Fitting the baselines".
    Raises:
        UserError: no such bundle, unreadable data, or a class with too few images.
    """
    whole(shots, "The number of shots", 1)
    whole(num_samples, "The number of samples", 0)
    seed_number(seed)
    if max_query is not None:
        whole(max_query, "The largest number of query images", 1)
    clock = Clock()
    progress("Opening the bundle", 0, 1)
    path = data_bundle(bundle)
    pipe = load_pipeline(path, device)
    assert isinstance(pipe, DatasetNetworkPipeline)
    config = pipe.weight_space.config
    clock.lap("opening")
    given = source if isinstance(source, LabelledSet) else load_images(source, progress=progress)
    if len(given.classes) > MAX_CLASSES:
        raise UserError(
            f"{given.name} has {len(given.classes):,} classes, and a small network tells at most {MAX_CLASSES:,} "
            "apart: leave some out."
        )
    data = load_arrays(given, size=config.size, rows=ROWS, seed=seed, progress=progress)
    notes = list(data.notes)
    if data.channels != config.channels:
        notes.append(f"The images were taken as {'grey' if config.channels == 1 else 'coloured'} ones.")
    images, labels, query, truth, index = split(data, config.channels, shots, max_query, seed)
    clock.lap("features")
    made, seconds = _timed(pipe, images, labels)
    drawn: State = {}
    far: list[float] = []
    if num_samples:
        noise = torch.Generator().manual_seed(seed)
        more = pipe(images, labels, num_samples, noise, steps or DEFAULT_STEPS, progress=progress)
        drawn = {name: value[1:] for name, value in more.state.items()}
        far = more.distance[1:].tolist()
    clock.lap("sampling")
    accuracy, each = _accuracies(pipe, images, labels, query, truth, made.state, drawn, seconds, seed, progress)
    module = baselines.module_for(pipe.weight_space, len(data.classes))
    predicted = logits_of(module, made.state, pipe.weight_space.normalised(query).unsqueeze(0))[0].argmax(-1)
    confusion = confusion_matrix(truth.numpy(), predicted.numpy(), len(data.classes))
    clock.lap("baselines")
    report = NetworkReport(
        data=data.name,
        classes=list(data.classes),
        bundle=path.name,
        network=config.network,
        channels=config.channels,
        size=config.size,
        shots=shots,
        num_support=len(labels),
        num_query=len(truth),
        num_samples=num_samples,
        seed=seed,
        head=made.head,
        query_accuracy=accuracy,
        samples=[SampleScore(round(a, 6), _known(d)) for a, d in zip(each, far, strict=True)],
        per_class=per_class_accuracy(confusion, data.classes),
        distance=_known(float(made.distance[0])),
        seconds=clock.seconds(),
        generating=round(seconds, 3),
        notes=notes,
    )
    info: dict[str, Any] = {"data": data.name, "seed": seed, "shots": shots, "query_accuracy": accuracy.network}
    shape = config.network, config.channels, data.classes, config.size
    network = NetworkFile(made.states()[0], *shape, config.mean, config.std, path.name, info)
    network.keep_scale(given.scale())
    return NetworkGeneration(network, drawn, report, confusion, index, query, truth.numpy(), images, labels)


def _known(distance: float) -> float | None:
    return None if distance != distance else round(distance, 4)


def _timed(pipe: DatasetNetworkPipeline, images: Tensor, labels: Tensor) -> tuple[DatasetNetworks, float]:
    """The deterministic network, and the seconds that it takes once everything is warm."""
    pipe(images, labels)
    began = time.perf_counter()
    made = pipe(images, labels)
    return made, time.perf_counter() - began


def split(
    data: ImageArrays, channels: int, shots: int, most: int | None, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, np.ndarray]:
    """Images that generation is shown, ``shots`` a class of the training part, and others that score, of the test part
    where it has enough: bytes (n, c, s, s), their classes (n,); the same of the others; and the others' numbers in the
    data set.

    Raises:
        UserError: a class has too few images.
    """
    rng = np.random.default_rng(seed)
    support = support_rows(data, shots, rng)
    query = rng.permutation(len(data.test_labels))[:most]
    parts = []
    for images, labels, rows in ((data.train, data.train_labels, support), (data.test, data.test_labels, query)):
        parts += [to_channels(torch.from_numpy(images[rows]), channels), torch.from_numpy(labels[rows])]
    return parts[0], parts[1], parts[2], parts[3], data.test_index[query]


def support_rows(data: ImageArrays, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the training images that generation is shown, ``shots`` of each class in turn.

    Raises:
        UserError: a class has too few images.
    """
    rows = []
    for label, name in enumerate(data.classes):
        own = np.flatnonzero(data.train_labels == label)
        if len(own) < shots:
            raise UserError(
                f"The class {shown(name)} has {len(own)} training images but {shots} are needed; add some, or choose "
                "fewer shots."
            )
        rows.append(rng.permutation(own)[:shots])
    return np.concatenate(rows)


def _accuracies(pipe, images, labels, query, truth, made: State, drawn: State, seconds, seed, progress):
    """A `NetworkAccuracy`, and the accuracy of each sample."""
    space, classes = deepcopy(pipe.weight_space).cpu(), int(labels.max()) + 1
    module, given = baselines.module_for(space, classes), space.normalised(query).unsqueeze(0)

    def right(state: State | None) -> Tensor:
        if not state:
            return torch.full((1,), torch.nan)
        return accuracy_of(module, state, given, truth.unsqueeze(0))

    trained, steps = baselines.gradient_steps(space, images, labels, seconds=seconds, seed=seed)
    penalty = pipe.hypernetwork.config.average_penalty
    starts: dict[str, Callable[[], State | None]] = {
        "network": lambda: made,
        "generated_head": lambda: pipe(images, labels, head="generated").state,
        "closed_form_head": lambda: pipe(images, labels, head="closed-form").state,
        "samples": lambda: drawn,
        "random": lambda: baselines.random_networks(space, classes, [seed, seed + 1, seed + 2]),
        "zoo_average": lambda: baselines.average_network(space, classes),
        "nearest_member": lambda: baselines.nearest_member(space, images, labels),
        "average_closed_form": lambda: baselines.average_closed_form(space, images, labels, penalty),
        "common_closed_form": lambda: baselines.common_closed_form(
            deepcopy(pipe.hypernetwork).cpu(), space, images, labels
        ),
        "gradient_steps": lambda: trained,
        "gradient_50": lambda: baselines.gradient_steps(space, images, labels, steps=50, seed=seed)[0],
    }
    found: dict[str, Tensor] = {}
    for number, (name, make) in enumerate(starts.items()):
        progress("Fitting the baselines", number, len(starts))
        found[name] = right(make())
    progress("Fitting the baselines", len(starts), len(starts))
    each = found["samples"]
    means = {name: None if value.isnan().any() else round(float(value.mean()), 6) for name, value in found.items()}
    spread = round(float(each.std(correction=0)), 6) if drawn else None
    accuracy = NetworkAccuracy(**means, samples_std=spread, steps=steps)  # type: ignore[arg-type]
    return accuracy, each.tolist() if drawn else []
