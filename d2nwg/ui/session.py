"""What one visitor has made, and where its files lie.

Gradio serves any file under its temporary folder to whoever knows the path, and nothing else once the folder is
ours alone. So every server process gets a folder of its own, every visitor a folder in it under a name nobody can
guess, and both are gone when they are no longer needed.
"""

import atexit
import contextlib
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from d2nwg.jobs.owner import STRANGER, Viewer
from d2nwg.ui.work import Work

State = TypeVar("State")
KEEP_CALLS = 3600  # seconds the files of an API call are kept, for the caller to fetch them


@lru_cache(1)
def private_root() -> Path:
    """This process's own folder, named to gradio as its only one; call it before components are built.

    Folders that earlier processes left behind are removed.
    """
    base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()).resolve()
    base.mkdir(parents=True, exist_ok=True)
    for left in base.glob("d2nwg-app-*"):
        pid = re.fullmatch(r"d2nwg-app-(\d+)-\w+", left.name)
        if pid and (int(pid[1]) == os.getpid() or not _alive(int(pid[1]))):
            shutil.rmtree(left, ignore_errors=True)
    root = Path(tempfile.mkdtemp(prefix=f"d2nwg-app-{os.getpid()}-", dir=base))
    os.environ["GRADIO_TEMP_DIR"] = str(root)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(root / "examples")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _alive(pid: int) -> bool:
    if sys.platform == "win32":  # there, asking would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        pass
    return True


def new_folder(kind: str) -> Path:
    """An empty folder under `private_root`, under a name nobody can guess."""
    folder = private_root() / f"{kind}-{secrets.token_urlsafe(24)}"
    folder.mkdir(mode=0o700)
    return folder


def call_folder() -> Path:
    """A folder for one call of the API. Those of calls more than `KEEP_CALLS` ago are removed."""
    for old in private_root().glob("call-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > KEEP_CALLS:
                shutil.rmtree(old, ignore_errors=True)
    return new_folder("call")


class Session:
    """One visitor's files, work, and what each tab keeps. Lives in a `gr.State`, which calls `close` at the end.

    Attributes:
        page: gradio's name for the page the visitor has open.
        viewer: who the visitor is.
        folder: the visitor's own, for everything made for them.
        uploads: the visitor's files that gradio keeps outside the folder, and when each was written (nanoseconds).
        works: what waits or runs, by the key of its `d2nwg.ui.run.Run`.
    """

    def __init__(self, page: str | None = None, viewer: Viewer = STRANGER):
        self.page, self.viewer = page, viewer
        self.folder = new_folder("session")
        self.uploads: dict[Path, int] = {}
        self.works: dict[str, Work] = {}
        self._states: dict[type, Any] = {}
        _open.add(self)

    def __deepcopy__(self, memo):  # gradio copies the first value of a state; this one is the visitor's identity
        return self

    def state(self, kind: type[State]) -> State:
        """What a tab keeps for the visitor, in a dataclass of its own; made with its defaults when first asked for."""
        return self._states.setdefault(kind, kind())

    def uploaded(self, files: Iterable[str] | None) -> None:
        """Have uploaded files removed with the visitor's own."""
        for path in map(Path, files or ()):
            with contextlib.suppress(OSError):  # it is gone
                self.uploads[path] = path.stat().st_mtime_ns

    def cancel(self) -> None:
        """Stop whatever is under way, in any tab."""
        for work in list(self.works.values()):
            work.cancel()

    def subfolder(self) -> Path:
        """A new empty folder in the visitor's own."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def close(self) -> None:
        """Stop what is under way and remove the visitor's files, also what was uploaded."""
        self.cancel()
        _open.discard(self)
        shutil.rmtree(self.folder, ignore_errors=True)
        # Gradio keeps equal uploads of two visitors once, as the later one wrote it: who uploaded it after this visitor
        # did may only be about to use it.
        for path, written in self.uploads.items():
            others = [other for other in list(_open) if path in other.uploads]
            for other in others:
                other.uploads[path] = max(written, other.uploads[path])
            with contextlib.suppress(OSError):
                if not others and path.stat().st_mtime_ns <= written:
                    path.unlink()


_open: set[Session] = set()


def page_closed(page: str | None) -> None:
    """Stop what is under way for a page that is gone. Its session outlives it by an hour."""
    for session in list(_open):
        if page and session.page == page:
            session.cancel()


def close(session: Session | None) -> None:
    """The `gr.State` callback for the end of a visit."""
    if session:
        session.close()
