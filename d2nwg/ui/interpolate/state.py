"""What the Interpolate tab keeps for a visitor."""

from dataclasses import dataclass

from d2nwg.ui.interpolate.by_description import DescribedPath
from d2nwg.ui.interpolate.by_name import NamedPath
from d2nwg.ui.interpolate.service import Interpolated


@dataclass
class InterpolateState:
    """The visitor's last paths, None where there is none.

    Attributes:
        made, named, described: between tasks, between names, between descriptions.
    """

    made: Interpolated | None = None
    named: NamedPath | None = None
    described: DescribedPath | None = None
