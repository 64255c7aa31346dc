"""Copy, reverse and addition beyond the lengths trained on: does no position extrapolate best?"""

from collections.abc import Mapping, Sequence

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Part, Verdict
from assay.experiments.claims.answer_pictures import answers_table, lengths_figure
from assay.experiments.claims.answers import BEYOND, WITHIN, Answered, Found, asked
from assay.experiments.claims.changes import against
from assay.experiments.claims.verdicts import all_of, of_words, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task

_DELTA_SHARE = 0.05
_LEARNT = 0.5


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask every encoding's models every task."""
    every = asked(budget)
    return [task for by_kind in every.values() for each in by_kind.values() for task in each]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Confirm if models without positions answer longer problems more often than all others."""
    found: Found = {
        problem: {kind: Answered.read(evidence, each) for kind, each in by_kind.items()}
        for problem, by_kind in asked(budget).items()
    }
    parts = tuple(Part(problem, _verdict(arms)) for problem, arms in found.items())
    numbers = {
        name: arm.number(name, lengths)
        for problem, arms in found.items()
        for kind, arm in arms.items()
        for name, lengths in (
            (f"{problem}_{kind}_within", WITHIN),
            (f"{problem}_{kind}", BEYOND),
        )
    }
    judged = [part.verdict for part in parts if part.verdict != "not testable here"]
    return Judgement(
        whole(judged) if judged else "not testable here",
        parts,
        numbers=tuple(numbers.values()),
        tables=(answers_table(found, numbers),),
        figures=(lengths_figure(found),),
    )


def _verdict(arms: Mapping[str, Answered]) -> Verdict:
    """Judge a task among the encodings that learnt it; no judgement where `none` did not."""
    learnt = [kind for kind, arm in arms.items() if arm.number("", WITHIN).value >= _LEARNT]
    if "none" not in learnt or len(learnt) < 2:
        return "not testable here"
    beyond = {kind: arms[kind].shares(BEYOND) for kind in learnt}  # `none` is named first
    found = against(beyond, delta=_DELTA_SHARE)
    return all_of([of_words([each.word], "lower") for each in found.values()])


CLAIM = Claim(
    id="position-tasks",
    section="5.1",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Kazemnejad et al. 2023", "arXiv:2305.19466", "sec. 4"),),
)
