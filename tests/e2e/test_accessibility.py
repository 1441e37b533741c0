"""No serious fault that axe-core finds, on any tab, light and dark."""

import pytest

from d2nwg.ui.app import TABS

axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python, of the extra test, carries axe")
SERIOUS = ("serious", "critical")
AT_REST = "document.getAnimations().every(one => one.playState !== 'running')"  # no colour is on its way to another


def faults(page) -> list[str]:
    """What axe finds on the page as it is, in a line each."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{one['id']}: {node['html'][:300]}" for one in found if one["impact"] in SERIOUS for node in one["nodes"]]


def test_axe_knows_a_fault(visit):
    page = visit()
    page.evaluate(axe.AXE_SCRIPT)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=icon.png>')")
    assert any(fault.startswith("image-alt") for fault in faults(page))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_tab(visit, theme):
    page = visit(f"?__theme={theme}")
    for figure in ("strip", "confusion"):  # gradio's own place of a figure that is on its way has a fault
        page.wait_for_selector(f"#{figure} .js-plotly-plot")
    page.evaluate(axe.AXE_SCRIPT)
    found = {}
    for tab in TABS:
        page.get_by_role("tab", name=tab.LABEL, exact=True).click()
        page.wait_for_selector(f"#{tab.KEY}", state="visible")
        page.wait_for_function(AT_REST)
        found[tab.KEY] = faults(page)
    assert not any(found.values()), found


def test_a_result(visit):
    page = visit("?samples=4")
    page.evaluate(axe.AXE_SCRIPT)
    page.click("#go")
    page.wait_for_selector("#status .notice:is(.good, .bad)")
    page.wait_for_selector("#snippet .cm-line")
    page.wait_for_selector("#sentence:has-text('Drawn 5 times')")
    for figure in ("strip", "confusion"):
        page.wait_for_selector(f"#{figure} .js-plotly-plot")
    found = faults(page)
    page.evaluate("document.body.classList.add('dark')")
    page.wait_for_function(AT_REST)
    found += faults(page)
    assert not found, found
