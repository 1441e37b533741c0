"""What the Interpolate tab keeps for a visitor."""

from dataclasses import dataclass

from d2nwg.ui.interpolate.service import Interpolated


@dataclass
class InterpolateState:
    """The visitor's path, `made`: the last one, or None."""

    made: Interpolated | None = None
