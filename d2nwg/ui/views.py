"""Several views of one tab: a radio says which one is there."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import gradio as gr
from gradio.blocks import Block

from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.session import Session


class View(NamedTuple):
    """One of a tab's views.

    Attributes:
        chosen: what is only there in this view, of what a person chooses.
        places: what stands there before there is a result.
        made: the result.
        kept: the attribute of the tab's state that holds what was made; None where nothing was.
    """

    chosen: Sequence[Block]
    places: Block
    made: Block
    kept: str


def wire_views(frame: Frame, by: gr.Radio, views: Mapping[str, View], status: gr.HTML, state: type) -> None:
    """Show the view that a radio says; when a person chooses it, empty the status line.

    Args:
        views: by the radio's values.
        state: the dataclass that the tab keeps for a visitor.
    """

    def switch(visit: Session | None, chosen: str) -> dict:
        kept, update = visit.state(state) if visit else state(), {}
        for key, view in views.items():
            here, made = key == chosen, getattr(kept, view.kept) is not None
            update |= {part: gr.update(visible=here) for part in view.chosen}
            update |= {
                view.places: gr.update(visible=here and not made),
                view.made: gr.update(visible=here and made),
            }
        return update

    parts = [part for view in views.values() for part in (*view.chosen, view.places, view.made)]
    by.change(switch, [frame.session, by], parts, queue=False, **PRIVATE)
    # only when a person switches: a late event of opening the page must not take away what it has said since
    by.input(lambda: "", None, status, queue=False, **PRIVATE)
