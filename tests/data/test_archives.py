import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from d2nwg.data import archives
from d2nwg.data.archives import extract_images
from d2nwg.data.decode import open_image
from d2nwg.data.images import load_files, load_images
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.images import make_image_folder

PIXEL = b"\x89PNG"  # nothing is decoded while unpacking


def make_zip(path: Path, members: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]], **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return path


def make_tar(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w", **options) -> Path:
    with tarfile.open(path, mode, **options) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def refused(path: Path, tmp_path: Path) -> str:
    """The sentence of the refusal; nothing may have been written."""
    into = tmp_path / "into"
    with pytest.raises(UserError) as caught:
        extract_images(path, into=into)
    text = str(caught.value)
    assert path.name in text and text.endswith(".") and "\n" not in text and "Error" not in text
    text.encode()
    assert not into.exists() or not any(into.iterdir())
    assert not (tmp_path / "evil.png").exists() and not (tmp_path.parent / "evil.png").exists()
    return text


GOOD = {"a/1.png": PIXEL, "b/1.png": PIXEL}


# ---------------------------------------- what works


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("top", ["", "photos"])
def test_an_archive_is_the_folder_it_was_made_of(tmp_path, suffix, top):
    make_image_folder(tmp_path / "made" / top, per_class=3)
    path = tmp_path / f"colours.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted((tmp_path / "made").rglob("*")):
                archive.write(file, file.relative_to(tmp_path / "made"))
    else:
        with tarfile.open(path, {"tar": "w", "tgz": "w:gz"}.get(suffix, f"w:{suffix[4:]}")) as archive:
            archive.add(tmp_path / "made", ".")
    images = load_images(path, into=tmp_path / "into")
    assert images.name == "colours" and images.classes == ("blue", "green", "red") and len(images) == 9
    assert all((tmp_path / "into") in item.parents for item in images.items)
    assert open_image(images.items[0]).size == (32, 32)
    assert load_files([path], name="dropped", into=tmp_path / "into").classes == images.classes


def test_train_and_test_inside_a_top_folder(tmp_path):
    names = ["top/train/a/1.png", "top/train/b/1.png", "top/test/a/1.png"]
    path = make_zip(tmp_path / "x.zip", dict.fromkeys(names, PIXEL))
    assert load_images(path).is_test.sum() == 1


def test_the_cache_is_named_by_content_and_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    one, two = make_zip(tmp_path / "one.zip", GOOD), tmp_path / "two.zip"
    two.write_bytes(one.read_bytes())
    folder = extract_images(one)
    assert folder.parent == tmp_path / "cache" / "archives"
    monkeypatch.setattr(archives, "_write", lambda *_: pytest.fail("unpacked again"))
    assert extract_images(two) == folder


def test_what_is_not_an_image_or_hidden_is_not_written(tmp_path):
    path = make_zip(
        tmp_path / "x.zip",
        {
            **GOOD,
            "__MACOSX/a/._1.png": b"x",
            "a/.2.png": b"x",
            ".git/config": b"x",
            "a/run.sh": b"x",
            "Thumbs.db": b"x",
            "a/": b"",
        },
    )
    folder = extract_images(path, into=tmp_path / "into")
    assert sorted(str(f.relative_to(folder)) for f in folder.rglob("[!.]*.*")) == ["a/1.png", "b/1.png"]
    assert archives.left_out(folder) == ["a/run.sh"]
    assert load_images(path, into=tmp_path / "into").notes[-1].startswith("Left out, because they are no images")


def test_windows_separators_and_utf8_without_the_flag(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a\\1.png": PIXEL, "b\\1.png": PIXEL})
    assert load_images(path, into=tmp_path / "w").classes == ("a", "b")
    path = make_zip(tmp_path / "y.zip", {"caf??/1.png": PIXEL, "b/1.png": PIXEL})
    path.write_bytes(path.read_bytes().replace(b"caf??", "café".encode()))
    assert load_images(path, into=tmp_path / "w").classes == ("b", "café")


# ---------------------------------------- unsafe names


@pytest.mark.parametrize(
    "name",
    [
        "/evil.png",
        "../evil.png",
        "a/../../evil.png",
        "..\\evil.png",
        "C:\\evil.png",
        "c:evil.png",
        "\\\\host\\share\\evil.png",
        "a/../b/evil.png",
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_lead_outside(tmp_path, name, kind):
    if kind == "zip":
        path = make_zip(tmp_path / "x.zip", {**GOOD, name: PIXEL})
    else:
        path = make_tar(tmp_path / "x.tar", [*GOOD.items(), (name, PIXEL)])
    text = refused(path, tmp_path)
    assert "evil.png" in text and ("absolute" in text or "leads out" in text)


@pytest.mark.parametrize(
    "kind, word",
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_special_members_of_a_tar(tmp_path, kind, word):
    info = tarfile.TarInfo("a/evil.png")
    info.type, info.linkname = kind, "/etc/passwd"
    text = refused(make_tar(tmp_path / "x.tar", [*GOOD.items(), (info, b"")]), tmp_path)
    assert word in text and "a/evil.png" in text


@pytest.mark.parametrize("mode, word", [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "device"), (stat.S_IFCHR, "device")])
def test_special_members_of_a_zip(tmp_path, mode, word):
    info = zipfile.ZipInfo("a/evil.png")
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    assert word in refused(make_zip(tmp_path / "x.zip", [*GOOD.items(), (info, b"/etc/passwd")]), tmp_path)


@pytest.mark.parametrize(
    "pair",
    [
        ("a/1.png", "A/2.png"),
        ("a/1.png", "a/1.PNG"),
        ("café/1.png", "cafe\u0301/1.PNG"),
        ("STRASSE/1.png", "straße/1.png"),
    ],
)
def test_names_that_collide(tmp_path, pair):
    for path in (
        make_zip(tmp_path / "x.zip", dict.fromkeys(pair, PIXEL)),
        make_tar(tmp_path / "x.tar", [(name, PIXEL) for name in pair]),
    ):
        assert "capitals" in refused(path, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "pair",
    [
        ("a/1.png", "a/1.png"),
        ("a/1.png", "a/1.png/2.png"),
        ("a/1.png/2.png", "a/1.png"),
        ("a/1.png", "./a//1.png"),
        ("café.png", "cafe\u0301.png"),
    ],
)
def test_names_given_twice(tmp_path, pair):
    for path in (
        make_zip(tmp_path / "x.zip", [(name, PIXEL) for name in pair]),
        make_tar(tmp_path / "x.tar", [(name, PIXEL) for name in pair]),
    ):
        assert "twice" in refused(path, tmp_path)


def test_names_that_are_not_utf8(tmp_path):
    path = make_tar(
        tmp_path / "x.tar", [(os.fsdecode(b"caf\xe9/1.png"), PIXEL)], encoding="utf-8", errors="surrogateescape"
    )
    assert "not UTF-8" in refused(path, tmp_path)
    for name in ("caf?/1.png", "caf\u00fc/1.png"):  # without and with the flag that says "this is UTF-8"
        path = make_zip(tmp_path / "x.zip", {name: PIXEL, "b/1.png": PIXEL})
        path.write_bytes(path.read_bytes().replace(b"caf?", b"caf\xe9").replace(b"caf\xc3\xbc", b"caf\xe9\xe9"))
        text = refused(path, tmp_path)
        assert "not UTF-8" in text and "caf" in text


@pytest.mark.parametrize("name", ["a/x\ny.png", "a/" + "x" * 300 + ".png", "a/" * 40 + "x.png"])
def test_names_that_no_file_can_have(tmp_path, name):
    assert "cannot be a file name" in refused(make_zip(tmp_path / "x.zip", {**GOOD, name: PIXEL}), tmp_path)


# ---------------------------------------- limits


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members(tmp_path, monkeypatch, kind):
    members = {f"a/{i}.png": PIXEL for i in range(20)}
    path = tmp_path / f"x.{kind}"
    make_zip(path, members) if kind == "zip" else make_tar(path, list(members.items()))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    extract_images(path, into=tmp_path / "fits")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 19)
    assert "more than 19 members" in refused(path, tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_too_many_bytes(tmp_path, monkeypatch, kind):
    members = [(f"a/{i}.png", b"\0" * 50_000) for i in range(4)]
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        make_zip(path, members, compression=zipfile.ZIP_DEFLATED)
    else:
        make_tar(path, members, "w:gz")
    monkeypatch.setattr(archives, "MAX_BYTES", 200_000)
    extract_images(path, into=tmp_path / "fits")
    monkeypatch.setattr(archives, "MAX_BYTES", 199_999)
    assert "GiB, which is the limit" in refused(path, tmp_path)
    monkeypatch.setattr(archives, "MAX_BYTES", 2**40)
    monkeypatch.setattr(archives, "RATIO_FLOOR", 100_000)
    assert "100 times its size" in refused(path, tmp_path)
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    assert "larger than" in refused(path, tmp_path)


def test_a_tar_bomb_is_refused_by_its_header_before_it_is_decompressed(tmp_path, monkeypatch):
    info = tarfile.TarInfo("a/1.png")
    info.size = 2**40
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + b"\0" * 2**20))
    assert "GiB, which is the limit" in refused(path, tmp_path)


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [2**33, -512])
def test_headers_made_to_fill_memory(tmp_path, type, size):
    info = tarfile.TarInfo("x")
    info.type, info.size = type, size
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2**20))
    text = refused(path, tmp_path)
    assert "oversized headers" in text or "damaged" in text or "not a zip or tar" in text


def test_many_long_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    members = []
    for i in range(50):
        info = tarfile.TarInfo(f"a/{i}.png")
        info.pax_headers = {"comment": "x" * 100_000}
        members.append((info, PIXEL))
    path = make_tar(tmp_path / "x.tar", members, format=tarfile.PAX_FORMAT)
    assert "oversized headers" in refused(path, tmp_path)


def _lying_zip(path: Path, data: bytes, declared: int) -> Path:
    """A zip whose headers declare another size than its (deflated) data has."""
    make_zip(path, {"a/1.png": data, "b/1.png": PIXEL}, compression=zipfile.ZIP_DEFLATED)
    true, said = struct.pack("<I", len(data)), struct.pack("<I", declared)
    assert path.read_bytes().count(true) == 2
    path.write_bytes(path.read_bytes().replace(true, said))
    return path


@pytest.mark.parametrize("declared", [5_000, 500_000])
def test_a_zip_that_lies_about_a_size(tmp_path, declared):
    text = refused(_lying_zip(tmp_path / "x.zip", b"\0" * 70_001, declared), tmp_path)
    assert "damaged" in text


def test_bytes_are_counted_while_unpacking(tmp_path, monkeypatch):
    """Whatever a reader gives, no more than was declared reaches the disk."""
    path = make_zip(tmp_path / "x.zip", GOOD)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: io.BytesIO(b"\0" * 10_000))
    assert "more than it declares" in refused(path, tmp_path)


def test_a_sparse_tar(tmp_path):
    info = tarfile.TarInfo("a/1.png")
    info.type = tarfile.GNUTYPE_SPARSE
    path = tmp_path / "x.tar"
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\000000000000\0"
    header[483:495] = b"77777777777\0"  # the size it would unfold to
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + b"\0" * 10240)
    assert "sparse" in refused(path, tmp_path)


# ---------------------------------------- damage


def test_what_is_no_archive(tmp_path):
    for name, data in {
        "x.zip": b"hello",
        "x.tar": b"",
        "x.rar": b"Rar!\x1a\x07\x01\0" + b"x" * 1000,
        "x.gz": gzip.compress(b"plain text" * 200),
        "x.bin": b"\xee" * 2000,
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "not a zip or tar" in refused(tmp_path / name, tmp_path)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives_that_are_cut_short(tmp_path, suffix):
    members = [(f"{c}/{i}.png", np.random.bytes(3000)) for c in "ab" for i in range(4)]
    path = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        make_zip(path, members)
    else:
        make_tar(path, members, f"w:{suffix[4:]}")
    whole = path.read_bytes()
    for part in (0.3, 0.5, 0.7):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert "damaged" in refused(path, tmp_path)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives_with_damaged_bytes(tmp_path, suffix):
    """Noise anywhere is a sentence or, where it only hits pixels of a tar, goes unnoticed; it never escapes."""
    members = [(f"{c}/{i}.png", np.random.bytes(600)) for c in "ab" for i in range(4)]
    path = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        make_zip(path, members, compression=zipfile.ZIP_DEFLATED)
    else:
        make_tar(path, members, f"w:{suffix[4:]}")
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF, 0x7F]) + whole[at + 2 :])
        try:
            extract_images(path, into=tmp_path / "noise")
        except UserError as error:
            assert str(error).endswith(".")
    assert not list((tmp_path / "noise").glob(".*"))


def test_a_damaged_tar_header_is_not_taken_for_the_end(tmp_path):
    path = make_tar(tmp_path / "x.tar", [(f"a/{i}.png", b"x" * 512) for i in range(4)])
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 20] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refused(path, tmp_path)


def test_damaged_data_of_a_zip_leaves_nothing_behind(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a/1.png": b"y" * 1000, "b/1.png": b"z" * 1000})
    path.write_bytes(path.read_bytes().replace(b"z" * 1000, b"z" * 999 + b"!"))
    assert "damaged" in refused(path, tmp_path)


def test_an_encrypted_zip(tmp_path):
    path = make_zip(tmp_path / "x.zip", GOOD)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        data[at + offset] |= 1
    path.write_bytes(data)
    assert "encrypted" in refused(path, tmp_path)


def test_a_compression_that_is_not_supported(tmp_path):
    path = make_zip(tmp_path / "x.zip", GOOD)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.find(mark) + offset] = 97
    path.write_bytes(data)
    assert "compression" in refused(path, tmp_path)


def test_archives_without_images(tmp_path):
    for members in ({}, {"a/readme.txt": b"x"}, {"__MACOSX/a/1.png": b"x"}):
        path = make_zip(tmp_path / "x.zip", members)
        assert "no images" in refused(path, tmp_path)


def test_a_full_disk(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "x.zip", GOOD)
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=1))
    assert "does not fit" in refused(path, tmp_path)


# ---------------------------------------- wholeness


def test_cancelling_leaves_nothing(tmp_path):
    path = make_zip(tmp_path / "x.zip", {f"a/{i}.png": PIXEL for i in range(100)})

    def stop(stage, done, total):
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        extract_images(path, into=tmp_path / "into", progress=stop)
    assert not any((tmp_path / "into").iterdir())


def test_two_at_once_share_one_folder(tmp_path):
    """The slower of two finds the folder made and uses it."""
    path, into = make_zip(tmp_path / "x.zip", GOOD), tmp_path / "into"

    def other_one_is_quicker(stage, done, total):
        if done == 0:
            extract_images(path, into=into)

    folder = extract_images(path, into=into, progress=other_one_is_quicker)
    assert [f.name for f in into.iterdir()] == [folder.name] and len(load_images(path, into=into)) == 2


def test_unpacked_files_are_plain(tmp_path):
    info = zipfile.ZipInfo("a/1.png")
    info.external_attr = (stat.S_IFREG | 0o4777) << 16
    folder = extract_images(make_zip(tmp_path / "x.zip", [(info, PIXEL)]), into=tmp_path / "into")
    assert not (folder / "a" / "1.png").stat().st_mode & 0o6111
