"""What the Interpolate tab's controls offer and accept, and what a link may preset."""

from collections.abc import Mapping
from typing import Any

from d2nwg.bundles import list_bundles
from d2nwg.data.examples import EXAMPLES
from d2nwg.interpolation.methods import CONDITION, METHODS, NAME_POINTS
from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.ui.settings import (
    LIMITS,
    bundle_choices,
    bundle_names,
    check_adapters,
    check_bundle,
    example_names,
    knows_names,
    task_names,
    whole_numbers,
)
from d2nwg.utils.text import is_utf8

DEFAULTS: dict[str, Any] = dict(
    a="digits-on-black",
    b="digits-on-white",
    c="none",
    points=21,
    seeds=3,
    shots=5,
    samples=16,
    seed=0,
    method=CONDITION,
    alpha=0.5,
    first="wolf",
    last="dog",
    liked="none",
    name_points=NAME_POINTS,
    task_a="Is this film review positive?",
    task_b="Is this message spam?",
    task_points=NAME_POINTS,
    task_samples=8,
)
LETTERS = ("a", "b", "c")  # of the endpoints
OWN_LIMITS = {**LIMITS, "points": ("Points", 3, 101), "seeds": ("Paths", 1, 10), "samples": ("Heads a point", 1, 50)}
BY = {"Two tasks": "tasks", "Two names": "names", "Two descriptions": "descriptions"}  # what the path is between
NO_IMAGES = ("No images", "none")
LONGEST_LINK = 500  # characters of a name in a link
PREFERRED = "heads-efficientnet-lite0"
MAPS = [("Conditions of the zoo's tasks", "conditions"), ("Weights of its heads, as in Explore", "weights")]
NONE, OWN = ("No third endpoint", "none"), ("Your own images", "own")


def default_bundle() -> str | None:
    """The tab's own: a bundle for which there are all methods. None when it is not shipped."""
    return PREFERRED if PREFERRED in list_bundles() else None


def naming_bundles(viewer: Viewer = STRANGER) -> list[str]:
    """The names of the bundles that know class names, and that the visitor may use, the default one first."""
    return [name for name in bundle_names(viewer) if knows_names(name, viewer)]


def choices(bundle: str | None, viewer: Viewer = STRANGER) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """What an endpoint can be with a bundle, as (title, key), and what each endpoint is at first: examples and one's
    own images, or the tasks that the bundle knows by name."""
    tasks = [(name, f"task:{name}") for name in task_names(bundle, viewer)]
    if not tasks:
        return [*example_names(), OWN], {letter: DEFAULTS[letter] for letter in LETTERS}
    return [*tasks, OWN], {"a": tasks[0][1], "b": tasks[min(1, len(tasks) - 1)][1], "c": NONE[1]}


def check(bundle: str | None, points, seeds, samples, shots, seed, viewer: Viewer = STRANGER) -> dict:
    """The keyword arguments of `d2nwg.interpolation.path.interpolate`.

    Raises:
        UserError: a number out of its limits, or a bundle that is not here.
    """
    values = dict(points=points, seeds=seeds, samples=samples, shots=shots, seed=seed)
    checked = {"bundle": check_bundle(bundle, viewer, networks=True), **whole_numbers(values, OWN_LIMITS)}
    return {"num_samples": checked.pop("samples"), **checked}


def check_names(bundle: str | None, points, viewer: Viewer = STRANGER) -> dict:
    """The keyword arguments of `d2nwg.interpolation.names.name_path` beside names and images.

    Raises:
        UserError: a number out of its limits, or a bundle that is not here.
    """
    return {"bundle": check_bundle(bundle, viewer), **whole_numbers({"points": points}, OWN_LIMITS)}


def check_descriptions(bundle: str | None, points, samples, seed, viewer: Viewer = STRANGER) -> dict:
    """The keyword arguments of `d2nwg.interpolation.descriptions.description_path` beside descriptions, texts and
    labels.

    Raises:
        UserError: a number out of its limits, or a bundle that is not here.
    """
    limits = {**OWN_LIMITS, "samples": LIMITS["samples"]}
    checked = whole_numbers(dict(points=points, samples=samples, seed=seed), limits)
    return {"bundle": check_adapters(bundle, viewer), "num_samples": checked.pop("samples"), **checked}


def descriptions_from_link(query: Mapping[str, str]) -> dict:
    """The two descriptions that a link's query asks for."""
    asked = {key: query.get(key, "") for key in ("task_a", "task_b")}
    return {key: text for key, text in asked.items() if text.strip() and len(text) <= LONGEST_LINK and is_utf8(text)}


def names_from_link(query: Mapping[str, str]) -> dict:
    """The values of the controls of a path between names that a link's query asks for."""
    values: dict = {}
    if query.get("between") in BY.values():
        values["between"] = query["between"]
    for key in ("first", "last"):
        text = query.get(key, "")
        if text.strip() and len(text) <= LONGEST_LINK and is_utf8(text):
            values[key] = text
    if query.get("liked") in EXAMPLES:
        values["liked"] = query["liked"]
    return values


def from_link(query: Mapping[str, str], viewer: Viewer = STRANGER) -> dict:
    """The control values that a link's query asks for; what is not to be had is left out."""
    values: dict = {}
    if query.get("with") in bundle_choices(viewer):
        values["bundle"] = query["with"]
    can_be = {key for _, key in choices(values.get("bundle", default_bundle()), viewer)[0]} - {OWN[1]}
    for key, letter in (("from", "a"), ("to", "b"), ("third", "c")):
        if query.get(key) in can_be:
            values[letter] = query[key]
    method = query.get("mix", query.get("way"))  # older links have "way"
    if method in METHODS:
        values["method"] = method
    try:
        alpha = float(query.get("alpha", "nan"))
        if 0 <= alpha <= 1:
            values["alpha"] = alpha
    except ValueError:
        pass
    return values
