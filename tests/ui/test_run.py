"""Long work of a tab: starting, watching, cancelling and ending, with the events caught instead of clicked."""

import asyncio
import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from d2nwg.ui import session as sessions
from d2nwg.ui.run import CROWDED, WAITING, Run
from d2nwg.utils.errors import UserError

SKIPPED = gr.skip()
REQUEST = SimpleNamespace(session_hash="page-1")


class Trigger:
    """Takes the functions that a `Run` would have gradio call."""

    def __call__(self, start, inputs, outputs, **options):
        self.start = start
        return self

    def then(self, run, inputs, outputs, **options):
        self.run = run or self.run  # a script alone follows
        return self

    def failure(self, crowded, inputs, outputs, **options):
        self.crowded = crowded


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A run with its components, a visit, and ``on`` to start work by."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    sessions.private_root.cache_clear()
    with gr.Blocks():
        go, stop, status, answer = gr.Button(), gr.Button(), gr.HTML(), gr.HTML()
        run = Run(gr.State(), "work", go, stop, status)
    made = SimpleNamespace(run=run, go=go, stop=stop, status=status, answer=answer, visit=sessions.Session())

    def on(function, **options) -> Trigger:
        trigger = Trigger()
        ask = options.pop("ask", lambda visit: function)
        show = options.pop("show", lambda visit, result, *looks: {answer: result})
        run.on(trigger, ask, [], show, [answer], **options)
        return trigger

    made.on = on
    yield made
    made.visit.close()
    sessions.private_root.cache_clear()


def updates(run, *values) -> list:
    """Everything that a generator of updates yields."""

    async def watch():
        return [update async for update in run(*values)]

    return asyncio.run(watch())


def controls(page, update) -> tuple:
    """Whether the start button is on and the cancel button there, and the status line."""
    return update[page.go]["interactive"], update[page.stop]["visible"], update[page.status]


def test_work_from_the_press_to_the_result(page):
    seen = threading.Event()

    def count(progress):
        progress("Counting", 1, 2)
        assert seen.wait(10)
        return "two"

    def during(visit, stage, look):
        if stage.name == "Counting":
            seen.set()
        return {page.answer: look}

    def show(visit, result, look):
        return {page.answer: f"{result} {look}"}

    trigger = page.on(count, looks=[page.answer], during=during, show=show)
    begun = trigger.start(REQUEST, page.visit)
    assert controls(page, begun)[:2] == (False, True) and WAITING in begun[page.status]
    assert page.visit.page == "page-1"
    *stages, ended = updates(trigger.run, page.visit, "apples")
    assert "Counting" in stages[-1][page.status] and stages[-1][page.answer] == "apples"
    assert controls(page, ended) == (True, False, "") and ended[page.answer] == "two apples"
    assert not page.visit.works and updates(trigger.run, page.visit, "apples") == [SKIPPED], "it runs once"


def test_a_refusal_starts_nothing(page):
    def refuse(visit):
        raise UserError("Give images.")

    for ask, status in ((refuse, "Give images."), (lambda visit: None, "")):
        update = page.on(None, ask=ask).start(REQUEST, page.visit)
        assert status in update.get(page.status, "") and page.go not in update and not page.visit.works


@pytest.mark.parametrize(
    "error, words",
    [(UserError("The class cat has 1 image."), "The class cat"), (ZeroDivisionError(), "Something went wrong here")],
)
@pytest.mark.parametrize("where", ["work", "show"])
def test_failures_keep_what_there_was(page, error, words, where):
    def fail(*args, **kwargs):
        raise error

    trigger = page.on(
        fail if where == "work" else lambda progress: 1,
        **({"show": fail} if where == "show" else {}),
        kept=lambda visit: "The old one is still here.",
        failed=lambda visit, reason: {page.answer: str(reason)},
    )
    trigger.start(REQUEST, page.visit)
    ended = updates(trigger.run, page.visit)[-1]
    on, there, status = controls(page, ended)
    assert on and not there and words in status and "The old one is still here." in status
    assert words in ended[page.answer] and not page.visit.works


def test_cancelling(page):
    def wait(progress):
        while True:
            progress("Waiting", 0, 0)

    trigger = page.on(wait, kept=lambda visit: "Kept.")
    trigger.start(REQUEST, page.visit)
    assert "Cancelled." in page.run._cancel(page.visit)[page.status], "it had not begun"
    assert not page.visit.works and updates(trigger.run, page.visit) == [SKIPPED]

    trigger.start(REQUEST, page.visit)

    async def watch():
        seen = []
        async for update in trigger.run(page.visit):
            seen.append(update)
            if "Stopping" not in str(seen):
                assert page.run.under_way(page.visit) and trigger.start(REQUEST, page.visit) == SKIPPED
                seen.append(page.run._cancel(page.visit))
        return seen

    on, there, status = controls(page, asyncio.run(watch())[-1])
    assert on and not there and "Cancelled. Kept." in status and not page.run.under_way(page.visit)


def test_newer_work_takes_over(page):
    going, seen = threading.Event(), []

    def old(progress):
        while True:
            going.set()
            progress("Old", 0, 0)

    first = page.on(old)
    second = page.on(lambda progress: "new", takes_over=True)
    first.start(REQUEST, page.visit)

    async def watch():
        async for update in first.run(page.visit):
            seen.append(update)
            if going.wait(10) and len(seen) == 1:
                assert page.go in second.start(REQUEST, page.visit)

    asyncio.run(watch())
    assert page.go not in seen[-1], "the old work must not end what the new one has begun"
    assert updates(first.run, page.visit) == [SKIPPED], "the new work is not the first one's"
    assert first.start(REQUEST, page.visit) == SKIPPED, "the new work waits"
    assert updates(second.run, page.visit)[-1][page.answer] == "new"


def test_when_too_many_wait(page):
    trigger = page.on(lambda progress: 1)
    trigger.start(REQUEST, page.visit)
    assert controls(page, trigger.crowded(page.visit))[:2] == (True, False) and not page.visit.works
    assert CROWDED in trigger.crowded(None)[page.status]


def test_each_tab_keeps_its_own_and_stops_with_the_page(page):
    trigger = page.on(lambda progress: 1)
    trigger.start(REQUEST, page.visit)
    work = page.visit.works["work"]
    sessions.page_closed("page-2")
    assert not work.cancelled
    sessions.page_closed("page-1")
    assert work.cancelled
    assert page.visit.state(list) is page.visit.state(list) is not page.visit.state(dict)
