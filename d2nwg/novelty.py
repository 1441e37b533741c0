"""Does a generator invent or copy? A sampled head beside what the zoo alone could give."""

import torch
from torch import Tensor

from d2nwg.evaluate import accuracies
from d2nwg.models.space import WeightSpace

NEAREST = 3  # zoo heads that are averaged


def novelty(
    space: WeightSpace,
    vectors: Tensor | None,
    order: Tensor | None,
    query: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> dict[str, float] | None:
    """How far the average of the samples lies from its nearest zoo head, and how good what lies as near would be.

    Args:
        vectors: (S, N) sampled heads as vectors of the space's layout; None gives None, as does a zoo without heads of
            so many classes.
        order: (C,) canonical order of the classes.
        query, labels: (m, D) and (m,), held out.
        generator: of the noise.
    Returns:
        ``distance`` (Euclidean, as a share of the head's own length), and the accuracies of ``nearest_zoo_head``, of
        ``zoo_head_plus_noise`` (Gaussian, as long as that distance) and of ``average_of_nearest``.
    """
    if vectors is None:
        return None
    count = len(order)
    same = space.zoo_vectors[space.zoo_counts == count]
    if not len(same):
        return None
    mask = space.layout.mask(torch.tensor([count], device=vectors.device))[0]
    mean = vectors.mean(0) * mask
    distance, nearest = (same - mean).norm(dim=1).topk(min(NEAREST, len(same)), largest=False)
    noise = torch.randn(mean.shape, generator=generator).to(mean) * mask
    first = same[nearest[0]]
    rivals = torch.stack([first, first + noise * (distance[0] / noise.norm()), same[nearest].mean(0)])
    state = {name: tensor.cpu() for name, tensor in space.to_heads(rivals, order).items()}
    scores = accuracies(state, query, labels).tolist()
    names = ("nearest_zoo_head", "zoo_head_plus_noise", "average_of_nearest")
    rows = {"distance": float(distance[0] / mean.norm().clamp_min(1e-12)), **dict(zip(names, scores, strict=True))}
    return {name: round(value, 4) for name, value in rows.items()}
