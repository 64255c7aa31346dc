"""Table and figure of the claim on kernels."""

from collections.abc import Sequence

import numpy as np

from assay.experiments.claim import Figure, Number, Table
from assay.experiments.claims.clock import bands
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.kernels import WAYS, AttentionSeconds


def seconds_table(evidence: Evidence, task: AttentionSeconds, gains: Sequence[Number]) -> Table:
    """Return the median time of every way at every length."""
    found = evidence[task].values
    rows: list[tuple[str | Number, ...]] = []
    for place, (n, gain) in enumerate(zip(task.seq_lens, gains, strict=True)):
        medians = {way: 1e3 * float(np.median(found[way], axis=0)[place]) for way in WAYS}
        numbers = [
            Number(f"ms_{way}_{n}", ms, unit="ms", of=(task,)) for way, ms in medians.items()
        ]
        rows.append((str(n), *numbers, gain))
    columns = ("tokens", "by_hand", "fused", "blocks", "gain")
    return Table("seconds", columns, tuple(rows), dict.fromkeys(columns[1:], ".2f"))


def seconds_figure(evidence: Evidence, task: AttentionSeconds) -> Figure:
    """Draw the time of every way over the length."""
    rows = bands(task.seq_lens, evidence[task].values)
    return Figure("seconds", "lines", rows, "size", "ms", "what", low="low", high="high", log="x y")
