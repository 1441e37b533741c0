"""Low-rank adapters of a causal language model: the model with one in it, the weights that it makes of the model's, and
averages of several.

An adapter changes a matrix by ΔW = (alpha / r) B A. Equal changes have different factors (M B and A M⁻¹ for any
invertible M), so that averages are taken of ΔW, never of A and B.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from d2nwg.encoders.lora import Adapted, LoraShape
from d2nwg.llm.models import LanguageModel, load_language_model
from d2nwg.llm.pack import Row, inputs_of
from d2nwg.llm.score import likelihoods
from d2nwg.llm.sources import sha256
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown, some
from d2nwg.weights.info import LANGUAGE_MODEL
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.networks import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

A, B = ".lora_A.weight", ".lora_B.weight"  # ends of tensor names


class AdaptedModel(Adapted):
    """A frozen language model and one adapter in it.

    Attributes:
        model: with the adapter.
    """

    network: "PreTrainedModel"

    def __init__(self, shape: LoraShape, device: str | None = None, dropout: float = 0.0, progress: Progress = silent):
        """Raises UserError for a model that cannot be loaded, or that has no such layers."""
        self.model = load_language_model(shape.base, device=device, fresh=True, progress=progress)
        self.network, self.device = self.model.model, self.model.device
        self.key = key_of(self.model)
        self.inject(self.network, shape, dropout, "CAUSAL_LM")
        if odd := [name for name in self.parameters if not name.endswith((A, B))]:
            layers = sorted({name.partition(".lora_")[0] for name in odd})
            raise UserError(f"{shown(shape.base)}: {some(layers)} cannot be adapted: choose linear layers (--targets).")
        if getattr(self.network.config, "tie_word_embeddings", False) and hasattr(
            self.network.get_output_embeddings(), "lora_A"
        ):
            raise UserError(
                f"The output head of {shown(shape.base)} is its table of embeddings, and cannot change alone: choose "
                "other layers (--targets)."
            )
        for value in self.parameters.values():
            value.data = value.data.float()  # where the model is stored in half precision, learning needs more
        self.network.eval()

    def likelihoods(self, rows: Sequence[Row]) -> Tensor:
        """(N,) log-likelihoods of the tokens that packed questions score, with gradients to the adapter."""
        decoder = self.network.get_decoder() if hasattr(self.network, "get_decoder") else self.network.base_model
        states = decoder(**inputs_of(self.model, rows), use_cache=False).last_hidden_state
        return likelihoods(self.model, rows, states)


def key_of(model: LanguageModel) -> str:
    """A digest of a model's weights as they are stored: in memory they depend on the device."""
    files = sorted(model.folder.glob("*.safetensors"))
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def shape_of(zoo: ModelZoo, model: LanguageModel) -> LoraShape:
    """What the adapters of a zoo change of a model.

    Raises:
        UserError: they are adapters of another model or of a text encoder, or it is a zoo of something else.
    """
    about = zoo.adapters
    if about is None or about.base != LANGUAGE_MODEL:
        raise UserError(f"{zoo.path} is no zoo of adapters of a language model: make one with `zoo build --llm`.")
    try:
        shape = LoraShape.from_json(about.shape)
        if "targets" not in about.shape or not shape.scale > 0:  # the others have defaults
            raise ValueError(shape.scale)
    except (TypeError, KeyError, ValueError, ZeroDivisionError) as reason:
        raise UserError(f"The zoo.json of {zoo.path} is damaged at adapters.shape: build the zoo again.") from reason
    if about.encoder_key != key_of(model):
        raise UserError(
            f"{zoo.path} holds adapters of {shown(shape.base)}, whose weights are others than those of "
            f"{shown(model.name)}: give that model, or build a zoo of this one."
        )
    return shape


def factors(model: "LanguageModel | PreTrainedModel", state: State) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter's matrices as factors of what it adds to each matrix of its base.

    Args:
        model: the base, without the adapter.
        state: a checkpoint of a zoo of its adapters.
    Returns:
        Name in the base's state dict → (rows, r) and (r, columns), float32: ``scale`` times their product is ΔW in the
        shape of the base's tensor.
    Raises:
        UserError: it is no adapter of this model.
    """
    network = model.model if isinstance(model, LanguageModel) else model
    found = {}
    for name in state:
        if not name.endswith(A):
            continue
        layer = name[: -len(A)]
        try:
            module, up, down = network.get_submodule(layer), state[layer + B].float(), state[name].float()
        except (AttributeError, KeyError) as reason:
            raise _other(layer) from reason
        weight = getattr(module, "weight", None)
        left, right = (up, down) if isinstance(module, nn.Linear) else (down.T, up.T)  # GPT-2's Conv1D holds (in, out)
        if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
            raise _other(layer)
        if not isinstance(weight, Tensor) or weight.shape != (len(left), right.shape[1]):
            raise _other(layer)
        found[f"{layer}.weight"] = left, right
    if len(state) != 2 * len(found):
        raise UserError("This checkpoint holds more than an adapter's matrices A and B, or less.")
    return found


def changes(model: "LanguageModel | PreTrainedModel", state: State, scale: float) -> dict[str, Tensor]:
    """What an adapter adds to each matrix of its base; arguments and errors as of `factors`.

    Args:
        scale: `d2nwg.encoders.lora.LoraShape.scale`.
    Returns:
        Name in the base's state dict → ΔW = scale · B A, float32 on the CPU, in the shape of the base's tensor.
    """
    return {name: scale * (left @ right) for name, (left, right) in factors(model, state).items()}


def _other(layer: str) -> UserError:
    return UserError(f"This is no adapter of that model: it does not fit its layer {shown(layer)}.")


def add(model: "LanguageModel | PreTrainedModel", change: dict[str, Tensor]) -> dict[str, Tensor]:
    """The base's matrices with changes added: name in its state dict → W + ΔW, in the base's number format, on its
    device."""
    network = model.model if isinstance(model, LanguageModel) else model
    held = dict(network.named_parameters())
    return {
        name: (held[name].detach().float() + added.to(held[name].device)).to(held[name].dtype)
        for name, added in change.items()
    }


def merged(model: "LanguageModel | PreTrainedModel", state: State, scale: float) -> dict[str, Tensor]:
    """The matrices that an adapter makes of its base's: name in the base's state dict → W + scale · B A; arguments and
    errors as of `changes`."""
    return add(model, changes(model, state, scale))


@torch.no_grad()
def soup(model: "LanguageModel | PreTrainedModel", states: Iterable[State], scale: float) -> dict[str, Tensor]:
    """The average ΔW of several adapters, by name in the base's state dict, for `add`.

    Raises:
        UserError: as `changes`, there are none, or they change different matrices.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for state in states:
        found = changes(model, state, scale)
        if total and found.keys() != total.keys():
            raise UserError("These adapters change different matrices, so that they have no average.")
        total = {name: total[name] + change if name in total else change for name, change in found.items()}
        count += 1
    if not count:
        raise UserError("There is no adapter to average.")
    return {name: change / count for name, change in total.items()}
