"""Heads interpolated between two endpoints or more, by several methods.

A method mixes either the *conditions* that the generator is given (linearly or spherically), or the clean *latents* of
the endpoints (spherically), or the *weights* themselves (linearly; the baseline). All methods share their endpoints:
the heads that the bundle samples for each data set from the same noise. Source: Zhang et al., arXiv 2506.17807.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from d2nwg.conditions.base import Condition, Task
from d2nwg.evaluation.accuracy import accuracies
from d2nwg.heads import Head
from d2nwg.interpolation.endpoints import Endpoint, Endpoints
from d2nwg.interpolation.methods import BASELINE, CONDITION, CONDITION_SPHERICAL, LATENT, METHODS
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.heads import LatentHeadPipeline, WeightGenerationPipeline
from d2nwg.pipelines.sampling import sample_heads
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import State, logits


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Spherical linear interpolation (Shoemake, 1985) along the last axis.

    ``sin((1 - t) Ω) / sin Ω · a + sin(t Ω) / sin Ω · b``, Ω being the angle between a and b. It is linear where they
    are parallel or one of them is zero.

    Args:
        a, b: (..., n).
        share: t, from 0 (a) to 1 (b); broadcasts against a and b without their last axis.
    Returns:
        (..., n).
    """
    unit = torch.nn.functional.normalize
    # The angle from half the chord and half the sum: exact for small angles too, where acos is not.
    ua, ub = unit(a, dim=-1), unit(b, dim=-1)
    angle = 2 * torch.atan2((ua - ub).norm(dim=-1), (ua + ub).norm(dim=-1))
    t, sine = share, angle.sin()
    plain = (sine.abs() < 1e-4) | (ua.norm(dim=-1) * ub.norm(dim=-1) < 0.5)
    safe = torch.where(plain, 1.0, sine)
    first = torch.where(plain, 1 - t, ((1 - t) * angle).sin() / safe)
    second = torch.where(plain, t, (t * angle).sin() / safe)
    return first.unsqueeze(-1) * a + second.unsqueeze(-1) * b


def blend(points: Sequence[Tensor], mix: Tensor, spherical: bool = False) -> Tensor:
    """Weighted means of E tensors.

    Args:
        points: E tensors (..., n).
        mix: (P, E) weights; rows sum to 1.
        spherical: by `slerp` instead of linearly. More than two are mixed one after the other: the second into the
            first, the third into the result, and so on, each by its share of the weights until then.
    Returns:
        (P, ..., n).
    """
    shape = (-1, *[1] * (points[0].dim() - 1))
    shares = [mix[:, e].reshape(shape) for e in range(mix.shape[1])]
    if not spherical:  # a weight of exactly 1 gives that point exactly
        parts = (share.unsqueeze(-1) * point for share, point in zip(shares, points, strict=True))
        return sum(parts, points[0].new_zeros(()))
    mixed, total = points[0].expand(len(mix), *points[0].shape), shares[0]
    for point, share in zip(points[1:], shares[1:], strict=True):
        total = total + share
        mixed = slerp(mixed, point, torch.where(total > 0, share / total.clamp_min(1e-12), 0.0))
    return mixed


def mixed_weights(states: Sequence[State], mix: Tensor) -> State:
    """Weights (S, …) of each of E endpoints, mixed linearly by ``mix`` (P, E) → (S, P, …)."""
    mixed = {}
    for name in states[0]:
        blended = blend([state[name].flatten(1) for state in states], mix)
        mixed[name] = blended.reshape(len(mix), *states[0][name].shape).transpose(0, 1)
    return mixed


class Methods:
    """Which methods a mixer has, as its `_why_not` says."""

    def methods(self) -> dict[str, str]:
        """Every method, with the reason why it cannot be used here; an empty text where it can."""
        return {method: self._why_not(method) for method in METHODS}

    def check(self, method: str) -> None:
        """Raises UserError when the method is not known, or cannot be used between these endpoints in this bundle."""
        if method not in METHODS:
            raise UserError(f"Method {method!r} is not known: choose one of {', '.join(METHODS)}.")
        if why := self._why_not(method):
            raise UserError(why)

    def _why_not(self, method: str) -> str:
        raise NotImplementedError


class Mixer(Methods):
    """Interpolates heads between endpoints, in one bundle.

    Args:
        pipe: the bundle's pipeline. Any bundle can interpolate weights; the other methods need one with a VAE and a
            data-set encoder.
        endpoints: E of them.
        seeds: of the noise, S of them: each gives a path of its own.
        num_samples: K, heads that are sampled and averaged at each point.
        steps: denoising steps (`DEFAULT_STEPS`).
        progress: stage "Making the endpoints".
    """

    noun = "head"  # what it makes

    def __init__(
        self,
        pipe: WeightGenerationPipeline,
        endpoints: Endpoints,
        *,
        seeds: Sequence[int] = (0, 1, 2),
        num_samples: int = 16,
        steps: int | None = None,
        progress: Progress = silent,
    ):
        self.pipe, self.endpoints, self.seeds = pipe, endpoints, tuple(seeds)
        self.num_samples, self.steps = num_samples, steps or DEFAULT_STEPS
        self.device = pipe.weight_space.mean.device
        self.has_latents = isinstance(pipe, LatentHeadPipeline)
        self.count = len(endpoints.classes)
        supports = [pipe._check(e.support) if e.support else None for e in endpoints.members]
        with torch.inference_mode():
            if self.has_latents:
                self._lay_out(supports)
            self.states = []  # for each endpoint, heads (S, …)
            for number, (endpoint, support) in enumerate(zip(endpoints.members, supports, strict=True)):
                progress("Making the endpoints", number, len(supports))
                self.states.append(self._endpoint_state(number, endpoint, support))
            progress("Making the endpoints", len(supports), len(supports))

    def _why_not(self, method: str) -> str:
        if method == BASELINE:
            return ""
        if not self.has_latents:
            return (
                f"The method {method} needs a bundle with a data-set encoder and a VAE, such as "
                "heads-efficientnet-lite0; this one generates coefficients on the support images, and can only "
                "interpolate weights."
            )
        heads = [endpoint.name for endpoint in self.endpoints.members if endpoint.head is not None]
        if heads and method != LATENT:
            return (
                f"The method {method} needs a task at each endpoint, and {heads[0]} is a head: use latent or weights."
            )
        return ""

    @torch.inference_mode()
    def heads(self, method: str, mix: Tensor, progress: Progress = silent) -> State:
        """Interpolated heads, on the encoder's features.

        Args:
            method: of `METHODS`.
            mix: (P, E), for each point the weights of the endpoints; rows sum to 1.
            progress: stage "Sampling along the path", counted in seeds.
        Returns:
            Heads (S, P, ...), on the CPU.
        Raises:
            UserError: as `check`, or a saved head that the bundle cannot encode.
        """
        self.check(method)
        mix = mix.to(self.device, torch.float32)
        if method == BASELINE:
            return mixed_weights(self.states, mix.cpu())
        made = []
        for number in range(len(self.seeds)):
            progress("Sampling along the path", number, len(self.seeds))
            made.append(self._decode(self._latents(method, mix, number), len(mix)))
        progress("Sampling along the path", len(self.seeds), len(self.seeds))
        return {name: torch.stack([state[name] for state in made]) for name in made[0]}

    def score(self, state: State) -> Tensor:
        """Accuracies (E', S, P) of heads (S, P, ...) on the query images of the E' endpoints that have some."""
        flat = {name: tensor.flatten(0, 1) for name, tensor in state.items()}
        shape = next(iter(state.values())).shape[:2]
        members = self.endpoints.members
        scores = [accuracies(flat, members[i].query, members[i].labels) for i in self.endpoints.scored]
        return torch.stack(scores).reshape(-1, *shape)

    @torch.inference_mode()
    def condition(self, method: str, mix: Tensor) -> Condition | None:
        """The interpolated condition, a batch of P for ``mix`` (P, E); None for a method that mixes something else."""
        if method not in (CONDITION, CONDITION_SPHERICAL) or self._why_not(method):
            return None
        return self._mixed_condition(method, mix.to(self.device, torch.float32))

    @property
    def zoo_conditions(self) -> Tensor | None:
        """z_D of the zoo's tasks (Z, z), where the bundle keeps them."""
        return self.pipe.weight_space.zoo_conditions

    def probabilities(self, state: State, query: Tensor) -> Tensor:
        """Class probabilities (n, C) of a head for features (n, D)."""
        return logits(state, query).softmax(-1)

    def file(self, state: State, info: dict) -> Head:
        """A head as it is saved."""
        made = Head(state, self.endpoints.encoder, self.endpoints.classes, self.endpoints.preprocessing, info)
        made.keep_scale(self.endpoints.scale)
        return made

    def in_weights(self, states: dict[str, State]) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Heads (P, …) of each method among the zoo's, as `Interpolation.in_weights` gives them."""
        space, order = self.pipe.weight_space, getattr(self, "order", None)
        zoo = space.zoo_vectors[space.zoo_counts == self.count]
        if order is None or len(zoo) < 3:
            return None
        mask, vectors = space.layout.mask(torch.tensor([self.count])).to(zoo), {}
        for method, state in states.items():
            here = {name: tensor.to(self.device) for name, tensor in state.items()}
            vectors[method] = (space.to_vectors(here, order) * mask).cpu()
        return (zoo * mask).cpu(), vectors

    def _lay_out(self, supports: list[list[Tensor] | None]) -> None:
        """One class order for all endpoints, their conditions, and the noise, the same for every endpoint and point."""
        space, tasks = self.pipe.weight_space, [endpoint.task for endpoint in self.endpoints.members]
        if any(tasks):
            known = [self.pipe.condition(Task(ids=task[0], shares=task[1])) if task else (None, None) for task in tasks]
            self.conditions = [condition for condition, _ in known]
            self.order = next(order for _, order in known if order is not None)
        else:
            means = [torch.stack([space.project(images).mean(0) for images in s]) for s in supports if s]
            self.order = space.canonical_order(torch.stack(means).mean(0))
            self.conditions = [self.pipe.condition(Task(support=s), self.order)[0] if s else None for s in supports]
        shape = (self.num_samples, *self.pipe.vae.latent_shape)
        self.noise = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device) for seed in self.seeds
        ]
        self.clean: dict[int, Tensor] = {}  # endpoint → latents (S, K, c, h, w)

    def _endpoint_state(self, number: int, endpoint: Endpoint, support: list[Tensor] | None) -> State:
        """The heads of an endpoint, (S, ...), on the CPU."""
        if not self.has_latents:
            if endpoint.head is not None:
                return _repeated(endpoint.head, len(self.seeds))
            made = []
            for seed in self.seeds:
                generator = torch.Generator().manual_seed(seed)
                run = {"names": self.endpoints.classes, "encoder": self.endpoints.encoder}
                made.append(sample_heads(self.pipe, support, self.num_samples, generator, self.steps, **run).state)
            return {name: torch.stack([s[name].mean(0).cpu() for s in made]) for name in made[0]}
        if endpoint.head is not None:
            self.clean[number] = self._encode(endpoint.head).expand(len(self.seeds), self.num_samples, -1, -1, -1)
            return _repeated(endpoint.head, len(self.seeds))
        condition = self.conditions[number]
        self.clean[number] = torch.stack([self._denoise(condition, noise) for noise in self.noise])
        made = [self._decode(latents, 1) for latents in self.clean[number]]
        return {name: torch.cat([state[name] for state in made]) for name in made[0]}

    def _denoise(self, condition: Condition, noise: Tensor) -> Tensor:
        beside, denoiser = self.pipe.denoiser.lay_out(condition), self.pipe.denoiser

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            return denoiser.denoise(latents, time, beside)

        # A scheduler that draws noise at each step draws the same for every endpoint and point.
        again = torch.Generator().manual_seed(0)
        return self.pipe._denoise(predict, noise, (self.steps, again, silent), self.pipe.padding(self.count))

    def _latents(self, method: str, mix: Tensor, seed: int) -> Tensor:
        """Scaled latents (P · K, c, h, w) along the path."""
        if method == LATENT:
            clean, rows = [self.clean[e][seed] for e in range(mix.shape[1])], self._used_rows()
            full = blend([latents.flatten(1) for latents in clean], mix)
            full = full.reshape(-1, *self.pipe.vae.latent_shape)
            # Rows of slots without a class are noise that is not decoded: they must not change the angle.
            mixed = blend([latents[:, :, :rows].flatten(1) for latents in clean], mix, spherical=True)
            full[:, :, :rows] = mixed.reshape(len(full), *clean[0][:, :, :rows].shape[1:])
            return full
        condition = self._mixed_condition(method, mix)
        each = Condition(*(getattr(condition, name).repeat_interleave(self.num_samples, 0) for name in _FIELDS))
        return self._denoise(each, self.noise[seed].repeat(len(mix), 1, 1, 1))

    def _mixed_condition(self, method: str, mix: Tensor) -> Condition:
        spherical = method == CONDITION_SPHERICAL
        dataset, slots = (blend([getattr(c, name)[0] for c in self.conditions], mix, spherical) for name in _FIELDS[:2])
        return Condition(dataset, slots, self.conditions[0].used.expand(len(mix), -1))

    def _used_rows(self) -> int:
        layout: WholeLayout = self.pipe.weight_space.layout
        rows = self.pipe.vae.latent_shape[1]
        return rows if layout.tokens == 1 else -(-rows * self.count // layout.num_classes)

    def _decode(self, latents: Tensor, points: int) -> State:
        """Scaled latents (P · K, …) → averages of K heads, (P, …), on the CPU."""
        vectors = self.pipe.vae.decode(latents / self.pipe.vae.config.latent_scale)
        state = self.pipe.weight_space.to_heads(vectors, self.order)
        return {name: t.unflatten(0, (points, -1)).mean(1).cpu() for name, t in state.items()}

    def _encode(self, head: State) -> Tensor:
        """The scaled latent (c, h, w) of a saved head: the mean of the VAE's posterior, which keeps only what the
        bundle has learnt to encode."""
        space = self.pipe.weight_space
        shapes = space.layout.shapes
        if set(head) != set(shapes) or ("0.bias" in head and tuple(head["0.bias"].shape) != tuple(shapes["0.bias"])):
            raise UserError("The saved head has other layers than the heads of this bundle, which cannot encode it.")
        vectors = space.to_vectors({name: t[None].to(self.device) for name, t in head.items()}, self.order)
        return self.pipe.vae.encode(vectors).mean[0] * self.pipe.vae.config.latent_scale


_FIELDS = ("dataset", "slots", "used")


def _repeated(head: State, count: int) -> State:
    return {name: tensor[None].expand(count, *tensor.shape) for name, tensor in head.items()}
