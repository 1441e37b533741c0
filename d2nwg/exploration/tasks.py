"""Tasks to explore: a data set, or random subsets of its classes, each with the heads generated for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from d2nwg.analysis.populations import SAMPLE, TRAINED, Population, population, trained_vectors
from d2nwg.data.image_set import ImageSet
from d2nwg.evaluation.accuracy import confusion_matrix, per_class_accuracy
from d2nwg.evaluation.zoo_baselines import score_vectors
from d2nwg.evaluation.zoo_distance import class_mask, generated_heads
from d2nwg.generate import Generation, generate_heads
from d2nwg.heads import Head
from d2nwg.models.spaces import WeightSpace
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import some
from d2nwg.weights.networks import logits, pick


@dataclass(frozen=True)
class Task:
    """A data set, the heads generated for it, and the images that score them.

    Attributes:
        name: of the data set, or of the classes.
        images: its `ImageSet`.
        generation: what `generate_heads` made.
        order: (C,) the classes in canonical order.
        query, labels: features (m, D) of held-out images, and their classes (m,).
    """

    name: str
    images: ImageSet
    generation: Generation
    order: Tensor
    query: Tensor
    labels: Tensor

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.order)

    @property
    def group(self) -> int:
        """What its heads are compared by (`Population.counts`)."""
        return self.count

    @property
    def query_index(self) -> np.ndarray:
        """(m,) numbers of the held-out images in the data set."""
        return self.generation.data.query_index

    def used(self, space: WeightSpace) -> np.ndarray:
        """(N,) bool: which numbers of a vector its heads use."""
        return class_mask(space, self.count).numpy()

    def predicted(self, head: Head) -> np.ndarray:
        """(m,) the classes that a head predicts of the held-out images."""
        return logits(head.state, self.query).argmax(-1).numpy()

    def score(self, space: WeightSpace, vectors: np.ndarray) -> np.ndarray:
        """Accuracies (n,) of vectors (n, N) on the held-out images; their rows are taken for the task's classes in
        canonical order."""
        return score_vectors(space, vectors, self.order, self.query, self.labels)

    def head(self, space: WeightSpace, vector: np.ndarray, words: str, accuracy: float) -> Head:
        """A vector (N,) as a head for the task's classes; ``words`` becomes its ``selection``."""
        state = space.to_heads(
            torch.as_tensor(vector, device=space.mean.device)[None], self.order.to(space.mean.device)
        )
        made = self.generation.head
        info = {**made.info, "selection": words, "query_accuracy": float(accuracy)}
        return Head(pick(state, 0), made.encoder, made.classes, made.preprocessing, info)

    def with_chosen(self, head: Head) -> Generation:
        """The task's `Generation` with a head of `head` in place of the chosen one."""
        made, accuracy = self.generation, head.info["query_accuracy"]
        confusion = confusion_matrix(self.labels, logits(head.state, self.query).argmax(-1), self.count)
        report = replace(
            made.report,
            selection=head.info["selection"],
            query_accuracy=replace(made.report.query_accuracy, chosen=accuracy),
            per_class=per_class_accuracy(confusion, head.classes),
            recommended=None,  # that was judged of the chosen one
            cross_validation=None,
        )
        return replace(made, head=head, report=report, confusion=confusion)


def of_task(progress: Progress, number: int, tasks: int) -> Progress:
    """Progress whose stages name the task, where there are several."""
    if tasks == 1:
        return progress

    def report(stage: str, done: int, total: int) -> None:
        progress(f"Task {number + 1} of {tasks}: {stage[0].lower()}{stage[1:]}", done, total)

    return report


def subsets(images: ImageSet, number: int, classes: int, seed: int) -> list[ImageSet]:
    """``number`` different random subsets of so many classes, each a data set named by its classes.

    Raises:
        UserError: the data set has not as many classes.
    """
    if not 2 <= classes <= len(images.classes):
        raise UserError(
            f"{images.name} has {len(images.classes)} classes: tasks drawn from it can have 2 to "
            f"{len(images.classes)}, not {classes}."
        )
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], None] = {}
    for _ in range(20 * number):  # there may be no more subsets than were found
        if len(found) == number:
            break
        found.setdefault(tuple(np.sort(rng.permutation(len(images.classes))[:classes]).tolist()))
    return [_only(images, chosen) for chosen in found]


def _only(images: ImageSet, chosen: Sequence[int]) -> ImageSet:
    rows = np.flatnonzero(np.isin(images.labels, chosen))
    names = tuple(images.classes[c] for c in chosen)
    return replace(
        images,
        name=some(names, 6),
        classes=names,
        items=[images.items[int(i)] for i in rows],
        labels=np.searchsorted(chosen, images.labels[rows]),
        is_test=images.is_test[rows],
    )


def fewer(images: ImageSet, shots: int, max_query: int, seed: int) -> ImageSet:
    """A data set with only as many images a class as ``shots`` and about ``max_query`` held-out ones need, so that
    tasks drawn from it share what is read."""
    per_class = shots + -(-max_query // len(images.classes)) + 1  # one to spare, where one cannot be read
    rng, kept = np.random.default_rng(seed), []
    for label in range(len(images.classes)):
        for test in (False, True):
            own = np.flatnonzero((images.labels == label) & (images.is_test == test))
            kept.append(rng.permutation(own)[:per_class])
    rows = np.sort(np.concatenate(kept))
    return replace(
        images, items=[images.items[int(i)] for i in rows], labels=images.labels[rows], is_test=images.is_test[rows]
    )


def make_task(
    images: ImageSet,
    pipe,
    *,
    bundle,
    shots: int,
    num_samples: int,
    num_trained: int,
    seed: int,
    steps: int | None,
    sampler: str,
    max_query: int,
    number: int,
    device: str | None = None,
    progress: Progress = silent,
) -> tuple[Task, Population]:
    """Generate heads for a data set and train some on the same images: the task, and both as a population.

    Args:
        number: the task's, in the population.
        The others are those of `generate_heads` and `trained_vectors`.
    """
    made = generate_heads(
        images,
        bundle=bundle,
        shots=shots,
        num_samples=num_samples,
        seed=seed,
        steps=steps,
        sampler=sampler,
        max_query=max_query,
        device=device,
        progress=progress,
    )
    space, data, order = pipe.weight_space, made.data, made.order
    task = Task(images.name, images, made, order, data.query, data.query_labels)
    progress("Training heads to compare with", 0, 1)
    samples = torch.from_numpy(generated_heads(space, made.vectors, task.count))
    parts = [population(samples, task.count, SAMPLE, number, made.sample_accuracy)]
    if num_trained:
        vectors = trained_vectors(space, data.support, data.labels, order, num_trained, seed)
        parts.append(population(vectors, task.count, TRAINED, number, task.score(space, vectors.cpu().numpy())))
    progress("Training heads to compare with", 1, 1)
    return task, Population.join(parts)
