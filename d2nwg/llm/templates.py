"""Chat templates. They are programs that come with a model: jinja2's sandbox keeps them from files and from code, and a
process of their own, within bounds of time and memory, from running without end."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import is_utf8, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WAIT = 30.0  # seconds on the clock, of which the template itself gets few (`d2nwg.llm.render`)


def in_template(
    tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[Sequence[dict[str, str]]], system: str
) -> list[str]:
    """Conversations as texts in the tokenizer's chat template, each up to where the assistant answers.

    Args:
        conversations: chat messages (``role`` and ``content``), without a system prompt.
        system: the system prompt; where the template has no system role, it is put before the first message.
    Raises:
        UserError: the template fails, or takes too much time or memory.
    """
    try:
        template = tokenizer.get_chat_template()
        special = tokenizer.special_tokens_map.items()
        given = {name: [*map(str, one)] if isinstance(one, (list, tuple)) else str(one) for name, one in special}
        if not isinstance(template, str):
            raise ValueError("it is no text")
    except Exception as reason:  # several templates without a default, or anything that is none
        raise _refusal(tokenizer, str(reason)) from reason
    asked = {"template": template, "conversations": list(map(list, conversations)), "system": system, "given": given}
    package = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "d2nwg.llm.render"],
            cwd=package,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as reason:  # stopped by us, or by its bounds
        raise _refusal(tokenizer, "it takes too long") from reason
    if "error" in answer:
        raise _refusal(tokenizer, answer["error"])
    if not all(map(is_utf8, answer["texts"])):
        raise _refusal(tokenizer, "it writes half a character")
    return answer["texts"]


def _refusal(tokenizer, why: str) -> UserError:
    name = shown(Path(str(getattr(tokenizer, "name_or_path", "") or "this model")).name)
    why = shown((why.strip().splitlines() or ["it fails"])[0], 160).rstrip(".")
    return UserError(f"The chat template of {name} cannot be used ({why}): choose another model.")
