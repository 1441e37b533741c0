"""``zoo.json``: the file that makes a folder a zoo and says of which kind and in which format."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationError

from d2nwg.utils.errors import UserError
from d2nwg.utils.formats import check_format
from d2nwg.utils.paths import read_json, write_whole
from d2nwg.utils.text import is_utf8, shown

MOST = 2**29  # bytes of a zoo.json
HEADS, CHECKPOINTS = "heads", "checkpoints"
ADAPTERS = "adapters"  # a zoo of checkpoints whose zoo.json says what they are adapters of
LANGUAGE_MODEL = "language-model"  # the base of adapters, which is otherwise a text encoder
NETWORKS = "networks"  # a zoo of checkpoints whose zoo.json says which images they were trained on
OF_CHECKPOINTS = (CHECKPOINTS, ADAPTERS, NETWORKS)
_FORMATS = {HEADS: (1,), CHECKPOINTS: (1, 2)}  # those that can be read, the last one is written
_WHAT = {HEADS: "zoo", CHECKPOINTS: "zoo of checkpoints"}
_REMAKE = {
    HEADS: "make one with `python -m d2nwg zoo build`",
    CHECKPOINTS: "make one with `python -m d2nwg zoo import`",
}


def zoo_kind(path: str | Path) -> str | None:
    """``"heads"``, ``"checkpoints"``, ``"adapters"`` or ``"networks"`` for the folder of a zoo, whatever its format;
    None for anything else."""
    try:
        info = _load(path)
        kind = _kind(info)
        return next((one for one in (ADAPTERS, NETWORKS) if kind == CHECKPOINTS and info.get(one)), kind)
    except (OSError, ValueError):
        return None


def read_info(path: str | Path, kind: str) -> dict:
    """The content of the ``zoo.json`` of a zoo of this kind.

    Raises:
        UserError: ``path`` holds no such zoo, or one in a format that this version does not read.
    """
    try:
        info = _load(path)
    except (OSError, ValueError) as reason:
        raise no_zoo(path, kind) from reason
    if _kind(info) != kind:
        other = "one of heads is needed" if kind == HEADS else "one of checkpoints is needed"
        raise UserError(f"{path} is a zoo of {_kind(info)}, and {other}: {_REMAKE[kind]}.")
    # Format 1 of a zoo of checkpoints has its kind in the place of the number, and the number in `version`.
    declared = info.get("version") if info.get("format") == CHECKPOINTS else info.get("format")
    check_format(declared, _FORMATS[kind], f"The zoo {path}", _REMAKE[kind])
    return info


def write_info(path: Path, kind: str, content: dict) -> None:
    """Write ``zoo.json``, whole or not at all."""
    info = {"kind": kind, "format": _FORMATS[kind][-1], **content}
    write_whole(path / "zoo.json", json.dumps(info, indent=1, ensure_ascii=False))


def no_zoo(path: str | Path, kind: str, reason: ValidationError | None = None) -> UserError:
    """The refusal of a folder that holds no zoo of this kind, or one whose ``zoo.json`` does not fit its schema."""
    where = f"; its zoo.json is damaged at {place_of(reason)}" if reason else ""
    return UserError(f"{path} is no {_WHAT[kind]}: {_REMAKE[kind]}{where}.")


def place_of(reason: ValidationError) -> str:
    """Where the first error is, such as ``records.0.file``."""
    return shown(".".join(map(str, reason.errors(include_input=False, include_context=False)[0]["loc"])))


def _utf8(text: str) -> str:
    if not is_utf8(text):
        raise ValueError("half a character")
    return text


Text = Annotated[str, AfterValidator(_utf8)]  # what can be written to a file again


def _load(path: str | Path) -> dict:
    info = read_json(Path(path) / "zoo.json", MOST)
    if not isinstance(info, dict):
        raise ValueError("no JSON object")
    return info


def _kind(info: dict) -> str:
    if CHECKPOINTS in (info.get("kind"), info.get("format")):
        return CHECKPOINTS
    return HEADS
