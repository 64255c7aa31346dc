"""Two seeds and four saved things: what they bring back to the bit, and what changes it."""

from collections.abc import Sequence
from typing import NamedTuple

from assay.config import RunConfig
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part, Table, Verdict
from assay.experiments.claims.bases import base
from assay.experiments.claims.verdicts import whole
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.repeat import Change, Repeat, RepeatPlain
from assay.source import Source

_STEPS: dict[Budget, int] = {"quick": 12, "laptop": 30, "full": 200}
_AGAIN: tuple[Change, ...] = ("nothing", "process", "torch-seed", "looks")
_EXECUTION: tuple[Change, ...] = ("threads", "compile", "micro-batches", "blocks", "bf16")
_WRITTEN: dict[str, str] = {
    "nothing": "—",
    "process": "python, PYTHONHASHSEED=4242",
    "torch-seed": "torch.manual_seed(4242)",
    "looks": "model.eval(), torch.rand(7)",
    "threads": "torch.set_num_threads(2)",
    "compile": "train.compile=on",
    "micro-batches": "train.micro_batches=2",
    "blocks": "train.attention=blocks",
    "bf16": "train.precision=bf16",
    "seed": "train.seed=1",
    "resumed": "model + AdamW → resume",
    "resumed-weights-only": "model → resume",
    "exact": "train.exact_rows=1: train.micro_batches=2",
    "plain-0": "torch.manual_seed(42): —",
    "plain-1": "torch.manual_seed(42): torch.rand(1)",
}


class Tasks(NamedTuple):
    """What is asked for at a budget, by what is changed."""

    again: dict[Change, Repeat]
    execution: dict[Change, Repeat]
    resumed: Repeat
    weights_only: Repeat
    other_seed: Repeat
    exact: Repeat
    plain: RepeatPlain
    plain_disturbed: RepeatPlain


def named(budget: Budget) -> Tasks:
    """Return the tasks; the quick budget compiles nothing, which alone would take all its time."""
    fields = {"train.steps": _STEPS[budget], "train.compile": "off", "train.device": "cpu"}
    run = base(budget, changes=fields)
    in_grains = base(budget, changes=fields | {"train.exact_rows": 1})
    execution = [way for way in _EXECUTION if way != "compile" or budget != "quick"]
    steps = _STEPS[budget]
    return Tasks(
        again=_changed(run, _AGAIN),
        execution=_changed(run, execution),
        resumed=Repeat(run=run, change="resumed"),
        weights_only=Repeat(run=run, change="resumed-weights-only"),
        other_seed=Repeat(run=run, change="seed"),
        exact=Repeat(run=in_grains, change="micro-batches"),
        plain=RepeatPlain(draws_between=0, steps=steps, width=64),
        plain_disturbed=RepeatPlain(draws_between=1, steps=steps, width=64),
    )


def _changed(run: RunConfig, changes: Sequence[Change]) -> dict[Change, Repeat]:
    return {change: Repeat(run=run, change=change) for change in changes}


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
        Part("again", _all(again) if not same(asked.other_seed) else "refuted"),
        Part("two_lines", _only_when(same(asked.plain), same(asked.plain_disturbed))),
        Part("execution", "refuted" if any(apart) else "confirmed"),
        Part("checkpoint", _only_when(same(asked.resumed), same(asked.weights_only))),
        Part("exact", _all([same(asked.exact)])),
    )
    largest = max(evidence[task].value("loss_apart") for task in asked.execution.values())
    return Judgement(
        whole([part.verdict for part in parts]),
        parts,
        numbers=(
            Number("steps", _STEPS[budget]),
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
        tables=(_table(evidence, asked),),
    )  # fmt: skip


def _all(answers: Sequence[bool]) -> Verdict:
    return "confirmed" if all(answers) else "refuted"


def _only_when(holds: bool, holds_without: bool) -> Verdict:
    """Return the verdict on what holds with a condition, perhaps without it too."""
    if not holds:
        return "refuted"
    return "confirmed" if holds_without else "holds only when"


def _table(evidence: Evidence, asked: Tasks) -> Table:
    changed = {**asked.again, **asked.execution}
    everything: dict[str, Task] = {
        **{str(name): task for name, task in changed.items()},
        "resumed": asked.resumed,
        "resumed-weights-only": asked.weights_only,
        "exact": asked.exact,
        "seed": asked.other_seed,
        "plain-0": asked.plain,
        "plain-1": asked.plain_disturbed,
    }
    rows: list[tuple[str | Number, ...]] = []
    for name, task in everything.items():
        record = evidence[task]
        first, second = (sha256[:8] for sha256 in record.values["sha256"])
        rows.append(
            (
                _WRITTEN[name],
                "=" if record.values["same"] else "≠",
                f"{first} {second}",
                Number(f"step_{name}", record.value("first_step_apart"), of=(task,)),
                Number(f"apart_{name}", record.value("loss_apart"), unit="nats", of=(task,)),
            )
        )
    columns = ("change", "bits", "hashes", "step", "apart")
    return Table("changes", columns, tuple(rows), {"step": ".0f", "apart": ".1e"})


CLAIM = Claim(
    id="reproducibility",
    section="A.5",
    tasks=tasks,
    judge=judge,
    sources=(Source("PyTorch 2.13", "https://pytorch.org/docs/stable/notes/randomness.html", ""),),
)
