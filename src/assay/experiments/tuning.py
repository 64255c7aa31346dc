"""A field tuned for every arm: the same values, as many runs, and seeds that no result is read on.

Trials are a study of their own, each arm at each value, so they are cells like any other.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from assay.errors import ConfigError
from assay.experiments.design import Arm, Design, shown
from assay.experiments.made import Tuning
from assay.experiments.outcome import Outcome
from assay.experiments.study import Study

SEEDS_APART = 1_000_000
"""From the first seed of a study to the first of its trials: no study has so many."""


def declare(design: Design, field: str, values: Sequence[Any], n_seeds: int, study: str) -> Tuning:
    """Return the tuning of one field over the arms of a design.

    Raises:
        ConfigError: If the field is compared or matched by, or there are fewer than two values.
    """
    taken = {name for arm in design.arms for name in (*arm.changes, *arm.besides)}
    if field in taken:
        raise ConfigError(
            f"--tune: {field} found, which arms are compared or matched by; expected another "
            "field, such as train.optimizer.lr."
        )
    if len(values) < 2:
        raise ConfigError(
            f"--tune: {len(values)} value of {field} found; expected at least 2, such as "
            f"{field}=1e-3,2e-3,4e-3."
        )
    first = design.seeds[0] + SEEDS_APART
    seeds = tuple(range(first, first + n_seeds))
    return Tuning(field=field, values=tuple(values), seeds=seeds, study=study)


def trials_of(design: Design, tuning: Tuning) -> Design:
    """Return the design of the trials."""
    arms = [_trial(arm, tuning, value) for arm in design.arms for value in tuning.values]
    return Design(design.base, arms, tuning.seeds)


def tuned(design: Design, tuning: Tuning, trials: Study) -> Design:
    """Return the design with the best value of each arm besides.

    Raises:
        RunError: If trials have not ended.
    """
    outcomes = trials.ended_outcomes()
    arms = []
    for arm in design.arms:
        runs = {n: outcomes[_trial(arm, tuning, v).name] for n, v in enumerate(tuning.values)}
        best = min(runs, key=lambda n: _rank(runs[n], trials.record.metric))
        arms.append(replace(arm, besides={**arm.besides, tuning.field: tuning.values[best]}))
    made = design.made.model_copy(update={"tuning": tuning})
    return Design(design.base, arms, design.seeds, made=made)


def at_edge(tuning: Tuning, value: object) -> bool:
    """Return whether the best value is the least or the greatest tried."""
    numbers = [v for v in tuning.values if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(numbers) == len(tuning.values) and value in (min(numbers), max(numbers))


def _trial(arm: Arm, tuning: Tuning, value: object) -> Arm:
    name = f"{arm.name} {tuning.field}={shown(value)}"
    return Arm(name, {**arm.changes, tuning.field: value}, arm.besides)


def _rank(runs: Sequence[Outcome], metric: str) -> tuple[int, float]:
    """Return what sorts the better value first: fewer diverged runs, then the lower mean."""
    values = [run.value(metric) for run in runs]
    found = [value for value in values if math.isfinite(value)]
    return len(values) - len(found), sum(found) / len(found) if found else math.inf
