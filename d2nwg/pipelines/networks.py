"""Sampling whole networks: architecture and task → latents → vectors → state dicts."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from d2nwg.conditions.task_id import TaskIndex
from d2nwg.models.spaces import NetworkSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines.base import LatentPipeline
from d2nwg.pipelines.denoise import check_numbers, denoise
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.outputs import new_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, pick

STEPS = 50  # the latents of few networks are separate points: it takes steps to get to one of them


@dataclass
class NetworkSamples:
    """Generated networks.

    Attributes:
        state: all as one batch, (S, …) a tensor.
        distance: (S,) how far the latent is from the nearest of the zoo's of the same architecture and task, divided by
            how far those are from each other's nearest (median); 0 is a copy.
    """

    state: State
    distance: Tensor

    def __len__(self) -> int:
        return len(self.distance)

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

    vae: WeightVAE
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
        check_numbers(num_samples, num_inference_steps, self.scheduler)
        space = self.weight_space
        device = space.zoo_latents.device
        self._check_size(num_samples)
        member = space.member(architecture, task)
        condition = self.condition_encoder(space.ids(member.unsqueeze(0)).to(device))
        centre = space.latent_centres[space.group(member.unsqueeze(0)).to(device)]
        zoo = (space.zoo_latents[space.kept(member)] - centre) * self.vae.config.latent_scale
        if around is not None and (isinstance(around, str) or not 0 <= around <= 1):
            raise UserError("How far around the zoo's members is a share from 0 to 1.")
        if around is not None and not len(zoo):
            raise UserError("The zoo has no such member to begin with: leave out `around`.")
        noise = randn_tensor((num_samples, *self.vae.latent_shape), generator=generator, device=device)
        start = None
        if around is not None:
            start = zoo[torch.randint(len(zoo), (num_samples,), generator=generator)]
        padding = self.vae.padding(space.mask(member[:1]).to(device))
        if padding is not None:  # latents are measured from their centre, those of padding too
            padding.value = padding.value - centre * self.vae.config.latent_scale
        latents = denoise(
            self.scheduler,
            self._predictor(condition),
            noise,
            num_inference_steps,
            generator=generator,
            start=start,
            strength=1.0 if around is None else around,
            padding=padding,
            stage="Sampling networks",
            progress=progress,
        )
        vectors = self.vae.decode(latents / self.vae.config.latent_scale + centre)
        return NetworkSamples(space.to_states(vectors, int(member[0])), _distance(latents, zoo))

    def _check_size(self, num_samples: int) -> None:
        """Raises UserError for more networks than fit into the memory."""
        space, (_, rows, columns) = self.weight_space, self.vae.latent_shape
        wide = rows * columns * sum(self.denoiser.config.channels)
        needed = num_samples * 4 * (4 * space.size + 4 * wide)
        what = f"Sampling {num_samples:,} networks of up to {space.size:,} weights at once"
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
