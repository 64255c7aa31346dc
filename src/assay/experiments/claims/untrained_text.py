"""An untrained model writes short structure, then noise: by position, for each initialisation."""

from collections.abc import Mapping

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Verdict
from assay.experiments.claims.changes import against_zero
from assay.experiments.claims.untrained_arms import ARMS, STRETCHES, by_arm
from assay.experiments.claims.untrained_pictures import (
    INFORMATION,
    REPETITION,
    arms_table,
    numbers_of,
    stretches_figure,
    values_of,
)
from assay.experiments.claims.verdicts import whole
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.text import ByPosition

_DELTA = 0.05  # nats, of some ln 85 = 4.4


def tasks(budget: Budget, evidence: Evidence) -> list[ByPosition]:
    """Write with every initialisation, and with the trained base beside them."""
    return [task for found in by_arm(budget).values() for task in found]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Ask of each initialisation: is there structure early, and less of it late?"""
    arms = by_arm(budget)
    differences: dict[str, list[float]] = {}
    for arm, found in arms.items():
        early, late = (values_of(evidence, found, place) for place in (0, STRETCHES - 1))
        differences[f"early {arm}"] = early
        differences[f"late {arm}"] = late
        differences[f"fall {arm}"] = [a - b for a, b in zip(early, late, strict=True)]
    words = against_zero(differences, delta=_DELTA)
    verdicts = {arm: _verdict(words, arm) for arm in ARMS}
    lasting = all(words[f"{when} trained"].word == "higher" for when in ("early", "late"))
    numbers = numbers_of(words, arms, evidence)
    return Judgement(
        whole(list(verdicts.values())),
        (
            *(Part(arm, verdict) for arm, verdict in verdicts.items()),
            Part("trained", "confirmed" if lasting else "not resolved"),
        ),
        numbers=(*numbers.values(), Number("delta", _DELTA)),
        tables=(arms_table(numbers, verdicts),),
        figures=tuple(
            stretches_figure(name, figure, arms, evidence)
            for name, figure in (("information", INFORMATION), ("repetition", REPETITION))
        ),
    )


def _verdict(words: Mapping[str, Comparison], arm: str) -> Verdict:
    """Return whether text begins with structure and loses it.

    Refuted where it has none to begin with, or keeps (or gains) what it has.
    """
    early, fall = words[f"early {arm}"].word, words[f"fall {arm}"].word
    if early == fall == "higher":
        return "confirmed"
    none = ("equivalent", "lower")
    return "refuted" if early in none or fall in none else "not resolved"


CLAIM = Claim(
    id="untrained-text",
    section="4.3",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Shannon 1951", "doi:10.1002/j.1538-7305.1951.tb01366.x", "eq. 1"),),
)
