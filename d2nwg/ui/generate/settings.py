"""What the controls may say, and what a link may preset."""

from collections.abc import Mapping

from d2nwg.bundles import DEFAULT_STEPS, bundle_tasks, list_bundles, resolve_bundle
from d2nwg.conditions.task_names import read_mix
from d2nwg.data.examples import EXAMPLES
from d2nwg.utils.errors import UserError

DEFAULTS = dict(example="digits", shots=5, samples=50, seed=0, steps=DEFAULT_STEPS, max_query=1000)
LIMITS = {
    "shots": ("Images per class", 1, 1000),
    "samples": ("Samples", 1, 1000),
    "seed": ("Seed", 0, 2**31 - 1),
    "steps": ("Steps", 1, 1024),
    "max_query": ("Most images to measure on", 10, 10_000),
    "tasks": ("Tasks", 1, 50),
    "classes": ("Classes a task", 2, 1000),
    "explored": ("Samples", 2, 2000),
    "trained": ("Trained heads", 0, 1000),
    "map_seed": ("Seed of the map", 0, 2**31 - 1),
    "perplexity": ("Perplexity", 1, 500),
}


def example_names() -> list[tuple[str, str]]:
    """The examples as (title, key)."""
    return [(example.title, key) for key, example in EXAMPLES.items()]


def bundle_names() -> list[str]:
    """The bundles at hand, the default one first."""
    first = default_bundle()
    return [first, *(name for name in list_bundles() if name != first)] if first else list(list_bundles())


def default_bundle() -> str | None:
    """The name of the bundle that is used when none is asked for; None when none is shipped."""
    try:
        return resolve_bundle(None).name
    except UserError:
        return None


def whole(key: str, value) -> int:
    """A whole number within `LIMITS`.

    Raises:
        UserError: it is not one.
    """
    name, low, high = LIMITS[key]
    if not isinstance(value, (int, float)) or not low <= value <= high or int(value) != value:
        raise UserError(f"{name} should be a whole number from {low:,} to {high:,}.")
    return int(value)


def task_names(bundle: str | None) -> list[str]:
    """The tasks that a bundle is told by name; none for one that is shown images."""
    path = list_bundles().get(bundle or default_bundle() or "")
    return list(bundle_tasks(path)) if path else []


def check_settings(bundle: str | None, shots, samples, seed, steps, max_query, task: str | None = None) -> dict:
    """The keyword arguments of ``generate_heads``.

    Raises:
        UserError: a number out of its limits, a bundle that is not here, or a task that it does not know.
    """
    if bundle is not None and bundle not in list_bundles():
        raise UserError(f"There is no bundle {bundle} here; choose one from the list.")
    values = dict(shots=shots, samples=samples, seed=seed, steps=steps, max_query=max_query)
    checked = {key: whole(key, value) for key, value in values.items()}
    if task := (task or "").strip():
        read_mix(task, bundle_tasks(resolve_bundle(bundle)))
    return {"bundle": bundle, "num_samples": checked.pop("samples"), "task": task or None, **checked}


def from_link(query: Mapping[str, str]) -> tuple[dict, str]:
    """The control values that a link's query asks for, and a sentence on what it asks for in vain."""
    values, missing = {}, []
    for key, known in (("bundle", list_bundles()), ("example", EXAMPLES)):
        if key in query:
            if query[key] in known:
                values[key] = query[key]
            else:
                missing.append(f"{key} {query[key][:80]}")
    for key in ("shots", "samples", "seed"):
        if key in query:
            try:
                values[key] = whole(key, int(query[key]))
            except (UserError, ValueError):
                missing.append(f"{key} {query[key][:80]}")
    return values, f"The link asks for {' and '.join(missing)}, which is not to be had here." if missing else ""
