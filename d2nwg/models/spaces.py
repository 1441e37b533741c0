"""What bundles know of the weights that they generate: of heads (`WeightSpace`) and of networks (`NetworkSpace`)."""

from collections.abc import Iterable
from functools import cached_property

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown, some
from d2nwg.weights.layer_types import match_tensors
from d2nwg.weights.layouts import ChunkedLayout, WholeLayout, layer_of
from d2nwg.weights.networks import State, fold_projection, select_classes


class WeightSpace(ModelMixin, ConfigMixin):
    """Turns features into what a generator sees, and generated vectors into heads.

    Args:
        encoder: name of the image encoder that the heads sit on.
        preprocessing: the encoder's, as it was for the zoo.
        layout: a `WholeLayout` as JSON.
        num_features: D, width of the encoder's features.
        projected: k, principal components that heads are learnt on.
        zoo_size: heads of the zoo that the bundle keeps.
        conditions: number and width of the data-set embeddings z_D that the bundle keeps, of tasks of the zoo.

    Tensors: ``mean`` (D,), ``projection`` (k, D), and of the kept zoo heads ``zoo_vectors`` (Z, N) standardised,
    classes in canonical order, ``zoo_counts`` (Z,) and ``zoo_accuracy`` (Z,); ``zoo_conditions`` as given, or None.
    """

    @register_to_config
    def __init__(
        self,
        encoder: str,
        preprocessing: dict,
        layout: dict,
        num_features: int,
        projected: int,
        zoo_size: int = 0,
        conditions: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.layout = WholeLayout(**layout)

        def kept(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape), requires_grad=False)

        self.mean, self.projection = kept(num_features), kept(projected, num_features)
        self.zoo_vectors, self.zoo_counts = kept(zoo_size, self.layout.size), kept(zoo_size)
        self.zoo_accuracy = kept(zoo_size)
        self.zoo_conditions = kept(*conditions) if conditions else None

    @property
    def max_classes(self) -> int:
        """C_max, the most classes a generated head can have."""
        return self.layout.num_classes

    def project(self, features: Tensor) -> Tensor:
        """(…, D) → (…, k)."""
        return (features - self.mean) @ self.projection.T

    def canonical_order(self, class_means: Tensor) -> Tensor:
        """Class means (C, k) → the order in which the classes take their slots: along the first component.

        Whatever order a user names the classes in, the generator sees them in this one, so that permuting the classes
        permutes the rows of the generated heads and changes nothing else.
        """
        return torch.argsort(class_means[:, 0], stable=True)

    def to_heads(self, vectors: Tensor, order: Tensor) -> State:
        """Standardised vectors (S, N), slots in ``order`` → heads (S, …) on the encoder's own features, classes in
        the user's order."""
        state = select_classes(self.layout.unflatten(vectors), torch.argsort(order))
        return fold_projection(state, self.projection, self.mean)

    def to_vectors(self, state: State, order: Tensor) -> Tensor:
        """The reverse of `to_heads` for heads (S, …) on the encoder's features: (S, N), by least squares where a head
        does not lie in the projected space."""
        first = "weight" if "weight" in state else "0.weight"
        bias = first.replace("weight", "bias")
        # The pseudo-inverse (D, k), as the rows of the projection are independent; every sampling comes by here.
        inverse = torch.linalg.solve(self.projection @ self.projection.T, self.projection).T
        rows = {**state, first: state[first] @ inverse, bias: state[bias] + state[first] @ self.mean}
        padded = {}
        for name, tensor in select_classes(rows, order).items():
            padded[name] = tensor.new_zeros(len(tensor), *self.layout.shapes[name])
            padded[name][:, : tensor.shape[1]] = tensor
        counts = torch.full((len(state[bias]),), len(order), device=self.mean.device)
        return self.layout.flatten(padded) * self.layout.mask(counts)

    def condition_distance(self, conditions: Tensor) -> Tensor:
        """Euclidean distance of data-set embeddings (B, E) to the nearest one of the zoo, (B,)."""
        return torch.cdist(conditions, self.zoo_conditions).min(1).values

    def seen_radius(self, share: float = 0.95) -> float:
        """The distance to the nearest other task within which this share of the zoo's own tasks lie."""
        between = torch.cdist(self.zoo_conditions, self.zoo_conditions)
        return float(between.fill_diagonal_(torch.inf).min(1).values.quantile(share))


class NetworkSpace(ModelMixin, ConfigMixin):
    """Networks of several architectures ↔ vectors of one length, and the ids that are a generator's condition.

    A network's chunks (`ChunkedLayout`) stand one after another, zero-padded to the longest architecture's. What is
    encoded and sampled as one is an item: the network's whole vector, seen as one token (``whole``) or a token a chunk
    (``chunked``); or each chunk for itself (``independent``). Each token has two ids: its place in its architecture,
    and the task. An item is named by the numbers of architecture and task, and with ``independent`` of the chunk.

    Args:
        architectures: one dict each: ``name`` (of its first checkpoint), ``layout`` (a `ChunkedLayout` as JSON),
            ``order`` (all tensor names in module order) and ``left_out``, [name, shape, type] of those that are in no
            layout.
        tasks: names of the zoo's tasks.
        tokens: T, 1 or the most chunks of an architecture.
        latent_shape: of one latent.
        zoo_size: latents that the bundle keeps, of the items of zoo members.
        independent: every chunk is an item.

    Networks from a common start differ little from each other. So a vector is the difference of a network from the mean
    of its architecture, in units of each tensor's standard deviation about that mean, and a latent, before it is
    scaled, is a difference from the mean of its architecture and task. Otherwise training learns only what they share.

    Tensors: ``centres`` and ``units`` (architectures, N) of vectors; ``latent_centres`` (kinds of items × tasks, c, h,
    w); of the zoo ``zoo_latents`` (Z, c, h, w), unscaled means, ``zoo_members`` (Z, 2 or 3), the items' names, and
    ``zoo_accuracy`` (Z,), NaN where it is not known.
    """

    @register_to_config
    def __init__(
        self,
        architectures: list[dict],
        tasks: list[str],
        tokens: int = 1,
        latent_shape: tuple[int, int, int] = (4, 8, 8),
        zoo_size: int = 0,
        independent: bool = False,
    ):
        super().__init__()
        self.layouts = [ChunkedLayout(**architecture["layout"]) for architecture in architectures]
        self.lengths = [len(layout.places) for layout in self.layouts]
        self.pieces = self.lengths if independent else [1] * len(self.layouts)

        def kept(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape), requires_grad=False)

        self.centres, self.units = kept(len(self.layouts), self.size), kept(len(self.layouts), self.size)
        self.units.data.fill_(1)
        self.latent_centres = kept(sum(self.pieces) * len(tasks), *latent_shape)
        self.zoo_latents, self.zoo_members = kept(zoo_size, *latent_shape), kept(zoo_size, 3 if independent else 2)
        self.zoo_accuracy = kept(zoo_size)

    @property
    def size(self) -> int:
        """N, length of a vector."""
        return max(self.lengths) * self.layouts[0].chunk

    @property
    def item_size(self) -> int:
        """Numbers of an item."""
        return self.layouts[0].chunk if self.config.independent else self.size

    @property
    def names(self) -> list[str]:
        """Names of the ids: the tasks, then the places."""
        places = [f"architecture-{i}/{k}" for i, count in enumerate(self._tokens()) for k in range(count)]
        return [f"task/{name}" for name in self.config.tasks] + places

    def _tokens(self) -> list[int]:
        """Tokens that each architecture uses, in all of its items."""
        joint = self.config.tokens > 1 or self.config.independent
        return self.lengths if joint else [1] * len(self.lengths)

    def items(self, member: Tensor) -> Tensor:
        """(2,) numbers of architecture and task → (P, 2 or 3), the items of such a network, in order."""
        if not self.config.independent:
            return member.long().unsqueeze(0)
        count = self.pieces[int(member[0])]
        return torch.cat([member.long().expand(count, 2), torch.arange(count).unsqueeze(1)], 1)

    def _places(self, items: Tensor) -> Tensor:
        """(B, 2 or 3) items → (B,) number of their kind: of the architecture, or of the chunk in it."""
        first = torch.tensor([0, *self.pieces]).cumsum(0)[items[:, 0].long().cpu()]
        return first + (items[:, 2].long().cpu() if self.config.independent else 0)

    def centre(self, vectors_of: Iterable[tuple[int, Tensor]]) -> None:
        """Measure ``centres`` and ``units`` on (architecture number, vector (N,)) of networks, read one at a time.
        Architectures with fewer than three stay as they are."""
        count = torch.zeros(len(self.layouts))
        total = torch.zeros(*self.centres.shape, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for architecture, vector in vectors_of:
            count[architecture] += 1
            total[architecture] += vector
            squares[architecture] += vector.double().square()
        for number, layout in enumerate(self.layouts):
            if count[number] < 3:
                continue
            mean = total[number] / count[number]
            variance = (squares[number] / count[number] - mean.square()).clamp_min(0)
            self.centres.data[number] = mean.float()
            for span in layout.spans.values():
                self.units.data[number, span] = float(variance[span].mean().sqrt()) or 1.0

    def group(self, items: Tensor) -> Tensor:
        """(B, 2 or 3) items → (B,) rows of ``latent_centres``."""
        return self._places(items).to(items.device) * len(self.config.tasks) + items[:, 1].long()

    def ids(self, items: Tensor) -> Tensor:
        """(B, 2 or 3) items → (B, 2 T) ids, -1 for tokens that the architecture does not use."""
        if self.config.independent:
            return torch.stack([len(self.config.tasks) + self._places(items), items[:, 1].long().cpu()], 1)
        tokens = self._tokens()
        first = len(self.config.tasks) + torch.tensor([0, *tokens]).cumsum(0)
        rows = torch.full((len(items), self.config.tokens, 2), -1)
        for row, (architecture, task) in zip(rows, items.long().tolist(), strict=True):
            row[: tokens[architecture], 0] = first[architecture] + torch.arange(tokens[architecture])
            row[: tokens[architecture], 1] = task
        return rows.flatten(1)

    def mask(self, items: Tensor) -> Tensor:
        """(B, 2 or 3) items → (B, numbers of an item) bool, those that count."""
        architectures = items[:, 0].long().cpu()
        if not self.config.independent:
            return self._masks[architectures]
        return self._masks.reshape(len(self._masks), -1, self.item_size)[architectures, items[:, 2].long().cpu()]

    @cached_property
    def _masks(self) -> Tensor:
        masks = [layout.mask().flatten() for layout in self.layouts]
        return torch.stack([nn.functional.pad(mask, (0, self.size - len(mask))) for mask in masks])

    @property
    def item_centres(self) -> Tensor:
        """``centres`` by item, (architectures, P, numbers of an item)."""
        return self.centres.unflatten(1, (-1, self.item_size))

    @property
    def item_units(self) -> Tensor:
        """``units`` by item."""
        return self.units.unflatten(1, (-1, self.item_size))

    def matching(self, like: State, architecture: int) -> tuple[list[int], ChunkedLayout]:
        """For another architecture, whose state dict is given: which chunks of this one stand for its chunks, in order,
        and its layout, standardised as this one's.

        Raises:
            UserError: as `match_tensors`.
        """
        own = self.layouts[architecture]
        shapes = ChunkedLayout.of(like, own.chunk, own.batchnorm).shapes
        matches, order = match_tensors(own.shapes, shapes), list(own.shapes)
        # Files need not keep the module's order; in a layer it has to be the one that its chunks have.
        shapes = dict(sorted(shapes.items(), key=lambda item: order.index(matches[item[0]])))
        mean, std = ({name: of[match] for name, match in matches.items()} for of in (own.mean, own.std))
        layout = ChunkedLayout(shapes, own.chunk, own.batchnorm, mean, std)
        numbers = {place: number for number, place in enumerate(own.places)}
        layers = {name: number for number, name in enumerate(own.layers)}
        theirs = [layers[layer_of(matches[names[0]])] for names in layout.layers.values()]
        return [numbers[theirs[layer], position] for layer, position in layout.places], layout

    def to_vectors(self, state: State, architecture: int) -> Tensor:
        """Networks (B, …) of one architecture → (B, N) standardised."""
        chunks = self.layouts[architecture].flatten(state).flatten(1)
        vectors = nn.functional.pad(chunks, (0, self.size - chunks.shape[1]))
        return (vectors - self.centres[architecture]) / self.units[architecture]

    def to_states(self, vectors: Tensor, architecture: int) -> State:
        """(B, N) → networks (B, …), every tensor that the zoo's have, in module order.

        Counters are zero. BatchNorm statistics that the layout leaves out are those of a new layer: measure them with
        `d2nwg.weights.layouts.recalibrate`.
        """
        layout, about = self.layouts[architecture], self.config.architectures[architecture]
        length = self.lengths[architecture]
        vectors = vectors * self.units[architecture] + self.centres[architecture]
        state = layout.unflatten(vectors[:, : length * layout.chunk].reshape(len(vectors), length, layout.chunk))
        for name, shape, kind in about["left_out"]:
            fill = 1 if name.endswith("running_var") else 0
            state[name] = torch.full((len(vectors), *shape), fill, dtype=getattr(torch, kind), device=vectors.device)
        return {name: state[name] for name in about["order"]}

    def member(self, architecture: int | str, task: str | None) -> Tensor:
        """(2,) numbers of an architecture, by number from 0 or by name, and of a task, by name; None where the zoo
        has only one.

        Raises:
            UserError: the bundle has not seen them.
        """
        names, tasks = [one["name"] for one in self.config.architectures], self.config.tasks
        if isinstance(architecture, str):
            if architecture not in names:
                raise UserError(f"The bundle knows no architecture {shown(architecture)}: it knows {some(names, 6)}.")
            architecture = names.index(architecture)
        if isinstance(architecture, bool) or not isinstance(architecture, int) or not 0 <= architecture < len(names):
            raise UserError(f"The bundle has {len(names)} architectures, counted from 0.")
        if task is None and len(tasks) > 1:
            raise UserError(f"Say which task: the bundle knows {some(tasks, 6)}.")
        if task is not None and task not in tasks:
            raise UserError(f"The bundle has not seen the task {shown(task)}: it knows {some(tasks, 6)}.")
        return torch.tensor([architecture, tasks.index(task) if task else 0])

    def kept(self, member: Tensor) -> Tensor:
        """Which of the kept zoo latents are of this architecture and task, (Z,) bool."""
        return (self.zoo_members[:, :2] == member.to(self.zoo_members)).all(1)
