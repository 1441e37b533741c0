"""Sampling whole networks: architecture and task → latents → vectors → state dicts."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from d2nwg.conditions.task_id import TaskIndex
from d2nwg.models.spaces import NetworkSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import Latents
from d2nwg.pipelines.base import LatentPipeline
from d2nwg.pipelines.denoise import check_numbers, denoise
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, pick

AT_ONCE = 256  # items (chunks) of a network, of the layout independent
STEPS = 50  # the latents of few networks are separate points: it takes steps to get to one of them


@dataclass
class NetworkSamples:
    """Generated networks.

    Attributes:
        state: all as one batch, (S, …) a tensor.
        distance: (S,) how far the latent is from the nearest of the zoo's of the same architecture and task, divided by
            how far those are from each other's nearest (median); 0 is a copy.
        expected: (S,) the accuracies that the bundle's predictor expects; None without a predictor.
    """

    state: State
    distance: Tensor
    expected: Tensor | None = None

    def __len__(self) -> int:
        return len(self.distance)

    def ranked(self) -> list[int]:
        """Numbers of the samples, the one with the highest expected accuracy first; without a predictor as they are."""
        return list(range(len(self))) if self.expected is None else self.expected.argsort(descending=True).tolist()

    def states(self) -> list[State]:
        """One state dict a network, for `load_state_dict`."""
        return [pick(self.state, i) for i in range(len(self))]

    def save(self, out: str | Path) -> Path:
        """Write each as ``000.safetensors`` … in the new folder ``out``. Raises UserError as `new_folder`."""
        from safetensors.torch import save_file

        with new_folder(out) as part:
            for number, state in enumerate(self.states()):
                tensors = {name: value.contiguous().clone() for name, value in state.items()}
                save_file(tensors, part / f"{number:03}.safetensors")
        return Path(out)


class NetworkGenerationPipeline(LatentPipeline):
    """Samples whole networks of the architectures and tasks of a zoo of checkpoints.

    >>> pipe = NetworkGenerationPipeline.from_pretrained("my-models")
    >>> samples = pipe(architecture=0, task="mnist", num_samples=10, generator=torch.Generator().manual_seed(0))
    >>> network.load_state_dict(samples.states()[0])
    """

    vae: Latents
    condition_encoder: TaskIndex
    denoiser: ConditionalUNet
    weight_space: NetworkSpace

    @torch.inference_mode()
    def __call__(
        self,
        architecture: int | str = 0,
        task: str | None = None,
        num_samples: int = 10,
        generator: torch.Generator | None = None,
        num_inference_steps: int = STEPS,
        around: float | None = None,
        progress: Progress = silent,
    ) -> NetworkSamples:
        """Sample networks.

        Args:
            architecture: its number, the zoo's commonest first, or the name of its first checkpoint.
            task: one of the zoo's.
            generator: of the noise; the same one gives the same networks.
            num_inference_steps: denoising steps.
            around: do not begin with noise alone: begin with latents of zoo members, drawn at random, noised to this
                share of the steps (0: their reconstructions, 1: noise alone).
            progress: called with the stage ``"Sampling networks"``.
        Raises:
            UserError: the bundle has not seen the architecture or the task, or ``around`` is no share.
        """
        space = self.weight_space
        member = space.member(architecture, task)
        items = space.items(member)
        centre = space.latent_centres[space.group(items).to(space.zoo_latents.device)]
        zoo = space.zoo_latents[space.kept(member)]
        zoo = zoo.unflatten(0, (len(zoo) // len(items), len(items)))  # member by member
        zoo = (zoo - centre) * self.vae.config.latent_scale
        if around is not None and (isinstance(around, str) or not 0 <= around <= 1):
            raise UserError("How far around the zoo's members is a share from 0 to 1.")
        if around is not None and not len(zoo):
            raise UserError("The zoo has no such member to begin with: leave out `around`.")
        vectors, latents = self._sample(items, num_samples, generator, num_inference_steps, around, zoo, progress)
        expected = None
        if self.predictor is not None:
            mask = space.mask(items).to(vectors.device).expand(num_samples, -1)
            expected = self.predictor(vectors.flatten(1), mask).cpu()
        vectors = nn.functional.pad(vectors.flatten(1), (0, space.size - vectors.flatten(1).shape[1]))
        return NetworkSamples(space.to_states(vectors, int(member[0])), _distance(latents, zoo), expected)

    @torch.inference_mode()
    def assemble(
        self,
        like: State,
        architecture: int | str = 0,
        task: str | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
        num_inference_steps: int = STEPS,
        progress: Progress = silent,
    ) -> State:
        """Networks of an architecture that the zoo does not have: each layer is a sample of a layer of the same type
        and the nearest relative depth (`d2nwg.weights.layer_types`). For bundles of the layout ``independent``.

        Args:
            like: a state dict of the architecture that is wanted, for its names and shapes.
            architecture, task: whose layers are sampled.
        Returns:
            All as one batch, (S, …) a tensor. Counters, and BatchNorm statistics that the layout leaves out, are those
            of ``like``.
        Raises:
            UserError: as calling the pipeline; no layer matches one that is wanted; or the bundle has another layout.
        """
        space = self.weight_space
        if not space.config.independent:
            raise UserError("This bundle samples whole networks: layers are had from one of the layout independent.")
        member = space.member(architecture, task)
        places, layout = space.matching(like, int(member[0]))
        vectors, _ = self._sample(
            space.items(member)[places], num_samples, generator, num_inference_steps, progress=progress
        )
        vectors = vectors * space.item_units[int(member[0]), places] + space.item_centres[int(member[0]), places]
        state = layout.unflatten(vectors)
        rest = {name: value.to(vectors.device).expand(num_samples, *value.shape) for name, value in like.items()}
        return {name: state.get(name, rest[name]) for name in like}

    def _sample(
        self,
        items: Tensor,
        num_samples: int,
        generator: torch.Generator | None,
        steps: int,
        around: float | None = None,
        zoo: Tensor | None = None,
        progress: Progress = silent,
    ) -> tuple[Tensor, Tensor]:
        """Samples of P items each: vectors (S, P, N), and their latents (S, P, c, h, w), from their centre and scaled.

        Args:
            zoo: such latents (Z, P, c, h, w), for ``around``.
        """
        check_numbers(num_samples, steps, self.scheduler)
        space, device, scale = self.weight_space, self.weight_space.zoo_latents.device, self.vae.config.latent_scale
        self._check_size(num_samples, len(items))
        noise = randn_tensor((num_samples, len(items), *self.vae.latent_shape), generator=generator, device=device)
        chosen = None
        if around is not None and zoo is not None:
            chosen = zoo[torch.randint(len(zoo), (num_samples,), generator=generator)]
        found, decoded = [], []
        for first in range(0, len(items), AT_ONCE):
            part, named = slice(first, first + AT_ONCE), items[first : first + AT_ONCE]
            centre = space.latent_centres[space.group(named).to(device)]
            condition = self.condition_encoder(space.ids(named).to(device))
            padding = self.vae.padding(space.mask(named).to(device))
            if padding is not None:  # latents are measured from their centre, those of padding too
                padding.value = padding.value - centre * scale
            latents = denoise(
                self.scheduler,
                self._predictor(condition.repeated(num_samples)),
                noise[:, part].flatten(0, 1),
                steps,
                generator=generator,
                start=None if chosen is None else chosen[:, part].flatten(0, 1),
                strength=1.0 if around is None else around,
                padding=padding,
                stage="Sampling networks",
                progress=progress,
            )
            found.append(latents.unflatten(0, (num_samples, -1)))
            vectors = self.vae.decode((found[-1] / scale + centre).flatten(0, 1))
            decoded.append(vectors.unflatten(0, (num_samples, -1)))
        return torch.cat(decoded, 1), torch.cat(found, 1)

    def _check_size(self, num_samples: int, items: int) -> None:
        """Raises UserError for more networks than fit into the memory."""
        space, (_, rows, columns) = self.weight_space, self.vae.latent_shape
        wide = min(items, AT_ONCE) * rows * columns * sum(self.denoiser.config.channels)
        needed = num_samples * 4 * (4 * items * space.item_size + 4 * wide)
        what = f"Sampling {num_samples:,} networks of up to {items * space.item_size:,} weights at once"
        check_memory(needed, what, "ask for fewer at a time", space.zoo_latents.device)

    def attempt(self) -> None:
        """See `BundlePipeline`."""
        self(0, self.weight_space.config.tasks[0], 1, torch.Generator().manual_seed(0), 1)


def _distance(latents: Tensor, zoo: Tensor) -> Tensor:
    """As in `NetworkSamples`; NaN where the zoo has fewer than two."""
    if len(zoo) < 2:
        return torch.full((len(latents),), torch.nan)
    between = torch.cdist(zoo.flatten(1), zoo.flatten(1)).fill_diagonal_(torch.inf).min(1).values.median()
    return (torch.cdist(latents.flatten(1), zoo.flatten(1)).min(1).values / between).cpu()
