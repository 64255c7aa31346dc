"""Putting files on the disk for good, and telling whether they are still what they were."""

import hashlib
import os
import sys
from pathlib import Path


def flush(path: Path) -> None:
    """Ask the operating system to put a file or folder on the disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # Windows opens no folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
