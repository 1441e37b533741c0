"""One table measured: its cells kept on disk so that it goes on after a stop, within a budget, with how it was made."""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from benchmarks.papers.markdown import ROOT
from benchmarks.papers.spec import Entry, Grid
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import write_whole
from d2nwg.utils.progress import TerminalProgress

QUICK, DEFAULT, FULL = "quick", "default", "full"
MINUTES = 20.0  # of a table, at most, in the default size
SAVED_EVERY = 30.0  # seconds
PACKAGES = ("torch", "numpy", "scikit-learn", "timm", "diffusers", "transformers")


@dataclass
class Run:
    """A table that is being measured.

    Attributes:
        entry: which.
        size: `QUICK`, `DEFAULT` or `FULL`.
        seeds: how many, where a table repeats over seeds.
        data: the folder of data sets; None for none.
        out: the folder of results.
        minutes: of measuring after which no new cell is begun; None for no end.
        cells: what was measured so far, by key.
    """

    entry: Entry
    size: str = DEFAULT
    seeds: int = 3
    data: Path | None = None
    out: Path = Path("papers")
    minutes: float | None = MINUTES
    cells: dict[str, Any] = field(default_factory=dict)
    progress: TerminalProgress = field(default_factory=TerminalProgress)

    def __post_init__(self) -> None:
        self.started = self._saved = time.monotonic()
        self._first: float | None = None  # when the first cell was begun: reading the data is not in the budget
        self.on_example = False

    @property
    def quick(self) -> bool:
        """Whether this run only shows that everything runs."""
        return self.size == QUICK

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started

    def path(self, name: str) -> Path | None:
        """A data set below ``--data``, as a folder, an archive or an array file; None where it is not there."""
        found = [self.data / f"{name}{end}" for end in ("", ".zip", ".tar", ".npz")] if self.data else []
        return next((path for path in found if path.exists()), None)

    def source(self, name: str) -> str:
        """Where a data set is: its path; in a quick run, where it is missing, the example of handwritten digits.

        Raises:
            UserError: it is missing.
        """
        if path := self.path(name):
            return str(path)
        if self.quick and self.entry.example:
            self.on_example = True
            return "example:digits"
        where = f"{self.data} has none" if self.data else "give --data, the folder that it is in"
        raise UserError(f"{self.entry.id} needs the data set {name}: {where}.")

    def present(self, names: Iterable[str]) -> list[str]:
        """Those of some data sets that are there; the first, for which the example stands, where a quick run has none.

        Raises:
            UserError: none is there.
        """
        names = list(names)
        found = [name for name in names if self.path(name)]
        if not found:
            self.source(names[0])
        return found or names[:1]

    def over(self) -> bool:
        """Whether the budget is spent."""
        if self._first is None:
            self._first = time.monotonic()
        return self.minutes is not None and time.monotonic() - self._first > 60 * self.minutes

    def measured(self, keys: Iterable[str], compute: Callable[[str], Any]) -> dict[str, Any]:
        """The cells of some keys, in order: those that are there, and those that the budget leaves time for."""
        keys, found = list(keys), {}
        try:
            for done, key in enumerate(keys):
                if key not in self.cells:
                    if self.over():
                        continue
                    self.cells[key] = compute(key)
                    self.save_cells()
                found[key] = self.cells[key]
                self.progress(self.entry.title, done + 1, len(keys))
        finally:  # also where it is interrupted
            self.save_cells(now=True)
        return found

    @property
    def cells_file(self) -> Path:
        """What ``--resume`` goes on from."""
        return self.out / "cells" / f"{self.entry.id}.json"

    def save_cells(self, now: bool = False) -> None:
        """At most every `SAVED_EVERY` seconds, unless ``now``."""
        if now or time.monotonic() - self._saved > SAVED_EVERY:
            self.cells_file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.cells_file, json.dumps(self.cells))
            self._saved = time.monotonic()


def about(run: Run, command: str) -> dict:
    """How and on what a table was measured."""
    from benchmarks.speed import machine

    return {
        "command": command,
        "size": run.size,
        "seeds": list(range(run.seeds)) if run.entry.repeats else [0],
        "example_instead_of_data": run.on_example,
        "seconds": round(run.seconds),
        "budget_minutes": run.minutes,
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "commit": commit(),
        "machine": {key: machine()[key] for key in ("cpu", "cores", "threads", "load_before")},
    }


def commit() -> str | None:
    """Of the code, with a plus where files have changed since; None outside of a repository."""
    try:
        run = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **run).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}{'+' if changed else ''}"


def measure(run: Run, command: str, resume: bool = False) -> list[Grid]:
    """Measure a table and write ``OUT/ID.json``.

    Raises:
        UserError: a data set is missing.
    """
    entry = run.entry
    if resume and run.cells_file.is_file():
        run.cells.update(json.loads(run.cells_file.read_text(encoding="utf-8")))
    for name in run.present(entry.needs) if entry.any_of else entry.needs:
        run.source(name)  # missing ones come to light before anything is computed
    run.out.mkdir(parents=True, exist_ok=True)
    if entry.call:
        import_module(entry.call.module).main(entry.call.arguments(run))
        grids = entry.call.read(run)
    else:
        grids = entry.measure(run)
    found = {"id": entry.id, **about(run, command), "grids": [one.to_json() for one in grids]}
    write_whole(run.out / f"{entry.id}.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return grids


def load(folder: Path, entry: Entry) -> tuple[list[Grid], dict] | None:
    """The grids of a table that was measured, and how; None where it was not."""
    path = folder / f"{entry.id}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return [Grid.from_json(one) for one in found.pop("grids")], found
