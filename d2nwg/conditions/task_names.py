"""Task ids in words: what a person writes, and the names that a `TaskIndex` knows."""

import math
import re
from collections.abc import Mapping, Sequence

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import folded, shown, some


def tasks_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``"data set/class"`` names as the classes of each data set, in the same order."""
    found: dict[str, list[str]] = {}
    for name in names:
        task, _, label = name.partition("/")
        found.setdefault(task, []).append(label)
    return {task: tuple(classes) for task, classes in found.items()}


def read_mix(text: str, tasks: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """What a person writes for a task: its name, or several with a share each, such as ``0.7 birds + 0.3 tools``.

    Args:
        tasks: the classes of each task there is.
    Returns:
        task → share. Shares may be negative; a name without one has an equal part of 1.
    Raises:
        UserError: a task that there is not, or tasks whose classes differ.
    """
    if not tasks:
        raise UserError("This bundle is shown images of a task and knows no task by name: leave the task out.")
    if text in tasks:
        return {text: 1.0}
    share = r"[-+]?(?:\d+\.?\d*|\.\d+)"
    parts = [re.fullmatch(rf"\s*(?:({share})(?:\s*\*\s*|\s+))?(.+?)\s*", part) for part in text.split(" + ")]
    names = [part[2] if part else "" for part in parts]
    if unknown := [name for name in names if name not in tasks]:
        raise UserError(
            f"There is no task {shown(unknown[0])}: the bundle knows {some(list(tasks), 20)}. Several are mixed "
            f"as in 0.5 {next(iter(tasks))} + 0.5 {list(tasks)[-1]}."
        )
    first = list(map(folded, tasks[names[0]]))
    for name in names[1:]:
        if sorted(map(folded, tasks[name])) != sorted(first):
            raise UserError(f"{names[0]} and {name} have other classes: only tasks with the same ones can be mixed.")
    mix: dict[str, float] = {}
    for name, part in zip(names, parts, strict=True):
        mix[name] = mix.get(name, 0.0) + (float(part[1]) if part[1] else 1 / len(parts))
    if not all(map(math.isfinite, mix.values())):
        raise UserError("A share of a task is too large a number.")
    return mix


def _in_order(task: str, classes: Sequence[str], order: Sequence[str]) -> list[str]:
    """A task's class names, as `TaskIndex` knows them, in the order of ``order``, which names the same classes."""
    own = {folded(label): label for label in classes}
    return [f"{task}/{own[folded(label)]}" for label in order]


def name_classes(
    tasks: Mapping[str, Sequence[str]], task: str, classes: Sequence[str]
) -> tuple[list[list[str]], list[float]]:
    """A task in words (`read_mix`) as what `WeightGenerationPipeline.for_tasks` takes: names in the order of
    ``classes``, and shares.

    Args:
        tasks: the classes of each task that the bundle knows.
    Raises:
        UserError: the bundle does not know the task, or the task does not have the classes.
    """
    mix = read_mix(task, tasks)
    own = tasks[next(iter(mix))]
    if unknown := [label for label in classes if folded(label) not in set(map(folded, own))]:
        raise UserError(
            f"The task {shown(task)} has the classes {some(own, 12)}, not {some(unknown)}: the folders of your images "
            "need the same names."
        )
    return [_in_order(name, tasks[name], classes) for name in mix], list(mix.values())
