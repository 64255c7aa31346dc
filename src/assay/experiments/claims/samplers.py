"""Samplers, each at as many settings, and how far they reach in diversity and quality."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from assay.experiments.claim import Budget
from assay.experiments.claims.writers import JUDGES, written
from assay.experiments.evidence import Evidence, Record
from assay.experiments.tasks.text import Written
from assay.measure.frontier import dominated_area
from assay.sampling import SamplingConfig
from assay.schema import decode

FIRST = "fixed"
"""The sampler that the others are held to."""
# From nearly greedy to about the diversity of temperature 1, by as many settings each.
SETTINGS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    FIRST: [{"temperature": t} for t in (0.2, 0.4, 0.6, 0.8, 1.0)],
    "entropy": [
        {"adapt": {"kind": "entropy", "target_nats": h}} for h in (0.3, 0.6, 1.0, 1.5, 2.0)
    ],
    "edt": [
        {"temperature": t, "adapt": {"kind": "edt", "floor": 0.1}}
        for t in (0.3, 0.5, 0.7, 0.9, 1.1)
    ],
    "dynatemp": [
        {"adapt": {"kind": "dynatemp", "low": low, "high": high}}
        for low, high in ((0.1, 0.4), (0.2, 0.7), (0.3, 1.0), (0.4, 1.3), (0.5, 1.6))
    ],
    "top_k": [{"top_k": k} for k in (2, 3, 5, 9, 16)],
    "top_p": [{"top_p": p} for p in (0.3, 0.5, 0.7, 0.85, 0.95)],
    "min_p": [{"min_p": p} for p in (0.5, 0.3, 0.15, 0.07, 0.03)],
}  # fmt: skip
_SAMPLES: Mapping[Budget, int] = {"quick": 12, "laptop": 48, "full": 1000}
_BOUND = 0.02  # of the area: nearer to none or to all of it, nothing is told apart


def samplings(budget: Budget, name: str) -> list[SamplingConfig]:
    """Return the settings of a sampler: as many for each."""
    settings = SETTINGS[name]
    return [decode(SamplingConfig, s) for s in (settings[1::2] if budget == "quick" else settings)]


def by_sampler(budget: Budget) -> dict[str, list[Written]]:
    """Return the tasks of each sampler, one a seed."""
    return {name: written(budget, samplings(budget, name), _SAMPLES[budget]) for name in SETTINGS}


def frontier(record: Record, judge: str, n_settings: int) -> list[tuple[float, float]]:
    """Return (diversity, quality) of each setting, people's text being (1, 1).

    Diversity is the share of different 4-grams over that of people's text. Quality falls with the
    bits a character costs the judge, from 1 at people's bits to 0 at those of random letters.
    Neither counts beyond 1: text more predictable than people's is not better for it.
    """
    worst, people = record.value("random_bits"), record.value(f"human.{judge}")
    diverse = record.value("human.distinct_4")
    return [
        (
            min(1.0, record.value(f"s{i}.distinct_4") / diverse),
            min(1.0, (worst - record.value(f"s{i}.{judge}")) / (worst - people)),
        )
        for i in range(n_settings)
    ]


def told_apart(evidence: Evidence, found: Sequence[Written]) -> bool:
    """Return whether both judges tell the settings of a sampler apart, under every seed."""
    return all(
        _tells(evidence[task], who, len(task.samplings))
        for task in found
        for who in JUDGES
        if evidence[task].state == "done"
    )


def _tells(record: Record, judge: str, n_settings: int) -> bool:
    """Return whether a judge tells settings apart: at the bounds all samplers look alike."""
    points = frontier(record, judge, n_settings)
    inside = any(0 < quality < 1 for _, quality in points)
    return inside and _BOUND < dominated_area(points) < 1 - _BOUND


def area_of(record: Record, judge: str, n_settings: int) -> float:
    """Return the area that the settings dominate; NaN where a training ran away."""
    if record.state != "done":
        return math.nan
    return dominated_area(frontier(record, judge, n_settings))
