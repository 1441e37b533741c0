"""Language models made local folders: a Hub snapshot, or a GGUF file turned into safetensors once."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2nwg.data.hf_datasets import is_hub_name
from d2nwg.utils.devices import loading
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.paths import cache_dir, whole_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

# What a model is made of; weights as pickles are never fetched.
FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "vocab*", "merges*", "*.model", "README.md", "LICENSE*")


def models_dir() -> Path:
    """Where converted models are kept."""
    return cache_dir() / "language"


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as reason:
        raise UserError(f"{shown(path)} cannot be read: {(reason.strerror or 'no access').lower()}.") from reason


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' own progress bars and warnings: `Progress` and our sentences are there instead."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def sha256(path: Path, stage: str = "Checking the file", progress: Progress = silent) -> str:
    """The checksum of a file, read in pieces."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            done += len(block)
            progress(stage, done, total)
    return digest.hexdigest()


def folder_on_hub(name: str, *, progress: Progress = silent) -> Path:
    """The snapshot of a model on the Hugging Face Hub, fetched if need be; with ``HF_HUB_OFFLINE=1``, only what was
    fetched before.

    Raises:
        UserError: the name cannot be one, there is no such model, the Hub cannot be reached, or there are no
            safetensors.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if not is_hub_name(name) or "@" in name:
        raise UserError(f"There is no folder or file {shown(name)}, and it cannot be a Hub id such as org/name.")
    progress(f"Fetching {shown(name)}", 0, 0)
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Cancelled:
        raise
    except GatedRepoError as reason:
        raise UserError(f"{shown(name)} asks for an account on the Hub: log in with `hf auth login`.") from reason
    except RepositoryNotFoundError as reason:
        raise UserError(f"There is no folder {shown(name)}, and no such model on the Hugging Face Hub.") from reason
    except Exception as reason:
        raise UserError(
            f"There is no folder {shown(name)}, and the Hugging Face Hub cannot be reached to look there; check the "
            "name and the connection, or choose the embedded model, default."
        ) from reason
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{shown(name)} holds no safetensors, the only kind of weights that is read.")
    return folder


def folder_of_gguf(
    path: Path, *, target: Path | None = None, facts: dict | None = None, progress: Progress = silent
) -> Path:
    """A GGUF file as a folder of bfloat16 safetensors, converted once: named by the content, or `target`.

    A quantised file is dequantised to float32 and then rounded to bfloat16.

    Raises:
        UserError: the file is damaged, or not of a kind that transformers reads.
    """
    name = shown(path.name)
    digest = sha256(path, f"Checking {name}", progress) if target is None or facts is None else None
    target = target or models_dir() / f"gguf-{digest[:32]}"
    if target.is_dir():
        return target
    facts = facts or {"name": path.stem, "source": f"the GGUF file {name}", "sha256": digest, "licence": None}
    progress(f"Converting {name}", 0, 0)
    try:
        with whole_folder(target) as partial, loading, quietly():
            _convert(path, partial)
            (partial / "source.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except (UserError, Cancelled):
        raise
    except MemoryError as reason:
        raise UserError(f"{name} does not fit into the memory: choose a smaller model.") from reason
    except Exception as reason:
        if isinstance(reason, OSError) and reason.errno is not None and shutil.disk_usage(cache_dir()).free < 2**28:
            raise UserError("The disk is full: make room for the converted model and try again.") from reason
        raise UserError(
            f"{name} is damaged, or a kind of GGUF that transformers cannot read: fetch it again, or give its folder."
        ) from reason
    return target


def _convert(path: Path, folder: Path) -> None:
    """Build the model anew from its configuration: one that was loaded from GGUF cannot be saved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from d2nwg.llm.weights import SAFE, read_weights

    where, file = str(path.resolve().parent), path.name
    loaded = read_weights(where, shown(file), gguf_file=file, dtype=torch.float32)
    config = AutoConfig.from_pretrained(where, gguf_file=file, **SAFE)
    for key in [key for key in vars(config) if "quantization" in key]:
        delattr(config, key)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, **SAFE)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(where, gguf_file=file, **SAFE).save_pretrained(folder)
