"""Works that take turns: how many are ahead of one, and for how long."""

import gc

from d2nwg.ui.events import COMPUTE, MINUTES
from d2nwg.ui.line import Line, line_of
from d2nwg.ui.work import Work
from tests.ui.test_run import REQUEST, page, updates  # noqa: F401 (a fixture)


def work() -> Work:
    return Work(lambda progress: None)


def test_how_many_are_ahead():
    line, works = Line(), [work() for _ in range(3)]
    line.join(works[0])
    assert line.wait(works[0]) == "", "it is next"
    line.join(works[1])
    assert line.wait(works[1]) == "Waiting: one is ahead of you."
    line.leave(works[0], 70.0)
    line.join(works[2])
    assert line.wait(works[2]) == "Waiting: one is ahead of you, about 1 min 10 s."
    line.join(works[0])
    assert line.wait(works[2]).startswith("Waiting: 2 are ahead of you, about 2 min 20 s")
    works[1].cancel()
    assert line.ahead(works[2]) == 1, "one that was cancelled goes at once"
    del works[:2]
    gc.collect()
    assert line.ahead(works[0]) == 0, "one that was dropped is gone by itself"


def test_each_slot_has_a_line_of_its_own():
    assert line_of(COMPUTE) is line_of(COMPUTE) is not line_of(MINUTES) and line_of({}) is None


def test_the_place_is_told(page):  # noqa: F811
    """Once one has run, its time is known."""
    slot = dict(concurrency_limit=1, concurrency_id="of a test")
    trigger = page.on(lambda progress: "done", slot=slot, takes_over=True)
    other = work()
    line_of(slot).join(other)
    said = trigger.start(REQUEST, page.visit)[page.status]
    assert "Waiting: one is ahead of you." in said
    assert updates(trigger.run, page.visit)[-1][page.answer] == "done" and line_of(slot).ahead(other) == 0
    line_of(slot).leave(other, 5)
    assert "Waiting for a free place" in trigger.start(REQUEST, page.visit)[page.status]
