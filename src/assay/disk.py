"""Putting files on the disk for good, and reading files that a stranger may have written.

What is read here is of a bounded size, an ordinary file, and parsed without running anything.
"""

import gzip
import hashlib
import json
import math
import os
import re
import stat
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

MARKS = 1 << 18
"""Most commas, colons and brackets in a JSON file: each costs up to 90 bytes of memory."""
HEADER_BYTES = 1 << 21
"""Largest header of a stranger's safetensors file: 1,000 layers take half; a tensor costs a KB."""
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def flush(path: Path) -> None:
    """Ask the operating system to put a file or folder on the disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # Windows opens no folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path, limit: int | None = None) -> str:
    """Return the SHA-256 of an ordinary file, in hexadecimal; its content is never held.

    Raises:
        OSError, ValueError: As `open_ordinary` does.
    """
    with open_ordinary(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of an ordinary file; a pipe or a device would be waited for without end.

    Raises:
        OSError: If there is none, or it may not be looked at.
        ValueError: If it is not an ordinary file.
    """
    return _ordinary(path.stat())


def open_ordinary(path: Path, limit: int | None = None) -> BufferedReader:
    """Open an ordinary file of at most `limit` bytes to be read.

    It is looked at before, since to open a device may do something, and after, since another file
    may have got its name meanwhile; to open a pipe does not wait for its writer.

    Raises:
        OSError: If there is none, or it may not be read.
        ValueError: If it is not an ordinary file, or larger.
    """
    size_of(path)
    descriptor = os.open(path, os.O_RDONLY | _NO_WAIT)
    try:
        size = _ordinary(os.fstat(descriptor))
        if limit is not None and size > limit:
            raise ValueError(f"{size} bytes found; expected at most {limit}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _ordinary(found: os.stat_result) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("a folder, a pipe or a device found; expected an ordinary file")
    return found.st_size


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the content of an ordinary file of at most `limit` bytes.

    Raises:
        OSError, ValueError: As `open_ordinary` does.
    """
    with open_ordinary(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def unzipped_lines(path: Path, *, packed: int, unpacked: int, line: int) -> Iterator[bytes]:
    """Yield the lines of a gzip file, one held at a time, each without its line break.

    Args:
        path: The file.
        packed: Most bytes of the file.
        unpacked: Most bytes that may come out of it.
        line: Most bytes of a line.

    Raises:
        OSError, ValueError: As `open_ordinary` does, if it is no whole gzip file, or if more comes
            out of it.
    """
    with open_ordinary(path, packed) as file, gzip.GzipFile(fileobj=file, mode="rb") as stream:
        left = unpacked
        try:
            while found := stream.readline(min(line, left) + 2):
                left -= len(found)
                if left < 0:
                    raise ValueError(f"over {unpacked} bytes come out of it; expected fewer")
                if len(found.rstrip(b"\r\n")) > line:
                    raise ValueError(f"a line of over {line} bytes found; expected shorter ones")
                yield found.rstrip(b"\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{error}; expected a whole gzip file") from None


def read_json(path: Path, limit: int, *, finite: bool = True) -> dict[str, Any]:
    """Return the JSON object in a file of at most `limit` bytes.

    Refused, beside what is no JSON: a name twice in one object (readers differ in which they
    take), what UTF-8 cannot hold, endless nesting, and more than `MARKS` values.

    Args:
        path: The file.
        limit: In bytes.
        finite: Whether NaN and infinities, which JSON does not have and Python writes, are refused.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If its content will not do, with what was found and what is expected.
    """
    return parse_json(read_bytes(path, limit), marks=MARKS, finite=finite)


def parse_json(content: bytes, *, marks: int, finite: bool = True) -> dict[str, Any]:
    """Return the JSON object that `content` spells; see `read_json`.

    Raises:
        ValueError: If it spells none, or has more than `marks` commas, colons and brackets.
    """
    if (found := count_marks(content)) > marks:
        raise ValueError(f"{found} commas, colons and brackets found; expected at most {marks}")
    surrogates = _SURROGATE.search(content) is not None
    number = _finite if finite else float
    try:
        data = json.loads(
            content.decode(), object_pairs_hook=_unique, parse_constant=number, parse_float=number
        )
        if surrogates:
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested without end; expected a few levels") from None
    except UnicodeError as error:  # whose own words quote the whole content
        start = getattr(error, "start", 0)
        raise ValueError(f"no UTF-8 at place {start}; expected UTF-8 throughout") from None
    if not isinstance(data, dict):
        raise ValueError(f"{type(data).__name__} found; expected a JSON object")
    return data


def count_marks(content: bytes) -> int:
    """Return the commas, colons and brackets of JSON: each stands for a value at most."""
    return sum(map(content.count, (b",", b":", b"[", b"{")))


def check_header(path: Path, most: int = HEADER_BYTES) -> int:
    """Return the length of a safetensors file's header, which fits the file and is at most `most`.

    The library checks all else, but would read a header of 100 MB into far more memory.

    Raises:
        OSError, ValueError: As `size_of` does, or if the length cannot be true or is too large.
    """
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, most):
        raise ValueError(
            f"a header of {length} bytes announced in a file of {size}; expected one that fits, "
            f"of at most {most}"
        )
    return length


def check_owner(path: Path, found: os.stat_result) -> None:
    """Refuse what another user owns or may write.

    Raises:
        OSError: If so.
    """
    if found.st_uid not in (os.geteuid(), 0):
        raise OSError(
            f"{path} belongs to user {found.st_uid}; expected you or root. Set ASSAY_CACHE to a "
            "folder of your own"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{path} can be written by others; expected by you alone (chmod go-w)")


def leads_out(folder: Path, *, also: Iterable[Path] = ()) -> Path | None:
    """Return the first thing in `folder` that is no file, no folder and no link to one inside it.

    That is a link to what lies outside, which would be read or written in its place, a pipe, a
    socket or a device. Links are not followed on the way.

    Args:
        folder: Searched with all below it.
        also: Other folders to which a link may lead.
    """
    inside = [os.path.realpath(place) for place in (folder, *also)]
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            if not _stays(path, inside):
                return Path(path)
    return None


def files_in(folder: Path, most: int) -> dict[str, Path]:
    """Return every file below a folder by its path from there, parts joined by `/`.

    So that a name somebody wrote down is looked up among those there are, and never joined to a
    path, which it could lead anywhere.

    Raises:
        ValueError: If something leads out of the folder or is no file, or there are over `most`.
    """
    if (odd := leads_out(folder)) is not None:
        raise ValueError(
            f"{str(odd.relative_to(folder))!r}: a link that leads out of the folder, a pipe or a "
            "device found; expected files and folders of its own"
        )
    found: dict[str, Path] = {}
    for parent, _, files in os.walk(folder):
        for path in (Path(parent, name) for name in files):
            found[path.relative_to(folder).as_posix()] = path
            if len(found) > most:
                raise ValueError(f"over {most} files found in it; expected fewer")
    return found


def _stays(path: str, inside: Iterable[str]) -> bool:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        target = os.path.realpath(path)
        return any(target.startswith(place.rstrip(os.sep) + os.sep) for place in inside)
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice[:80]!r} found twice in one object; expected it once")
    return found


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number[:80]} found; expected a finite number")
    return value
