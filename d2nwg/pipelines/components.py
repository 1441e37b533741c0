"""The components of a bundle: loaded from trusted packages alone, whole, and from configurations that can be theirs."""

import inspect
import json
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

import torch
from diffusers import ModelMixin, SchedulerMixin

from d2nwg.conditions import CONDITIONERS
from d2nwg.generators import GENERATORS
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory, out_of_memory
from d2nwg.utils.paths import check_own_files, read_json
from d2nwg.utils.text import shown, some

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
MOST_STEPS = 10**5  # of training, in a scheduler: it makes arrays of that length
SHARDS = "diffusion_pytorch_model.safetensors.index.json"  # which file holds which tensor, where weights are in several
UNKNOWN = ("zoo_accuracy",)  # tensors in which NaN stands for what is not known


def trusted_packages() -> set[str]:
    """Where components may come from: this package, diffusers, and the packages of registered generators and
    conditioners. A bundle must not make this process import whatever it names."""
    entries = [generator.pipeline for generator in GENERATORS.values()] + list(CONDITIONERS.values())
    return {"d2nwg", "diffusers"} | {entry.split(".")[0].split(":")[0] for entry in entries}


def load_component(folder: Path, name: str, entry: object):
    """The component ``name`` of a bundle, whose index says ``[package, class]``.

    Raises:
        UserError: it is of another package, is no network and no scheduler, or is damaged.
    """
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(text, str) for text in entry):
        raise UserError(f"The bundle {folder} has no {name}: get or train it again.")
    package, kind = entry[0], RENAMED.get(entry[1], entry[1])
    package = MOVED.get(kind, package)
    named = f"The bundle {folder} names the component {shown(kind)} of {shown(package)}"
    if package.split(".")[0] not in trusted_packages():
        raise UserError(f"{named}: not loaded.")
    try:
        loaded = resolve_name(f"{package}:{kind}")
    except (ImportError, AttributeError, ValueError) as reason:
        raise UserError(f"{named}, which this version lacks: update d2nwg, or train the bundle anew.") from reason
    if not isinstance(loaded, type) or not issubclass(loaded, (ModelMixin, SchedulerMixin)):
        raise UserError(f"{named}, which is no component: not loaded.")
    place = folder / name
    if not place.is_dir():
        raise UserError(f"The bundle {folder} cannot be opened, because it has no {name}: get or train it again.")
    check_own_files(place, f"{name} of the bundle {folder}")
    try:
        check_config(loaded, place)
        return _scheduler(loaded, place) if issubclass(loaded, SchedulerMixin) else _network(loaded, place)
    except UserError:
        raise
    except Exception as reason:  # diffusers raises many types; all mean that the folder is damaged
        if out_of_memory(reason):
            raise
        why = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise UserError(
            f"The bundle {folder} cannot be opened, because its {name} is damaged ({shown(why)}): get or train it anew."
        ) from reason


def _scheduler(kind: Any, place: Path):
    config = read_json(place / kind.config_name)
    steps = config.get("num_train_timesteps", 1000) if isinstance(config, dict) else 0
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"num_train_timesteps is {shown(steps)}")
    return kind.from_pretrained(place)


def _network(kind: Any, place: Path):
    """Load a network, all of whose tensors are there and finite."""
    config = kind.load_config(place)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        numbers = sum(parameter.numel() for parameter in kind.from_config(config).parameters())
    check_memory(8 * numbers, f"{place.name} of the bundle {place.parent}", "choose another bundle")
    check_shards(place)
    network, found = kind.from_pretrained(place, use_safetensors=True, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found.get(key):
            raise ValueError(f"{key.replace('_', ' ')}: {some([str(one) for one in found[key]])}")
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and name not in UNKNOWN and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds numbers that are not finite")
    return network


def check_shards(place: Path) -> None:
    """Check that the shards of a network's weights lie in its folder; for weights in one file there is nothing to do.

    Raises:
        ValueError: the index of the shards cannot be read, or names files elsewhere (older diffusers open them).
    """
    index = place / SHARDS
    if not index.exists():
        return
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not isinstance(content.get("metadata"), dict):
        raise ValueError(f"its {SHARDS} cannot be read")
    own = {path.name for path in place.iterdir()}
    for shard in shards.values():
        if not isinstance(shard, str) or shard not in own:
            raise ValueError(f"its shard {shown(shard)} is not there")


def check_config(kind: Any, place: Path) -> None:
    """Check the configuration in a component's folder against the types of the class's arguments.

    Raises:
        ValueError: naming the value that cannot be one.
    """
    from pydantic import ValidationError

    config = read_json(place / kind.config_name)
    if not isinstance(config, dict):
        raise ValueError(f"its {kind.config_name} cannot be read")
    for name, adapter in _arguments(kind).items():
        if name not in config:
            continue
        try:
            adapter.validate_json(json.dumps(config[name]), strict=True)
        except (ValidationError, ValueError, RecursionError) as reason:
            raise ValueError(f"its {name} cannot be {shown(config[name], 40)}") from reason


@lru_cache(maxsize=64)
def _arguments(kind: Any) -> dict[str, Any]:
    """Argument of a class → what checks its values; those of types that pydantic does not know are left out."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    made = {}
    known = inspect.signature(kind.__init__).parameters
    for name, hint in get_type_hints(kind.__init__, include_extras=True).items():
        if name in known:
            try:
                made[name] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
            except (PydanticUserError, TypeError):
                continue
    return made
