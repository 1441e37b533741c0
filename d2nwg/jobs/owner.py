"""Whose a job, a zoo or a bundle is, and who may see it.

Whoever submits a job in the app has a random token, of which the job keeps the SHA-256: its owner. A zoo or a bundle
outlives its job, so its owner stands in a file beside it. What the command line makes has no owner: such jobs are seen
by those who see everything, such zoos and bundles by everybody.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from d2nwg.jobs.job import Job, get_job, jobs_lock, list_jobs
from d2nwg.utils.errors import UserError


@dataclass(frozen=True)
class Viewer:
    """Who looks.

    Attributes:
        owner: of what is theirs; None for somebody without a token.
        everything: whether they see also what belongs to others.
    """

    owner: str | None = None
    everything: bool = False

    def owns(self, owner: str | None) -> bool:
        """Whether they may see, stop and resume a job of this owner, and change what it made."""
        return self.everything or (owner is not None and owner == self.owner)

    def sees(self, result: Path) -> bool:
        """Whether they may see and use this zoo or bundle."""
        owner = result_owner(result)
        return owner is None or self.owns(owner)


STRANGER = Viewer()
EVERYTHING = Viewer(everything=True)


def owner_of(token: object) -> str | None:
    """The owner that a token stands for; None for what is no token: at least 32 letters, digits, ``-`` or ``_``."""
    if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9_-]{32,256}", token):
        return None
    return hashlib.sha256(token.encode()).hexdigest()


def jobs_of(viewer: Viewer) -> list[Job]:
    """The jobs that a viewer may see, the oldest first."""
    return [job for job in list_jobs() if viewer.owns(job.owner)]


def find_job(name: str, viewer: Viewer) -> Job:
    """A job by its id, among those that a viewer may see.

    Raises:
        UserError: there is none; the sentence is the same where it is somebody else's.
    """
    if viewer.everything:
        return get_job(name)
    for job in jobs_of(viewer):
        if job.id == name:
            return job
    raise UserError("That job is not here, or not yours: choose one from the list.")


def result_owner(result: Path) -> str | None:
    """The owner of a zoo or bundle, or of the one that a job or an import is making."""
    try:
        return _mark(result).read_text("utf-8").strip() or None
    except (OSError, ValueError):
        return None


def claim(result: Path, owner: str | None) -> bool:
    """Make somebody the owner of a zoo or bundle that is about to be made. Whether nobody was it before.

    Raises:
        UserError: it is somebody else's, or there is one already that is nobody's.
    """
    if owner is None:
        return False
    with jobs_lock():
        before = result_owner(result)
        if before != owner and (before is not None or result.exists()):
            raise taken(result.name)
        result.parent.mkdir(parents=True, exist_ok=True)
        _mark(result).write_text(owner, "utf-8")
    return before is None


def release(result: Path) -> None:
    """Let others have the name of a result that was not made after all."""
    if not result.exists():
        with suppress(OSError):
            _mark(result).unlink(missing_ok=True)


def taken(name: str) -> UserError:
    """The refusal of a name that is another visitor's, or anybody's."""
    return UserError(f"The name {name} is taken: choose another one.")


def _mark(result: Path) -> Path:
    return result.with_name(f".{result.name}.owner")
