"""The Language tab's second step: refine the chosen layers, watch it, and take the result away."""

import asyncio
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.language import html, refining
from d2nwg.ui.language import service as own
from d2nwg.ui.language.chat import meet, paint, painted, shared
from d2nwg.ui.parts import PRIVATE, Upload
from d2nwg.ui.session import Session
from d2nwg.ui.work import Work, stop_work
from d2nwg.utils.errors import Cancelled, UserError

REFINE = "language-refine"  # the visit's tab for this step
REFINING = dict(concurrency_limit=1, concurrency_id="refining")  # long, so it has a slot of its own
FIRST = dict(made=None, log=[], folder=None, asked=None)
FIGURE = ("Which layers got better?", "The score on the selection questions, layer by layer, as candidates are tried.")
REPORTED = (
    "Is it better where nothing was chosen?",
    "Right on the report questions; bars are 95 % intervals. Noise: the same budget spent on random changes of "
    "the same size.",
)


def build_refine() -> SimpleNamespace:
    """Lay out the step."""
    parts: dict = {}
    closed = own.on_a_space()
    with gr.Row(elem_classes="tab", elem_id="language-refine"):
        with gr.Column(elem_classes="choose", min_width=320):
            with gr.Column(elem_classes="card"):
                gr.HTML(views.title("2 · Refine", "Layer by layer; a candidate stays only if it answers better."))
                for key, label, half in (
                    ("select", "Selection questions", "selection"),
                    ("report", "Report questions", "report"),
                ):
                    choices = refining.question_sets(half)
                    parts[key] = gr.Dropdown(
                        choices,
                        value=choices[0][1],
                        label=label,
                        elem_id=f"language-{key}",
                        allow_custom_value=refining.has_harness() and not closed,
                        info="candidates are chosen by them" if key == "select" else "never chosen by: they judge",
                    )
                    parts[f"{key}_file"] = Upload(
                        label=f"{label} (JSONL)",
                        height=84,
                        visible=False,
                        elem_id=f"language-{key}-file",
                        elem_classes="drop",
                        file_types=[".jsonl", ".gz", ".json"],
                    )
                parts["preset"] = gr.Dropdown(
                    refining.presets(),
                    value=refining.DEFAULTS["preset"],
                    label="Preset",
                    elem_id="language-preset",
                    info="how long the generator learns",
                )
                first = refining.start_of(refining.DEFAULTS["preset"])
                with gr.Row(elem_classes="pair"):
                    parts["layers"] = gr.Number(
                        first["layers"],
                        precision=0,
                        label="Matrices",
                        info="the best first; 0: all",
                        min_width=100,
                        elem_id="language-layers-count",
                    )
                    parts["candidates"] = gr.Number(
                        first["candidates"],
                        precision=0,
                        label="Candidates",
                        info="for each matrix",
                        min_width=100,
                        elem_id="language-candidates",
                    )
                parts["criterion"] = gr.Radio(
                    list(refining.CRITERIA),
                    value="accuracy",
                    label="Better in",
                    elem_id="language-criterion",
                    info="right answers, as in the paper, or how sure they are",
                )
                parts["seed"] = gr.Number(0, precision=0, label="Seed", elem_id="language-seed")
            with gr.Row(elem_classes="do"):
                parts["go"] = gr.Button("Refine", variant="primary", elem_id="language-go", interactive=not closed)
                parts["stop"] = gr.Button("Cancel", elem_id="language-cancel", visible=False, min_width=100)
                parts["resume"] = gr.Button("Go on", elem_id="language-resume", visible=False, min_width=100)
            parts["status"] = gr.HTML(
                views.notice(refining.CLOSED, "note") if closed else "", elem_id="language-status"
            )
        with gr.Column(elem_classes="get", min_width=320):
            parts["places"] = gr.HTML(html.refining_places(), elem_id="language-refine-places")
            with gr.Column(visible=False, elem_id="language-result", elem_classes="results") as made:
                parts["sentence"] = gr.HTML(elem_id="language-answer")
                with gr.Column(elem_classes="card", visible=False) as reported:
                    gr.HTML(views.title(*REPORTED))
                    parts["rows"] = gr.Plot(show_label=False, container=False, elem_id="language-rows")
                with gr.Column(elem_classes="card"):
                    gr.HTML(views.title(*FIGURE))
                    parts["figure"] = gr.Plot(show_label=False, container=False, elem_id="language-figure")
                    parts["log"] = gr.HTML(elem_id="language-log")
                with gr.Column(elem_classes="card", visible=False) as files:
                    gr.HTML(
                        views.title(
                            "Take it away",
                            "A folder for transformers and mergekit, or only what changed: "
                            "“d2nwg llm apply” puts that on the base.",
                        )
                    )
                    with gr.Row(elem_classes="downloads"):
                        parts["pack"] = gr.DownloadButton("Pack the model", elem_id="language-download-model")
                        parts["delta"] = gr.DownloadButton("Delta", elem_id="language-download-delta")
                        parts["json"] = gr.DownloadButton("Report (JSON)", elem_id="language-download-report")
    return SimpleNamespace(made=made, reported=reported, files=files, **parts)


def wire_refine(frame: SimpleNamespace) -> None:
    """Starting, watching, stopping, going on, and packing."""
    session, refine, chat = frame.session, frame.language.refine, frame.language.chat
    left = frame.language.left

    def tab_of(visit: Session) -> SimpleNamespace:
        return visit.tab(REFINE, **FIRST)

    def idle(status: str, more: bool = False) -> dict:
        return {
            refine.go: gr.update(interactive=True),
            refine.stop: gr.update(visible=False),
            refine.resume: gr.update(visible=more),
            refine.status: status,
        }

    def start(visit: Session | None, name, mode, percent, select, select_file, report, report_file, *numbers):
        visit = visit or Session()
        tab = tab_of(visit)
        if tab.work and tab.work.started:
            return gr.skip()
        visit.uploads.update(Path(path) for path in (select_file, report_file) if path)
        try:
            sets = {"select": (select, select_file), "report": (report, report_file)}
            asked = refining.check(own.check_model(name), own.check_look(mode, percent), sets, *numbers)
        except UserError as reason:
            return {session: visit, refine.status: views.notice(str(reason))}
        tab.asked, tab.folder, tab.log, tab.made = asked, visit.subfolder(), [], None
        return {session: visit, **begin(tab)}

    def go_on(visit: Session | None):
        tab = tab_of(visit) if visit else None
        if tab is None or tab.asked is None or (tab.work and tab.work.started):
            return gr.skip()
        tab.log = []
        return begin(tab)

    def begin(tab: SimpleNamespace) -> dict:
        tab.work = Work(partial(refining.make, tab.asked, tab.folder, tab.log))
        return {
            refine.go: gr.update(interactive=False),
            refine.stop: gr.update(visible=True),
            refine.resume: gr.update(visible=False),
            refine.reported: gr.update(visible=False),
            refine.files: gr.update(visible=False),
            refine.status: views.notice("Waiting for a free place …", "note"),
        }

    async def run(visit: Session | None, blind: bool, marked: bool, request: gr.Request):
        tab = tab_of(visit) if visit else None
        if tab is None or (work := tab.work) is None or work.started:
            yield gr.skip()
            return
        visit.page = request.session_hash  # so that closing the page stops it
        seen = 0
        try:
            async with aclosing(work.watch()) as stages:
                async for stage in stages:
                    update = {refine.status: views.progress(stage)}
                    if len(tab.log) != seen:
                        seen = len(tab.log)
                        update |= follow(tab)
                    yield update
            tab.made = work.result()
            update = {
                **finished(visit, tab, blind, marked),
                **idle(views.notice(refining.done_words(tab.made), "good"), tab.made.cancelled),
            }
        except Cancelled:
            update = idle(views.notice("Cancelled before the first matrix; “Go on” begins where it was.", "note"), True)
        except UserError as reason:
            update = idle(views.notice(str(reason)), bool(tab.log))
        if tab.work is work:
            tab.work = None
            yield update

    def follow(tab: SimpleNamespace) -> dict:
        return {
            refine.places: gr.update(visible=False),
            refine.made: gr.update(visible=True),
            refine.log: html.log_table(tab.log, tab.asked.criterion),
            refine.figure: refining.live_figure(tab.log, tab.asked.criterion),
        }

    def finished(visit: Session, tab: SimpleNamespace, blind: bool, marked: bool) -> dict:
        made = tab.made
        known = shared(visit)
        known.variant, known.variant_of = made.tensors or None, tab.asked.model
        rows, (delta, report) = refining.rows_figure(made), refining.files_of(made, visit.subfolder())
        return {
            **follow(tab),
            refine.sentence: html.refined_words(made),
            refine.reported: gr.update(visible=rows is not None),
            refine.rows: rows,
            refine.files: gr.update(visible=True),
            refine.pack: gr.update(value=None, label="Pack the model", interactive=bool(made.tensors)),
            refine.delta: gr.update(value=str(delta) if delta else None, interactive=bool(delta)),
            refine.json: str(report),
            **paint(chat, meet(visit, tab.asked.model), blind, marked),
        }

    def cancel(visit: Session | None):
        if stop_work(visit and tab_of(visit)):
            return {
                refine.status: views.notice("Stopping; what was accepted is kept …", "note"),
                refine.stop: gr.update(visible=False),
            }
        return idle(views.notice("Cancelled.", "note"))

    async def pack(visit: Session | None):
        tab = tab_of(visit) if visit else None
        if tab is None or tab.made is None:
            return gr.skip()
        try:
            path = await asyncio.to_thread(refining.pack, tab.made, tab.asked.model, visit.subfolder())
        except UserError as reason:
            return {refine.status: views.notice(str(reason))}
        return {refine.pack: gr.update(value=str(path), label=f"Download {path.name}")}

    sets = [refine.select, refine.select_file, refine.report, refine.report_file]
    numbers = [refine.preset, refine.layers, refine.candidates, refine.seed, refine.criterion]
    doing = [refine.go, refine.stop, refine.resume, refine.reported, refine.files, refine.status]
    shown = [
        refine.places,
        refine.made,
        refine.sentence,
        refine.rows,
        refine.figure,
        refine.log,
        refine.pack,
        refine.delta,
        refine.json,
    ]
    for key in ("select", "report"):
        choice, file = getattr(refine, key), getattr(refine, f"{key}_file")
        choice.change(lambda value: gr.update(visible=value == refining.OWN), choice, file, queue=False, **PRIVATE)
    refine.preset.input(
        lambda key: tuple(refining.start_of(key).values()),
        refine.preset,
        [refine.layers, refine.candidates],
        queue=False,
        **PRIVATE,
    )
    if own.on_a_space():
        return
    asked = refine.go.click(
        start,
        [session, left.model, left.mode, left.percent, *sets, *numbers],
        [session, *doing],
        queue=False,
        **PRIVATE,
    )
    resumed = refine.resume.click(go_on, session, doing, queue=False, **PRIVATE)
    for event in (asked, resumed):
        event.then(
            run, [session, chat.blind, chat.marked], [*doing, *shown, *painted(chat)], **REFINING, **PRIVATE
        ).failure(
            lambda: idle(views.notice("Too many people are waiting; please try again in a minute.")),
            None,
            doing,
            queue=False,
            **PRIVATE,
        )
    refine.stop.click(cancel, session, doing, queue=False, **PRIVATE)
    refine.pack.click(pack, session, [refine.pack, refine.status], **PRIVATE)
