"""Lines of JSON, appended as the run goes; cut back to the restored step when it is resumed."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from assay.errors import RunError

Row = Mapping[str, Any]


class Metrics:
    """Two files side by side: what repeats to the bit, and what the clock said."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        self._values = _reopened(folder / "metrics.jsonl", after_step)
        self._timings = _reopened(folder / "timings.jsonl", after_step)

    def write(self, values: Row, timings: Row | None = None) -> None:
        """Append a row to each file, and hand them to the operating system."""
        _append(self._values, values)
        if timings is not None:
            _append(self._timings, timings)

    def sync(self) -> None:
        """Put both files on the disk: a checkpoint must not outlive the rows before it."""
        for file in (self._values, self._timings):
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close both files."""
        self._values.close()
        self._timings.close()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; a last line torn by a kill is left out.

    Raises:
        RunError: At a whole line that is no row.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            yield _row(line, f"{path}, line {number}")


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise RunError(f"{place}: not a row of metrics; the file was damaged. Remove the line.")
    return row


def _reopened(path: Path, after_step: int) -> IO[str]:
    """Open for appending, rows of later steps removed: they are superseded."""
    rows = [row for row in read_rows(path) if row["step"] <= after_step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(_line(row) for row in rows), encoding="utf-8")
    temporary.replace(path)
    return path.open("a", encoding="utf-8")


def _append(file: IO[str], row: Row) -> None:
    file.write(_line(row))
    file.flush()


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
