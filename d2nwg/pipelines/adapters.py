"""Sampling adapters: a description of a task → latents → coordinates → the matrices of an adapter, and its head."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from d2nwg.conditions.base import Condition
from d2nwg.conditions.description import DescriptionEncoder
from d2nwg.models.adapter_space import HEAD, AdapterSpace, KnownTask
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.pipelines import ADAPTER_STEPS as STEPS
from d2nwg.pipelines import GUIDANCE
from d2nwg.pipelines import LONGEST_DESCRIPTION as LONGEST
from d2nwg.pipelines.base import LatentPipeline
from d2nwg.pipelines.denoise import check_numbers, denoise
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import utf8
from d2nwg.weights.networks import State, pick

SEEN = 0.55  # cosine from which on two sentences describe the same task: paraphrases of one have 0.55 to 0.9


def check_description(text: str) -> str:
    """A description that can be read, without the spaces around it.

    Raises:
        UserError: it is empty or too long.
    """
    if len(text) > LONGEST:
        raise UserError(f"The description has {len(text):,} characters; say it in at most {LONGEST:,}.")
    if not text.strip():
        raise UserError("Describe the task in a sentence, such as: Is this film review positive?")
    return utf8(text).strip()


@dataclass
class AdapterSamples:
    """Generated adapters of one task.

    Attributes:
        state: the matrices, as one batch: (S, …) a tensor.
        head: ``head.weight`` (S, C, d) and ``head.bias`` (S, C) of the nearest known task.
        task: that task.
        nearest: numbers of the nearest known tasks, and the cosines of their descriptions with this one's.
        distance: (S,) of each sample's coordinates to the nearest member of the zoo, divided by the median distance
            of members of one task to each other's nearest; 0 is a copy.
        vectors: (S, T k) each sample's coordinates.
    """

    state: State
    head: State
    task: KnownTask
    nearest: list[tuple[int, float]]
    distance: Tensor
    vectors: Tensor

    def __len__(self) -> int:
        return len(self.distance)

    @property
    def seen(self) -> bool:
        """Whether the description is one of a known task, in whatever words."""
        return self.nearest[0][1] >= SEEN

    def central(self) -> int:
        """The number of the sample that is nearest to all others together."""
        flat = torch.cat([tensor.flatten(1) for tensor in self.state.values()], 1)
        return int(torch.cdist(flat, flat).sum(1).argmin())

    def one(self, number: int) -> tuple[State, State]:
        """The matrices and the head of a sample."""
        return pick(self.state, number), pick(self.head, number)


class AdapterGenerationPipeline(LatentPipeline):
    """Samples adapters of a text encoder, with heads, for a task that is described in words.

    >>> pipe = AdapterGenerationPipeline.from_pretrained("my-adapters")
    >>> samples = pipe("Is this sentence grammatical?", num_samples=10, generator=torch.Generator().manual_seed(0))
    """

    vae: WeightVAE
    condition_encoder: DescriptionEncoder
    denoiser: ConditionalUNet
    weight_space: AdapterSpace

    @torch.inference_mode()
    def __call__(
        self,
        description: str,
        num_samples: int = 10,
        generator: torch.Generator | None = None,
        num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
        to: str | None = None,
        share: float = 0.0,
        progress: Progress = silent,
        labels: Sequence[str] = (),
        to_labels: Sequence[str] = (),
    ) -> AdapterSamples:
        """Sample adapters.

        The condition is an average of the known descriptions, by how likely they describe the same task
        (`AdapterSpace.recognise`): other words for a known task lie farther from its descriptions than training noise.

        Args:
            description: of the task, in words.
            generator: of the noise; the same one gives the same adapters.
            num_inference_steps: denoising steps.
            guidance_scale: of classifier-free guidance: 1 samples the condition as learnt, more exaggerates it.
            to: another description; the adapter is then one for a task between the two.
            share: how far on the way to it, from 0 to 1.
            progress: called with the stage ``"Sampling adapters"``.
            labels: names of the task's labels, where they are known: they help to recognise it.
            to_labels: likewise of ``to``.
        Raises:
            UserError: there is no description, or more samples than fit into the memory.
        """
        check_numbers(num_samples, num_inference_steps, self.scheduler, guidance_scale)
        space = self.weight_space
        device = space.mean.device
        needed = num_samples * 4 * 3 * space.size
        check_memory(needed, f"Sampling {num_samples:,} adapters at once", "ask for fewer at a time", device)
        text, likely = self.recognise(description, labels)
        if to is not None:
            there, other = self.recognise(to, to_labels)
            text, likely = torch.lerp(text, there, share), torch.lerp(likely, other, share)
        known = torch.nn.functional.normalize(likely.to(device) @ space.texts, dim=-1)
        condition: Condition = self.condition_encoder(known[None])
        noise = randn_tensor((num_samples, *self.vae.latent_shape), generator=generator, device=device)
        latents = denoise(
            self.scheduler,
            self._predictor(condition, guidance_scale),
            noise,
            num_inference_steps,
            generator=generator,
            stage="Sampling adapters",
            progress=progress,
        )
        return self.samples(self.vae.decode(latents / self.vae.config.latent_scale), text, likely)

    def samples(self, vectors: Tensor, text: Tensor, likely: Tensor) -> AdapterSamples:
        """Coordinates (S, T k), the vector of a description and what it is likely to be → the adapters."""
        space = self.weight_space
        nearest = space.nearest(text, likely=likely)
        task = space.tasks[nearest[0][0]]
        state = space.to_states(vectors, task.rows)
        head = {name: state.pop(name) for name in HEAD}
        return AdapterSamples(state, head, task, nearest, _distance(space, vectors), vectors.cpu())

    @torch.inference_mode()
    def recognise(self, description: str, labels: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
        """The vector (width,) of a description, and how likely each known description says the same (descriptions,).

        Raises:
            UserError: it is empty.
        """
        space, agree = self.weight_space, None
        said = [
            description,
            *([_together(labels), *(_together(task.classes) for task in space.tasks)] if labels else []),
        ]
        vectors = self.condition_encoder.texts(said).cpu()
        if labels:
            agree = vectors[2:] @ vectors[1]
        return vectors[0], space.recognise(vectors[0], agree, len(labels))

    def attempt(self) -> None:
        """See `BundlePipeline`."""
        text = self.weight_space.texts[:1]
        beside = self.denoiser.lay_out(self.condition_encoder(text))
        self.denoiser.denoise(torch.zeros(1, *self.vae.latent_shape), 0, beside)
        likely = self.weight_space.recognise(text[0])
        self.samples(self.vae.decode(torch.zeros(1, *self.vae.latent_shape)), text[0], likely)


def _together(labels: Sequence[str]) -> str:
    """Names of labels as one text; of a task without any, what its head says."""
    return ", ".join(name.replace("_", " ") for name in labels) or "a number"


def _distance(space: AdapterSpace, vectors: Tensor) -> Tensor:
    """As in `AdapterSamples`; NaN where no task has two members."""
    return (torch.cdist(vectors, space.zoo_vectors).min(1).values / space.unit().to(vectors)).cpu()
