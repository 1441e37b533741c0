"""Paths between two tasks: heads from one endpoint to the other, method by method, scored at every point."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2nwg.bundles import data_bundle, load_pipeline, makes_for_data, resolve_bundle
from d2nwg.data.image_set import ImageSet
from d2nwg.encoders.images import load_encoder
from d2nwg.heads import Head
from d2nwg.interpolation.endpoints import NamedTask, read_endpoints
from d2nwg.interpolation.methods import BASELINE, METHODS, POINTS
from d2nwg.interpolation.mixer import Mixer
from d2nwg.interpolation.networks import NetworkMixer, read_network_endpoints
from d2nwg.interpolation.result import Interpolation, Paths, path_mix
from d2nwg.pipelines.dataset_networks import DatasetNetworkPipeline
from d2nwg.pipelines.heads import LatentHeadPipeline, WeightGenerationPipeline
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import MOST_SEED, check_memory, seed_number, whole
from d2nwg.utils.progress import Progress, silent

DEFAULT_BUNDLE = "heads-efficientnet-lite0"  # the shipped one that every method can be used with


def interpolate(
    sources: Sequence[ImageSet | Head | NamedTask],
    *,
    methods: Sequence[str] | None = None,
    bundle: str | Path | None = None,
    points: int = POINTS,
    seeds: int = 3,
    shots: int = 5,
    num_samples: int = 16,
    seed: int = 0,
    steps: int | None = None,
    max_query: int | None = 200,
    device: str | None = None,
    progress: Progress = silent,
) -> Interpolation:
    """Interpolate heads from the first source to the second, and score each on the query images of all sources.

    Args:
        sources: data sets with the same classes, saved heads, named tasks; more than two can be mixed by `mixed`.
        methods: of `METHODS`; by default all that can be used. The linear path between weights is always computed.
        bundle: name or path; by default the shipped one that every method can be used with. One of whole networks for
            images makes networks in place of heads, between data sets alone, one path a method
            (`d2nwg.interpolation.networks`).
        points: P, of the path, both endpoints included.
        seeds: S, paths of a method, each from its own noise.
        shots: support images a class.
        num_samples: heads that are sampled and averaged at each point.
        seed: of the splits, and the first of the noise; the others follow it.
        steps: denoising steps.
        max_query: most held-out images of each data set to score on.
        progress: stages "Opening the bundle", "Reading images of ...", "Making the endpoints", "Sampling along the
            path".
    Raises:
        UserError: fewer than two sources or points, a method that cannot be used, or what `read_endpoints` refuses.
    """
    started = time.perf_counter()
    if len(sources) < 2:
        raise UserError("A path needs two endpoints.")
    whole(points, "The number of points", 2, 10_000)
    whole(seeds, "The number of seeds", 1, 1_000)
    whole(shots, "The number of shots", 1)
    whole(num_samples, "The number of heads sampled at a point", 1)
    whole(seed_number(seed) + seeds, "The last seed", 0, MOST_SEED)
    if max_query is not None:
        whole(max_query, "The largest number of query images", 1)
    unknown = [method for method in methods or () if method not in METHODS]
    if unknown:
        raise UserError(f"Method {unknown[0]!r} is not known: choose one of {', '.join(METHODS)}.")
    progress("Opening the bundle", 0, 1)
    path = data_bundle(bundle) if makes_for_data(bundle) else resolve_bundle(bundle or DEFAULT_BUNDLE)
    pipe = load_pipeline(path, device)
    split: dict[str, Any] = dict(shots=shots, seed=seed, max_query=max_query)
    mixer: Mixer | NetworkMixer
    if isinstance(pipe, DatasetNetworkPipeline):
        if steps is not None:
            raise UserError(f"The bundle {path.name} makes whole networks without denoising steps: leave them out.")
        progress("Opening the bundle", 1, 1)
        mixer = NetworkMixer(
            pipe, read_network_endpoints(sources, pipe, progress=progress, **split), seed=seed, progress=progress
        )
    else:
        if steps is not None:
            whole(steps, "The number of denoising steps", 1, pipe.scheduler.config.num_train_timesteps)
        _check_size(pipe, points, seeds, num_samples, shots)
        encoder = load_encoder(pipe.weight_space.config.encoder, device)
        progress("Opening the bundle", 1, 1)
        split |= dict(tasks=pipe.tasks, max_classes=pipe.max_classes)
        endpoints = read_endpoints(sources, encoder, progress=progress, **split)
        numbers = [seed + i for i in range(seeds)]
        mixer = Mixer(pipe, endpoints, seeds=numbers, num_samples=num_samples, steps=steps, progress=progress)
    for method in methods or ():
        mixer.check(method)
    missing = {method: why for method, why in mixer.methods().items() if why}
    used = [m for m in METHODS if m not in missing and (methods is None or m in methods or m == BASELINE)]
    made = Interpolation(
        mixer.endpoints,
        torch.linspace(0, 1, points),
        {},
        mixer,
        path.name,
        dict(shots=shots, seeds=list(mixer.seeds), num_samples=mixer.num_samples, denoising_steps=mixer.steps),
        radius=None if mixer.zoo_conditions is None else pipe.weight_space.seen_radius(),
        missing=missing if methods is None else {},
    )
    for number, method in enumerate(used):

        def report(stage: str, done: int, total: int, number=number) -> None:
            progress(stage, number * total + done, len(used) * total)

        made.paths[method] = _paths(made, method, report)
    made.seconds = time.perf_counter() - started
    return made


def _check_size(pipe: WeightGenerationPipeline, points: int, seeds: int, num_samples: int, shots: int) -> None:
    """Raises UserError for more heads than fit into the memory: those that are sampled for one path at once, and all
    that are kept. Two classes are the least that there can be."""
    features = pipe.weight_space.config.num_features
    sampled = num_samples * pipe.sample_bytes(2, features, 2 * shots)
    needed = sampled * (points if isinstance(pipe, LatentHeadPipeline) else 1) + points * seeds * 8 * 2 * (features + 1)
    what = f"Interpolating {seeds:,} paths of {points:,} points, {num_samples:,} heads each,"
    check_memory(needed, what, "ask for fewer points, seeds or samples", pipe.weight_space.mean.device)


def _paths(made: Interpolation, method: str, progress: Progress) -> Paths:
    mixer, mix = made.mixer, path_mix(made.alpha, len(made.endpoints.members))
    state = mixer.heads(method, mix, progress)
    accuracy = mixer.score(state)
    with_mean = torch.cat([accuracy, accuracy[:2].mean(0, keepdim=True)])
    paths = Paths(state, accuracy, barrier(with_mean, made.alpha))
    condition = mixer.condition(method, mix)
    if condition is not None:
        paths.condition = condition.dataset.cpu()
        if made.radius is not None:
            paths.distance = mixer.pipe.weight_space.condition_distance(condition.dataset).cpu()
            paths.outside = paths.distance > made.radius
    return paths


def barrier(accuracy: Tensor, alpha: Tensor) -> Tensor:
    """The largest drop of accuracies below the straight line between those of the two endpoints.

    Args:
        accuracy: (..., P), fractions.
        alpha: (P,) from 0 to 1.
    Returns:
        (...), fractions; 0 where no point lies below the line.
    """
    line = (1 - alpha) * accuracy[..., :1] + alpha * accuracy[..., -1:]
    return (line - accuracy).amax(-1).clamp_min(0)
