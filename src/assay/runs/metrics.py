"""Lines of JSON, appended as the run goes; cut back to the restored step when it is resumed."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from assay.disk import flush, open_ordinary, parse_json
from assay.errors import RunError

_MOST_LINE, _MOST_MARKS = 1 << 20, 1 << 16  # of a row: 200 bytes; the first has some a layer
Row = Mapping[str, Any]


class Metrics:
    """Two files side by side: what repeats to the bit, and what the clock said."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        self._values = _reopened(folder / "metrics.jsonl", after_step)
        self._timings = _reopened(folder / "timings.jsonl", after_step)
        self._hash = _hash_of(_rows_until(folder / "metrics.jsonl", after_step))

    @property
    def sha256(self) -> str:
        """Of all rows of values so far, in hexadecimal: what `sha256_until` finds again."""
        return self._hash.hexdigest()

    def write(self, values: Row, timings: Row | None = None) -> None:
        """Append a row to each file, and hand them to the operating system."""
        self._hash.update(_line(values).encode())
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
    for line, place in _lines(path):
        if not line.endswith("\n") and len(line) < _MOST_LINE:
            return
        if (row := _row(line)) is None:
            raise _damaged(place)
        yield row


def sha256_until(path: Path, step: int) -> str:
    """Return the SHA-256 of the rows up to `step`, in hexadecimal.

    Raises:
        RunError: At a line that is no row, where rows up to `step` follow it.
    """
    return _hash_of(_rows_until(path, step)).hexdigest()


def _hash_of(rows: Iterable[Row]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_line(row).encode())
    return digest


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line and where it is."""
    if not path.is_file():
        return
    with open_ordinary(path) as file:
        for number in itertools.count(1):
            line = file.readline(_MOST_LINE)
            if not line:
                return
            yield line.decode(errors="replace"), f"{path}, line {number}"


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = parse_json(line.encode(), marks=_MOST_MARKS, finite=False)
    except ValueError:
        return None
    return row if isinstance(row.get("step"), int) else None


def _damaged(place: str) -> RunError:
    return RunError(f"{place}: not a row of metrics; the file was damaged. Remove the line.")


def _reopened(path: Path, after_step: int) -> IO[str]:
    """Open for appending, rows of later steps removed: they are superseded.

    The new file and its name are on the disk when this returns: a power cut may not take rows of
    which the checkpoint says that they are there.
    """
    rows = _rows_until(path, after_step)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(map(_line, rows))
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)
    return path.open("a", encoding="utf-8")


def _rows_until(path: Path, step: int) -> Iterator[dict[str, Any]]:
    """Yield the rows up to `step`.

    These were flushed with its checkpoint. After them a power cut leaves anything, such as zeros
    in the place of rows, and that goes the way of the rows it replaces.

    Raises:
        RunError: At a line that is no row, where rows up to `step` follow it.
    """
    odd = None
    for line, place in _lines(path):
        row = _row(line) if line.endswith("\n") else None
        if row is None:
            odd = odd or place
        elif row["step"] <= step:
            if odd is not None:
                raise _damaged(odd)
            yield row


def _append(file: IO[str], row: Row) -> None:
    file.write(_line(row))
    file.flush()


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
