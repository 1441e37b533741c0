"""One encoded image → RGB pixels, within bounds."""

import contextlib
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image, ImageFile, ImageOps

from d2nwg.data.deep import PixelScale, Span, declared_maximum, kind_of, scale_of, span_of, values_of
from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

MAX_PIXELS = 64 * 2**20  # width × height of one image
MAX_FILE = 2**29  # bytes of one encoded image
# Pillow reads more formats; some of those start other programs (EPS) or do not hold photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")

Result = TypeVar("Result")

# Pillow's own warnings about huge or damaged files, which `open_image` answers with a sentence or ignores.
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def item_name(item: Path | bytes) -> str:
    """The name of an image for a sentence."""
    return shown(item.name) if isinstance(item, Path) else "An image of the data set"


def open_image(item: Path | bytes, *, min_side: int | None = None, scale: PixelScale | None = None) -> Image.Image:
    """Decode one image as RGB: its first frame, rotated as its EXIF orientation says, transparency over white.

    Args:
        item: the file, or its content.
        min_side: allows a JPEG to be decoded at a half, quarter or eighth of its size, as long as both sides keep at
            least so many pixels.
        scale: of the data set, for images of more than 8 bits a channel; without it, of this image alone.
    Raises:
        UserError: naming the file: it is no regular file or no complete image of a common format, it has more than
            `MAX_FILE` bytes, or its header declares more than `MAX_PIXELS`, which are then not decoded.
    """

    def decode(image: ImageFile.ImageFile) -> Image.Image:
        if kind := kind_of(image):
            return _rgb(_eight_bits(image, kind, item, scale or PixelScale()))
        if min_side and image.format in ("JPEG", "MPO"):
            image.draft(None, (min_side, min_side))
        image.load()
        return _rgb(_upright(image))

    return _opened(item, decode)


def read_span(item: Path | bytes, known: Collection[str] = ()) -> tuple[str, Span] | None:
    """The kind and span of the values in an image of more than 8 bits a channel; None for other images, and for those
    of kinds that are ``known``, which are not decoded.

    Raises:
        UserError: as `open_image`.
    """

    def look(image: ImageFile.ImageFile) -> tuple[str, Span] | None:
        kind = kind_of(image)
        if kind is None or kind in known:
            return None
        declared = declared_maximum(image, item)
        return kind, span_of(values_of(image, kind, lambda: _open(item)), declared)

    return _opened(item, look)


def _opened(item: Path | bytes, look: Callable[[ImageFile.ImageFile], Result]) -> Result:
    """What a function says of an image that was opened and not yet decoded. Raises UserError as `open_image`."""
    name = item_name(item)
    if not isinstance(item, (bytes, bytearray, memoryview, os.PathLike, str)):
        raise UserError(f"{name} has no image data.")
    if isinstance(item, (os.PathLike, str)):
        _check_file(Path(item), name)
    if _QUIET not in warnings.filters:  # `catch_warnings` is not safe with threads, and undoes a filter set once
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)
    try:
        with _open(item) as image:
            width, height = image.size
            if width * height <= MAX_PIXELS:
                return look(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width = height = None
    except Exception:  # decoders raise many types on damaged files
        what = "it is damaged, cut short or of another format"
        raise UserError(f"{name} cannot be read as an image: {what}.") from None
    size = f"{width} × {height}" if width else f"more than {MAX_PIXELS:,}"
    raise UserError(f"{name} is too large ({size} pixels); the limit is {MAX_PIXELS // 2**20} megapixels.")


def _open(item: Path | bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(item) if isinstance(item, (bytes, bytearray, memoryview)) else item, formats=FORMATS)


def _check_file(path: Path, name: str) -> None:
    """Refuse what `stat` does not call a regular file: a FIFO would block, and a device has no end."""
    try:
        found = path.stat()
    except OSError as reason:
        raise UserError(f"{name} does not exist.") from reason
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{name} cannot be read as an image: it is no regular file.")
    if found.st_size > MAX_FILE:
        raise UserError(f"{name} is larger than {MAX_FILE // 2**20} MiB, which is the limit for an image.")


def _eight_bits(image: ImageFile.ImageFile, kind: str, item: Path | bytes, scale: PixelScale) -> Image.Image:
    """An image of more than 8 bits a channel as one of 8, upright; on its own scale where ``scale`` has none for it."""
    values = values_of(image, kind, lambda: _open(item))
    if kind not in scale.ranges:
        scale = scale_of({kind: [span_of(values, declared_maximum(image, item))]})
    made = Image.fromarray(scale.to_bytes(kind, values))
    with contextlib.suppress(Exception):  # damaged EXIF data
        made.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return _upright(made)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an image with damaged EXIF data is used as it is
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy()  # detached from the file
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")
