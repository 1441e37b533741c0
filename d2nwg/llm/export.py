"""A refined language model as a folder that transformers and mergekit read.

The folder is what ``save_pretrained`` writes (safetensors in shards of at most 5 GB with their index, tied weights
once), with the tokenizer's files copied byte for byte from where the model came from, and a model card. A refinement
alone, without the model, is a delta: see `d2nwg.llm.delta`.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.llm.card import model_card
from d2nwg.llm.sources import quietly
from d2nwg.utils.errors import UserError
from d2nwg.utils.outputs import new_folder, resolved
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHARD = "5GB"
THERE = "is there already: give the name of a new folder"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
)
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")


def save_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    out: str | Path,
    *,
    base: str,
    source: str | Path | None = None,
    report: dict | None = None,
    dtype: "torch.dtype | None" = None,
    shard: str = SHARD,
    beside: Sequence[Path] = (),
) -> Path:
    """Write a model as a folder, whole or not at all; returns it.

    Args:
        model: any causal LM of transformers, also one that was loaded from a GGUF file.
        out: the folder to make; it may exist if it is empty.
        base: the name of the model that this one was made from, for the card.
        source: the folder that `model` was loaded from, whose tokenizer files are copied as they are. Without it, the
            folder that the tokenizer names, or the one on the disk where a Hub model was kept; where none of them has
            such files (a GGUF file), the tokenizer writes them.
        report: how it was made and measured, as JSON; it is kept as ``report.json`` and part of the card.
        dtype: the number format to write, that of `model` unless given. It is used only where it loses nothing: a
            checkpoint in bfloat16 that was worked on in float32 keeps its size, and another one keeps its numbers.
        shard: the most bytes of a weight file.
        beside: further files to copy into the folder.

    Raises:
        UserError: as `new_folder` and `copied_files`.
    """
    out = Path(out)
    if place := tokenizer_folder(tokenizer, source):
        copied_files(place)
    with new_folder(out, empty=True, there=THERE) as folder:
        with _saveable(model), quietly():
            state = _in_format(model.state_dict(), dtype)
            model.save_pretrained(folder, max_shard_size=shard, state_dict=state)
        if dtype is not None:
            _say_format(folder / "config.json", state)
        _save_generation(model, folder)
        _save_tokenizer(tokenizer, place, folder)
        if report:
            (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), "utf-8")
        (folder / "README.md").write_text(
            model_card(shown(resolved(out).name), base, model.config, report or {}), "utf-8"
        )
        for path in beside:
            shutil.copyfile(path, folder / path.name)
    return out


def _in_format(state: "dict[str, Tensor]", dtype: "torch.dtype | None") -> "dict[str, Tensor]":
    """A state in another number format if every tensor of it survives that, otherwise as it is."""
    import torch

    if dtype is None:
        return state
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    if all(torch.equal(cast[name].to(value.dtype), value) for name, value in state.items()):
        return cast
    return state


def _say_format(path: Path, state: "dict[str, Tensor]") -> None:
    """Let the config name the number format of the file, not that in which the model was worked on."""
    config = json.loads(path.read_text("utf-8"))
    kinds = {str(value.dtype).removeprefix("torch.") for value in state.values() if value.is_floating_point()}
    config["dtype"] = kinds.pop() if len(kinds) == 1 else "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def tokenizer_folder(tokenizer, source: str | Path | None = None) -> Path | None:
    """The folder whose files a tokenizer was read from, or None where there is no such folder."""
    for place in (source, getattr(tokenizer, "name_or_path", None)):
        if not place:
            continue
        folder = Path(place)
        if not folder.is_dir():
            folder = _cached(str(place))
        if folder and any((folder / name).is_file() for name in TOKENIZER_FILES):
            return folder
    return None


def _cached(name: str) -> Path | None:
    """Where the Hub's files of a model lie on this disk."""
    from transformers.utils import cached_file

    try:
        found = cached_file(name, "tokenizer_config.json", local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found).parent if found else None


def _save_tokenizer(tokenizer, source: Path | None, folder: Path) -> None:
    if source is None:
        tokenizer.save_pretrained(folder)
        return
    for path in copied_files(source):
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def copied_files(source: Path) -> list[Path]:
    """What an export copies from a model's folder: the files of its tokenizer, and its licence.

    Raises:
        UserError: one of them is a link that leads out of the folder, to anywhere but the cache of the Hub.
    """
    from huggingface_hub import constants

    known = [source / name for name in (*TOKENIZER_FILES, *LICENCES)]
    found = [path for path in (*known, *source.glob("chat_templates/*.jinja")) if path.is_file()]
    places = [source.resolve(), Path(constants.HF_HUB_CACHE).resolve()]
    for path in found:
        if not any(place in path.resolve().parents for place in places):
            raise UserError(
                f"{shown(path, 500)} is a link that leads out of the model's folder: put the file itself there, so "
                "that it can be copied."
            )
    return found


def _save_generation(model, folder: Path) -> None:
    """The generation config as it is: transformers refuses to save some that it reads."""
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.to_json_file(folder / "generation_config.json")


@contextmanager
def _saveable(model) -> Iterator[None]:
    """What was read from a GGUF file is no longer quantised, but says so, and `save_pretrained` believes it. A
    generation config that it would refuse steps aside too."""
    from transformers import GenerationConfig

    quantizer, generation = getattr(model, "hf_quantizer", None), getattr(model, "generation_config", None)
    quantization = getattr(model.config, "quantization_config", None)
    method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", "")
    unpacked = quantizer is not None and str(getattr(method, "value", method)) == "gguf"
    try:
        if unpacked:
            model.hf_quantizer = None
            if quantization is not None:
                del model.config.quantization_config
        if generation is not None:
            model.generation_config = GenerationConfig()
        yield
    finally:
        if unpacked:
            model.hf_quantizer = quantizer
            if quantization is not None:
                model.config.quantization_config = quantization
        if generation is not None:
            model.generation_config = generation
