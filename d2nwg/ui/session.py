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
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

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
    """One visitor's images and result. Lives in a `gr.State`, which calls `close` at the end.

    Attributes:
        page: gradio's name for the page the visitor has open.
        folder: the visitor's own, for everything made for them.
        images: the `d2nwg.data.image_set.ImageSet` in use, or None.
        result: the last `d2nwg.ui.generate.service.Result`, or None.
        uploads: the visitor's files that gradio keeps outside the folder.
        picked: the sample "try it" and the download use, None for the chosen head.
        picture: what "try it" was last given and its class where that is known, to look at with another head.
        example: the example the images are of, or "own".
        news: a sentence to show once the images are there.
        work: the `d2nwg.ui.work.Work` under way, or None.
        tabs: what other tabs keep, by their key; each has a ``work`` of its own (see `tab`).
    """

    def __init__(self, page: str | None = None):
        self.page = page
        self.folder = new_folder("session")
        self.images = self.result = self.picked = self.picture = self.work = None
        self.example, self.news = "own", ""
        self.uploads: set[Path] = set()
        self.tabs: dict[str, SimpleNamespace] = {}
        _open.add(self)

    def __deepcopy__(self, memo):  # gradio copies the first value of a state; this one is the visitor's identity
        return self

    def tab(self, key: str, **first) -> SimpleNamespace:
        """What the tab of this key keeps for the visitor: at first ``work=None`` and the values of ``first``."""
        return self.tabs.setdefault(key, SimpleNamespace(work=None, **first))

    def cancel(self) -> None:
        """Stop whatever is under way, in any tab."""
        for work in (self.work, *(tab.work for tab in self.tabs.values())):
            if work:
                work.cancel()

    def subfolder(self) -> Path:
        """A new empty folder in the visitor's own."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def close(self) -> None:
        """Stop what is under way and remove the visitor's files, also what was uploaded."""
        self.cancel()
        _open.discard(self)
        shutil.rmtree(self.folder, ignore_errors=True)
        # Gradio keeps equal uploads of two visitors once.
        for path in self.uploads.difference(*(other.uploads for other in list(_open))):
            path.unlink(missing_ok=True)


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
