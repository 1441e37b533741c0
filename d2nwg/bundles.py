"""Where bundles are found: the shipped ones, one's own, or any path."""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from d2nwg.conditions.task_names import tasks_of
from d2nwg.data.listing import walk
from d2nwg.generators import GENERATORS, Generator, get_generator
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, read_json, shipped, sole_writer, whole_file
from d2nwg.utils.text import shown

if TYPE_CHECKING:
    from d2nwg.pipelines.adapters import AdapterGenerationPipeline
    from d2nwg.pipelines.base import BundlePipeline
    from d2nwg.pipelines.heads import WeightGenerationPipeline

DEFAULT_BUNDLE = "heads-dual"
DEFAULTS = {"head": DEFAULT_BUNDLE, "adapter": "adapters"}  # by what they make
NO_ADAPTERS = (
    "No bundle of adapters is at hand: fine-tune some with `python -m d2nwg zoo build TASK… --adapter lora --out ZOO`, "
    "and train one with `python -m d2nwg train --zoo ZOO --out $D2NWG_CACHE/bundles/adapters`."
)
VERBS = {"head": "generate", "network": "sample", "adapter": "generate --describe"}


def list_bundles(makes: str = "head") -> dict[str, Path]:
    """Name → folder of every bundle at hand whose samples are of this kind (`Generator.makes`): those in
    ``pretrained/``, then those in the cache's ``bundles/``."""
    found: dict[str, Path] = {}
    for root in (shipped("pretrained"), cache_dir() / "bundles"):
        if root.is_dir():
            for path in sorted(root.iterdir()):
                whole = not path.name.startswith(".") and (path / "model_index.json").is_file()  # not half-written
                if whole and _makes(path) == makes:
                    found.setdefault(path.name, path)
    return found


def bundle_generator(path: Path) -> Generator | None:
    """The generator that made a bundle: by the name in its ``training.json``, or else one whose pipeline it is for.
    None for what is no bundle, or of a generator that is not registered."""
    index, training = read_json(path / "model_index.json"), read_json(path / "training.json")
    pipeline = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(pipeline, str):
        return None
    if isinstance(training, dict) and isinstance(training.get("generator"), str):
        with contextlib.suppress(UserError):
            return get_generator(training["generator"])
    if pipeline == "WeightGenerationPipeline":  # of format 1, when both kinds of heads had one pipeline
        pipeline = "DualHeadPipeline" if "DualDenoiser" in str(index.get("denoiser")) else "LatentHeadPipeline"
    elif pipeline == "ModelGenerationPipeline":
        pipeline = "NetworkGenerationPipeline"
    return next((one for one in GENERATORS.values() if one.pipeline.endswith(f":{pipeline}")), None)


def _makes(path: Path) -> str | None:
    """What the samples of a bundle are, or None for what is no bundle."""
    generator = bundle_generator(path)
    return generator.makes if generator else None


def find_network_bundle(bundle: str | Path) -> Path:
    """The folder of a bundle of whole networks: by path, or by its name in the cache.

    Raises:
        UserError: there is none, or it is one of heads.
    """
    for path in (cache_dir() / "bundles" / str(bundle), Path(bundle).expanduser()):
        if (generator := bundle_generator(path)) and generator.from_data:
            raise UserError(f"{path} makes networks for a data set: `python -m d2nwg generate DATA --bundle {path}`.")
        if (kind := _makes(path)) == "network":
            return path
        if kind:
            raise UserError(f"{path} makes heads: use it with `python -m d2nwg generate`.")
    raise UserError(f"There is no bundle {bundle}: make one with `python -m d2nwg train` on a zoo of checkpoints.")


def data_bundle(bundle: str | Path) -> Path:
    """The folder of a bundle of whole networks that are made for a data set: by path, or by its name.

    Raises:
        UserError: there is none, or it is of another kind.
    """
    path = resolve_bundle(bundle, "network")
    if not makes_for_data(path):
        raise UserError(f"{path} does not make networks for a data set: train one with --generator dataset-networks.")
    return path


def makes_for_data(bundle: str | Path | None) -> bool:
    """Whether a bundle, by path or by its name, is of whole networks that are made for a data set."""
    if bundle is None:
        return False
    generator = bundle_generator(list_bundles("network").get(str(bundle)) or Path(bundle).expanduser())
    return bool(generator and generator.from_data)


def load_bundle(bundle: str | Path | None = None) -> "BundlePipeline":
    """The pipeline of a bundle: by name, by path, by the name of a Hugging Face repository, or the shipped default.

    >>> pipe = load_bundle("heads-dual")

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    from d2nwg.pipelines.base import find_folder

    path = Path(bundle).expanduser() if bundle else None
    if path is None or not _makes(path):
        known = path is None or str(bundle) in list_bundles() or path.exists() or str(bundle).count("/") != 1
        path = resolve_bundle(bundle) if known else find_folder(str(bundle))
    generator = bundle_generator(path)
    if generator is None:
        raise UserError(f"The bundle {path} cannot be opened: its model_index.json names no pipeline known here.")
    return generator.part("pipeline").from_pretrained(path)


def load_pipeline(path: Path, device: str | None = None) -> "WeightGenerationPipeline":
    """The pipeline of a bundle, loaded once a process, and again when the bundle has changed.

    Raises:
        UserError: the folder is no complete bundle, or there is no such device.
    """
    from d2nwg.utils.devices import loading, resolve_device

    changed = (path / "model_index.json").stat().st_mtime_ns
    with loading:
        return _load_pipeline(path.resolve(), resolve_device(device), changed)


@lru_cache(maxsize=2)
def _load_pipeline(path: Path, device: str, _changed: int) -> "WeightGenerationPipeline":
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    try:
        pipe = load_bundle(path)
    except UserError:
        raise
    except Exception as reason:  # diffusers raises many types; all mean that the folder is damaged
        why = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise UserError(f"The bundle {path} cannot be opened ({shown(why, 200)}): get or train it again.") from reason
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_adapter_pipeline(
    bundle: str | Path | None = None, device: str | None = None
) -> tuple[Path, "AdapterGenerationPipeline"]:
    """The folder and the pipeline of a bundle of adapters, as `load_pipeline`: by name, by path, or the shipped one.

    Raises:
        UserError: there is none, or it is damaged or of another kind.
    """
    if bundle is None and not list_bundles("adapter"):
        raise UserError(NO_ADAPTERS)
    path = resolve_bundle(bundle, "adapter")
    return path, cast("AdapterGenerationPipeline", load_pipeline(path, device))


def resolve_bundle(bundle: str | Path | None = None, makes: str = "head") -> Path:
    """The folder of a bundle: by name, by path, or the shipped default.

    Args:
        makes: what its samples are (`Generator.makes`).
    Raises:
        UserError: there is none.
    """
    known = list_bundles(makes)
    name = str(bundle or DEFAULTS[makes])
    if name in known:
        return known[name]
    path = Path(name)
    if (made := _makes(path)) and made != makes:
        whole = "whole networks" if made == "network" else f"{made}s"
        raise UserError(f"{path} makes {whole}, not {makes}s: use it with `python -m d2nwg {VERBS[made]}`.")
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
    config = read_json(path / "weight_space" / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("encoder"), str):
        raise UserError(f"The bundle {path} is incomplete: get or train it again.")
    return config["encoder"]


def bundle_tasks(path: Path) -> dict[str, tuple[str, ...]]:
    """The tasks that a bundle knows by id, with their classes; none for a bundle that is conditioned on images."""
    config = read_json(path / "condition_encoder" / "config.json")
    if not isinstance(config, dict) or config.get("_class_name") != "TaskIndex":
        return {}
    names = config.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return {}
    return tasks_of(names)


def bundle_knows_names(path: Path) -> bool:
    """Whether a bundle was trained with class names, without loading it."""
    index = read_json(path / "model_index.json")
    part = index.get("names") if isinstance(index, dict) else None
    return isinstance(part, list) and bool(part) and part[0] is not None


def bundle_descriptions(path: Path) -> dict[str, str]:
    """The tasks that a bundle of adapters knows, each with its last description (often the fullest), without loading
    it."""
    config = read_json(path / "weight_space" / "config.json")
    tasks = config.get("tasks") if isinstance(config, dict) else None
    if not isinstance(tasks, list):
        return {}
    try:
        return {str(task["name"]): str(task["descriptions"][-1]) for task in tasks}
    except (TypeError, KeyError, IndexError):
        return {}


def bundle_files(path: Path) -> list[Path]:
    """The files of a bundle, which may leave this machine.

    Raises:
        UserError: one is a link that leads out of the bundle, or a special file.
    """
    found = []
    for listing in walk(path, path):
        if listing.skipped:
            file, why = listing.skipped[0]
            raise UserError(f"The bundle {path} holds {shown(Path(file).name)}, which is {why}: remove it first.")
        found += [Path(listing.path) / name for name in listing.files]
    return found


def pack_bundle(path: Path, into: Path) -> Path:
    """A bundle as one zip in the folder `into`, stored without compression: weights do not compress.

    Raises:
        UserError: it is no bundle or holds links that lead out of it, it is being packed already, or the disk is full.
    """
    import zipfile

    path = resolve_bundle(path)
    target = into / f"{path.name}.zip"
    try:
        with (
            sole_writer(target),
            whole_file(target) as part,
            zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive,
        ):
            for file in bundle_files(path):
                archive.write(file, Path(path.name) / file.relative_to(path))
    except OSError as reason:
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
    from d2nwg.utils.hub import upload

    return upload(path, bundle_files(path), name, "bundle")
