"""A learning rate for each arm, tuned by one rule on seeds that are not compared."""

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

from assay.experiments.claim import Budget
from assay.experiments.claims.bases import EXTENTS, base
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.train import Train

_RATE = "train.optimizer.lr"
_FIRST = {"quick": (-1, 0), "laptop": (-2, -1, 0, 1), "full": (-3, -2, -1, 0, 1)}
_MOST_FURTHER = 4
_SEEDS = (1000, 1001)
_Steps = dict[int, list[Train]]  # by place in 1, 2, 5, 10, 20, 50, ...; 0 is the base's own rate


def trials(
    budget: Budget, changes: Mapping[str, Any], evidence: Evidence
) -> dict[float, list[Train]]:
    """Return the trainings of an arm by learning rate, as far as the evidence calls for them.

    Rates are 1, 2 and 5 times powers of ten of the base's. While the best of those tried is the
    least or the greatest, the next beyond it is tried as well, up to four in all.
    """
    tried = _tried(budget, changes, evidence)
    return {_rate(budget, step): tried[step] for step in sorted(tried)}


def best_rate(budget: Budget, changes: Mapping[str, Any], evidence: Evidence) -> float | None:
    """Return the rate of the least mean loss, a diverged run counting as the worst; None as yet."""
    step = _best(_tried(budget, changes, evidence), evidence)
    return None if step is None else _rate(budget, step)


def tuned(
    budget: Budget, changes: Mapping[str, Any], evidence: Evidence
) -> tuple[list[Train], Mapping[str, Any] | None]:
    """Return the trainings that tuning needs, and the arm's changes with its rate once known."""
    wanted = [task for tasks in trials(budget, changes, evidence).values() for task in tasks]
    rate = best_rate(budget, changes, evidence)
    return wanted, None if rate is None else {**changes, _RATE: rate}


def _tried(budget: Budget, changes: Mapping[str, Any], evidence: Evidence) -> _Steps:
    tried = {step: _trainings(budget, changes, step) for step in _FIRST[budget]}
    for _ in range(_MOST_FURTHER):
        best = _best(tried, evidence)
        if best is None or min(tried) < best < max(tried):
            break
        beyond = best + 1 if best == max(tried) else best - 1
        tried[beyond] = _trainings(budget, changes, beyond)
    return tried


def _best(tried: _Steps, evidence: Evidence) -> int | None:
    if any(task not in evidence for tasks in tried.values() for task in tasks):
        return None
    losses = {
        step: mean(
            loss if math.isfinite(loss) else math.inf
            for loss in evidence.values(tasks, "val_loss_nats")
        )
        for step, tasks in tried.items()
    }
    return min(losses, key=lambda step: losses[step])


def _trainings(budget: Budget, changes: Mapping[str, Any], step: int) -> list[Train]:
    changed = {**changes, _RATE: _rate(budget, step)}
    return [Train(run=base(budget, seed=seed, changes=changed)) for seed in _SEEDS]


def _rate(budget: Budget, step: int) -> float:
    return float((1, 2, 5)[step % 3] * 10.0 ** (step // 3) * EXTENTS[budget].lr)
