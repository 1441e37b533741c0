"""What the Generate tab keeps for a visitor."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.ui.generate.made import Picked, Result

if TYPE_CHECKING:
    from d2nwg.data.sources import Data
    from d2nwg.data.text_set import Text


@dataclass
class GenerateState:
    """The visitor's data and result.

    Attributes:
        images: the images or texts in use.
        example: the key of the example that they are, "own", "names" for none at all, or "sorted" for photographs that
            are sorted here and become images when heads are generated.
        news: a sentence to show once the data are there.
        asked: the key of a kept result that the link asks for; nothing without.
        opens_with_first: whether the page opened as the stored first result was made, and so may show it.
        result: the one that is shown.
        history: the last ones, the newest at the end.
        picked: what "try it" and the download use: the number of a sample, the name of a baseline, None for the
            chosen head.
        picture: what "try it" was last given, a picture or a text, and its class where that is known, to look at
            with another head.
        predicted: whose predictions for many are shown.
    """

    images: "Data | None" = None
    example: str = "own"
    news: str = ""
    asked: str = ""
    opens_with_first: bool = False
    result: Result | None = None
    history: list[Result] = field(default_factory=list)
    picked: Picked = None
    predicted: tuple[Result, Picked] | None = None
    picture: "tuple[Path | bytes | Text, str | None] | None" = None
