"""What the Generate tab keeps for a visitor."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.ui.generate.service import Result

if TYPE_CHECKING:
    from d2nwg.data.sources import Data
    from d2nwg.data.text_set import Text


@dataclass
class GenerateState:
    """The visitor's data and result.

    Attributes:
        images: the images or texts in use.
        example: the key of the example that they are, "own", or "names" for none at all.
        news: a sentence to show once the data are there.
        result: what was generated last.
        picked: the number of the sample that "try it" and the download use, None for the chosen head.
        picture: what "try it" was last given, a picture or a text, and its class where that is known, to look at
            with another head.
    """

    images: "Data | None" = None
    example: str = "own"
    news: str = ""
    result: Result | None = None
    picked: int | None = None
    picture: "tuple[Path | bytes | Text, str | None] | None" = None
