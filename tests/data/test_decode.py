import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from d2nwg.data import decode
from d2nwg.data.decode import open_image
from tests.helpers.refusals import refusal


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_formats(tmp_path, format):
    image = Image.new("RGB", (20, 10), (200, 30, 30))
    opened = open_image(encoded(image, format))
    assert opened.mode == "RGB" and opened.size == (20, 10)
    path = tmp_path / "x.img"
    path.write_bytes(encoded(image, format))
    assert np.abs(np.asarray(open_image(path), int) - [200, 30, 30]).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_modes_become_rgb(mode):
    image = Image.new(mode, (8, 8), 40_000 if mode == "I;16" else 0)
    opened = open_image(encoded(image, "TIFF" if mode in ("CMYK", "I;16") else "PNG"))
    assert opened.mode == "RGB" and opened.size == (8, 8)
    if mode == "I;16":
        assert opened.getpixel((0, 0)) == (156, 156, 156)


def test_transparency_shows_white():
    assert open_image(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    assert open_image(encoded(palette, "GIF", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif)).size == (10, 20)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_images_give_their_first_frame(format):
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "blue", "lime")]
    data = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], **({"lossless": True} if format == "WEBP" else {})
    )
    assert open_image(data).getpixel((6, 6)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(9_000, 9_000), (12_000, 12_000), (30_000, 30_000)])
def test_huge_images_are_refused_on_their_header(tmp_path, monkeypatch, size):
    """Below, at and above the sizes where Pillow warns and refuses by itself."""
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(*size))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    with warnings.catch_warnings(record=True) as leaked:
        text = refusal(open_image, path)
    assert "huge.png" in text and "too large" in text and not leaked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "too large" in refusal(open_image, path)


def test_an_image_of_the_largest_size_is_decoded(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    assert open_image(encoded(Image.new("RGB", (10, 10)))).size == (10, 10)
    assert "too large" in refusal(open_image, encoded(Image.new("RGB", (10, 11))))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_images(tmp_path, format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = encoded(noise, format)
    for part in (len(data) // 2, 30, 3):
        path = tmp_path / "broken.img"
        path.write_bytes(data[:part])
        assert "broken.img" in refusal(open_image, path)


def test_what_is_no_image(tmp_path):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    for data in (b"", b"hello", eps, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 5000):
        assert "cannot be read" in refusal(open_image, data)
    assert "gone.png does not exist" in refusal(open_image, tmp_path / "gone.png")
    assert "cannot be read" in refusal(open_image, tmp_path)
    assert "no image data" in refusal(open_image, None)


def test_min_side_decodes_a_jpeg_smaller_but_not_too_small():
    data = encoded(Image.new("RGB", (800, 600), "teal"), "JPEG")
    assert open_image(data).size == (800, 600)
    assert open_image(data, min_side=100).size == (200, 150)
    assert open_image(data, min_side=599).size == (800, 600)
    assert open_image(data, min_side=5000).size == (800, 600)
    assert open_image(encoded(Image.new("RGB", (800, 600))), min_side=100).size == (800, 600)
