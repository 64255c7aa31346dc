"""The table of jobs: what is to be done, which worker has which, what became of each.

One SQLite file, shared by any number of worker processes on one machine. A worker that dies leaves
its job marked as running; it is free again once nobody holds the lock of its run folder, which the
operating system lets go when a process ends.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from filelock import FileLock, Timeout

from assay.errors import RunError

Kind = Literal["run", "task"]
State = Literal["waiting", "running", "done", "diverged", "failed"]
ENDED: tuple[State, ...] = ("done", "diverged", "failed")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    key TEXT PRIMARY KEY,
    label TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('run', 'task')),
    content TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'diverged', 'failed')),
    elapsed_s REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT ''
)
"""
_COLUMNS = "key, label, kind, state, elapsed_s, error"
_WAIT_S = 60.0  # for another process to let go of the file


@dataclass(frozen=True, slots=True)
class Job:
    """One cell to be run, or one task to be done.

    Attributes:
        key: The name of its run folder or of its record.
        label: What it is, for a reader.
        kind: Which of the two.
        state: Where it stands.
        elapsed_s: How long it took, once it has ended.
        error: Why it failed or diverged.
    """

    key: str
    label: str
    kind: Kind
    state: State
    elapsed_s: float
    error: str


@final
class Jobs:
    """A table of jobs in FOLDER/jobs.sqlite; run folders are FOLDER/cells/KEY."""

    def __init__(self, folder: Path) -> None:
        """Open the table, or make it.

        Raises:
            RunError: If the folder cannot be written, or the file is no table of jobs.
        """
        self.folder = folder
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            self._table = sqlite3.connect(folder / "jobs.sqlite", timeout=_WAIT_S)
            with self._table:
                self._table.execute(_SCHEMA)
                self._table.execute(f"SELECT {_COLUMNS}, content FROM jobs")
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"{folder / 'jobs.sqlite'}: {error}; expected a table of jobs in a folder that can "
                "be written. Name another folder, or put the file back."
            ) from None

    @property
    def cells(self) -> Path:
        """Where the run folders are."""
        return self.folder / "cells"

    def add(self, key: str, label: str, content: str, *, kind: Kind = "run") -> None:
        """Put a job into the table unless it is there; one that failed is tried again.

        Args:
            key: The name of its run folder or of its record.
            label: What it is, for a reader.
            content: The resolved config of the run, or the task and the keys of its runs, as JSON.
            kind: Which of the two.
        """
        with self._table:
            self._table.execute(
                "INSERT OR IGNORE INTO jobs (key, label, kind, content, state) "
                "VALUES (?, ?, ?, ?, 'waiting')",
                (key, label, kind, content),
            )
            self._table.execute(
                "UPDATE jobs SET state = 'waiting' WHERE key = ? AND state = 'failed'", (key,)
            )

    def all(self, keys: list[str]) -> list[Job]:
        """Return the jobs of these keys that are in the table, in the order of the keys."""
        marks = ", ".join("?" * len(keys))
        rows = self._table.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE key IN ({marks})",
            keys,
        )
        found = {row[0]: Job(*row) for row in rows}
        return [found[key] for key in keys if key in found]

    def content(self, key: str) -> str:
        """Return what is to be done, as `add` was told."""
        ((content,),) = self._table.execute("SELECT content FROM jobs WHERE key = ?", (key,))
        return str(content)

    @contextlib.contextmanager
    def claimed(self, keys: list[str]) -> Iterator[Job | None]:
        """Take a job nobody works on, and hold it; None if there is none left.

        Left without `end`, such as by an interrupt, the job can be taken again.
        """
        for job in self.all(keys):
            if job.state in ENDED:
                continue
            lock = FileLock(self.cells / f"{job.key}.lock", timeout=0)
            with contextlib.suppress(Timeout), lock:
                (now,) = self.all([job.key])  # another worker may have ended it meanwhile
                if now.state in ENDED:
                    continue
                self._set(job.key, "running")
                yield now
                return
        yield None

    def end(self, key: str, state: State, *, elapsed_s: float = 0.0, error: str = "") -> None:
        """Write down how a job ended."""
        self._set(key, state, elapsed_s, error)

    def _set(self, key: str, state: State, elapsed_s: float = 0.0, error: str = "") -> None:
        with self._table:
            self._table.execute(
                "UPDATE jobs SET state = ?, elapsed_s = ?, error = ? WHERE key = ?",
                (state, elapsed_s, error, key),
            )


def wait_a_moment() -> None:
    """Let other workers get on: all jobs are taken, and one of them may yet be let go."""
    time.sleep(0.5)
