"""Archives with any member names: what is unpacked is what was packed, in its place, and nothing lies elsewhere."""

import io
import os
import tarfile
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2nwg.data.archives import LEFT_OUT, extract_images
from d2nwg.utils.errors import UserError

ROOT = "ROOT"  # stands for the folder of the test, which absolute names lead into
TAME = st.sampled_from(["a", "b", "ﬁ", "straße", "e\u0301", ".", "1", "2", "n.txt", ".hidden", " ", "x" * 250])
WILD = st.sampled_from(
    [
        "..", "", "A", "é", "1.png/3", "C:", "c:x", "__MACOSX", "nul",
        "con.png", "y" * 256, "tab\there", "new\nline", "rtl\u202e", "bytes\udcff", "NUL\0.png", "1.png",
        "1.PNG",
        "2.jpg", "~", "$HOME", "-rf", f"/{ROOT}/out", "\\\\server\\share",
    ]
)  # fmt: skip
ENDS = st.sampled_from(["/1.png", "/2.webp", ".png", "", "/", "\\"])


def names(parts):
    joined = st.tuples(st.lists(parts, min_size=1, max_size=6), st.sampled_from(["/", "\\"]), ENDS)
    return joined.map(lambda drawn: drawn[1].join(drawn[0]) + drawn[2])


TAME_MEMBER = st.tuples(names(TAME), st.sampled_from(["file", "file", "folder"]))
ANY_MEMBER = st.tuples(names(TAME | WILD | st.text(max_size=4)), st.sampled_from(["file", "file", "folder", "link"]))
# One bad member is enough for a refusal: mostly there is none, or one.
MEMBERS = st.lists(TAME_MEMBER, min_size=1, max_size=5, unique_by=lambda member: member[0]) | st.tuples(
    st.lists(TAME_MEMBER, max_size=3), ANY_MEMBER, st.lists(ANY_MEMBER, max_size=1)
).map(lambda drawn: [*drawn[0], drawn[1], *drawn[2]])


class AnyName(zipfile.ZipInfo):
    """A zip's member under a name that `zipfile` would have mended or refused."""

    def _encodeFilenameFlags(self):
        raw = self.filename.encode("utf-8", "surrogateescape" if not self.wild else "surrogatepass")
        return raw, self.flag_bits | (0 if self.filename.isascii() else 0x800)

    wild = False


def write_zip(path: Path, members: list[tuple[str, str]], target: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, kind) in enumerate(members):
            info = AnyName("x")
            info.filename = name if kind != "folder" or name.endswith("/") else f"{name}/"
            info.wild = any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in name)
            info.external_attr = {"file": 0o100644, "folder": 0o40755, "link": 0o120777}[kind] << 16
            archive.writestr(info, os.fsencode(target) if kind == "link" else bytes([number]) * 8)


def write_tar(path: Path, members: list[tuple[str, str]], target: Path, form: int) -> None:
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogatepass") as archive:
        for number, (name, kind) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.type = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}[kind]
            info.linkname = str(target) if kind == "link" else ""
            info.size = 8 if kind == "file" else 0
            archive.addfile(info, io.BytesIO(bytes([number]) * 8))


def tree(root: Path) -> dict[str, bytes | None]:
    """Every path below ``root``, with the content of files; not the list of members that were left out."""
    paths = [path for path in root.rglob("*") if path.name != LEFT_OUT]
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths}


def check(write, members: list[tuple[str, str]], is_file) -> None:
    """Unpack an archive of these members eight folders deep, where ``..`` cannot leave the test's own folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        members = [(name.replace(f"/{ROOT}", folder), kind) for name, kind in members]
        into = root.joinpath("12345678", *"abcdefgh"[:7], "into")
        into.parent.mkdir(parents=True)
        (root / "out").mkdir()
        (root / "out" / "kept").write_bytes(b"kept")
        write(root / "x", members, root / "out")
        before = tree(root)
        try:
            made = extract_images(root / "x", into=into)
        except UserError as refusal:
            assert str(refusal).endswith(".") and "\n" not in str(refusal)
            str(refusal).encode()
            assert not into.exists() or not any(into.iterdir())
            after = tree(root)
            after.pop(str(into.relative_to(root)), None)
            assert after == before
            return
        assert made.parent == into and [path.name for path in into.iterdir()] == [made.name]
        after = tree(root)
        inside = f"{made.relative_to(root)}/"
        for path in (into.relative_to(root), made.relative_to(root)):
            after.pop(str(path))
        found = {path.removeprefix(inside): data for path, data in after.items() if path.startswith(inside)}
        assert {path: data for path, data in after.items() if not path.startswith(inside)} == before
        assert not any(path.is_symlink() for path in made.rglob("*"))
        assert all(kind != "link" for _, kind in members)
        files = {path: data for path, data in found.items() if data is not None}
        # Without links and collisions, which are refused, every plain image is there once, under its own name.
        packed = {
            "/".join(parts): bytes([number]) * 8
            for number, (name, kind) in enumerate(members)
            if kind == "file" and is_file(name) and (parts := regular(name))
        }
        assert files == packed
        folders = {str(folder) for file in files for folder in Path(file).parents}
        assert set(found) - set(files) <= folders


def regular(name: str) -> list[str]:
    """The folders and the file of a member that may be unpacked; nothing for others."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith("/"):
        return []
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return []
    image = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
    return parts if Path(parts[-1]).suffix.lower() in image else []


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(MEMBERS)
def test_a_zip_of_any_names(members):
    check(write_zip, members, lambda name: not name.endswith("/"))


@given(MEMBERS, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_a_tar_of_any_names(members, form):
    members = [(name.partition("\0")[0] if form == tarfile.GNU_FORMAT else name, kind) for name, kind in members]
    check(lambda *args: write_tar(*args, form), members, lambda name: True)
