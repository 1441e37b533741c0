"""Long calls in a thread of their own: watched while they run, and really stopped."""

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.progress import Progress, TimeLeft

log = logging.getLogger("d2nwg.ui")

UNEXPECTED = "Something went wrong here, not with your files. The server's log says what; please try again."


class Stage(NamedTuple):
    """How far the work is; ``total`` is 0 and ``left`` (seconds) None while they are unknown."""

    name: str
    done: int
    total: int
    left: float | None


class Work:
    """One call ``function(progress=...)`` in a thread.

    Stopping works through the progress callback: the next report raises `Cancelled` in the call.

    Attributes:
        owner: whoever asked for it, by identity.
        stage: the last one reported.
        started: whether the call has begun; it does so once.
    """

    def __init__(self, function: Callable[..., Any], owner: object = None):
        self.function, self.owner = function, owner
        self.stage = Stage("Starting", 0, 0, None)
        self.started = False
        self._left, self._stop = TimeLeft(), threading.Event()
        self._result: Any = None
        self._failure: BaseException | None = None

    def cancel(self) -> None:
        """Ask the call to stop; it does so at its next report of progress."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def _progress(self, stage: str, done: int, total: int) -> None:
        if self.cancelled:
            raise Cancelled
        self.stage = Stage(stage, done, total, self._left(stage, done, total))

    def _run(self) -> None:
        try:
            self._progress("Starting", 0, 0)
            self._result = self.function(progress=self._progress)
        except BaseException as failure:  # handed over to the thread that waits
            self._failure = failure

    async def watch(self, every: float = 0.2) -> AsyncGenerator[Stage, None]:
        """Run the call, yielding its stage when that changes. Ends only when the thread has ended, also when the
        watcher is cancelled: until then the machine is not free for the next one."""
        # A lent GPU is counted to the visitor whose request the context holds.
        thread = threading.Thread(target=contextvars.copy_context().run, args=(self._run,), daemon=True)
        self.started = True
        thread.start()
        seen = None
        try:
            while thread.is_alive():
                if seen != (seen := self.stage):
                    yield seen
                await asyncio.sleep(every if seen.done or seen.total else 0.05)
        finally:
            while thread.is_alive():
                self.cancel()
                await asyncio.sleep(0.05)

    def result(self) -> Any:
        """What the call returned. Raises `Cancelled`, or `UserError` with a sentence for the visitor; what was not
        foreseen goes to the log."""
        if isinstance(self._failure, (Cancelled, UserError)):
            raise self._failure
        if self._failure:
            log.error("Unforeseen", exc_info=self._failure)
            raise UserError(UNEXPECTED) from self._failure
        return self._result


async def call(function: Callable[..., Any], progress: Progress | None = None) -> Any:
    """Run ``function(progress=...)`` in a thread and return its result; it stops when the caller is cancelled."""
    work = Work(function)
    async with contextlib.aclosing(work.watch()) as stages:
        async for stage in stages:
            if progress:
                progress(*stage[:3])
    return work.result()
