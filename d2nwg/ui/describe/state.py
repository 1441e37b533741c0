"""What the Describe tab keeps for a visitor."""

from dataclasses import dataclass

from d2nwg.ui.describe.service import Result, Scored


@dataclass
class DescribeState:
    """The visitor's last adapter, `result`, and how it was scored on a table of theirs, `scored`; None where there is
    none."""

    result: Result | None = None
    scored: Scored | None = None
