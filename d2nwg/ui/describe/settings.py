"""What the Describe tab's controls offer and accept, and what a link may preset."""

from collections.abc import Mapping

from d2nwg.bundles import bundle_descriptions
from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.pipelines import ADAPTER_STEPS, GUIDANCE, LONGEST_DESCRIPTION
from d2nwg.ui import link
from d2nwg.ui.settings import LIMITS, adapter_bundles, bundles, check_adapters, whole_numbers
from d2nwg.utils.text import is_utf8

DEFAULTS = {"samples": 10, "seed": 0, "steps": ADAPTER_STEPS, "guidance": GUIDANCE}
LIMITS_HERE = {**LIMITS, "samples": ("Samples", 1, 100)}


def known_tasks(bundle: str | None, viewer: Viewer = STRANGER) -> dict[str, str]:
    """The tasks that a bundle knows, each with a description; none for a bundle that is not the visitor's."""
    path = bundles(viewer, "adapter").get(bundle or next(iter(adapter_bundles(viewer)), ""))
    return bundle_descriptions(path) if path else {}


def check(bundle: str | None, samples, seed, steps, guidance, viewer: Viewer = STRANGER) -> dict:
    """The keyword arguments of ``generate_from_description`` beside the words.

    Raises:
        UserError: a number out of its limits, or a bundle that is not here.
    """
    name = check_adapters(bundle, viewer)
    numbers = whole_numbers({"samples": samples, "seed": seed, "steps": steps}, LIMITS_HERE)
    chosen = {"bundle": name, "num_samples": numbers.pop("samples")}
    return {**chosen, **numbers, "guidance_scale": guidance}


def from_link(query: Mapping[str, str]) -> dict:
    """The control values that a link's query asks for; what is not to be had is left out."""
    asked = {key: query.get(key, "") for key in ("describe", "labels")}
    most = {"describe": LONGEST_DESCRIPTION, "labels": link.LONGEST}
    return {key: text for key, text in asked.items() if text.strip() and len(text) <= most[key] and is_utf8(text)}
