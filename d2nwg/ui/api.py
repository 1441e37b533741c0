"""What the endpoints of all tabs share."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from d2nwg.ui.parts import Refusal
from d2nwg.ui.work import UNEXPECTED
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress

log = logging.getLogger("d2nwg.ui")

PROGRESS = gr.Progress()  # as a default it asks gradio for the call's own


def reports_to(progress: gr.Progress) -> Progress:
    """The library's progress callback that reports to a caller."""

    def report(stage: str, done: int, total: int) -> None:
        progress((done, total or None), desc=stage)

    return report


@contextmanager
def refusals() -> Iterator[None]:
    """Turns a `UserError` into a sentence for the caller; what was not foreseen also goes to the log."""
    try:
        yield
    except UserError as reason:
        raise Refusal(str(reason)) from None
    except gr.Error:
        raise
    except Exception as reason:
        log.exception("Unforeseen")
        raise Refusal(UNEXPECTED) from reason
