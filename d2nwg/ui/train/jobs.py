"""The Train tab's third card: the jobs, how far each is, and what it has made."""

import re
from collections.abc import Sequence

import gradio as gr

from d2nwg.generators import get_generator
from d2nwg.jobs.job import Job
from d2nwg.jobs.kinds import KINDS
from d2nwg.jobs.owner import find_job
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, Components, bundle_update
from d2nwg.ui.frame import Frame
from d2nwg.ui.job_html import jobs_html
from d2nwg.ui.jobs import JobLog, JobsList, doing, job_choices, log_end, newest, pick_update
from d2nwg.ui.session import Session
from d2nwg.ui.settings import bundle_choices
from d2nwg.ui.train import service
from d2nwg.ui.visitor import visitor

EMPTY = (
    "Build a zoo, then train on it. A job is a process of its own: it goes on when this page is closed, and one that "
    "is killed resumes from its last checkpoint."
)
FINISHED = "Press the button, or choose it in the Generate tab, at “Bundle”."
GOES = {  # by a job's state, the middle of the line under the button that submitted it
    "queued": "is in the queue",
    "running": "is running",
    "paused": "is paused",
    "stopped": "is stopped",
    "interrupted": "is interrupted",
    "failed": "has failed",
    "finished": "is finished",
}
WORDS = "|".join(kind.words for kind in KINDS.values())
LINE = re.compile(rf"The ({WORDS}) ([A-Za-z0-9._-]+) (" + "|".join(GOES.values()) + "): see Jobs")
SAMPLED = "It makes networks: download it, or sample with python -m d2nwg sample."


def submitted(job: Job) -> str:
    """The line under the button that submitted a job: how that goes."""
    state, kind = job.state()["state"], KINDS[job.spec["kind"]].words
    return views.notice(
        f"The {kind} {job.spec['name']} {GOES[state]}: see Jobs.", "bad" if state == "failed" else "good"
    )


def followed(line: str | None, jobs: Sequence[Job]) -> str | None:
    """What `submitted` says now of the job in an earlier line of it; None where that still holds, or in any other."""
    found = LINE.search(line or "")
    if found is None:
        return None
    meant = (job for job in jobs if (KINDS[job.spec["kind"]].words, job.spec["name"]) == found.groups()[:2])
    now = next(map(submitted, meant), "")
    return None if now == line else now


class JobsCard(Components):
    """The list of jobs, and what there is of the one that is picked.

    Attributes:
        seen: what the page showed at the last look, by its name (see `wire_jobs`).
    """

    def __init__(self) -> None:
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("3 · Jobs", "Each is a process of its own; close this page and it goes on."))
            self.list = JobsList("", EMPTY)
        with gr.Column(elem_classes="card", visible=False, elem_id="job-done") as self.done:
            self.ready = gr.HTML(views.title("The bundle is ready", FINISHED))
            with gr.Row(elem_classes="downloads"):
                self.use = gr.Button("Use it in Generate", variant="primary", elem_id="job-use")
                self.pack = gr.DownloadButton("Pack it for download", elem_id="job-pack")
        with gr.Column(visible=False) as self.figures:
            with gr.Column(elem_classes="card"):
                gr.HTML(
                    views.title(
                        "Is it still learning?",
                        "The loss of each stage; a long one is smoothed, as measured in grey behind it.",
                    )
                )
                self.losses = gr.Plot(show_label=False, container=False, elem_id="job-losses")
            with gr.Column(elem_classes="card") as self.good:
                gr.HTML(views.title("How good are the heads?", "Right on images and heads that training never sees."))
                self.accuracies = gr.Plot(show_label=False, container=False, elem_id="job-accuracies")
        self.log = JobLog("")
        self.seen = gr.State({})


def wire_jobs(frame: Frame, chosen: gr.Dropdown, lines: Sequence[gr.HTML], jobs: JobsCard) -> None:
    """Looking at the jobs again and again; `chosen` is the choice of a zoo, which then shows new ones, and `lines`
    stand under the buttons that submit a job (`submitted`)."""
    listed = jobs.list

    def look(
        request: gr.Request, token, visit: Session | None, picked: str | None, before: dict, zoo: str | None, *said: str
    ) -> dict:
        """Everything that may have changed since the last look."""
        from d2nwg.jobs import queue

        viewer = visitor(request, token)
        if visit:  # the token may be there later than the session
            visit.viewer = viewer
        queue.start_next()
        own = newest(viewer, service.KINDS)
        choices, zoos, bundles = job_choices(own), service.zoo_names(viewer), bundle_choices(viewer)
        ids = [key for _, key in choices]
        asked, picked = picked, picked if picked in ids else next(iter(ids), None)
        job = find_job(picked, viewer) if picked else None
        state = job.state()["state"] if job else ""
        metrics = job.metrics() if job else []
        now = {
            "jobs": (choices, picked),
            "zoos": zoos,
            "bundles": bundles,
            "state": (picked, state),
            "lines": (picked, len(metrics)),
            "log": (picked, job.log.stat().st_size if job and job.log.is_file() else 0),
        }
        updates = {
            "jobs": lambda: {listed.pick: pick_update(own, asked, picked)},
            # a zoo that is being imported chooses itself: what was chosen before must not be set again
            "zoos": lambda: {chosen: gr.update(choices=zoos, **({} if zoo else {"value": next(iter(zoos), None)}))},
            "bundles": lambda: {frame.bundle: gr.update(choices=bundles)},
            "state": lambda: _state(jobs, job, state, metrics),
            "lines": lambda: _figures(jobs, job, metrics),
            "log": lambda: {jobs.log.text: log_end(job) if job else ""},
        }
        update = {
            listed.listing: jobs_html(own, picked, EMPTY),
            listed.one: gr.update(visible=bool(ids)),
            jobs.seen: now,
        }
        for name, value in now.items():
            if value != (before or {}).get(name):
                update |= updates[name]()
        for line, earlier in zip(lines, said, strict=True):
            if (now_said := followed(earlier, own)) is not None:
                update[line] = now_said
        return update

    inputs = [frame.token, frame.session, listed.pick, jobs.seen, chosen, *lines]
    outputs = [*lines, listed.listing, listed.one, listed.pick, chosen, frame.bundle, *listed.verbs.values()]
    outputs += [jobs.done, jobs.ready, jobs.use, jobs.figures, jobs.good, jobs.losses, jobs.accuracies]
    outputs += [jobs.log.card, jobs.log.text, jobs.seen]
    listed.wire(frame, look, inputs, outputs)
    jobs.log.wire(frame, listed)
    _wire_results(frame, jobs)


def _for_generate(job, lines: list[dict]) -> bool:
    """Whether the Generate tab can use the bundle that a job makes."""
    if not lines:
        return False
    generator = get_generator(job.spec["parameters"]["generator"])
    return generator.makes == "head" or generator.from_data


def _makes_heads(job, lines: list[dict]) -> bool:
    return bool(lines) and get_generator(job.spec["parameters"]["generator"]).makes == "head"


def _state(jobs: JobsCard, job, state: str, lines: list[dict]) -> dict:
    """The update that shows what can be done with a job."""
    usable = _for_generate(job, lines)
    return {
        **jobs.list.can(job, state),
        jobs.done: gr.update(visible=bool(job) and state == "finished" and job.spec["kind"] == "train"),
        jobs.ready: views.title("The bundle is ready", FINISHED if usable else SAMPLED),
        jobs.use: gr.update(visible=usable),
        jobs.log.card: gr.update(visible=bool(job)),
    }


def _figures(jobs: JobsCard, job, lines: list[dict]) -> dict:
    """The update that shows the figures of a training, from the lines of its metrics.jsonl."""
    if not lines:
        return {jobs.figures: gr.update(visible=False)}
    from d2nwg.figures.train import accuracies_figure, losses_figure

    losses, accuracies = losses_figure(lines), accuracies_figure(lines)
    return {  # no figure stands there without a point: of a long training the first one takes minutes
        jobs.figures: gr.update(visible=bool(losses.data)),
        jobs.losses: losses,
        jobs.accuracies: accuracies,
        jobs.good: gr.update(visible=bool(accuracies.data)),
    }


def _wire_results(frame: Frame, jobs: JobsCard) -> None:
    """What can be done with a finished job."""

    def use(visit: Session, job) -> dict:
        return {frame.bundle: bundle_update(visit.viewer, job.out.name), frame.tabs: gr.Tabs(selected="generate")}

    def pack(visit: Session, job) -> dict:
        from d2nwg.bundles import pack_bundle

        made = pack_bundle(job.out, visit.subfolder())
        return {jobs.pack: gr.update(value=str(made), label=f"Download {made.name}")}

    for button, does, shown in ((jobs.use, use, [frame.bundle, frame.tabs]), (jobs.pack, pack, [jobs.pack])):
        inputs = [frame.token, frame.session, jobs.list.pick]
        button.click(doing(frame, jobs.list, does), inputs, [frame.session, jobs.list.said, *shown], **PRIVATE)
