"""What the Generate tab's controls accept, and what a link may preset."""

from collections.abc import Mapping
from typing import Any

from d2nwg.bundles import bundle_tasks, resolve_bundle
from d2nwg.conditions.task_names import read_mix
from d2nwg.data.examples import EXAMPLES
from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.pipelines import ANCESTRAL, DEFAULT, DEFAULT_STEPS
from d2nwg.ui.link import LONGEST
from d2nwg.ui.settings import (
    LIMITS,
    bundle_choices,
    check_bundle,
    default_bundle,
    network_bundles,
    whole,
    whole_numbers,
)
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import is_utf8

NAMES = "names"  # in the place of an example: no images, class names alone
SORTED = "sorted"  # likewise: loose photographs that the visitor sorts
DEFAULTS: dict[str, Any] = dict(
    example="clothes", shots=5, samples=50, seed=0, steps=None, max_query=1000, sampler=DEFAULT
)
SAMPLER_CHOICES = {"fast": DEFAULT, "the paper's": ANCESTRAL}
# What the Steps field shows. It cannot stand empty for "the sampler's own": gradio makes 0 of an empty number when
# the accordion around it is opened.
STEPS_OF = {DEFAULT: DEFAULT_STEPS, ANCESTRAL: LIMITS["steps"][2]}


def steps_of(sampler: str) -> int:
    """The number of denoising steps that a sampler takes unless another one is asked for."""
    return STEPS_OF[sampler]


def check_settings(
    bundle: str | None,
    shots,
    samples,
    seed,
    steps,
    max_query,
    task: str | None = None,
    sampler: str | None = None,
    viewer: Viewer = STRANGER,
) -> dict:
    """The keyword arguments of ``generate_heads``; among them those of ``generate_network``. Without ``steps`` the
    sampler takes its own number of them.

    Raises:
        UserError: a number out of its limits, a bundle that is not here, or a task that it does not know.
    """
    if bundle not in network_bundles(viewer):
        check_bundle(bundle, viewer)
    numbers = dict(shots=shots, samples=samples, seed=seed, max_query=max_query)
    checked = whole_numbers(numbers if steps is None else {**numbers, "steps": steps})
    if (task := (task or "").strip()) and bundle not in network_bundles(viewer):
        read_mix(task, bundle_tasks(resolve_bundle(bundle)))
    chosen = {"bundle": bundle, "num_samples": checked.pop("samples"), "task": task or None}
    return {**chosen, "sampler": sampler or DEFAULT, "steps": None, **checked}


def as_at_first(values: Mapping[str, Any]) -> bool:
    """Whether control values that a link asks for (`from_link`) are those that stand there without one."""
    return all(value == {**DEFAULTS, "bundle": default_bundle()}.get(key) for key, value in values.items())


def from_link(query: Mapping[str, str], viewer: Viewer = STRANGER) -> tuple[dict, str]:
    """The control values that a link's query asks for, and a sentence on what it asks for in vain."""
    values: dict[str, object] = {}
    missing = []
    if names := query.get("names", "").strip():
        if len(names) <= LONGEST and is_utf8(names):
            values |= {"names": names} if "example" in query else {"names": names, "example": NAMES}
        else:
            missing.append(f"class names of more than {LONGEST:,} characters")
    for key, known in (("bundle", bundle_choices(viewer)), ("example", (*EXAMPLES, NAMES))):
        if key in query:
            if query[key] in known:
                values[key] = query[key]
            else:
                missing.append(f"{key} {query[key][:80]}")
    for key in ("shots", "samples", "seed"):
        if key in query:
            try:
                values[key] = whole(int(query[key]), *LIMITS[key])
            except (UserError, ValueError):
                missing.append(f"{key} {query[key][:80]}")
    return values, f"The link asks for {' and '.join(missing)}, which is not to be had here." if missing else ""
