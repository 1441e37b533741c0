"""Thousands of probes trained in one batched optimisation, without a loop over probes.

Every function takes B problems of equal padded shape: features (B, n, d), labels (B, n), and a weight for each image
that is 0 for padding. Problems with fewer than C classes leave the last rows unused.
"""

import torch
from torch import Tensor

from d2nwg.weights.networks import State, head_shapes, logits


def fit_linear(
    features: Tensor,
    labels: Tensor,
    image_weight: Tensor,
    num_classes: Tensor,
    max_classes: int,
    *,
    l2: float,
    iterations: int = 12,
    checkpoints: int = 1,
) -> State:
    """Multinomial logistic regression for B problems together.

    Minimises mean cross-entropy + l2/2 · ‖W‖² by Newton steps with Böhning's fixed bound on the Hessian (Ann. Inst.
    Stat. Math. 44, 1992), ½ XᵀX: one Cholesky factor a problem for all steps, of which twelve suffice with Nesterov's
    momentum. The initial weights are zero, so the rows of every iterate sum to zero over the classes.

    Args:
        features: (B, n, d).
        labels: (B, n) int64 in [0, num_classes).
        image_weight: (B, n), 1 for an image and 0 for padding.
        num_classes: (B,) classes of each problem.
        max_classes: C, rows of the result.
        l2: strength of the penalty on W; the bias is not penalised.
        iterations: Newton steps.
        checkpoints: how many of the last iterates to return.
    Returns:
        ``weight`` (B, checkpoints, C, d) and ``bias`` (B, checkpoints, C); unused rows are zero.
    """
    classes = torch.arange(max_classes, device=features.device)
    used = classes < num_classes.unsqueeze(1)
    offset = torch.where(used, 0.0, -torch.inf).to(features.dtype).unsqueeze(-1)
    share = (image_weight / image_weight.sum(1, keepdim=True)).unsqueeze(1)
    # On centred features the bound on the Hessian is block-diagonal; the entry of the bias is a half.
    mean = share @ features
    x = features - mean
    # With classes before images, (B, C, n), both products read contiguous rows: three times as fast on a CPU.
    flipped = x.mT.contiguous()
    target = (labels.unsqueeze(1) == classes.unsqueeze(1)).to(x.dtype)
    ridge = (l2 * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)).expand(len(x), -1, -1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.baddbmm(ridge, flipped * share, x, alpha=0.5)))
    weight = old_weight = x.new_zeros(len(x), max_classes, x.shape[-1])
    bias = old_bias = x.new_zeros(len(x), max_classes, 1)
    momentum, kept = 1.0, []
    for step in range(iterations):
        following = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
        ahead, momentum = 1 + (momentum - 1) / following, following
        w, b = torch.lerp(old_weight, weight, ahead), torch.lerp(old_bias, bias, ahead)
        residual = torch.baddbmm(b + offset, w, flipped).softmax(1).sub_(target).mul_(share)
        gradient = torch.baddbmm(w, residual, x, beta=l2)
        old_weight, weight = weight, torch.baddbmm(w, gradient, inverse, alpha=-1)
        old_bias, bias = bias, b - 2 * residual.sum(-1, keepdim=True)
        if step >= iterations - checkpoints:
            kept.append((weight, bias - weight @ mean.mT))
    weights, biases = (torch.stack(path, 1) * used[:, None, :, None] for path in zip(*kept, strict=True))
    return {"weight": weights, "bias": biases.squeeze(-1)}


def fit_mlp(
    features: Tensor,
    labels: Tensor,
    image_weight: Tensor,
    num_classes: Tensor,
    max_classes: int,
    *,
    hidden: int,
    l2: float,
    generator: torch.Generator,
    iterations: int = 150,
    learning_rate: float = 0.01,
    checkpoints: int = 1,
) -> State:
    """Two-layer heads (Linear, ReLU, Linear) for B problems together, by Adam on all images (paper appendix B).

    Arguments as in `fit_linear`; the initial weights are drawn from ``generator``.

    Returns:
        ``0.weight`` (B, checkpoints, h, d), ``0.bias``, ``2.weight`` (B, checkpoints, C, h), ``2.bias``.
    """
    batch, _, width = features.shape
    used = torch.arange(max_classes, device=features.device) < num_classes.unsqueeze(1)
    share = image_weight / image_weight.sum(1, keepdim=True)
    state = {}
    for name, shape in head_shapes("mlp", width, max_classes, hidden).items():
        scale = (2.0 / shape[-1]) ** 0.5 if name == "0.weight" else 0.0 if name.endswith("bias") else shape[-1] ** -0.5
        value = torch.randn(batch, *shape, generator=generator).to(features) * scale
        state[name] = value.requires_grad_()
    optimiser = torch.optim.Adam(state.values(), lr=learning_rate, foreach=True)
    rows = {"2.weight": used[:, :, None], "2.bias": used}
    kept = []
    for step in range(iterations):
        log_p = logits(state, features).masked_fill(~used.unsqueeze(1), -torch.inf).log_softmax(-1)
        loss = -(log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1) * share).sum()
        # Summed over problems, so that a problem's gradient does not depend on the others of the batch.
        loss = loss + 0.5 * l2 * (
            state["0.weight"].square().sum() + (state["2.weight"] * rows["2.weight"]).square().sum()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step >= iterations - checkpoints:
            kept.append({n: (v * rows[n] if n in rows else v).detach().clone() for n, v in state.items()})
    return {name: torch.stack([k[name] for k in kept], 1) for name in state}


def masked_accuracy(
    state: State, features: Tensor, labels: Tensor, image_weight: Tensor, num_classes: Tensor
) -> Tensor:
    """Accuracy of each head on its own images.

    Args:
        state: (B, …) heads padded to C classes.
        features, labels, image_weight, num_classes: as in `fit_linear`.
    Returns:
        (B,) fractions.
    """
    scores = logits(state, features)
    used = torch.arange(scores.shape[-1], device=scores.device) < num_classes.unsqueeze(1)
    right = scores.masked_fill(~used.unsqueeze(1), -torch.inf).argmax(-1) == labels
    return (right * image_weight).sum(1) / image_weight.sum(1).clamp_min(1)
