"""Loose photographs in the Generate tab: named boxes that a person sorts them into, one for each class."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from d2nwg.data.sorting import Sorting
from d2nwg.ui import html as views
from d2nwg.ui.events import PRIVATE
from d2nwg.ui.frame import Frame
from d2nwg.ui.generate import loose_html
from d2nwg.ui.generate.settings import SORTED
from d2nwg.ui.generate.sorting import LooseState, add_class, add_shot, add_waiting, do, keep, remove, rename
from d2nwg.ui.parts import Folder, Picture, Upload
from d2nwg.ui.run import Run
from d2nwg.ui.session import Session
from d2nwg.utils.errors import Cancelled, UserError

GONE = "This page was left alone for long: the pictures are no longer here."
# Pictures are selected in the browser, by taps or keys; what is then done with them goes to the server, which sends the
# boxes anew. The selection and the focus outlive that.
SORT = """
const selected = new Set();
let last = null;
const find = () => [...element.querySelectorAll('.tile')].filter(tile => selected.has(tile.dataset.picture));
const name = button => [button.className, button.closest('.class-box')?.dataset.box, button.dataset.picture].join('|');
const apply = () => {
    for (const tile of element.querySelectorAll('.tile')) {
        const pressed = String(selected.has(tile.dataset.picture));
        if (tile.getAttribute('aria-pressed') !== pressed) tile.setAttribute('aria-pressed', pressed);
    }
    const some = find().length > 0;
    for (const here of element.querySelectorAll('.here')) if (here.hidden === some) here.hidden = !some;
};
const ask = what => {
    const pictures = find().map(tile => Number(tile.dataset.picture));
    selected.clear();
    if (pictures.length) trigger('click', {...what, pictures});
    apply();
};
const move = to => ask({act: 'move', to});
element.closest('#boxes').dropSelected = () => ask({act: 'drop'});
element.addEventListener('click', event => {
    const button = event.target.closest('button'), box = event.target.closest('.class-box');
    if (!button || !box) return;
    last = name(button);
    if (button.matches('.tile')) {
        const key = button.dataset.picture;
        selected.has(key) ? selected.delete(key) : selected.add(key);
        apply();
    } else if (button.matches('.all')) {
        const keys = [...box.querySelectorAll('.tile')].map(tile => tile.dataset.picture);
        const all = keys.every(key => selected.has(key));
        for (const key of keys) all ? selected.delete(key) : selected.add(key);
        apply();
    } else if (button.matches('.here')) {
        last = name(box.querySelector('.pick'));
        move(box.dataset.box);
    } else trigger('click', {act: 'pick', to: box.dataset.box});
});
element.addEventListener('keydown', event => {
    if (event.key === 'Delete') ask({act: 'drop'});
});
element.addEventListener('dragstart', event => {
    const tile = event.target.closest('.tile');
    if (!tile) return;
    if (!selected.has(tile.dataset.picture)) { selected.clear(); selected.add(tile.dataset.picture); apply(); }
    event.dataTransfer.setData('text/plain', 'pictures');
});
element.addEventListener('dragover', event => {
    if (event.target.closest('.class-box') && selected.size) event.preventDefault();
});
element.addEventListener('drop', event => {
    const box = event.target.closest('.class-box');
    if (!box || !selected.size) return;
    event.preventDefault();
    move(box.dataset.box);
});
new MutationObserver(() => {
    apply();
    if (last === null || document.activeElement !== document.body) return;
    [...element.querySelectorAll('button')].find(button => name(button) === last)?.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});
"""
VERBS = {"add": "Add class", "rename": "Rename class", "remove": "Remove class", "out": "Delete pictures"}
DROP = "() => document.querySelector('#boxes').dropSelected()"


def controls() -> dict[str, Block]:
    """The components, in a column that is there while photographs are sorted."""
    parts: dict[str, Block] = {}
    with gr.Column(visible=False, elem_id="loose") as parts["part"]:
        with gr.Row(elem_classes="pair zones"):
            parts["files"] = Upload(
                label="Photographs to sort",
                file_count="multiple",
                height=84,
                elem_id="loose-files",
            )
            parts["folder"] = Folder(
                label="A folder",
                file_count="directory",
                height=84,
                elem_id="loose-folder",
                elem_classes="folder",
            )
        parts["said"] = gr.HTML(elem_id="loose-said")
        parts["name"] = gr.Textbox(
            label="Class", max_lines=1, placeholder="cat, dog", elem_id="class-name", info="one, or several with commas"
        )
        with gr.Row(elem_classes="verbs"):
            for key, label in VERBS.items():
                parts[key] = gr.Button(label, size="sm", elem_id=f"class-{key}")
        parts["boxes"] = gr.HTML(loose_html.boxes(Sorting(), {}), js_on_load=SORT, elem_id="boxes")
        gr.HTML(
            views.hint(
                "Tap pictures to select them, then “Put here” in the box of their class; or drag them. Tap the name "
                "of a class to have new pictures go there, and to rename or remove it. Renamed as another class, it "
                "becomes part of that; the pictures of a removed one are not sorted any more."
            )
        )
        with gr.Accordion("Camera or clipboard", open=False, elem_id="camera-part"):
            parts["camera"] = Picture(
                show_label=False,
                sources=["webcam", "clipboard"],
                height=290,  # in less the camera's own place lies over the choice of the clipboard
                buttons=[],
                alt_text="the picture to add",
                elem_id="camera",
            )
        parts["pack"] = gr.Button("Keep the sorting as a zip", size="sm", elem_id="pack")
        parts["zip"] = gr.DownloadButton("Download", size="sm", visible=False, elem_id="download-sorted")
    return parts


def fitting(parts: dict[str, Block], example: str) -> dict:
    """The update for a chosen example: the column is there for `SORTED` alone."""
    return {parts["part"]: gr.update(visible=example == SORTED)}


def update(parts: dict[str, Block], visit: Session, said: str = "", kind: str = "note") -> dict:
    """The update of the boxes, and a sentence below what was given."""
    state = visit.state(LooseState)
    if state.picked not in state.sorting.classes:
        state.picked = ""
    return {
        parts["boxes"]: loose_html.boxes(state.sorting, state.thumbnails, state.picked),
        parts["said"]: views.notice(said, kind) if said else "",
        parts["zip"]: gr.update(visible=False),
    }


def wire(frame: Frame, parts: dict[str, Any], run: Run) -> None:
    """Adding pictures, and sorting them; ``run`` is what reads data in this tab."""

    def ask(visit: Session, files: list[str] | None):
        visit.uploaded(files)
        state = visit.state(LooseState)
        state.waiting += [(file, Path(file).name, state.picked) for file in files or ()]
        return partial(add_waiting, state) if files else None

    def ask_folder(visit: Session, files: list[tuple[str, str]] | None):
        visit.uploaded(path for _, path in files or ())
        state = visit.state(LooseState)
        for inside, file in files or ():
            folders = inside.split("/")[:-1]
            state.waiting.append((file, Path(file).name, folders[-1] if len(folders) > 1 else state.picked))
        return partial(add_waiting, state) if files else None

    def failed(visit: Session, reason: Exception) -> dict:
        visit.state(LooseState).waiting.clear()
        said = ("Cancelled.", "note") if isinstance(reason, Cancelled) else (str(reason), "bad")
        return {**empty, **update(parts, visit, *said), run.status: ""}

    def show(visit: Session, said: str) -> dict:
        return {**empty, **update(parts, visit, said)}

    empty: dict[Block, None] = {parts["files"]: None, parts["folder"]: None}
    changed = [parts["boxes"], parts["said"], parts["zip"], *empty]
    options: dict[str, Any] = dict(failed=failed, slot={}, takes_over=True)
    run.on(parts["files"].upload, ask, [parts["files"]], show, changed, **options)
    run.on(parts["folder"].upload, ask_folder, [parts["folder"]], show, changed, **options)

    def act(action: Callable[..., str], *used: Block):
        """A handler that does something with the visitor's pictures and says what; then boxes that it used are
        emptied."""

        def handle(visit: Session | None, *values):
            if visit is None:
                return {parts["said"]: views.notice(GONE)}
            try:
                said = action(visit.state(LooseState), *values)
            except UserError as reason:
                return update(parts, visit, str(reason), "bad")
            return {**update(parts, visit, said), **dict.fromkeys(used, "")}

        return handle

    def on_boxes(visit: Session | None, event: gr.EventData):
        return act(do)(visit, event._data)

    sorted_out = [parts["boxes"], parts["said"], parts["zip"]]
    parts["boxes"].click(on_boxes, frame.session, sorted_out, queue=False, **PRIVATE)
    parts["out"].click(None, js=DROP, **PRIVATE)
    for action, triggers in (
        (add_class, [parts["add"].click, parts["name"].submit]),
        (rename, [parts["rename"].click]),
        (remove, [parts["remove"].click]),
    ):
        handle, outputs = act(action, parts["name"]), [*sorted_out, parts["name"]]
        gr.on(triggers, handle, [frame.session, parts["name"]], outputs, queue=False, **PRIVATE)

    def on_camera(visit: Session | None, file: str | None):
        if not file:
            return gr.skip()
        if visit:
            visit.uploaded([file])
        return {**act(add_shot)(visit, file), parts["camera"]: None}

    parts["camera"].change(
        on_camera, [frame.session, parts["camera"]], [*sorted_out, parts["camera"]], queue=False, **PRIVATE
    )

    def on_pack(visit: Session | None):
        if visit is None:
            return {parts["said"]: views.notice(GONE)}
        try:
            file = keep(visit.state(LooseState), visit.subfolder())
        except UserError as reason:
            return {parts["said"]: views.notice(str(reason))}
        label = f"Download {file.name}, {file.stat().st_size / 2**20:.1f} MB"
        return {parts["zip"]: gr.update(value=str(file), visible=True, label=label), parts["said"]: ""}

    parts["pack"].click(on_pack, frame.session, [parts["said"], parts["zip"]], **PRIVATE)
