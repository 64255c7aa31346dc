"""The table of jobs: what is to be done, which worker has which, what became of each.

One SQLite file, shared by any number of worker processes on one machine. A worker that dies leaves
its job marked as running; it is free again once nobody holds the lock of its run folder, which the
operating system lets go when a process ends.

A laboratory may come from a stranger. SQLite would follow a link, run his triggers, and delete
whatever file a journal of his names, so all of that is looked for before the file is opened or
read; rows are looked up one by one by their keys, and each is checked.
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, get_args

from filelock import FileLock, Timeout

from assay.disk import MARKS, open_ordinary, parse_json
from assay.errors import RunError
from assay.schema import cut

Kind = Literal["run", "task"]
State = Literal["waiting", "running", "done", "diverged", "failed"]
ENDED: tuple[State, ...] = ("done", "diverged", "failed")
_TABLES = {
    "jobs": """CREATE TABLE jobs (
    key TEXT PRIMARY KEY,
    label TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('run', 'task')),
    content TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'diverged', 'failed')),
    elapsed_s REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT ''
)""",
    "results": "CREATE TABLE results (key TEXT PRIMARY KEY, result TEXT NOT NULL)",
}
"""And SQLite's own index of each key; nothing else may be in the file."""
_FILE = "jobs.sqlite"
_COLUMNS = "key, label, kind, state, elapsed_s, error"
_MOST_BYTES, _MOST_CELL_BYTES = 1 << 30, 1 << 22  # of the file, of one value in it: 4 KB are usual
_JOURNAL_ENDS = bytes.fromhex("d9d505f920a163d7")  # where it names a file that goes with it
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
            _check_files(folder)
            self._table = _careful(sqlite3.connect(folder / _FILE, timeout=_WAIT_S))
            with self._table:
                self._table.execute("BEGIN IMMEDIATE")  # two workers may come at once
                for name in sorted(_TABLES.keys() - _tables_in(self._table)):
                    self._table.execute(_TABLES[name])
        except (OSError, ValueError, sqlite3.Error) as error:
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
            RunError: If the disk does not take it, as whatever else writes, or something else is to
                be done under this key.
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
        if not _same(self.content(key), content):
            raise RunError(
                f"{self.folder / _FILE}: something else than {label} is to be done under {key}: "
                "the file was edited or exchanged. Put it back, or name another folder."
            )

    def all(self, keys: list[str]) -> list[Job]:
        """Return the jobs of these keys that are in the table, in the order of the keys."""
        with self._reading():
            found = (_row(self._table, f"SELECT {_COLUMNS} FROM jobs", key) for key in keys)
            return [_job(row) for row in found if row is not None]

    def content(self, key: str) -> str:
        """Return what is to be done, as `add` was told."""
        with self._reading():
            row = _row(self._table, "SELECT content FROM jobs", key)
            if row is None or not isinstance(row[0], str):
                raise ValueError(f"{key}: no job of this key found")
            return row[0]

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
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, sqlite3.Error) as error:
            raise _no_table(self.folder, error) from None

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


def results_in(folder: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Return what runs of a laboratory came to when they ended, by key.

    Args:
        folder: Of the laboratory.
        keys: Of the runs; one that has not ended is not in the answer.

    Raises:
        RunError: If the table of jobs is none.
    """
    path = folder / _FILE
    if not os.path.lexists(path):
        return {}
    try:
        _check_files(folder)
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        ) as connection:
            table = _careful(connection)
            if "results" not in _tables_in(table):
                return {}  # no run has ended since results are kept
            found = {key: _row(table, "SELECT result FROM results", key) for key in keys}
            return {
                key: parse_json(str(row[0]).encode(), marks=MARKS)
                for key, row in found.items()
                if row is not None
            }
    except (OSError, ValueError, sqlite3.Error) as error:
        raise _no_table(folder, error) from None


def _no_table(folder: Path, error: Exception) -> RunError:
    return RunError(f"{folder / _FILE}: {cut(str(error))}; expected a table of jobs.")


def _check_files(folder: Path) -> None:
    """Refuse, before SQLite opens it, what leads it elsewhere.

    Raises:
        ValueError: With what was found.
    """
    for name in (_FILE, f"{_FILE}-journal", f"{_FILE}-wal", f"{_FILE}-shm"):
        path = folder / name
        if path.is_symlink():
            raise ValueError(f"{name} is a link")
        with contextlib.suppress(FileNotFoundError), open_ordinary(path, _MOST_BYTES) as file:
            if name.endswith("-journal"):
                file.seek(max(0, os.fstat(file.fileno()).st_size - len(_JOURNAL_ENDS)))
                if file.read() == _JOURNAL_ENDS:
                    raise ValueError(f"{name} names another file, which SQLite would delete")


def _careful(table: sqlite3.Connection) -> sqlite3.Connection:
    """Return a connection that takes no large value and runs no function of the file's schema."""
    table.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_CELL_BYTES)
    table.execute("PRAGMA trusted_schema = OFF")
    table.execute("PRAGMA cell_size_check = ON")
    return table


def _tables_in(table: sqlite3.Connection) -> set[str]:
    """Return the names of the tables, which are ours and made as ours are.

    Raises:
        ValueError: If there is anything else: a view, a trigger, a table made otherwise.
    """
    found = set()
    for kind, name, of, sql in table.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        if kind == "table" and sql == _TABLES.get(name):
            found.add(name)
        elif not (kind == "index" and sql is None and name == f"sqlite_autoindex_{of}_1"):
            raise ValueError(f"{kind} {cut(str(name))!r} found in it, made otherwise or not by us")
    return found


def _row(table: sqlite3.Connection, query: str, key: str) -> tuple[Any, ...] | None:
    """Return the row of a key; by its index, so that no file makes that a long search."""
    found: tuple[Any, ...] | None = table.execute(f"{query} WHERE key = ?", (key,)).fetchone()
    return found


def _job(row: tuple[Any, ...]) -> Job:
    key, label, kind, state, elapsed_s, error = row
    texts = all(isinstance(text, str) for text in (key, label, error))
    if not texts or kind not in get_args(Kind) or state not in get_args(State):
        raise ValueError("a job without name, kind or state found")
    if not isinstance(elapsed_s, int | float):
        raise ValueError(f"{key}: no number of seconds found")
    return Job(key, label, kind, state, elapsed_s, error)


def _same(one: str, other: str) -> bool:
    """Return whether both are the same JSON; the first may be anything."""
    try:
        return one == other or parse_json(one.encode(), marks=MARKS) == json.loads(other)
    except ValueError:
        return False


def wait_a_moment() -> None:
    """Let other workers get on: all jobs are taken, and one of them may yet be let go."""
    time.sleep(0.5)
