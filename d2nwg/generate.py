"""The main job, whole: labelled images in, generated heads and an honest report out."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from d2nwg.bundles import DEFAULT_BUNDLE, load_pipeline, resolve_bundle
from d2nwg.conditions.task_names import name_classes
from d2nwg.data.image_set import ImageSet
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.cache import content_hash
from d2nwg.encoders.images import load_encoder
from d2nwg.encoders.split import read_split
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.evaluation.baselines import rivals
from d2nwg.evaluation.zoo_baselines import novelty
from d2nwg.evaluation.zoo_distance import zoo_distance
from d2nwg.heads import Head
from d2nwg.pipelines.sampling import sample_heads
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import number
from d2nwg.weights.networks import State, logits, pick

# Fewer support images than this a class are all needed by the generator; with more, a third can choose among samples.
ENOUGH_TO_SELECT = 10
HARDLY = 0.15  # below it, images without labels make no difference worth speaking of


@dataclass
class Generation:
    """What one generation gives.

    Attributes:
        head: the chosen one.
        samples: all sampled heads as one batch on the encoder's features: ``weight`` (S, C, D), ``bias`` (S, C).
        report: what ``report.json`` holds.
        confusion: (C, C) counts of the chosen head on the query images; rows are the true classes.
        sample_accuracy: (S,) on the query images.
        query: (m,) numbers of the query images in the data set.
        vectors: (S, N) the samples as standardised vectors of the bundle's layout, and
        order: (C,) the classes in canonical order, in which they hold their rows; both None where the layout cannot
            hold these heads.
    """

    head: Head
    samples: State
    report: dict
    confusion: np.ndarray
    sample_accuracy: np.ndarray
    query: np.ndarray
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
        (folder / "report.json").write_text(json.dumps(self.report, indent=1, ensure_ascii=False), encoding="utf-8")
        (folder / "README.md").write_text(_readme(self.report, probe), encoding="utf-8")
        return folder


def generate_heads(
    images: ImageSet,
    *,
    bundle: str | Path | None = None,
    shots: int = 5,
    num_samples: int = 50,
    seed: int = 0,
    steps: int | None = None,
    max_query: int | None = 1000,
    encoder: str | None = None,
    unlabelled: Sequence[Path | bytes] = (),
    task: str | None = None,
    device: str | None = None,
    progress: Progress = silent,
) -> Generation:
    """Generate heads for a data set from ``shots`` images a class, and score them on images generation never saw.

    Args:
        images: the data set.
        bundle: name or path; by default the shipped one.
        shots: support images a class.
        num_samples: heads to sample.
        seed: of the split and the noise.
        steps: denoising steps; by default 5. The bundle's full number (1024) samples as the paper does, ancestrally.
        max_query: most held-out images to score on.
        encoder: of the images; by default the bundle's. Dual bundles make heads on any.
        unlabelled: images of the same classes without labels (`load_unlabelled`), which dual bundles learn from. Those
            that are also support or query images are left out.
        task: for a bundle that is told tasks by name: one of them or a mix (`read_mix`); by default the one with the
            data set's name. The images then only choose among the samples and score them.
        progress: stages "Opening the bundle", "Reading images", "Sampling heads", "Fitting the rivals".
    Raises:
        UserError: see `d2nwg.data.images` and `WeightGenerationPipeline`.
    """
    started = time.perf_counter()
    progress("Opening the bundle", 0, 1)
    path = resolve_bundle(bundle)
    pipe = load_pipeline(path, device)
    space = pipe.weight_space
    # Before minutes are spent on reading images.
    if pipe.max_classes is not None and len(images.classes) > pipe.max_classes:
        raise UserError(
            f"{images.name} has {len(images.classes)} classes, and the bundle {path.name} makes heads for at most "
            f"{pipe.max_classes}: leave some classes out, or choose another bundle."
        )
    other = not pipe.any_encoder and encoder not in (None, space.config.encoder)
    if other or (unlabelled and not pipe.uses_unlabelled):
        what = f"the encoder {encoder}" if other else "unlabelled images"
        raise UserError(f"The bundle {path.name} cannot use {what}: choose a dual bundle, such as {DEFAULT_BUNDLE}.")
    told = name_classes(pipe.tasks, task or images.name, images.classes) if pipe.tasks or task else None
    encoder = load_encoder(encoder or space.config.encoder, device)
    progress("Opening the bundle", 1, 1)

    opened = time.perf_counter()
    features, support, query, notes = read_split(images, encoder, shots, seed, max_query, progress)
    x_support, x_query = features[support], features[query]
    y_support, y_query = (torch.from_numpy(images.labels[i]) for i in (support, query))
    known = [images.items[i] for i in np.concatenate([support, query])]
    free, more_notes = _read_unlabelled(unlabelled, known, encoder, progress)
    read = time.perf_counter()

    generator = torch.Generator().manual_seed(seed)
    # The dual generator gains more from seeing all of the support than from a choice among its samples; what is told
    # names sees none of it.
    given, aside = set_aside(y_support, 0 if pipe.uses_all_support or told else shots, seed)
    aside = given if told else aside
    classes = range(len(images.classes))
    by_class = [x_support[given][y_support[given] == c] for c in classes]
    samples = sample_heads(pipe, by_class, num_samples, generator, steps, progress, free, told)
    samples.state = {name: tensor.cpu() for name, tensor in samples.state.items()}
    if samples.trust is not None and samples.trust < HARDLY:
        more_notes.append("The unlabelled images hardly count: with them, labelled ones are recognised worse.")
    chosen, average, selection = choose(samples.state, x_support[aside], y_support[aside])
    sampled = time.perf_counter()

    progress("Fitting the rivals", 0, 1)
    scores = accuracies(samples.state, x_query, y_query)
    mean = space.mean.cpu() if encoder.name == space.config.encoder else None
    others = rivals(x_support, y_support, x_query, y_query, mean=mean, seed=seed)
    if len(free):  # what they were worth
        plain = sample_heads(pipe, by_class, num_samples, torch.Generator().manual_seed(seed), steps)
        one = {name: tensor.cpu().mean(0, keepdim=True) for name, tensor in plain.state.items()}
        others["without_unlabelled"] = float(accuracies(one, x_query, y_query)[0])
    distance = [None] * num_samples
    if samples.vectors is not None and encoder.name == space.config.encoder:
        found = zoo_distance(space, samples.vectors, len(samples.order)).tolist()
        distance = [None if np.isnan(d) else round(d, 4) for d in found]
    beside = None
    if distance[0] is not None:
        beside = novelty(space, samples.vectors, samples.order, x_query, y_query, generator)
    predicted = logits(chosen, x_query).argmax(-1)
    confusion = np.zeros((len(images.classes),) * 2, np.int64)
    np.add.at(confusion, (y_query.numpy(), predicted.numpy()), 1)
    progress("Fitting the rivals", 1, 1)
    ended = time.perf_counter()

    top3 = scores.topk(min(3, len(scores))).values.mean()
    accuracy = {
        "chosen": float((predicted == y_query).float().mean()),
        "average": float(accuracies({n: t[None] for n, t in average.items()}, x_query, y_query)[0]),
        "mean": float(scores.mean()),
        "std": float(scores.std(correction=0)),
        "oracle_top3": float(top3),
        **others,
    }
    report = {
        "data": images.name,
        "classes": list(images.classes),
        "bundle": path.name,
        "task": (task or images.name) if told else None,
        "encoder": encoder.name,
        "shots": shots,
        "num_support": len(support),
        "num_query": len(query),
        "num_unlabelled": len(free),
        "unlabelled_trust": None if samples.trust is None else round(samples.trust, 4),
        "num_samples": num_samples,
        "seed": seed,
        "selection": selection,
        "query_accuracy": {name: round(value, 6) for name, value in accuracy.items()},
        "per_class": _per_class(images.classes, confusion),
        "samples": [
            {"accuracy": round(a, 6), "nearest_zoo_distance": d} for a, d in zip(scores.tolist(), distance, strict=True)
        ],
        "novelty": None if beside is None else asdict(beside),
        "seconds": {
            "opening": round(opened - started, 3),
            "features": round(read - opened, 3),
            "sampling": round(sampled - read, 3),
            "rivals": round(ended - sampled, 3),
            "total": round(ended - started, 3),
        },
        "device": str(encoder.device),
        "notes": [*images.notes, *notes, *more_notes],
    }
    info = {
        "bundle": path.name,
        "data": images.name,
        "seed": seed,
        "shots": shots,
        "selection": selection,
        "query_accuracy": report["query_accuracy"]["chosen"],
        "num_query": len(query),
    }
    head = Head(chosen, encoder.name, images.classes, encoder.preprocessing, info)
    vectors, order = (None if t is None else t.cpu() for t in (samples.vectors, samples.order))
    return Generation(head, samples.state, report, confusion, scores.numpy(), query, vectors, order)


def _read_unlabelled(
    items: Sequence[Path | bytes], known: Sequence[Path | bytes], encoder: Encoder, progress: Progress
) -> tuple[Tensor, list[str]]:
    """Features (m, D) of the unlabelled images, and sentences on those left out. An image that scores the head must
    not help to make it, so the ones that are support or query images are left out."""
    if not items:
        return torch.zeros(0, encoder.num_features), []
    taken = {content_hash(item) for item in known}
    fresh = [item for item in items if content_hash(item) not in taken]
    features, readable = encoder.encode(fresh, progress=progress)
    notes, unread = [], int((~readable).sum())
    if len(fresh) < len(items):
        notes.append(f"{number(len(items) - len(fresh), 'unlabelled image')} left out: also labelled here.")
    if unread:
        notes.append(f"{number(unread, 'unlabelled image')} left out: unreadable.")
    return features[torch.from_numpy(readable)], notes


def choose(samples: State, features: Tensor, labels: Tensor) -> tuple[State, State, str]:
    """The head to hand out, without a look at the query images.

    Args:
        samples: a batch of S heads.
        features: (n, D) support images that generation did not see; n may be 0.
        labels: (n,).
    Returns:
        the chosen head, the average of the samples, and how it was chosen, in words.
    """
    average = {name: tensor.mean(0) for name, tensor in samples.items()}
    count = len(next(iter(samples.values())))
    if not len(labels):
        return average, average, f"average of the {count} samples"
    everyone = {name: torch.cat([average[name][None], tensor]) for name, tensor in samples.items()}
    scores = accuracies(everyone, features, labels)
    best = int(scores.argmax())  # the first among equals, so the average wins a tie
    what = "the average of the samples" if best == 0 else f"sample {best - 1}"
    words = f"{what}, best on {len(labels)} support images that generation did not see"
    return pick(everyone, best), average, words


def set_aside(labels: Tensor, shots: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split the support: bool masks of the images that condition the generator, and of those that choose a sample."""
    aside = torch.zeros(len(labels), dtype=torch.bool)
    if shots >= ENOUGH_TO_SELECT:
        generator = torch.Generator().manual_seed(seed)
        for label in labels.unique():
            members = torch.nonzero(labels == label).squeeze(1)
            aside[members[torch.randperm(len(members), generator=generator)[: len(members) // 3]]] = True
    return ~aside, aside


def _per_class(classes, confusion) -> dict[str, float | None]:
    totals = confusion.sum(1)
    return {name: round(float(confusion[i, i] / totals[i]), 6) if totals[i] else None for i, name in enumerate(classes)}


def _readme(report: dict, probe: str) -> str:
    right = {name: f"{value:.1%}" for name, value in report["query_accuracy"].items()}
    build = {
        "linear": 'head = torch.nn.Linear(*reversed(state["weight"].shape))',
        "mlp": """hidden, width = state["0.weight"].shape
head = torch.nn.Sequential(
    torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, len(classes))
)""",
    }[probe]
    return f"""# A generated head for {report["data"]}

`head.safetensors` tells {len(report["classes"])} classes apart, on the features of `{report["encoder"]}`. It was right
on {right["chosen"]} of {report["num_query"]} images that generation never saw. Others from the same
{report["num_support"]} images: class mean {right["class_mean"]}, ridge {right["ridge"]}, logistic regression
{right["logistic_regression"]}. Chosen: {report["selection"]}.

With d2nwg:

```
python -m d2nwg predict head.safetensors picture.jpg
```

Anywhere else it is a state dict; encoder, preprocessing and class names are in the file's metadata:

```python
import json, torch
from safetensors import safe_open

with safe_open("head.safetensors", "pt") as f:
    state = {{name: f.get_tensor(name) for name in f.keys()}}
    classes = json.loads(f.metadata()["classes"])
    preprocessing = json.loads(f.metadata()["preprocessing"])
{build}
head.load_state_dict(state)  # feed it the pooled features of {report["encoder"]}
```

`samples.safetensors` holds all {report["num_samples"]} sampled heads with a leading axis; `report.json` all numbers.
"""
