"""Results as they were when a study was first reported: what was edited since is noticed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assay.disk import read_json
from assay.errors import RunError
from assay.experiments.outcome import Outcome
from assay.experiments.written import write_whole

_MOST_BYTES = 1 << 22
_NAME = "reported.json"


def keep_reported(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write down the results of the runs that have ended.

    Raises:
        RunError: If the disk does not take it.
    """
    results = {run.key: _result(run) for run in outcomes if run.state in ("finished", "diverged")}
    write_whole(folder / _NAME, json.dumps(results, indent=1) + "\n")


def check_as_reported(folder: Path, lab: Path, outcomes: Sequence[Outcome]) -> None:
    """Compare results with those that were reported.

    Raises:
        RunError: With both numbers, where one is not the same.
    """
    path = folder / _NAME
    if not path.is_file():
        return
    try:
        reported = read_json(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: unreadable ({error}). Put it back from a copy, or remove it to report the "
            "runs as they are now."
        ) from None
    for run in outcomes:
        before, now = reported.get(run.key), _result(run)
        if before is not None and run.state != "waiting" and before != now:
            raise RunError(
                f"{lab / 'cells' / run.key}: {now} found, {before} when {folder.name} was "
                "reported: the run folder was edited or exchanged. Put it back, or remove it and "
                f"{path}, and the cell is run again."
            )


def _result(run: Outcome) -> dict[str, Any]:
    return {"state": run.state, **run.metrics}
