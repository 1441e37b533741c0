"""Classifier heads as batched state dicts.

A head's state dict is that of a torch module: ``weight`` (C, d) and ``bias`` (C,) of a `torch.nn.Linear`, or
``0.weight`` (h, d), ``0.bias`` (h,), ``2.weight`` (C, h), ``2.bias`` (C,) of ``Sequential(Linear, ReLU, Linear)``.
Every function takes any number of leading batch axes: many heads are one state dict.
"""

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

# Tensors whose first axis is the class: those that a permutation of the classes permutes.
CLASS_TENSORS = ("weight", "bias", "2.weight", "2.bias")


def head_shapes(probe: str, num_features: int, num_classes: int, hidden: int = 0) -> dict[str, tuple[int, ...]]:
    """Shapes of a head's tensors; ``probe`` is ``"linear"`` or ``"mlp"``."""
    if probe == "linear":
        return {"weight": (num_classes, num_features), "bias": (num_classes,)}
    return {
        "0.weight": (hidden, num_features),
        "0.bias": (hidden,),
        "2.weight": (num_classes, hidden),
        "2.bias": (num_classes,),
    }


def logits(state: State, features: Tensor) -> Tensor:
    """Outputs of a batch of heads.

    Args:
        state: tensors with leading axes (...,), for instance ``weight`` (..., C, d).
        features: (n, d) shared by all heads, or (..., n, d).
    Returns:
        (..., n, C)
    """
    if "weight" in state:
        return _linear(features, state["weight"], state["bias"])
    hidden = torch.relu(_linear(features, state["0.weight"], state["0.bias"]))
    return _linear(hidden, state["2.weight"], state["2.bias"])


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.dim() == 2 and weight.dim() > 2:  # one matrix product for all heads
        rows = (x @ weight.flatten(0, -2).T).reshape(len(x), *weight.shape[:-1])
        return rows.movedim(0, -2) + bias.unsqueeze(-2)
    return x @ weight.mT + bias.unsqueeze(-2)


def fold_projection(state: State, projection: Tensor, mean: Tensor) -> State:
    """Heads on projected features → heads on the encoder's own features, with the same logits exactly.

    The projected features are ``(x - mean) @ projection.T``; hence ``W' = W P`` and ``b' = b - W P mean``.

    Args:
        state: heads that take (..., k) features.
        projection: P (k, d).
        mean: (d,).
    """
    first = "weight" if "weight" in state else "0.weight"
    bias = first.replace("weight", "bias")
    weight = state[first] @ projection
    return {**state, first: weight, bias: state[bias] - weight @ mean}


def select_classes(state: State, index: Tensor | slice) -> State:
    """The heads with only the class rows in ``index``, in that order."""
    axis = {name: -2 if name.endswith("weight") else -1 for name in CLASS_TENSORS}
    return {
        name: (tensor[..., index, :] if axis[name] == -2 else tensor[..., index]) if name in axis else tensor
        for name, tensor in state.items()
    }


def pick(state: State, index: int | slice | Tensor) -> State:
    """The head or heads at ``index`` of the leading batch axis."""
    return {name: tensor[index] for name, tensor in state.items()}


def build_head(state: State) -> nn.Module:
    """The `nn.Linear`, or ``Sequential(Linear, ReLU, Linear)``, with the weights of one head's state dict."""
    if "weight" in state:
        classes, width = state["weight"].shape
        module: nn.Module = nn.Linear(width, classes)
    else:
        hidden, width = state["0.weight"].shape
        module = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, len(state["2.bias"])))
    module.load_state_dict(state)
    return module.eval()
