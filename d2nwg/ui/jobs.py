"""What the tabs with jobs share: whose they are, the list, what can be done with one, and its log."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gradio as gr

from d2nwg.jobs.job import Job
from d2nwg.jobs.kinds import KINDS
from d2nwg.jobs.owner import Viewer, find_job, jobs_of
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE, Components
from d2nwg.ui.frame import Frame
from d2nwg.ui.job_html import jobs_html
from d2nwg.ui.session import Session
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError

EVERY = 1.5  # seconds between two looks at the jobs
VERBS = {"pause": "Pausing", "resume": "Resuming", "stop": "Stopping", "delete": "Deleting"}  # each, and while it does
LOG_END = 20_000  # characters of a log that are shown


def may_submit(viewer: Viewer) -> None:
    """Raises UserError for a visitor who could not see what they started."""
    if not viewer.everything and viewer.owner is None:
        raise UserError(
            "Your browser keeps no data of this page, so nothing started here could be known as yours: let it keep "
            "them, reload the page, and try again."
        )


def newest(viewer: Viewer, kinds: Sequence[str]) -> list[Job]:
    """The jobs of some kinds that a viewer may see, the newest first."""
    return [job for job in reversed(jobs_of(viewer)) if job.spec["kind"] in kinds]


def job_choices(jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """(words, id) of jobs."""
    return [(f"{job.spec['name']} ({KINDS[job.spec['kind']].words})", job.id) for job in jobs]


def pick_update(jobs: Sequence[Job], asked: str | None, picked: str | None) -> dict:
    """The update of the choice of a job, by a look that was asked for with one job and shows another, or the same.

    A look takes a while: what was chosen since it was asked for, by hand or by starting a job, stays chosen.
    """
    return gr.update(choices=job_choices(jobs), **({} if picked == asked else {"value": picked}))


def log_end(job: Job) -> str:
    """The end of a job's log."""
    try:
        text = job.log.read_text(errors="replace")
    except OSError:
        return "The job has not begun."
    return text[-LOG_END:] or "Nothing yet."


def download_log(job: Job, folder: Path) -> Path:
    """A copy of the log to download."""
    target = folder / f"{job.id}-{time.strftime('%H%M%S')}.log.txt"
    target.write_text(job.log.read_text(errors="replace") if job.log.is_file() else "")
    return target


class JobsList(Components):
    """A list of jobs, the choice of one, and the buttons for it.

    Attributes:
        verbs: the buttons, by what they do to a job.
    """

    def __init__(self, prefix: str, empty: str):
        self.listing = gr.HTML(jobs_html([], None, empty), elem_id=f"{prefix}jobs")
        with gr.Column(visible=False) as self.one:
            self.pick = gr.Dropdown([], value=None, label="Job", elem_id=f"{prefix}job")
            with gr.Row(elem_classes="do verbs"):
                self.verbs = {
                    verb: gr.Button(verb.capitalize(), elem_id=f"{prefix}job-{verb}", min_width=80, interactive=False)
                    for verb in VERBS
                }
            self.said = gr.HTML(elem_id=f"{prefix}job-said")

    def can(self, job: Job | None, state: str) -> dict:
        """The update of the buttons for a job in this state."""
        from d2nwg.jobs import queue

        can = {
            "pause": state == "running",
            "resume": state in queue.RESUMABLE,
            "stop": state in queue.UNFINISHED,
            "delete": bool(job) and state not in ("running", "paused"),
        }
        return {button: gr.update(interactive=can[verb]) for verb, button in self.verbs.items()}

    def wire(self, frame: Frame, look: Callable, inputs: Sequence, outputs: Sequence) -> None:
        """Have ``look`` called again and again, when another job is picked, and after the buttons."""
        timer = gr.Timer(EVERY)  # always: the server hears late which tab is in view, and a look costs milliseconds
        timer.tick(look, inputs, outputs, concurrency_limit=2, **PRIVATE)
        self.pick.change(look, inputs, outputs, **PRIVATE)
        frame.demo.load(look, inputs, outputs, **PRIVATE)
        for verb, button in self.verbs.items():
            acted = button.click(acting(verb), [frame.token, self.pick], self.said, **PRIVATE)
            acted.then(look, inputs, outputs, **PRIVATE)


def acting(verb: str):
    """The handler of the button that does this to a job."""

    def act(request: gr.Request, token, picked: str | None) -> Iterator[str]:
        from d2nwg.jobs import queue

        try:
            job = find_job(picked or "", visitor(request, token))
            name = job.id.partition("-")[2]
            yield views.notice(f"{VERBS[verb]} {name} …", "note")
            getattr(queue, verb)(job)
        except UserError as reason:
            yield views.notice(str(reason))
        else:
            yield views.notice(f"{name} is deleted.", "note") if verb == "delete" else ""

    return act


def doing(frame: Frame, jobs: JobsList, does: Callable[[Session, Job], dict]):
    """The handler of a button: ``does(visit, job)`` gives its update for the picked job."""

    def click(request: gr.Request, token, visit: Session | None, picked: str | None) -> dict:
        visit = visit or Session(viewer=visitor(request, token))
        try:
            update = does(visit, find_job(picked or "", visitor(request, token)))
        except UserError as reason:
            update = {jobs.said: views.notice(str(reason))}
        return {frame.session: visit, **update}

    return click


class JobLog(Components):
    """The log of the picked job."""

    def __init__(self, prefix: str):
        with gr.Column(elem_classes="card", visible=False) as self.card:
            with gr.Accordion("Log", open=False, elem_id=f"{prefix}job-logs"):
                self.text = gr.Code(
                    language=None,
                    show_label=False,
                    interactive=False,
                    lines=4,
                    max_lines=16,
                    elem_id=f"{prefix}job-log",
                    show_line_numbers=False,
                    wrap_lines=True,
                )
            self.download = gr.DownloadButton("Download the log", size="sm", elem_id=f"{prefix}job-log-download")

    def wire(self, frame: Frame, jobs: JobsList) -> None:
        """Download the whole log."""

        def give(visit: Session, job: Job) -> dict:
            return {self.download: str(download_log(job, visit.subfolder()))}

        inputs, outputs = [frame.token, frame.session, jobs.pick], [frame.session, jobs.said, self.download]
        self.download.click(doing(frame, jobs, give), inputs, outputs, **PRIVATE)
