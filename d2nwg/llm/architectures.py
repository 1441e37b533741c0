"""What causal language models are made of: a table of families, and the tensors of a model by it.

A family says, by paths inside its decoder, where the blocks are, which matrices a block has and how each lies to the
residual stream, and where norms, embeddings and the output head are. A model belongs to the family that most of its
blocks' matrices are in, so that a new model built like a known one needs no entry of its own.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from d2nwg.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

TYPES = ("q", "k", "v", "qkv", "o", "up", "gate", "gate_up", "down")
NORMS, VECTORS, HEAD, EMBEDDINGS = "norms", "vectors", "head", "embeddings"
PARTS = ("matrices", "norms", "head", "all")  # what can be generated
TITLES = {
    "q": "query", "k": "key", "v": "value", "qkv": "query, key and value", "o": "output", "up": "up", "gate": "gate",
    "gate_up": "gate and up", "down": "down", NORMS: "all norms", VECTORS: "all norms and biases",
    HEAD: "output head", EMBEDDINGS: "embeddings",
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One matrix of every block.

    Attributes:
        type: one of `TYPES`.
        path: of its module in the block.
        writes: it writes to the residual stream; otherwise it reads from it.
        transposed: stored as (inputs, outputs), as ``Conv1D`` does; a ``Linear`` is (outputs, inputs).
        fused: the matrices that lie side by side in it, along its outputs.
    """

    type: str
    path: str
    writes: bool = False
    transposed: bool = False
    fused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Where the parts of a decoder are. Paths of `norms` begin at a block, all others at the decoder; of a block's
    norms each model has some. `positions` is the table of learnt positions, which is added to what enters the first
    block."""

    name: str
    blocks: str
    kinds: tuple[Kind, ...]
    norms: tuple[str, ...]
    norm: str
    embeddings: str
    positions: str | None = None


_NORMS = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    "self_attn.q_norm", "self_attn.k_norm",
)  # fmt: skip
_O, _DOWN = Kind("o", "self_attn.o_proj", writes=True), Kind("down", "mlp.down_proj", writes=True)
FAMILIES = (
    Family(  # also Mistral, Qwen2, Qwen3, Gemma, SmolLM, Granite and others
        "Llama",
        "layers",
        (
            *(Kind(name, f"self_attn.{name}_proj") for name in ("q", "k", "v")),
            _O,
            *(Kind(name, f"mlp.{name}_proj") for name in ("gate", "up")),
            _DOWN,
        ),
        _NORMS,
        "norm",
        "embed_tokens",
    ),
    Family(
        "Phi-3",
        "layers",
        (
            Kind("qkv", "self_attn.qkv_proj", fused=("q", "k", "v")),
            _O,
            Kind("gate_up", "mlp.gate_up_proj", fused=("gate", "up")),
            _DOWN,
        ),
        _NORMS,
        "norm",
        "embed_tokens",
    ),
    Family(
        "GPT-2",
        "h",
        (
            Kind("qkv", "attn.c_attn", transposed=True, fused=("q", "k", "v")),
            Kind("o", "attn.c_proj", writes=True, transposed=True),
            Kind("up", "mlp.c_fc", transposed=True),
            Kind("down", "mlp.c_proj", writes=True, transposed=True),
        ),
        ("ln_1", "ln_2"),
        "ln_f",
        "wte",
        positions="wpe",
    ),
)


@dataclass(frozen=True)
class Part:
    """A tensor of a model, as chunks see it.

    Attributes:
        name: in the model's state dict.
        shape: of the tensor as stored.
        turned: its columns are vectors of the residual stream, not its rows.
        cuts: how many vectors each of the matrices fused in it has; they add up to all.
    """

    name: str
    shape: tuple[int, ...]
    turned: bool = False
    cuts: tuple[int, ...] = ()

    @property
    def numbers(self) -> int:
        """How many it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Unit:
    """What is generated and replaced at once: a matrix, or all norms together.

    Attributes:
        name: of its tensor, or of the group that its tensors are.
        layer: of the lowest block that a change of it changes; the number of blocks where that is none.
        type: one of `TYPES`, or ``norms``, ``vectors`` (norms and biases), ``head`` or ``embeddings``.
        parts: its tensors.
    """

    name: str
    layer: int
    type: str
    parts: tuple[Part, ...] = field(repr=False)

    def to_json(self) -> dict:
        """As JSON."""
        numbers = sum(part.numbers for part in self.parts)
        return {"name": self.name, "layer": self.layer, "type": self.type, "tensors": len(self.parts), "size": numbers}


def decoder_of(model: "PreTrainedModel") -> "nn.Module":
    """The part of a causal language model below its output head."""
    return model.get_decoder() if hasattr(model, "get_decoder") else model.base_model


def family_of(decoder: "nn.Module") -> Family | None:
    """The family that a decoder belongs to; None where it is of none."""

    def found(family: Family) -> int:
        # Blocks may differ: some models have experts in all but their first.
        counts = [sum(_matrix(block, kind) is not None for kind in family.kinds) for block in _blocks(decoder, family)]
        return max(counts, default=0)

    best = max(FAMILIES, key=found)
    return best if found(best) and _module(decoder, best.norm) is not None else None


def blocks_of(decoder: "nn.Module") -> "nn.ModuleList":
    """The blocks of a decoder of a known family. Raises AttributeError for others."""
    family = family_of(decoder)
    if family is None:
        raise AttributeError("no known family")
    return getattr(decoder, family.blocks)


def matrices(model: "PreTrainedModel", label: str = "The model") -> list[Unit]:
    """The matrices of all blocks, from the bottom to the top.

    Raises:
        UserError: it is of no known family, or has none.
    """
    decoder = decoder_of(model)
    family = family_of(decoder)
    if family is None:
        names = ", ".join(family.name for family in FAMILIES[:-1])
        raise UserError(
            f"{label} has none of the matrices that models like {names} or {FAMILIES[-1].name} are made of: choose one "
            "that is built like these."
        )
    found = []
    for layer, block in enumerate(_blocks(decoder, family)):
        for kind in family.kinds:
            weight = _matrix(block, kind)
            if weight is not None:
                part = Part(
                    f"{_name(model, decoder, family.blocks)}.{layer}.{kind.path}.weight",
                    tuple(weight.shape),
                    kind.writes != kind.transposed,
                    _cuts(kind, weight, model.config),
                )
                found.append(Unit(part.name, layer, kind.type, (part,)))
    return found


def norms(model: "PreTrainedModel") -> Unit:
    """All vectors of the normalisation layers, of the blocks and the last one, as one unit.

    Raises:
        UserError: the model has none.
    """
    decoder = decoder_of(model)
    family = family_of(decoder)
    assert family is not None  # `matrices` comes first
    modules = [_module(block, path) for block in _blocks(decoder, family) for path in family.norms]
    wanted = {
        id(p) for norm in (*modules, _module(decoder, family.norm)) if norm is not None for p in norm.parameters()
    }
    parts = tuple(Part(name, tuple(p.shape)) for name, p in model.named_parameters() if id(p) in wanted)
    if not parts:
        raise UserError("The normalisation layers of this model have no weights: generate its matrices.")
    return Unit(NORMS, 0, NORMS, parts)


def head(model: "PreTrainedModel") -> Unit:
    """The output head; where it is tied to the embeddings, both change."""
    weight, decoder = model.get_output_embeddings().weight, decoder_of(model)
    name = next(name for name, p in model.named_parameters() if p is weight)
    below = any(p is weight for p in decoder.parameters())
    return Unit(name, 0 if below else len(blocks_of(decoder)), HEAD, (Part(name, tuple(weight.shape)),))


def whole(model: "PreTrainedModel") -> list[Unit]:
    """Every parameter of a model: its vectors (norms and biases) together, its embeddings, its matrices, its head."""
    inner, top = matrices(model), head(model)
    named = {unit.name for unit in (*inner, top)}
    rest = [(name, p) for name, p in model.named_parameters() if name not in named]
    vectors = tuple(Part(name, tuple(p.shape)) for name, p in rest if p.ndim < 2)
    tables = [Unit(name, 0, EMBEDDINGS, (Part(name, tuple(p.shape)),)) for name, p in rest if p.ndim >= 2]
    units = [*([Unit(VECTORS, 0, VECTORS, vectors)] if vectors else []), *tables, *inner, top]
    return sorted(units, key=lambda unit: unit.layer)


def stream(model: "PreTrainedModel") -> int:
    """The width of the residual stream."""
    return model.get_input_embeddings().weight.shape[1]


def _blocks(decoder: "nn.Module", family: Family) -> "list[nn.Module]":
    return list(getattr(decoder, family.blocks, None) or ())


def _matrix(block: "nn.Module", kind: Kind) -> "Tensor | None":
    weight = getattr(_module(block, kind.path), "weight", None)
    return weight if weight is not None and weight.ndim == 2 else None


def _module(root: "nn.Module", path: str) -> "nn.Module | None":
    found = root
    for step in path.split("."):
        found = getattr(found, step, None)
        if found is None:
            return None
    return found


def _name(model: "PreTrainedModel", decoder: "nn.Module", path: str) -> str:
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    return f"{prefix}.{path}" if prefix else path


def _cuts(kind: Kind, weight: "Tensor", config) -> tuple[int, ...]:
    """The share of each fused matrix among the outputs; of q, k and v by their numbers of heads."""
    if not kind.fused:
        return ()
    outputs = weight.shape[1 if kind.transposed else 0]
    shares = [1] * len(kind.fused)
    if "q" in kind.fused:
        heads = config.num_attention_heads
        keys = getattr(config, "num_key_value_heads", None) or heads
        shares = [heads if name == "q" else keys for name in kind.fused]
    lengths = [outputs * share // sum(shares) for share in shares]
    return tuple(lengths) if sum(lengths) == outputs else ()


def pieces(part: Part, rows: "Tensor") -> "Iterator[Tensor]":
    """The matrices fused in a tensor whose vectors of the residual stream are `rows`, one after another."""
    yield from rows.split(list(part.cuts)) if part.cuts else (rows,)


def units_named(units: Sequence[Unit], names: Sequence[str]) -> list[Unit]:
    """Units by name, in the order of `names`."""
    known = {unit.name: unit for unit in units}
    return [known[name] for name in names]
