"""Untied models less tied ones, seed by seed, and the numbers that come of it."""

from collections.abc import Mapping, Sequence

import numpy as np

from assay.experiments.claim import Budget, Number
from assay.experiments.claims.tied_arms import (
    FEW,
    SIZES,
    Arm,
    arms_at,
    few_tokens,
    middle,
    trainings,
)
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task

BPB = "val_bits_per_byte"


def differences(budget: Budget, evidence: Evidence) -> dict[str, list[float]]:
    """Return bits per byte of every untied arm less those of the tied one, seed by seed."""
    more = {}
    for width in SIZES[budget].widths:
        tied = evidence.values(trainings(budget, width, "tied"), BPB)
        for arm in arms_at(budget, width)[1:]:
            other = evidence.values(trainings(budget, width, arm), BPB)
            more[f"{arm} {width}"] = [a - b for a, b in zip(other, tied, strict=True)]
    return more


def few_differences(budget: Budget, evidence: Evidence) -> dict[str, list[float]]:
    """Return by how much an untied arm's gap and best loss on little text exceed the tied one's."""
    more = {}
    for name, metric in (("gap", "gap_nats"), ("best", "best_val_nats")):
        tied = evidence.values(few_tokens(budget, "tied"), metric)
        for arm in FEW[1:]:
            other = evidence.values(few_tokens(budget, arm), metric)
            more[f"{name} {arm}"] = [a - b for a, b in zip(other, tied, strict=True)]
    return more


def slopes(more: Mapping[str, Sequence[float]], widths: Sequence[int]) -> list[float]:
    """Return, for each seed, the slope of untied less tied over doublings of the width."""
    by_width = np.array([more[f"untied {width}"] for width in widths])
    x = np.log2(widths) - np.log2(widths).mean()
    return list(map(float, x @ by_width / (x @ x)))


def both_runs(budget: Budget, arm: Arm) -> list[Task]:
    """Return the trainings of an arm and of the tied one, at every width."""
    found: list[Task] = []
    for width in SIZES[budget].widths:
        found += [*trainings(budget, width, "tied"), *trainings(budget, width, arm)]
    return found


def named(budget: Budget, found: Mapping[str, Comparison]) -> list[Number]:
    """Return the differences under names that do not depend on the budget's widths."""
    widths = SIZES[budget].widths
    places = {"small": widths[0], "middle": middle(budget), "large": widths[-1]}
    return [
        Number.difference(
            f"{arm}_{place}",
            found[f"{arm} {width}"],
            of=[*trainings(budget, width, "tied"), *trainings(budget, width, arm)],
        )
        for place, width in places.items()
        for arm in arms_at(budget, width)[1:]
    ]


def gap(budget: Budget, name: str, found: Comparison) -> Number:
    """Return what an arm has more of than the tied one on little text."""
    what, arm = name.split()
    looked = few_tokens(budget, "tied") + few_tokens(
        budget, "untied" if arm == "untied" else "narrow"
    )
    return Number.difference(f"{what}_{arm}", found, of=looked)
