"""The page around the tabs. A new tab is a module with KEY, LABEL and build_tab(frame), and an entry in TABS. One
that shows what another one made puts a `Receiver` into ``frame.receivers``; one that sends wires that in
``frame.when_built``."""

import asyncio
from html import escape
from pathlib import Path

import gradio as gr

from d2nwg.ui.arguments import CheckedBlocks
from d2nwg.ui.describe import tab as describe
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.explore import tab as explore
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import tab as generate
from d2nwg.ui.gpu import device_words
from d2nwg.ui.http import app_options
from d2nwg.ui.interpolate import tab as interpolate
from d2nwg.ui.language import tab as language
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.session import close, page_closed, private_root
from d2nwg.ui.settings import bundle_choices, default_bundle
from d2nwg.ui.theme import studio_theme
from d2nwg.ui.train import tab as train
from d2nwg.ui.visitor import STORED_AS
from d2nwg.utils.paths import shipped

TABS = [generate, describe, explore, interpolate, language, train]
NAME = "D2NWG Studio"
ASSETS = shipped("assets")
MAX_UPLOAD = "512mb"
MAX_WAITING = 32
DAY = 24 * 3600

DOTS = "".join(
    f'<circle cx="{8.5 + 7.5 * j}" cy="{8.5 + 7.5 * i}" r="{(1.4, 2, 2.8, 3.3, 3.7)[i + j]}"/>'
    for i in range(3)
    for j in range(3)
)
MARK = (
    f'<svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8"/><g>{DOTS}</g></svg>'
)
BRAND = (
    f'<header class="brand">{MARK}<div><h1>{NAME}</h1>'
    "<p>Classifier heads for your images and texts, generated instead of trained</p></div></header>"
)
TOOLS = """<div class="tools"><span class="device">%s</span>
<button type="button" title="Copy a link to these settings" onclick="navigator.clipboard.writeText(location.href)
.then(() => {this.textContent = 'Link copied'; setTimeout(() => this.textContent = 'Copy link', 1500)})">
Copy link</button>
<button type="button" aria-label="Light or dark" title="Light or dark"
onclick="document.body.classList.toggle('dark')">◐</button></div>"""


# The address names the tab in view. The first tab selects itself before the one that a link asks for can be shown.
# The style sheet reads it too: the choice of a bundle stands above the tabs that use it.
LINK = """() => {
    const link = new URL(location.href);
    window.askedTab ??= link.searchParams.get("tab");
    link.searchParams.set("tab", document.body.dataset.tab = "%s");
    history.replaceState(history.state, "", link);
}"""
ASKED = '() => window.askedTab ?? new URL(location.href).searchParams.get("tab")'
# A drop zone is called what it reads: gradio's own name for it is another one than the words in it.
NAMED = """() => new MutationObserver(() => {
    for (const zone of document.querySelectorAll(".upload-container[aria-label]")) zone.removeAttribute("aria-label");
}).observe(document.body, {childList: true, subtree: true})"""


def build_app() -> gr.Blocks:
    """The whole app, ready for `launch`."""
    private_root()
    with CheckedBlocks(title=NAME, analytics_enabled=False, delete_cache=(3600, DAY), fill_width=True) as demo:
        session = gr.State(None, delete_callback=close)
        token = gr.BrowserState(storage_key=STORED_AS, secret=STORED_AS)  # not encrypted to anybody: it is theirs
        with gr.Row(elem_id="top"):
            gr.HTML(BRAND, elem_id="brand")
            bundle = gr.Dropdown(bundle_choices(), value=default_bundle(), label="Bundle", elem_id="bundle", scale=0)
            tools = gr.HTML(TOOLS % "", elem_id="tools")
        with gr.Tabs(elem_id="tabs") as tabs:
            frame = Frame(demo, session, token, bundle, tabs)
            for tab in TABS:
                with gr.Tab(tab.LABEL, id=tab.KEY) as page:
                    tab.build_tab(frame)
                page.select(None, js=LINK % tab.KEY, api_visibility="private")
        for connect in frame.when_built:
            connect()
        demo.load(_asked_tab, gr.Textbox(visible=False), tabs, js=ASKED, **PRIVATE)
        demo.load(_tools, None, tools, **PRIVATE)
        demo.load(None, js=NAMED, api_visibility="private")
        demo.unload(_page_closed)
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=4)
    return demo


def launch_options() -> dict:
    """What `launch` needs for the look, the limits, and for serving nothing but what sessions made."""
    return dict(
        theme=studio_theme(),
        css_paths=[ASSETS / "style.css"],
        favicon_path=ASSETS / "icon.png",
        pwa=True,
        max_file_size=MAX_UPLOAD,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        allowed_paths=[],
        blocked_paths=_blocked(),
        show_error=False,
        app_kwargs=app_options(),
    )


def _blocked() -> list[str]:
    """The folders with code and data, unless this process's own files lie in them."""
    root = private_root()
    return [str(path) for path in (ASSETS.parent, Path.cwd()) if not root.is_relative_to(path.resolve())]


def _page_closed(request: gr.Request) -> None:
    page_closed(request.session_hash)


async def _tools() -> str:
    await asyncio.to_thread(import_libraries)  # torch knows the device
    return TOOLS % escape(device_words())


def _asked_tab(asked: str | None):
    return gr.Tabs(selected=asked) if asked in {tab.KEY for tab in TABS} else gr.skip()
