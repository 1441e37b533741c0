"""What the Explore tab keeps for a visitor."""

from dataclasses import dataclass, field

from d2nwg.ui.explore.by_name import Mapped
from d2nwg.ui.explore.by_task import MappedTasks
from d2nwg.ui.explore.service import Explored


@dataclass
class ExploreState:
    """The visitor's exploration.

    Attributes:
        made: what was explored last.
        asked: the settings of the view that was asked for last.
        picked: the number of the point that is picked.
        matching: numbers of the points that a search found; None where nothing is searched for.
        listed: numbers of the points in the table of chosen ones.
        packed: those whose files were packed last.
        mapped: the names that were mapped last.
        tasks: the tasks that were mapped last.
    """

    made: Explored | None = None
    asked: dict | None = None
    picked: int | None = None
    matching: list[int] | None = None
    listed: list[int] = field(default_factory=list)
    packed: list[int] | None = None
    mapped: Mapped | None = None
    tasks: MappedTasks | None = None
