"""A learning rate for each arm, tuned at equal cost on seeds that are not compared."""

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

from assay.experiments.claim import Budget
from assay.experiments.claims.bases import EXTENTS, base
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.train import Train

_RATE = "train.optimizer.lr"
_FACTORS = {"quick": (0.5, 1.0), "laptop": (0.2, 0.5, 1.0, 2.0), "full": (0.1, 0.2, 0.5, 1.0, 2.0)}
_SEEDS = (1000, 1001)


def trials(budget: Budget, changes: Mapping[str, Any]) -> dict[float, list[Train]]:
    """Return the trainings of an arm by learning rate: multiples of the base's own."""
    rates = [factor * EXTENTS[budget].lr for factor in _FACTORS[budget]]
    return {
        rate: [Train(run=base(budget, seed=s, changes={**changes, _RATE: rate})) for s in _SEEDS]
        for rate in rates
    }


def best_rate(budget: Budget, changes: Mapping[str, Any], evidence: Evidence) -> float | None:
    """Return the rate of the least mean loss, a diverged run counting as the worst; None as yet."""
    tried = trials(budget, changes)
    if any(task not in evidence for tasks in tried.values() for task in tasks):
        return None
    losses = {
        rate: mean(
            loss if math.isfinite(loss) else math.inf
            for loss in evidence.values(tasks, "val_loss_nats")
        )
        for rate, tasks in tried.items()
    }
    return min(losses, key=lambda rate: losses[rate])


def tuned(
    budget: Budget, changes: Mapping[str, Any], evidence: Evidence
) -> tuple[list[Train], Mapping[str, Any] | None]:
    """Return the trainings that tuning needs, and the arm's changes with its rate once known."""
    wanted = [task for tasks in trials(budget, changes).values() for task in tasks]
    rate = best_rate(budget, changes, evidence)
    return wanted, None if rate is None else {**changes, _RATE: rate}
