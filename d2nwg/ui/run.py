"""Long work of a tab: what starts it, how far it is, how it is cancelled, and what the page shows of it in the end."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from d2nwg.ui import html
from d2nwg.ui.events import COMPUTE, PRIVATE
from d2nwg.ui.line import line_of
from d2nwg.ui.session import Session
from d2nwg.ui.visitor import visitor
from d2nwg.ui.work import UNEXPECTED, Work
from d2nwg.utils.errors import Cancelled, UserError

log = logging.getLogger("d2nwg.ui")

WAITING = "Waiting for a free place …"
CROWDED = "Too many people are waiting; please try again in a minute."

Update = dict[Block, object]


class Run:
    """The start button, the cancel button and the status line of one card, and all work that they stand for.

    A visitor has one `Work` at a time under a run's key. While it waits or runs, the start button is off and the cancel
    button is there; in the end the status line says what went wrong, or the page shows the result.

    Args:
        session: holds the visitor's `Session`.
        key: the name of the work in `Session.works`.
        go: the start button. It is only switched on and off: what starts the work is said by `on`.
        stop: the cancel button.
        status: the status line.
        stopping: what the status line says until work that is cancelled has stopped.
        stop_stays: whether the cancel button is there, switched off, also while nothing runs.
    """

    def __init__(
        self,
        session: gr.State,
        key: str,
        go: gr.Button,
        stop: gr.Button,
        status: gr.HTML,
        stopping: str = "Stopping …",
        stop_stays: bool = False,
    ):
        self.session, self.key, self.go, self.stop, self.status = session, key, go, stop, status
        self.controls: list[Block] = [go, stop, status]
        self._stopping, self._stop_stays = stopping, stop_stays
        stop.click(self._cancel, session, self.controls, queue=False, **PRIVATE)

    def on(
        self,
        trigger: Callable[..., gr.events.Dependency],
        ask: Callable[..., Callable | None],
        inputs: Sequence[Component],
        show: Callable[..., Update],
        shown: Sequence[Block],
        *,
        looks: Sequence[Component] = (),
        begun: Callable[[Session], Update] = lambda visit: {},
        during: Callable[..., Update] = lambda visit, stage, *looks: {},
        failed: Callable[..., Update] = lambda visit, reason, *looks: {},
        kept: Callable[[Session], str] = lambda visit: "",
        slot: dict = COMPUTE,
        every: float = 0.2,
        takes_over: bool = False,
    ) -> gr.events.Dependency:
        """Say what starts some work, what it is, and what the page shows of it.

        Args:
            trigger: what starts it: an event such as ``button.click``, or several as ``partial(gr.on, [...])``.
            ask: ``ask(visit, *values of inputs)`` gives the function to call, which takes ``progress=``, or None for
                nothing to do. It may raise `UserError`.
            inputs: the components whose values `ask` takes.
            show: ``show(visit, result, *values of looks)`` gives the update of the page for what the function returned.
            shown: the components that the updates may change beside the run's own.
            looks: the components whose values `show`, `during` and `failed` take.
            begun: ``begun(visit)`` gives the update when it is asked for.
            during: ``during(visit, stage, *values of looks)`` gives an update at each `Stage`.
            failed: ``failed(visit, reason, *values of looks)`` gives the update where there is no result; `reason` is a
                `Cancelled` or a `UserError`.
            kept: ``kept(visit)`` is a sentence on what is still there where there is no result.
            slot: the options of the event that decide how many such works run at once.
            every: seconds between two looks at the stage.
            takes_over: whether it cancels what is under way, instead of waiting for the visitor to do so.

        Returns:
            The event after which the page shows the result.
        """
        owner, line = object(), line_of(slot)

        def start(request: gr.Request, visit: Session | None, *values):
            visit = visit or Session(viewer=visitor(request))
            visit.page = request.session_hash
            before = visit.works.get(self.key)
            if before and not takes_over and (before.started or before.owner is not owner):
                return gr.skip()
            try:
                function = ask(visit, *values)
            except UserError as reason:
                return {self.session: visit, self.status: html.notice(str(reason))}
            if function is None:
                return {self.session: visit}
            if before:
                before.cancel()
            work = visit.works[self.key] = Work(function, owner)
            if line:
                line.join(work)
            return {self.session: visit, **self._busy(line.wait(work) if line else ""), **begun(visit)}

        async def run(visit: Session | None, *values) -> AsyncIterator[Update]:
            work = visit.works.get(self.key) if visit else None
            if visit is None or work is None or work.started or work.owner is not owner:
                yield gr.skip()
                return
            began = time.monotonic()
            try:
                async with aclosing(work.watch(every)) as stages:
                    async for stage in stages:
                        yield {self.status: html.progress(stage), **during(visit, stage, *values)}
                if visit.works.get(self.key) is not work:  # something newer has taken over
                    return
                update = end(visit, work, values)
            finally:  # also when the page is gone
                if line:
                    line.leave(work, time.monotonic() - began)
                if visit.works.get(self.key) is work:
                    del visit.works[self.key]
            yield update

        def end(visit: Session, work: Work, values: tuple) -> Update:
            reason: Cancelled | UserError
            try:
                return {**self.idle(), **show(visit, work.result(), *values)}
            except Cancelled as stopped:
                reason, status = stopped, html.notice(f"Cancelled. {kept(visit)}", "note")
            except UserError as refused:
                reason, status = refused, html.notice(f"{refused} {kept(visit)}")
            except Exception:
                log.exception("Unforeseen")
                reason, status = UserError(UNEXPECTED), html.notice(f"{UNEXPECTED} {kept(visit)}")
            return {**self.idle(status), **failed(visit, reason, *values)}

        outputs = [self.session, *self.controls, *shown]
        started = trigger(start, [self.session, *inputs], outputs, queue=False, **PRIVATE)
        ended = started.then(run, [self.session, *looks], outputs[1:], **slot, **PRIVATE)
        ended.failure(self._crowded, self.session, self.controls, queue=False, **PRIVATE)
        return ended

    def idle(self, status: str = "") -> Update:
        """The update of the controls while nothing runs."""
        return {
            self.go: gr.update(interactive=True),
            self.stop: self._stop_update(False),
            self.status: status,
        }

    def under_way(self, visit: Session | None) -> bool:
        """Whether work of this visitor has begun and not ended."""
        work = visit.works.get(self.key) if visit else None
        return bool(work and work.started)

    def _stop_update(self, on: bool) -> dict:
        return gr.update(interactive=on) if self._stop_stays else gr.update(visible=on)

    def _busy(self, waits: str = "") -> Update:
        return {
            self.go: gr.update(interactive=False),
            self.stop: self._stop_update(True),
            self.status: html.notice(waits or WAITING, "note"),
        }

    def _cancel(self, visit: Session | None) -> Update:
        if visit and self.under_way(visit):
            visit.works[self.key].cancel()  # it ends at its next report of progress
            return {
                self.status: html.notice(self._stopping, "note"),
                self.stop: self._stop_update(False),
            }
        return self._dropped(visit, html.notice("Cancelled.", "note"))

    def _crowded(self, visit: Session | None) -> Update:
        return self._dropped(visit, html.notice(CROWDED))

    def _dropped(self, visit: Session | None, status: str) -> Update:
        """Forget work that still waited for its turn."""
        if visit:
            visit.works.pop(self.key, None)
        return self.idle(status)
