"""Records on the disk: what a task found, sealed with a hash."""

import json
import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from assay.disk import read_json
from assay.engine.device import describe_machine, resolve_plan
from assay.errors import RunError
from assay.experiments.evidence import Record, unsealed
from assay.experiments.written import seal, write_whole
from assay.runs.manifest import code_version, now
from assay.train.config import TrainConfig

_MOST_BYTES = 1 << 24
_PACKAGES = ("assay", "torch", "numpy", "scipy")


def made_here(started: str, elapsed_s: float) -> dict[str, Any]:
    """Return when a record was made, how long that took, and by what."""
    return {
        "started": started,
        "ended": now(),
        "elapsed_s": round(elapsed_s, 3),
        "code": code_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "machine": describe_machine(resolve_plan(TrainConfig())),
    }


def finite(values: Any) -> Any:  # noqa: ANN401
    """Return values with None for each number that is not finite, however deep it stands."""
    if isinstance(values, Mapping):
        return {str(name): finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    if isinstance(values, float):
        return float(values) if math.isfinite(values) else None
    return values


def write_record(record: Record, folder: Path) -> None:
    """Put a record into `folder`/records, sealed, whole or not at all.

    Raises:
        RunError: If the disk does not take it.
    """
    content = record.model_dump(mode="json")
    sealed = {"record": content, "sha256": seal(content)}
    path = folder / "records" / f"{record.key}.json"
    write_whole(path, json.dumps(sealed, indent=1) + "\n")


def read_record(path: Path) -> Record:
    """Return a record that `write_record` wrote.

    Raises:
        RunError: If it cannot be read, or was changed since.
    """
    try:
        return unsealed(read_json(path, _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: {error}. Remove it, and the task is done again.") from None
