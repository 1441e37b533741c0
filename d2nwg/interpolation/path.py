"""Paths between tasks: what heads are worth on the way from one end to the other, way by way."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.bundles import resolve_bundle
from d2nwg.data.image_set import ImageSet
from d2nwg.encoders.images import load_encoder
from d2nwg.generate import load_pipeline
from d2nwg.heads import Head
from d2nwg.interpolation.endpoints import Ends, read_ends
from d2nwg.interpolation.mixer import BASELINE, WAYS, Mixer
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, logits, pick

DEFAULT_BUNDLE = "heads-efficientnet-lite0"  # the shipped one in which every way can be gone


@dataclass
class Leg:
    """One way from A to B, S seeds and P points.

    Attributes:
        state: heads (S, P, ...) on the encoder's features.
        accuracy: (E', S, P) on the query images of each end that has some.
        barrier: (E' + 1, S) the worst drop under the straight line between the ends: on each end's images, and (last)
            on the average of them.
        condition: (P, E) z_D of the mixed conditions, None on a way that mixes something else.
        distance: (P,) from there to the nearest z_D seen in training, None where the bundle knows none.
        outside: (P,) bool, farther than `Walk.radius`; None likewise.
    """

    state: State
    accuracy: Tensor
    barrier: Tensor
    condition: Tensor | None = None
    distance: Tensor | None = None
    outside: Tensor | None = None


@dataclass
class Walk:
    """All that was measured between the first two ends.

    Attributes:
        ends: what was read; the first two are walked between, all of them score.
        alpha: (P,) from 0, the first end, to 1, the second.
        legs: way to `Leg`; the weights' straight line is always among them.
        mixer: makes heads for any mix of the ends.
        bundle: its name.
        settings: shots, seeds, num_samples, denoising steps.
        radius: how far z_D of a task seen in training is from the nearest other one, at the 95th percentile; None
            where the bundle knows none.
        missing: way to a sentence why it was not gone.
        seconds: what it took.
    """

    ends: Ends
    alpha: Tensor
    legs: dict[str, Leg]
    mixer: Mixer
    bundle: str
    settings: dict
    radius: float | None = None
    missing: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def scored(self) -> list[str]:
        """Names of the ends that have images to score on."""
        return [self.ends.members[i].name for i in self.ends.scored]

    def mix(self, point: int) -> Tensor:
        """The weights of the ends (E,) at a point of the path."""
        return _mix(self.alpha[point : point + 1], len(self.ends.members))[0]

    def state(self, way: str, point: int, seed: int = 0) -> State:
        """The head at a point, made from noise number ``seed``."""
        return pick(pick(self.legs[way].state, seed), point)

    def head(self, way: str, point: int, seed: int = 0) -> Head:
        """The same as a `Head` of its own. Its accuracies on the query images are in ``info``."""
        leg = self.legs[way]
        right = {name: float(leg.accuracy[i, seed, point]) for i, name in enumerate(self.scored)}
        return self.as_head(self.state(way, point, seed), way, self.mix(point), right, seed)

    def mixed(self, shares: Sequence[float], way: str) -> tuple[Head, dict[str, float]]:
        """A head mixed from all ends by any shares (E,), and its accuracy on the query images of each; made now.

        Raises:
            UserError: not a share an end, all of them zero or one negative, or a way that cannot be gone.
        """
        mix = torch.tensor([float(share) for share in shares])
        if len(mix) != len(self.ends.members) or not mix.isfinite().all() or mix.min() < 0 or mix.sum() <= 0:
            raise UserError("Give a share of at least 0 for every end, and more than 0 for one of them.")
        mix = mix / mix.sum()
        states = self.mixer.heads(way, mix[None])
        scores = self.mixer.score(states)
        right = {name: float(scores[i, 0, 0]) for i, name in enumerate(self.scored)}
        return self.as_head(pick(pick(states, 0), 0), way, mix, right), right

    def as_head(self, state: State, way: str, mix: Tensor, right: dict[str, float], seed: int = 0) -> Head:
        """A mixed head as a `Head`: what it was mixed from, how, and where it is right (a share an end)."""
        names = [end.name for end in self.ends.members]
        info = {
            "bundle": self.bundle,
            "data": " + ".join(f"{share:.0%} {name}" for share, name in zip(mix.tolist(), names, strict=True) if share),
            "selection": f"mixed by {WAYS[way]}",
            "way": way,
            "mix": dict(zip(names, (round(share, 6) for share in mix.tolist()), strict=True)),
            "seed": self.settings["seeds"][seed],
            "query_accuracy": {name: round(value, 6) for name, value in right.items()},
        }
        return Head(state, self.ends.encoder, self.ends.classes, self.ends.preprocessing, info)

    def in_weights(self) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Where the paths run among the zoo's heads, as Explore shows those: standardised vectors (Z, N) of the zoo
        heads with as many classes, and way → vectors (P, N) of the first seed. None where the bundle keeps too few."""
        space, order = self.mixer.pipe.weight_space, getattr(self.mixer, "order", None)
        zoo = space.zoo_vectors[space.zoo_counts == len(self.ends.classes)]
        if order is None or len(zoo) < 3:
            return None
        mask, paths = space.layout.mask(torch.tensor([len(self.ends.classes)])).to(zoo), {}
        for way, leg in self.legs.items():
            state = {name: tensor[0].to(space.mean.device) for name, tensor in leg.state.items()}
            paths[way] = (space.to_vectors(state, order) * mask).cpu()
        return (zoo * mask).cpu(), paths

    def report(self) -> dict:
        """What ``path.json`` holds: alpha, and for each way the accuracies on A and on B (mean and standard deviation
        over seeds, fractions), the barrier, and where it leaves what was seen."""
        keys = [f"accuracy_{_letter(i)}" for i in self.ends.scored]
        ways = {}
        for way, leg in self.legs.items():
            named = {key: _mean_std(leg.accuracy[i]) for i, key in enumerate(keys)}
            bars = [_letter(i) for i in self.ends.scored] + ["average"]
            ways[way] = {
                **named,
                "barrier": {name: _mean_std(leg.barrier[i][:, None], True) for i, name in enumerate(bars)},
                "condition_distance": None if leg.distance is None else _round(leg.distance),
                "outside": None if leg.outside is None else leg.outside.tolist(),
            }
        return {
            "ends": {_letter(i): end.name for i, end in enumerate(self.ends.members)},
            "images": {_letter(i): len(self.ends.members[i].labels) for i in self.ends.scored},
            "classes": list(self.ends.classes),
            "bundle": self.bundle,
            "encoder": self.ends.encoder,
            **self.settings,
            "alpha": _round(self.alpha),
            "ways": ways,
            "seen_radius": None if self.radius is None else round(self.radius, 6),
            "not_gone": self.missing,
            "notes": list(self.ends.notes),
            "seconds": round(self.seconds, 3),
        }

    def sentences(self) -> list[str]:
        """The walk in plain words, the answer first."""
        halfway = int((self.alpha - 0.5).abs().argmin())

        def right(way: str) -> list[float]:
            return self.legs[way].accuracy[..., halfway].mean(1).tolist()

        best = max(self.legs, key=lambda way: sum(right(way)))
        ahead = (sum(right(best)) - sum(right(BASELINE))) / len(self.scored)
        images = sum(len(self.ends.members[i].labels) for i in self.ends.scored)
        shown = best if ahead >= 0.005 else BASELINE
        where = " and ".join(f"{r:.1%} of {name}" for r, name in zip(right(shown), self.scored, strict=True))
        rival = " and ".join(f"{r:.1%}" for r in right(BASELINE))
        if shown == BASELINE:
            said = [f"Halfway, the average of the two ends' weights is right on {where}."]
            others = len(self.legs) > 1
            said += ["No other way does better there by half a point."] if others else []
        else:
            said = [f"Halfway, mixing the {WAYS[best]}, is right on {where}."]
            said.append(f"Averaging the two ends' weights gives {rival}.")
        said.append(f"Measured on {images} images that generation never saw.")
        deep = {way: float(leg.barrier[-1].mean()) for way, leg in self.legs.items()}
        worst = max(deep, key=deep.get)
        if deep[worst] < 0.005:
            said.append("No way drops more than half a point under the straight line between its ends.")
        else:
            said.append(
                f"The deepest barrier is {100 * deep[worst]:.1f} points ({WAYS[worst]}); averaging weights has "
                f"{100 * deep[BASELINE]:.1f}."
            )
        out = {way: leg.outside for way, leg in self.legs.items() if leg.outside is not None and leg.outside.any()}
        if out:
            leg = max(out.values(), key=lambda o: int(o.sum()))
            said.append(f"{int(leg.sum())} of {len(leg)} conditions lie outside of what the bundle was trained on.")
        return said

    def save(self, folder: str | Path) -> Path:
        """Write ``path.json`` and ``heads/WAY-ALPHA.safetensors``, the head of the first seed at every point."""
        folder = Path(folder)
        (folder / "heads").mkdir(parents=True, exist_ok=True)
        (folder / "path.json").write_text(json.dumps(self.report(), indent=1, ensure_ascii=False), encoding="utf-8")
        for way in self.legs:
            for point, alpha in enumerate(self.alpha.tolist()):
                self.head(way, point).save(folder / "heads" / f"{way}-{alpha:.3f}.safetensors")
        return folder


def walk(
    sources: Sequence[ImageSet | Head],
    *,
    ways: Sequence[str] | None = None,
    bundle: str | Path | None = None,
    points: int = 21,
    seeds: int = 3,
    shots: int = 5,
    num_samples: int = 16,
    seed: int = 0,
    steps: int | None = None,
    max_query: int | None = 200,
    device: str | None = None,
    progress: Progress = silent,
) -> Walk:
    """Walk from the first source to the second, and score every point on the query images of all of them.

    Args:
        sources: data sets with the same classes, and saved heads; more than two can be mixed by ``Walk.mixer``.
        ways: of `WAYS`; by default all that can be gone. The straight line between weights is always there.
        bundle: name or path; by default the shipped one in which every way can be gone.
        points: of the path, both ends among them.
        seeds: paths, each from a noise of its own.
        shots: support images a class.
        num_samples: heads that are sampled and averaged at each point.
        seed: of the splits; the noise is numbered from it.
        steps: denoising steps.
        max_query: most held-out images of each data set to score on.
        progress: stages "Opening the bundle", "Reading images of ...", "Making the ends", "Sampling along the path",
            "Scoring".
    Raises:
        UserError: fewer than two sources or points, a way that cannot be gone, or what `read_ends` refuses.
    """
    started = time.perf_counter()
    if len(sources) < 2 or points < 2 or seeds < 1 or num_samples < 1:
        raise UserError("A path needs two ends, at least two points, one seed and one head a point.")
    unknown = [way for way in ways or () if way not in WAYS]
    if unknown:
        raise UserError(f"Way {unknown[0]!r} is not known: choose one of {', '.join(WAYS)}.")
    progress("Opening the bundle", 0, 1)
    path = resolve_bundle(bundle or DEFAULT_BUNDLE)
    pipe = load_pipeline(path, device)
    space = pipe.weight_space
    encoder = load_encoder(space.config.encoder, device)
    progress("Opening the bundle", 1, 1)
    most = None if pipe.is_dual else space.max_classes
    split = dict(shots=shots, seed=seed, max_query=max_query)
    ends = read_ends(sources, encoder, tasks=pipe.tasks, max_classes=most, progress=progress, **split)
    numbers = [seed + i for i in range(seeds)]
    mixer = Mixer(pipe, ends, seeds=numbers, num_samples=num_samples, steps=steps, progress=progress)
    for way in ways or ():
        mixer.check(way)
    missing = {way: why for way, why in mixer.ways().items() if why}
    gone = [way for way in WAYS if way not in missing and (ways is None or way in ways or way == BASELINE)]
    alpha = torch.linspace(0, 1, points)
    known = space.zoo_conditions
    made = Walk(
        ends,
        alpha,
        {},
        mixer,
        path.name,
        dict(shots=shots, seeds=numbers, num_samples=num_samples, denoising_steps=mixer.steps),
        radius=None if known is None else space.seen_radius(),
        missing=missing if ways is None else {},
    )
    for number, way in enumerate(gone):

        def report(stage: str, done: int, total: int, number=number) -> None:
            progress(stage, number * total + done, len(gone) * total)

        made.legs[way] = _leg(made, way, report)
    made.seconds = time.perf_counter() - started
    return made


def _leg(made: Walk, way: str, progress: Progress) -> Leg:
    mixer, mix = made.mixer, _mix(made.alpha, len(made.ends.members))
    state = mixer.heads(way, mix, progress)
    accuracy = mixer.score(state)
    both = torch.cat([accuracy, accuracy[:2].mean(0, keepdim=True)])
    leg = Leg(state, accuracy, barrier(both, made.alpha))
    condition = mixer.condition(way, mix)
    if condition is not None:
        leg.condition = condition.dataset.cpu()
        if made.radius is not None:
            leg.distance = mixer.pipe.weight_space.condition_distance(condition.dataset).cpu()
            leg.outside = leg.distance > made.radius
    return leg


def barrier(accuracy: Tensor, alpha: Tensor) -> Tensor:
    """The worst drop of accuracies (..., P) at ``alpha`` (P,) under the straight line between their ends, (...);
    0 where there is none."""
    line = (1 - alpha) * accuracy[..., :1] + alpha * accuracy[..., -1:]
    return (line - accuracy).amax(-1).clamp_min(0)


def probabilities(state: State, features: Tensor) -> Tensor:
    """What heads (..., C) say about features (n, D): (..., n, C)."""
    return logits(state, features).softmax(-1)


def _mix(alpha: Tensor, ends: int) -> Tensor:
    """(P,) to weights (P, E) of the ends: all of it on the first two. Both entries are exact at 0 and 1."""
    rest = torch.zeros(len(alpha), ends - 2)
    return torch.cat([1 - alpha[:, None], alpha[:, None], rest], 1)


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number]


def _round(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _mean_std(values: Tensor, single: bool = False) -> dict:
    """Mean and standard deviation over seeds of (S, P)."""
    mean, std = _round(values.mean(0)), _round(values.std(0, correction=0))
    return {"mean": mean[0], "std": std[0]} if single else {"mean": mean, "std": std}
