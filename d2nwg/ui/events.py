"""What the events of all tabs share: their options, and the components that they change."""

from typing import Any

import gradio as gr
from gradio.blocks import Block

from d2nwg.jobs.owner import Viewer
from d2nwg.ui.settings import bundle_choices

# Of every event of the page. None shows gradio's progress: without a component to show it on, the page need not tell
# each output of each event of a new stage, for which it would search the whole tree of components each time. Half of
# the time until the page stood went there.
PRIVATE: dict[str, Any] = dict(api_visibility="private", show_progress="hidden", show_progress_on=[])
COMPUTE: dict[str, Any] = dict(concurrency_limit=1, concurrency_id="compute")  # one slot for what takes seconds
MINUTES: dict[str, Any] = dict(concurrency_limit=1, concurrency_id="minutes")  # and one for what can take minutes


class Components:
    """Some components of a tab, as attributes; each may also be a list or a dict of components."""

    @property
    def components(self) -> list[Block]:
        """All of them, for the outputs of an event."""
        groups = [
            part.values() if isinstance(part, dict) else part if isinstance(part, list) else [part]
            for part in vars(self).values()
        ]
        return [part for group in groups for part in group]


def bundle_update(viewer: Viewer, chosen: str | None = None) -> dict:
    """The update of a choice of bundles to those that a visitor may use, some trained since the app was started,
    perhaps; `chosen` is then chosen, if given."""
    names = bundle_choices(viewer)
    return gr.update(choices=names, value=chosen) if chosen else gr.update(choices=names)
