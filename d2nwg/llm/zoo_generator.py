"""A distribution over the layers of fine-tunes of one language model: whitened coordinates of each layer's change, and
diffusion over them conditioned on the layer's index alone.

The changes of a layer (ΔW of all its adapted matrices) in M checkpoints span at most M − 1 dimensions about their mean.
Their principal directions are combinations of the checkpoints, which come from the Gram matrix of the changes, so that
no ΔW is ever written out to find them. A sample is the mean plus such a combination, of rank M r at most.

What M points can teach is their mean and covariance: whitened, they are the corners of a regular simplex, which has no
shape beyond that (a long training only learns to repeat the corners), and neither how layers depend on one another nor
what lies outside the checkpoints' span is learnt.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from d2nwg.llm.architectures import Part, Unit
from d2nwg.llm.generator import NOISE, white_samples
from d2nwg.llm.lora import factors
from d2nwg.llm.models import LanguageModel
from d2nwg.llm.presets import RefineConfig
from d2nwg.training.loop import MetricsLog, Run, run_stage, step_rng
from d2nwg.utils.devices import loading
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.model_zoo import ModelZoo

WIDTH = 128  # of the denoiser
BATCH = 64  # points a training step
STEPS = 20  # denoising steps
ALIKE = 1e-10  # of the changes' squared norm: what differs less does not differ
BLOCK = re.compile(r"(.*?\.(\d+))\.")  # path of a block, and its index


class ZooChanges:
    """What each of the M checkpoints of a zoo adds to a language model's matrices, as factors.

    Attributes:
        left, right: tensor name → (M, rows, r) and (M, r, columns); their product is ΔW of each checkpoint.
        units: the adapted matrices of each block, from the bottom to the top; what lies outside the blocks comes last.
    """

    def __init__(self, zoo: ModelZoo, model: LanguageModel, scale: float):
        """Raises UserError for a zoo of fewer than two checkpoints, and for members that are no adapters of this model,
        differ in what they change, or are no numbers."""
        if len(zoo) < 2:
            raise UserError(
                f"{zoo.path} holds {len(zoo)} checkpoint: a distribution needs two at least, of more --seeds."
            )
        left: dict[str, list[Tensor]] = {}
        right: dict[str, list[Tensor]] = {}
        for number, record in enumerate(zoo.records):
            state = zoo.state(number)
            found = factors(model, state)
            if not all((scale * one).isfinite().all() and two.isfinite().all() for one, two in found.values()):
                raise UserError(f"The zoo {zoo.path} is damaged at {record['file']}: build it again.")
            if left and found.keys() != left.keys():
                raise UserError(f"The checkpoints of {zoo.path} change different matrices: build a zoo of one shape.")
            for name, (one, two) in found.items():
                left.setdefault(name, []).append(scale * one)
                right.setdefault(name, []).append(two)
        try:
            self.left, self.right = ({name: torch.stack(held[name]) for name in left} for held in (left, right))
        except RuntimeError as reason:
            raise UserError(
                f"The checkpoints of {zoo.path} have different ranks: build a zoo of one shape."
            ) from reason
        self.units = self._units()

    def __len__(self) -> int:
        return len(next(iter(self.left.values())))

    def _units(self) -> list[Unit]:
        blocks: dict[tuple[int, str], list[Part]] = {}
        found = {name: BLOCK.match(name) for name in self.left}
        top = 1 + max((int(match[2]) for match in found.values() if match), default=-1)
        for name, match in found.items():
            key = (int(match[2]), match[1]) if match else (top, "outside the blocks")
            shape = self.left[name].shape[1], self.right[name].shape[2]
            blocks.setdefault(key, []).append(Part(name, shape))
        return [Unit(name, layer, "layer", tuple(parts)) for (layer, name), parts in sorted(blocks.items())]

    @property
    def whole(self) -> Unit:
        """All layers as one unit."""
        return Unit("all layers", self.units[0].layer, "all", tuple(part for unit in self.units for part in unit.parts))

    def change(self, name: str, weights: Tensor) -> Tensor:
        """Σ w_m ΔW_m of one matrix, float32 in its shape, for weights (M,) of the checkpoints."""
        left = self.left[name] * weights.to(self.left[name])[:, None, None]
        return left.transpose(0, 1).flatten(1) @ self.right[name].flatten(0, 1)

    def gram(self, name: str) -> Tensor:
        """(M, M) inner products of the centred changes of one matrix, float64."""
        left, right = self.left[name].double(), self.right[name].double()
        count = len(left)
        inner = torch.empty(count, count, dtype=torch.float64)
        for m in range(count):
            inner[m] = ((left[m].T @ left) * (right[m] @ right.transpose(1, 2))).sum((1, 2))
        centring = torch.eye(count, dtype=torch.float64) - 1 / count
        return centring @ inner @ centring

    def size(self, name: str) -> float:
        """The squared norm of one matrix's change, averaged over the checkpoints."""
        left, right = self.left[name].double(), self.right[name].double()
        return float(((left.transpose(1, 2) @ left) * (right @ right.transpose(1, 2))).sum() / len(left))

    def apart(self, name: str) -> float:
        """How far one matrix of two checkpoints lies apart: the root mean square over all pairs."""
        return float(2 * self.gram(name).trace().clamp_min(0) / (len(self) - 1)) ** 0.5


class LayerDenoiser(nn.Module):
    """An MLP that predicts the velocity of noisy coordinates (B, k) at time steps (B,) of layers (B,), from noise that
    it begins with as unit Gaussian."""

    def __init__(self, size: int, layers: int):
        super().__init__()
        self.times = nn.Sequential(Timesteps(WIDTH, True, 0), TimestepEmbedding(WIDTH, WIDTH))
        self.layers = nn.Embedding(layers, WIDTH)
        self.inward = nn.Linear(size, WIDTH)
        self.body = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, size))
        for parameter in self.body[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, noisy: Tensor, times: Tensor, layers: Tensor) -> Tensor:
        return self.body(self.inward(noisy) + self.times(times.expand(len(noisy))) + self.layers(layers))


class ZooGenerator:
    """Samples of the layers of a zoo's changes; `fit` comes first.

    Attributes:
        changes: of the zoo.
        points: (layers, M, k), the checkpoints' whitened coordinates in each layer; zero beyond the dimensions that
            a layer has.
        counts: (layers,), those dimensions.
    """

    def __init__(self, changes: ZooChanges, config: RefineConfig):
        self.changes, self.config = changes, config
        count, bases = len(changes), []
        for unit in changes.units:
            gram = sum((changes.gram(part.name) for part in unit.parts), torch.zeros(count, count, dtype=torch.float64))
            values, axes = torch.linalg.eigh(gram)
            kept = values > ALIKE * count * sum(changes.size(part.name) for part in unit.parts)
            kept[0] = False  # of the mean
            bases.append((axes * kept).flip(1)[:, : count - 1])
        self.bases = torch.stack(bases).float()  # (layers, M, M - 1), orthonormal or zero columns that sum to 0
        self.points = self.bases * (count - 1) ** 0.5
        self.counts = self.bases.any(1).sum(1)
        with loading, torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.denoiser = LayerDenoiser(count - 1, len(changes.units))

    def fit(self, folder: Path, progress: Progress = silent) -> None:
        """Train the denoiser, from the last checkpoint in ``folder`` where there is one."""
        folder.mkdir(parents=True, exist_ok=True)
        config, (layers, members, _) = self.config, self.points.shape
        accelerator = Accelerator(cpu=True)
        run = Run(folder, accelerator, MetricsLog(folder / "metrics.jsonl", accelerator), progress)
        noiser = DDPMScheduler(**NOISE)
        used = self.bases.any(1).float()
        self.denoiser.train().requires_grad_(True)
        model, optimiser = accelerator.prepare(
            self.denoiser, torch.optim.AdamW(self.denoiser.parameters(), lr=config.diffusion_lr)
        )

        def step(number: int, part: int):
            _, draw = step_rng(config.seed, "layers", number)
            layer = torch.randint(layers, (BATCH,), generator=draw)
            member = torch.randint(members, (BATCH,), generator=draw)
            time = torch.randint(noiser.config.num_train_timesteps, (BATCH,), generator=draw)
            clean, mask = self.points[layer, member], used[layer]
            noise = torch.randn(clean.shape, generator=draw) * mask
            aim = noiser.get_velocity(clean, noise, time)
            error = (model(noiser.add_noise(clean, noise, time), time, layer) - aim).square() * mask
            return error.sum() / mask.sum().clamp_min(1), {}

        run_stage(
            "denoiser",
            step,
            modules={"model": model},
            optimiser=optimiser,
            steps=config.diffusion_steps,
            checkpoint_every=config.checkpoint_every,
            run=run,
        )
        self.denoiser.eval().requires_grad_(False)

    @torch.inference_mode()
    def sample(self, layers: Sequence[int], name: str, number: int) -> Tensor:
        """Sample some layers, each by itself.

        Args:
            layers: their numbers among the units.
            name, number: of the sample: the same ones give the same sample.
        Returns:
            (len(layers), M) weights of the checkpoints, which add up to 1, for `ZooChanges.change`.
        """
        _, draw = step_rng(self.config.seed, f"sample of {name}", number)
        index, bases = torch.tensor(layers), self.bases[list(layers)]
        used = bases.any(1)
        noise = torch.randn(len(layers), bases.shape[2], generator=draw) * used
        found = white_samples(lambda noisy, time: self.denoiser(noisy, time, index) * used, noise, STEPS)
        members = len(self.changes)
        return 1 / members + (bases @ found[:, :, None])[:, :, 0] / (members - 1) ** 0.5

    def spread(self) -> dict[str, float]:
        """How many ``dimensions`` the layers have, on average; and how far 32 samples of each layer lie from the
        checkpoints' mean (``samples``) and from the nearest checkpoint (``nearest``; with 0 the generator only repeats
        checkpoints), in whitened coordinates and in units of the checkpoints' distance from their mean."""
        layers = list(range(len(self.points)))
        drawn = torch.stack([self.sample(layers, "the spread", number) for number in range(32)], 1)
        own = self.points.square().sum(2).mean(1).sqrt().clamp_min(1e-8)  # (layers,)
        found = (drawn - 1 / len(self.changes)) @ self.bases * (len(self.changes) - 1) ** 0.5
        varied = self.counts > 0
        if not varied.any():
            return {"dimensions": 0.0, "samples": 0.0, "nearest": 0.0}
        away = found.square().sum(2).mean(1).sqrt() / own
        nearest = torch.cdist(found, self.points).amin(2).mean(1) / own
        return {
            "dimensions": float(self.counts.float().mean()),
            "samples": float(away[varied].mean()),
            "nearest": float(nearest[varied].mean()),
        }
