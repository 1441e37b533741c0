"""The page's address holds what is chosen, so that a link shows it to somebody else."""

import json
from collections.abc import Mapping

import gradio as gr
from gradio.components import FormComponent

from d2nwg.ui.events import PRIVATE

NOT_KEPT = ("own", "sorted", "generate", "none")  # choices that mean nothing to somebody else

LONGEST = 2000  # characters of a value

KEEP = """(...values) => {
    const shownIn = %s;
    if (shownIn && !document.querySelector(shownIn)?.offsetParent) return;
    const link = new URL(location.href);
    const kept = value => value !== null && value !== "" && String(value).length <= %s && !%s.includes(value);
    %s.forEach((key, i) => !kept(values[i])
        ? link.searchParams.delete(key) : link.searchParams.set(key, values[i]));
    history.replaceState(history.state, "", link);
}"""


def keep_in_address(controls: Mapping[str, FormComponent], shown_in: str | None = None) -> None:
    """Write the values of some controls into the page's address whenever one changes.

    Args:
        controls: by the key that the address has them under.
        shown_in: a CSS selector; the address is left alone while what it selects is hidden.
    """
    gr.on(
        [control.change for control in controls.values()],
        None,
        list(controls.values()),
        None,
        js=KEEP % tuple(map(json.dumps, (shown_in, LONGEST, NOT_KEPT, list(controls)))),
        **PRIVATE,
    )
