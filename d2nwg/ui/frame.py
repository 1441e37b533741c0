"""What the tabs share: the page around them, and what one shows for another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import gradio as gr
from gradio.blocks import Block


@dataclass(frozen=True)
class Receiver:
    """How a tab shows what another one made.

    Attributes:
        show: gives the update of the page, for the visitor's `Session` and what the tab takes beside it.
        outputs: the components that the update may change.
    """

    show: Callable[..., dict]
    outputs: Sequence[Block]


@dataclass
class Frame:
    """The page around the tabs.

    Attributes:
        demo: the whole app.
        session: holds the visitor's `Session`, or None after a page was left alone for long.
        token: the token in the visitor's browser, which `d2nwg.ui.visitor.visitor` knows them by.
        bundle: the choice of a bundle, above the tabs.
        tabs: the tabs; a tab is selected by its key.
        receivers: by a tab's key, how it shows what another one made.
        when_built: called in order once all tabs are built, when all receivers are known.
    """

    demo: gr.Blocks
    session: gr.State
    token: gr.BrowserState
    bundle: gr.Dropdown
    tabs: gr.Tabs
    receivers: dict[str, Receiver] = field(default_factory=dict)
    when_built: list[Callable[[], None]] = field(default_factory=list)
