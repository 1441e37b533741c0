"""What a bundle knows of the weights it generates: layout, statistics, projection, a sample of the zoo."""

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

from d2nwg.weights.layout import WholeLayout
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

    def zoo_distance(self, vectors: Tensor, count: int) -> Tensor:
        """How far vectors (S, N) are from the nearest kept zoo head with as many classes: Euclidean distance over the
        numbers that count, divided by the vector's own length, (S,). NaN where the sample of the zoo has none."""
        same = self.zoo_vectors[self.zoo_counts == count]
        if not len(same):
            return torch.full((len(vectors),), torch.nan)
        mask = self.layout.mask(torch.tensor([count], device=vectors.device))
        vectors = vectors * mask
        return (torch.cdist(vectors, same).min(1).values / vectors.norm(dim=1).clamp_min(1e-12)).cpu()
