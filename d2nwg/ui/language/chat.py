"""The Language tab's third step: one conversation with the base and the refined model, side by side."""

from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from d2nwg.llm.conversation import SAME
from d2nwg.ui import html as views
from d2nwg.ui.language import html
from d2nwg.ui.language import service as own
from d2nwg.ui.language.service import DEFAULTS
from d2nwg.ui.parts import PRIVATE, Upload
from d2nwg.ui.session import Session
from d2nwg.ui.work import Work, stop_work
from d2nwg.utils.errors import Cancelled, UserError

CHAT, SHARED = "language-chat", "language"  # the visit's tabs: of this step, and of what the steps share
NAMES = ("base", "refined")
TALKING = dict(concurrency_limit=4, concurrency_id="talking")  # a refinement must not keep others from talking


def shared(visit: Session) -> SimpleNamespace:
    """What the steps share: ``variant``, the refined tensors (name → tensor) or None, and ``variant_of``, the name of
    the model they belong to."""
    return visit.tab(SHARED, variant=None, variant_of=None)


def build_chat() -> SimpleNamespace:
    """Lay out the step."""
    with gr.Column(elem_classes="card", elem_id="language-chat"):
        gr.HTML(views.title("3 · Compare", "One message, both models answer; the words that differ are marked."))
        with gr.Row(elem_classes="panes"):
            panes = [
                gr.HTML(html.pane(None, side, False, True), elem_id=f"language-pane-{name}", autoscroll=True)
                for side, name in enumerate(("left", "right"))
            ]
        with gr.Row(elem_classes="votes", visible=False, elem_id="language-votes") as ballot:
            votes = [
                gr.Button(words, elem_id=f"language-vote-{key}", min_width=90)
                for key, words in (("left", "← Left is better"), ("same", "The same"), ("right", "Right is better →"))
            ]
        tally = gr.HTML(elem_id="language-tally")
        status = gr.HTML(elem_id="language-chat-status")
        with gr.Row(elem_classes="write"):
            message = gr.Textbox(
                label="Message",
                lines=1,
                max_lines=8,
                elem_id="language-message",
                scale=1,
                placeholder="What is the capital of France?",
                max_length=own.MOST_MESSAGE,
            )
        with gr.Row(elem_classes="do verbs"):
            send = gr.Button("Send", elem_id="language-send", min_width=80)
            stop = gr.Button("Stop", elem_id="language-stop", min_width=80, interactive=False)
            retry = gr.Button("Again", elem_id="language-again", min_width=80, interactive=False)
            new = gr.Button("New", elem_id="language-new", min_width=80)
        with gr.Row(elem_classes="ticks"):
            blind = gr.Checkbox(False, label="Blind: hide which is which", elem_id="language-blind")
            marked = gr.Checkbox(True, label="Mark differing words", elem_id="language-marked")
        with gr.Accordion("Settings", open=False, elem_id="language-chat-settings"):
            system = gr.Textbox(
                "",
                label="System prompt",
                lines=2,
                elem_id="language-system",
                info="what the models are told first; empty: what their template says",
            )
            with gr.Row(elem_classes="pair"):
                temperature = gr.Number(
                    DEFAULTS["temperature"],
                    label="Temperature",
                    step=0.1,
                    min_width=100,
                    info="0: always the likeliest",
                    elem_id="language-temperature",
                )
                top_p = gr.Number(
                    DEFAULTS["top_p"],
                    label="Top-p",
                    step=0.05,
                    min_width=100,
                    info="drawn from the likeliest",
                    elem_id="language-top-p",
                )
            with gr.Row(elem_classes="pair"):
                seed = gr.Number(
                    DEFAULTS["seed"],
                    label="Seed",
                    precision=0,
                    min_width=100,
                    info="the same for both",
                    elem_id="language-chat-seed",
                )
                longest = gr.Number(
                    DEFAULTS["longest"],
                    label="Longest answer",
                    precision=0,
                    min_width=100,
                    info="tokens",
                    elem_id="language-longest",
                )
            delta = Upload(
                label="A delta saved earlier",
                height=84,
                elem_id="language-delta",
                elem_classes="drop",
                file_types=[".safetensors"],
            )
            gr.HTML(views.hint("Drop a delta.safetensors saved earlier to talk with that refinement of the model."))
        with gr.Row(elem_classes="downloads", visible=False) as files:
            as_json = gr.DownloadButton("Conversation (JSON)", elem_id="language-talk-json")
            as_text = gr.DownloadButton("Conversation (Markdown)", elem_id="language-talk-md")
    return SimpleNamespace(
        panes=panes,
        ballot=ballot,
        votes=votes,
        tally=tally,
        status=status,
        message=message,
        send=send,
        stop=stop,
        retry=retry,
        new=new,
        blind=blind,
        marked=marked,
        system=system,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        longest=longest,
        delta=delta,
        files=files,
        as_json=as_json,
        as_text=as_text,
    )


def paint(chat: SimpleNamespace, talk: own.Talk | None, blind: bool, marked: bool) -> dict:
    """The updates that show a conversation."""
    done = talk is not None and talk.writing is None and bool(talk.kept.turns)
    two = talk is not None and len(talk.kept.names) == 2
    return {
        **{pane: html.pane(talk, side, blind, marked) for side, pane in enumerate(chat.panes)},
        chat.ballot: gr.update(visible=done and two),
        chat.tally: html.votes(talk, blind),
        chat.files: gr.update(visible=done),
        chat.retry: gr.update(interactive=done),
    }


def painted(chat: SimpleNamespace) -> list:
    """The outputs of `paint`."""
    return [*chat.panes, chat.ballot, chat.tally, chat.files, chat.retry]


def meet(visit: Session, name: str) -> own.Talk:
    """The visitor's conversation with this model; a new one where that, or what it is compared with, has changed."""
    tab, known = visit.tab(CHAT, talk=None, delta=None), shared(visit)
    two = known.variant is not None and known.variant_of == name
    names = NAMES if two else NAMES[:1]
    if tab.talk is None or tab.talk.model != name or tab.talk.kept.names != names or tab.delta is not known.variant:
        tab.talk, tab.delta = own.new_talk(name, names), known.variant
    return tab.talk


def wire_chat(frame: SimpleNamespace) -> None:
    """Sending, stopping, again, voting and downloads."""
    session, chat, model = frame.session, frame.language.chat, frame.language.left.model
    looks = [chat.blind, chat.marked]
    controls = [chat.system, chat.temperature, chat.top_p, chat.seed, chat.longest]

    def talk_of(visit: Session | None) -> own.Talk | None:
        return visit.tab(CHAT, talk=None, delta=None).talk if visit else None

    def busy(tab: SimpleNamespace) -> bool:
        return bool(tab.work and tab.work.started)

    def idle(status: str = "") -> dict:
        return {chat.send: gr.update(interactive=True), chat.stop: gr.update(interactive=False), chat.status: status}

    def send(visit: Session | None, name, text, *values):
        visit = visit or Session()
        tab = visit.tab(CHAT, talk=None, delta=None)
        if busy(tab):
            return gr.skip()
        try:
            text, settings = own.check_message(text), own.chat_settings(*values)
            talk = meet(visit, own.check_model(name))
        except UserError as reason:
            return {session: visit, chat.status: views.notice(str(reason))}
        return ask(visit, talk, text, settings)

    def again(visit: Session | None, seed, *values):
        talk = talk_of(visit)
        if talk is None or not talk.kept.turns or busy(visit.tab(CHAT)):
            return gr.skip()
        last = talk.kept.turns[-1]
        seed = int(seed) if isinstance(seed, (int, float)) else 0
        if seed == last.settings.seed:  # the same seed would write the same answer
            seed += 1
        system, temperature, top_p, longest = values
        try:
            settings = own.chat_settings(system, temperature, top_p, seed, longest)
        except UserError as reason:
            return {chat.status: views.notice(str(reason))}
        if not settings.temperature and replace(settings, seed=last.settings.seed) == last.settings:
            said = "At temperature 0 the answer stays the same: raise it under Settings."
            return {chat.status: views.notice(said, "note")}
        talk.kept.turns.pop()
        return {**ask(visit, talk, last.message, settings), chat.seed: seed}

    def ask(visit: Session, talk: own.Talk, text: str, settings) -> dict:
        tab = visit.tab(CHAT)
        tab.asked = text
        tab.work = Work(partial(own.answer, talk, text, settings, shared(visit).variant))
        return {
            session: visit,
            chat.message: "",
            chat.send: gr.update(interactive=False),
            chat.stop: gr.update(interactive=True),
            chat.status: views.notice("Waiting for a free place …", "note"),
        }

    async def run(visit: Session | None, blind: bool, marked: bool):
        tab = visit.tab(CHAT, talk=None, delta=None) if visit else None
        if tab is None or (work := tab.work) is None or work.started:
            yield gr.skip()
            return
        talk, turn, update = tab.talk, None, {}
        try:
            async with aclosing(work.watch(every=0.1)) as stages:
                async for stage in stages:
                    writing = stage.name == "Writing"
                    yield {
                        **paint(chat, talk, blind, marked),
                        chat.status: "" if writing and stage.done else views.progress(stage),
                    }
            turn = work.result()
            update = idle(same_words(turn))
        except Cancelled:
            update = {**idle(views.notice("Stopped.", "note")), chat.message: tab.asked}
        except UserError as reason:
            update = {**idle(views.notice(str(reason))), chat.message: tab.asked}
        own.finish(talk, turn, blind)
        if tab.work is work:
            tab.work = None
            yield {**paint(chat, talk, blind, marked), **keep(visit, talk), **update}

    def same_words(turn) -> str:
        texts = {answer.text for answer in turn.answers}
        if len(turn.answers) == 2 and len(texts) == 1:
            return views.notice("Both answers are the same, word for word.", "note")
        return ""

    def keep(visit: Session, talk: own.Talk) -> dict:
        if not talk.kept.turns:
            return {}
        as_json, as_text = own.write_talk(talk, visit.subfolder())
        return {chat.as_json: str(as_json), chat.as_text: str(as_text)}

    def cancel(visit: Session | None):
        if stop_work(visit and visit.tab(CHAT, talk=None, delta=None)):
            return {chat.stop: gr.update(interactive=False)}
        return idle(views.notice("Stopped.", "note"))

    def new(visit: Session | None, name, blind, marked):
        if visit is None or busy(visit.tab(CHAT, talk=None, delta=None)):
            return gr.skip()
        tab = visit.tab(CHAT)
        if tab.talk is not None:
            tab.talk = own.new_talk(tab.talk.model, tab.talk.kept.names, tab.talk)
        return {**paint(chat, tab.talk, blind, marked), chat.status: ""}

    def vote(side: int | None, visit: Session | None, blind: bool, marked: bool):
        talk = talk_of(visit)
        if talk is None or talk.writing is not None or not talk.kept.turns:
            return gr.skip()
        chosen = SAME if side is None else side ^ (talk.swapped and blind)
        talk.kept.turns[-1] = replace(talk.kept.turns[-1], vote=chosen, blind=blind)
        said = html.voted(talk.kept.turns[-1], talk.kept.names, blind, talk.swapped)
        return {**paint(chat, talk, blind, marked), **keep(visit, talk), chat.status: views.notice(said, "good")}

    def repaint(visit: Session | None, blind: bool, marked: bool):
        talk = talk_of(visit)
        return gr.skip() if talk is None or talk.writing is not None else paint(chat, talk, blind, marked)

    def take(visit: Session | None, name, path: str | None, blind: bool, marked: bool):
        visit = visit or Session()
        if not path:
            return {session: visit}
        visit.uploads.add(Path(path))
        try:
            name = own.check_model(name)
            tensors = own.variant_from_file(path, name)
        except UserError as reason:
            return {session: visit, chat.status: views.notice(str(reason)), chat.delta: None}
        known = shared(visit)
        known.variant, known.variant_of = tensors, name
        said = f"The delta fits: {views.count(len(tensors), 'tensor')} of the model changed."
        return {
            session: visit,
            **paint(chat, meet(visit, name), blind, marked),
            chat.status: views.notice(said, "good"),
        }

    doing = [chat.send, chat.stop, chat.status]
    sent = [session, chat.message, *doing]
    asked = gr.on(
        [chat.send.click, chat.message.submit],
        send,
        [session, model, chat.message, *controls],
        sent,
        queue=False,
        **PRIVATE,
    )
    others = [chat.system, chat.temperature, chat.top_p, chat.longest]
    redone = chat.retry.click(again, [session, chat.seed, *others], [*sent, chat.seed], queue=False, **PRIVATE)
    for event in (asked, redone):
        event.then(
            run,
            [session, *looks],
            [*painted(chat), *doing, chat.message, chat.as_json, chat.as_text],
            **TALKING,
            **PRIVATE,
        ).failure(
            lambda: idle(views.notice("Too many people are waiting; please try again in a minute.")),
            None,
            doing,
            queue=False,
            **PRIVATE,
        )
    chat.stop.click(cancel, session, doing, queue=False, **PRIVATE)
    chat.new.click(new, [session, model, *looks], [*painted(chat), chat.status], queue=False, **PRIVATE)
    for button, side in zip(chat.votes, (0, None, 1), strict=True):
        button.click(
            partial(vote, side),
            [session, *looks],
            [*painted(chat), chat.status, chat.as_json, chat.as_text],
            queue=False,
            **PRIVATE,
        )
    gr.on([control.input for control in looks], repaint, [session, *looks], painted(chat), queue=False, **PRIVATE)
    chat.delta.upload(
        take,
        [session, model, chat.delta, *looks],
        [session, *painted(chat), chat.status, chat.delta],
        **TALKING,
        **PRIVATE,
    )
