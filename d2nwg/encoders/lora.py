"""Frozen networks with a low-rank adapter (LoRA, Hu et al., arXiv 2106.09685), whose matrices are tensors that can be
set, trained and read; and a sentence encoder with one: texts in, unit vectors out."""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from d2nwg.data.text_set import Text
from d2nwg.encoders.base import fingerprint
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER, load_sentence_transformer
from d2nwg.utils.devices import resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.fields import Count
from d2nwg.utils.text import shown, utf8

if TYPE_CHECKING:
    from peft import LoraConfig

PREFIX = "base_model.model."  # of tensor names in the files of peft
INITIAL_SEED = 0  # of the one initialisation of A that all adapters start from
IDLE = 2  # encoders that are kept for the next one who needs such a one


@dataclass(frozen=True)
class LoraShape:
    """Which matrices an adapter changes, and by how many ranks.

    Attributes:
        base: name of the encoder, as `d2nwg.encoders.texts.load_text_encoder` takes it (open_clip's are none of these),
            or of the language model.
        rank: r of ΔW = (alpha / r) B A.
        alpha: its scale.
        targets: names of the layers whose weights change; none for those that peft knows for the architecture (query
            and value).
        max_tokens: what is beyond them is cut off.
    """

    base: str = DEFAULT_TEXT_ENCODER
    rank: Count = 8
    alpha: Count = 16
    targets: tuple[str, ...] = ()
    max_tokens: Count = 128

    @property
    def scale(self) -> float:
        """Of B A in ΔW."""
        return self.alpha / self.rank

    @classmethod
    def from_json(cls, shape: dict[str, Any]) -> "LoraShape":
        """The shape that ``dataclasses.asdict`` and JSON made a dictionary of, which has a list of targets.

        Raises:
            UserError: it is something else.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(shape)
        except ValidationError as reason:
            where = shown(".".join(map(str, reason.errors(include_input=False)[0]["loc"])) or "its beginning")
            raise UserError(f"The description of these adapters is damaged at {where}: make them again.") from reason


class Adapted:
    """A frozen network with one adapter in it.

    Attributes:
        shape: of the adapter.
        network: with the adapter; in evaluation mode.
        device: that it computes on.
        key: differs for other base weights.
        config: peft's, as the adapter's files hold it.
    """

    shape: LoraShape
    network: nn.Module
    device: torch.device
    key: str
    config: "LoraConfig"

    def inject(self, body: nn.Module, shape: LoraShape, dropout: float, task: str) -> None:
        """Put an adapter into the layers of ``body``, at the initialisation that all adapters start from.

        Args:
            body: what peft knows the architecture of; its tensor names are those of the adapter's files.
            task: ``FEATURE_EXTRACTION`` or ``CAUSAL_LM``, for peft.
        Raises:
            UserError: it has no such layers, or is less wide than the rank.
        """
        from peft import LoraConfig, inject_adapter_in_model

        self.shape, self._body = shape, body
        most = getattr(body.config, "hidden_size", 10_000)
        if shape.rank > most:
            raise UserError(f"The rank {shape.rank:,} is more than {shown(shape.base)} is wide: at most {most:,}.")
        options: dict[str, Any] = {"r": shape.rank, "lora_alpha": shape.alpha, "lora_dropout": dropout}
        self.config = LoraConfig(**options, task_type=task, target_modules=list(shape.targets) or None)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            torch.manual_seed(INITIAL_SEED)
            warnings.simplefilter("ignore", UserWarning)  # of peft, about matrices that are stored transposed
            try:
                inject_adapter_in_model(self.config, body)
            except ValueError as reason:
                why = str(reason) if shape.targets else "peft does not know its layers; name some with --targets."
                raise UserError(f"{shown(shape.base)} cannot take this adapter: {why}") from reason
        self._initial = self.state()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's matrices by the names that peft gives them, in module order."""
        named = self._body.named_parameters()
        return {name.replace(".default", ""): value for name, value in named if ".lora_" in name}

    def state(self) -> dict[str, Tensor]:
        """Copies of the matrices, float32 on the CPU: ``….lora_A.weight`` (r, in) and ``….lora_B.weight`` (out, r)."""
        return {name: value.detach().float().cpu().clone() for name, value in self.parameters.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Set the matrices.

        Raises:
            UserError: they are those of another network, or of other layers.
        """
        own = self.parameters
        if state.keys() != own.keys() or any(state[name].shape != own[name].shape for name in own):
            raise UserError(f"These matrices are no adapter of {shown(self.shape.base)} with rank {self.shape.rank}.")
        for name, value in own.items():
            value.copy_(state[name])

    def reset(self) -> None:
        """Back to the initialisation that all adapters start from: B = 0, so that nothing is changed."""
        self.load(self._initial)


class AdaptedEncoder(Adapted):
    """A frozen sentence encoder and one adapter in it.

    Attributes:
        num_features: width of a vector.
    """

    network: Any  # a SentenceTransformer

    def __init__(self, shape: LoraShape, device: str | None = None, dropout: float = 0.0):
        """Raises UserError for an encoder that cannot be loaded, or that has no such layers."""
        self.device = torch.device(resolve_device(device))
        network = load_sentence_transformer(shape.base, str(self.device))  # one of its own: layers are put into it
        network.requires_grad_(False)
        self.key = fingerprint(network)
        network.max_seq_length = min(shape.max_tokens, network.max_seq_length or shape.max_tokens)
        self.inject(network[0].auto_model, shape, dropout, "FEATURE_EXTRACTION")
        self.network = network.to(self.device).eval()
        self.num_features = int(self.embed(["width"]).shape[-1])

    def tokens(self, texts: Sequence[Text]) -> dict[str, Tensor]:
        """What `forward` takes: the padded batch of texts."""
        tokenizer = self.network.tokenizer
        pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
        first = [utf8(pair[0]) for pair in pairs]
        second = [utf8(pair[1]) for pair in pairs if pair[1] is not None]
        if second and len(second) < len(first):
            raise ValueError("some texts are pairs, and some are not")
        given = (first, second) if second else (first,)
        batch = tokenizer(
            *given, padding=True, truncation=True, max_length=self.network.max_seq_length, return_tensors="pt"
        )
        return {name: value.to(self.device) for name, value in batch.items()}

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """(n, num_features) vectors of unit length, with gradients to the adapter."""
        return normalize(self.network(dict(tokens))["sentence_embedding"].float(), dim=-1)

    @torch.inference_mode()
    def embed(self, texts: Sequence[Text], batch: int = 64) -> Tensor:
        """Texts → (n, num_features) float32 of unit length on the CPU."""
        found = torch.zeros(len(texts), 0)
        for part in by_length(texts, batch):
            rows = self.forward(self.tokens([texts[i] for i in part])).cpu()
            if not found.shape[1]:
                found = torch.zeros(len(texts), rows.shape[1])
            found[part] = rows
        return found


_idle: list[AdaptedEncoder] = []
_idle_lock = threading.Lock()


@contextmanager
def adapted_encoder(shape: LoraShape, device: str | None = None) -> Iterator[AdaptedEncoder]:
    """An encoder without an adapter's effect, of which nobody else has hold meanwhile. Loading one takes longer than
    making an adapter, so that they are kept.

    Raises:
        UserError: as `AdaptedEncoder`.
    """
    wanted = torch.device(resolve_device(device))
    with _idle_lock:
        place = next((n for n, one in enumerate(_idle) if one.shape == shape and one.device == wanted), None)
        encoder = None if place is None else _idle.pop(place)
    encoder = encoder or AdaptedEncoder(shape, str(wanted))
    encoder.reset()
    yield encoder  # one whose use failed is not kept
    with _idle_lock:
        _idle.append(encoder)
        del _idle[:-IDLE]


def length(text: Text) -> int:
    """Characters of a text, or of both of a pair."""
    return sum(map(len, text)) if isinstance(text, tuple) else len(text)


def by_length(texts: Sequence[Text], batch: int) -> Iterator[list[int]]:
    """Numbers of texts in batches of similar length: less padding."""
    order = sorted(range(len(texts)), key=lambda i: length(texts[i]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]
