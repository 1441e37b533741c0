"""What the Generate tab keeps for a visitor."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.ui.generate.service import Result

if TYPE_CHECKING:
    from d2nwg.data.image_set import ImageSet


@dataclass
class GenerateState:
    """The visitor's images and result.

    Attributes:
        images: the images in use.
        example: the key of the example that they are, "own", or "names" for none at all.
        news: a sentence to show once the images are there.
        result: what was generated last.
        picked: the number of the sample that "try it" and the download use, None for the chosen head.
        picture: what "try it" was last given and its class where that is known, to look at with another head.
    """

    images: "ImageSet | None" = None
    example: str = "own"
    news: str = ""
    result: Result | None = None
    picked: int | None = None
    picture: tuple[Path | bytes, str | None] | None = None
