"""From numbers, one a seed, to what may be said of them."""

from collections.abc import Mapping, Sequence

from assay.experiments.claim import Verdict
from assay.experiments.compare import Comparison, compare
from assay.experiments.outcome import Outcome

_ZERO = "zero"
_METRIC = "number"
_SAID: Mapping[str, Verdict] = {"lower": "confirmed", "equivalent": "refuted", "higher": "refuted"}


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


def is_lower(found: Comparison) -> Verdict:
    """Return the verdict on "it is lower than the first"; equivalent refutes it."""
    return _SAID.get(found.word, "not resolved")


def is_higher(found: Comparison) -> Verdict:
    """Return the verdict on "it is higher than the first"; equivalent refutes it."""
    word = {"lower": "higher", "higher": "lower"}.get(found.word, found.word)
    return _SAID.get(word, "not resolved")


def is_not_higher(found: Comparison) -> Verdict:
    """Return the verdict on "it is no higher than the first"; equivalent confirms it."""
    opposite: dict[Verdict, Verdict] = {"confirmed": "refuted", "refuted": "confirmed"}
    return opposite.get(is_higher(found), "not resolved")


def is_not_lower(found: Comparison) -> Verdict:
    """Return the verdict on "it is no lower than the first"; equivalent confirms it."""
    opposite: dict[Verdict, Verdict] = {"confirmed": "refuted", "refuted": "confirmed"}
    return opposite.get(is_lower(found), "not resolved")
