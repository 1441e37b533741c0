"""Gradio components with our manners: files are uploaded, never fetched from an address, nor decoded unseen."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like, is_valid_file

from d2nwg.data.image_set import SUFFIXES
from d2nwg.data.text_set import TEXT_SUFFIXES

REFUSED = "not possible"  # the title of a refusal; gradio's own is a word we do not use


class Refusal(gr.Error):
    """A sentence for whoever calls an endpoint."""

    def __init__(self, sentence: str):
        super().__init__(sentence, title=REFUSED, print_exception=False)


NOT_FETCHED = "Upload the file itself: addresses are not fetched."


class _Uploaded:
    async def async_move_resource_to_block_cache(self, path):
        if path is not None and is_http_url_like(str(path)):
            raise Refusal(NOT_FETCHED)
        return await super().async_move_resource_to_block_cache(path)


def python_code(elem_id: str) -> gr.Code:
    """Where a result says how to use it in Python."""
    return gr.Code(
        language="python",
        label="Use it in Python",
        interactive=False,
        buttons=["copy"],
        show_line_numbers=False,
        wrap_lines=True,
        max_lines=16,
        elem_id=elem_id,
    )


def action(label: str, key: str, **button: Any) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """What a `d2nwg.ui.run.Run` needs: a button, one that cancels what it began, and a line below for how it goes.

    Args:
        key: their ids begin with it.
        button: options of the button.
    """
    size = {"size": button["size"]} if "size" in button else {}
    with gr.Row(elem_classes="do"):
        go = gr.Button(label, elem_id=f"{key}-go", **button)
        stop = gr.Button("Cancel", elem_id=f"{key}-stop", visible=False, min_width=100, **size)
    return go, stop, gr.HTML(elem_id=f"{key}-status")


class Upload(_Uploaded, gr.File):
    """A drop zone; handlers get paths."""

    def get_config(self, *given: Any) -> dict:
        config = super().get_config(*given)
        return {**config, "elem_classes": [*config["elem_classes"], "drop"]}  # of assets/style.css

    def _process_single_file(self, f) -> str:  # gradio's leaves an empty temporary file for each
        if self.file_types and not is_valid_file(f.path, self.file_types):
            raise Refusal(f"Give a file of one of these kinds: {', '.join(self.file_types)}.")
        return f.path

    def get_block_name(self) -> str:
        return "file"


class Folder(Upload):
    """A choice of a folder; handlers get pairs of a file's path in the folder and the path of its upload. It is given
    ``file_count="directory"``.

    gradio uploads the files of a folder by their names alone. `RELATIVE` has the page name them by their paths in it,
    which then come as their original names; anybody may send anything in the place of those.
    """

    def preprocess(self, payload) -> list[tuple[str, str]] | None:
        files = getattr(payload, "root", payload)
        return [(str(f.orig_name or Path(f.path).name), f.path) for f in files] if files else None


# Before gradio sees the files that were chosen: they are named by their paths in the folder, and hidden ones are left
# out, as are films and the like beside what can be read here.
RELATIVE = """() => document.addEventListener("change", event => {
    const input = event.target;
    if (!input.webkitdirectory || !input.files.length) return;
    const seen = [...input.files].filter(file => !/(^|\\/)\\./.test(file.webkitRelativePath || file.name));
    const known = seen.filter(file => /\\.(KINDS)(\\.gz)?$/i.test(file.name));
    const files = (known.length ? known : seen.length ? seen : [...input.files]).map(
        file => new File([file], file.webkitRelativePath || file.name, {type: file.type}));
    Object.defineProperty(input, "files", {value: files, configurable: true});
    setTimeout(() => delete input.files);
}, true)""".replace("KINDS", "|".join(sorted(kind[1:] for kind in SUFFIXES | TEXT_SUFFIXES)))


class Picture(_Uploaded, gr.Image):
    """One picture; handlers get its path, and `d2nwg.data.decode.open_image` looks at it before it is decoded."""

    def get_block_name(self) -> str:
        return "image"

    def preprocess(self, payload) -> str | None:
        if payload and payload.path is None:
            raise Refusal(NOT_FETCHED)
        return payload.path if payload else None


# A folder that is dropped among the drop zones goes the way of one that is chosen: gradio takes dropped files alone.
DROPPED = """() => {
    const of = (what, how, ...given) => new Promise((done, failed) => what[how](...given, done, failed));
    const walk = async (entry, path) => {
        if (entry.isFile) {
            const file = await of(entry, "file");
            return [new File([file], path + entry.name, {type: file.type})];
        }
        const reader = entry.createReader(), found = [];
        for (let some; (some = await of(reader, "readEntries")).length;) found.push(...some);  // a hundred at a time
        return (await Promise.all(found.map(part => walk(part, `${path}${entry.name}/`)))).flat();
    };
    document.addEventListener("drop", async event => {
        const zones = event.target.closest?.(".zones"), input = zones?.querySelector(".folder input[type=file]");
        const entries = [...event.dataTransfer?.items ?? []].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
        if (!input || !entries.some(entry => entry.isDirectory)) return;
        event.preventDefault();
        event.stopPropagation();
        event.target.dispatchEvent(new DragEvent("dragleave", {bubbles: true}));  // it does not look dragged over
        const files = (await Promise.all(entries.map(entry => walk(entry, "")))).flat();
        Object.defineProperty(input, "files", {value: files, configurable: true});
        input.dispatchEvent(new Event("change", {bubbles: true}));
    }, true);
}"""
