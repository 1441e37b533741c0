"""Heads mixed from two ends or more, in several ways.

Where a mix is made: of the *conditions* that the generator is given (linearly, or on the sphere), of the ends' clean
*latents* (on the sphere), or of the *weights* themselves (linearly; the baseline). All ways share their ends: the
heads that the bundle samples for each data set from the same noise. Second paper: Zhang et al., arXiv 2506.17807.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from d2nwg.evaluation.baselines import accuracies
from d2nwg.generate import sample
from d2nwg.interpolation.endpoints import Ends
from d2nwg.models.unet import Condition
from d2nwg.pipelines.heads import DEFAULT_STEPS, WeightGenerationPipeline
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import State

WAYS = {
    "condition": "condition, straight",
    "condition-spherical": "condition, on the sphere",
    "latent": "latents, on the sphere",
    "weights": "weights, straight",
}
BASELINE = "weights"


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake, 1985) over the last axis.

    ``sin((1 - t) Ω) / sin Ω · a + sin(t Ω) / sin Ω · b``, Ω the angle between a and b; a straight line where they
    point the same way (or are zero). ``share`` t broadcasts against a and b without their last axis.
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
    """Mix E tensors (..., n) with weights (P, E) → (P, ..., n).

    Spherically, the second is mixed into the first, the third into that, and so on, by their shares: two are a slerp.
    """
    shape = (-1, *[1] * (points[0].dim() - 1))
    shares = [mix[:, e].reshape(shape) for e in range(mix.shape[1])]
    if not spherical:  # a weight of exactly 1 gives that point exactly
        return sum(share.unsqueeze(-1) * point for share, point in zip(shares, points, strict=True))
    mixed, total = points[0].expand(len(mix), *points[0].shape), shares[0]
    for point, share in zip(points[1:], shares[1:], strict=True):
        total = total + share
        mixed = slerp(mixed, point, torch.where(total > 0, share / total.clamp_min(1e-12), 0.0))
    return mixed


class Mixer:
    """Makes heads from mixes of ends, in one bundle.

    Args:
        pipe: any bundle can mix weights; the other ways need one with a VAE and a data-set encoder.
        ends: E of them.
        seeds: of the noise, S of them: each gives a path of its own.
        num_samples: heads that are sampled and averaged at each point.
        steps: denoising steps.
        progress: stage "Making the ends".
    """

    def __init__(
        self,
        pipe: WeightGenerationPipeline,
        ends: Ends,
        *,
        seeds: Sequence[int] = (0, 1, 2),
        num_samples: int = 16,
        steps: int | None = None,
        progress: Progress = silent,
    ):
        self.pipe, self.ends, self.seeds = pipe, ends, tuple(seeds)
        self.num_samples, self.steps = num_samples, steps or DEFAULT_STEPS
        self.device = pipe.weight_space.mean.device
        self.has_latents = pipe.vae is not None and pipe.condition_encoder is not None
        self.count = len(ends.classes)
        supports = [pipe._check(end.support) if end.support else None for end in ends.members]
        with torch.inference_mode():
            if self.has_latents:
                self._lay_out(supports)
            self.states = []  # an end each, heads (S, …)
            for number, (end, support) in enumerate(zip(ends.members, supports, strict=True)):
                progress("Making the ends", number, len(supports))
                self.states.append(self._end_state(number, end, support))
            progress("Making the ends", len(supports), len(supports))

    def ways(self) -> dict[str, str]:
        """Every way → why it cannot be gone here; an empty text where it can."""
        return {way: self._why_not(way) for way in WAYS}

    def check(self, way: str) -> None:
        """Raises UserError when the way is not known, or cannot be gone between these ends in this bundle."""
        if way not in WAYS:
            raise UserError(f"Way {way!r} is not known: choose one of {', '.join(WAYS)}.")
        if why := self._why_not(way):
            raise UserError(why)

    def _why_not(self, way: str) -> str:
        if way == BASELINE:
            return ""
        if not self.has_latents:
            return (
                f"The way {way} needs a bundle with a data-set encoder and a VAE, such as heads-efficientnet-lite0; "
                "this one generates coefficients on the support images, and can only mix weights."
            )
        heads = [end.name for end in self.ends.members if end.head is not None]
        if heads and way != "latent":
            return f"The way {way} needs a task at every end, and {heads[0]} is a head: use latent or weights."
        return ""

    @torch.inference_mode()
    def heads(self, way: str, mix: Tensor, progress: Progress = silent) -> State:
        """Heads (S, P, …) on the encoder's features, on the CPU, for mixes (P, E) of the ends.

        ``mix`` holds a weight an end; rows sum to 1. ``progress``: the stage "Sampling along the path", seed by seed.
        """
        self.check(way)
        mix = mix.to(self.device, torch.float32)
        if way == BASELINE:
            mixed = {}
            for name in self.states[0]:  # (S, …) of each end → (P, S, …)
                blended = blend([state[name].flatten(1) for state in self.states], mix.cpu())
                mixed[name] = blended.reshape(len(mix), *self.states[0][name].shape).transpose(0, 1)
            return mixed
        made = []
        for number in range(len(self.seeds)):
            progress("Sampling along the path", number, len(self.seeds))
            made.append(self._decode(self._latents(way, mix, number), len(mix)))
        progress("Sampling along the path", len(self.seeds), len(self.seeds))
        return {name: torch.stack([state[name] for state in made]) for name in made[0]}

    def score(self, state: State) -> Tensor:
        """Accuracy of heads (S, P, …) on the query images of each end that has some: (E', S, P)."""
        flat = {name: tensor.flatten(0, 1) for name, tensor in state.items()}
        shape = next(iter(state.values())).shape[:2]
        members = self.ends.members
        scores = [accuracies(flat, members[i].query, members[i].labels) for i in self.ends.scored]
        return torch.stack(scores).reshape(-1, *shape)

    @torch.inference_mode()
    def condition(self, way: str, mix: Tensor) -> Condition | None:
        """The mixed condition (batch of P); None on a way that mixes something else."""
        if not way.startswith("condition") or self._why_not(way):
            return None
        return self._mixed_condition(way, mix.to(self.device, torch.float32))

    # ------------------------------------------------------------------------------------------------ inside

    def _lay_out(self, supports: list[list[Tensor] | None]) -> None:
        """One class order for all ends, their conditions, and the noise, the same for every end and point."""
        space, told = self.pipe.weight_space, [end.task for end in self.ends.members]
        if any(told):
            known = [self.pipe.told_condition(*task) if task else (None, None) for task in told]
            self.conditions = [condition for condition, _ in known]
            self.order = next(order for _, order in known if order is not None)
        else:
            means = [torch.stack([space.project(images).mean(0) for images in s]) for s in supports if s]
            self.order = space.canonical_order(torch.stack(means).mean(0))
            self.conditions = [self.pipe._condition(s, self.order)[0] if s else None for s in supports]
        shape = (self.num_samples, *self.pipe.vae.latent_shape)
        self.noise = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device) for seed in self.seeds
        ]
        self.clean: dict[int, Tensor] = {}  # end → latents (S, K, c, h, w)

    def _end_state(self, number: int, end, support) -> State:
        """The heads of an end, (S, …), on the CPU."""
        if not self.has_latents:
            if end.head is not None:
                return _repeated(end.head, len(self.seeds))
            made = []
            for seed in self.seeds:
                generator = torch.Generator().manual_seed(seed)
                made.append(sample(self.pipe, support, self.num_samples, generator, self.steps).state)
            return {name: torch.stack([s[name].mean(0).cpu() for s in made]) for name in made[0]}
        if end.head is not None:
            self.clean[number] = self._encode(end.head).expand(len(self.seeds), self.num_samples, -1, -1, -1)
            return _repeated(end.head, len(self.seeds))
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
        return self.pipe._denoise(predict, noise, again, self.steps, silent, self.pipe.padding(self.count))

    def _latents(self, way: str, mix: Tensor, seed: int) -> Tensor:
        """Scaled latents (P · K, c, h, w) along the path."""
        if way == "latent":
            clean, rows = [self.clean[e][seed] for e in range(mix.shape[1])], self._used_rows()
            full = blend([latents.flatten(1) for latents in clean], mix)
            full = full.reshape(-1, *self.pipe.vae.latent_shape)
            # Rows of slots without a class are noise that decodes to nothing: they must not turn the angle.
            mixed = blend([latents[:, :, :rows].flatten(1) for latents in clean], mix, spherical=True)
            full[:, :, :rows] = mixed.reshape(len(full), *clean[0][:, :, :rows].shape[1:])
            return full
        condition = self._mixed_condition(way, mix)
        each = Condition(*(getattr(condition, name).repeat_interleave(self.num_samples, 0) for name in _FIELDS))
        return self._denoise(each, self.noise[seed].repeat(len(mix), 1, 1, 1))

    def _mixed_condition(self, way: str, mix: Tensor) -> Condition:
        spherical = way == "condition-spherical"
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
        """A head's own latent (c, h, w), scaled: what of it lies in the space that the bundle's zoo was learnt in."""
        space = self.pipe.weight_space
        shapes = space.layout.shapes
        if set(head) != set(shapes) or ("0.bias" in head and tuple(head["0.bias"].shape) != tuple(shapes["0.bias"])):
            raise UserError("The saved head has other layers than those of this bundle: its latent is not to be had.")
        vectors = space.to_vectors({name: t[None].to(self.device) for name, t in head.items()}, self.order)
        return self.pipe.vae.encode(vectors).mean[0] * self.pipe.vae.config.latent_scale


_FIELDS = ("dataset", "slots", "used")


def _repeated(head: State, count: int) -> State:
    return {name: tensor[None].expand(count, *tensor.shape) for name, tensor in head.items()}
