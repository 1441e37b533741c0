"""Progress as one callable: ``progress(stage, done, total)``.

Long library calls take ``progress=`` and call it often. A callback stops the work by raising
`d2nwg.utils.errors.Cancelled`.
"""

import sys
import time
from typing import Protocol

from d2nwg.utils.text import shown


class Progress(Protocol):
    """Called as ``progress("Reading images", 120, 960)``; ``total`` is 0 while it is unknown. What follows `` · `` in
    the name of a stage may change while that lasts."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """The default: report nothing."""


class TimeLeft:
    """Estimates the seconds left of a stage from its speed so far."""

    def __init__(self):
        self._stage, self._started, self._first = None, 0.0, 0

    def __call__(self, stage: str, done: int, total: int) -> float | None:
        """Seconds left, or None while they are unknown (at the beginning of a stage, or without a total)."""
        now, stage = time.monotonic(), stage.partition(" · ")[0]
        if stage != self._stage:
            self._stage, self._started, self._first = stage, now, done
        advanced = done - self._first
        if not total or advanced <= 0:
            return None
        return (now - self._started) / advanced * (total - done)


class TerminalProgress:
    """One line on stderr, rewritten in place on a terminal, at most a line every ten seconds elsewhere."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stderr
        # Off a terminal short work reports nothing, so that an error at the beginning is the only line.
        self._left, self._last = TimeLeft(), 0.0 if self.stream.isatty() else time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        left, now, tty = self._left(stage, done, total), time.monotonic(), self.stream.isatty()
        finished = total and done >= total
        if now - self._last < (0.2 if tty else 10.0) and not (finished and tty):
            return
        self._last = now
        text = shown(stage) + (f" {done}/{total}" if total else "")
        if left is not None and not finished:
            text += f", {format_seconds(left)} left"
        self.stream.write(f"\r\033[K{text}" + ("\n" if finished else "") if tty else text + "\n")
        self.stream.flush()


def format_seconds(seconds: float) -> str:
    """``75`` → ``"1 min 15 s"``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
