"""Folders of images, and single ones: damaged, huge, of unusual formats, special files, names of all sorts."""

import io
import os
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from tests.fuzz.case import Case
from tests.fuzz.hostile import damaged_bytes, special
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16", "LAB", "PA"]
FORMATS = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
    "PPM": ".ppm",
    "AVIF": ".avif",
    "ICO": ".png",
    "EPS": ".png",
    "PDF": ".jpg",
    "TGA": ".bmp",
}
FOLDERS = [
    "x" * 200,
    "é",
    "e\u0301",
    "A",
    " a",
    "a ",
    ".hidden",
    "train",
    "test",
    "valid",
    "\x1b[31m",
    "=1+1",
    "a\nb",
    "-rf",
    "👾",
    "con",
    "..x",
    "a,b",
    "'\"<b>",
    os.fsdecode(b"\xff"),
]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """A folder in which some images are hostile, and a verb that reads it."""
    data = stock.copy(stock.images, room.given)
    for _ in range(rng.choice((1, 2, 5))):
        _hostile(data, rng)
    pictures = [path for path in sorted(data.rglob("*")) if not path.is_dir() and not path.is_symlink()]
    head = stock.generated / "head.safetensors"
    line = rng.choice(
        [
            ["generate", data, "--bundle", stock.unet, "--shots", 2, "--num-samples", 2, "--out", room.out / "x"],
            ["generate", data, "--bundle", stock.dual, "--shots", 1, "--num-samples", 2, "--out", room.out / "x"],
            [
                "generate",
                stock.images,
                "--bundle",
                stock.dual,
                "--shots",
                1,
                "--unlabelled",
                data,
                "--out",
                room.out / "x",
            ],
            ["evaluate", head, data],
            ["predict", head, *rng.sample(pictures, min(4, len(pictures)))],
            [
                "zoo",
                "build",
                data,
                stock.patterns,
                "--encoder",
                "pixels/4",
                "--subsets",
                4,
                "--classes",
                "2-3",
                "--out",
                room.out / "x",
            ],
            [
                "interpolate",
                data,
                stock.images,
                "--bundle",
                stock.unet,
                "--points",
                2,
                "--seeds",
                1,
                "--shots",
                1,
                "--out",
                room.out / "x",
            ],
        ]
    )
    return Case([*map(os.fspath, map(str, line)), "--device", "cpu"])


def _hostile(data: Path, rng: Random) -> None:
    """Do one thing to a folder of class folders."""
    folders = sorted(path for path in data.iterdir() if path.is_dir() and not path.is_symlink())
    folder = rng.choice(folders) if folders else data
    name = rng.choice(["00", "99", "x" * 240, "é", "\x1b[31m", "a\nb", os.fsdecode(b"\xff"), "-n"])
    what = rng.randrange(10)
    if what == 0:
        special(folder / f"{name}{rng.choice(['.png', '.jpg', '.tif'])}", rng)
    elif what == 1 and folders:
        target = data / rng.choice(FOLDERS)
        if not target.exists():
            folder.rename(target)
    elif what == 2:
        special(data / rng.choice(["e", "state.json", "dataset_dict.json", "x.parquet", ".left-out.json"]), rng)
    elif what == 3 and folders:
        (data / rng.choice(["train", "test"])).mkdir(exist_ok=True)
        for one in folders[: rng.randrange(len(folders) + 1)]:
            if one.name not in ("train", "test"):
                one.rename(data / rng.choice(["train", "test"]) / one.name) if (data / "test").is_dir() and (
                    data / "train"
                ).is_dir() else None
    elif what == 4:
        for file in list(folder.glob("*.png"))[: rng.randrange(7)]:
            file.unlink()
    elif what == 5:
        (folder / f"{name}.png").write_bytes(_lying_png(rng))
    else:
        target = folder / f"{name}{rng.choice(list(FORMATS.values()))}"
        if not target.exists() or target.is_file():
            content, suffix = _picture(rng)
            target = target.with_suffix(suffix) if rng.random() < 0.8 else target
            if not target.is_symlink() and (not target.exists() or target.is_file()):
                target.write_bytes(damaged_bytes(content, rng) if rng.random() < 0.6 else content)


def _picture(rng: Random) -> tuple[bytes, str]:
    """A small picture in some mode and format, with its suffix."""
    for _ in range(20):
        mode, kind = rng.choice(MODES), rng.choice(list(FORMATS))
        size = rng.choice([(1, 1), (1, 40), (40, 1), (9, 7), (64, 64), (3000, 1)])
        try:
            if mode in ("I", "F", "I;16"):
                depth = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
                values = np.array([[rng.choice([0, 1, 255, 4095, 65535, -1, 1e9]) for _ in range(size[0])]] * size[1])
                if mode == "F" and rng.random() < 0.5:
                    values[0, 0] = rng.choice([np.nan, np.inf, 1e30, -1e30])
                with np.errstate(all="ignore"):
                    image = Image.fromarray(values.astype(depth))
            else:
                image = Image.new(mode, size)
                image.putdata(
                    [rng.randrange(256) for _ in range(size[0] * size[1])] if len(mode) == 1 else list(image.getdata())
                )
            made = io.BytesIO()
            options: dict = {}
            if rng.random() < 0.3:
                exif = Image.Exif()
                exif[0x0112] = rng.choice([1, 3, 6, 8, 0, 99])
                options["exif"] = exif.tobytes() if rng.random() < 0.7 else rng.randbytes(40)
            if kind in ("GIF", "WEBP", "TIFF", "PNG") and rng.random() < 0.3:
                options |= {"save_all": True, "append_images": [image] * rng.choice([1, 5])}
            image.save(made, kind, **options)
            return made.getvalue(), FORMATS[kind]
        except Exception:  # this mode in this format
            continue
    return b"", ".png"


def _lying_png(rng: Random) -> bytes:
    """A PNG whose header declares another size than its data has."""
    width, height = rng.choice([(100_000, 100_000), (2**31 - 1, 1), (0, 0), (8000, 8000), (60_000, 1000)])
    depth, colour = rng.choice([(8, 2), (16, 0), (16, 6), (1, 0), (8, 3)])

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packed = zlib.compress(bytes(rng.choice([10, 10**6, 5 * 10**7])))
    text = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**7))) if rng.random() < 0.3 else b""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
