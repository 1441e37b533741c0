"""What an interpolation gives: heads and their accuracies along paths, as numbers, sentences and files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.heads import Head
from d2nwg.interpolation.endpoints import Endpoints
from d2nwg.interpolation.methods import BASELINE, LABELS
from d2nwg.interpolation.mixer import Mixer
from d2nwg.interpolation.networks import NetworkMixer
from d2nwg.utils.errors import UserError
from d2nwg.weights.network_files import NetworkFile
from d2nwg.weights.networks import State, pick


@dataclass
class Paths:
    """The paths of one method from A to B: S of them, one for each seed, of P points.

    Attributes:
        state: heads (S, P, ...) on the encoder's features.
        accuracy: (E', S, P) on the query images of the E' endpoints that have some.
        barrier: (E' + 1, S), see `barrier`: of the accuracy on the images of each endpoint, and (last) of the mean
            over the first two of them.
        condition: (P, z) data-set embeddings z_D of the interpolated conditions; None for a method that interpolates
            something else.
        distance: (P,) Euclidean distance of these to the nearest z_D of the zoo; None where the bundle keeps none.
        outside: (P,) bool, whether that is more than `Interpolation.radius`; None likewise.
    """

    state: State
    accuracy: Tensor
    barrier: Tensor
    condition: Tensor | None = None
    distance: Tensor | None = None
    outside: Tensor | None = None


@dataclass
class Interpolation:
    """Everything measured between the first two endpoints, A and B.

    Attributes:
        endpoints: A, B, and any others, which heads are scored on too.
        alpha: (P,) shares of B, from 0 to 1.
        paths: method to `Paths`; the linear path between weights is always among them.
        mixer: makes heads for any mix of the endpoints.
        bundle: its name.
        settings: shots, seeds, num_samples, denoising_steps.
        radius: the 95th percentile of the distance from a task of the zoo to the nearest other one, in z_D; None where
            the bundle keeps none.
        missing: method to a sentence why it was not used.
        seconds: wall time.
    """

    endpoints: Endpoints
    alpha: Tensor
    paths: dict[str, Paths]
    mixer: Mixer | NetworkMixer
    bundle: str
    settings: dict
    radius: float | None = None
    missing: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def scored(self) -> list[str]:
        """Names of the endpoints that have images to score on."""
        return [self.endpoints.members[i].name for i in self.endpoints.scored]

    def mix(self, point: int) -> Tensor:
        """The weights (E,) of the endpoints at a point of the path."""
        return path_mix(self.alpha[point : point + 1], len(self.endpoints.members))[0]

    def state(self, method: str, point: int, seed: int = 0) -> State:
        """The weights of the head at a point, on the path number ``seed``."""
        return pick(pick(self.paths[method].state, seed), point)

    def head(self, method: str, point: int, seed: int = 0) -> Head | NetworkFile:
        """The same as a `Head` or `NetworkFile`. Its accuracies on the query images are in ``info``."""
        accuracy = self.paths[method].accuracy[:, seed, point].tolist()
        scores = dict(zip(self.scored, accuracy, strict=True))
        return self.as_head(self.state(method, point, seed), method, self.mix(point), scores, seed)

    def mixed(self, shares: Sequence[float], method: str) -> tuple[Head | NetworkFile, dict[str, float]]:
        """Make a head for any shares of the endpoints, and score it.

        Args:
            shares: E of them, at least 0, one more than 0; they need not sum to 1.
            method: of `METHODS`.
        Returns:
            The head, and its accuracy on the query images of each endpoint, by name.
        Raises:
            UserError: other shares, or a method that cannot be used.
        """
        mix = torch.tensor([float(share) for share in shares], dtype=torch.float64)
        if (
            len(mix) != len(self.endpoints.members)
            or not mix.isfinite().all()
            or mix.min() < 0
            or not 0 < mix.sum() < 1e300
        ):
            raise UserError("Give a share of at least 0 for every endpoint, and more than 0 for one of them.")
        mix = (mix / mix.sum()).float()
        states = self.mixer.heads(method, mix[None])
        scores = dict(zip(self.scored, self.mixer.score(states)[:, 0, 0].tolist(), strict=True))
        return self.as_head(pick(pick(states, 0), 0), method, mix, scores), scores

    def as_head(
        self, state: State, method: str, mix: Tensor, scores: dict[str, float], seed: int = 0
    ) -> Head | NetworkFile:
        """An interpolated head as a `Head`, a network as a `NetworkFile`; ``info`` says from which endpoints, by which
        method, and its accuracies."""
        names = [endpoint.name for endpoint in self.endpoints.members]
        info = {
            "bundle": self.bundle,
            "data": " + ".join(f"{share:.0%} {name}" for share, name in zip(mix.tolist(), names, strict=True) if share),
            "selection": f"interpolated: {LABELS[method]}",
            "way": method,
            "mix": dict(zip(names, (round(share, 6) for share in mix.tolist()), strict=True)),
            "seed": self.settings["seeds"][seed],
            "query_accuracy": {name: round(value, 6) for name, value in scores.items()},
        }
        return self.mixer.file(state, info)

    def in_weights(self) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The paths among the zoo's heads, in the standardised weight space that Explore shows.

        Returns:
            Vectors (Z, N) of the zoo's heads with as many classes, or of the trunks of its networks, and method →
            vectors (P, N) of the first seed. None where the bundle keeps fewer than three of them.
        """
        return self.mixer.in_weights({method: pick(paths.state, 0) for method, paths in self.paths.items()})

    def report(self) -> dict:
        """The content of ``path.json``.

        Accuracies and barriers are fractions, as mean and standard deviation over seeds; ``ends`` are the endpoints,
        ``ways`` the methods, ``not_gone`` those that could not be used.
        """
        members, letters = self.endpoints.members, [_letter(i) for i in self.endpoints.scored]
        methods = {}
        for method, paths in self.paths.items():
            barriers = zip([*letters, "average"], paths.barrier, strict=True)
            methods[method] = {
                **{f"accuracy_{a}": _mean_std(values) for a, values in zip(letters, paths.accuracy, strict=True)},
                "barrier": {name: _mean_std(values[:, None], True) for name, values in barriers},
                "condition_distance": None if paths.distance is None else _round(paths.distance),
                "outside": None if paths.outside is None else paths.outside.tolist(),
            }
        return {
            "ends": {_letter(i): endpoint.name for i, endpoint in enumerate(members)},
            "images": {_letter(i): len(members[i].labels) for i in self.endpoints.scored},
            "classes": list(self.endpoints.classes),
            "bundle": self.bundle,
            "encoder": self.endpoints.encoder,
            **self.settings,
            "alpha": _round(self.alpha),
            "ways": methods,
            "seen_radius": None if self.radius is None else round(self.radius, 6),
            "not_gone": self.missing,
            "notes": list(self.endpoints.notes),
            "seconds": round(self.seconds, 3),
        }

    def sentences(self) -> list[str]:
        """The result in sentences, the answer first."""
        halfway = int((self.alpha - 0.5).abs().argmin())

        def accuracies(method: str) -> list[float]:
            return self.paths[method].accuracy[..., halfway].mean(1).tolist()

        best = max(self.paths, key=lambda method: sum(accuracies(method)))
        ahead = (sum(accuracies(best)) - sum(accuracies(BASELINE))) / len(self.scored)
        images = sum(len(self.endpoints.members[i].labels) for i in self.endpoints.scored)
        shown = best if ahead >= 0.005 else BASELINE
        where = " and ".join(f"{a:.1%} of {name}" for a, name in zip(accuracies(shown), self.scored, strict=True))
        if shown == BASELINE:
            said = [f"Halfway, the average of the two endpoints' weights is right on {where}."]
            others = len(self.paths) > 1
            said += ["No other method does better there by half a point."] if others else []
        else:
            baseline = " and ".join(f"{a:.1%}" for a in accuracies(BASELINE))
            said = [f"Halfway, interpolation of {LABELS[best]}, is right on {where}."]
            said.append(f"Averaging the two endpoints' weights gives {baseline}.")
        said.append(f"Measured on {images} images that generation never saw.")
        deep = {  # what `d2nwg.figures.interpolate.barrier_figure` shows on the images of each of the first two
            (method, i): float(paths.barrier[i].mean())
            for method, paths in self.paths.items()
            for i in range(min(2, len(self.scored)))
        }
        worst, where = max(deep, key=deep.__getitem__)
        if deep[worst, where] < 0.005:
            said.append("No method drops more than half a point under the line between its endpoints' accuracies.")
        else:
            said.append(
                f"The deepest barrier is {100 * deep[worst, where]:.1f} points on {self.scored[where]} "
                f"({LABELS[worst]}); averaging weights has {100 * deep[BASELINE, where]:.1f} there."
            )
        outside = [paths.outside for paths in self.paths.values() if paths.outside is not None and paths.outside.any()]
        if outside:
            most = max(outside, key=lambda flags: int(flags.sum()))
            said.append(f"{int(most.sum())} of {len(most)} conditions lie outside of what the bundle was trained on.")
        return said

    def save(self, folder: str | Path) -> Path:
        """Write ``path.json`` and ``heads/METHOD-ALPHA.safetensors``, the head of the first seed at every point; whole
        networks below ``networks/``."""
        folder, digits = Path(folder), max(3, len(str(len(self.alpha) - 1)))  # so many that all names differ
        heads = folder / f"{self.mixer.noun}s"
        heads.mkdir(parents=True, exist_ok=True)
        (folder / "path.json").write_text(json.dumps(self.report(), indent=1, ensure_ascii=False), encoding="utf-8")
        for method in self.paths:
            for point, alpha in enumerate(self.alpha.tolist()):
                self.head(method, point).save(heads / f"{method}-{alpha:.{digits}f}.safetensors")
        return folder


def path_mix(alpha: Tensor, count: int) -> Tensor:
    """Weights (P, E) of E = ``count`` endpoints, all of it on the first two. Both columns are exact at 0 and 1."""
    rest = torch.zeros(len(alpha), count - 2)
    return torch.cat([1 - alpha[:, None], alpha[:, None], rest], 1)


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number]


def _round(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _mean_std(values: Tensor, single: bool = False) -> dict:
    """Mean and standard deviation over seeds of (S, P)."""
    mean, std = _round(values.mean(0)), _round(values.std(0, correction=0))
    return {"mean": mean[0], "std": std[0]} if single else {"mean": mean, "std": std}
