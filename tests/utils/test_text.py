"""Texts from files, printed: nothing in them moves the cursor, colours, hides or reorders."""

import json

import pytest

from d2nwg.utils.progress import TerminalProgress
from d2nwg.utils.text import printable, shown

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\r\x08\x9b2J\u202egnp\u2066x\u2028y\x7f\0"
BAD = set("\x1b\x07\r\x08\x9b\u202e\u2066\u2028\x7f\0")


def test_what_is_printed_has_no_control_characters():
    assert not BAD & set(printable(HOSTILE)) and "\\u001b[31mred" in printable(HOSTILE)
    kept = "two\nlines\tand a tab, “quotes”, 北京\u3000, می\u200cخواهم, 👨\u200d👩\u200d👧, ä"
    assert printable(kept) == kept


def test_json_stays_the_same_value():
    value = {HOSTILE: ["\n", HOSTILE]}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_a_name_stays_in_its_line():
    name = shown(f"{HOSTILE}\nexample: rm\t", None)
    assert name.isprintable() and "\\n" in name and name.startswith("a\\x1b[31m")
    assert len(shown("x" * 500)) == 120 and len(shown("x" * 500, None)) == 500


class Terminal(list):
    write, flush = list.append, lambda self: None

    def __bool__(self):
        return True

    def isatty(self):
        return True


@pytest.mark.parametrize("stage", [HOSTILE, "Reading\nimages"])
def test_progress(stage):
    terminal = Terminal()
    TerminalProgress(terminal)(stage, 1, 1)
    (line,) = terminal
    assert line.startswith("\r\x1b[K") and line.endswith("\n")
    assert line.removeprefix("\r\x1b[K").removesuffix("\n").isprintable()
