"""The Train tab's third card: the jobs, how far each is, and what it has made."""

import gradio as gr

from d2nwg.generators import get_generator
from d2nwg.jobs.owner import STRANGER, find_job
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, Components, bundle_update
from d2nwg.ui.frame import Frame
from d2nwg.ui.session import Session
from d2nwg.ui.settings import bundle_names
from d2nwg.ui.train import html, service
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError

EVERY = 1.5  # seconds between two looks at the jobs
VERBS = ("pause", "resume", "stop", "delete")
FINISHED = "Choose it above, at “Bundle”, or press the button: then the Generate tab uses it."
SAMPLED = "It makes networks: download it, or sample with python -m d2nwg sample."


class JobsCard(Components):
    """The list of jobs, and what there is of the one that is picked.

    Attributes:
        verbs: the buttons, by what they do to a job.
        seen: what the page showed at the last look, by its name (see `wire_jobs`).
    """

    def __init__(self) -> None:
        with gr.Column(elem_classes="card"):
            gr.HTML(views.title("3 · Jobs", "Each is a process of its own; close this page and it goes on."))
            self.listing = gr.HTML(html.jobs_html(None, STRANGER), elem_id="jobs")
            with gr.Column(visible=False) as self.one:
                self.pick = gr.Dropdown([], value=None, label="Job", elem_id="job")
                with gr.Row(elem_classes="do verbs"):
                    self.verbs = {
                        verb: gr.Button(verb.capitalize(), elem_id=f"job-{verb}", min_width=80, interactive=False)
                        for verb in VERBS
                    }
                self.said = gr.HTML(elem_id="job-said")
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
        with gr.Column(elem_classes="card", visible=False) as self.logs:
            with gr.Accordion("Log", open=False, elem_id="job-logs"):
                self.log = gr.Code(
                    language=None,
                    show_label=False,
                    interactive=False,
                    lines=4,
                    max_lines=16,
                    elem_id="job-log",
                    show_line_numbers=False,
                    wrap_lines=True,
                )
            self.download = gr.DownloadButton("Download the log", size="sm", elem_id="job-log-download")
        self.seen = gr.State({})


def wire_jobs(frame: Frame, chosen: gr.Dropdown, jobs: JobsCard) -> None:
    """Looking at the jobs again and again; `chosen` is the choice of a zoo, which then shows new ones."""

    def look(
        request: gr.Request, token, visit: Session | None, picked: str | None, before: dict, zoo: str | None
    ) -> dict:
        """Everything that may have changed since the last look."""
        from d2nwg.jobs import queue

        viewer = visitor(request, token)
        if visit:  # the token may be there later than the session
            visit.viewer = viewer
        queue.start_next()
        choices, zoos, bundles = service.job_choices(viewer), service.zoo_names(viewer), bundle_names(viewer)
        ids = [key for _, key in choices]
        picked = picked if picked in ids else next(iter(ids), None)
        job = find_job(picked, viewer) if picked else None
        state = job.state()["state"] if job else ""
        lines = job.metrics() if job and job.spec["kind"] == "train" else []
        now = {
            "jobs": (choices, picked),
            "zoos": zoos,
            "bundles": bundles,
            "state": (picked, state),
            "lines": (picked, len(lines)),
            "log": (picked, job.log.stat().st_size if job and job.log.is_file() else 0),
        }
        updates = {
            "jobs": lambda: {jobs.pick: gr.update(choices=choices, value=picked)},
            "zoos": lambda: {chosen: gr.update(choices=zoos, value=zoo or next(iter(zoos), None))},
            "bundles": lambda: {frame.bundle: gr.update(choices=bundles)},
            "state": lambda: _state(jobs, job, state, lines),
            "lines": lambda: _figures(jobs, job, lines),
            "log": lambda: {jobs.log: service.log_end(job) if job else ""},
        }
        update = {jobs.listing: html.jobs_html(picked, viewer), jobs.one: gr.update(visible=bool(ids)), jobs.seen: now}
        for name, value in now.items():
            if value != (before or {}).get(name):
                update |= updates[name]()
        return update

    def acting(verb: str):
        def act(request: gr.Request, token, picked: str | None) -> str:
            from d2nwg.jobs import queue

            try:
                job = find_job(picked or "", visitor(request, token))
                name = job.id.partition("-")[2]
                getattr(queue, verb)(job)
            except UserError as reason:
                return views.notice(str(reason))
            return views.notice(f"{name} is deleted.", "note") if verb == "delete" else ""

        return act

    inputs = [frame.token, frame.session, jobs.pick, jobs.seen, chosen]
    outputs = [jobs.listing, jobs.one, jobs.pick, chosen, frame.bundle, *jobs.verbs.values()]
    outputs += [jobs.done, jobs.ready, jobs.use, jobs.logs, jobs.figures, jobs.good, jobs.losses, jobs.accuracies]
    outputs += [jobs.log, jobs.seen]
    timer = gr.Timer(EVERY)  # always: the server hears late which tab is in view, and a look costs milliseconds
    timer.tick(look, inputs, outputs, concurrency_limit=2, **PRIVATE)
    jobs.pick.change(look, inputs, outputs, **PRIVATE)
    frame.demo.load(look, inputs, outputs, **PRIVATE)
    for verb, button in jobs.verbs.items():
        acted = button.click(acting(verb), [frame.token, jobs.pick], jobs.said, **PRIVATE)
        acted.then(look, inputs, outputs, **PRIVATE)
    _wire_results(frame, jobs)


def _makes_heads(job, lines: list[dict]) -> bool:
    return bool(lines) and get_generator(job.spec["parameters"]["generator"]).makes == "head"


def _state(jobs: JobsCard, job, state: str, lines: list[dict]) -> dict:
    """The update that shows what can be done with a job."""
    from d2nwg.jobs import queue

    heads = _makes_heads(job, lines)
    can = {
        "pause": state == "running",
        "resume": state in queue.RESUMABLE,
        "stop": state in queue.UNFINISHED,
        "delete": bool(job) and state not in ("running", "paused"),
    }
    return {
        **{button: gr.update(interactive=can[verb]) for verb, button in jobs.verbs.items()},
        jobs.done: gr.update(visible=bool(job) and state == "finished" and job.spec["kind"] == "train"),
        jobs.ready: views.title("The bundle is ready", FINISHED if heads else SAMPLED),
        jobs.use: gr.update(visible=heads),
        jobs.logs: gr.update(visible=bool(job)),
    }


def _figures(jobs: JobsCard, job, lines: list[dict]) -> dict:
    """The update that shows the figures of a training, from the lines of its metrics.jsonl."""
    if not lines:
        return {jobs.figures: gr.update(visible=False)}
    from d2nwg.figures.train import accuracies_figure, losses_figure

    accuracies = accuracies_figure(lines)
    return {
        jobs.figures: gr.update(visible=True),
        jobs.losses: losses_figure(lines),
        jobs.accuracies: accuracies,
        jobs.good: gr.update(visible=_makes_heads(job, lines) or bool(accuracies.data)),
    }


def _wire_results(frame: Frame, jobs: JobsCard) -> None:
    """What can be done with a finished job."""

    def doing(does):
        """The handler of a button: ``does(visit, job)`` gives its update."""

        def click(request: gr.Request, token, visit: Session | None, picked: str | None) -> dict:
            visit = visit or Session(viewer=visitor(request, token))
            try:
                update = does(visit, find_job(picked or "", visitor(request, token)))
            except UserError as reason:
                update = {jobs.said: views.notice(str(reason))}
            return {frame.session: visit, **update}

        return click

    def use(visit: Session, job) -> dict:
        return {frame.bundle: bundle_update(visit.viewer, job.out.name), frame.tabs: gr.Tabs(selected="generate")}

    def pack(visit: Session, job) -> dict:
        from d2nwg.bundles import pack_bundle

        made = pack_bundle(job.out, visit.subfolder())
        return {jobs.pack: gr.update(value=str(made), label=f"Download {made.name}")}

    def log(visit: Session, job) -> dict:
        return {jobs.download: str(service.download_log(job, visit.subfolder()))}

    for button, does, shown in (
        (jobs.use, use, [frame.bundle, frame.tabs]),
        (jobs.pack, pack, [jobs.pack]),
        (jobs.download, log, [jobs.download]),
    ):
        inputs = [frame.token, frame.session, jobs.pick]
        button.click(doing(does), inputs, [frame.session, jobs.said, *shown], **PRIVATE)
