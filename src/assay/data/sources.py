"""From what the user names to the files that hold text."""

import difflib
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from assay.data.config import DataConfig
from assay.data.synthetic import TASKS
from assay.errors import DataError

BUNDLED = Path(__file__).parent / "bundled" / "shakespeare.jsonl.xz"
# The names of texts that come with the package: all works, or every second one from the 1st or 2nd.
_WORKS = {"shakespeare": 0, "shakespeare-1": 1, "shakespeare-2": 2}
COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst"})
# What a folder is searched for. A file named on its own, or by a glob, may have any suffix.
_PROSE = {".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".org", ".jsonl", ".srt", ".po"}
_CODE = {".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".js", ".ts"}
_CODE |= {".sh", ".sql", ".r", ".jl", ".lua", ".rb"}
_MARKUP = {".css", ".html", ".xml", ".toml", ".yaml", ".yml", ".csv", ".tsv"}
TEXT_SUFFIXES = frozenset(_PROSE | _CODE | _MARKUP)
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Origin:
    """One place text comes from.

    Attributes:
        name: As shown to the user and in errors.
        path: The file; for `hub`, the data set's name; for `task`, the task.
        format: How documents are told apart; a `task` is one document of many lines.
        field: Which field holds the text, for `jsonl` and `hub`.
        half: For `jsonl`: 1 or 2 takes every second line from that one on, 0 takes all.
    """

    name: str
    path: str
    format: Literal["text", "jsonl", "hub", "task"]
    field: str = "text"
    half: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What the entries of `data.text` name: origins in order, and the files passed over."""

    origins: tuple[Origin, ...]
    skipped: tuple[str, ...]


def find_origins(config: DataConfig) -> Found:
    """Resolve every entry of `config.text`. Standard input is copied to a temporary file.

    Raises:
        DataError: For a missing file, a folder without text, a glob that matches nothing.
    """
    origins: list[Origin] = []
    skipped: list[str] = []
    for entry in config.text:
        if Path(entry).is_dir():
            inside, left = _in_folder(Path(entry), config.json_field)
            origins += inside
            skipped += left
        else:
            origins += _resolve(entry, config.json_field)
    return Found(tuple(origins), tuple(skipped))


def _resolve(entry: str, field: str) -> list[Origin]:
    if entry in _WORKS:
        return [Origin(entry, str(BUNDLED), "jsonl", half=_WORKS[entry])]
    if entry.startswith("task:"):
        return [_task(entry)]
    if entry == "-":
        return [Origin("standard input", _spool(), "text")]
    if entry.startswith("hf:"):
        return [Origin(entry, entry.removeprefix("hf:"), "hub", field)]
    if Path(entry).is_file():
        return [_file(entry, field)]
    named_field = re.fullmatch(r"(.+\.jsonl(?:\.(?:gz|bz2|xz|zst))?):([^:/\\]+)", entry)
    if named_field:
        return _resolve(named_field[1], named_field[2])
    if glob.has_magic(entry):
        return _matching(entry, field)
    if os.path.lexists(entry):
        raise DataError(
            f"data.text: {entry!r} is a pipe, a device or a link to nothing; expected a file or a "
            "folder. Give a pipe as standard input: assay train - < PIPE"
        )
    raise DataError(
        f"data.text: no file, folder or text named {entry!r}.{_nearest(entry)} "
        "Expected 'shakespeare', a file, a folder, a glob, '-', 'task:NAME' or 'hf:NAME'."
    )


def _task(entry: str) -> Origin:
    name = entry.removeprefix("task:")
    if name not in TASKS:
        raise DataError(
            f"data.text: no task named {name!r}; expected one of {', '.join(TASKS)}. "
            f"(A file of that name is ./{entry}.)"
        )
    return Origin(entry, name, "task")


def _file(path: str, field: str) -> Origin:
    if path.lower().endswith(_ARCHIVES):
        raise DataError(
            f"{path}: an archive of files found; expected text. Unpack it and name the folder."
        )
    return Origin(path, path, "jsonl" if _suffix(path) == ".jsonl" else "text", field)


def _suffix(path: str) -> str:
    """Return the suffix that tells the format, in small letters, without the compression's."""
    stem, suffix = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] if suffix in COMPRESSIONS else suffix


def _matching(pattern: str, field: str) -> list[Origin]:
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not paths:
        raise DataError(
            f"data.text: {pattern!r} matches no file; check the pattern, "
            "and quote it so that the shell leaves it alone."
        )
    return [_file(path, field) for path in paths]


def _in_folder(folder: Path, field: str) -> tuple[list[Origin], list[str]]:
    paths = sorted(_walk(folder))
    kept = [path for path in paths if _suffix(path) in TEXT_SUFFIXES and os.path.isfile(path)]
    if not kept:
        raise DataError(
            f"{folder}: no text found among {len(paths)} files; expected files such as .txt, .md "
            "or .jsonl. Name files of another suffix one by one or by a glob."
        )
    return [_file(path, field) for path in kept], sorted(set(paths) - set(kept))


def _walk(folder: Path) -> Iterator[str]:
    """Yield the files below `folder`, hidden ones and hidden folders left out."""
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: {error.strerror}; expected a readable folder. Check its permissions."
    )


def _spool() -> str:
    """Copy standard input to a file, since a corpus is read more than once."""
    with tempfile.NamedTemporaryFile(prefix="assay-stdin-", delete=False) as spool:
        try:
            shutil.copyfileobj(sys.stdin.buffer, spool)
            spool.flush()
        except BaseException:
            os.unlink(spool.name)
            raise
    return spool.name


def _nearest(entry: str) -> str:
    parent = Path(entry).parent
    here = [str(parent / path.name) for path in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(entry, [*here, *_WORKS], n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
