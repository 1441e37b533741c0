"""The list of jobs, in the tabs that have one. Whatever comes from a visitor is escaped here."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from d2nwg.jobs.job import Job
from d2nwg.jobs.kinds import KINDS
from d2nwg.ui import html as views
from d2nwg.utils.progress import format_seconds

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


def jobs_html(jobs: Sequence[Job], chosen: str | None, empty: str) -> str:
    """A list of jobs; ``empty`` is what is said of none."""
    if not jobs:
        return f'<div class="place"><h3>Your jobs will stand here</h3><p>{escape(empty)}</p></div>'
    return f'<ul class="jobs">{"".join(_job(job, job.id == chosen) for job in jobs)}</ul>'


def _job(job: Job, chosen: bool) -> str:
    state, spec = job.state(), job.spec
    name, total, done = state["state"], state.get("total") or 0, state.get("done") or 0
    about = ABOUT.get(spec["kind"], lambda job: "")
    words = [escape(about(job)), escape(state.get("stage") or "starting") if name in ("running", "paused") else ""]
    if name in ("running", "paused") and total:
        words.append(f"step {done:,} of {total:,}")
    if name == "running" and state.get("left"):
        words.append(f"{format_seconds(state['left'])} left of this stage")
    if name == "queued":
        words.append("begins when the job before it ends")
    if name in ("running", "paused"):
        words.append(LIVE.get(spec["kind"], lambda job: "")(job))
    words.append(escape(state.get("message") or ""))
    share = 100 * done / total if total else 0
    bar = f'<div class="bar"><i style="width:{share:.1f}%"></i></div>' if name in ("running", "paused") else ""
    return (
        f'<li class="job {name}{" chosen" if chosen else ""}"><div class="head"><b>{escape(spec["name"])}</b>'
        f'<span class="kind">{KINDS[spec["kind"]].words}</span><span class="state">{MARKS[name]} {STATES[name]}'
        f"</span></div>{bar}<p>{' · '.join(filter(None, words))}</p></li>"
    )


def _training(job: Job) -> str:
    """The last loss and accuracies of a training."""
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


def base_words(job: Job) -> str:
    """How the unchanged model of a refinement answers, as far as it is known."""
    right, done, total = job.base() or (0, 0, 0)
    if not done:
        return ""
    return f"base {'so far ' if done < total else ''}{views.percent(right / done)} of {done:,} questions"


def _from_what(job: Job) -> str:
    zoo = job.spec["parameters"].get("zoo")
    return f"from the zoo {Path(zoo).name}" if zoo else "from the model alone"


def _of_what(job: Job) -> str:
    return f"of {Path(str(job.spec['parameters'].get('model'))).name}"


def _fine_tunes(job: Job) -> str:
    """How many checkpoints there are, and how they answer."""
    base, made = job.checkpoints()
    known = [] if base is None else [f"base {views.percent(base)}"]
    if made:
        known = [views.count(len(made), "checkpoint"), *known]
        known.append(f"best {views.percent(max(one['accuracy'] for one in made))}")
    return " · ".join(known)


ABOUT: dict[str, Callable[[Job], str]] = {"refine": _from_what, "finetunes": _of_what}  # by kind: what it is
LIVE: dict[str, Callable[[Job], str]] = {  # by kind: how it goes
    "train": _training,
    "refine": base_words,
    "finetunes": _fine_tunes,
}
