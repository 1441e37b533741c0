"""The folders of one case, and what must not change in them."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

SECRET = "CANARY-7f3a9c"  # in the files that nothing may read


@dataclass(frozen=True)
class Room:
    """The folders of one case.

    Attributes:
        root: holds all of them.
    """

    root: Path

    @property
    def given(self) -> Path:
        """What the case gives as inputs: may be read, must stay as it is."""
        return self.root / "given"

    @property
    def out(self) -> Path:
        """Where the case may write; it is empty."""
        return self.root / "out"

    @property
    def canary(self) -> Path:
        """What the case does not give: must neither be read nor change."""
        return self.root / "canary"

    @property
    def work(self) -> Path:
        """The current folder of the case: must stay as it is."""
        return self.root / "work"

    @property
    def cache(self) -> Path:
        """``$D2NWG_CACHE``."""
        return self.root / "cache"

    @property
    def tmp(self) -> Path:
        """``$TMPDIR``."""
        return self.root / "tmp"

    @classmethod
    def make(cls, root: Path) -> "Room":
        """A room with its folders."""
        room = cls(Path(os.path.realpath(root)))
        for folder in (room.given, room.out, room.canary, room.work, room.cache, room.tmp):
            folder.mkdir(parents=True, exist_ok=True)
        (room.canary / "secret.txt").write_text(SECRET * 20)
        (room.canary / "secret.png").write_bytes(SECRET.encode() * 20)
        (room.canary / "secret.safetensors").write_bytes(SECRET.encode() * 20)
        (room.work / "notes.txt").write_text("mine")
        return room

    def kept(self) -> dict[str, str]:
        """What must not change: every path below `given`, `canary` and `work` → what is there."""
        return {
            str(p.relative_to(self.root)): _what(p) for top in (self.given, self.canary, self.work) for p in walk(top)
        }


def walk(top: Path) -> list[Path]:
    """All paths below a folder, without following links."""
    found = []
    for folder, folders, files in os.walk(top):
        found += [Path(folder, name) for name in (*folders, *files)]
    return found


def _what(path: Path) -> str:
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        return f"link to {os.readlink(path)}"
    if not stat.S_ISREG(about.st_mode):
        return f"mode {stat.S_IFMT(about.st_mode)}"
    if about.st_size > 2**26:  # sparse files
        return f"{about.st_size} bytes, {about.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()
