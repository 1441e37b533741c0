"""What the controls of several tabs offer, and what they accept."""

from collections.abc import Mapping
from pathlib import Path

from d2nwg.bundles import (
    DEFAULTS,
    NO_ADAPTERS,
    bundle_knows_names,
    bundle_tasks,
    list_bundles,
    makes_for_data,
    resolve_bundle,
)
from d2nwg.data.examples import EXAMPLES
from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import whole
from d2nwg.utils.text import shown

LIMITS = {  # what a number is called in a sentence, its least and its greatest value
    "shots": ("Images per class", 1, 1000),
    "samples": ("Samples", 1, 1000),
    "seed": ("Seed", 0, 2**31 - 1),
    "steps": ("Steps", 1, 1024),
    "max_query": ("Most images to measure on", 10, 10_000),
}


def example_names() -> list[tuple[str, str]]:
    """The examples as (title, key)."""
    return [(example.title, key) for key, example in EXAMPLES.items()]


def bundles(viewer: Viewer, makes: str = "head") -> dict[str, Path]:
    """Name → folder of the bundles that a visitor may use: those that are nobody's, and their own.

    Args:
        makes: what their samples are (`d2nwg.generators.Generator.makes`).
    """
    return {name: path for name, path in list_bundles(makes).items() if viewer.sees(path)}


def adapter_bundles(viewer: Viewer = STRANGER) -> list[str]:
    """The names of the bundles of adapters that a visitor may use, the default one first."""
    return sorted(bundles(viewer, "adapter"), key=lambda name: name != DEFAULTS["adapter"])


def check_adapters(bundle: str | None, viewer: Viewer = STRANGER) -> str:
    """The name of a bundle of adapters; None stands for the first.

    Raises:
        UserError: there is none, it is not here, or it is somebody else's; of the last two the sentence is the same.
    """
    known = adapter_bundles(viewer)
    if not known:
        raise UserError(NO_ADAPTERS)
    if bundle is not None and bundle not in known:
        raise UserError(f"There is no bundle of adapters {shown(bundle)} here; choose one from the list.")
    return bundle or known[0]


def network_bundles(viewer: Viewer = STRANGER) -> dict[str, Path]:
    """Name → folder of the bundles of whole networks, made for images that are shown, that a visitor may use."""
    return {name: path for name, path in bundles(viewer, "network").items() if makes_for_data(path)}


def bundle_choices(viewer: Viewer = STRANGER) -> list[str]:
    """The bundles that the Generate tab can use: of heads, and then of whole networks."""
    return [*bundle_names(viewer), *network_bundles(viewer)]


def bundle_names(viewer: Viewer = STRANGER) -> list[str]:
    """The names of `bundles`, the default one first."""
    first, known = default_bundle(), bundles(viewer)
    return [first, *(name for name in known if name != first)] if first else list(known)


def default_bundle() -> str | None:
    """The name of the bundle that is used when none is asked for; None when none is shipped."""
    try:
        return resolve_bundle(None).name
    except UserError:
        return None


def task_names(bundle: str | None, viewer: Viewer = STRANGER) -> list[str]:
    """The tasks that a bundle knows by name; none for one that is shown images, or that the visitor may not use."""
    path = bundles(viewer).get(bundle or default_bundle() or "")
    return list(bundle_tasks(path)) if path else []


def knows_names(bundle: str | None, viewer: Viewer = STRANGER) -> bool:
    """Whether a bundle that the visitor may use was trained with class names."""
    path = bundles(viewer).get(bundle or default_bundle() or "")
    return path is not None and bundle_knows_names(path)


def check_bundle(bundle: str | None, viewer: Viewer = STRANGER, networks: bool = False) -> str | None:
    """The name of a bundle, or None for the default one.

    Args:
        networks: whether it may be one of whole networks that are made for images.
    Raises:
        UserError: it is not here, or somebody else's; the sentence is the same.
    """
    if bundle is not None and bundle not in bundles(viewer):
        if bundle in network_bundles(viewer):
            if networks:
                return bundle
            raise UserError(
                f"The bundle {shown(bundle)} makes whole networks in Generate, Explore and Interpolate; choose one of "
                "heads here."
            )
        raise UserError(f"There is no bundle {shown(bundle)} here; choose one from the list.")
    return bundle


def whole_numbers(values: Mapping[str, object], limits: Mapping[str, tuple[str, int, int]] = LIMITS) -> dict[str, int]:
    """Several whole numbers, each within its own limits.

    Raises:
        UserError: one of them is not.
    """
    return {key: whole(value, *limits[key]) for key, value in values.items()}
