"""The Language tab's second step: refine the chosen layers as a job, watch it, and take the result away."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from d2nwg.jobs.job import Job
from d2nwg.jobs.owner import Viewer, find_job
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.job_html import jobs_html
from d2nwg.ui.jobs import doing, job_choices, log_end, may_submit, newest, pick_update
from d2nwg.ui.language import making, refining
from d2nwg.ui.language import refine_html as html
from d2nwg.ui.language import service as own
from d2nwg.ui.language.chat import meet, paint, painted
from d2nwg.ui.language.layout import Chat, LookChoices
from d2nwg.ui.language.make_zoo import wire_make
from d2nwg.ui.language.models import UPLOADED, check_model
from d2nwg.ui.language.refine_layout import EMPTY, LAYERS, Refining
from d2nwg.ui.language.state import LanguageState
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.visitor import visitor
from d2nwg.utils.errors import UserError

REFINING: dict[str, Any] = dict(concurrency_limit=1, concurrency_id="refining")  # long, so it has a slot of its own
ENDED = ("stopped", "finished")  # states of a job in which there may be a result


def wire_refine(frame: Frame, choices: LookChoices, refine: Refining, chat: Chat) -> None:
    """Choosing, sampling, starting, watching, and packing."""
    for key, choice in refine.questions.items():
        choice.change(
            lambda value: gr.update(visible=value == refining.OWN),
            choice,
            refine.question_file[key],
            queue=False,
            **PRIVATE,
        )
    refine.preset.input(
        lambda key, source: tuple(refining.start_of(key, source != refining.ALONE).values()),
        [refine.preset, refine.source],
        [refine.layers, refine.candidates],
        queue=False,
        **PRIVATE,
    )
    _wire_source(frame, choices, refine)
    _wire_sample(frame, choices, refine, chat)
    if not refine.closed:
        _wire_go(frame, choices, refine)
        _wire_jobs(frame, choices, refine, chat)
        wire_make(frame, choices, refine.make, refine.jobs.pick, refining.KINDS)


def _wire_source(frame: Frame, choices: LookChoices, refine: Refining) -> None:
    """What the model can be refined from, and what there is to choose for each."""

    def offer(request: gr.Request, token, name, file, chosen, preset):
        zoos = _zoos(name, file, visitor(request, token))
        keys = [key for _, key in zoos]
        now = chosen if chosen in keys and chosen != refining.ALONE else keys[0]
        offered = {refine.source: gr.update(choices=zoos, value=now, visible=len(zoos) > 1)}
        return offered if now == chosen else offered | turn(now, preset)

    def turn(chosen: str, preset: str) -> dict:
        zoo = chosen != refining.ALONE
        start = refining.start_of(preset, zoo)
        return {
            refine.sample: gr.update(visible=zoo),
            refine.layers: gr.update(value=start["layers"], **LAYERS[zoo]),
            refine.candidates: start["candidates"],
            refine.preset: gr.update(choices=refining.presets(zoo)),
            refine.criterion: "confidence" if zoo else "accuracy",
        }

    turned = [refine.sample, refine.layers, refine.candidates, refine.preset, refine.criterion]
    inputs = [frame.token, choices.model, choices.file, refine.source, refine.preset]
    refine.source.input(turn, [refine.source, refine.preset], turned, queue=False, **PRIVATE)
    for event in (choices.model.change, frame.demo.load):
        event(offer, inputs, [refine.source, *turned], **PRIVATE)


def _zoos(name, file, viewer: Viewer) -> list[tuple[str, str]]:
    """What the model of the picker can be refined from; one that may not be asked for, from itself alone."""
    try:
        return refining.zoo_choices(check_model(name, file), viewer)
    except UserError:
        return [("this model alone", refining.ALONE)]


def _wire_sample(frame: Frame, choices: LookChoices, refine: Refining, chat: Chat) -> None:
    """One sample of a zoo, which the chat then compares with the base."""

    def ask(visit: Session, name, file, source, seed):
        model = check_model(name, file)
        zoo = refining.check_zoo(source, model, visit.viewer)
        if zoo is None:
            return None
        return partial(_sampled, model, zoo, seed)

    def show(visit: Session, made, blind: bool, marked: bool) -> dict:
        model, zoo, tensors = made
        state = visit.state(LanguageState)
        state.compare(tensors, model)
        said = views.notice(refining.sampled_words(zoo), "note")
        return {refine.status: said, **paint(chat, meet(visit, model), blind, marked)}

    Run(frame.session, "language-sample", refine.sample, refine.stop, refine.status).on(
        refine.sample.click,
        ask,
        [choices.model, choices.file, refine.source, refine.seed],
        show,
        painted(chat),
        looks=[chat.blind, chat.marked],
    )


def _sampled(model: str, zoo: Path, seed, progress):
    return model, zoo, refining.sample(model, zoo, seed, progress)


def _wire_go(frame: Frame, choices: LookChoices, refine: Refining) -> None:
    """Putting a refinement in the queue."""

    def submit(visit: Session, name, file, mode, percent, source, select, report, select_file, report_file, *numbers):
        may_submit(visit.viewer)
        visit.uploaded(path for path in (select_file, report_file) if path)
        sets = {"select": (select, select_file), "report": (report, report_file)}
        model = check_model(name, file)
        zoo = refining.check_zoo(source, model, visit.viewer)
        asked = refining.check(model, own.check_look(mode, percent), sets, *numbers, zoo=zoo)
        return refining.submit(asked, visit.viewer)

    async def go(request: gr.Request, token, visit: Session | None, *values):
        visit = visit or Session(viewer=visitor(request, token))
        visit.viewer = visitor(request, token)
        yield {refine.status: views.notice("Reading the questions …", "note")}
        try:
            made = await asyncio.to_thread(submit, visit, *values)
        except UserError as reason:
            yield {frame.session: visit, refine.status: views.notice(str(reason))}
            return
        choices = job_choices(newest(visit.viewer, refining.KINDS))
        yield {
            frame.session: visit,
            refine.status: views.notice("It is in the queue: see Refinements.", "good"),
            refine.jobs.pick: gr.update(choices=choices, value=made.id),
        }

    sets = [*refine.questions.values(), *refine.question_file.values()]
    numbers = [refine.preset, refine.layers, refine.candidates, refine.seed, refine.criterion, refine.shots]
    ranking = [choices.model, choices.file, choices.mode, choices.percent]
    inputs = [frame.token, frame.session, *ranking, refine.source, *sets, *numbers]
    refine.go.click(go, inputs, [frame.session, refine.status, refine.jobs.pick], **PRIVATE)


def _wire_jobs(frame: Frame, choices: LookChoices, refine: Refining, chat: Chat) -> None:
    """Looking at the refinements again and again, and at what one has made once it has ended."""
    listed = refine.jobs

    def look(
        request: gr.Request,
        token,
        visit: Session | None,
        picked: str | None,
        before: dict,
        name,
        file,
        blind: bool,
        marked: bool,
    ) -> dict:
        """Everything that may have changed since the last look."""
        from d2nwg.jobs import queue

        viewer = visitor(request, token)
        if visit:  # the token may be there later than the session
            visit.viewer = viewer
        queue.start_next()
        mine = newest(viewer, refining.KINDS)
        ids, before, asked = [job.id for job in mine], before or {}, picked
        if picked not in ids:  # one that goes on is followed, one that has ended is opened when it is picked
            picked = next((job.id for job in mine if job.state()["state"] in queue.UNFINISHED), None)
        job = find_job(picked, viewer) if picked else None
        state = job.state()["state"] if job else ""
        log = refining.log_of(job) if job else []
        base = (job.checkpoints()[0] if _makes_zoo(job) else job.base()) if job else None
        now = {
            "list": jobs_html(mine, picked, EMPTY),
            "jobs": (job_choices(mine), picked),
            "state": (picked, state),
            "log": (picked, len(log)),
            "base": (picked, base),
            "zoos": _zoos(name, file, viewer),
            "output": (picked, job.log.stat().st_size if job and job.log.is_file() else 0),
        }
        changed = {key for key, value in now.items() if value != before.get(key)}
        if not changed:
            return gr.skip()
        update: dict = {refine.seen: now, listed.listing: now["list"]}
        if "jobs" in changed:
            update[listed.pick] = pick_update(mine, asked, picked)
            update[refine.listed] = update[listed.one] = gr.update(visible=bool(ids))
        if "zoos" in changed:  # one may be finished
            update[refine.source] = gr.update(choices=now["zoos"], visible=len(now["zoos"]) > 1)
        if changed & {"state", "log", "base"}:
            update |= _following(refine, job, state, log, base)
        if "output" in changed:
            update[refine.output.text] = log_end(job) if job else ""
        if "state" in changed:
            update |= listed.can(job, state)
            update |= {refine.output.card: gr.update(visible=bool(job))}
            if job and state != "queued":  # what was said of it before holds no longer
                update[refine.status] = _status(job, state)
                if _makes_zoo(job) and state not in queue.UNFINISHED:
                    update[refine.make.status] = ""
            made = refining.outcome(job) if job and state in ENDED else None
            if made is not None:
                visit = visit or Session(viewer=viewer)
                update |= {frame.session: visit, **_ended(refine, visit, job, made)}
                update |= _compare(chat, choices, visit, job, made, name, file, blind, marked)
        return update

    inputs = [frame.token, frame.session, listed.pick, refine.seen, choices.model, choices.file]
    outputs = [frame.session, refine.seen, refine.listed, *listed.components, refine.status, refine.source]
    outputs += [*refine.results, refine.make.status]
    listed.wire(frame, look, [*inputs, chat.blind, chat.marked], [*outputs, choices.model, *painted(chat)])
    refine.output.wire(frame, listed)

    async def pack(request: gr.Request, token, visit: Session | None, picked: str | None):
        return await asyncio.to_thread(doing(frame, listed, _packed), request, token, visit, picked)

    def _packed(visit: Session, job: Job) -> dict:
        path = refining.pack(job, visit.subfolder())
        return {refine.pack: gr.update(value=str(path), label=f"Download {path.name}")}

    outputs = [frame.session, listed.said, refine.pack]
    refine.pack.click(pack, [frame.token, frame.session, listed.pick], outputs, **PRIVATE)


def _makes_zoo(job: Job) -> bool:
    """Whether a job makes a zoo, and refines nothing."""
    return job.spec["kind"] == making.KIND


def _status(job: Job, state: str) -> str:
    """The line under the buttons, of a job that has begun."""
    if state == "failed":
        return views.notice(job.state().get("message") or "It failed.")
    if state == "finished" and _makes_zoo(job):
        return views.notice(f"The zoo {job.spec['name']} is ready: choose it at “From what?”.", "good")
    return ""


def _following(refine: Refining, job: Job | None, state: str, log: list[dict], base) -> dict:
    """The update that shows how far a refinement is."""
    if job is None:
        return {refine.places: gr.update(visible=True), refine.made: gr.update(visible=False)}
    if _makes_zoo(job):
        hidden = dict.fromkeys((refine.search, refine.reported, refine.files), gr.update(visible=False))
        return {
            refine.places: gr.update(visible=base is None),
            refine.made: gr.update(visible=base is not None),
            refine.sentence: html.zoo_words(job.spec["name"], base, log, state == "finished"),
            **hidden,
        }
    criterion = job.spec["parameters"].get("config", {}).get("criterion", "accuracy")
    shown = bool(log or base) or state in ENDED
    return {
        refine.places: gr.update(visible=not shown),
        refine.made: gr.update(visible=shown),
        refine.sentence: html.so_far(base, log),
        refine.search: gr.update(visible=bool(log)),
        refine.log: html.log_table(log, criterion),
        refine.figure: refining.live_figure(log, criterion) if log else None,
        refine.reported: gr.update(visible=False),
        refine.files: gr.update(visible=False),
    }


def _ended(refine: Refining, visit: Session, job: Job, made) -> dict:
    """The update that shows what a refinement has come to."""
    rows, (delta, report) = refining.rows_figure(made), refining.files_of(made, visit.subfolder())
    return {
        refine.sentence: html.refined_words(made),
        refine.reported: gr.update(visible=rows is not None),
        refine.about: html.reported_title("zoo" in made.report),
        refine.rows: rows,
        refine.files: gr.update(visible=True),
        refine.pack: gr.update(value=None, label="Pack the model", interactive=bool(made.tensors)),
        refine.delta: gr.update(value=str(delta) if delta else None, interactive=bool(delta)),
        refine.json: str(report),
        refine.status: views.notice(refining.done_words(made), "good"),
    }


def _compare(
    chat: Chat, choices: LookChoices, visit: Session, job: Job, made, name, file, blind: bool, marked: bool
) -> dict:
    """The update that lets the refined model answer beside its base, which becomes the chosen model."""
    asked = job.spec["parameters"].get("asked", "")
    state = visit.state(LanguageState)
    state.compare(made.tensors or None, asked, made)
    if asked.startswith(UPLOADED):  # it can only be chosen by the page that it was uploaded to
        try:
            known = check_model(name, file) == asked
        except UserError:
            known = False
        return paint(chat, meet(visit, asked), blind, marked) if known else {}
    return {choices.model: asked, **paint(chat, meet(visit, asked), blind, marked)}
