"""What the Interpolate tab keeps for a visitor."""

from dataclasses import dataclass

from d2nwg.ui.interpolate.by_name import NamedPath
from d2nwg.ui.interpolate.service import Interpolated


@dataclass
class InterpolateState:
    """The visitor's last path between tasks, `made`, and the last one between names, `named`; None where there is
    none."""

    made: Interpolated | None = None
    named: NamedPath | None = None
