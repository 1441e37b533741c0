"""The arguments of calls, checked before gradio looks at them: what is no argument is answered in a sentence.

gradio answers a text in the place of a number, or a missing argument, with ``{"error": null}``.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import gradio as gr
from gradio.components import Component
from gradio.utils import get_function_params
from gradio_client.utils import is_http_url_like

from d2nwg.ui.api import refusals
from d2nwg.ui.parts import NOT_FETCHED, Picture, Upload
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import is_utf8, shown, some

MOST_TEXT = 1_000_000  # characters
MOST_FILES = 20_000
MOST_TOKEN = 1000  # characters that a page keeps in the browser
MOST_NUMBER = 1e15  # beyond it, floats are no whole numbers any more


class CheckedBlocks(gr.Blocks):
    """Blocks whose events, also those that programs call, get arguments of the right types or are not run, and whose
    failures are sentences."""

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        known = [state[part._id] if state and part._id in state else part for part in block_fn.inputs]
        optional, exact = optional_at_the_end(block_fn), block_fn.api_visibility == "public"
        inputs = checked(names(block_fn), known, inputs, optional, exact)
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)

    async def process_api(self, *args, **kwargs):
        with refusals():
            return await super().process_api(*args, **kwargs)


@lru_cache(1024)
def names(block_fn) -> tuple[str, ...]:
    """What the arguments of an event are called: of an endpoint as programs know them, of the page by their labels."""
    own = [name for name, *_ in get_function_params(block_fn.fn)] if block_fn.fn else []
    if block_fn.api_visibility == "public" and len(own) >= len(block_fn.inputs):
        return tuple(own[: len(block_fn.inputs)])
    return tuple(str(getattr(part, "label", None) or "The value") for part in block_fn.inputs)


@lru_cache(1024)
def optional_at_the_end(block_fn) -> int:
    """How many of an endpoint's last arguments are None where they are not given."""
    own = get_function_params(block_fn.fn) if block_fn.fn and block_fn.api_visibility == "public" else []
    defaults = [given and default is None for _, given, default, _ in own[: len(block_fn.inputs)]]
    return len(defaults) - max((i + 1 for i, optional in enumerate(defaults) if not optional), default=0)


def checked(called: Sequence[str], parts: Sequence[Component], values, optional: int, exact: bool) -> list:
    """The values of an event's inputs; a single file where a list is wanted becomes a list.

    Args:
        called: what each argument is called in a sentence.
        optional: how many of the last ones may be left out.
        exact: whether there may not be more values than inputs.
    Raises:
        UserError: there are too few or too many, or one of them cannot be what it should be.
    """
    if 0 < len(parts) - len(values) <= optional:
        values = [*values, *[None] * (len(parts) - len(values))]
    if len(values) < len(parts) or (exact and len(values) > len(parts)):
        wanted = f"{len(parts)} arguments ({', '.join(called)})" if parts else "no arguments"
        raise UserError(f"This takes {wanted}, and {len(values):,} came.")
    return [_checked(name, part, value) for name, part, value in zip(called, parts, values, strict=False)]


def _checked(name: str, part: Component, value):
    if value is None or part.stateful:
        return value
    if isinstance(part, gr.BrowserState):
        return value if isinstance(value, str) and len(value) < MOST_TOKEN else None
    if isinstance(part, (Upload, Picture)):
        return _files(name, value, getattr(part, "file_count", "single") != "single")
    if isinstance(part, (gr.Number, gr.Slider)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{name} should be a number.")
        if not abs(value) <= MOST_NUMBER or not math.isfinite(value):
            raise UserError(f"{name} should be a finite number.")
    elif isinstance(part, gr.Textbox):
        _text(name, value)
    elif isinstance(part, gr.Checkbox):
        if not isinstance(value, bool):
            raise UserError(f"{name} should be true or false.")
    elif isinstance(part, (gr.Dropdown, gr.Radio)) and not getattr(part, "multiselect", False):
        _choice(name, part, value)
    return value


def _text(name: str, value) -> None:
    if not isinstance(value, str):
        raise UserError(f"{name} should be a text.")
    if len(value) > MOST_TEXT:
        raise UserError(f"{name} may have {MOST_TEXT:,} characters, and has {len(value):,}.")
    if not is_utf8(value):
        raise UserError(f"{name} holds half a character (a lone surrogate): write it out in full.")


def _choice(name: str, part, value) -> None:
    offered = [key for _, key in part.choices]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in offered:
        _text(name, value)
    if not getattr(part, "allow_custom_value", False) and value not in offered:
        raise UserError(f"{name} should be one of {some(offered, 12)}, not {shown(value, 60)}.")


def _files(name: str, value, several: bool):
    """Files as gradio takes them: what an upload returned, or a list of it."""
    if not several:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list):
            raise UserError(f"{name} should be one file, and {len(value):,} came.")
        return _file(name, value)
    files = value if isinstance(value, list) else [value]
    if len(files) > MOST_FILES:
        raise UserError(f"{name} may be {MOST_FILES:,} files, and {len(files):,} came: pack them in an archive.")
    return [_file(name, file) for file in files] or None


def _file(name: str, value) -> dict:
    from d2nwg.ui.uploads import own_file

    path = value.get("path") if isinstance(value, dict) else None
    address = value if isinstance(value, str) else path or (value.get("url") if isinstance(value, dict) else None)
    if isinstance(address, str) and is_http_url_like(address) and not path:
        raise UserError(NOT_FETCHED)
    if not isinstance(path, str):
        raise UserError(f"{name} should be a file: upload it, and give what the upload returned.")
    if is_http_url_like(path):
        raise UserError(NOT_FETCHED)
    file = str(own_file(path))
    original = value.get("orig_name")
    kept = {"path": file, "meta": {"_type": "gradio.FileData"}}
    return {**kept, "orig_name": original} if isinstance(original, str) else kept
