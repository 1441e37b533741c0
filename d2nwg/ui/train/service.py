"""What the Train tab does, without gradio: library calls, and the files they leave."""

import os
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from d2nwg.jobs.owner import Viewer, claim, release, result_owner, taken
from d2nwg.ui import html as views
from d2nwg.ui.access import allowed_path, folders
from d2nwg.ui.settings import whole_numbers
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, format_seconds, silent

ZOO_LIMITS = {
    "subsets": ("Heads", 5, 10**6),
    "min_classes": ("Fewest classes", 2, 1000),
    "max_classes": ("Most classes", 2, 1000),
    "images": ("Images per class", 1, 1000),
    "seed": ("Seed", 0, 2**31 - 1),
}
FIRST = "dual"  # the generator that is chosen at first, wherever it suits: that of the default bundle
NO_IMAGES = "Choose the images first: one zip a data set, with one folder a class."
NETWORK_LIMITS = {
    "subsets": ("Networks", 2, 10**5),
    "classes": ("Classes", 0, 1000),
    "updates": ("Steps", 1, 10**6),
    "seed": ("Seed", 0, 2**31 - 1),
}
KINDS = ("train", "zoo", "networks")  # of the jobs that the tab shows


def why_off() -> str | None:
    """Why training is off here, or None where it is on."""
    space = os.environ.get("SPACE_ID")
    if not space or os.environ.get("TRAIN_HERE") == "1":
        return None
    return (
        "Training is off on this Space: its machine is shared and keeps nothing. Duplicate it (the menu at the "
        f"top right, “Duplicate this Space”, or huggingface.co/spaces/{space}?duplicate=true), give the copy "
        "hardware and storage, and set the variable TRAIN_HERE to 1; or run the app on your own machine."
    )


def describe_sets(files: list[str] | None, into: Path, progress: Progress = silent) -> str:
    """What is in each uploaded archive: classes, images and pictures, as HTML.

    Raises:
        UserError: one of them cannot be read.
    """
    from d2nwg.data.images import load_images

    pieces = []
    for file in files or ():
        images = load_images(own_file(file), into=into, progress=progress)
        pieces.append(f'<p class="summary"><b>{escape(images.name)}</b></p>{views.thumbnails(images, progress)}')
    return f'<div class="sets">{"".join(pieces)}</div>' if pieces else ""


class Checkpoints(NamedTuple):
    """What an import of checkpoints would keep."""

    number: int
    architectures: list[dict]  # as `d2nwg.weights.preview.preview` describes them
    account: str  # how many files would be imported, and how many not
    notes: list[str]  # why others are refused, and what else is to be known


class ImportedZoo(NamedTuple):
    """What an import of checkpoints has made."""

    name: str  # of the zoo
    sentence: str
    account: str  # how many files were imported, and how many were not
    notes: list[str]  # why others were refused, and what else is to be known


def look_at_checkpoints(files: list[str] | None, into: Path, progress: Progress = silent) -> Checkpoints:
    """Read uploaded checkpoints without keeping them.

    Raises:
        UserError: nothing can be imported.
    """
    from d2nwg.weights.imports import import_checkpoints
    from d2nwg.weights.preview import preview

    made = import_checkpoints([own_file(file) for file in files or ()], None, into=into, progress=progress)
    return Checkpoints(len(made.records), preview(made), made.account, _notes(made))


def import_zoo(
    files: list[str] | None, name: str, into: Path, append: bool, viewer: Viewer, progress: Progress = silent
) -> ImportedZoo:
    """Import uploaded checkpoints as a zoo of that name, which is then the viewer's, or add them to it.

    Raises:
        UserError: what `import_checkpoints` and `check_name` refuse.
    """
    from d2nwg.jobs.queue import check_name
    from d2nwg.utils.paths import cache_dir
    from d2nwg.weights.imports import import_checkpoints
    from d2nwg.weights.info import CHECKPOINTS, zoo_kind
    from d2nwg.weights.model_zoo import ModelZoo

    name, uploads = check_name(name), [own_file(file) for file in files or ()]
    out = cache_dir() / "zoos" / name
    count = partial(views.count, noun="checkpoint")
    if append:
        if not viewer.owns(result_owner(out)) or zoo_kind(out) != CHECKPOINTS:
            raise UserError(
                f"You have no zoo of checkpoints {name} to add to: choose the name of one, or untick “Add”."
            )
        made = import_checkpoints(uploads, out, append=True, into=into, progress=progress)
        said = f"{count(len(made.records))} added to the zoo {name}, which now has {len(ModelZoo(out)):,}."
        return ImportedZoo(name, said, made.account, _notes(made))
    if out.exists() and viewer.owns(result_owner(out)):
        raise UserError(f"There is a zoo {name} already: choose another name, or tick “Add to it”.")
    if out.exists():
        raise taken(name)
    claimed = claim(out, viewer.owner)
    try:
        made = import_checkpoints(uploads, out, into=into, progress=progress)
    except BaseException:
        if claimed:
            release(out)
        raise
    said = f"{count(len(made.records))} imported as the zoo {name}; `zoo export` gives them back."
    return ImportedZoo(name, said, made.account, _notes(made))


def _notes(made) -> list[str]:
    return [reason for _, reason in made.refused] + made.notes


def submit_zoo(
    files: list[str] | None, name: str, subsets, low, high, images, seed, viewer: Viewer, progress: Progress = silent
):
    """Put the building of a zoo in the queue: the `Job`, which is the viewer's.

    Raises:
        UserError: a value is wrong, or what `submit` refuses.
    """
    from dataclasses import asdict

    from d2nwg.encoders.images import DEFAULT_ENCODER
    from d2nwg.jobs.queue import submit
    from d2nwg.weights.zoo import ZooConfig

    if not files:
        raise UserError(NO_IMAGES)
    values = dict(subsets=subsets, min_classes=low, max_classes=high, images=images, seed=seed)
    config = ZooConfig(**whole_numbers(values, ZOO_LIMITS))
    parameters: dict[str, Any] = {"data": [], "encoder": DEFAULT_ENCODER, "config": asdict(config), "device": None}
    return submit("zoo", name, parameters, {"data": [own_file(file) for file in files]}, owner=viewer.owner)


def submit_networks(
    files: list[str] | None,
    name: str,
    network: str,
    subsets,
    classes,
    updates,
    seed,
    viewer: Viewer,
    progress: Progress = silent,
):
    """`submit_zoo` of a zoo of small networks.

    Args:
        network: of `d2nwg.weights.small_networks.NETWORKS`.
        classes: that each network tells apart; 0 for all of a data set.
    """
    from dataclasses import asdict

    from d2nwg.jobs.queue import submit
    from d2nwg.weights.build_networks import NetworkZooConfig
    from d2nwg.weights.small_networks import small_network

    if not files:
        raise UserError(NO_IMAGES)
    small_network(network)  # whether there is one
    values = whole_numbers(dict(subsets=subsets, classes=classes, updates=updates, seed=seed), NETWORK_LIMITS)
    config = NetworkZooConfig(network=network, **{**values, "classes": values["classes"] or None})
    parameters: dict[str, Any] = {"data": [], "config": asdict(config), "device": None}
    return submit("networks", name, parameters, {"data": [own_file(file) for file in files]}, owner=viewer.owner)


def _zoos(viewer: Viewer) -> dict[str, Path]:
    from d2nwg.bundles import list_zoos

    return {name: path for name, path in list_zoos().items() if viewer.sees(path)}


def zoo_names(viewer: Viewer) -> list[str]:
    """The zoos in the cache that a viewer may use, the newest first."""
    found = [(path.stat().st_mtime, name) for name, path in _zoos(viewer).items()]
    return [name for _, name in sorted(found, reverse=True)]


def zoo_path(name: str | None, viewer: Viewer) -> Path:
    """The folder of a zoo: of one in the cache that a viewer may use, or below an allowed folder.

    Raises:
        UserError: none is chosen, or another one; the sentence is the same whether there is one or not.
    """
    if not name:
        raise UserError("Choose a zoo to train on, or build one first.")
    if path := _zoos(viewer).get(name) or allowed_path(name):
        return path
    others = ", or give one in a folder that the app was started with (python app.py --models DIR)"
    raise UserError(f"That zoo is not to be had here: choose one from the list{others if folders() else ''}.")


def suiting(name: str | None, generator: str, viewer: Viewer) -> str:
    """The generator for this zoo: the one chosen if it can learn from it, or if there is no such zoo."""
    from d2nwg.generators import for_zoo
    from d2nwg.weights.info import zoo_kind

    try:
        kind = zoo_kind(zoo_path(name, viewer)) if name else None
    except UserError:
        return generator
    fitting = [one.name for one in for_zoo(kind)]
    return next((one for one in (generator, FIRST) if one in fitting), fitting[0])


def training_config(generator: str, preset: str, values: dict[str, str]):
    """The configuration of a preset with some fields changed.

    Raises:
        UserError: a field's value cannot be one.
    """
    from d2nwg.generators import get_generator
    from d2nwg.training.settings import changed

    return changed(
        get_generator(generator).config_class.preset(preset), {name: text for name, text in values.items() if text}
    )


def measure(zoo: Path, config, progress: Progress = silent) -> str:
    """How long a training takes here and how much memory: a sentence."""
    from d2nwg.training.estimate import estimate

    found = estimate([zoo], config, progress=progress)
    least = "" if found["whole"] else "at least "
    parts = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in found["stages"].items())
    memory = f" and {found['memory'] / 2**30:.1f} GB of memory" if found["memory"] else ""
    return (
        f"On this machine this takes {least}about {format_seconds(found['seconds'])}{memory}. Measured just now, a "
        f"few steps a stage: {parts}."
    )
