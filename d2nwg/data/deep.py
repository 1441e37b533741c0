"""Images of more than 8 bits a channel: their values, and the scale on which those of a data set become 8 bits.

What such a file calls white is often not the largest number that it could hold: a camera's 12 bits in a 16-bit PNG, a
fraction, a count. So the scale is that of the data set, and never of an image: equal values stay equal.
"""

import io
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

UINT16, INT, FLOAT = "uint16", "int", "float"  # kinds of values
_LABELS = {UINT16: "16-bit", INT: "integer", FLOAT: "floating-point"}
_MAX_CHUNKS = 10_000  # of a PNG that are looked at
_SMAX, _MAX, _BITS, _NODATA = 341, 281, 258, 42113  # TIFF tags


@dataclass(frozen=True)
class Span:
    """The values of one image: the smallest and the largest, and the largest that its file declares, if it does."""

    low: float
    high: float
    declared: float | None = None


@dataclass(frozen=True)
class PixelScale:
    """Which values become black and white.

    Attributes:
        ranges: kind of values → (black, white); kinds that do not occur are not there.
        reasons: kind of values → why these, as the end of a sentence.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __or__(self, other: "PixelScale") -> "PixelScale":
        """This scale, and the other one's for kinds that this one lacks."""
        return PixelScale({**other.ranges, **self.ranges}, {**other.reasons, **self.reasons})

    def of(self, kinds: Collection[str]) -> "PixelScale":
        """This scale for these kinds alone."""
        return PixelScale({kind: pair for kind, pair in self.ranges.items() if kind in kinds}, self.reasons)

    @property
    def key(self) -> bytes:
        """Differs for scales that differ."""
        return repr(sorted(self.ranges.items())).encode()

    @property
    def option(self) -> dict[str, Any]:
        """The argument of `Encoder.encode`, where there is something to scale."""
        return {"scale": self} if self else {}

    def to_json(self) -> dict[str, list[float]]:
        """As a head's ``info`` holds it."""
        return {kind: list(pair) for kind, pair in self.ranges.items()}

    @classmethod
    def from_json(cls, data: object) -> "PixelScale":
        """The reverse of `to_json`; what is no range is left out."""
        ranges = {}
        for kind, pair in data.items() if isinstance(data, dict) else ():
            if kind in _LABELS and isinstance(pair, list) and [type(v) in (int, float) for v in pair] == [True, True]:
                low, high = pair
                if max(abs(low), abs(high)) < 1e38 and low < high:
                    ranges[kind] = (float(low), float(high))
        return cls(ranges, dict.fromkeys(ranges, "as in those that the head was made from"))

    def notes(self) -> list[str]:
        """A sentence for each kind."""
        return [
            f"Pixels of {_LABELS[kind]} images: {black:,.6g} became black and {white:,.6g} white in all of them, "
            f"{self.reasons[kind]}."
            for kind, (black, white) in self.ranges.items()
        ]

    def to_bytes(self, kind: str, values: np.ndarray) -> np.ndarray:
        """Values of a kind that this scale has → uint8 of the same shape."""
        black, white = self.ranges[kind]
        if kind == UINT16:
            return _bytes(np.arange(2**16, dtype=np.float32), black, white)[values]
        return _bytes(values, black, white)


def _bytes(values: np.ndarray, black: float, white: float) -> np.ndarray:
    scaled = np.subtract(values, black, dtype=np.float64 if values.size <= 2**16 else np.float32)
    scaled *= 255 / (white - black)
    return np.nan_to_num(np.rint(scaled, out=scaled), copy=False, nan=0.0).clip(0, 255).astype(np.uint8)


def scale_of(spans: Mapping[str, Iterable[Span]]) -> PixelScale:
    """The scale of a data set of these images, by kind of values: white is the largest value that the files declare, or
    else the largest value in them; black is 0, or the smallest value if that is less."""
    ranges, reasons = {}, {}
    for kind, found in spans.items():
        if not (those := list(found)):
            continue
        low, high = min(0.0, *(span.low for span in those)), max(span.high for span in those)
        said = max((span.declared or 0.0 for span in those), default=0.0)
        if kind == UINT16 and high >= 2**15:
            said = float(2**16 - 1)  # all the bits that the files have are in use
        reasons[kind] = "as their files declare" if said >= high else "the largest value in the data set"
        white = max(said, high)
        ranges[kind] = (low, white if white > low else low + 1.0)
    return PixelScale(ranges, reasons)


def kind_of(image: ImageFile) -> str | None:
    """The kind of values in an image that was opened and not yet loaded; None for one of 8 bits a channel or less."""
    if image.mode.startswith("I;16"):
        return UINT16
    if image.mode == "I":
        return UINT16 if image.format in ("PNG", "PPM") else INT
    if image.mode == "F":
        return FLOAT
    return UINT16 if image.mode in ("RGB", "RGBA") and ";16" in _raw_mode(image) else None


def values_of(image: ImageFile, kind: str, again: Callable[[], ImageFile]) -> np.ndarray:
    """The values of an image of that kind, which is loaded: (height, width), or (height, width, 3 or 4) where there are
    colours; uint16, or float32 with NaN where there is none.

    Args:
        again: opens the same file once more: of two bytes a channel, Pillow reads one.
    """
    raw = _raw_mode(image)
    if kind == UINT16 and image.mode in ("RGB", "RGBA"):
        if raw == "LA;16B":  # grey and alpha, two bytes each, are read as four channels
            _set_raw_mode(image, "RGBA")
            pairs = np.asarray(image, np.uint16)
            return np.stack([(pairs[..., i] << 8) | pairs[..., i + 1] for i in (0, 0, 0, 2)], -1)
        lower = raw[:-1] + {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[raw[-1]]
        with again() as other:
            _set_raw_mode(other, lower)
            low = np.asarray(other, np.uint16)
        return (np.asarray(image, np.uint16) << 8) | low
    if image.tile and image.tile[0][0] == "libtiff" and sys.byteorder == "little":
        native = {"F;32BF": "F;32F", "I;32BS": "I;32S", "I;16BS": "I;16S"}  # libtiff has swapped the bytes already
        _set_raw_mode(image, native.get(raw, raw))
    values = np.asarray(image)
    if kind == UINT16:
        return values.clip(0, 2**16 - 1).astype(np.uint16)
    values = (values.view(np.uint32) if raw == "I;32N" else values).astype(np.float32)
    if (missing := _missing_value(image)) is not None:
        values[values == missing] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values


def span_of(values: np.ndarray, declared: float | None) -> Span:
    """The span of an image's values, without those of transparency; of none, that of black."""
    values = values[..., :3] if values.ndim == 3 else values
    known = values if values.dtype == np.uint16 else values[~np.isnan(values)]
    return Span(float(known.min()), float(known.max()), declared) if known.size else Span(0.0, 0.0, declared)


def declared_maximum(image: ImageFile, item: Path | bytes) -> float | None:
    """The largest value that a file says it has: by the significant bits of a PNG, the bits or the largest sample of a
    TIFF; None where that is no less than what its format can hold."""
    if image.format == "PPM" and image.mode == "I":
        return float(2**16 - 1)  # Pillow has scaled it
    if image.format == "PNG":
        bits = _significant_bits(item)
        return float(2**bits - 1) if bits else None
    tags = getattr(image, "tag_v2", {})
    for tag in (_SMAX, _MAX):
        if (value := _largest(tags.get(tag))) is not None and value > 0:
            return value
    bits = _largest(tags.get(_BITS))
    return float(2 ** int(bits) - 1) if bits and 8 < bits < 16 else None


def _largest(value: object) -> float | None:
    try:
        found = float(np.max(np.asarray(value, float)))
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def _significant_bits(item: Path | bytes) -> int | None:
    """The number in a PNG's sBIT chunk."""
    with io.BytesIO(item) if isinstance(item, (bytes, bytearray, memoryview)) else Path(item).open("rb") as file:
        file.seek(8)
        for _ in range(_MAX_CHUNKS):
            head = file.read(8)
            size = int.from_bytes(head[:4], "big")
            if len(head) < 8 or head[4:] == b"IDAT":
                return None
            if head[4:] == b"sBIT" and size <= 4:
                return max((bits for bits in file.read(size) if 0 < bits < 16), default=None)
            file.seek(size + 4, io.SEEK_CUR)
    return None


def _missing_value(image: ImageFile) -> float | None:
    """The value that stands for no value in a TIFF of geographic data."""
    try:
        return float(np.float32(str(getattr(image, "tag_v2", {})[_NODATA]).strip("\0 ")))
    except (KeyError, ValueError):
        return None


def _raw_mode(image: ImageFile) -> str:
    """How Pillow is going to read the bytes of an image's pixels."""
    args = image.tile[0][3] if getattr(image, "tile", None) else ""
    return str((args[0] if args else "") if isinstance(args, tuple) else args)


def _set_raw_mode(image: ImageFile, mode: str) -> None:
    image.tile = [
        tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode) for tile in image.tile
    ]
