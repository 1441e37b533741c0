"""What a generator of small networks keeps of its zoo: the average network, units, principal directions, and members.

A network is a trunk and a head, its last layer. The trunk is one vector of N standardised numbers: differences from the
zoo's average in units of each tensor. The head is one row of h + 1 numbers a class, weight and bias, so that a network
for any number of classes is a trunk and so many rows.
"""

from collections.abc import Iterable
from functools import cached_property, lru_cache

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn
from torch.func import functional_call, vmap

from d2nwg.utils.fields import Width
from d2nwg.weights.layouts import ChunkedLayout
from d2nwg.weights.networks import State
from d2nwg.weights.small_networks import last_layer, small_network

LEAST = 0.02  # of a tensor's own spread: its unit where a zoo's networks (nearly) agree


@lru_cache(maxsize=16)
def trunk_module(network: str, channels: int, size: int) -> nn.Module:
    """An architecture without its last layer, and without numbers: for `functional_call`."""
    with torch.device("meta"):
        module = small_network(network).build(channels, 2, size)
    setattr(module, last_layer(network), nn.Identity())
    return module.eval()


class SmallNetworkSpace(ModelMixin, ConfigMixin):
    """Small networks ↔ trunk vectors and head rows, the zoo's average among them.

    Args:
        network, channels, size: the architecture (`d2nwg.weights.small_networks`) and its images.
        classes: C of the zoo's networks.
        coordinates: k, principal directions of the zoo's trunks.
        components: p, of the zoo's images.
        zoo_size: members that are kept.
        mean, std: the networks take ``(x / 255 - mean) / std`` of bytes, a number a channel.

    Tensors: ``centre`` and ``unit`` (N,) of trunks; ``basis`` (k, N), principal directions times their standard
    deviation; ``row_centre`` (h + 1,) and ``row_unit`` (1,) of head rows; ``average_rows`` (C, h + 1); ``pixel_mean``
    (d,) and ``pixel_basis`` (d, p) of images of d numbers; ``common`` (N,), the mean of the trunks that the generator
    makes for random tasks; of the zoo ``zoo_trunks`` (Z, N), ``zoo_rows`` (Z, C, h + 1)
    and ``zoo_accuracy`` (Z,), NaN where it is not known.
    """

    @register_to_config
    def __init__(
        self,
        network: str,
        channels: int,
        size: int,
        classes: int,
        coordinates: Width = 32,
        components: Width = 64,
        zoo_size: int = 0,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
    ):
        super().__init__()
        with torch.device("meta"):
            state = small_network(network).build(channels, classes, size).state_dict()
        self.head = last_layer(network)
        self.order = list(state)
        self.num_features = state[f"{self.head}.weight"].shape[1]  # h, the trunk's outputs
        trunk = {name: tensor for name, tensor in state.items() if not name.startswith(f"{self.head}.")}
        self.layout = ChunkedLayout.of(trunk, chunk=1)
        self.left_out = {name: tensor for name, tensor in trunk.items() if name not in self.layout.shapes}

        def kept(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape), requires_grad=False)

        row, pixels = self.num_features + 1, channels * size * size
        self.centre, self.unit, self.basis = kept(self.numel), kept(self.numel), kept(coordinates, self.numel)
        self.row_centre, self.row_unit, self.average_rows = kept(row), kept(1), kept(classes, row)
        self.pixel_mean, self.pixel_basis = kept(pixels), kept(pixels, components)
        self.common = kept(self.numel)
        self.zoo_trunks, self.zoo_rows = kept(zoo_size, self.numel), kept(zoo_size, classes, row)
        self.zoo_accuracy = kept(zoo_size)

    @cached_property
    def numel(self) -> int:
        """N, numbers of a trunk."""
        return len(self.layout.places)

    def split(self, state: State) -> tuple[Tensor, Tensor]:
        """Networks (M, …) → trunks (M, N), not standardised, and head rows (M, C, h + 1)."""
        trunk = self.layout.flatten(state).squeeze(-1)
        weight, bias = state[f"{self.head}.weight"], state[f"{self.head}.bias"]
        return trunk, torch.cat([weight, bias.unsqueeze(-1)], -1).float()

    def standardised(self, trunk: Tensor) -> Tensor:
        """Trunks as `split` gives them → differences from the average, in units."""
        return (trunk - self.centre) / self.unit

    def trunk_state(self, vectors: Tensor) -> State:
        """Standardised trunks (M, N) → their tensors (M, …)."""
        state = self.layout.unflatten((vectors * self.unit + self.centre).unsqueeze(-1))
        for name, tensor in self.left_out.items():
            state[name] = torch.zeros(len(vectors), *tensor.shape, dtype=tensor.dtype, device=vectors.device)
        return state

    def network_state(self, trunk: State, rows: Tensor) -> State:
        """Trunks (M, …) and head rows (M, C, h + 1) → networks (M, …), tensors in module order."""
        head = {f"{self.head}.weight": rows[..., :-1], f"{self.head}.bias": rows[..., -1]}
        state = {**trunk, **head}
        return {name: state[name] for name in self.order}

    def features(self, trunk: State, images: Tensor) -> Tensor:
        """Trunks (M, …), normalised images (M or 1, n, c, s, s) → (M, n, h)."""
        config = self.config
        module = trunk_module(config.network, config.channels, config.size)
        count = len(next(iter(trunk.values())))
        shared = len(images) == 1

        def run(state: State, given: Tensor) -> Tensor:
            return functional_call(module, state, (given,))

        if images.is_cuda:
            return vmap(run, in_dims=(0, None if shared else 0))(trunk, images[0] if shared else images)
        # On a CPU a convolution of many groups, which vmap makes, takes twice as long as one network after another.
        each = [{name: value[i] for name, value in trunk.items()} for i in range(count)]
        return torch.stack([run(state, images[0 if shared else i]) for i, state in enumerate(each)])

    def normalised(self, pixels: Tensor) -> Tensor:
        """Bytes (…, c, s, s) → what networks take, float32."""
        mean, std = (
            torch.tensor(v, device=pixels.device).reshape(-1, 1, 1) for v in (self.config.mean, self.config.std)
        )
        return (pixels / 255 - mean) / std

    @property
    def average(self) -> State:
        """The trunk of the zoo's average network, (1, …)."""
        return self.trunk_state(torch.zeros(1, self.numel, device=self.centre.device))

    def describe(self, images: Tensor) -> Tensor:
        """What a generator sees of normalised images (n, c, s, s): their principal components, and the features that
        the zoo's average network computes, (n, p + h)."""
        flat = (images.flatten(1) - self.pixel_mean) @ self.pixel_basis
        return torch.cat([flat, self.features(self.average, images.unsqueeze(0))[0]], -1)

    @property
    def num_described(self) -> int:
        """p + h."""
        return self.config.components + self.num_features

    def coordinates(self, trunks: Tensor) -> Tensor:
        """Standardised trunks (M, N) → principal coordinates (M, k), of unit variance over the zoo."""
        squares = self.basis.square().sum(1).clamp_min(1e-12)
        return trunks @ self.basis.T / squares * (self.basis.square().sum(1) > 0)

    @torch.no_grad()
    def fit(self, states: Iterable[State], images: Tensor) -> tuple[Tensor, Tensor]:
        """Measure the space on a zoo's networks (no batch axis) and on some of its images, normalised (n, c, s, s).

        Returns:
            The networks' standardised trunks (M, N) and head rows (M, C, h + 1).
        """
        parts = [self.split({name: value.unsqueeze(0) for name, value in state.items()}) for state in states]
        trunks, rows = (torch.cat(part) for part in zip(*parts, strict=True))
        self.centre.data = trunks.mean(0)
        for span in self.layout.spans.values():
            own, apart = trunks[:, span].std(correction=0), (trunks - self.centre)[:, span].square().mean().sqrt()
            self.unit.data[span] = max(float(apart), LEAST * float(own), 1e-6)
        trunks = self.standardised(trunks)
        most = min(self.config.coordinates, len(trunks) - 1, self.numel)
        if most > 0:
            _, length, directions = torch.linalg.svd(trunks, full_matrices=False)
            self.basis.data[:most] = directions[:most] * (length[:most, None] / len(trunks) ** 0.5)
        self.row_centre.data = rows.mean((0, 1))
        self.row_unit.data[0] = max(float(rows.std(correction=0)), 1e-6)
        self.average_rows.data = rows.mean(0)
        flat = images.flatten(1)
        self.pixel_mean.data = flat.mean(0)
        _, length, directions = torch.linalg.svd(flat - self.pixel_mean, full_matrices=False)
        most = min(self.config.components, len(length))
        spread = length[:most] / len(flat) ** 0.5
        # Components far below the first ones are noise: they are not blown up to unit variance.
        self.pixel_basis.data[:, :most] = directions[:most].T / (spread + 0.1 * spread[0].clamp_min(1e-6))
        return trunks, rows

    @torch.no_grad()
    def keep(self, trunks: Tensor, rows: Tensor, accuracy: Tensor) -> None:
        """Keep these members (Z, …) as the zoo's sample."""
        for name, value in (("zoo_trunks", trunks), ("zoo_rows", rows), ("zoo_accuracy", accuracy)):
            setattr(self, name, nn.Parameter(value.clone(), requires_grad=False))
        self.register_to_config(zoo_size=len(trunks))
