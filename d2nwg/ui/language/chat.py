"""The Language tab's third step: one conversation with the base and the refined model, side by side."""

from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from d2nwg.llm.conversation import SAME, Turn
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.language import html
from d2nwg.ui.language import service as own
from d2nwg.ui.language.layout import Chat, LookChoices
from d2nwg.ui.language.models import check_model
from d2nwg.ui.language.state import Asking, LanguageState
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.ui.visitor import visitor
from d2nwg.ui.work import Stage
from d2nwg.utils.errors import UserError

NAMES = ("base", "refined")
TALKING: dict[str, Any] = dict(
    concurrency_limit=4, concurrency_id="talking"
)  # a refinement must not keep others from talking


def paint(chat: Chat, talk: own.Talk | None, blind: bool, marked: bool) -> dict:
    """The update that shows a conversation."""
    done = talk is not None and talk.writing is None and bool(talk.kept.turns)
    two = talk is not None and len(talk.kept.names) == 2
    return {
        **{pane: html.pane(talk, side, blind, marked) for side, pane in enumerate(chat.panes)},
        chat.ballot: gr.update(visible=done and two),
        chat.tally: html.votes(talk, blind),
        chat.files: gr.update(visible=done),
        chat.retry: gr.update(interactive=done),
    }


def painted(chat: Chat) -> list:
    """The outputs of `paint`."""
    return [*chat.panes, chat.ballot, chat.tally, chat.files, chat.retry]


def meet(visit: Session, name: str) -> own.Talk:
    """The visitor's conversation with this model; a new one where that, or what it is compared with, has changed."""
    state = visit.state(LanguageState)
    names = NAMES if state.variant is not None and state.variant_of == name else NAMES[:1]
    talk = state.talk
    if talk is None or talk.model != name or talk.kept.names != names or state.compared is not state.variant:
        talk = state.talk = own.new_talk(name, names)
        state.compared = state.variant
    return talk


def _talk_of(visit: Session | None) -> own.Talk | None:
    return visit.state(LanguageState).talk if visit else None


def _files(visit: Session, chat: Chat, talk: own.Talk) -> dict:
    """The update of the downloads."""
    if not talk.kept.turns:
        return {}
    as_json, as_text = own.write_talk(talk, visit.subfolder())
    return {chat.as_json: str(as_json), chat.as_text: str(as_text)}


def wire_chat(frame: Frame, choices: LookChoices, chat: Chat) -> None:
    """Sending, stopping, again, voting and downloads."""
    run = Run(frame.session, "language-chat", chat.send, chat.stop, chat.status, stop_stays=True)
    _wire_run(run, choices, chat)
    _wire_looks(frame, chat)
    session, looks = frame.session, [chat.blind, chat.marked]

    def new(visit: Session | None, blind: bool, marked: bool):
        if visit is None or run.under_way(visit):
            return gr.skip()
        state = visit.state(LanguageState)
        if state.talk is not None:
            state.talk = own.new_talk(state.talk.model, state.talk.kept.names, state.talk)
        return {**paint(chat, state.talk, blind, marked), chat.status: ""}

    def take(request: gr.Request, visit: Session | None, name, file, path: str | None, blind: bool, marked: bool):
        visit = visit or Session(viewer=visitor(request))
        if not path:
            return {session: visit}
        visit.uploaded([path])
        try:
            name = check_model(name, file)
            tensors = own.variant_from_file(path, name)
        except UserError as reason:
            return {session: visit, chat.status: views.notice(str(reason)), chat.delta: None}
        state = visit.state(LanguageState)
        state.variant, state.variant_of = tensors, name
        said = f"The delta fits: {views.count(len(tensors), 'tensor')} of the model changed."
        return {
            session: visit,
            **paint(chat, meet(visit, name), blind, marked),
            chat.status: views.notice(said, "good"),
        }

    chat.new.click(new, [session, *looks], [*painted(chat), chat.status], queue=False, **PRIVATE)
    chat.delta.upload(
        take,
        [session, choices.model, choices.file, chat.delta, *looks],
        [session, *painted(chat), chat.status, chat.delta],
        **TALKING,
        **PRIVATE,
    )


def _wire_run(run: Run, choices: LookChoices, chat: Chat) -> None:
    """Sending a message, and having the last one answered again."""

    def ask(visit: Session, name, file, text, *values):
        text, settings = own.check_message(text), own.chat_settings(*values)
        return answer(visit, Asking(meet(visit, check_model(name, file)), text, settings))

    def ask_again(visit: Session, system, temperature, top_p, seed, longest):
        talk = _talk_of(visit)
        if talk is None or not talk.kept.turns:
            return None
        last = talk.kept.turns[-1]
        seed = int(seed) if isinstance(seed, (int, float)) else 0
        if seed == last.settings.seed:  # the same seed would write the same answer
            seed += 1
        settings = own.chat_settings(system, temperature, top_p, seed, longest)
        if not settings.temperature and replace(settings, seed=last.settings.seed) == last.settings:
            raise UserError("At temperature 0 the answer stays the same: raise it under Settings.")
        talk.kept.turns.pop()
        return answer(visit, Asking(talk, last.message, settings))

    def answer(visit: Session, asking: Asking):
        state = visit.state(LanguageState)
        state.asking = asking
        return partial(own.answer, asking.talk, asking.message, asking.settings, state.variant)

    def begun(visit: Session) -> dict:
        return {chat.message: "", chat.seed: visit.state(LanguageState).asking.settings.seed}

    def during(visit: Session, stage: Stage, blind: bool, marked: bool) -> dict:
        writing = stage.name == own.WRITING and stage.done
        return {
            **paint(chat, visit.state(LanguageState).asking.talk, blind, marked),
            **({chat.status: ""} if writing else {}),
        }

    def show(visit: Session, turn: Turn, blind: bool, marked: bool) -> dict:
        texts = {answer.text for answer in turn.answers}
        same = len(turn.answers) == 2 and len(texts) == 1
        said = views.notice("Both answers are the same, word for word.", "note") if same else ""
        return {**finish(visit, turn, blind, marked), chat.status: said}

    def failed(visit: Session, reason: Exception, blind: bool, marked: bool) -> dict:
        return {**finish(visit, None, blind, marked), chat.message: visit.state(LanguageState).asking.message}

    def finish(visit: Session, turn: Turn | None, blind: bool, marked: bool) -> dict:
        talk = visit.state(LanguageState).asking.talk
        own.finish(talk, turn, blind)
        return {**paint(chat, talk, blind, marked), **_files(visit, chat, talk)}

    model = [choices.model, choices.file]
    settings = [chat.system, chat.temperature, chat.top_p, chat.seed, chat.longest]
    for trigger, asks, inputs in (
        (partial(gr.on, [chat.send.click, chat.message.submit]), ask, [*model, chat.message, *settings]),
        (chat.retry.click, ask_again, settings),
    ):
        run.on(
            trigger,
            asks,
            inputs,
            show,
            [*painted(chat), chat.message, chat.seed, chat.as_json, chat.as_text],
            looks=[chat.blind, chat.marked],
            begun=begun,
            during=during,
            failed=failed,
            slot=TALKING,
            every=0.1,
        )


def _wire_looks(frame: Frame, chat: Chat) -> None:
    """Voting, and showing the same conversation otherwise."""
    session, looks = frame.session, [chat.blind, chat.marked]

    def vote(side: int | None, visit: Session | None, blind: bool, marked: bool):
        talk = _talk_of(visit)
        if talk is None or talk.writing is not None or not talk.kept.turns:
            return gr.skip()
        chosen = SAME if side is None else side ^ (talk.swapped and blind)
        talk.kept.turns[-1] = replace(talk.kept.turns[-1], vote=chosen, blind=blind)
        said = html.voted(talk.kept.turns[-1], talk.kept.names, blind, talk.swapped)
        return {
            **paint(chat, talk, blind, marked),
            **_files(visit, chat, talk),
            chat.status: views.notice(said, "good"),
        }

    def repaint(visit: Session | None, blind: bool, marked: bool):
        talk = _talk_of(visit)
        return gr.skip() if talk is None or talk.writing is not None else paint(chat, talk, blind, marked)

    for button, side in zip(chat.votes, (0, None, 1), strict=True):
        button.click(
            partial(vote, side),
            [session, *looks],
            [*painted(chat), chat.status, chat.as_json, chat.as_text],
            queue=False,
            **PRIVATE,
        )
    gr.on([control.input for control in looks], repaint, [session, *looks], painted(chat), queue=False, **PRIVATE)
