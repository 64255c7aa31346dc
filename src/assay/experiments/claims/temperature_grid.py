"""The temperatures at which writers write."""

from assay.experiments.claim import Budget

LOW, MIDDLE, HIGH = 0.5, 1.0, 1.3
"""The article's rows."""
DIVERSITY = "distinct_4"
_QUICK = (0.1, LOW, MIDDLE, HIGH)
_GRID = (0.1, 0.2, 0.3, LOW, 0.7, 0.85, MIDDLE, HIGH, 1.6, 2.0)


def grid(budget: Budget) -> tuple[float, ...]:
    """Return the temperatures of a budget, rising."""
    return _QUICK if budget == "quick" else _GRID
