"""Images of more than 8 bits a channel: scaled alike in a whole data set, and later in what its heads look at."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from d2nwg.data.decode import open_image
from d2nwg.data.deep import PixelScale
from d2nwg.data.images import load_images
from d2nwg.data.pixels import LOOKED_AT, measure
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.images import load_encoder
from d2nwg.encoders.split import read_split
from d2nwg.heads import Head, evaluate_head, predict_images

RAMP = np.linspace(0, 1, 12 * 16).reshape(12, 16)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path_factory.mktemp("cache")))


def png16(values: np.ndarray, bits: int | None = None) -> bytes:
    """A PNG of 16 bits a channel; Pillow writes those with one channel only."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = values.astype(">u2").reshape(height, -1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
        + (chunk(b"sBIT", bytes([bits] * channels)) if bits else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        + chunk(b"IEND", b"")
    )


def tiff(values: np.ndarray, **tags) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", tiffinfo={int(tag[1:]): value for tag, value in tags.items()})
    return buffer.getvalue()


def grey(data: bytes, scale: PixelScale | None = None) -> np.ndarray:
    return np.asarray(open_image(data, scale=scale))[..., 0].astype(int)


KINDS = {
    "12 bits in a PNG": lambda share: png16(np.rint(RAMP * share * 4095)),
    "16 bits in a PNG": lambda share: png16(np.rint(RAMP * share * 65535)),
    "12 bits in three channels": lambda share: png16(np.rint(RAMP * share * 4095)[..., None].repeat(3, 2)),
    "12 bits and alpha": lambda share: png16(
        np.stack([np.rint(RAMP * share * 4095)] * 3 + [np.full(RAMP.shape, 65535)], -1)
    ),
    "grey and alpha": lambda share: png16(np.stack([np.rint(RAMP * share * 4095), np.full(RAMP.shape, 65535)], -1)),
    "float from 0 to 1": lambda share: tiff((RAMP * share).astype(np.float32)),
    "float from 0 to 65535": lambda share: tiff((RAMP * share * 65535).astype(np.float32)),
    "int32": lambda share: tiff((RAMP * share * 1e6).astype(np.int32)),
    "uint16 TIFF": lambda share: tiff((RAMP * share * 4095).astype(np.uint16)),
    "PGM": lambda share: b"P5 16 12 4095\n" + np.rint(RAMP * share * 4095).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_data_set_has_one_scale(make):
    dark, light = make(0.25), make(1.0)
    scale = measure([dark, light])
    assert len(scale.ranges) == 1 and len(scale.notes()) == 1
    for data, share in ((light, 1.0), (dark, 0.25)):
        shown = grey(data, scale)
        assert np.abs(shown - RAMP * share * 255).max() <= 1, "the dark one stays dark"
        assert len(np.unique(shown)) > 45
    assert abs(int(grey(light).max()) - 255) <= 1, "alone it is a data set of its own"
    assert measure([plain_png(), plain_png()]) == PixelScale()


def plain_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_the_files_declare_comes_first():
    dim = np.rint(RAMP * 2000)
    assert grey(png16(dim, bits=12)).max() == round(2000 * 255 / 4095)
    assert "as their files declare" in measure([png16(dim, bits=12)]).notes()[0]
    assert grey(png16(RAMP * 60000, bits=12)).max() == round(60000 / 257), "they were scaled to 16 bits already"
    assert grey(tiff(dim.astype(np.int32), t341=4000)).max() == round(2000 * 255 / 4000)
    assert grey(png16(dim)).max() == 255 and "the largest value" in measure([png16(dim)]).notes()[0]
    assert grey(png16(np.full((4, 4), 40000))).max() == 156, "of 16 bits that are all used"


def test_values_that_are_none():
    values = (RAMP * 2 - 1).astype(np.float32)
    shown = grey(tiff(values))
    assert shown.min() == 0 and shown.max() == 255 and len(np.unique(shown)) > 150, "from the smallest to the largest"
    values = RAMP.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    shown = grey(tiff(values))
    assert np.abs(shown - RAMP * 255)[1:].max() <= 1 and not shown[0, :3].any()
    values[0, :3] = -9999
    assert np.abs(grey(tiff(values, t42113="-9999")) - RAMP * 255)[1:].max() <= 1
    for constant in (0, np.nan):
        assert not grey(tiff(np.full((4, 4), constant, np.float32))).any()


@pytest.mark.parametrize("type", ["f4", "i4", "i2"])
def test_big_endian_compressed(type):
    """libtiff has swapped the bytes; Pillow swaps them again."""
    data = zlib.compress((RAMP * 4095).astype(f">{type}").tobytes())
    height, width = RAMP.shape
    tags = {256: width, 257: height, 258: 8 * int(type[1]), 259: 8, 262: 1, 273: 8 + 2 + 12 * 10 + 4, 277: 1}
    tags |= {278: height, 279: len(data), 339: 3 if type == "f4" else 2}
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items())
    shown = grey(b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4) + data)
    assert np.abs(shown - RAMP * 255).max() <= 1


@pytest.mark.parametrize("kind", ["12 bits in a PNG", "uint16 TIFF", "float from 0 to 1"])
def test_orientation(kind):
    data = io.BytesIO()
    with Image.open(io.BytesIO(KINDS[kind](1.0))) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.load()
        image.save(data, image.format, exif=exif)
    assert np.abs(grey(data.getvalue()) - np.rot90(RAMP * 255, -1)).max() <= 1


def make_folder(root, classes=("low", "high"), count: int = 6):
    """Classes of 12-bit images that differ by their brightness alone."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            level = 500 + 3000 * number + i
            values = np.full((8, 8), level)
            values[0, 0] = 4095 if (number, i) == (1, count - 1) else level
            (root / name / f"{i}.png").write_bytes(png16(values))
    return root


def test_every_part_of_a_set_has_its_scale(tmp_path):
    images = load_images(make_folder(tmp_path / "data"))
    encoder = load_encoder("pixels/4", "cpu")
    split = read_split(images, encoder, 2, 0, None)
    for features, labels in ((split.support, split.labels), (split.query, split.query_labels)):
        low = features[labels == images.classes.index("low")].mean()
        high = features[labels == images.classes.index("high")].mean()
        assert abs(float(low) - 503 / 4095) < 0.02 and abs(float(high) - 3503 / 4095) < 0.02
    assert split.notes == tuple(images.pixels.scale().notes()) and "4,095 white" in split.notes[0]
    from dataclasses import replace

    part = replace(images, items=images.items[:2], labels=images.labels[:2], is_test=images.is_test[:2])
    assert part.pixels.scale() == images.pixels.scale()


def test_a_head_looks_with_the_scale_of_its_data_set(tmp_path, monkeypatch):
    images = load_images(make_folder(tmp_path / "data"))
    encoder = load_encoder("pixels/4", "cpu")
    weight = np.stack([np.ones(16), -np.ones(16)])  # high, low
    import torch

    state = {"weight": torch.tensor(weight * 100, dtype=torch.float32), "bias": torch.tensor([-800.0, 800.0])}
    head = Head(state, encoder.name, ("high", "low"), encoder.preprocessing)
    head.keep_scale(images.pixels.scale())
    head = Head.load(head.save(tmp_path / "head.safetensors"))
    alone = tmp_path / "data" / "low" / "0.png"
    assert [row["label"] for row in predict_images(head, [alone])] == ["low"], "alone it would be white"
    scores = evaluate_head(head, images)
    assert scores["accuracy"] == 1 and any("12" in note or "4,095" in note for note in scores["notes"])

    head.info.pop("pixel_scale")
    assert [row["label"] for row in predict_images(head, [alone])] == ["high"], "it is the whole data set"
    both = predict_images(head, [alone, tmp_path / "data" / "high" / "5.png"])
    assert [row["label"] for row in both] == ["low", "high"]


def test_features_of_another_scale_are_not_reused(monkeypatch):
    encoder, data = load_encoder("pixels/4", "cpu"), png16(np.full((8, 8), 1000))
    for white in (1000.0, 4000.0, 1000.0):
        features = encoder.encode([data], scale=PixelScale({"uint16": (0.0, white)}))[0]
        assert abs(float(features.mean()) - 1000 / white) < 0.01
    monkeypatch.setattr(Encoder, "forward", lambda *args: pytest.fail("known"))
    encoder.encode([data], scale=PixelScale({"uint16": (0.0, 4000.0)}))


@pytest.mark.parametrize(
    "data", [None, [], {"uint16": 3}, {"other": [0, 1]}, {"float": [1, 0]}, {"float": [0, float("nan")]},
             {"int": [0, 10**400]}, {"float": [True, 2]}]
)  # fmt: skip
def test_a_strange_head_has_no_scale(data):
    assert PixelScale.from_json(data) == PixelScale()


def test_what_is_looked_at(tmp_path, monkeypatch):
    """Photographs are not opened one by one to find out that they have 8 bits; files of other names, and misnamed ones
    where there are many, are found."""
    files = [tmp_path / f"{i:04}.jpg" for i in range(2 * LOOKED_AT)]
    for file in files:
        file.write_bytes(b"\xff\xd8\xff")
    opened = []
    monkeypatch.setattr("d2nwg.data.pixels.Path.is_file", lambda path: opened.append(path) or True)
    assert not measure(files) and len(opened) == LOOKED_AT
    (tmp_path / "one.png").write_bytes(png16(RAMP * 4095))
    assert measure([*files, tmp_path / "one.png"]).ranges["uint16"][1] == 4095
    for file in files[::2]:
        file.write_bytes(png16(RAMP * 2000))
    assert measure(files).ranges["uint16"][1] == 2000
