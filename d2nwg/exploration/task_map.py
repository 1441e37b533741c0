"""A map of the adapters that a bundle knows, by task, with samples for a description among them."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from d2nwg.analysis.projections import Projection, check_perplexity, project
from d2nwg.bundles import load_adapter_pipeline
from d2nwg.models.adapter_space import KnownTask
from d2nwg.pipelines.adapters import STEPS, check_description
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent

NEAR_COPY = 0.5  # as in Explore: half the median distance between a zoo's nearest ones
SAMPLES = 30


@dataclass
class TaskMap:
    """The Z adapters that a bundle knows as points of the plane, and S samples for a description among them.

    Attributes:
        bundle, base: names of the bundle and of the text encoder that its adapters change.
        tasks: that it knows.
        vectors: (Z, k) coordinates of the zoo's adapters with their heads, in units of their standard deviations.
        owners: (Z,) numbers of their tasks.
        apart: (Z,) distance of each to the nearest other one of its task, divided by the median of these; inf for a
            task's only one, NaN where no task has two.
        between: (Z,) distance of each to the nearest one of another task, in the same unit.
        description: of a task; "" for none.
        nearest: numbers of all tasks, and the cosines of the nearest of their descriptions with this one, best first.
        seen: whether the description is one of a known task.
        samples: (S, k) coordinates of generated adapters.
        distance: (S,) of each to the nearest of the zoo, in the same unit.
        beside: (S,) the number of that nearest one.
        projection: two maps of the Z + S points.
        seed: of t-SNE and of the noise.
        seconds: wall time, loading aside.
    """

    bundle: str
    base: str
    tasks: tuple[KnownTask, ...]
    vectors: np.ndarray
    owners: np.ndarray
    apart: np.ndarray
    between: np.ndarray
    description: str
    nearest: list[tuple[int, float]]
    seen: bool
    samples: np.ndarray
    distance: np.ndarray
    beside: np.ndarray
    projection: Projection
    seed: int
    seconds: float

    @property
    def copies(self) -> int:
        """Samples nearer to an adapter of the zoo than half the median distance within a task."""
        return int((self.distance < NEAR_COPY).sum())


def map_tasks(
    description: str = "",
    *,
    bundle: str | Path | None = None,
    num_samples: int = SAMPLES,
    perplexity: float = 30,
    seed: int = 0,
    steps: int = STEPS,
    device: str | None = None,
    progress: Progress = silent,
) -> TaskMap:
    """Map the adapters that a bundle knows, and samples for a description among them.

    The maps are of all points together, so that samples which are like none of the zoo can stand aside.

    Args:
        description: of a task; "" for the zoo alone.
        bundle: name or path; by default the shipped one.
        num_samples: adapters to generate for the description.
        perplexity, seed: of t-SNE; the seed is that of the noise too.
        steps: denoising steps.
        progress: stages "Opening the bundle", "Sampling adapters", "Drawing the map".
    Raises:
        UserError: a description that cannot be used, or a bundle that cannot be opened.
    """
    check_perplexity(perplexity)
    whole(num_samples, "The number of samples", 1)
    seed_number(seed)
    description = check_description(description) if description.strip() else ""
    progress("Opening the bundle", 0, 1)
    path, pipe = load_adapter_pipeline(bundle, device)
    space = pipe.weight_space
    progress("Opening the bundle", 1, 1)
    if not len(space.zoo_vectors):
        raise UserError(f"The bundle {path.name} keeps no adapter of its zoo, so there is nothing to map.")
    started = time.perf_counter()
    zoo, owners, unit = space.zoo_vectors.cpu(), space.zoo_tasks.long().cpu(), space.unit().cpu()
    made, near, seen = torch.zeros(0, zoo.shape[1]), [], False
    if description:
        noise = torch.Generator().manual_seed(seed)
        samples = pipe(description, num_samples, noise, steps, progress=progress)
        made, seen = samples.vectors, samples.seen
        near = space.nearest(pipe.condition_encoder.texts([description])[0], len(space.tasks))
    progress("Drawing the map", 0, 1)
    beside = torch.cdist(made, zoo).min(1)
    others = torch.cdist(zoo, zoo).masked_fill(owners[:, None] == owners[None], torch.inf).amin(1)
    projection = project(torch.cat([zoo, made]).numpy(), perplexity, seed)
    progress("Drawing the map", 1, 1)
    return TaskMap(
        path.name,
        space.config.shape["base"],
        tuple(space.tasks),
        zoo.numpy(),
        owners.numpy(),
        (space.apart().cpu() / unit).numpy(),
        (others / unit).numpy(),
        description,
        near,
        seen,
        made.numpy(),
        (beside.values / unit).numpy(),
        beside.indices.numpy(),
        projection,
        seed,
        time.perf_counter() - started,
    )
