"""A labelled set of encoded images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from d2nwg.data.deep import PixelScale
from d2nwg.data.labelled import LabelledSet
from d2nwg.data.pixels import Pixels
from d2nwg.utils.progress import Progress, silent

# Of image files, in lower case.
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm"}


@dataclass(frozen=True, eq=False)
class ImageSet(LabelledSet):
    """A labelled data set of n images, which stay encoded until one is opened.

    Attributes:
        items: (n,) encoded images: paths of files, or bytes (data sets from the Hub), read when asked for.
        pixels: the scale of images of more than 8 bits a channel; a part of a data set has that of the whole.
    """

    items: Sequence[Path | bytes]
    pixels: Pixels = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self):
        if self.pixels is None:
            object.__setattr__(self, "pixels", Pixels(self.items))

    @property
    def noun(self) -> str:
        """See `LabelledSet`."""
        return "image"

    def scale(self, progress: Progress = silent) -> PixelScale:
        """See `LabelledSet`."""
        return self.pixels.scale(progress)
