"""Chatbots use temperatures in [0.7, 1.0]: a report about products, which no run here can test."""

from collections.abc import Sequence

from assay.experiments.claim import Budget, Claim, Judgement
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Name nothing: there is nothing to compute."""
    return []


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Say that it cannot be tested here."""
    return Judgement("not testable here", parts=())


CLAIM = Claim(id="chat-range", section="5.4", tasks=tasks, judge=judge)
