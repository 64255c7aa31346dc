"""Files that are whole or not there, and the seal that shows whether their content was changed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from assay.disk import flush
from assay.errors import RunError


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all; folders on the way are made.

    Raises:
        RunError: If the disk does not take it.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="")
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}. Make room or permission, then "
            "give the same command again; runs that are done are kept."
        ) from None


def seal(content: Any) -> str:  # noqa: ANN401
    """Return the SHA-256 of JSON, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
