"""A folder of prepared files that is whole or not there, whatever happens while it is written."""

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from assay.disk import flush, read_json, sha256_of
from assay.errors import DataError

_log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
_QUIET_S = 3.0
"""After which somebody who waits for another process is told so."""
_MOST_BYTES = 1 << 16


def cache_folder(given: Path | None) -> Path:
    """Return `given`, else what ASSAY_CACHE names, else the platform's folder for caches."""
    if given is not None:
        return given
    if named := os.environ.get("ASSAY_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "assay"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "assay"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay"


def open_entry(
    entry: Path,
    build: Callable[[Path], None],
    *,
    what: str = "the prepared text",
    patience_s: float | None = None,
) -> str:
    """Make sure that `entry` is there and whole; say how: `found`, `built` or `rebuilt: WHY`.

    Every file is compared with the SHA-256 it was written with. An entry that is missing or
    differs is built by `build` in a temporary folder, synced to disk and renamed, under a lock, so
    that two processes may ask at once and a killed one leaves nothing under the final name.

    Args:
        entry: The folder.
        build: Writes the files into a folder.
        what: The entry holds, for messages.
        patience_s: Longest to wait for another process that builds it; None: as long as it takes.

    Raises:
        DataError: When the cache cannot be written (a full disk, permissions), or another process
            took too long.
    """
    if find_fault(entry) is None:
        return "found"
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _locked(entry, what, patience_s):
            fault = find_fault(entry)  # another process may have built it meanwhile
            if fault is None:
                return "found"
            existed = entry.exists()
            _build(entry, build)
    except OSError as error:
        raise DataError(
            f"{entry.parent}: cannot write {what} ({error.strerror or error}); expected a "
            "folder with room. Free some space, or set ASSAY_CACHE to another folder."
        ) from None
    return f"rebuilt: {fault}" if existed else "built"


@contextmanager
def _locked(entry: Path, what: str, patience_s: float | None) -> Iterator[None]:
    """Hold the lock of an entry; say so where another process has it for long.

    Raises:
        DataError: If it has it for longer than there is patience.
    """
    lock = FileLock(entry.with_suffix(".lock"))
    try:
        lock.acquire(timeout=_QUIET_S)
    except Timeout:
        _log.warning("another process makes %s; waiting for it (%s).", what, lock.lock_file)
        try:
            lock.acquire(timeout=-1 if patience_s is None else patience_s)
        except Timeout:
            raise DataError(
                f"{lock.lock_file}: another process has been making {what} for over "
                f"{patience_s:.0f} s; expected it to end. If it hangs or was stopped, end it."
            ) from None
    try:
        yield
    finally:
        lock.release()


def find_fault(entry: Path) -> str | None:
    """Return what is wrong with an entry, or None."""
    try:
        files = _sealed(entry)
        if files.keys() != {path.name for path in entry.iterdir()} - {MANIFEST}:
            return f"its files are not those that {MANIFEST} names"
        for name, kept in files.items():
            if (entry / name).stat().st_size != kept["bytes"]:
                return f"{name} has another size than it was written with"
            if sha256_of(entry / name) != kept["sha256"]:
                return f"{name} has another SHA-256 than it was written with"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} or a file it names is missing or unreadable"
    return None


def file_sha256(entry: Path, name: str) -> str:
    """Return the SHA-256 that the manifest records for one file of a whole entry."""
    sha256: str = _sealed(entry)[name]["sha256"]
    return sha256


def _sealed(entry: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each file, as the manifest records them."""
    files: dict[str, dict[str, Any]] = read_json(entry / MANIFEST, _MOST_BYTES)["files"]
    return files


def _build(entry: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{entry.name[:12]}-"
    for left in entry.parent.glob(f"{prefix}*"):  # by a process that was killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=entry.parent, prefix=prefix))
    try:
        build(folder)
        _seal(folder)
        if entry.exists():  # spoilt: move it aside, since only an empty folder can be renamed over
            aside = tempfile.mkdtemp(dir=entry.parent, prefix=".spoilt-")
            entry.rename(Path(aside) / entry.name)
            shutil.rmtree(aside)
        folder.rename(entry)
        flush(entry.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Write the manifest and push everything to the disk."""
    paths = sorted(folder.iterdir())
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1))
    for path in (*paths, folder / MANIFEST, folder):
        flush(path)
