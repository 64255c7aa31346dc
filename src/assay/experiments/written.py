"""Files that are whole or not there."""

from pathlib import Path

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
