"""Archives of images or checkpoints: hostile members, lies about sizes, damage."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.hostile import damaged_bytes
from tests.fuzz.room import Room
from tests.fuzz.stock import Stock

NAMES = [
    "../out.png",
    "../../canary/secret.txt",
    "/etc/passwd",
    "/tmp/x.png",
    "C:/x.png",
    "a\\..\\..\\x.png",
    "a/../b.png",
    "a/\0.png",
    "a/" + "x" * 300 + ".png",
    "/".join("d" * 40) + "/x.png",
    "a/\udcff.png",
    "A/0.png",
    "a/0.PNG",
    "a/e\u0301.png",
    "a/é.png",
    "a",
    "a/",
    "",
    ".",
    "..",
    "a/.hidden.png",
    "__MACOSX/a.png",
    "a/con.png",
    "a/x.png/y.png",
    "a/\x1b[31m.png",
    "a/\u202egnp.x",
    "~/x.png",
    "a/=cmd.png",
    "train/a/1.png",
    "test/a/1.png",
    "test/z/1.png",
    "a/zoo.json",
    "a/.left-out.json",
]


def make(rng: Random, room: Room, stock: Stock) -> Case:
    """An archive, and a verb that unpacks it."""
    images = rng.random() < 0.7
    source = stock.images if images else stock.checkpoints
    members = [(str(f.relative_to(source)), f.read_bytes()) for f in sorted(source.rglob("*")) if f.is_file()]
    rng.shuffle(members)
    members = members[: rng.choice((2, 6, 24))]
    for _ in range(rng.choice((0, 0, 1, 3))):
        members.insert(rng.randrange(len(members) + 1), (rng.choice(NAMES), rng.choice(members)[1] if members else b""))
    suffix = rng.choice([".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".npz", ".bin", ""])
    path = room.given / f"data{suffix}"
    data = (
        _zip(members, rng, room)
        if suffix in (".zip", ".npz") or rng.random() < 0.3
        else _tar(members, rng, room, suffix)
    )
    if rng.random() < 0.25:
        data = damaged_bytes(data, rng)
    path.write_bytes(data)
    if not images:
        line = ["zoo", "import", path, *rng.choice([["--preview"], ["--out", room.out / "x"]])]
    else:
        line = rng.choice(
            [
                ["generate", path, "--bundle", stock.unet, "--shots", 1, "--num-samples", 2, "--out", room.out / "x"],
                [
                    "generate",
                    stock.images,
                    "--bundle",
                    stock.dual,
                    "--shots",
                    1,
                    "--unlabelled",
                    path,
                    "--out",
                    room.out / "x",
                ],
                ["evaluate", stock.generated / "head.safetensors", path],
                [
                    "zoo",
                    "build",
                    path,
                    "--encoder",
                    "pixels/4",
                    "--subsets",
                    4,
                    "--classes",
                    "2-3",
                    "--out",
                    room.out / "x",
                ],
                ["predict", stock.generated / "head.safetensors", path],
            ]
        )
    return Case([*map(str, line), "--device", "cpu"])


def _zip(members, rng: Random, room: Room) -> bytes:
    data = io.BytesIO()
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(data, "w", rng.choice(methods)) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
            if rng.random() < 0.1:
                info.external_attr = rng.choice([stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR]) << 16
                content = str(room.canary / "secret.txt").encode()
            if rng.random() < 0.05:
                content = bytes(rng.choice([10**6, 3 * 10**7]))  # packed to little
            archive.writestr(info, content)
            if rng.random() < 0.05:
                info.file_size = rng.choice([0, 1, 2**31, 2**40])
            if rng.random() < 0.03:
                info.flag_bits |= 1
    return data.getvalue()


def _tar(members, rng: Random, room: Room, suffix: str) -> bytes:
    data = io.BytesIO()
    form = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
    with tarfile.open(fileobj=data, mode="w", format=form, encoding="utf-8", errors="surrogatepass") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if rng.random() < 0.12:
                kinds = [
                    tarfile.SYMTYPE,
                    tarfile.LNKTYPE,
                    tarfile.FIFOTYPE,
                    tarfile.CHRTYPE,
                    tarfile.GNUTYPE_SPARSE,
                    tarfile.DIRTYPE,
                ]
                info.type, info.size = rng.choice(kinds), 0
                info.linkname = rng.choice(
                    [str(room.canary / "secret.png"), "../../canary/secret.png", "/dev/zero", name]
                )
                content = b""
            if form == tarfile.PAX_FORMAT and rng.random() < 0.1:
                info.pax_headers = {
                    rng.choice(["path", "size", "GNU.sparse.size", "mtime"]): rng.choice(["-1", "9" * 30, "../x", "x"])
                }
            try:
                archive.addfile(info, io.BytesIO(content))
            except (ValueError, UnicodeError):  # a name that the format cannot hold
                continue
    packed = data.getvalue()
    if rng.random() < 0.1:
        packed += bytes(10**7)
    pack = {".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}
    return pack.get(suffix, bytes)(packed)
