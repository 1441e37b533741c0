"""What all pipelines share: bundles with a format number, and components from trusted packages alone."""

import json
from pathlib import Path
from pkgutil import resolve_name

from diffusers import DiffusionPipeline
from typing_extensions import Self

from d2nwg.conditions import CONDITIONERS
from d2nwg.generators import GENERATORS
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

FORMAT = 2  # of bundles. 1: before modules moved into rooms, without a number

# Components of format 1, which named modules that have moved.
MOVED = {
    "WeightVAE": "d2nwg.models.vae",
    "DatasetEncoder": "d2nwg.conditions.dataset",
    "TaskIndex": "d2nwg.conditions.task_id",
    "ConditionalUNet": "d2nwg.models.unet",
    "DualDenoiser": "d2nwg.models.dual",
    "WeightSpace": "d2nwg.models.spaces",
    "NetworkSpace": "d2nwg.models.spaces",
}
RENAMED = {"ModelSpace": "NetworkSpace"}


class BundlePipeline(DiffusionPipeline):
    """A `DiffusionPipeline` whose folder is a bundle: components, and a format number in ``model_index.json``."""

    def _register(self, **components) -> None:
        self.register_modules(**components)
        self.register_to_config(_format=FORMAT)

    @classmethod
    def from_pretrained(cls, path: str | Path, **download) -> Self:
        """Load a bundle.

        Components are loaded here and not by diffusers, which would need its own base classes to be names of each
        component's module.

        Args:
            path: a folder, or a repository of the Hugging Face Hub.
            download: for a repository, what `huggingface_hub.snapshot_download` takes, such as ``local_files_only``.
        Raises:
            UserError: it is no bundle, was made by a newer version of this program, or names components from elsewhere.
        """
        folder = find_folder(path, **download)
        index = read_index(folder)
        number = index.get("_format", 1)
        if number not in (1, FORMAT):
            raise UserError(
                f"The bundle {path} has format {shown(number)}, and this version reads up to {FORMAT}: update d2nwg, "
                "or train the bundle anew with the command in its README."
            )
        parts = {}
        for name in cls._get_signature_keys(cls)[0]:
            missing = name in cls._optional_components and not (index.get(name) or [None])[0]
            parts[name] = None if missing else _component(folder, name, index.get(name))
        return cls(**parts)


def find_folder(path: str | Path, **download) -> Path:
    """The folder of a bundle: ``path`` itself, or where the repository of that name was downloaded to.

    Raises:
        UserError: there is no such folder, and no such repository within reach.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path), allow_patterns=["*.json", "*.safetensors"], **download))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as reason:
        raise UserError(f"There is no bundle {shown(path)} here, and none can be had from the Hub.") from reason


def trusted_packages() -> set[str]:
    """Where components may come from: this package, diffusers, and the packages of registered generators and
    conditioners. A bundle must not make this process import whatever it names."""
    entries = [generator.pipeline for generator in GENERATORS.values()] + list(CONDITIONERS.values())
    return {"d2nwg", "diffusers"} | {entry.split(".")[0].split(":")[0] for entry in entries}


def _component(folder: Path, name: str, entry):
    """The component ``name`` of a bundle, whose index says ``[package, class]``."""
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(text, str) for text in entry):
        raise UserError(f"The bundle {folder} has no {name}: get or train it again.")
    package, kind = entry[0], RENAMED.get(entry[1], entry[1])
    package = MOVED.get(kind, package)
    if package.split(".")[0] not in trusted_packages():
        raise UserError(f"The bundle {folder} names the component {shown(kind)} of {shown(package)}: not loaded.")
    try:
        loaded = resolve_name(f"{package}:{kind}")
    except (ImportError, AttributeError, ValueError) as reason:
        raise UserError(
            f"The bundle {folder} names the component {shown(kind)} of {shown(package)}, which this version lacks: "
            "update d2nwg, or train the bundle anew."
        ) from reason
    return loaded.from_pretrained(folder / name)


def read_index(path: str | Path) -> dict:
    """``model_index.json`` of a folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        index = json.loads((Path(path) / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        raise UserError(f"{path} is no bundle: its model_index.json cannot be read.") from reason
    if not isinstance(index, dict):
        raise UserError(f"{path} is no bundle: its model_index.json cannot be read.")
    return index
