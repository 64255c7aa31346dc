"""Adaptive temperature, the article's future work: does it reach further than a fixed one?"""

from collections.abc import Mapping, Sequence

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Part, Verdict
from assay.experiments.claims.changes import against_zero
from assay.experiments.claims.sampler_pictures import areas_table, frontier_figure, numbers_of
from assay.experiments.claims.samplers import FIRST, SETTINGS, area_of, by_sampler, told_apart
from assay.experiments.claims.writers import JUDGES
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.text import Written

_ADAPTIVE = ("entropy", "edt", "dynatemp")
_DELTA = 0.02  # of the area that people's text would have


def tasks(budget: Budget, evidence: Evidence) -> list[Written]:
    """Write with every setting of every sampler."""
    return [task for found in by_sampler(budget).values() for task in found]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Compare every sampler's area with that of a fixed temperature, under both judges."""
    tasks_of = by_sampler(budget)
    areas = {
        (name, who): [area_of(evidence[task], who, len(task.samplings)) for task in found]
        for name, found in tasks_of.items()
        for who in JUDGES
    }
    gains = {
        f"{name} {who}": [a - b for a, b in zip(area, areas[FIRST, who], strict=True)]
        for (name, who), area in areas.items()
        if name != FIRST
    }
    words = against_zero(gains, delta=_DELTA)
    told = told_apart(evidence, tasks_of[FIRST])
    verdicts: dict[str, Verdict] = {
        name: _verdict(words, name) if told else "not resolved"
        for name in SETTINGS
        if name != FIRST
    }
    numbers = numbers_of(areas, words, tasks_of)
    return Judgement(
        _whole([verdicts[name] for name in _ADAPTIVE]),
        tuple(Part(name, verdict) for name, verdict in verdicts.items()),
        numbers=tuple(numbers),
        tables=(areas_table(numbers, verdicts),),
        figures=(frontier_figure(evidence, tasks_of),),
    )


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


CLAIM = Claim(
    id="adaptive-temperature",
    section="8",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Zhang et al. 2024", "arXiv:2403.14541", "EDT"),
        Citation("Nguyen et al. 2024", "arXiv:2407.01082", "min-p"),
        Citation("Schaeffer et al. 2025", "arXiv:2506.13681", "a rebuttal of min-p's gain"),
        Citation("Caccia et al. 2018", "arXiv:1811.02549", "sec. 3"),
    ),
)
