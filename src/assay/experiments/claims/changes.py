"""Numbers, one a seed, compared as the losses of runs are."""

from collections.abc import Mapping, Sequence

from assay.experiments.compare import Comparison, compare
from assay.experiments.outcome import Outcome

_ZERO = "zero"
_METRIC = "number"


def against(
    values: Mapping[str, Sequence[float]], *, delta: float | None = None
) -> dict[str, Comparison]:
    """Compare the numbers of each arm with the first arm's, seed by seed, Holm over the arms."""
    outcomes = {
        arm: [
            Outcome(arm, seed, "", "finished", {_METRIC: value}, "", 0.0)
            for seed, value in enumerate(each)
        ]
        for arm, each in values.items()
    }
    return {found.arm: found for found in compare(outcomes, _METRIC, delta=delta)}


def against_zero(
    values: Mapping[str, Sequence[float]], *, delta: float | None = None
) -> dict[str, Comparison]:
    """Compare numbers that are differences already with zero; `higher` is above it."""
    n = max(map(len, values.values()))
    return against({_ZERO: [0.0] * n, **values}, delta=delta)
