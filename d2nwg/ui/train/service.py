"""What the Train tab does and says, without gradio."""

import os
import time
from html import escape
from pathlib import Path

from d2nwg.ui import html as views
from d2nwg.ui.settings import whole_numbers
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, format_seconds, silent

STATES = {
    "queued": "waiting",
    "running": "running",
    "paused": "paused",
    "stopped": "stopped",
    "interrupted": "interrupted",
    "failed": "failed",
    "finished": "finished",
}
MARKS = {
    "queued": "◌",
    "running": "▶",
    "paused": "⏸",
    "stopped": "■",
    "interrupted": "!",
    "failed": "✗",
    "finished": "✓",
}
KINDS = {"train": "training", "zoo": "zoo"}
ZOO_LIMITS = {
    "subsets": ("Heads", 5, 10**6),
    "min_classes": ("Fewest classes", 2, 1000),
    "max_classes": ("Most classes", 2, 1000),
    "images": ("Images per class", 1, 1000),
    "seed": ("Seed", 0, 2**31 - 1),
}
LOG_END = 20_000  # characters of a log that are shown


def why_off() -> str | None:
    """Why training is off here, or None where it is on."""
    if space := os.environ.get("SPACE_ID"):
        return (
            (
                "Training is off on this Space: its machine is shared and keeps nothing. Duplicate it (the menu at the "
                f"top right, “Duplicate this Space”, or huggingface.co/spaces/{space}?duplicate=true), give the copy "
                "hardware and storage, and set the variable TRAIN_HERE to 1; or run the app on your own machine."
            )
            if os.environ.get("TRAIN_HERE") != "1"
            else None
        )
    return None


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


def look_at_checkpoints(files: list[str] | None, into: Path, progress: Progress = silent) -> tuple[str, list[dict]]:
    """What an import would keep, as HTML, and the architectures for a figure.

    Raises:
        UserError: nothing can be imported.
    """
    from d2nwg.weights.model_zoo import import_checkpoints
    from d2nwg.weights.preview import preview

    made = import_checkpoints([own_file(file) for file in files or ()], None, into=into, progress=progress)
    groups = preview(made)
    refused = [reason for _, reason in made.refused] + made.notes
    notes = "".join(f"<li>{escape(reason)}</li>" for reason in refused[:20])
    more = f"<li>and {len(refused) - 20:,} more</li>" if len(refused) > 20 else ""
    return (
        f'<p class="summary"><b>{views.count(len(made.records), "checkpoint")}</b>, '
        f"{views.count(len(groups), 'architecture')}</p>"
        + (f'<ul class="notes">{notes}{more}</ul>' if notes else "")
        + "".join(_architecture(number, group) for number, group in enumerate(groups[:6], 1))
    ), groups


def _architecture(number: int, group: dict) -> str:
    rows = "".join(
        f'<tr><td title="{escape(row["layer"])}">{escape(row["layer"])}</td>'
        f"<td>{escape(', '.join('×'.join(map(str, shape)) or '1' for shape in row['shapes'].values()))}</td>"
        f"<td>{row['numbers']:,}</td><td>{row['chunks']}</td><td>{row['padding']:,}</td><td>{row['std']:.3g}</td></tr>"
        for row in group["layers"][:200]
    )
    difference = f'<p class="hint">{escape(group["difference"])}</p>' if group["difference"] else ""
    return (
        f'<details class="architecture"{" open" if number == 1 else ""}><summary>Architecture {number}: '
        f"{views.count(group['checkpoints'], 'checkpoint')} of {group['parameters']:,} numbers</summary>"
        f'{difference}<div class="scroll" tabindex="0" role="group" aria-label="layers"><table><thead><tr>'
        "<th>layer</th><th>shapes</th><th>numbers</th><th>chunks</th><th>padding</th><th>spread</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def import_zoo(
    files: list[str] | None, name: str, into: Path, append: bool = False, progress: Progress = silent
) -> str:
    """Import uploaded checkpoints as a zoo of that name, or add them to it; a sentence.

    Raises:
        UserError: what `import_checkpoints` and `check_name` refuse.
    """
    from d2nwg.jobs.queue import check_name
    from d2nwg.utils.paths import cache_dir
    from d2nwg.weights.info import CHECKPOINTS, zoo_kind
    from d2nwg.weights.model_zoo import ModelZoo, import_checkpoints

    name = check_name(name)
    out = cache_dir() / "zoos" / name
    if out.exists() and not append:
        raise UserError(f"There is a zoo {name} already: choose another name, or tick “Add to it”.")
    if append and zoo_kind(out) != CHECKPOINTS:
        raise UserError(f"There is no zoo of checkpoints {name} to add to: choose the name of one, or untick “Add”.")
    made = import_checkpoints(
        [own_file(file) for file in files or ()], out, append=append, into=into, progress=progress
    )
    count = views.count(len(made.records), "checkpoint")
    if append:
        left = f"; {len(made.refused)} left out: {made.refused[0][1]}" if made.refused else "."
        return f"{count} added to the zoo {name}, which now has {len(ModelZoo(out)):,}{left}"
    return f"{count} imported as the zoo {name}; `zoo export` gives them back."


def submit_zoo(files: list[str] | None, name: str, subsets, low, high, images, seed):
    """Put the building of a zoo in line: the `Job`.

    Raises:
        UserError: a value is wrong, or what `submit` refuses.
    """
    from dataclasses import asdict

    from d2nwg.encoders.images import DEFAULT_ENCODER
    from d2nwg.jobs.queue import submit
    from d2nwg.weights.zoo import ZooConfig

    if not files:
        raise UserError("Choose the images first: one zip a data set, with one folder a class.")
    values = dict(subsets=subsets, min_classes=low, max_classes=high, images=images, seed=seed)
    config = ZooConfig(**whole_numbers(values, ZOO_LIMITS))
    parameters = {"data": [], "encoder": DEFAULT_ENCODER, "config": asdict(config), "device": None}
    return submit("zoo", name, parameters, [own_file(file) for file in files])


def zoo_names() -> list[str]:
    """The zoos in the cache, the newest first."""
    from d2nwg.bundles import list_zoos

    found = [(path.stat().st_mtime, name) for name, path in list_zoos().items()]
    return [name for _, name in sorted(found, reverse=True)]


def zoo_path(name: str | None) -> Path:
    """The folder of a zoo in the cache, or of a path.

    Raises:
        UserError: none is chosen.
    """
    from d2nwg.bundles import list_zoos

    if not name:
        raise UserError("Choose a zoo to train on, or build one first.")
    return list_zoos().get(name) or Path(name).expanduser()


def describe_zoo(name: str | None) -> str:
    """What is in a zoo, as HTML."""
    if not name:
        return views.hint("No zoo yet: build one from images above, or give the path of one.")
    from d2nwg.weights.model_zoo import ModelZoo
    from d2nwg.weights.open import open_zoo

    try:
        zoo = open_zoo(zoo_path(name))
        told = zoo.summary()
        if isinstance(zoo, ModelZoo):
            return _models(told)
        right = zoo.accuracies()
    except UserError as reason:
        return views.notice(str(reason))
    sets = ", ".join(f"{d['name']} ({d['classes']} classes)" for d in told["datasets"])
    return (
        f'<div class="zoo"><p><b>{told["records"]:,} {told["probe"]} heads</b> of {told["min_classes"]} to '
        f"{told['max_classes']} classes, right on {views.percent(float(right.mean()))} of held-out images.</p>"
        f'<p class="hint">{escape(sets)} · {told["num_images"]:,} images · {escape(told["encoder"])}</p></div>'
    )


def _models(told: dict) -> str:
    right = told["accuracy"].get("mean")
    known = f", right on {views.percent(right)} by what their table says" if right else ""
    parts = "; ".join(
        f"{a['checkpoints']:,} of {a['parameters']:,} numbers like {escape(a['first'])}"
        + (", with BatchNorm" if a["batchnorm"] else "")
        for a in told["architectures"][:6]
    )
    return (
        f'<div class="zoo"><p><b>{views.count(told["checkpoints"], "whole model")}</b> of '
        f'{views.count(len(told["architectures"]), "architecture")}{known}.</p><p class="hint">{parts} · tasks: '
        f"{escape(', '.join(list(told['tasks'])[:6]))}</p></div>"
    )


def suiting(name: str | None, generator: str) -> str:
    """The generator for this zoo: the one chosen if it can learn from it."""
    from d2nwg.generators import for_zoo
    from d2nwg.weights.info import zoo_kind

    fitting = [one.name for one in for_zoo(zoo_kind(zoo_path(name)) if name else None)]
    return generator if generator in fitting else fitting[0]


def recipe(generator: str, preset: str, values: dict[str, str]):
    """The configuration of a preset with some fields changed.

    Raises:
        UserError: a field's value cannot be one.
    """
    from d2nwg.generators import get_generator
    from d2nwg.training.settings import changed

    return changed(
        get_generator(generator).config_class.preset(preset), {name: text for name, text in values.items() if text}
    )


def measure(zoo: str | None, config, progress: Progress = silent) -> str:
    """How long a training takes here and how much memory: a sentence."""
    from d2nwg.training.estimate import estimate

    found = estimate([zoo_path(zoo)], config, progress=progress)
    least = "" if found["whole"] else "at least "
    parts = ", ".join(f"{escape(name)} {format_seconds(seconds)}" for name, seconds in found["stages"].items())
    memory = f" and {found['memory'] / 2**30:.1f} GB of memory" if found["memory"] else ""
    return (
        f"On this machine this takes {least}about {format_seconds(found['seconds'])}{memory}. Measured just now, a "
        f"few steps a stage: {parts}."
    )


# ---------------------------------------- jobs in words


def job_choices() -> list[tuple[str, str]]:
    """(words, id) of every job, the newest first."""
    from d2nwg.jobs.job import list_jobs

    return [(f"{job.spec['name']} ({KINDS[job.spec['kind']]})", job.id) for job in reversed(list_jobs())]


def jobs_html(chosen: str | None) -> str:
    """The list of jobs, the newest first."""
    from d2nwg.jobs.job import list_jobs

    cards = [_job(job, job.id == chosen) for job in reversed(list_jobs())]
    if not cards:
        return (
            '<div class="place"><h3>Your jobs will stand here</h3><p>Build a zoo, then train on it. A job is a '
            "process of its own: it goes on when this page is closed, and one that is killed resumes from its last "
            "checkpoint.</p></div>"
        )
    return f'<ul class="jobs">{"".join(cards)}</ul>'


def _job(job, chosen: bool) -> str:
    state = job.state()
    name, total, done = state["state"], state.get("total") or 0, state.get("done") or 0
    words = [escape(state.get("stage") or "starting")] if name in ("running", "paused") else []
    if name in ("running", "paused") and total:
        words.append(f"step {done:,} of {total:,}")
    if name == "running" and state.get("left"):
        words.append(f"{format_seconds(state['left'])} left of this stage")
    if name == "queued":
        words.append("begins when the job before it ends")
    words += [
        text
        for text in (_last(job) if name in ("running", "paused") else "", escape(state.get("message") or ""))
        if text
    ]
    share = 100 * done / total if total else 0
    bar = f'<div class="bar"><i style="width:{share:.1f}%"></i></div>' if name in ("running", "paused") else ""
    return (
        f'<li class="job {name}{" chosen" if chosen else ""}"><div class="head"><b>{escape(job.spec["name"])}</b>'
        f'<span class="kind">{KINDS[job.spec["kind"]]}</span><span class="state">{MARKS[name]} {STATES[name]}'
        f"</span></div>{bar}<p>{' · '.join(words)}</p></li>"
    )


def _last(job) -> str:
    if job.spec["kind"] != "train":
        return ""
    lines = job.metrics()
    parts = []
    loss = next((line["loss"] for line in reversed(lines) if "loss" in line), None)
    if loss is not None:
        parts.append(f"loss {loss:.4g}")
    for key, word in (("reconstructed_accuracy", "reconstructions"), ("sampled_accuracy", "samples")):
        value = next((line[key] for line in reversed(lines) if key in line), None)
        if value is not None:
            parts.append(f"{word} right on {views.percent(value)}")
    return " · ".join(parts)


def log_end(job) -> str:
    """The end of a job's log."""
    try:
        text = job.log.read_text(errors="replace")
    except OSError:
        return "The job has not begun."
    return text[-LOG_END:] or "Nothing yet."


def download_log(job, folder: Path) -> Path:
    """A copy of the log to download."""
    target = folder / f"{job.id}-{time.strftime('%H%M%S')}.log.txt"
    target.write_text(job.log.read_text(errors="replace") if job.log.is_file() else "")
    return target
