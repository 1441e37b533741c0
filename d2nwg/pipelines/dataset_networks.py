"""Sampling small networks for a data set: a few images a class → a trunk and a head row for each class."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from d2nwg.models.hypernetwork import HyperNetwork, Slots
from d2nwg.models.network_space import SmallNetworkSpace
from d2nwg.pipelines import DEFAULT_STEPS
from d2nwg.pipelines.base import BundlePipeline
from d2nwg.pipelines.denoise import check_numbers, denoise
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.networks import State, pick
from d2nwg.weights.small_networks import MAX_CLASSES

HeadKind = Literal["closed-form", "generated"]
MOST_IMAGES = 100_000  # that are shown


@dataclass
class Shown:
    """Support images of a task in canonical order, which depends on neither the order of the classes nor that of the
    images: what is computed from them is the same bit for bit, and the rows of a head go back to their classes.

    Attributes:
        images: (n, c, s, s) bytes, by class.
        labels: (n,) of them, in canonical order of the classes.
        place: (C,) where each of the caller's classes is in that order.
    """

    images: Tensor
    labels: Tensor
    place: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor) -> "Shown":
        """Of images and the numbers of their classes, from 0. Every class has one."""
        classes = int(labels.max()) + 1
        found: list[list[tuple[bytes, int]]] = [[] for _ in range(classes)]
        for number, label in enumerate(labels.tolist()):
            found[label].append((images[number].numpy().tobytes(), number))
        order = sorted(range(classes), key=lambda c: sorted(content for content, _ in found[c]))
        rows = [number for c in order for _, number in sorted(found[c])]
        place = torch.tensor(order).argsort()
        return cls(images[rows], place[labels[rows]], place)

    def targets(self) -> Tensor:
        """(1, n, C) one-hot."""
        return torch.eye(len(self.place))[self.labels].unsqueeze(0)


@dataclass
class DatasetNetworks:
    """Generated networks of one task.

    Attributes:
        state: all as one batch, (1 + S, …) a tensor: the deterministic one, then the S samples.
        distance: (1 + S,) how far each trunk is from the zoo's nearest, divided by how far those are from each other's
            nearest (median); 0 is a copy, NaN where the bundle keeps fewer than two.
        head: how the heads were made.
    """

    state: State
    distance: Tensor
    head: HeadKind

    def __len__(self) -> int:
        return len(self.distance)

    def states(self) -> list[State]:
        """One state dict a network, for `load_state_dict`."""
        return [pick(self.state, i) for i in range(len(self))]


class DatasetNetworkPipeline(BundlePipeline):
    """Generates small networks for the images that it is shown (`d2nwg.models.hypernetwork`).

    >>> pipe = DatasetNetworkPipeline.from_pretrained("my-networks")
    >>> made = pipe(images, labels)  # bytes (n, channels, size, size) and the numbers of their classes
    >>> network.load_state_dict(made.states()[0])
    """

    hypernetwork: HyperNetwork
    weight_space: SmallNetworkSpace

    def __init__(self, hypernetwork, scheduler, weight_space):
        super().__init__()
        self._register(hypernetwork=hypernetwork, scheduler=scheduler, weight_space=weight_space)

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        num_samples: int = 0,
        generator: torch.Generator | None = None,
        num_inference_steps: int = DEFAULT_STEPS,
        head: HeadKind | None = None,
        progress: Progress = silent,
    ) -> DatasetNetworks:
        """Generate networks.

        Args:
            images: (n, c, s, s) bytes of the channels and size that the bundle's networks take.
            labels: (n,) the numbers of their classes, from 0; every class has an image. Any number of classes.
            num_samples: networks to draw by diffusion beside the deterministic one, which is the better one as a rule.
            generator: of the noise; the same one gives the same networks.
            num_inference_steps: denoising steps of the samples.
            head: ``"closed-form"``, ridge regression on the generated trunk's features of the images; ``"generated"``,
                rows that the generator makes; by default what was better on held-out tasks in training.
            progress: called with the stage ``"Sampling networks"``.
        Raises:
            UserError: images of another size, fewer than two classes, a class without images, or more than fit into the
                memory.
        """
        head = self._check(images, labels, num_samples, num_inference_steps, head)
        device = self.weight_space.centre.device
        shown = Shown.of(images.cpu(), labels.cpu().long())
        slots, support = self.encode(shown.images.to(device), shown.labels.to(device))
        trunks = self.hypernetwork.trunks(slots, self.weight_space.basis)
        if num_samples:
            latents = self.sample(slots, num_samples, generator, num_inference_steps, progress)
            trunks = torch.cat([trunks, self.hypernetwork.trunks(slots, self.weight_space.basis, latents)])
        state = self.network(slots, trunks, support, shown.targets().to(device), head)
        place = shown.place.to(device)
        for name in (f"{self.weight_space.head}.weight", f"{self.weight_space.head}.bias"):
            state[name] = state[name][:, place]
        return DatasetNetworks({name: value.cpu() for name, value in state.items()}, self.distance(trunks), head)

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Slots, Tensor]:
        """Bytes (n, c, s, s) and their classes (n,) → slots (batch of 1), and the images normalised (1, n, c, s, s)."""
        space, support = self.weight_space, self.weight_space.normalised(images)
        features, counts = space.describe(support), labels.bincount()
        padded = features.new_zeros(len(counts), int(counts.max()), features.shape[-1])
        used = torch.arange(padded.shape[1], device=labels.device) < counts.unsqueeze(1)
        padded[used] = features[labels.argsort(stable=True)]
        return self.hypernetwork.encode(padded.unsqueeze(0), used.unsqueeze(0)), support.unsqueeze(0)

    def sample(
        self, slots: Slots, num_samples: int, generator: torch.Generator | None, steps: int, progress: Progress = silent
    ) -> Tensor:
        """Principal coordinates (S, k) of trunks, drawn by diffusion for one task."""
        shape = num_samples, self.hypernetwork.config.coordinates
        noise = randn_tensor(shape, generator=generator, device=self.weight_space.centre.device)
        return denoise(
            self.scheduler,
            lambda latents, time: self.hypernetwork(latents, time, slots),
            noise,
            steps,
            generator=generator,
            stage="Sampling networks",
            progress=progress,
        )

    def network(self, slots: Slots, trunks: Tensor, support: Tensor, targets: Tensor, head: HeadKind) -> State:
        """Networks (S, …) of standardised trunks (S, N).

        Args:
            support: (1, n, c, s, s) normalised images that closed-form heads are fitted to.
            targets: (1, n, C) their classes, one-hot.
        """
        trunk = self.weight_space.trunk_state(trunks)
        if head == "closed-form":
            rows = self.hypernetwork.closed_form_rows(self.weight_space.features(trunk, support), targets)
        else:
            rows = self.hypernetwork.head_rows(slots, self.weight_space).expand(len(trunks), -1, -1)
        return self.weight_space.network_state(trunk, rows)

    def _check(self, images: Tensor, labels: Tensor, num_samples: int, steps: int, head) -> HeadKind:
        config = self.weight_space.config
        check_numbers(max(num_samples, 1), steps, self.scheduler)
        head = head or self.hypernetwork.config.head
        if head not in get_args(HeadKind):
            raise UserError(f"A head is made in one of the ways {', '.join(get_args(HeadKind))}.")
        shape = config.channels, config.size, config.size
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1:] != shape:
            raise UserError(
                f"This bundle's networks take images of {config.size} × {config.size} pixels of 8 bits, "
                f"{'grey' if config.channels == 1 else 'in colour'}: a tensor (n, {', '.join(map(str, shape))})."
            )
        if len(labels) != len(images) or labels.dim() != 1 or labels.is_floating_point() or not len(images) > 0:
            raise UserError("Every image needs the number of its class, a whole number from 0.")
        counts = labels.bincount() if int(labels.min()) >= 0 and int(labels.max()) < MAX_CLASSES else labels[:0]
        if len(counts) < 2 or not bool((counts > 0).all()):
            raise UserError(f"A network tells 2 to {MAX_CLASSES:,} classes apart, and each needs an image.")
        if len(images) > MOST_IMAGES:
            raise UserError(f"{len(images):,} images are shown, and at most {MOST_IMAGES:,} can be: show fewer.")
        space = self.weight_space
        needed = 4 * (num_samples + 1) * (4 * space.numel + 16 * len(images) * (space.num_features + len(counts)))
        check_memory(needed, f"Making {num_samples + 1:,} networks at once", "ask for fewer", space.centre.device)
        return head

    def distance(self, trunks: Tensor) -> Tensor:
        """Of standardised trunks (S, N), as in `DatasetNetworks`."""
        zoo = self.weight_space.zoo_trunks
        if len(zoo) < 2:
            return torch.full((len(trunks),), torch.nan)
        between = torch.cdist(zoo, zoo).fill_diagonal_(torch.inf).min(1).values.median()
        return (torch.cdist(trunks, zoo).min(1).values / between).cpu()

    def attempt(self) -> None:
        """See `BundlePipeline`."""
        config = self.weight_space.config
        images = torch.zeros(2, config.channels, config.size, config.size, dtype=torch.uint8)
        for head in get_args(HeadKind):
            self(images, torch.tensor([0, 1]), 1, torch.Generator().manual_seed(0), 1, head)
