"""The format number that what the program writes to disk declares, so that a later version can tell what it reads."""

from collections.abc import Collection

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown


def check_format(declared: object, supported: Collection[int], what: str, remake: str) -> int:
    """The format number of something on disk; what declares none (None) is of format 1.

    Args:
        what: its name in the sentence of a refusal, for instance its path.
        remake: how to make it anew, as an imperative without a full stop.
    Raises:
        UserError: a format that this version does not read.
    """
    number = 1 if declared is None else declared
    if isinstance(number, bool) or not isinstance(number, int) or number not in supported:
        readable = " or ".join(map(str, sorted(supported)))
        raise UserError(f"{what} has format {shown(declared, 40)}, and this version reads format {readable}: {remake}.")
    return number
