"""Images as small pictures that a page holds itself."""

import base64
import io
from pathlib import Path

from d2nwg.data.deep import PixelScale
from d2nwg.utils.errors import UserError

SIDE = 80  # pixels


def thumbnail(item: Path | bytes, scale: PixelScale | None = None) -> str | None:
    """An image as a small square picture in a data URL, on the pixel scale of its data set; None if it cannot be
    read."""
    from PIL import Image, ImageOps

    from d2nwg.data.decode import open_image

    try:
        picture = open_image(item, min_side=SIDE, scale=scale)
    except UserError:
        return None
    data = io.BytesIO()
    picture = ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BILINEAR)
    picture.save(data, "webp", quality=75, method=0)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
