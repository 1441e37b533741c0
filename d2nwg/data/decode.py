"""One encoded image → RGB pixels, within bounds."""

import io
import os
import re
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import shown

MAX_PIXELS = 64 * 2**20  # width × height of one image
MAX_FILE = 2**29  # bytes of one encoded image
# Pillow reads more formats; some of those start other programs (EPS) or do not hold photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")

# Pillow's own warnings about huge or damaged files, which `open_image` answers with a sentence or ignores.
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def item_name(item: Path | bytes) -> str:
    """The name of an image for a sentence."""
    return shown(item.name) if isinstance(item, Path) else "An image of the data set"


def open_image(item: Path | bytes, *, min_side: int | None = None) -> Image.Image:
    """Decode one image as RGB: its first frame, rotated as its EXIF orientation says, transparency over white.

    Args:
        item: the file, or its content.
        min_side: allows a JPEG to be decoded at a half, quarter or eighth of its size, as long as both sides keep at
            least so many pixels.
    Raises:
        UserError: naming the file: it is no regular file or no complete image of a common format, it has more than
            `MAX_FILE` bytes, or its header declares more than `MAX_PIXELS`, which are then not decoded.
    """
    name = item_name(item)
    if not isinstance(item, (bytes, bytearray, memoryview, os.PathLike, str)):
        raise UserError(f"{name} has no image data.")
    if isinstance(item, (os.PathLike, str)):
        _check_file(Path(item), name)
    source = io.BytesIO(item) if isinstance(item, (bytes, bytearray, memoryview)) else item
    if _QUIET not in warnings.filters:  # `catch_warnings` is not safe with threads, and undoes a filter set once
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height <= MAX_PIXELS:
                if min_side and image.format in ("JPEG", "MPO"):
                    image.draft(None, (min_side, min_side))
                image.load()
                return _rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width = height = None
    except Exception:  # decoders raise many types on damaged files
        what = "it is damaged, cut short or of another format"
        raise UserError(f"{name} cannot be read as an image: {what}.") from None
    size = f"{width} × {height}" if width else f"more than {MAX_PIXELS:,}"
    raise UserError(f"{name} is too large ({size} pixels); the limit is {MAX_PIXELS // 2**20} megapixels.")


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


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an image with damaged EXIF data is used as it is
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy()  # detached from the file
    if image.mode.startswith("I"):  # 16 bits a pixel; convert() would clip at 255
        values = np.asarray(image, dtype=np.int64)
        image = Image.fromarray((values >> 8 if values.max() > 255 else values).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")
