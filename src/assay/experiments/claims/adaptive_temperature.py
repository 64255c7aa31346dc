"""Adaptive temperature, the article's future work: does it reach further than a fixed one?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from assay.experiments.claim import (
    Budget,
    Claim,
    Figure,
    Judgement,
    Number,
    Part,
    Table,
    Verdict,
)
from assay.experiments.claims.writers import JUDGES, against_zero, written
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence, Record
from assay.experiments.tasks.text import Written
from assay.measure.frontier import dominated_area
from assay.sampling import SamplingConfig
from assay.schema import decode
from assay.source import Source

_FIRST = "fixed"
_ADAPTIVE = ("entropy", "edt", "dynatemp")
# From nearly greedy to about the diversity of temperature 1, by as many settings each.
_SETTINGS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    _FIRST: [{"temperature": t} for t in (0.2, 0.4, 0.6, 0.8, 1.0)],
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
_DELTA = 0.02  # of the area that people's text would have
_BOUND = 0.02


def samplings(budget: Budget, name: str) -> list[SamplingConfig]:
    """Return the settings of a sampler: as many for each."""
    settings = _SETTINGS[name]
    return [decode(SamplingConfig, s) for s in (settings[1::2] if budget == "quick" else settings)]


def by_sampler(budget: Budget) -> dict[str, list[Written]]:
    """Return the tasks of each sampler, one a seed."""
    return {name: written(budget, samplings(budget, name), _SAMPLES[budget]) for name in _SETTINGS}


def tasks(budget: Budget, evidence: Evidence) -> list[Written]:
    """Write with every setting of every sampler."""
    return [task for found in by_sampler(budget).values() for task in found]


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


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Compare every sampler's area with that of a fixed temperature, under both judges."""
    tasks_of = by_sampler(budget)
    areas = {
        (name, who): [_area(evidence[task], who, len(task.samplings)) for task in found]
        for name, found in tasks_of.items()
        for who in JUDGES
    }
    gains = {
        f"{name} {who}": [a - b for a, b in zip(area, areas[_FIRST, who], strict=True)]
        for (name, who), area in areas.items()
        if name != _FIRST
    }
    words = against_zero(gains, delta=_DELTA)
    told = _told(evidence, tasks_of[_FIRST])
    verdicts: dict[str, Verdict] = {
        name: _verdict(words, name) if told else "not resolved"
        for name in _SETTINGS
        if name != _FIRST
    }
    numbers = _numbers(areas, words, tasks_of)
    return Judgement(
        _whole([verdicts[name] for name in _ADAPTIVE]),
        tuple(Part(name, verdict) for name, verdict in verdicts.items()),
        numbers=tuple(numbers),
        tables=(_table(numbers, verdicts),),
        figures=(_figure(evidence, tasks_of),),
    )


def _numbers(
    areas: Mapping[tuple[str, str], Sequence[float]],
    words: Mapping[str, Comparison],
    tasks_of: Mapping[str, Sequence[Written]],
) -> list[Number]:
    first = tasks_of[_FIRST]
    found = [
        Number.mean(f"area_{name}_{who}", area, of=tasks_of[name])
        for (name, who), area in areas.items()
    ]
    return found + [
        Number.difference(
            f"gain_{name}_{who}", words[f"{name} {who}"], of=(*tasks_of[name], *first)
        )
        for name, who in areas
        if name != _FIRST
    ]


def _told(evidence: Evidence, found: Sequence[Written]) -> bool:
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


def _area(record: Record, judge: str, n_settings: int) -> float:
    if record.state != "done":
        return math.nan
    return dominated_area(frontier(record, judge, n_settings))


def _verdict(words: Mapping[str, Comparison], name: str) -> Verdict:
    """Return whether a sampler reaches further under both judges, or under neither."""
    found = {words[f"{name} {who}"].word for who in JUDGES}
    if found == {"higher"}:
        return "confirmed"
    if found == {"equivalent"}:
        return "equivalent"
    return "refuted" if found <= {"lower", "equivalent"} else "not resolved"


def _whole(verdicts: Sequence[Verdict]) -> Verdict:
    if set(verdicts) <= {"refuted", "equivalent"}:
        return "equivalent" if set(verdicts) == {"equivalent"} else "refuted"
    if set(verdicts) == {"confirmed"}:
        return "confirmed"
    return "holds only when" if "confirmed" in verdicts else "not resolved"


def _table(numbers: Sequence[Number], verdicts: Mapping[str, Verdict]) -> Table:
    named = {number.id: number for number in numbers}
    columns = [f"{kind}_{who}" for who in JUDGES for kind in ("area", "gain")]
    rows = [
        (
            name,
            *(named.get(_cell(name, column), "-") for column in columns),
            verdicts.get(name, "-"),
        )
        for name in _SETTINGS
    ]
    spec = dict.fromkeys(columns, ".3f")
    return Table("areas", ("sampler", *columns, "verdict"), tuple(rows), spec)


def _cell(name: str, column: str) -> str:
    kind, who = column.split("_", 1)
    return f"{kind}_{name}_{who}"


def _figure(evidence: Evidence, tasks_of: Mapping[str, Sequence[Written]]) -> Figure:
    """Return the frontier of each sampler under the first judge: means over the seeds."""
    rows = []
    for name, found in tasks_of.items():
        records = [(evidence[task], len(task.samplings)) for task in found]
        points = [frontier(r, JUDGES[0], n) for r, n in records if r.state == "done"]
        for seeds in zip(*points, strict=True):
            diversity, quality = (sum(axis) / len(axis) for axis in zip(*seeds, strict=True))
            rows.append({"sampler": name, "diversity": diversity, "quality": quality})
    return Figure("frontier", "lines", tuple(rows), "diversity", "quality", "sampler")


CLAIM = Claim(
    id="adaptive-temperature",
    section="8",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Zhang et al. 2024", "arXiv:2403.14541", "EDT"),
        Source("Nguyen et al. 2024", "arXiv:2407.01082", "min-p"),
        Source("Schaeffer et al. 2025", "arXiv:2506.13681", "a rebuttal of min-p's gain"),
        Source("Caccia et al. 2018", "arXiv:1811.02549", "sec. 3"),
    ),
)
