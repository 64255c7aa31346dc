"""Two seeds and four saved things: what they bring back to the bit, and what changes it."""

from collections.abc import Sequence

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Verdict
from assay.experiments.claims.repeat_arms import STEPS, named
from assay.experiments.claims.repeat_pictures import changes_table
from assay.experiments.claims.verdicts import of_facts, whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Ask for every repetition."""
    again, execution, *others = named(budget)
    return [*again.values(), *execution.values(), *others]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Compare hashes of all weights; another seed is the control, which must differ."""
    asked = named(budget)

    def same(task: Task) -> bool:
        return bool(evidence[task].values["same"])

    again = [same(task) for task in asked.again.values()]
    apart = [not same(task) for task in asked.execution.values()]
    parts = (
        Part("again", of_facts(again) if not same(asked.other_seed) else "refuted"),
        Part("two_lines", _only_when(same(asked.plain), same(asked.plain_disturbed))),
        Part("execution", of_facts([not each for each in apart])),
        Part("checkpoint", _only_when(same(asked.resumed), same(asked.weights_only))),
        Part("exact", of_facts([same(asked.exact)])),
    )
    largest = max(evidence[task].value("loss_apart") for task in asked.execution.values())
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            Number("steps", STEPS[budget]),
            Number("again_same", sum(again), of=tuple(asked.again.values())),
            Number("again_all", len(again)),
            Number("plain_same", float(same(asked.plain)), of=(asked.plain,)),
            Number("disturbed_same", float(same(asked.plain_disturbed)),
                   of=(asked.plain_disturbed,)),
            Number("execution_apart", sum(apart), of=tuple(asked.execution.values())),
            Number("execution_all", len(apart)),
            Number("largest", largest, unit="nats", of=tuple(asked.execution.values())),
            Number("resumed_same", float(same(asked.resumed)), of=(asked.resumed,)),
            Number("weights_apart", evidence[asked.weights_only].value("loss_apart"),
                   unit="nats", of=(asked.weights_only,)),
            Number("exact_same", float(same(asked.exact)), of=(asked.exact,)),
            Number("seed_apart", evidence[asked.other_seed].value("loss_apart"), unit="nats",
                   of=(asked.other_seed,)),
        ),
        tables=(changes_table(evidence, asked),),
    )  # fmt: skip


def _only_when(holds: bool, holds_without: bool) -> Verdict:
    """Return the verdict on what holds with a condition, perhaps without it too."""
    if not holds:
        return "refuted"
    return "confirmed" if holds_without else "holds only when"


CLAIM = Claim(
    id="reproducibility",
    section="A.5",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("PyTorch 2.13", "https://pytorch.org/docs/stable/notes/randomness.html", ""),
    ),
)
