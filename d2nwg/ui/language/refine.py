"""The Language tab's second step: refine the chosen layers, watch it, and take the result away."""

import asyncio
from functools import partial
from typing import Any

import gradio as gr

from d2nwg.ui import html as views
from d2nwg.ui.access import on_a_space
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.language import html, refining
from d2nwg.ui.language import service as own
from d2nwg.ui.language.chat import meet, paint, painted
from d2nwg.ui.language.layout import Chat, LookChoices, Refining
from d2nwg.ui.language.models import check_model
from d2nwg.ui.language.state import LanguageState
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.utils.errors import Cancelled, UserError

REFINING: dict[str, Any] = dict(concurrency_limit=1, concurrency_id="refining")  # long, so it has a slot of its own


def wire_refine(frame: Frame, choices: LookChoices, refine: Refining, chat: Chat) -> None:
    """Starting, watching, stopping, going on, and packing."""
    for key, choice in refine.questions.items():
        choice.change(
            lambda value: gr.update(visible=value == refining.OWN),
            choice,
            refine.question_file[key],
            queue=False,
            **PRIVATE,
        )
    refine.preset.input(
        lambda key: tuple(refining.start_of(key).values()),
        refine.preset,
        [refine.layers, refine.candidates],
        queue=False,
        **PRIVATE,
    )
    if on_a_space():
        return
    _wire_run(frame, choices, refine, chat)

    async def pack(visit: Session | None):
        state = visit.state(LanguageState) if visit else None
        if state is None or state.refined is None:
            return gr.skip()
        try:
            path = await asyncio.to_thread(refining.pack, state.refined, state.asked.model, visit.subfolder())
        except UserError as reason:
            return {refine.status: views.notice(str(reason))}
        return {refine.pack: gr.update(value=str(path), label=f"Download {path.name}")}

    refine.pack.click(pack, frame.session, [refine.pack, refine.status], **PRIVATE)


def _wire_run(frame: Frame, choices: LookChoices, refine: Refining, chat: Chat) -> None:
    """Starting, watching, stopping, and going on."""
    stopping = "Stopping; what was accepted is kept …"
    run = Run(frame.session, "language-refine", refine.go, refine.stop, refine.status, stopping)

    def ask(visit: Session, name, file, mode, percent, select, report, select_file, report_file, *numbers):
        visit.uploaded(path for path in (select_file, report_file) if path)
        sets = {"select": (select, select_file), "report": (report, report_file)}
        asked = refining.check(check_model(name, file), own.check_look(mode, percent), sets, *numbers)
        state = visit.state(LanguageState)
        state.asked, state.folder, state.refined = asked, visit.subfolder(), None
        return ask_again(visit)

    def ask_again(visit: Session):
        state = visit.state(LanguageState)
        if state.asked is None:
            return None
        state.log, state.shown = [], 0
        return partial(refining.make, state.asked, state.folder, state.log)

    def begun(visit: Session) -> dict:
        return {part: gr.update(visible=False) for part in (refine.resume, refine.reported, refine.files)}

    def during(visit: Session, stage, blind: bool, marked: bool) -> dict:
        state = visit.state(LanguageState)
        if len(state.log) == state.shown:
            return {}
        state.shown = len(state.log)
        return follow(state)

    def follow(state: LanguageState) -> dict:
        return {
            refine.places: gr.update(visible=False),
            refine.made: gr.update(visible=True),
            refine.log: html.log_table(state.log, state.asked.criterion),
            refine.figure: refining.live_figure(state.log, state.asked.criterion),
        }

    def show(visit: Session, made, blind: bool, marked: bool) -> dict:
        state = visit.state(LanguageState)
        state.refined = made
        state.variant, state.variant_of = made.tensors or None, state.asked.model
        rows, (delta, report) = refining.rows_figure(made), refining.files_of(made, visit.subfolder())
        return {
            **follow(state),
            refine.sentence: html.refined_words(made),
            refine.reported: gr.update(visible=rows is not None),
            refine.rows: rows,
            refine.files: gr.update(visible=True),
            refine.pack: gr.update(value=None, label="Pack the model", interactive=bool(made.tensors)),
            refine.delta: gr.update(value=str(delta) if delta else None, interactive=bool(delta)),
            refine.json: str(report),
            refine.resume: gr.update(visible=made.cancelled),
            refine.status: views.notice(refining.done_words(made), "good"),
            **paint(chat, meet(visit, state.asked.model), blind, marked),
        }

    def failed(visit: Session, reason: Exception, blind: bool, marked: bool) -> dict:
        if isinstance(reason, Cancelled):
            said = "Cancelled before the first matrix; “Go on” begins where it was."
            return {refine.resume: gr.update(visible=True), refine.status: views.notice(said, "note")}
        return {refine.resume: gr.update(visible=bool(visit.state(LanguageState).log))}

    sets = [*refine.questions.values(), *refine.question_file.values()]
    numbers = [refine.preset, refine.layers, refine.candidates, refine.seed, refine.criterion]
    ranking = [choices.model, choices.file, choices.mode, choices.percent]
    results = [refine.places, refine.made, refine.sentence, refine.reported, refine.rows, refine.figure, refine.log]
    files = [refine.files, refine.pack, refine.delta, refine.json, refine.resume]
    for trigger, asks, inputs in (
        (refine.go.click, ask, [*ranking, *sets, *numbers]),
        (refine.resume.click, ask_again, []),
    ):
        run.on(
            trigger,
            asks,
            inputs,
            show,
            [*results, *files, *painted(chat)],
            looks=[chat.blind, chat.marked],
            begun=begun,
            during=during,
            failed=failed,
            slot=REFINING,
        )
