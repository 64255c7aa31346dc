"""`study.json`: what a study compares and which cells it needs, sealed by its own hash."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from assay.disk import read_json
from assay.errors import ConfigError, RunError
from assay.experiments.made import Made
from assay.experiments.written import seal, write_whole
from assay.schema import Config, decode, shown

_MOST_BYTES = 1 << 22
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""The name of a cell, which is joined to a path: as `cell_key` makes it, and nothing else."""
Keys = Annotated[dict[str, dict[str, Key]], Field(min_length=2)]


class ArmRecord(Config):
    """An arm as `study.json` holds it."""

    name: str
    changes: dict[str, Any]
    besides: dict[str, Any] = Field(default_factory=dict)


class StudyRecord(Config):
    """What `study.json` holds."""

    base: dict[str, Any]
    """The config that arms change."""
    arms: Annotated[tuple[ArmRecord, ...], Field(strict=False)]
    """The first is what the others are held to."""
    seeds: Annotated[tuple[int, ...], Field(strict=False)]
    """Of every arm."""
    metric: str
    """What arms are compared by."""
    delta: float | None
    """The smallest difference that matters."""
    made: Made = Made()
    """How arms were made comparable, and seeds added."""
    code_sha256: str
    """Of the source files that numbers depend on."""
    keys: Keys
    """The cell of each arm and seed."""
    other_code: dict[Key, str] = Field(default_factory=dict)
    """Cells made by other code, and its hash: only where it was asked for."""

    def check_whole(self) -> None:
        """Refuse a record that lacks the cell of some arm and seed.

        Raises:
            ConfigError: With the first that is missing.
        """
        for arm in self.arms:
            for seed in self.seeds:
                if str(seed) not in self.keys.get(arm.name, {}):
                    raise ConfigError(f"keys: none for arm {shown(arm.name)} and seed {seed}")


def read_record(path: Path) -> StudyRecord:
    """Return what a study.json holds.

    Raises:
        FileNotFoundError: If there is none.
        RunError: If it was damaged, or edited since it was written.
    """
    try:
        content = read_json(path, _MOST_BYTES)
        sealed = content.pop("sha256", None)
        record = decode(StudyRecord, content)
        record.check_whole()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: unreadable ({error}). Put it back from a copy.") from None
    if sealed != seal(content):
        raise RunError(
            f"{path}: edited since it was written: its SHA-256 is {seal(content)[:16]}..., "
            f"{str(sealed)[:16]}... stands in it. Put it back from a copy, or make the study under "
            "another --name; its runs are not made again."
        )
    return record


def settle_record(
    path: Path, record: StudyRecord, mixed: Callable[[StudyRecord], StudyRecord] | None
) -> StudyRecord:
    """Write a record down, unless it is there; return the one that holds.

    Args:
        path: Of the study.json.
        record: As this code makes it.
        mixed: Given the record of other code, what keeps its cells; None where mixing is refused.

    Raises:
        RunError: If another study is there, the same by other code and that is refused, or the
            disk does not take it.
    """
    try:
        there = read_record(path)
    except FileNotFoundError:
        _write(path, record)
        return record
    if _asked(there) != _asked(record):
        raise RunError(
            f"{path.parent}: another study of this name is there, which differs in "
            f"{_difference(there, record)}. Choose another --name; what both need is run once."
        )
    if there.code_sha256 == record.code_sha256 and not there.other_code:
        return there
    if mixed is None:
        raise RunError(
            f"{path.parent}: runs made by other code found (SHA-256 {there.code_sha256[:16]}..., "
            f"now {record.code_sha256[:16]}...), whose numbers are not mixed with new ones. Choose "
            "another --name to run all anew, or keep them, marked, by --mix-code."
        )
    record = mixed(there)
    _write(path, record)
    return record


def _write(path: Path, record: StudyRecord) -> None:
    content = json.loads(record.model_dump_json())
    text = json.dumps({**content, "sha256": seal(content)}, indent=1, ensure_ascii=False)
    write_whole(path, text + "\n")


def _asked(record: StudyRecord) -> dict[str, Any]:
    """Return what a user asked for: all but the code and the cells it names."""
    content: dict[str, Any] = json.loads(record.model_dump_json())
    return {
        name: value
        for name, value in content.items()
        if name not in ("code_sha256", "keys", "other_code")
    }


def _difference(there: StudyRecord, record: StudyRecord) -> str:
    one, other = _asked(there), _asked(record)
    return ", ".join(name for name in other if one[name] != other[name])
