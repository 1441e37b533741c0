"""Results of a visit that are looked at again, and two of them side by side."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from d2nwg.ui.generate import history
from d2nwg.ui.generate.made import Result
from d2nwg.ui.generate.state import GenerateState
from tests.helpers.reports import make_named, make_report
from tests.ui.test_in_use import CLASSES, page, result  # noqa: F401 (fixtures)


def made(right, images=None, query=None, **report) -> Result:
    """A result that is right on these of its held-out images."""
    truth = np.zeros(len(right), int)
    data = SimpleNamespace(query_index=np.arange(len(right)) if query is None else query)
    found = Result(
        images or SimpleNamespace(items=list(range(100)), noun="image"),
        SimpleNamespace(report=make_report(**report), data=data),
        {},
        (None, None),
    )
    found.truth, found.predicted = lambda: truth, lambda picked: np.where(right, 0, 1)
    return found


def test_the_last_ones_are_kept():
    kept: list[Result] = []
    results = [made([1], seed=seed) for seed in range(history.MOST + 3)]
    for result in [*results, results[-1]]:  # noqa: F402
        history.keep(kept, result)
    assert kept == results[3:], "the oldest go, and none stands there twice"
    assert [key for _, key in history.choices(kept)] == [id(result) for result in reversed(kept)]
    assert history.choices(kept)[0][0] == f"tiny · pets · 5 a class · seed {history.MOST + 2} · 62.0\u00a0%"
    assert history.found(kept, id(kept[2])) is kept[2] and history.found(kept, "x") is None


def test_side_by_side():
    first = made([1] * 9 + [0], shots=5, accuracy={"chosen": 0.9, "without_names": 0.8})
    second = made([1] + [0] * 9, shots=1, accuracy={"chosen": 0.1}, bundle="<b>other</b>")
    said = history.compare(first, second)
    assert "<b>other</b>" not in said and "&lt;b&gt;other&lt;/b&gt;" in said
    assert '<tr class="own"><th>Labelled items a class</th><td>5</td><td>1</td></tr>' in said
    assert "<tr><th>Data</th><td>pets</td><td>pets</td></tr>" in said, "what is equal is not marked"
    assert "<th>Without the names</th><td>80.0\u00a0%</td><td>–</td>" in said and "Without the unlabelled" not in said
    assert "Of 10 images that both were measured on, the one shown is right on 8 that the other gets wrong" in said
    assert "the one shown is ahead, more than chance explains (McNemar p = 0.0078)" in said
    assert "the one beside it is ahead" in history.compare(second, first)


def test_what_does_not_compare():
    one = made([1, 1, 0])
    assert "each is right on 1 that the other" in history.against(one, made([1, 0, 1]))
    assert "which chance explains (McNemar p = 1)" in history.against(one, made([1, 0, 0]))
    half = history.against(one, made([0, 1], query=np.array([0, 7])))
    assert "Of 1 image that both" in half, "on the shared ones alone"
    assert "on other items" in history.against(one, made([1, 1], query=np.array([8, 9])))
    assert "on other items" in history.against(one, made([1], images=SimpleNamespace(items=["x"], noun="image")))
    named = Result(None, make_named(["cat", "dog"]), {}, (None, None))
    assert "made from names alone" in history.against(one, named) and "class names alone" in history.title(named)
    assert "class names alone" in history.compare(one, named)


def test_one_is_shown_again(page, result):  # noqa: F811
    parts, state = page.results.history, page.visit.state(GenerateState)
    alone = page.view.show(page.visit)
    assert state.history == [result] and not alone[parts["card"]]["visible"]
    again = replace(
        result, generation=replace(result.generation, report=make_report((0.3, 0.3), classes=list(CLASSES), seed=7))
    )
    both = page.view.show_new(page.visit, again)
    assert state.history == [result, again] and both[parts["card"]]["visible"]
    assert both[parts["again"]]["value"] == id(again) and [key for _, key in both[parts["beside"]]["choices"]] == [
        id(result)
    ]
    assert "side by side" in page.view._compare(page.visit, id(result))
    assert page.view._compare(page.visit, 5) == "" and page.view._compare(None, id(result)) == ""
    shown = page.view._show_again(page.visit, id(result))
    assert state.result is result and shown[parts["again"]]["value"] == id(result) and len(state.history) == 2
    with pytest.raises(KeyError):
        page.view._show_again(page.visit, 5)[parts["again"]]
