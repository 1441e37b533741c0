"""Where bundles are found: the shipped ones, one's own, or any path."""

import json
from pathlib import Path

from d2nwg.conditions.task_names import tasks_of
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, shipped

DEFAULT_BUNDLE = "heads-dual"
MODELS = "ModelGenerationPipeline"  # in bundles of whole models
# Few steps of the multistep solver were as good as twenty on the training sets: the latents' spread is narrow.
DEFAULT_STEPS = 5


def list_bundles() -> dict[str, Path]:
    """Name → folder of every bundle of heads at hand: those in ``pretrained/``, then those in the cache's
    ``bundles/``."""
    found: dict[str, Path] = {}
    for root in (shipped("pretrained"), cache_dir() / "bundles"):
        if root.is_dir():
            for path in sorted(root.iterdir()):
                whole = not path.name.startswith(".") and (path / "model_index.json").is_file()  # not half-written
                if whole and _kind(path) != MODELS:
                    found.setdefault(path.name, path)
    return found


def _kind(path: Path) -> str | None:
    """The pipeline that a bundle is for, or None for what is no bundle."""
    try:
        return json.loads((path / "model_index.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None


def find_models_bundle(bundle: str | Path) -> Path:
    """The folder of a bundle of whole models: by path, or by the name it has in the cache.

    Raises:
        UserError: there is none, or it is one of heads.
    """
    for path in (cache_dir() / "bundles" / str(bundle), Path(bundle).expanduser()):
        if (kind := _kind(path)) == MODELS:
            return path
        if kind:
            raise UserError(f"{path} makes heads: use it with `python -m d2nwg generate`.")
    raise UserError(f"There is no bundle {bundle}: make one with `python -m d2nwg train` on a zoo of checkpoints.")


def resolve_bundle(bundle: str | Path | None = None) -> Path:
    """The folder of a bundle: by name, by path, or the shipped default.

    Raises:
        UserError: there is none.
    """
    known = list_bundles()
    name = str(bundle or DEFAULT_BUNDLE)
    if name in known:
        return known[name]
    path = Path(name)
    if _kind(path) == MODELS:
        raise UserError(f"{path} makes whole models, not heads: use it with `python -m d2nwg sample`.")
    if (path / "model_index.json").is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is no bundle: it has no model_index.json; make one with `python -m d2nwg train`.")
    at_hand = f"the ones at hand are {', '.join(known)}" if known else "none is at hand"
    raise UserError(f"There is no bundle {name}: {at_hand}; or give the path of one.")


def bundle_encoder(path: Path) -> str:
    """The encoder that a bundle's heads sit on, without loading the bundle.

    Raises:
        UserError: the bundle is incomplete.
    """
    try:
        return json.loads((path / "weight_space" / "config.json").read_text())["encoder"]
    except (OSError, ValueError, KeyError) as reason:
        raise UserError(f"The bundle {path} is incomplete: get or train it again.") from reason


def bundle_tasks(path: Path) -> dict[str, tuple[str, ...]]:
    """The tasks that a bundle is told by name, with their classes; none for a bundle that is shown images."""
    try:
        config = json.loads((path / "condition_encoder" / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return tasks_of(config["names"]) if config.get("_class_name") == "TaskIndex" else {}


def pack_bundle(path: Path, into: Path) -> Path:
    """A bundle as one zip in the folder `into`, stored without compression: weights do not compress.

    Raises:
        UserError: it is no bundle, or the disk is full.
    """
    import zipfile

    path = resolve_bundle(path)
    target = into / f"{path.name}.zip"
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    archive.write(file, Path(path.name) / file.relative_to(path))
    except OSError as reason:
        target.unlink(missing_ok=True)
        raise UserError(f"The bundle could not be packed: {(reason.strerror or str(reason)).lower()}.") from reason
    return target


def list_zoos() -> dict[str, Path]:
    """Name → folder of every zoo in the cache's ``zoos/``."""
    root = cache_dir() / "zoos"
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return {path.name: path for path in folders if not path.name.startswith(".") and (path / "zoo.json").is_file()}


def push_bundle(path: Path, name: str) -> str:
    """Upload a bundle with its model card as the Hugging Face repository `name`; its address.

    Raises:
        UserError: the Hub cannot be reached, or does not let us.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        api = HfApi()
        made = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=path, commit_message="Upload a D2NWG bundle")
    except HFValidationError as reason:
        raise UserError(f"{name} cannot be the name of a repository: write for instance me/my-bundle.") from reason
    except HfHubHTTPError as reason:
        raise UserError(f"The Hub refused {name}: log in with `hf auth login`; the bundle is in {path}.") from reason
    except (OSError, OfflineModeIsEnabled) as reason:
        raise UserError(f"The Hub cannot be reached from here; the bundle is in {path}.") from reason
    return str(made)
