"""Times of rounds as numbers with intervals and as bands to be drawn.

Seconds are (rounds, points): rounds are the clusters, so every interval is Student's over rounds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from assay.experiments.claim import Number
from assay.experiments.evidence import Evidence
from assay.experiments.planning import ALPHA
from assay.experiments.statistics import t_interval
from assay.experiments.tasks import Task
from assay.experiments.tasks.cost import Pass, PassSeconds
from assay.measure.cost import log_slope


def exponent(
    name: str,
    evidence: Evidence,
    task: PassSeconds,
    what: Pass,
    *,
    last: int = 0,
    family: int = 1,
) -> Number:
    """Return the exponent of the times of a pass, over the `last` sizes or all.

    Bonferroni's level for a family of so many exponents judged together.
    """
    seconds = np.array(evidence[task].values[what])[:, -last:]
    level = 1 - ALPHA / family
    found = log_slope(task.grid.sizes[-last:], seconds, level=level)
    return Number(name, found.value, found.low, found.high, level=level, of=(task,))


def ratio(
    name: str,
    evidence: Evidence,
    task: Task,
    over: tuple[str, str],
    *,
    place: int = -1,
    family: int = 1,
) -> Number:
    """Return how many times longer the first takes than the second at one point.

    The geometric mean over rounds, in each of which both were timed.
    """
    one, other = (np.array(evidence[task].values[what])[:, place] for what in over)
    level = 1 - ALPHA / family
    logs = np.log(one / other)
    ends = t_interval(logs, level=level)
    mean, low, high = (float(np.exp(x)) for x in (logs.mean(), ends.low, ends.high))
    return Number(name, mean, low, high, level=level, of=(task,))


def bands(
    sizes: Sequence[int], seconds: Mapping[str, Sequence[Sequence[float]]]
) -> tuple[dict[str, Any], ...]:
    """Return rows of the median in ms with the quartiles over rounds, by what was timed."""
    return tuple(
        {"size": size, "ms": middle, "low": low, "high": high, "what": what}
        for what, rounds in seconds.items()
        for size, (low, middle, high) in zip(
            sizes, 1e3 * np.quantile(np.array(rounds), [0.25, 0.5, 0.75], axis=0).T, strict=True
        )
    )
