"""Results as they were when their runs ended: what was edited since is noticed."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from assay.errors import RunError
from assay.experiments.outcome import Outcome


def check_as_ended(lab: Path, ended: Mapping[str, Any], outcomes: Iterable[Outcome]) -> None:
    """Compare results with those that the workers of a laboratory wrote down.

    Args:
        lab: Its folder.
        ended: What `results_in` read there.
        outcomes: As they are now.

    Raises:
        RunError: With both, where one is not the same.
    """
    for run in outcomes:
        before, now = ended.get(run.key), run.result()
        if before is not None and run.state != "waiting" and before != now:
            raise RunError(
                f"{lab / 'cells' / run.key}: {json.dumps(now)} found, {json.dumps(before)} when "
                "the run ended: its folder was edited or exchanged. Put it back, or remove it, "
                "and the cell is run again."
            )
