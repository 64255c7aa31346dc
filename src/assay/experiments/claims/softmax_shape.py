"""The output is sparse, a few tokens dominate, most are near 1/V: untrained and trained."""

from collections.abc import Sequence
from dataclasses import replace

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.softmax_arms import BPE, VOCABULARIES, Looks, looks
from assay.experiments.claims.softmax_pictures import FIELDS, shapes_table, shares_figure
from assay.experiments.claims.verdicts import above, of_answers
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task

_MOST = 0.5  # of the mass in ten tokens; of the vocabulary near 1/V


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Look at what untrained and trained models predict."""
    return [task for tasks in looks(budget).values() for task in tasks]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Ask of every arm whether ten tokens hold half the mass, and whether most are near 1/V."""
    found = {
        arm: {field: _mean(evidence, arm, tasks, field) for field in FIELDS}
        for arm, tasks in looks(budget).items()
    }
    few = {arm: above(numbers["top10_mass"], _MOST) for arm, numbers in found.items()}
    near = {arm: above(numbers["near_uniform_share"], _MOST) for arm, numbers in found.items()}
    both = [_and(few[arm], near[arm]) for arm in found]
    untrained = [arm for arm in found if not arm.startswith("trained")]
    gpt2 = f"gpt2, V {VOCABULARIES[budget][-1]}"
    appendix = f"appendix, V {VOCABULARIES[budget][-1]}"
    bpe = f"trained, BPE {BPE[budget]}"
    return Judgement(
        of_answers(both),
        parts=(
            Part("few_untrained", of_answers([few[arm] for arm in untrained])),
            Part("near_untrained", of_answers([near[arm] for arm in untrained])),
            Part("few_trained", of_answers([few[arm] for arm in found if arm not in untrained])),
            Part("near_trained", of_answers([near[arm] for arm in found if arm not in untrained])),
            Part("both", of_answers(both)),
        ),
        numbers=(
            *(
                replace(each, id=f"{short}_{field}")
                for short, arm in (("gpt2", gpt2), ("appendix", appendix), ("bpe", bpe))
                for field, each in found[arm].items()
            ),
            Number("arms", len(found)),
            Number("arms_both", sum(answer is True for answer in both)),
            Number("largest", VOCABULARIES[budget][-1]),
            Number("uniform_top10", 10 / VOCABULARIES[budget][-1]),
            Number("bpe", BPE[budget]),
        ),
        tables=(shapes_table(found),),
        figures=(shares_figure(found, _MOST),),
    )


def _and(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _mean(evidence: Evidence, arm: str, tasks: Looks, field: str) -> Number:
    return Number.mean(f"{_slug(arm)}_{field}", evidence.values(tasks, field), of=tasks)


def _slug(arm: str) -> str:
    """Return the name of an arm as an id may hold it."""
    return arm.replace(",", "").replace(" ", "-").lower()


CLAIM = Claim(
    id="softmax-shape",
    section="4.2",
    tasks=tasks,
    judge=judge,
    sources=(Citation("Gini 1921", "doi:10.2307/2223319", "the coefficient"),),
)
