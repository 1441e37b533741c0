"""The Language tab's third step: one conversation with the base and the refined model, side by side."""

from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from d2nwg.llm.conversation import Turn
from d2nwg.llm.tally import SAME, Tally
from d2nwg.ui import html as views
from d2nwg.ui.events import MINUTES, PRIVATE
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
from d2nwg.utils.progress import Progress, silent

NAMES = ("base", "refined", "noise")
TALKING: dict[str, Any] = dict(
    concurrency_limit=4, concurrency_id="talking"
)  # a refinement must not keep others from talking
KEPT_NOTHING = "The search with noise kept no candidate: that model is the base."


def paint(chat: Chat, talk: own.Talk | None, blind: bool, marked: bool) -> dict:
    """The update that shows a conversation."""
    update: dict = {pane: html.pane(talk, side, blind, marked) for side, pane in enumerate(chat.panes[:2])} | {
        chat.tally: html.votes(talk, blind),
        chat.ballot: gr.update(visible=talk is not None and talk.open),
    }
    third = talk is not None and len(talk.kept.names) == 3
    update[chat.panes[2]] = gr.update(value=html.pane(talk, 2, blind, marked) if third else "", visible=third)
    if talk is not None and talk.writing is not None:
        return update
    done, two = talk is not None and talk.done, talk is not None and bool(talk.pair)
    return {
        **update,
        chat.files: gr.update(visible=done and not talk.blind),
        chat.retry: gr.update(interactive=done),
        chat.beside: gr.update(visible=two and talk.noise and not blind, value=third),
        chat.reset: gr.update(visible=two and talk.tally != Tally()),
        chat.find: gr.update(visible=two),
        chat.telling: html.telling_prompts(talk.prompts if talk else []),
        **dict(zip(chat.prompts, html.prompts(talk.prompts if talk else []), strict=True)),
    }


def painted(chat: Chat) -> list:
    """The outputs of `paint`."""
    shown = [chat.ballot, chat.tally, chat.files, chat.retry, chat.beside, chat.reset, chat.find, chat.telling]
    return [*chat.panes, *shown, *chat.prompts]


def meet(visit: Session, name: str) -> own.Talk:
    """The visitor's conversation with this model; a new one where that, or what it is compared with, has changed."""
    state = visit.state(LanguageState)
    new, two = state.compared is not state.variant, state.variant is not None and state.variant_of == name
    if new:
        state.noise = None
    names = NAMES[: 1 + two + (two and state.noise is not None)]
    talk = state.talk
    if talk is None or new or talk.model != name or talk.kept.names != names:
        before = talk if talk and talk.model == name and talk.pair and not new else None
        talk, state.compared = own.new_talk(name, names, before), state.variant
        if two and not talk.pair:
            state.ballots = state.ballots or own.ballots_of(visit.viewer)
            talk.pair = own.known_pair(name, state.variant, visit.viewer)
            talk.tally, talk.lasting = state.ballots.read(talk.pair), state.ballots.folder is not None
            made = state.made if state.made is not None and state.made.tensors is state.variant else None
            talk.noise = made is not None and made.noise is not None
        state.talk = talk
    return talk


def _talk_of(visit: Session | None) -> own.Talk | None:
    return visit.state(LanguageState).talk if visit else None


def _count(visit: Session, talk: own.Talk, **what) -> None:
    """Add to the tally of a conversation's two models."""
    ballots = visit.state(LanguageState).ballots
    if ballots is not None and talk.pair:
        talk.tally = ballots.add(talk.pair, **what)


def _files(visit: Session, chat: Chat, talk: own.Talk) -> dict:
    """The update of the downloads: they name the models."""
    if not talk.kept.turns or talk.blind:
        return {}
    as_json, as_text = own.write_talk(talk, visit.subfolder())
    return {chat.as_json: str(as_json), chat.as_text: str(as_text)}


def wire_chat(frame: Frame, choices: LookChoices, chat: Chat) -> None:
    """Sending, stopping, again, voting and downloads."""
    run = Run(frame.session, "language-chat", chat.send, chat.stop, chat.status, stop_stays=True)
    _wire_run(run, choices, chat)
    _wire_looks(frame, chat)
    _wire_votes(frame, chat)
    _wire_prompts(frame, chat)
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
        visit.state(LanguageState).compare(tensors, name)
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

    def ask(visit: Session, blind, name, file, text, *values):
        text, settings = own.check_message(text), own.chat_settings(*values)
        return answer(visit, own.begin(meet(visit, check_model(name, file)), blind), text, settings)

    def ask_again(visit: Session, blind, system, temperature, top_p, seed, longest):
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
        began = own.begin(talk, blind)
        if began is talk:
            talk.kept.turns.pop()
        return answer(visit, began, last.message, settings)

    def answer(visit: Session, talk: own.Talk, message: str, settings):
        state = visit.state(LanguageState)
        state.talk, state.asking = talk, Asking(talk, message, settings)
        return partial(own.answer, talk, message, settings, state.variant, state.noise)

    def begun(visit: Session) -> dict:
        return {chat.message: "", chat.seed: visit.state(LanguageState).asking.settings.seed}

    def during(visit: Session, stage: Stage, blind: bool, marked: bool) -> dict:
        writing = stage.name == own.WRITING and stage.done
        return {
            **paint(chat, visit.state(LanguageState).asking.talk, blind, marked),
            **({chat.status: ""} if writing else {}),
        }

    def show(visit: Session, turn: Turn, blind: bool, marked: bool) -> dict:
        talk = visit.state(LanguageState).asking.talk
        if turn.equal and talk.blind and not any(one.ended == "stopped" for one in turn.answers):
            _count(visit, talk, equal=1)
        return {**finish(visit, turn, blind, marked), chat.status: ""}

    def failed(visit: Session, reason: Exception, blind: bool, marked: bool) -> dict:
        return {**finish(visit, None, blind, marked), chat.message: visit.state(LanguageState).asking.message}

    def finish(visit: Session, turn: Turn | None, blind: bool, marked: bool) -> dict:
        talk = visit.state(LanguageState).asking.talk
        own.finish(talk, turn)
        return {**paint(chat, talk, blind, marked), **_files(visit, chat, talk)}

    model = [choices.model, choices.file]
    settings = [chat.system, chat.temperature, chat.top_p, chat.seed, chat.longest]
    for trigger, asks, inputs in (
        (partial(gr.on, [chat.send.click, chat.message.submit]), ask, [chat.blind, *model, chat.message, *settings]),
        (chat.retry.click, ask_again, [chat.blind, *settings]),
        *((button.click, ask, [chat.blind, *model, button, *settings]) for button in chat.prompts),
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
    """Showing the conversation otherwise, and beginning a new one where it would tell what it should not."""
    session, looks = frame.session, [chat.blind, chat.marked]

    def hide(visit: Session | None, blind: bool, marked: bool):
        talk = _talk_of(visit)
        if talk is None or talk.writing is not None:  # the next message begins a new conversation
            return gr.skip()
        state = visit.state(LanguageState)
        if blind:
            state.noise = None
            if talk.kept.turns or len(talk.kept.names) == 3:
                talk = state.talk = own.new_talk(talk.model, talk.kept.names[:2], talk)
        talk.blind = False
        return {**paint(chat, talk, blind, marked), **_files(visit, chat, talk), chat.status: ""}

    def repaint(visit: Session | None, blind: bool, marked: bool):
        talk = _talk_of(visit)
        return gr.skip() if talk is None or talk.writing is not None else paint(chat, talk, blind, marked)

    def place_beside(visit: Session | None, on: bool, blind: bool, marked: bool):
        talk = _talk_of(visit)
        if talk is None or not talk.noise or talk.writing is not None:
            return {chat.beside: talk is not None and len(talk.kept.names) == 3}
        state, said = visit.state(LanguageState), ""
        try:
            state.noise = (state.made.accepted(state.made.noise) or None) if on else None
            said = KEPT_NOTHING if on and state.noise is None else ""
        except UserError as reason:
            state.noise, said = None, str(reason)
        return {
            **paint(chat, meet(visit, talk.model), blind, marked),
            chat.status: views.notice(said, "note") if said else "",
        }

    files = [chat.as_json, chat.as_text]
    inputs = [session, *looks]
    chat.blind.input(hide, inputs, [*painted(chat), chat.status, *files], queue=False, **PRIVATE)
    chat.marked.input(repaint, inputs, painted(chat), queue=False, **PRIVATE)
    chat.beside.input(place_beside, [session, chat.beside, *looks], [*painted(chat), chat.status], **TALKING, **PRIVATE)


def _wire_votes(frame: Frame, chat: Chat) -> None:
    """Voting, and forgetting the votes."""
    session, looks = frame.session, [chat.blind, chat.marked]

    def vote(side: int | None, visit: Session | None, blind: bool, marked: bool):
        talk = _talk_of(visit)
        if visit is None or talk is None or not talk.open:
            return gr.skip()
        chosen = SAME if side is None else side ^ talk.swapped
        turn = talk.kept.turns[-1] = replace(talk.kept.turns[-1], vote=chosen, blind=talk.blind)
        said = html.voted(turn, talk.kept.names, talk.swapped)
        if turn.blind:
            _count(visit, talk, vote=chosen)
            talk.blind = False  # the vote shows which is which
        return {
            **paint(chat, talk, blind, marked),
            **_files(visit, chat, talk),
            chat.status: views.notice(said, "good"),
        }

    def reset(visit: Session | None, blind: bool, marked: bool):
        state = visit.state(LanguageState) if visit else None
        if state is None or state.talk is None or state.ballots is None or state.talk.writing is not None:
            return gr.skip()
        state.talk.tally = state.ballots.reset(state.talk.pair)
        return paint(chat, state.talk, blind, marked)

    for button, side in zip(chat.votes, (0, None, 1), strict=True):
        button.click(
            partial(vote, side),
            [session, *looks],
            [*painted(chat), chat.status, chat.as_json, chat.as_text],
            queue=False,
            **PRIVATE,
        )
    chat.reset.click(reset, [session, *looks], painted(chat), queue=False, **PRIVATE)


def _wire_prompts(frame: Frame, chat: Chat) -> None:
    """Finding the prompts that tell the two models apart."""
    run = Run(frame.session, "language-telling", chat.find, chat.find_stop, chat.finding)

    def ask(visit: Session):
        talk, state = _talk_of(visit), visit.state(LanguageState)
        if talk is None or not talk.pair or state.variant is None:
            raise UserError("There is nothing to tell apart yet: refine the model, or drop a delta under Settings.")
        return partial(_found, talk, state.variant)

    def show(visit: Session, found, blind: bool, marked: bool) -> dict:
        pair, prompts = found
        talk = _talk_of(visit)
        if talk is None or talk.pair != pair:  # another model has been chosen meanwhile
            return {}
        talk.prompts = prompts
        return {
            chat.telling: html.telling_prompts(prompts),
            **dict(zip(chat.prompts, html.prompts(prompts), strict=True)),
        }

    outputs = [chat.telling, *chat.prompts]
    run.on(chat.find.click, ask, [], show, outputs, looks=[chat.blind, chat.marked], slot=MINUTES)


def _found(talk: own.Talk, variant: dict, progress: Progress = silent) -> tuple[str, list[tuple[str, float]]]:
    own.fetch(talk.model, progress)
    return talk.pair, own.find_prompts(talk.model, variant, html.SHOWN_PROMPTS, progress=progress)
