"""The table of jobs: what is to be done, which worker has which, what became of each.

One SQLite file, shared by any number of worker processes on one machine. A worker that dies leaves
its job marked as running; it is free again once nobody holds the lock of its run folder, which the
operating system lets go when a process ends.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

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
);
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT NOT NULL);
"""
_FILE = "jobs.sqlite"
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
    """A table of jobs in FOLDER/jobs.sqlite; what they make is in FOLDER/cells and /records."""

    def __init__(self, folder: Path) -> None:
        """Open the table, or make it.

        Raises:
            RunError: If the folder cannot be written, or the file is no table of jobs.
        """
        self.folder = folder
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            self._table = sqlite3.connect(folder / _FILE, timeout=_WAIT_S)
            self._table.executescript(_SCHEMA)
            self._table.execute(f"SELECT {_COLUMNS}, content FROM jobs")
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"{folder / _FILE}: {error}; expected a table of jobs in a folder that can "
                "be written. Name another folder, or put the file back."
            ) from None

    @property
    def cells(self) -> Path:
        """Where the run folders are."""
        return self.folder / "cells"

    @property
    def records(self) -> Path:
        """Where the records of tasks are."""
        return self.folder / "records"

    def add(self, key: str, label: str, content: str, *, kind: Kind = "run") -> None:
        """Put a job into the table unless it is there.

        It is done again if it failed, or if what it made is gone.

        Args:
            key: The name of its run folder or of its record.
            label: What it is, for a reader.
            content: The resolved config of the run, or the task and the keys of its runs, as JSON.
            kind: Which of the two.

        Raises:
            RunError: If the disk does not take it, as whatever else writes.
        """
        with self._writing():
            self._table.execute(
                "INSERT OR IGNORE INTO jobs (key, label, kind, content, state) "
                "VALUES (?, ?, ?, ?, 'waiting')",
                (key, label, kind, content),
            )
            ended = "('failed')" if self._is_made(key, kind) else "('failed', 'done', 'diverged')"
            self._table.execute(
                f"UPDATE jobs SET state = 'waiting' WHERE key = ? AND state IN {ended}", (key,)
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

    @contextlib.contextmanager
    def several_claimed(self, keys: list[str], *, most: int) -> Iterator[list[Job]]:
        """Take up to `most` jobs nobody works on, and hold them."""
        taken: list[Job] = []
        with contextlib.ExitStack() as held:
            while len(taken) < most:
                left = [key for key in keys if key not in {job.key for job in taken}]
                if (job := held.enter_context(self.claimed(left))) is None:
                    break
                taken.append(job)
            yield taken

    def end(self, key: str, state: State, *, elapsed_s: float = 0.0, error: str = "") -> None:
        """Write down how a job ended."""
        self._set(key, state, elapsed_s, error)

    def keep_result(self, key: str, result: Mapping[str, Any]) -> None:
        """Write down what a run came to, for `results_in`."""
        with self._writing():
            self._table.execute(
                "INSERT OR REPLACE INTO results (key, result) VALUES (?, ?)",
                (key, json.dumps(result)),
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._table:
                yield
        except sqlite3.Error as error:
            raise RunError(
                f"{self.folder / _FILE}: cannot be written: {error}. Make room or permission, then "
                "give the same command again; runs that are done are kept."
            ) from None

    def _is_made(self, key: str, kind: Kind) -> bool:
        made = {"run": self.cells / key / "config.json", "task": self.records / f"{key}.json"}
        return made[kind].is_file()

    def _set(self, key: str, state: State, elapsed_s: float = 0.0, error: str = "") -> None:
        with self._writing():
            self._table.execute(
                "UPDATE jobs SET state = ?, elapsed_s = ?, error = ? WHERE key = ?",
                (state, elapsed_s, error, key),
            )


def results_in(folder: Path) -> dict[str, Any]:
    """Return what the runs of a laboratory came to when they ended, by key.

    Raises:
        RunError: If the table of jobs is none.
    """
    if not (folder / _FILE).is_file():
        return {}
    try:
        with contextlib.closing(
            sqlite3.connect(f"{(folder / _FILE).resolve().as_uri()}?mode=ro", uri=True)
        ) as table:
            if not table.execute("SELECT 1 FROM sqlite_master WHERE name = 'results'").fetchall():
                return {}  # no run has ended since results are kept
            rows = table.execute("SELECT key, result FROM results").fetchall()
            return {key: json.loads(result) for key, result in rows}
    except (sqlite3.Error, ValueError) as error:
        raise RunError(f"{folder / _FILE}: {error}; expected a table of jobs.") from None


def wait_a_moment() -> None:
    """Let other workers get on: all jobs are taken, and one of them may yet be let go."""
    time.sleep(0.5)
