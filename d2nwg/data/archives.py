"""Zip and tar archives of images or checkpoints, unpacked within bounds.

Every member is checked before anything is written, bytes are counted again while they are written (an archive can
lie about sizes), and the result appears under its final name only when it is whole.
"""

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from d2nwg.data.image_set import SUFFIXES
from d2nwg.data.listing import is_hidden
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, read_json, whole_folder
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, is_utf8, shown

MAX_MEMBERS = 100_000
MAX_BYTES = 4 * 2**30  # unpacked
MAX_RATIO = 100  # unpacked : packed, for what unpacks to more than RATIO_FLOOR
RATIO_FLOOR = 256 * 2**20
MAX_HEADER = 4 * 2**20  # a tar's long names and attributes are read into memory whole
CHUNK = 2**20
LEFT_OUT = ".left-out.json"  # beside the unpacked files: the members that are not among them

_TAR_SUFFIXES = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    IndexError,
    KeyError,
    OverflowError,
)


class NothingInside(UserError):
    """An archive without files of the kind that was asked for."""


@dataclass
class _Member:
    """One entry of an archive, as read from its header."""

    name: str  # as stored
    size: int  # as declared
    kind: str  # "file", "folder", or what it is instead: "a link", "a device" …
    handle: Any  # ZipInfo or TarInfo


def archive_stem(path: Path) -> str:
    """``photos.tar.gz`` → ``photos``."""
    return shown(_TAR_SUFFIXES.sub("", path.name) or path.name)


def extract_images(archive: Path, *, into: Path | None = None, progress: Progress = silent) -> Path:
    """Unpack the images of a zip or tar (plain, gz, bz2, xz) and return the folder they are in: one named by the
    archive's content, below `into` or the cache folder, so that the same archive is unpacked once. Members that are
    not images, hidden ones and ``__MACOSX`` are left out.

    Raises:
        UserError: nothing is written. A member has an absolute path or one with ``..``, is a link or a device, or has
            a name that is not UTF-8 or equals another one but for capitals or accents; the archive is encrypted or
            damaged, or has more than `MAX_MEMBERS` members, `MAX_BYTES` unpacked or `MAX_RATIO` times its packed size.
    """
    return extract_files(
        archive, SUFFIXES, nothing="holds no images; pack one folder of images per class", into=into, progress=progress
    )


def extract_files(
    archive: Path, suffixes: Collection[str], *, nothing: str, into: Path | None = None, progress: Progress = silent
) -> Path:
    """`extract_images` for files of other kinds.

    Args:
        suffixes: of the files' names, in lower case.
        nothing: the end of the sentence about an archive without such files.
        into: another folder for each kind of file, because the result is named by the archive's content alone.
    """
    archive, parent = Path(archive), Path(into) if into else cache_dir() / "archives"
    name = shown(archive.name)
    try:
        packed = archive.stat().st_size
        if packed > MAX_BYTES:
            raise UserError(f"{name} is larger than {_gib(MAX_BYTES)}, which is the limit.")
        with archive.open("rb") as file:
            target = parent / _sha256(file)[:32]
            if target.is_dir():
                return target
            file.seek(0)
            with _open(file, name) as (members, read):
                plan, others = _plan(members, name, packed, suffixes)
                if not plan:
                    raise NothingInside(f"{name} {nothing}.")
                return _write(plan, others, read, target, name, progress)
    except UserError:
        raise
    except OSError as error:
        if error.errno is not None:  # an error of the disk, not of the archive
            raise UserError(f"{name} could not be unpacked: {os.strerror(error.errno).lower()}.") from error
        raise UserError(f"{name} is damaged or incomplete; pack or download it again.") from error
    except _DAMAGE as error:
        raise UserError(f"{name} is damaged or incomplete; pack or download it again.") from error


def left_out(folder: Path) -> list[str]:
    """The paths of the members that were not unpacked to this folder of `extract_files`, hidden ones aside; none for
    any other folder."""
    names = read_json(folder / LEFT_OUT)
    return list(map(str, names)) if isinstance(names, list) else []


def _write(
    plan: list[tuple[str, _Member]], others: list[str], read, target: Path, name: str, progress: Progress
) -> Path:
    """Write the planned files and the names of the others to the folder `target`, all or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if sum(member.size for _, member in plan) > shutil.disk_usage(target.parent).free:
        raise UserError(f"{name} does not fit on the disk; make room and try again.")
    with whole_folder(target) as partial:
        left, made = MAX_BYTES, set()
        for done, (inside, member) in enumerate(plan):
            if done % 32 == 0:
                progress("Unpacking", done, len(plan))
            path = partial / inside
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            with read(member.handle) as source, path.open("xb") as sink:
                written = 0
                while block := source.read(CHUNK):
                    written += len(block)
                    left -= len(block)
                    if left < 0 or written > member.size:
                        raise UserError(f"{name} unpacks to more than it declares at {shown(inside)}.")
                    sink.write(block)
            if written != member.size:
                raise UserError(f"{name} is damaged or incomplete at {shown(inside)}; pack or download it again.")
        (partial / LEFT_OUT).write_text(json.dumps(others), "utf-8")
        progress("Unpacking", len(plan), len(plan))
    return target


def _plan(
    members: Iterator[_Member], name: str, packed: int, suffixes: Collection[str]
) -> tuple[list[tuple[str, _Member]], list[str]]:
    """Check every member. Returns the files to write, as (path inside the target, member), and the paths of others."""
    plan: list[tuple[str, _Member]] = []
    others: list[str] = []
    seen: dict[str, tuple[str, str | None]] = {}
    total = 0
    for count, member in enumerate(members, 1):
        if count > MAX_MEMBERS:
            raise UserError(f"{name} has more than {MAX_MEMBERS:,} members, which is the limit.")
        label = shown(member.name)
        parts = _parts(member.name, name)
        if member.kind not in ("file", "folder"):
            raise UserError(f"{name} holds {member.kind}, {label}; pack plain files only.")
        total += member.size
        if total > MAX_BYTES:
            raise UserError(f"{name} unpacks to more than {_gib(MAX_BYTES)}, which is the limit.")
        if total > max(RATIO_FLOOR, MAX_RATIO * packed):
            raise UserError(f"{name} unpacks to more than {MAX_RATIO} times its size, which is the limit.")
        if any(map(is_hidden, parts)):
            continue
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            kind = member.kind if depth == len(parts) else "folder"
            other, other_kind = seen.setdefault(folded(path), (path, None))
            if other != path:
                raise UserError(
                    f"{name} holds {shown(other)} and {shown(path)}, whose names differ only by "
                    "capitals or accents; rename one."
                )
            if other_kind and "file" in (kind, other_kind):
                raise UserError(f"{name} holds {shown(path)} twice; keep one.")
            seen[folded(path)] = path, kind
        if parts and member.kind == "file":
            if Path(parts[-1]).suffix.lower() in suffixes:
                plan.append(("/".join(parts), member))
            else:
                others.append("/".join(parts))
    return plan, others


def _parts(stored: str, archive: str) -> list[str]:
    """The parts of a member's path, checked, in Unicode's composed form (NFC)."""
    if not is_utf8(stored):
        raise UserError(f"{archive} holds a name that is not UTF-8, {shown(stored)}; rename it.")
    path = unicodedata.normalize("NFC", stored).replace("\\", "/")  # the separator of some Windows programs
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        raise UserError(f"{archive} holds an absolute path, {shown(stored)}; pack the folder with relative paths.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UserError(f"{archive} holds a path that leads out of it, {shown(stored)}; it is not safe to unpack.")
    if len(parts) > 32 or any(len(part.encode()) > 255 or not part.isprintable() for part in parts):
        raise UserError(f"{archive} holds a name that cannot be a file name, {shown(stored)}; rename it.")
    return parts


@contextlib.contextmanager
def _open(file: IO[bytes], name: str):
    """Yields an iterator over the archive's members, which reads as it goes, and a function that opens a member."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith((b"PK\3\4", b"PK\5\6")):
        with _open_zip(file, name) as archive:
            yield _zip_members(archive, name), archive.open
        return
    opener = next((opener for mark, opener in _COMPRESSIONS.items() if magic.startswith(mark)), None)
    with opener(file) if opener else contextlib.nullcontext(file) as plain:
        bounded = _Bounded(plain, name)
        try:
            archive = tarfile.TarFile(fileobj=bounded, encoding="utf-8", errors="surrogateescape")
        except tarfile.ReadError:
            raise UserError(f"{name} is not a zip or tar archive; pack the files as a zip.") from None
        with archive:
            yield _tar_members(archive, bounded), archive.extractfile


_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _open_zip(file: IO[bytes], name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except UnicodeDecodeError as error:
        stored = error.object.decode("utf-8", "surrogateescape")
        raise UserError(f"{name} holds a name that is not UTF-8, {shown(stored)}; rename it.") from None


def _zip_members(archive: zipfile.ZipFile, name: str) -> Iterator[_Member]:
    for info in archive.infolist():
        stored = info.orig_filename
        if not info.flag_bits & 0x800 and not stored.isascii():  # decoded as CP437, but often written in UTF-8
            stored = stored.encode("cp437").decode("utf-8", "surrogateescape")
        if info.flag_bits & 0x1:
            raise UserError(f"{name} is encrypted; pack it without a password.")
        if info.compress_type not in _ZIP_METHODS:
            raise UserError(f"{name} uses a compression that is not supported; pack it as an ordinary zip.")
        mode = stat.S_IFMT(info.external_attr >> 16)
        kind = "folder" if info.is_dir() else "file"
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = "a link" if mode == stat.S_IFLNK else "a device or another special file"
        yield _Member(stored, info.file_size, kind, info)


def _tar_members(archive: tarfile.TarFile, bounded: "_Bounded") -> Iterator[_Member]:
    for info in archive:
        if info.issparse() or info.size < 0:
            kind = "a sparse file"
        elif info.isreg() or info.isdir():
            kind = "file" if info.isreg() else "folder"
        else:
            kind = "a link" if info.issym() or info.islnk() else "a device or another special file"
        yield _Member(info.name, info.size if info.isreg() else 0, kind, info)
    # For tarfile a damaged header, or the end of the file, ends the archive; the right end is a block of zeros.
    bounded.seek(archive.offset)
    if bounded.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end")
    bounded.headers = None


class _Bounded:
    """The (decompressed) stream that `tarfile` reads, with bounds on reads and seeks against archives that are made to
    exhaust memory or time."""

    def __init__(self, stream: IO[bytes], name: str):
        self.stream, self.archive = stream, name
        self.headers: int | None = MAX_MEMBERS * 2048  # bytes left to read while members are listed

    def read(self, size: int) -> bytes:
        if self.headers is not None:
            self.headers -= size
        if not 0 <= size <= MAX_HEADER or (self.headers or 0) < 0:
            raise UserError(f"{self.archive} has oversized headers; it is not safe to unpack.")
        return self.stream.read(size)

    def seek(self, offset: int) -> int:
        if offset > MAX_BYTES + MAX_MEMBERS * 2048:
            raise UserError(f"{self.archive} unpacks to more than {_gib(MAX_BYTES)}, which is the limit.")
        return self.stream.seek(offset)

    def tell(self) -> int:
        return self.stream.tell()


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(CHUNK):
        digest.update(block)
    return digest.hexdigest()


def _gib(size: int) -> str:
    return f"{size / 2**30:g} GiB"
